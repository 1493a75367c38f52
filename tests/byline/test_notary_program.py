"""The notary and the witness as processes: killed anywhere, stopped, and asked by HTTP."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from byline.archive.database import Archive
from byline.archive.exporter import Exporter
from byline.bookkeeping.trimming import Trimming
from byline.ledger.journal import Journal
from byline.ledger.ledger import Ledger
from byline.notary.folder import LogFolder
from byline.notary.log_keys import log_keys, witness_key
from byline.posting.scripts import script_text
from byline.transparency.heads import parse_head
from byline.transparency.policies import Policy, parse_policy
from byline.transparency.tree import consistency, is_consistent
from tests.byline.cases import NOW_MS
from tests.byline.logs import published
from tests.byline.test_archive_program import (
    ROOT,
    environment,
    metric,
    post_history,
    until,
)
from tests.ports import free_port

pytestmark = pytest.mark.anyio

KILLS_MIN = 100


def entries_of(folder: LogFolder) -> list[int]:
    return [leaf["seq"] for leaf in published(folder)[1] if leaf["type"] == "entry"]


@pytest.mark.slow
async def test_killed_between_any_two_steps_a_hundred_times_there_is_one_history(
    ledger: Ledger, ledger_name: str, redis_url: str, tmp_path: Path
) -> None:
    """Every head that was ever published is a beginning of the last; no entry lacks or doubles."""
    await post_history(ledger, random.Random(7), inferences=60)
    command = [sys.executable, "-m", "tests.byline.killed_notary"]
    ended = await asyncio.to_thread(
        subprocess.run, [*command, redis_url, str(tmp_path), ledger_name], cwd=ROOT,
        env=environment(), timeout=300, check=False, capture_output=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()
    assert int(ended.stdout) >= KILLS_MIN
    texts = await ledger.page(after_seq=0, limit=10**6)
    folder = LogFolder(tmp_path / "log" / "usd")
    assert entries_of(folder) == [seq for seq, _ in texts]
    last, leaves = published(folder)
    logged = [leaf["key"] for leaf in leaves if leaf["type"] == "entry"]
    assert logged == [json.loads(text)["key"] for _, text in texts]
    lines = (tmp_path / "heads").read_text().splitlines()
    heads = [parse_head(json.loads(line))[0] for line in lines]
    assert len(set(heads)) > 20
    for head in heads:
        path = consistency(head.size, last.size, folder.nodes(last.size))
        assert is_consistent(head.size, last.size, head.root, last.root, path)


async def test_the_journal_is_not_trimmed_beyond_what_is_logged(
    ledger: Ledger, ledger_name: str
) -> None:
    await post_history(ledger, random.Random(3), inferences=8)
    redis, keys = ledger.inside
    newest = (await ledger.unfinished()).journal_entries
    await ledger.note_exported(newest)
    await redis.hset(keys.meta, "snapshot", str(newest))
    trimming = Trimming(redis, keys, Journal(redis, keys))
    far_ms = NOW_MS + 10**12
    await ledger.note_notarised(5)
    trim = script_text("trim")
    assert await redis.eval(trim, 2, keys.journal, keys.meta, str(newest)) == 4  # by itself, too
    assert await trimming.trim(keep_entries=1, keep_days=0, now_ms=far_ms) == 4
    await ledger.note_notarised(None)  # the ledger has no notary any more
    assert await trimming.trim(keep_entries=1, keep_days=0, now_ms=far_ms) == newest - 1


@contextmanager
def program(module: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program until the block ends; SIGTERM must stop it with status 0."""
    command = [sys.executable, "-m", module]
    running = subprocess.Popen(command, cwd=ROOT, env=environment(**settings))
    try:
        yield running
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
    finally:
        running.kill()
        running.wait()


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.slow
async def test_notary_and_witness_together_publish_cosigned_heads(
    ledger: Ledger, ledger_name: str, redis_url: str, tmp_path: Path
) -> None:
    home, witness_port, port = tmp_path / "home", free_port(), free_port()
    origin = f"log.example/{ledger_name}"
    keys = log_keys(home / "notary" / ledger_name, home / "openings" / ledger_name, origin)
    log_key = tmp_path / "log.vkey"
    log_key.write_text(keys.newest.verifier.text() + "\n")
    archive_url = f"sqlite:///{tmp_path}/archive.sqlite"
    archive = Archive.open(archive_url)
    await post_history(ledger, random.Random(1), inferences=4)
    while await Exporter(ledger, archive, name=ledger_name).once():
        pass
    witness = {
        "BYLINE_WITNESS_FOLDER": str(tmp_path / "witness"), "BYLINE_WITNESS_NAME": "w.example/1",
        "BYLINE_WITNESS_POLICY": str(log_key), "BYLINE_WITNESS_PORT": str(witness_port),
    }  # fmt: skip
    with program("byline.witness", **witness):
        await until(lambda: is_up(witness_port))
        policy = witnessed_by(tmp_path, keys.newest.verifier.text(), witness_port)
        settings = {
            "BYLINE_NOTARY_HOME": str(home), "BYLINE_NOTARY_REDIS_URL": redis_url,
            "BYLINE_NOTARY_LEDGERS": ledger_name, "BYLINE_NOTARY_ARCHIVE_URL": archive_url,
            "BYLINE_NOTARY_ORIGIN": "log.example", "BYLINE_NOTARY_METRICS_PORT": str(port),
            "BYLINE_NOTARY_POLICY": str(tmp_path / "policy"),
        }  # fmt: skip
        with program("byline.notary", **settings):
            await until(lambda: is_up(port))
            newest = (await ledger.unfinished()).journal_entries
            await until(lambda: metric(port, "byline_notary_integrated_seq", ledger_name) == newest)
            second = subprocess.run(
                [sys.executable, "-m", "byline.notary"], cwd=ROOT, timeout=60, check=False,
                env=environment(**settings | {"BYLINE_NOTARY_METRICS_PORT": str(free_port())}),
                capture_output=True,
            )  # fmt: skip
            assert second.returncode == 1
            assert b"another notary" in second.stderr
            await post_history(ledger, random.Random(2), inferences=4)
            newest = (await ledger.unfinished()).journal_entries
            await until(lambda: metric(port, "byline_notary_integrated_seq", ledger_name) == newest)
    folder = LogFolder(home / "log" / ledger_name)
    assert policy.head(folder.checkpoint() or "").size == len(published(folder)[1])
    assert entries_of(folder) == list(range(1, newest + 1))
    archive.close()


def witnessed_by(folder: Path, log_vkey: str, port: int) -> Policy:
    """The policy that asks for the witness that runs at this port."""
    vkey = witness_key(folder / "witness", "w.example/1").verifier.text()
    text = f"log {log_vkey}\nwitness w {vkey} http://127.0.0.1:{port}\nquorum w\n"
    (folder / "policy").write_text(text)
    return parse_policy(text)
