"""The notary on a journal in memory: one history, each entry once, nothing of another's shown."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from byline.archive.database import Archive
from byline.archive.tables import legs as leg_rows
from byline.errors import LedgerUnavailable, LogMismatch, NotFound, StartFailed, WitnessesAway
from byline.notary.cosigning import Cosigning
from byline.notary.log_keys import rotate
from byline.notary.metrics import NotaryMetrics
from byline.notary.state import STATE, State, sole_notary
from byline.transparency.heads import TreeHead, parse_head, signed_head
from byline.transparency.leaves import rotation_message
from byline.transparency.legs import LegPath, SumNode, Sums, leg_node, root_by_path, sums_of
from byline.transparency.notes import COSIGNATURE, SigningKey, parse_vkey
from byline.transparency.policies import parse_policy
from byline.transparency.proofs import parse_proof, shown_to_application
from byline.transparency.tree import is_consistent, is_included, leaf_hash
from byline.transparency.witnessing import parse_add_checkpoint
from tests.byline.logs import ORIGIN, Log, a_log, opened, published

pytestmark = pytest.mark.anyio

STEPS = ["read", "integrated", "bundles", "tiles", "signed", "cosigned", "published", "cleaned"]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return a_log(tmp_path)


def entries_of(leaves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [leaf for leaf in leaves if leaf["type"] == "entry"]


async def test_every_entry_has_one_leaf_in_the_journals_order(log: Log) -> None:
    await log.notarise()
    head, leaves = published(log.folder)
    journal = [json.loads(text) for text in log.journal.texts]
    logged = entries_of(leaves)
    same = ("seq", "key", "kind", "inference", "adapter_version", "time_ms", "policy", "charge")
    assert [[e[name] for name in same] for e in logged] == [
        [e[name] for name in same] for e in journal
    ]
    assert head.size == len(leaves)


async def test_a_settle_is_paid_by_a_manifest_that_was_logged_before_it(log: Log) -> None:
    await log.notarise()
    _, leaves = published(log.folder)
    settles = [(at, leaf) for at, leaf in enumerate(leaves) if leaf.get("kind") == "settle"]
    assert settles
    for at, leaf in settles:
        manifest = leaves[leaf["manifest_index"]]
        assert leaf["manifest_index"] < at
        assert manifest == {
            "key": leaf["key"], "manifest": leaf["manifest"], "type": "manifest", "v": 1,
        }  # fmt: skip


async def test_a_settle_that_is_logged_without_its_shares_is_counted(log: Log) -> None:
    lost = next(key for key in log.journal.explained if key.endswith("/settle/0"))
    del log.journal.explained[lost]
    metrics = NotaryMetrics()
    await log.notarise()
    for round_ in log.rounds:
        metrics.observe("usd", round_, now_ms=0)
    counted = "byline_notary_settles_without_shares_total"
    assert metrics.registry.get_sample_value(counted, {"ledger": "usd"}) == 1


async def test_the_sums_are_those_of_the_kind(log: Log) -> None:
    """debits = credits always; captures pay their charge, settles their pool, holds nobody."""
    await log.notarise()
    for leaf in entries_of(published(log.folder)[1]):
        sums = {name: int(leaf["legs"][name]) for name in ("debits", "credits", "paid")}
        assert sums["debits"] == sums["credits"]
        if leaf["kind"] in ("capture", "capture_late"):
            assert sums["paid"] == int(leaf["charge"])
        else:
            assert leaf["charge"] == "0"
        if leaf["kind"] == "settle":
            assert sums["paid"] == sums["debits"]
        if leaf["kind"] in ("deposit", "hold", "void", "expire"):
            assert sums["paid"] == 0


async def test_what_is_published_names_no_account_and_no_manifest(log: Log) -> None:
    await log.export()
    await log.notarise()
    secret = {row.account for row in _rows(log)} | {
        text["manifest_sha256"] for text in map(json.loads, log.journal.texts)
    }
    names = [name.encode() for name in secret if name and not name.startswith(("open:", "hold:"))]
    for path in log.folder.root.rglob("*"):
        found = path.read_bytes() if path.is_file() else b""
        assert not [name for name in names if len(name) > 8 and name in found], path


def _rows(log: Log) -> list[Any]:
    with log.archive.reading() as connection:
        return list(connection.execute(leg_rows.select()).all())


async def test_an_accounts_lines_are_a_chain_without_gaps(log: Log) -> None:
    await log.export()
    await log.notarise()
    reader = log.reader()
    chains: dict[str, tuple[int, str]] = {}
    for text in log.journal.texts:
        found = reader.entry(json.loads(text)["seq"])
        for raw, node in zip(found.leaf.texts, found.leaf.nodes, strict=True):
            leg = json.loads(raw)
            if leg["account"].startswith(("hold:", "open:")):
                assert (leg["n"], leg["prev"]) == (0, "0" * 64)
                continue
            n, prev = chains.get(leg["account"], (0, "0" * 64))
            assert (leg["n"], leg["prev"]) == (n + 1, prev)
            chains[leg["account"]] = n + 1, node.hash.hex()
    assert max(n for n, _ in chains.values()) > 5


async def test_a_contributors_proof_shows_its_leg_and_no_other_account(log: Log) -> None:
    await log.export()
    await log.notarise()
    settle = next(e for e in map(json.loads, log.journal.texts) if e["kind"] == "settle")
    account, nano = next(leg for leg in settle["legs"] if leg[0].startswith("contrib:"))
    text = log.reader().line_proof(settle["seq"], account)
    opening, proof, checkpoint = parse_proof(text)
    head, note = parse_head(checkpoint)
    assert note.signers([log.keys.newest.verifier])
    leaf = opening["leaf"].encode()
    assert is_included(leaf_hash(leaf), proof.index, head.size, proof.path, head.root)
    header, leg = json.loads(leaf), json.loads(opening["leg"]["text"])
    assert (leg["account"], leg["nano"], leg["seq"]) == (account, nano, settle["seq"])
    siblings = tuple(
        SumNode(bytes.fromhex(hash_), Sums(*map(int, sums)))
        for hash_, *sums in opening["leg"]["path"]
    )
    path = LegPath(opening["leg"]["index"], header["legs"]["count"], siblings)
    node = leg_node(opening["leg"]["text"].encode(), sums_of(account, int(nano)))
    root = root_by_path(node, path)
    assert root.hash.hex() == header["legs"]["root"]
    assert [str(each) for each in root.sums] == [
        header["legs"][name] for name in ("debits", "credits", "paid")
    ]
    pool = int(header["legs"]["debits"])
    assert abs(int(nano) * 10**9 - pool * leg["ppb"]) < 10**9
    others = [name for name, _ in settle["legs"] if name != account]
    assert others
    assert not [name for name in others if name in json.dumps(opening)]
    manifest = opening["with"][0]
    assert manifest["index"] == header["manifest_index"]
    assert json.loads(manifest["leaf"])["manifest"] == header["manifest"]


async def test_an_applications_proof_hides_the_contributors(log: Log) -> None:
    await log.export()
    await log.notarise()
    reader = log.reader()
    settle = next(e for e in map(json.loads, log.journal.texts) if e["kind"] == "settle")
    entry = reader.entry(settle["seq"]).entry
    shown = shown_to_application(entry)
    opening, _, _ = parse_proof(reader.entry_proof(entry.seq, sorted(shown), with_manifest=True))
    header = json.loads(opening["leaf"])
    assert opened(opening["legs"]).hash.hex() == header["legs"]["root"]
    assert "contrib:" not in json.dumps(opening["legs"])
    assert opening["manifest"]["sha256"] == entry.manifest_sha256


async def test_what_is_not_covered_yet_is_not_proven(log: Log) -> None:
    await log.export()
    with pytest.raises(NotFound, match="has not begun one"):
        log.reader()
    notary = log.notary()
    await notary.once(entries_max=3)
    with pytest.raises(NotFound, match="not in the log yet"):
        log.reader().line_proof(len(log.journal.texts), "platform")


async def test_rounds_of_any_length_give_one_and_the_same_log(log: Log, tmp_path: Path) -> None:
    await log.notarise(entries_max=1)
    heads = [log.folder.head(ORIGIN)]
    for entries_max in (3, 50, 2_000):
        other = Log(tmp_path / str(entries_max), log.journal, log.archive)
        other.private.parent.mkdir(parents=True)
        other.private.symlink_to(tmp_path / "keys")
        (tmp_path / "keys").mkdir(exist_ok=True)
        for name in ("log-001.key", "salts.secret"):
            (tmp_path / "keys" / name).write_bytes((log.private / name).read_bytes())
        await other.notarise(entries_max=entries_max)
        heads.append(other.folder.head(ORIGIN))
    assert len(set(heads)) == 1


async def test_each_head_is_consistent_with_the_one_before(log: Log) -> None:
    notary, heads = log.notary(), []
    while await notary.once(entries_max=4):
        heads.append(log.folder.head(ORIGIN))
    reader = log.reader()
    assert len(heads) > 10
    for head in heads:
        request = parse_add_checkpoint(reader.consistency_from(head.size))
        newest, _ = parse_head(request.checkpoint)
        assert is_consistent(head.size, newest.size, head.root, newest.root, request.path)


class Stopped(Exception):
    """What a step raises in the place of a crash."""


@pytest.mark.parametrize("name", STEPS)
async def test_a_notary_that_dies_at_any_step_goes_on_with_the_same_history(
    log: Log, name: str
) -> None:
    def stop_at(step: str) -> None:
        if step == name:
            raise Stopped

    await log.notarise(entries_max=2_000)
    expected = log.folder.checkpoint()
    for path in sorted(log.folder.root.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (log.openings / STATE).unlink()
    for _ in range(200):
        try:
            await log.notarise(log.notary(step=stop_at), entries_max=5)
            break
        except Stopped:  # the next one gets one step further by itself
            if log.folder.checkpoint() is not None:
                published(log.folder)
            await log.notary().once(entries_max=2)
    assert log.folder.checkpoint() == expected
    published(log.folder)


async def test_another_journal_is_not_logged_under_the_same_head(log: Log) -> None:
    await log.notarise()
    checkpoint = log.folder.checkpoint()
    log.journal.texts[-1] = log.journal.texts[-1].replace('"time_ms":1', '"time_ms":2')
    with pytest.raises(LogMismatch, match="there is another"):
        await log.notary().once()
    del log.journal.texts[-1]
    with pytest.raises(LogMismatch, match="there is none"):
        await log.notary().once()
    assert log.folder.checkpoint() == checkpoint


async def test_an_older_copy_of_the_state_signs_nothing(log: Log) -> None:
    notary = log.notary()
    await notary.once(entries_max=5)
    backup = (log.openings / STATE).read_bytes()
    await log.notarise(notary)
    for path in log.openings.glob(f"{STATE}*"):
        path.unlink()
    (log.openings / STATE).write_bytes(backup)
    checkpoint = log.folder.checkpoint()
    with pytest.raises(LogMismatch, match="older copy"):
        await log.notary().once(entries_max=1)
    assert log.folder.checkpoint() == checkpoint


async def test_tiles_that_don_t_continue_the_published_head_are_not_signed(log: Log) -> None:
    await log.notarise()
    head = log.folder.head(ORIGIN)
    changed = TreeHead(head.origin, head.size, bytes(32))
    log.folder.publish(signed_head(changed, log.keys.keys))
    log.journal.append("x/adjust/0", "adjust", {"host": 5, "platform": -5})
    with pytest.raises(LogMismatch, match="don't continue the published head"):
        await log.notary().once()
    assert log.folder.head(ORIGIN) == changed


async def test_trimmed_entries_are_read_from_the_archive(log: Log) -> None:
    await log.export()
    log.journal.first_seq = 20
    await log.notarise()
    logged = entries_of(published(log.folder)[1])
    assert [leaf["seq"] for leaf in logged] == list(range(1, len(log.journal.texts) + 1))


async def test_a_gap_in_the_journal_is_never_logged(log: Log) -> None:
    log.journal.first_seq = 20  # and the archive has nothing
    with pytest.raises(LogMismatch, match="no entry 1"):
        await log.notary().once()


async def test_two_notaries_of_one_log_exclude_each_other(log: Log) -> None:
    with sole_notary(log.private), pytest.raises(StartFailed, match="another notary"):
        with sole_notary(log.private):
            pass
    one, other = log.notary(), log.notary()
    page = await one._source.page(0, "", 5)
    one._integrate(page, 0)
    with pytest.raises(LogMismatch, match="another notary"):
        other._integrate(page, 0)


async def test_a_state_of_another_log_is_not_continued(log: Log) -> None:
    State.open(log.openings, "other.example/usd").close()
    with pytest.raises(LogMismatch, match=r"'other\.example/usd'"):
        log.notary()


async def test_a_new_key_is_announced_by_the_one_before(log: Log) -> None:
    await log.notary().once(entries_max=5)
    old = log.keys.newest
    rotate(log.private)
    await log.notarise()
    _, leaves = published(log.folder)
    (leaf,) = [each for each in leaves if each["type"] == "key"]
    new = parse_vkey(leaf["new"])
    assert (parse_vkey(leaf["old"]), new) == (old.verifier, log.keys.newest.verifier)
    signature = base64.b64decode(leaf["signature"])
    assert old.verifier.is_signed(rotation_message(ORIGIN, new).decode(), signature)
    _, note = parse_head(log.folder.checkpoint() or "")
    assert note.signers([old.verifier, new]) == [old.verifier, new]
    await log.notarise()
    assert len([e for e in published(log.folder)[1] if e["type"] == "key"]) == 1


async def test_a_log_whose_newest_key_is_lost_signs_nothing(log: Log) -> None:
    await log.notary().once(entries_max=5)
    (log.private / "log-001.key").unlink()
    with pytest.raises(LogMismatch, match="put its file back"):
        await log.notary().once()


async def test_a_head_without_its_quorum_is_not_published(log: Log) -> None:
    witness = SigningKey.new("w.example", COSIGNATURE)
    policy = parse_policy(f"witness w {witness.verifier.text()} http://w.example\nquorum w\n")

    def away(_url: str, _body: bytes) -> tuple[int, str]:
        raise OSError("away")

    notary = log.notary(cosigning=Cosigning(policy, away))
    with pytest.raises(WitnessesAway):
        await notary.once(entries_max=5)
    assert log.folder.checkpoint() is None

    def cosign(_url: str, body: bytes) -> tuple[int, str]:
        _, note = parse_head(parse_add_checkpoint(body.decode()).checkpoint)
        return 200, witness.line(note.text, time_seconds=1)

    await log.notary(cosigning=Cosigning(policy, cosign)).once(entries_max=5)
    trusting = f"log {log.keys.newest.verifier.text()}\n"
    trusting += f"witness w {witness.verifier.text()}\nquorum w\n"
    assert parse_policy(trusting).head(log.folder.checkpoint() or "").size > 4


async def test_a_log_of_many_tiles_is_whole_and_proves_its_first_line(tmp_path: Path) -> None:
    log = a_log(tmp_path, inferences=200)
    await log.export()
    await log.notarise(entries_max=60)
    head, leaves = published(log.folder)
    assert head.size == len(leaves) > 2 * 256
    opening, proof, _ = parse_proof(log.reader().line_proof(1, "app:demo"))
    leaf = leaf_hash(opening["leaf"].encode())
    assert is_included(leaf, proof.index, head.size, proof.path, head.root)


async def test_it_waits_for_what_is_away_and_goes_on(log: Log) -> None:
    log.journal.away = LedgerUnavailable("away")
    stop, notary = asyncio.Event(), log.notary()
    running = asyncio.create_task(notary.run(stop))
    while len(log.rounds) < 2:
        await asyncio.sleep(0.05)
    stop.set()
    await running
    assert log.journal.rejoined == 2
    first, idle = log.rounds[0], log.rounds[-1]
    assert first.seq == idle.seq == len(log.journal.texts)
    assert (first.entries, idle.entries, idle.oldest_ms) == (first.seq, 0, None)


async def test_a_manifest_that_was_changed_is_not_logged(log: Log) -> None:
    key = next(iter(log.journal.explained))
    log.journal.explained[key] = "{}"
    with pytest.raises(LogMismatch, match="was changed"):
        await log.notarise()


async def test_a_manifest_that_is_gone_leaves_its_hash_and_no_shares(log: Log) -> None:
    await log.export()
    log.journal.explained = {}
    log.archive.close()
    log.archive = Archive.open(f"sqlite:///{log.root}/other.sqlite")
    await log.export()
    await log.notarise()
    settle = next(e for e in map(json.loads, log.journal.texts) if e["kind"] == "settle")
    found = log.reader().entry(settle["seq"])
    assert json.loads(found.leaf.data)["manifest"]
    assert {json.loads(text)["ppb"] for text in found.leaf.texts} == {None}


async def test_entries_that_the_journal_has_lost_are_not_logged_from_the_archive(log: Log) -> None:
    await log.export()
    notary = log.notary()
    await notary.once(entries_max=20)
    checkpoint = log.folder.checkpoint()
    del log.journal.texts[10:]
    with pytest.raises(LogMismatch, match="there is none"):
        await notary.once(entries_max=20)
    assert log.folder.checkpoint() == checkpoint
