"""An archive with known contents, beside a running gateway: one adapter, two days, two shops."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from byline.archive.adapters import keep_adapters
from byline.archive.database import Archive
from byline.archive.exporter import Exporter
from byline.canonical import canonical_text
from byline.limits import PPB
from byline.records import Share
from byline.records_json import attribution_fields, capture_fields
from tests.byline.cases import a_capture, an_attribution, event_id
from tests.byline.journals import FakeJournal, an_operation
from tests.gateway.conftest import MED, RELEASE

DAY_MS = 86_400_000
LONG_AGO_MS = 20_000 * DAY_MS  # 2024-10-04, 00:00


class Filling:
    """Posts to a journal what gateways and workers would."""

    def __init__(self) -> None:
        self.journal = FakeJournal()
        self.rng = random.Random(1)

    def deposit(self, application: str, nano: int, *, time_ms: int = LONG_AGO_MS) -> None:
        legs = {"funding": -nano, f"app:{application}": nano}
        an_operation(self.journal, self.rng, "deposit", legs, time_ms=time_ms)

    def hold(self, application: str, nano: int, *, time_ms: int) -> str:
        inference = event_id(time_ms, self.rng)
        legs = {f"app:{application}": -nano, f"hold:{inference}": nano}
        self.journal.append(f"{inference}/hold/0", "hold", legs, time_ms=time_ms)
        return inference

    def inference(
        self,
        paid: dict[str, int],
        *,
        time_ms: int,
        application: str = "shop",
        partial: bool = False,
    ) -> str:
        """One inference, held, captured and settled to these contributors; answers its id."""
        pool = sum(paid.values())
        held, charge = 1_000 + pool, 400 + pool
        inference = self.hold(application, held, time_ms=time_ms)
        capture = replace(
            a_capture(inference, application=application, held=held, credit=400, pools=(pool,)),
            model="med", served_by=MED.version, adapter_version=MED.version, partial=partial,
        )  # fmt: skip
        legs = {f"hold:{inference}": -held, f"app:{application}": held - charge, "platform": 400,
                f"open:{inference}": pool}  # fmt: skip
        self.journal.append(
            f"{inference}/capture/0", "capture", legs, time_ms=time_ms, version=MED.version,
            charge=charge, manifest=canonical_text(capture_fields(capture)),
        )  # fmt: skip
        attribution = replace(
            an_attribution(inference, pool=pool), adapter_version=MED.version,
            shares=tuple(Share(name, 0.5, PPB * n // pool, n) for name, n in paid.items()),
        )  # fmt: skip
        settled = {f"open:{inference}": -pool} | {f"contrib:{n}": nano for n, nano in paid.items()}
        self.journal.append(
            f"{inference}/settle/0", "settle", settled, time_ms=time_ms, version=MED.version,
            manifest=canonical_text(attribution_fields(attribution)),
        )  # fmt: skip
        return inference

    def operation(
        self, kind: str, legs: dict[str, int], *, time_ms: int, reason: str | None = None
    ) -> str:
        manifest = None if reason is None else {"reason": reason, "by": "ops"}
        return an_operation(self.journal, self.rng, kind, legs, time_ms=time_ms, manifest=manifest)

    async def export(self, url: str, *, ledgers: Sequence[str] = ("usd",)) -> None:
        """Put all of it into the archive."""
        async with opened(url) as archive:
            keep_adapters(archive, RELEASE)
            for name in ledgers:
                while await Exporter(self.journal, archive, name=name).once():
                    pass


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Archive]:
    """An archive that is written to."""
    archive = Archive.open(url)
    try:
        yield archive
    finally:
        archive.close()
