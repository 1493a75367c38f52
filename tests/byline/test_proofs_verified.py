"""What the notary publishes holds before the offline verifier, and a changed proof does not.

The verifier shares no code with the notary: it was written from docs/proofs.md alone.
"""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from byline.archive.database import Archive
from byline.notary.log_keys import rotate
from byline.statements import frozen as store
from byline.statements.freezing import Freezer
from byline.transparency.proofs import shown_to_application
from tests.byline.journals import DAY_MS
from tests.byline.logs import Log, a_log
from tests.byline.months import ANN, HOST, NOVEMBER, OCTOBER, FakeBank, export

pytestmark = pytest.mark.anyio

VERIFIER = Path(__file__).parents[2] / "src" / "byline" / "verification"


def verify(policy: Path, *arguments: Path | str) -> tuple[int, str]:
    """Status and words of the verifier, run as an outsider runs it."""
    command = [sys.executable, "-I", str(VERIFIER), *map(str, arguments), "--policy", str(policy)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def key_of(log: Log) -> Path:
    """A file with the log's key as it is now."""
    path = log.root / "log.vkey"
    path.write_text(log.keys.newest.verifier.text() + "\n")
    return path


async def test_every_line_and_every_entry_of_a_history_verifies_under_the_first_key(
    tmp_path: Path,
) -> None:
    log = a_log(tmp_path)
    await log.export()
    await log.notary().once(entries_max=5)
    trusted, older = key_of(log), tmp_path / "older.checkpoint"
    older.write_text(log.folder.checkpoint() or "")
    old = log.folder.head("log.example/usd").size
    rotate(log.private)  # from here on heads carry both signatures
    await log.notarise()
    (log.private / "log-001.key").unlink()  # and from here on the new one alone
    log.journal.append("x/adjust/0", "adjust", {"host": -5, "platform": 5})
    await log.export()
    await log.notarise()
    reader, files = log.reader(), []
    for entry in map(json.loads, log.journal.texts):
        seq, shown = entry["seq"], shown_to_application(reader.entry(entry["seq"]).entry)
        files.append(tmp_path / f"{seq}.tlog-proof")
        files[-1].write_text(reader.entry_proof(seq, sorted(shown), with_manifest=True))
        for at, (account, _) in enumerate(entry["legs"]):
            files.append(tmp_path / f"{seq}-{at}.tlog-proof")
            files[-1].write_text(reader.line_proof(seq, account))
    files.append(tmp_path / "newer.consistency")
    files[-1].write_text(reader.consistency_from(old))
    assert verify(trusted, *files, "--against", older)[0] == 0


async def test_a_leg_that_was_changed_does_not_verify(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    await log.export()
    await log.notarise()
    proof = log.reader().line_proof(1, "app:demo")
    extra = proof.split("extra ")[1].split("\n")[0]
    opening = base64.b64decode(extra).decode()
    changed = base64.b64encode(opening.replace("1000000000", "2000000000").encode()).decode()
    file = tmp_path / "line.tlog-proof"
    for text, status in ((proof, 0), (proof.replace(extra, changed), 1)):
        file.write_text(text)
        assert verify(key_of(log), file)[0] == status


async def test_statements_verify_with_all_their_lines_and_follow_each_other(tmp_path: Path) -> None:
    bank = FakeBank()
    for month in (OCTOBER, NOVEMBER):
        for day in range(9):
            bank.earn(ANN, 1_000 + day, month.start_ms + day * DAY_MS)
            bank.earn(HOST, 50, month.start_ms + day * DAY_MS + 1)
    archive = Archive.open(f"sqlite:///{tmp_path}/archive.sqlite")
    export(archive, bank)
    log, files = Log(tmp_path, bank, archive), []
    for month in (OCTOBER, NOVEMBER):
        Freezer(archive).freeze_all(month, now_ms=month.end_ms + DAY_MS)
    await log.notarise(entries_max=100)
    for month in (OCTOBER, NOVEMBER):
        frozen = store.find(archive, "usd", ANN, month)
        lines = log.reader().statement_proof(ANN, str(month), (frozen.from_seq, frozen.to_seq))
        files += [tmp_path / f"{month}.tlog-proofs", tmp_path / f"{month}.json"]
        files[-2].write_text("".join(lines))
        files[-1].write_text(store.text_of(archive, frozen))
    status, said = verify(key_of(log), *files)
    assert status == 0, said
    assert "18 lines of 'contrib:ann', 1 to 18: none left out" in said
    cut = files[0].read_text().splitlines(keepends=True)
    files[0].write_text("".join(cut[:4] + cut[5:]))
    assert verify(key_of(log), files[0])[0] == 1


OFFLINE = """
import runpy, sys
def refuse(event, _):
    if event.startswith("socket."):
        sys.exit("it asked the network")
sys.addaudithook(refuse)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


async def test_the_verifier_asks_nobody(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    await log.export()
    await log.notarise()
    proof = tmp_path / "one.tlog-proof"
    proof.write_text(log.reader().line_proof(1, "app:demo"))
    asking = tmp_path / "asking.py"
    asking.write_text("import socket; socket.getaddrinfo('localhost', 80)")
    for program, status in ((VERIFIER, 0), (asking, 1)):
        paths = map(str, (program, proof, "--policy", key_of(log)))
        command = [sys.executable, "-I", "-c", OFFLINE, *paths]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == status, ended.stderr
        assert ("it asked the network" in ended.stderr) == bool(status)
