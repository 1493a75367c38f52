"""The auditor: draws settled inferences from the lottery and audits them in the serving engine.

    python -m serving.auditor

It does nothing but wait where the home has no plan of audits. One auditor an installation is
enough; a second one would do the same work and post nothing twice.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from byline.archive.database import Archive
from byline.auditing.payment import AUDITS_READ_MAX, PaymentJudge, PaymentPauses
from byline.auditing.plan import AuditPlan, read_plan
from byline.auditing.store import AuditStore
from byline.errors import (
    ArchiveUnavailable,
    ArtifactError,
    EngineError,
    EngineRefused,
    KeyConflict,
    LedgerError,
    LedgerFenced,
)
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.ledger.shards import Shards
from byline.metrics_server import metrics_server
from byline.notary.reader import LogReader
from byline.program import pause, run, settings_of, until_signalled
from byline.registry import read_release
from byline.served import served_inferences
from serving.auditing.auditing import Auditing, Places
from serving.auditing.engine_scoring import PREFIX, READ_SECONDS, EngineScoring
from serving.settings import AuditorSettings
from serving.telemetry import AuditorMetrics

logger = logging.getLogger("byline.auditor")


async def audit(settings: AuditorSettings, metrics: AuditorMetrics) -> None:
    """Audit until SIGTERM or SIGINT."""
    stop = until_signalled()
    home = Home(settings.home)
    plan = read_plan(home.audit_plan)
    with metrics_server(metrics.registry, settings.metrics_host, settings.metrics_port):
        if plan is None:
            logger.info("%s is not there: nothing is audited", home.audit_plan)
            await stop.wait()
            return
        async with AsyncExitStack() as opened:
            await _audit_by(plan, settings, metrics, stop, opened)


async def _audit_by(
    plan: AuditPlan, settings: AuditorSettings, metrics: AuditorMetrics, stop: asyncio.Event,
    opened: AsyncExitStack,
) -> None:  # fmt: skip
    home = Home(settings.home)
    base_model = read_release(home.release).base_model
    places = Places(home.served, home.counterfactuals, home.audits, base_model)
    archive = Archive.open(settings.archive_url or home.archive_url)
    opened.callback(archive.close)
    shards = await Shards.open(
        settings.redis_url, settings.ledgers, replicas=settings.ledger_replicas
    )
    opened.push_async_callback(shards.close)
    client = httpx.AsyncClient(base_url=settings.engine_url, timeout=READ_SECONDS)
    await opened.enter_async_context(client)
    scoring = EngineScoring(
        client, at_once=settings.at_once, idle_wait_seconds=settings.idle_wait_seconds
    )
    auditings = [
        (ledger, Auditing(ledger, scoring, log_of(home, archive, name), plan, places, metrics))
        for name, ledger in shards.ledgers.items()
    ]
    judge, store = PaymentJudge(plan, PaymentPauses(home.payment)), AuditStore(home.audits)
    await asyncio.to_thread(remember, store, judge)

    def judged(inference: str) -> None:
        judge.take(store.of(inference))
        judge.decide(now_ms=time.time_ns() // 1_000_000)

    while not stop.is_set():
        try:
            await forget_unplanned(scoring, plan)
            refused = 0
            for ledger, auditing in auditings:
                refused += await look_through(ledger, auditing, places.served, judged, stop)
            metrics.refused.set(refused)
        except (LedgerError, EngineError, ArchiveUnavailable) as problem:  # all of it is done again
            logger.warning("%s; waiting", problem)
        await pause(stop, settings.look_seconds)


async def look_through(
    ledger: Ledger, auditing: Auditing, served: Path, judged: Callable[[str], None],
    stop: asyncio.Event,
) -> int:  # fmt: skip
    """Bring every inference whose served tokens are kept as far as it goes, the oldest first.

    `judged` is told of each that is through. Answers how many were refused.
    """
    refused = 0
    for inference in served_inferences(served):
        if stop.is_set():
            break
        try:
            if await auditing.once(inference, now_ms=time.time_ns() // 1_000_000):
                judged(inference)
        except LedgerFenced:
            await ledger.rejoin()  # and the inference comes again at the next look
        except (EngineRefused, ArtifactError, KeyConflict) as problem:  # the others go on
            refused += 1
            logger.error("the audit of %s: %s", inference, problem)  # noqa: TRY400
    return refused


def remember(store: AuditStore, judge: PaymentJudge) -> None:
    """Judge by the newest audits that there are: what an auditor that was killed left to say."""
    for audit in store.newest(AUDITS_READ_MAX):
        if judge.has_enough:
            break
        judge.take([audit])
    judge.decide(now_ms=time.time_ns() // 1_000_000)


def log_of(home: Home, archive: Archive, name: str) -> Callable[[str], str]:
    """What the tickets of one ledger's inferences are made of."""

    def commitment(inference: str) -> str:
        reader = LogReader.open(home.root, archive, name=name)
        try:
            return reader.smallest_covering(f"{inference}/capture/0").text()
        finally:
            reader.close()

    return commitment


async def forget_unplanned(scoring: EngineScoring, plan: AuditPlan) -> None:
    """Unload counterfactual adapters that the plan does not name any more."""
    for name in await scoring.loaded():
        if name.removeprefix(PREFIX) not in plan.runs:
            await scoring.unload(name)


def main() -> None:
    """The program."""
    settings = settings_of("auditor", AuditorSettings)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run("auditor", audit(settings, AuditorMetrics()))


if __name__ == "__main__":
    main()
