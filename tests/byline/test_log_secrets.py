"""Who can read what of a log: what gateways read opens what is logged, signs no head, and opens
nothing that is logged later.
"""

import hmac
import json
import os
import shutil
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from byline.archive.database import Archive
from byline.errors import BylineError, StartFailed
from byline.home import Home
from byline.notary.log_keys import LOG, RECEIPTS, SALTS, receipt_keys, rotate
from byline.notary.reader import LogReader
from byline.notary.state import STATE, State
from byline.transparency.leaves import EntrySalts, Salts
from tests.byline.logs import ORIGIN, Log, a_log, published

pytestmark = pytest.mark.anyio

NOBODY = 65_534


@pytest.fixture
async def log(tmp_path: Path) -> Log:
    made = a_log(tmp_path)
    await made.export()
    await made.notarise()
    return made


def secret_of(log: Log) -> bytes:
    return b64decode((log.private / SALTS).read_text())


def opened_legs(log: Log, seqs: Iterator[int] | range) -> list[tuple[str, dict[str, str]]]:
    """Each entry's event key with each of its legs, opened."""
    reader = log.reader()
    found = [reader.entry(seq) for seq in seqs]
    reader.close()
    return [(each.entry.key, json.loads(text)) for each in found for text in each.leaf.texts]


async def test_what_the_notary_keeps_to_itself_is_for_nobody_else(log: Log) -> None:
    rotate(log.private, LOG)
    assert {path.name for path in log.private.iterdir()} == {"log-001.key", "log-002.key", SALTS}
    assert log.private.stat().st_mode & 0o777 == 0o700
    for path in log.private.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


async def test_what_makes_proofs_and_receipts_is_for_the_group_to_read(log: Log) -> None:
    rotate(log.openings, RECEIPTS)
    names = {path.name for path in log.openings.iterdir()}
    assert names == {"receipts-001.key", "receipts-002.key", STATE}
    assert log.openings.stat().st_mode & 0o777 == 0o750
    for path in log.openings.glob("receipts-*"):
        assert path.stat().st_mode & 0o777 == 0o640, path
    assert (log.openings / STATE).stat().st_mode & 0o040


async def test_every_proof_is_made_without_the_notarys_own_folder(log: Log) -> None:
    entries = [json.loads(text) for text in log.journal.texts]
    asked = [(entry["seq"], entry["legs"][0][0]) for entry in entries if entry["legs"]]
    before = [log.reader().line_proof(*each) for each in asked]
    shutil.rmtree(log.private.parent)
    reader = log.reader()
    assert [reader.line_proof(*each) for each in asked] == before
    for seq, account in asked:
        assert reader.entry_proof(seq, [account], with_manifest=True)
    assert reader.consistency_from(5)
    assert receipt_keys(log.openings, ORIGIN)
    reader.close()


async def test_every_salt_comes_from_the_logs_secret(log: Log) -> None:
    """HMAC(HMAC(secret, entry || key), leg || account): from the journal and 32 bytes alone."""

    def mac(secret: bytes, *words: str) -> bytes:
        return hmac.new(secret, "\0".join(words).encode(), "sha256").digest()

    legs = opened_legs(log, range(1, len(log.journal.texts) + 1))
    assert len(legs) > 50
    for key, leg in legs:
        entrys = mac(secret_of(log), "entry", key)
        assert leg["salt"] == mac(entrys, "leg", leg["account"]).hex()
    settle = next(e for e in map(json.loads, log.journal.texts) if e["kind"] == "settle")
    salt = mac(mac(secret_of(log), "entry", settle["key"]), "manifest")
    committed = sha256(b"\x04" + salt + bytes.fromhex(settle["manifest_sha256"])).hexdigest()
    leaf = log.reader().entry(settle["seq"]).leaf
    assert json.loads(leaf.data)["manifest"] == committed


async def test_what_a_gateway_had_opens_no_entry_that_is_logged_later(tmp_path: Path) -> None:
    """All secrets that it has, tried on every later leg as the log's and as the entry's own."""
    log = a_log(tmp_path)
    await log.export()
    notary, newest = log.notary(), len(log.journal.texts)
    await notary.once(entries_max=newest // 2)
    state = State.read(log.openings)
    had = [state.entry(seq).salts.secret for seq in range(1, newest // 2 + 1)]
    state.close()
    had += [b64decode(path.read_text()) for path in log.openings.glob("*.key")]
    await log.notarise(notary)
    later = opened_legs(log, range(newest // 2 + 1, newest + 1))
    assert len(later) > 20
    for key, leg in later:
        for secret in had:
            entrys = (EntrySalts(secret), Salts(secret).of_entry(key))
            assert leg["salt"] not in [salts.of_leg(leg["account"]).hex() for salts in entrys]


async def test_no_file_for_others_has_a_private_key_or_the_secret(log: Log) -> None:
    private = [path.read_bytes().strip() for path in log.private.glob("[ls]*.[ks]e*")]
    assert len(private) == 2
    forms = {form for text in private for form in (text, b64decode(text), b64decode(text).hex())}
    shared = [path for path in log.root.rglob("*") if path.is_file() and path.parent != log.private]
    assert len(shared) > 5
    for path in shared:
        data = path.read_bytes()
        for form in forms:
            assert (form if isinstance(form, bytes) else form.encode()) not in data, path


async def test_a_lost_secret_ends_nothing(log: Log) -> None:
    """What is logged opens by the entries' own secrets; what comes gets them from a new one."""
    (log.private / SALTS).unlink()
    log.journal.append("x/adjust/0", "adjust", {"host": 5, "platform": -5})
    await log.export()
    await log.notarise()
    shutil.rmtree(log.folder.root / "tile")
    await log.notarise()  # and lost files are made again
    published(log.folder)
    assert len(opened_legs(log, range(1, len(log.journal.texts) + 1))) > 50


async def test_a_log_from_before_is_refused_and_its_journal_logged_anew(log: Log) -> None:
    head, _ = published(log.folder)
    (log.openings / STATE).rename(log.private / STATE)
    with pytest.raises(StartFailed, match="name another origin"):
        log.notary()
    shutil.move(log.private, log.root / "old-notary")
    shutil.move(log.folder.root, log.root / "old-log")
    await log.notarise()
    again, _ = published(log.folder)
    assert again.size == head.size
    assert again.root != head.root  # other salts


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
async def test_another_user_in_the_notarys_group_proves_and_cant_read_its_keys() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o777)  # the archive is written ahead, also for who only reads it
        log = a_log(root)
        await log.export()
        await log.notarise()
        log.archive.close()
        (root / "archive.sqlite").chmod(0o666)
        assert as_another(root, group=log.openings.stat().st_gid) == 0
        assert as_another(root, group=NOBODY) == 1


def as_another(root: Path, *, group: int) -> int:
    """0 if a user of this group makes a proof, 1 if it may not; it can never read the notary's."""
    process = os.fork()
    if process == 0:
        os._exit(_proves(root, group))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _proves(root: Path, group: int) -> int:
    os.setgroups([])
    os.setgid(group)
    os.setuid(NOBODY)
    for path in (Home(root).notary_of("usd"), Home(root).notary_of("usd") / SALTS):
        try:
            list(path.iterdir()) if path.suffix == "" else path.read_bytes()
        except PermissionError:
            continue
        return 2
    try:
        archive = Archive.open(f"sqlite:///{root}/archive.sqlite", create=False)
        reader = LogReader.open(root, archive)
        return 0 if reader.line_proof(1, "app:demo") else 3
    except (BylineError, PermissionError):
        return 1
