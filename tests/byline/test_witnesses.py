"""Ledger, notary and two witnesses as real processes, and `byline verify` as an outsider runs it.

The policy wants both witnesses. A second history under the same origin and the log's own keys, by
which its operator could cheat, is cosigned by nobody, so whoever holds the policy refuses it.
"""

import asyncio
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from byline.archive.database import Archive
from byline.archive.exporter import Exporter
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.notary.folder import CHECKPOINT, KEYS
from byline.notary.log_keys import LogKeys, log_keys, witness_key
from byline.redis_server import RedisServer, running_redis
from byline.transparency.heads import parse_head
from byline.transparency.notes import VerifierKey
from tests.byline.test_archive_program import ROOT, environment, metric, post_history, until
from tests.byline.test_notary_program import is_up, program
from tests.ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ORIGIN = "log.example"
FIRST_SETTLE = 4  # of every history: deposit, hold, capture, settle
HOLDS, FAILED = 0, 1


@dataclass
class Operator:
    """Whoever runs a ledger with its archive and notary, in a folder of his own."""

    root: Path
    redis_url: str

    @property
    def home(self) -> Home:
        return Home(self.root)

    @property
    def checkpoint(self) -> str:
        return (self.home.log_of("usd") / CHECKPOINT).read_text()

    async def post(self, *, seed: int, inferences: int) -> int:
        """Post a history and archive it; answers its newest entry."""
        ledger = await Ledger.open(self.redis_url)
        archive = Archive.open(self.home.archive_url)
        await post_history(ledger, random.Random(seed), inferences=inferences)
        while await Exporter(ledger, archive).once():
            pass
        newest = (await ledger.unfinished()).journal_entries
        archive.close()
        await ledger.close()
        return newest

    @contextmanager
    def notary(self, policy: Path | None) -> Iterator[int]:
        """His notary, and the port of its metrics."""
        port = free_port()
        settings = {
            "HOME": str(self.root), "REDIS_URL": self.redis_url, "ORIGIN": ORIGIN,
            "METRICS_PORT": str(port), "LOG_LEVEL": "WARNING",
        } | ({} if policy is None else {"POLICY": str(policy)})  # fmt: skip
        with program("byline.notary", **{f"BYLINE_NOTARY_{k}": v for k, v in settings.items()}):
            yield port

    async def publish(self, policy: Path | None, newest: int) -> None:
        """Run the notary until a published head covers the newest entry."""
        with self.notary(policy) as port:
            await until(lambda: is_up(port))
            await until(lambda: metric(port, "byline_notary_integrated_seq", "usd") == newest)

    def proof(self, name: str) -> Path:
        """A contributor's line, as the operator hands it out."""
        path = self.root / name
        account = ["proof", "line", str(FIRST_SETTLE), "contrib:alice", "--output", str(path)]
        status, said = byline(*account, "--home", str(self.root))
        assert status == HOLDS, said
        return path


@contextmanager
def witnesses(root: Path, log_key: Path) -> Iterator[dict[str, tuple[VerifierKey, int]]]:
    """Two witnesses of the log, by name: their keys and ports."""
    with ExitStack() as running:
        found = {}
        for name in ("w1", "w2"):
            port = free_port()
            settings = {
                "FOLDER": str(root / name), "NAME": f"{name}.example", "POLICY": str(log_key),
                "PORT": str(port),
            }  # fmt: skip
            of_program = {f"BYLINE_WITNESS_{key}": value for key, value in settings.items()}
            running.enter_context(program("byline.witness", **of_program))
            found[name] = witness_key(root / name, f"{name}.example").verifier, port
        yield found


def both(log: VerifierKey, found: dict[str, tuple[VerifierKey, int]]) -> str:
    """The policy that wants both."""
    lines = [
        f"witness {n} {key.text()} http://127.0.0.1:{port}" for n, (key, port) in found.items()
    ]
    return "\n".join([f"log {log.text()}", *lines, "group both all w1 w2", "quorum both", ""])


