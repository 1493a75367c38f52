"""Makes anew what waiting holds and pools are finished by: their two lists, and the pools' jobs.

The journal says which holds and pools there are; the facts of their inferences say since when, and
what is to be attributed. Where such a fact is lost, the time in the inference's id stands for it.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress

from byline.canonical import canonical_text
from byline.errors import LedgerRefused
from byline.posting.keys import Keys
from byline.posting.postings import attribution_jobs, event_ms, open_account
from byline.posting.redis_client import Client, answering
from byline.records import AttributionJob
from byline.records_json import capture_from, job_fields

PAGE = 1_000  # accounts or jobs at once
NO_RECORD = (ValueError, KeyError, TypeError)  # what a text raises that is no record


class Waiting:
    """The holds and pools of one ledger that wait to be finished."""

    def __init__(self, redis: Client, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def write_folded(self, accounts: Collection[str]) -> None:
        """Write the lists of these accounts aside; `adopt.lua` puts them in their place."""
        keys = self._keys
        holds = [name for name in accounts if name.startswith("hold:")]
        pools = [name for name in accounts if name.startswith("open:")]
        await self._redis.delete(keys.holds_folded, keys.pools_folded)
        for page in _pages(holds):
            ends = await self._times(page, "expires_ms")
            of_holds = {_inference(name): ms for name, ms in ends.items()}
            await self._redis.zadd(keys.holds_folded, of_holds)
        for page in _pages(pools):
            await self._redis.zadd(keys.pools_folded, await self._times(page, "captured_ms"))

    async def enqueue_lost_jobs(self) -> int:
        """Enqueue a job for each open pool that has none; answers how many."""
        made, _ = await self.restore_jobs()
        return made

    async def restore_jobs(self, *, captured_by_ms: int | None = None) -> tuple[int, list[str]]:
        """The same, of pools captured by then; also the pools that nobody can make a job for.

        One that is settled meanwhile, or two who do this at once, may make a job too many: a pool
        is settled once.
        """
        by = "+inf" if captured_by_ms is None else str(captured_by_ms)
        made, hopeless = 0, list[str]()
        with answering("enqueue the jobs that are lost"):
            pools = await self._redis.zrange(self._keys.pools, "-inf", by, byscore=True)
            # Read after the pools: a job lies there until its pool is settled.
            with_job = await self._with_job() if pools else set()
            for page in _pages([pool for pool in pools if pool not in with_job]):
                jobs, jobless = await self._jobs(await self._still_open(page))
                async with self._redis.pipeline(transaction=False) as pipe:
                    for job in jobs:
                        pipe.xadd(self._keys.jobs, {"job": canonical_text(job_fields(job))})
                    await pipe.execute()
                made += len(jobs)
                hopeless += jobless
        return made, hopeless

    async def _still_open(self, pools: Sequence[str]) -> list[str]:
        scores = await self._redis.zmscore(self._keys.pools, pools)
        return [pool for pool, score in zip(pools, scores, strict=True) if score is not None]

    async def _times(self, names: Sequence[str], field: str) -> dict[str, int]:
        """Account -> the time in this fact of its inference, or else the time in its id."""
        facts = await self._facts(names, field)
        return {name: int(ms or _id_ms(name)) for name, ms in facts.items()}

    async def _facts(self, names: Sequence[str], field: str) -> Mapping[str, str | None]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(self._keys.inference(_inference(name)), field)
            return dict(zip(names, await pipe.execute(), strict=True))

    async def _with_job(self) -> set[str]:
        """The pools that have a job: one that is claimed lies in the stream until it is done.

        Or it lies aside while its adapter version is not paid.
        """
        aside = [self._keys.jobs_aside(v) for v in await self._redis.smembers(self._keys.aside)]
        found: set[str] = set()
        for stream in (*aside, self._keys.jobs, *aside):  # either way a job moves, it is met once
            found |= await self._pools_of(stream)
        return found

    async def _pools_of(self, stream: str) -> set[str]:
        found: set[str] = set()
        after = "-"
        while True:
            page = await self._redis.xrange(stream, after, "+", count=PAGE)
            for _, fields in page:
                with suppress(*NO_RECORD):  # what can't be read is nobody's job
                    job = json.loads(fields["job"])
                    found.add(open_account(job["inference"], job["ordinal"]))
            if len(page) < PAGE:
                return found
            after = f"({page[-1][0]}"

    async def _jobs(self, pools: Sequence[str]) -> tuple[list[AttributionJob], list[str]]:
        """The jobs that their captures had, and the pools whose capture's record is lost."""
        jobs: dict[str, AttributionJob] = {}
        records = await self._facts(pools, "capture")
        times = await self._times(pools, "captured_ms")
        for pool, record in records.items():
            with suppress(*NO_RECORD, LedgerRefused):
                made = attribution_jobs(capture_from(json.loads(record or "")), times[pool])
                named = {open_account(job.inference, job.ordinal): job for job in made}
                jobs[pool] = named[pool]
        return list(jobs.values()), [pool for pool in pools if pool not in jobs]


def _inference(account: str) -> str:
    """Whose hold or pool it is."""
    return account[5:].partition("/")[0]


def _id_ms(account: str) -> int:
    try:
        return event_ms(_inference(account))
    except LedgerRefused:
        return 0


def _pages(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + PAGE] for start in range(0, len(names), PAGE))
