"""What this log's own programs write, the verifier holds for good: proofs, statements, receipts."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from byline.archive.database import Archive
from byline.notary.log_keys import rotate
from byline.statements import frozen as store
from byline.statements.freezing import Freezer
from byline.transparency.notes import SigningKey
from byline.transparency.receipts import receipt_key_name, receipt_text
from byline.verification.files import Files
from byline.verification.policies import Policy
from byline.verification.program import check
from tests.byline.journals import DAY_MS
from tests.byline.logs import ORIGIN, Log, a_log
from tests.byline.months import ANN, NOVEMBER, OCTOBER, FakeBank, export

pytestmark = pytest.mark.anyio


def checked(folder: Path, files: dict[str, str], policy: str, older: str | None = None) -> Files:
    paths = []
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
        paths.append(folder / name)
    if older is not None:
        (folder / "older").write_text(older, newline="")
    return check(paths, Policy(policy), None if older is None else folder / "older")


def keys_of(log: Log, *further: SigningKey) -> str:
    keys: Sequence[SigningKey] = (*log.keys.keys[:1], *further)
    return "\n".join(key.verifier.text() for key in keys)


async def test_every_line_and_entry_holds_before_and_after_a_new_key(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    await log.export()
    await log.notarise()
    reader, files = log.reader(), {}
    older = reader.view().checkpoint
    size = reader.view().head.size
    rotate(log.private)
    await log.notarise()
    for text in log.journal.texts:
        fields = json.loads(text)
        accounts = [account for account, _ in fields["legs"]]
        seq = fields["seq"]
        has_manifest = fields["manifest_sha256"] is not None
        files[f"entry-{seq}"] = reader.entry_proof(seq, accounts, with_manifest=has_manifest)
        files |= {f"{seq}-{n}": reader.line_proof(seq, a) for n, a in enumerate(accounts)}
    files["history"] = reader.consistency_from(size)
    found = checked(tmp_path, files, keys_of(log), older)
    assert not found.failed
    assert len(found.entries) == len(log.journal.texts)
    assert any("announces key" in sentence for _, sentence in found.said)


async def test_statements_hold_with_their_json_and_follow_each_other(
    tmp_path: Path,
) -> None:
    bank = FakeBank()
    for month in (OCTOBER, NOVEMBER):
        for day in range(9):
            bank.earn(ANN, 1_000 + day, month.start_ms + day * DAY_MS)
        bank.lose(ANN, 7, month.start_ms + 20 * DAY_MS)
    archive = Archive.open(f"sqlite:///{tmp_path}/archive.sqlite")
    export(archive, bank)
    files: dict[str, str] = {}
    for month in (OCTOBER, NOVEMBER):
        Freezer(archive).freeze_all(month, now_ms=month.end_ms + DAY_MS)
    log = Log(tmp_path, bank, archive)
    await log.notarise(entries_max=100)
    for month in (OCTOBER, NOVEMBER):
        frozen = store.find(archive, "usd", ANN, month)
        proof = log.reader().statement_proof(ANN, str(month), (frozen.from_seq, frozen.to_seq))
        text = store.text_of(archive, frozen)
        files |= {f"{month}.tlog-proofs": "".join(proof), f"{month}.json": text}
    found = checked(tmp_path, files, keys_of(log))
    assert not found.failed
    said = "\n".join(sentence for _, sentence in found.said)
    assert said.count("are those that are proven") == 2
    assert "the statements for 2026-10 and 2026-11 follow each other" in said


async def test_a_receipt_is_held_against_the_log(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    await log.export()
    await log.notarise()
    key = SigningKey.new(receipt_key_name(ORIGIN))
    entry = next(e for e in map(json.loads, log.journal.texts) if e["kind"] == "capture")
    proof = log.reader().entry_proof(entry["seq"], ["platform"], with_manifest=True)
    promise = {
        "v": 1, "inference": entry["inference"], "application": "demo", "model": "auto",
        "served_by": "x", "adapter_version": entry["adapter_version"], "index": None,
        "base_model": "b", "policy": entry["policy"], "prompt_tokens": 1,
        "completion_tokens": [1], "charge": entry["charge"], "state": "captured", "time_ms": 1,
        "capture": {"key": entry["key"], "manifest_sha256": entry["manifest_sha256"]},
        "settles": [],
    }  # fmt: skip
    good = {"proof": proof, "receipt": receipt_text(promise, key)}
    assert not checked(tmp_path, good, keys_of(log, key)).failed
    dearer = {"proof": proof, "receipt": receipt_text({**promise, "charge": "7"}, key)}
    (failed,) = checked(tmp_path, dearer, keys_of(log, key)).failed
    assert "7 was promised" in failed
