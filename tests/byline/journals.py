"""A journal in memory, in the ledger's exact format, that can be away, cut or changed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from byline.canonical import Json, canonical_text, sha256_hex
from byline.errors import LedgerUnavailable
from byline.ledger.ledger import Ledger, Unfinished
from byline.limits import PPB
from byline.posting.postings import parse_entry
from byline.records import JournalEntry, Leg, Share
from byline.records_json import attribution_fields, capture_fields
from tests.byline.cases import ADAPTER, NOW_MS, a_capture, an_attribution, event_id

DAY_MS = 86_400_000


class FakeJournal(Ledger):
    """The part of a ledger that is exported; entries are added by `append`."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.explained: dict[str, str | None] = {}  # by event key
        self.exported: list[int] = []
        self.first_seq = 1  # what is before it has been trimmed
        self.away: Exception | None = None
        self.rejoined = 0
        self.blocked: dict[str, str] = {}

    def append(
        self, key: str, kind: str, legs: Mapping[str, int], *, manifest: str | None = None,
        time_ms: int = NOW_MS, version: str | None = None, charge: int = 0,
    ) -> int:  # fmt: skip
        """Add an entry; answers its number."""
        seq = len(self.texts) + 1
        has_inference = kind not in ("deposit", "adjust", "release", "payout")
        fields: dict[str, Json] = {
            "adapter_version": version, "charge": str(charge), "key": key, "kind": kind,
            "inference": key.partition("/")[0] if has_inference else None,
            "legs": [[account, str(nano)] for account, nano in legs.items()],
            "manifest_sha256": None if manifest is None else sha256_hex(manifest.encode()),
            "policy": "2026-11", "seq": seq, "time_ms": time_ms, "v": 1,
        }  # fmt: skip
        self.texts.append(canonical_text(fields))
        if manifest is not None:
            self.explained[key] = manifest
        return seq

    def answering(self) -> None:
        if self.away is not None:
            raise self.away

    async def page(self, *, after_seq: int, limit: int) -> list[tuple[int, str]]:
        self.answering()
        first = max(after_seq + 1, self.first_seq)
        return list(enumerate(self.texts[first - 1 : after_seq + limit], start=first))

    async def manifests(self, entries: Sequence[JournalEntry]) -> list[str | None]:
        self.answering()
        return [self.explained.get(entry.key) for entry in entries]

    async def confirm(self) -> None:
        self.answering()

    async def note_exported(self, seq: int) -> None:
        self.answering()
        self.exported.append(seq)

    async def note_notarised(self, seq: int | None) -> None:
        self.answering()

    async def rejoin(self) -> None:
        self.rejoined += 1
        if self.rejoined == 1:
            raise LedgerUnavailable("rejoin: not yet")
        self.away = None

    async def unfinished(self) -> Unfinished:
        self.answering()
        return Unfinished(0, 0, None, len(self.texts), None)

    async def payout_blocks(self) -> Mapping[str, str]:
        self.answering()
        return self.blocked

    async def balances(self) -> Mapping[str, int]:
        totals: dict[str, int] = {}
        for text in self.texts:
            for leg in parse_entry(text).legs:
                totals[leg.account] = totals.get(leg.account, 0) + leg.nano
        return {account: nano for account, nano in totals.items() if nano}


def an_inference(
    journal: FakeJournal, rng: random.Random, *, application: str = "demo", payees: int = 1,
    time_ms: int = NOW_MS, settled: bool = True, partial: bool = False,
) -> str:  # fmt: skip
    """Hold, capture and settle one inference; answers its id."""
    inference = event_id(time_ms, rng)
    held, pool = 2_000 * payees, 500 * payees
    hold, app, opened = f"hold:{inference}", f"app:{application}", f"open:{inference}"
    journal.append(f"{inference}/hold/0", "hold", {app: -held, hold: held}, time_ms=time_ms)
    capture = replace(
        a_capture(inference, application=application, held=held, credit=400, pools=(pool,)),
        partial=partial,
    )
    legs = {hold: -held, app: held - 400 - pool, "platform": 400, opened: pool}
    journal.append(
        f"{inference}/capture/0", "capture", legs, charge=400 + pool, version=ADAPTER,
        manifest=canonical_text(capture_fields(capture)), time_ms=time_ms,
    )  # fmt: skip
    if settled:
        settle(journal, rng, inference, pool, payees=payees, time_ms=time_ms)
    return inference


def settle(
    journal: FakeJournal, rng: random.Random, inference: str, pool: int, *, payees: int,
    time_ms: int,
) -> None:  # fmt: skip
    """Pay the pool to so many contributors, and what is left over to nobody."""
    paid = pool // (payees + 1)
    names = [f"payee-{number}" for number in rng.sample(range(max(payees, 20)), payees)]
    rest = pool - paid * payees
    attribution = replace(
        an_attribution(inference, pool=pool, unattributed=rest),
        shares=tuple(Share(name, 0.5, PPB * paid // pool, paid) for name in names),
    )
    legs = {f"open:{inference}": -pool} | {f"contrib:{name}": paid for name in names}
    journal.append(
        f"{inference}/settle/0", "settle", legs | {f"unattributed:{ADAPTER}": rest},
        manifest=canonical_text(attribution_fields(attribution)), version=ADAPTER, time_ms=time_ms,
    )  # fmt: skip


def an_operation(
    journal: FakeJournal, rng: random.Random, kind: str, legs: Mapping[str, int], *,
    manifest: Mapping[str, Json] | None = None, time_ms: int = NOW_MS, version: str | None = None,
) -> str:  # fmt: skip
    """An operator's posting; answers its key."""
    key = f"{event_id(time_ms, rng)}/{kind}/0"
    text = None if manifest is None else canonical_text(dict(manifest))
    journal.append(key, kind, legs, manifest=text, time_ms=time_ms, version=version)
    return key


def a_history(journal: FakeJournal, rng: random.Random, *, inferences: int) -> None:
    """So many inferences over three weeks, and what operators do meanwhile."""
    an_operation(journal, rng, "deposit", {"funding": -(10**9), "app:demo": 10**9})
    for number in range(inferences):
        time_ms = NOW_MS + rng.randrange(21 * DAY_MS)
        inference = an_inference(
            journal, rng, application=rng.choice(["demo", "shop"]), payees=rng.randrange(1, 5),
            time_ms=time_ms, settled=rng.random() < 0.8, partial=rng.random() < 0.2,
        )  # fmt: skip
        payee = f"contrib:payee-{rng.randrange(20)}"
        if number % 5 == 1:
            an_operation(
                journal, rng, "adjust", {payee: -7, "platform": 7},
                manifest={"reason": "found twice", "by": "ops"}, time_ms=time_ms,
            )  # fmt: skip
        if number % 5 == 2:
            an_operation(journal, rng, "payout", {payee: -3, "payout": 3}, time_ms=time_ms)
        if number % 5 == 3:
            key = f"{inference}/refund/0"
            legs = {"platform": -10, "app:demo": 10}
            journal.append(key, "refund", legs, time_ms=time_ms, version=ADAPTER)


def legs_of(journal: FakeJournal) -> list[Leg]:
    """Every leg of the journal, in order."""
    return [leg for text in journal.texts for leg in parse_entry(text).legs]
