"""The page finds in a browser what the program finds: on every good file and on every changed one.

A third reading of docs/proofs.md: the page's code shares nothing with the program's.
"""

import base64
import functools
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

import byline.verification
from byline.verification.policies import Policy
from byline.verification.replay import replay
from tests.byline.proof_writer import Writer
from tests.byline.test_replay import a_short_log, another_log, written, wrong_books
from tests.byline.test_replay import changes as export_changes
from tests.byline.test_verification import ALICE, FIRST_INFERENCE, HOSTILE_POLICIES, hostile
from tests.byline.test_verification_attacks import ATTACKS
from tests.byline.test_verification_changes import Case, cases, cut, log

FOLDER = Path(byline.verification.__file__).parent / "page"
CHROMIUM = shutil.which("chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: `make test-servers` gets it"),
]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page()
        page.goto((FOLDER / "index.html").as_uri())
        yield page
        browser.close()


CHECK = """async ([all, policy]) => {
  const holds = [];
  for (const [files, older] of all)
    holds.push((await byline.check(files, policy, older)).holds);
  return holds;
}"""


def held(page: Page, all_files: list[dict[str, str]], policy: str) -> list[bool]:
    """Which of these sets of files the page takes for good."""
    found: list[bool] = []
    for start in range(0, len(all_files), 200):
        some = all_files[start : start + 200]
        asked = [
            [[[name, text] for name, text in files.items() if name != "older"], files.get("older")]
            for files in some
        ]
        found += page.evaluate(CHECK, [asked, policy])
    return found


@pytest.mark.parametrize("name", cases())
def test_no_single_change_leaves_a_proof_standing_in_the_browser(page: Page, name: str) -> None:
    case: Case = cases()[name]
    files, which, changes = case
    assert held(page, [files], log().policy) == [True]
    changed = list(changes(files[which]))
    verdicts = held(page, [{**files, which: text} for _, text in changed], log().policy)
    assert not [place for (place, _), holds in zip(changed, verdicts, strict=True) if holds]


@pytest.mark.parametrize("name", ["line", "statement", "receipt", "history"])
def test_no_file_that_was_cut_off_stands_in_the_browser(page: Page, name: str) -> None:
    files, which, _ = cases()[name]
    shorter = [{**files, which: text} for text in cut(files[which])]
    assert not any(held(page, shorter, log().policy))


SENTENCES = """async ([files, policy, older]) =>
  (await byline.check(files, policy, older)).said.map(({mark, sentence}) => [mark, sentence])"""


@pytest.mark.parametrize("name", ATTACKS)
def test_the_page_refuses_what_is_rightly_signed_and_wrong(page: Page, name: str) -> None:
    attack = ATTACKS[name]()
    said = page.evaluate(SENTENCES, [[*attack.files.items()], attack.policy, attack.older])
    (failed,) = [sentence for mark, sentence in said if mark == "FAILED"]
    assert failed.endswith(attack.sentence)


def everything(made: Writer) -> dict[str, str]:
    entries = made.entries
    october, table = made.statement(ALICE, "2026-10")
    return {
        "october.tlog-proofs": october, "october.json": table,
        "november.tlog-proofs": made.statement(ALICE, "2026-11")[0],
        "paid.tlog-proof": made.line(entries[22], ALICE, show=True),
        "again.tlog-proof": made.line(entries[49], ALICE, show=True),
        "capture.tlog-proof": made.entry(entries[2], ["platform"]),
        "settle.tlog-proof": made.line(entries[3], ALICE),
        "one.receipt": made.receipt(FIRST_INFERENCE, entries[2], [entries[3]]),
        "from30.consistency": made.consistency(30),
    }  # fmt: skip


def test_dropped_files_get_the_programs_sentences_and_a_verdict(page: Page, tmp_path: Path) -> None:
    from byline.verification.program import check

    files = everything(log())
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    (tmp_path / "older").write_text(log().head(30, keys=log().keys[:1]), newline="")
    page.reload()
    page.fill("#policy", log().policy)
    page.set_input_files("#older", tmp_path / "older")
    page.set_input_files("#files", [tmp_path / name for name in files])
    expect(page.locator("#verdict")).to_have_text(
        re.compile("^All of it holds; in brackets, [0-9]+ not shown[.]$")
    )
    paths = [tmp_path / name for name in files]
    found = check(paths, Policy(log().policy), tmp_path / "older")
    sentences = [s for s in (s for _, s in found.said) if not s.endswith(":")]
    shown = [s for s in page.locator("#said li").all_text_contents() if not s.endswith(":")]
    assert sorted(shown) == sorted(sentences)
    assert "never recorded" in page.inner_text("body")

    bad = tmp_path / "settle.tlog-proof"
    bad.write_text(files["capture.tlog-proof"].replace("index 2", "index 3"), newline="")
    page.set_input_files("#files", bad)
    expect(page.locator("#verdict")).to_have_class("fails")
    assert "FAILED" in page.inner_text("#said")


