"""A frozen statement is a leaf; its proof shows every line of it, chained, and no other account."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from byline.archive.database import Archive
from byline.errors import NotFound
from byline.statements import frozen as store
from byline.statements.freezing import Freezer
from byline.transparency.heads import parse_hash, parse_head
from byline.transparency.legs import leg_node, sums_of
from byline.transparency.tree import is_included, leaf_hash
from tests.byline.journals import DAY_MS
from tests.byline.logs import Log, published
from tests.byline.months import ANN, DECEMBER, HOST, NOVEMBER, OCTOBER, FakeBank, export

pytestmark = pytest.mark.anyio


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Two payees with two months each, frozen; nothing of them is logged yet."""
    bank = FakeBank()
    for month in (OCTOBER, NOVEMBER):
        for day in range(9):
            bank.earn(ANN, 1_000 + day, month.start_ms + day * DAY_MS)
            bank.earn(HOST, 50, month.start_ms + day * DAY_MS + 1)
        bank.lose(ANN, 7, month.start_ms + 20 * DAY_MS)
    bank.earn(ANN, 3, DECEMBER.start_ms)
    archive = Archive.open(f"sqlite:///{tmp_path}/archive.sqlite")
    export(archive, bank)
    for month in (OCTOBER, NOVEMBER):
        Freezer(archive).freeze_all(month, now_ms=month.end_ms + DAY_MS)
    return Log(tmp_path, bank, archive)


def proof_of(log: Log, account: str, month: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The proof's first line and the others, each shown to be in the tree."""
    frozen = next(
        each for each in store.of_account(log.archive, "usd", account) if str(each.month) == month
    )
    lines = log.reader().statement_proof(account, month, (frozen.from_seq, frozen.to_seq))
    first, *rest = [json.loads(line) for line in lines]
    head, _ = parse_head(first["checkpoint"])
    for each in rest:
        leaf = leaf_hash(each["opening"]["leaf"].encode())
        path = [parse_hash(hash_) for hash_ in each["path"]]
        assert is_included(leaf, each["index"], head.size, path, head.root)
    return first, rest


async def test_a_statement_is_opened_with_every_line_of_it_in_one_chain(log: Log) -> None:
    await log.notarise(entries_max=100)
    head = "0" * 64
    for month, n in (("2026-10", 1), ("2026-11", 11)):
        _, (statement, *lines) = proof_of(log, ANN, month)
        text = statement["opening"]["opening"]
        commitment = json.loads(statement["opening"]["leaf"])["commitment"]
        assert sha256(b"\x05" + text.encode()).hexdigest() == commitment
        said = json.loads(text)
        assert (said["first_n"], said["last_n"], said["before"]) == (n, n + 9, head)
        total = int(said["opening"])
        for at, line in enumerate(lines, start=n):
            leg = json.loads(line["opening"]["leg"]["text"])
            assert (leg["account"], leg["n"], leg["prev"]) == (ANN, at, head)
            raw = line["opening"]["leg"]["text"].encode()
            head = leg_node(raw, sums_of(ANN, int(leg["nano"]))).hash.hex()
            total += int(leg["nano"])
        assert (said["head"], int(said["closing"]), len(lines)) == (head, total, 10)
        frozen = store.find(log.archive, "usd", ANN, OCTOBER if n == 1 else NOVEMBER)
        assert said["sha256"] == frozen.sha256


async def test_a_statements_proof_names_no_other_account(log: Log) -> None:
    await log.notarise(entries_max=100)
    first, rest = proof_of(log, ANN, "2026-10")
    text = json.dumps([first, rest])
    assert ANN in text
    assert f'"{HOST}' not in text
    assert "funding" not in text


async def test_every_statement_has_one_leaf_however_often_it_is_looked_for(log: Log) -> None:
    await log.notarise(entries_max=100)
    for _ in range(3):
        await log.notarise()
    leaves = [leaf for leaf in published(log.folder)[1] if leaf["type"] == "statement"]
    assert len(leaves) == len({leaf["commitment"] for leaf in leaves}) == 4
    assert [leaf["month"] for leaf in leaves] == ["2026-10", "2026-10", "2026-11", "2026-11"]


async def test_a_statement_waits_until_its_entries_are_logged(log: Log) -> None:
    notary = log.notary()
    await notary.once(entries_max=4)
    assert notary._statements.add_new() == 0
    with pytest.raises(NotFound, match="not in the log yet"):
        proof_of(log, ANN, "2026-10")


async def test_a_month_without_lines_is_a_statement_of_no_lines(log: Log) -> None:
    for month in (DECEMBER, DECEMBER.next):
        Freezer(log.archive).freeze(ANN, month, now_ms=month.end_ms + DAY_MS)
    await log.notarise(entries_max=100)
    _, (statement, *lines) = proof_of(log, ANN, "2027-01")
    said = json.loads(statement["opening"]["opening"])
    assert not lines
    assert said["first_n"] == said["last_n"] + 1 == 22
    assert said["before"] == said["head"]
