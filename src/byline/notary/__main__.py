"""The notary's program: one log a ledger, and the port that shows how far they are.

Waits for a ledger or an archive that is away, also at the start. Where a journal contradicts its
log nothing is signed any more, and `/healthz` answers 503 with the reason.
"""

import asyncio
import logging
import time

from byline.archive.database import Archive
from byline.errors import (
    ArchiveUnavailable,
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
from byline.program import pause, run, settings_of, until_signalled
from byline.transparency.policies import Policy, parse_policy

log = logging.getLogger("byline.notary")

AWAY_SECONDS = 1.0
STOPPED_SECONDS = 30.0  # between two looks at a contradiction that somebody has to resolve


async def notarise_all(settings: NotarySettings, metrics: NotaryMetrics) -> None:
    """Keep every ledger's log until SIGTERM or SIGINT."""
    stop = until_signalled()
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
                await pause(stop, AWAY_SECONDS)
            except LogMismatch as problem:
                log.error("ledger %s is not logged any more: %s", name, problem)  # noqa: TRY400
                metrics.observe_stopped(name, str(problem))
                await pause(stop, STOPPED_SECONDS)


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
    openings = home.openings_of(name)
    keys = log_keys(home.notary_of(name), openings, origin)
    archive = await asyncio.to_thread(Archive.open, settings.archive)
    try:
        ledger = await Ledger.open(settings.redis_url, name=name, replicas=settings.replicas)
        state = State.open(openings, origin)
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


def main() -> None:
    """The program."""
    settings = settings_of("notary", NotarySettings)
    run("notary", notarise_all(settings, NotaryMetrics()))


if __name__ == "__main__":
    main()
