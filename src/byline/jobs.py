"""The attribution jobs: a Redis stream that `capture` appends to and workers claim from.

A job is deleted when it is acknowledged, so that what lies in the stream is what waits. Jobs of
adapter versions that are not paid for now are set aside, each version's in a stream of its own, so
that they keep no others waiting and count no attempts; they come back as new ones.
"""

from collections.abc import Callable, Collection
from typing import Any

from redis.exceptions import ResponseError

from byline.canonical import canonical_text
from byline.limits import JOB_IDLE_SECONDS
from byline.posting.cluster import Follower, reach
from byline.posting.keys import Keys
from byline.posting.redis_client import Client, answering, without_password
from byline.records import AttributionJob
from byline.records_json import job_fields, job_from

GROUP = "workers"
BLOCK_MS_MAX = 2_000  # well below the socket's timeout, else waiting looks like a broken server
ARRIVALS_MAX = 100  # told of at once
BACK_MAX = 100  # jobs that come back in one transaction
Paused = Callable[[], Collection[str]]  # the adapter versions that are not paid for now


def nobody() -> Collection[str]:
    """No version is paused."""
    return ()


class Jobs:
    """Claims jobs for one consumer; a job is gone only when it is acknowledged."""

    def __init__(
        self, redis: Client, keys: Keys, consumer: str, follower: Follower, paused: Paused
    ) -> None:
        self._redis = redis
        self._follower = follower
        self._keys = keys
        self._stream = keys.jobs
        self._paused = paused
        self._consumer = consumer
        self._leftovers = True  # may this consumer's name have jobs from an earlier life?
        self._cursor = "0-0"  # where the search for idle jobs goes on
        self._seen = "0-0"  # the newest job that `arrival` has told of

    @classmethod
    async def open(
        cls, url: str, *, consumer: str, name: str = "usd", paused: Paused = nobody
    ) -> "Jobs":
        """Connect, and make the consumer group if there is none.

        A consumer that opens again under its old name finds its unfinished jobs at once; two live
        workers must not share a name.
        """
        keys = Keys(name)
        redis, follower = await reach(url, keys.jobs)
        try:
            with answering(f"open the jobs at {without_password(url)}"):
                await _make_group(redis, keys.jobs)
        except BaseException:
            await follower.close()
            await redis.aclose()
            raise
        return cls(redis, keys, consumer, follower, paused)

    async def claim(self, *, count: int, block_ms: int) -> list[AttributionJob]:
        """Jobs left idle by a dead worker first, then new ones; empty when none came in time.

        Waits two seconds at the most. `attempts` counts this delivery too. Jobs of paused versions
        are set aside instead. Raises what `paused` raises, before anything is claimed.
        """
        while True:
            paused = self._paused()
            claimed = await self._claimed(count, block_ms)
            kept = [job for job in claimed if job.adapter_version not in paused]
            for job in claimed:
                if job.adapter_version in paused:
                    await self._set_aside(job)
            if kept or not claimed:
                return kept

    async def take_back(self) -> int:
        """Put the jobs of versions that are not paused any more back, as new ones; how many.

        Two who do this at once may make a job too many: a pool is settled once.
        """
        paused, taken = self._paused(), 0
        with answering("take jobs back"):
            for version in sorted(await self._redis.smembers(self._keys.aside)):
                while version not in paused:
                    found = await self._back(self._keys.jobs_aside(version))
                    taken += found
                    if found < BACK_MAX:
                        break
        return taken

    async def _back(self, aside: str) -> int:
        found = await self._redis.xrange(aside, count=BACK_MAX)
        if found:
            async with self._redis.pipeline(transaction=True) as pipe:
                for message_id, fields in found:
                    pipe.xadd(self._stream, fields)
                    pipe.xdel(aside, message_id)
                await pipe.execute()
        return len(found)

    async def _set_aside(self, job: AttributionJob) -> None:
        """Out of the stream and into its version's, in one transaction."""
        with answering(f"set the job of {job.inference} aside"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.sadd(self._keys.aside, job.adapter_version)
                pipe.xadd(
                    self._keys.jobs_aside(job.adapter_version),
                    {"job": canonical_text(job_fields(job))},
                )
                pipe.xack(self._stream, GROUP, job.message_id)
                pipe.xdel(self._stream, job.message_id)
                await pipe.execute()

    async def _claimed(self, count: int, block_ms: int) -> list[AttributionJob]:
        with answering("claim attribution jobs"):
            taken = await self._left_behind(count) or await self._idle(count)
            if taken:
                return await self._as_jobs(taken)
            block = min(block_ms, BLOCK_MS_MAX) if block_ms > 0 else None
            new = await self._read(">", count, block)
        return [_job(message_id, fields, attempts=1) for message_id, fields in new]

    async def arrival(self, *, block_ms: int) -> None:
        """Wait for a job that this has not told of yet, two seconds at the most; claims nothing.

        Somebody else may claim it first.
        """
        with answering("wait for attribution jobs"):
            streams = await self._redis.xread(
                {self._stream: self._seen}, count=ARRIVALS_MAX, block=min(block_ms, BLOCK_MS_MAX)
            )
        for _, messages in streams or []:
            self._seen = messages[-1][0]

    async def acknowledge(self, job: AttributionJob) -> None:
        """Forget a job: its attribution is settled."""
        with answering(f"acknowledge the job of {job.inference}"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.xack(self._stream, GROUP, job.message_id)
                pipe.xdel(self._stream, job.message_id)
                await pipe.execute()

    async def waiting(self, *, now_ms: int) -> tuple[int, float]:
        """How many jobs are not acknowledged, and the age of the oldest in seconds."""
        with answering("look at the jobs"):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.xlen(self._stream).xrange(self._stream, count=1)
                length, oldest = await pipe.execute()
        if not oldest:
            return 0, 0.0
        job = _job(*oldest[0], attempts=1)
        return length, max(0.0, (now_ms - job.enqueued_ms) / 1000)

    async def close(self) -> None:
        """Close the connection."""
        await self._follower.close()
        await self._redis.aclose()

    async def _left_behind(self, count: int) -> list[tuple[str, dict[str, str]]]:
        """What this consumer was given before it was started again."""
        if not self._leftovers:
            return []
        taken = await self._read("0", count, None)
        self._leftovers = False
        return taken

    async def _idle(self, count: int) -> list[tuple[str, dict[str, str]]]:
        """What other consumers have had for too long."""
        cursor, taken, _ = await self._redis.xautoclaim(
            self._stream, GROUP, self._consumer, int(JOB_IDLE_SECONDS * 1000),
            start_id=self._cursor, count=count,
        )  # fmt: skip
        self._cursor = cursor
        return list(taken)

    async def _read(
        self, start: str, count: int, block: int | None
    ) -> list[tuple[str, dict[str, str]]]:
        streams = await self._redis.xreadgroup(
            GROUP, self._consumer, {self._stream: start}, count=count, block=block
        )
        return [message for _, messages in streams or [] for message in messages]

    async def _as_jobs(self, taken: list[tuple[str, dict[str, str]]]) -> list[AttributionJob]:
        """With the number of times that each was delivered, which the stream counts."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for message_id, _ in taken:
                pipe.xpending_range(self._stream, GROUP, message_id, message_id, 1)
            pending: list[list[dict[str, Any]]] = await pipe.execute()
        return [
            _job(message_id, fields, attempts=found[0]["times_delivered"] if found else 1)
            for (message_id, fields), found in zip(taken, pending, strict=True)
        ]


async def _make_group(redis: Client, stream: str) -> None:
    try:
        await redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
    except ResponseError as problem:
        if not str(problem).startswith("BUSYGROUP"):  # there is one already
            raise


def _job(message_id: str, fields: dict[str, str], *, attempts: int) -> AttributionJob:
    return job_from(fields["job"], attempts=attempts, message_id=message_id)