def byline(*arguments: str) -> tuple[int, str]:
    """The command, and what it said."""
    ended = subprocess.run(
        [sys.executable, "-m", "byline.command", *arguments], cwd=ROOT, env=environment(),
        timeout=60, check=False, capture_output=True, text=True,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


def without(proof: Path, line: str) -> Path:
    """The proof without one of its head's signature lines."""
    text = proof.read_text()
    assert text.count(line) == 1
    changed = proof.with_name("without.tlog-proof")
    changed.write_text(text.replace(line, ""))
    return changed


@contextmanager
def operators(root: Path) -> Iterator[tuple[Operator, Operator]]:
    """An operator, and the same one telling another history with the same keys."""
    with ExitStack() as running:
        made = []
        for name in ("honest", "forked"):
            (root / name / "home").mkdir(parents=True)
            server = RedisServer(root / name / "ledger", unix_socket=root / name / "s.sock")
            running.enter_context(running_redis(server))
            made.append(Operator(root / name / "home", server.url))
        honest, forked = made
        keys_of(honest)
        shutil.copytree(honest.home.notary_of("usd"), forked.home.notary_of("usd"))
        yield honest, forked


def keys_of(operator: Operator) -> LogKeys:
    home = operator.home
    return log_keys(home.notary_of("usd"), home.openings_of("usd"), f"{ORIGIN}/usd")


async def test_what_both_witnesses_cosigned_verifies_and_a_fork_never_does(tmp_path: Path) -> None:
    log_key, policy = tmp_path / KEYS, tmp_path / "policy"
    with operators(tmp_path) as (honest, forked):
        log = keys_of(honest).newest.verifier
        log_key.write_text(f"{log.text()}\n")
        newest = await honest.post(seed=1, inferences=4)
        fork = await forked.post(seed=2, inferences=12)
        with witnesses(tmp_path, log_key) as found:
            for _, port in found.values():
                await until(lambda port=port: is_up(port))  # type: ignore[misc]
            policy.write_text(both(log, found))
            await honest.publish(policy, newest)
            older = honest.proof("older.tlog-proof")
            await honest.publish(policy, await honest.post(seed=3, inferences=4))
            proof = honest.proof("newer.tlog-proof")

            # The other history is longer than the one that they cosigned, and rightly signed.
            with forked.notary(policy) as port:
                await until(lambda: is_up(port))
                await asyncio.sleep(3)  # some rounds, each of which asks them
                assert metric(port, "byline_notary_integrated_seq", "usd") == -1
            assert not (forked.home.log_of("usd") / CHECKPOINT).exists()
        await forked.publish(None, fork)  # without asking anybody, it is published

    trusting_both = ["--policy", str(policy)]
    for file in (older, proof):
        status, said = byline("verify", str(file), *trusting_both)
        assert status == HOLDS, said
    size = parse_head(older.read_text().partition("\n\n")[2])[0].size
    history = tmp_path / "history.consistency"
    made = ["proof", "history", str(size), "--output", str(history), "--home", str(honest.root)]
    assert byline(*made)[0] == HOLDS
    against = ["--against", str(older)]
    assert byline("verify", str(proof), str(history), *trusting_both, *against)[0] == HOLDS

    lines = honest.checkpoint.splitlines(keepends=True)
    for name in ("w1", "w2"):  # one of them is not enough
        (line,) = [each for each in lines if f"— {name}.example " in each]
        assert byline("verify", str(without(proof, line)), *trusting_both)[0] == FAILED
    lie = forked.proof("lie.tlog-proof")
    assert byline("verify", str(lie), "--key", log.text())[0] == HOLDS  # its signature is good
    status, said = byline("verify", str(lie), *trusting_both)
    assert status == FAILED
    assert "cosign" in said
    assert byline("verify", str(lie), "--key", log.text(), *against)[0] == FAILED
