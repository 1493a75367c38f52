"""The notary's program: one log a ledger, and the port that shows how far they are.

Waits for a ledger or an archive that is away, also at the start. Where a journal contradicts its
log nothing is signed any more, and `/healthz` answers 503 with the reason.
"""

import asyncio
import logging
import signal
import sys
import time
from contextlib import suppress

from pydantic import ValidationError

from byline.archive.database import Archive
from byline.errors import (
    ArchiveUnavailable,
    BylineError,
    LedgerError,
    LedgerMisconfigured,
    LogMismatch,
    StartFailed,
)
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.metrics_server import metrics_server
from byline.notary.cosigning import Cosigning
from byline.notary.folder import LogFolder
from byline.notary.log_keys import log_keys
from byline.notary.metrics import NotaryMetrics
from byline.notary.notary import Integrated, Notary
from byline.notary.settings import NotarySettings
from byline.notary.source import Source
from byline.notary.state import State, sole_notary
from byline.transparency.policies import Policy, parse_policy

log = logging.getLogger("byline.notary")

AWAY_SECONDS = 1.0
STOPPED_SECONDS = 30.0  # between two looks at a contradiction that somebody has to resolve


async def notarise_all(settings: NotarySettings, metrics: NotaryMetrics) -> None:
    """Keep every ledger's log until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    policy = _policy(settings)
    with metrics_server(
        metrics.registry, settings.metrics_host, settings.metrics_port, problem=metrics.problem
    ):
        async with asyncio.TaskGroup() as tasks:
            for name in settings.ledgers:
                tasks.create_task(notarise(settings, policy, name, metrics, stop))


async def notarise(
    settings: NotarySettings,
    policy: Policy,
    name: str,
    metrics: NotaryMetrics,
    stop: asyncio.Event,
) -> None:
    """Keep one ledger's log, opened again and again where something is away or wrong."""
    with sole_notary(Home(settings.home).notary_of(name)):
        while not stop.is_set():
            try:
                await _notarise_opened(settings, policy, name, metrics, stop)
            except LedgerMisconfigured:
                raise
            except (LedgerError, ArchiveUnavailable) as problem:
                log.warning("ledger %s: %s; waiting", name, problem)
                await _pause(stop, AWAY_SECONDS)
            except LogMismatch as problem:
                log.error("ledger %s is not logged any more: %s", name, problem)  # noqa: TRY400
                metrics.observe_stopped(name, str(problem))
                await _pause(stop, STOPPED_SECONDS)


async def _notarise_opened(
    settings: NotarySettings,
    policy: Policy,
    name: str,
    metrics: NotaryMetrics,
    stop: asyncio.Event,
) -> None:
    def observe(round_: Integrated) -> None:
        metrics.observe(name, round_, now_ms=time.time_ns() // 1_000_000)

    home, origin = Home(settings.home), settings.origin_of(name)
    private = home.notary_of(name)
    keys = log_keys(private, origin)
    archive = await asyncio.to_thread(Archive.open, settings.archive)
    try:
        ledger = await Ledger.open(settings.redis_url, name=name, replicas=settings.replicas)
        state = State.open(private / "state.sqlite", origin)
        try:
            notary = Notary(
                Source(ledger, archive, name), state, LogFolder(home.log_of(name)), keys,
                cosigning=Cosigning(policy), observe=observe,
            )  # fmt: skip
            await notary.run(stop)
        finally:
            state.close()
            await ledger.close()
    finally:
        archive.close()


def _policy(settings: NotarySettings) -> Policy:
    """The witnesses' policy. StartFailed where its file can't be read."""
    if settings.policy is None:
        return Policy(())
    try:
        return parse_policy(settings.policy.read_text())
    except OSError as problem:
        raise StartFailed(f"the policy file {settings.policy}: {problem.strerror}") from problem


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def main() -> None:
    """The program."""
    try:
        settings = NotarySettings()
    except ValidationError as problem:
        sys.exit(f"the notary's settings (BYLINE_NOTARY_...): {problem}")
    logging.basicConfig(level=settings.log_level, format="%(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(notarise_all(settings, NotaryMetrics()))
    except* BylineError as problems:
        sys.exit(f"the notary: {problems.exceptions[0]}")


if __name__ == "__main__":
    main()
