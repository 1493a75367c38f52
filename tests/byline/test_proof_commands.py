"""`byline proof`: what it writes is what the verifier takes, and what it can't prove it says."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from byline.command.__main__ import app
from byline.errors import InvalidInput, NotFound, StartFailed
from byline.ledger.ledger import Ledger
from byline.transparency.proofs import parse_proof
from byline.transparency.witnessing import parse_add_checkpoint
from tests.byline.logs import Log, a_log

pytestmark = pytest.mark.anyio


@pytest.fixture
async def log(tmp_path: Path) -> Log:
    made = a_log(tmp_path)
    await made.export()
    await made.notarise()
    return made


def proof(log: Log, *words: str) -> Result:
    return CliRunner().invoke(app, ["proof", *words, "--home", str(log.root)])


async def test_a_line_is_named_by_number_or_by_key(log: Log) -> None:
    entry = json.loads(log.journal.texts[2])
    account = entry["legs"][0][0]
    texts = [
        proof(log, "line", which, account).output for which in (str(entry["seq"]), entry["key"])
    ]
    assert texts[0] == texts[1]
    assert json.loads(parse_proof(texts[0])[0]["leg"]["text"])["account"] == account


async def test_an_entry_shows_the_accounts_that_are_asked_for(log: Log) -> None:
    settle = next(e for e in map(json.loads, log.journal.texts) if e["kind"] == "settle")
    payee = next(account for account, _ in settle["legs"] if account.startswith("contrib:"))
    for words, is_shown in ((("--account", payee), True), ((), False)):
        text = proof(log, "entry", str(settle["seq"]), *words).output
        assert (payee in json.dumps(parse_proof(text)[0])) == is_shown


async def test_a_history_goes_into_a_file(log: Log) -> None:
    file = log.root / "newer.consistency"
    assert proof(log, "history", "5", "--output", str(file)).exit_code == 0
    assert parse_add_checkpoint(file.read_text()).old == 5


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("line", "what", "host"), InvalidInput), (("line", "99999", "host"), NotFound),
        (("line", "a/b/0", "host"), NotFound), (("history", "99999"), NotFound),
        (("statement", "contrib:x", "2026-11"), NotFound),
    ],
)  # fmt: skip
async def test_what_cant_be_proven_is_said(
    log: Log, words: tuple[str, ...], problem: type[Exception]
) -> None:
    assert isinstance(proof(log, *words).exception, problem)


async def test_a_rotated_key_is_announced_at_the_next_start(log: Log) -> None:
    assert proof(log, "rotate-key", "--json").exit_code == 0
    await log.notarise()
    assert len(log.keys.keys) == 2
    assert len((log.folder.read("key.vkey") or b"").splitlines()) == 2
    assert proof(log, "rotate-key", "--receipts", "--json").exit_code == 0
    assert (log.openings / "receipts-002.key").exists()
    assert len(log.keys.receipts) == 2
    lost = proof(log, "rotate-key", "--ledger", "other")
    assert isinstance(lost.exception, StartFailed)


async def test_a_retired_notary_holds_no_trimming_up(
    log: Log, ledger: Ledger, ledger_name: str, redis_url: str
) -> None:
    redis, keys = ledger.inside
    await ledger.note_notarised(3)
    words = ("retire", "--redis-url", redis_url, "--ledger", ledger_name)
    retired = await asyncio.to_thread(proof, log, *words)
    assert retired.exit_code == 0
    assert await redis.hget(keys.meta, "notarised") is None