REPLAY = """async ([files, all, policy]) => {
  const blob = (raw) => new Blob([Uint8Array.from(atob(raw), (c) => c.charCodeAt(0))]);
  const folder = new Map(Object.entries(files).map(([path, raw]) => [path, blob(raw)]));
  const found = [];
  for (const [path, raw] of all) {
    const changed = new Map([...folder, [path, blob(raw)]]);
    found.push((await byline.replay("export", changed, policy)).said.map((each) => each.sentence));
  }
  return found;
}"""


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_the_page_finds_each_change_of_an_export_in_the_programs_words(
    page: Page, tmp_path: Path
) -> None:
    log = Writer(newest_alone=True)
    a_short_log(log)
    files, policy, folder = log.files(), Policy(log.policy), tmp_path / "export"
    written(folder, files)
    made = [change for change in export_changes(log) if change[2] != files[change[1]]]
    asked = [(name, encoded(data)) for _, name, data in made]
    asked.append(("openings.jsonl", encoded(files["openings.jsonl"])))  # nothing is changed
    raw = {name: encoded(data) for name, data in files.items()}
    found = [
        sentences
        for start in range(0, len(asked), 200)
        for sentences in page.evaluate(REPLAY, [raw, asked[start : start + 200], log.policy])
    ]
    assert found.pop() == [sentence for _, sentence in replay(folder, policy)[0].said]
    assert len(found) > 500
    for (place, name, data), sentences in zip(made, found, strict=True):
        (folder / name).write_bytes(data)
        refused = replay(folder, policy)[0].failed
        (folder / name).write_bytes(files[name])
        assert refused, f"{name}: {place}"
        assert sentences[-1].removeprefix("export") == refused[0].removeprefix(str(folder))


def test_the_page_finds_wrong_books_though_rightly_signed(page: Page) -> None:
    for sentence, wrong in wrong_books().items():
        raw = {name: encoded(data) for name, data in wrong.files().items()}
        asked = [("checkpoint", raw["checkpoint"])]
        [said] = page.evaluate(REPLAY, [raw, asked, wrong.policy])
        assert said[-1].endswith(sentence)


def test_a_chosen_export_is_replayed_to_its_balances(page: Page, tmp_path: Path) -> None:
    folder = written(tmp_path / "export", log().files())
    page.reload()
    page.fill("#policy", log().policy)
    page.set_input_files("#export", folder)
    expect(page.locator("#verdict")).to_have_text("All of it holds.")
    found, balances = replay(folder, Policy(log().policy))
    assert page.locator("#said li").all_text_contents() == [sentence for _, sentence in found.said]
    rows = [row.split() for row in page.inner_text("#balances").splitlines()]
    assert rows == [[f"{nano:,}", account] for account, nano in sorted(balances.items())]
    assert len(rows) == 8

    for made, verdict in (another_log(), "fails"), (log(), "holds"):
        older = tmp_path / f"older that {verdict}"
        older.write_text(made.head(30, keys=log().keys[:1]), encoding="utf-8", newline="")
        page.set_input_files("#older", older)
        expect(page.locator("#verdict")).to_have_class(verdict)
        told = [sentence for _, sentence in replay(folder, Policy(log().policy), older)[0].said]
        shown = page.locator("#said li").all_text_contents()
        assert [each.removeprefix("FAILED: export") for each in shown] == [
            each.removeprefix(str(folder)) for each in told
        ]
        assert ("FORK" in shown[-1]) == (verdict == "fails")
    page.set_input_files("#older", [])

    (folder / "openings.jsonl").unlink()
    page.set_input_files("#export", folder)
    expect(page.locator("#verdict")).to_have_class("fails")
    assert page.inner_text("#balances") == ""
    page.click("#empty")
    expect(page.locator("#verdict")).to_be_empty()


def test_a_hostile_file_or_policy_ends_in_a_sentence(page: Page, tmp_path: Path) -> None:
    key = log().keys[0].vkey
    texts = [raw.decode("utf-8", "replace") for raw in hostile(log()).values()]
    assert not any(held(page, [{"one": text} for text in texts], key))
    for policy in HOSTILE_POLICIES:
        text = policy.format(log=key, witness=log().witnesses[0].vkey)
        assert held(page, [{"head": log().head(keys=log().keys[:1])}], text) == [False]
    page.fill("#policy", key)
    binary = tmp_path / "no.text"
    binary.write_bytes(b"\xff\xfe")
    page.set_input_files("#files", binary)
    expect(page.locator("#verdict")).to_have_class("fails")


def test_the_page_works_from_any_static_server_and_asks_nobody(page: Page, tmp_path: Path) -> None:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Handler, directory=str(FOLDER))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proof = tmp_path / "settle.tlog-proof"
    proof.write_text(log().line(log().entries[3], ALICE), newline="")
    browser = page.context.browser
    assert browser is not None
    served, asked = browser.new_page(), list[str]()
    try:
        served.on("request", lambda request: asked.append(request.url))
        served.goto(f"http://127.0.0.1:{server.server_port}/")
        served.fill("#policy", log().policy)
        served.set_input_files("#files", proof)
        expect(served.locator("#verdict")).to_have_text(
            re.compile("^All of it holds; in brackets, [0-9]+ not shown[.]$")
        )
        assert {url.rpartition("/")[2] for url in asked} <= {
            "",
            "verify.js",
            "replay.js",
            "favicon.ico",
        }
    finally:
        served.close()
        server.shutdown()
        server.server_close()
