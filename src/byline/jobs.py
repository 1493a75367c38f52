"""The attribution jobs: a Redis stream that `capture` appends to and workers claim from."""

from byline.records import AttributionJob


class Jobs:
    """Claims jobs for one consumer; a job is gone only when it is acknowledged."""

    @classmethod
    async def open(cls, url: str, *, consumer: str, name: str = "usd") -> "Jobs":
        """Connect, and make the consumer group if there is none."""
        raise NotImplementedError

    async def claim(self, *, count: int, block_ms: int) -> list[AttributionJob]:
        """Jobs left idle by a dead worker first, then new ones; empty when none came in time."""
        raise NotImplementedError

    async def acknowledge(self, job: AttributionJob) -> None:
        """Forget a job: its attribution is settled."""
        raise NotImplementedError

    async def waiting(self, *, now_ms: int) -> tuple[int, float]:
        """How many jobs are not acknowledged, and the age of the oldest in seconds."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connection."""
        raise NotImplementedError
