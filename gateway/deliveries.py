"""The deliveries of all shards as one: a delivery and a spool for each, and who has which.

What one shard does not answer waits in its own spool and keeps no other waiting.
"""

import asyncio
from collections.abc import Callable, Mapping

from byline.delivery.delivery import Delivery
from byline.delivery.spool import Spool
from byline.errors import BylineError
from byline.ledger.shards import Shards
from byline.posting.postings import Posting


class Deliveries:
    """Hides how many shards there are."""

    def __init__(
        self,
        shards: Shards,
        spools: Mapping[str, Spool],
        *,
        refused: Callable[[Posting, BylineError], None],
    ) -> None:
        """`spools` by the name of the shard; `refused` as for `Delivery`."""
        self._shards = shards
        self._by_shard = {
            name: Delivery(ledger, spools[name], refused=refused)
            for name, ledger in shards.ledgers.items()
        }

    def of(self, application: str) -> Delivery:
        """The delivery to the application's shard."""
        return self._by_shard[self._shards.name_of(application)]

    @property
    def waiting(self) -> int:
        """How many postings the shards have not answered."""
        return sum(delivery.waiting for delivery in self._by_shard.values())

    @property
    def oldest_ms(self) -> int | None:
        """Since when the oldest of them waits."""
        oldest = (delivery.oldest_ms for delivery in self._by_shard.values())
        return min((since for since in oldest if since is not None), default=None)

    async def ping(self) -> None:
        """Raise unless this writer could post to some shard; a raised epoch is taken.

        One shard that fails over must not take every gateway out of service: its applications are
        answered 503 meanwhile, all others are served.
        """
        ledgers = self._shards.ledgers
        answers = await asyncio.gather(
            *(delivery.rejoined(ledgers[name].ping) for name, delivery in self._by_shard.items()),
            return_exceptions=True,
        )
        problems = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(problems) == len(answers):
            raise problems[0]

    async def run(self, stop: asyncio.Event) -> None:
        """Send to each shard what waits for it, until `stop`."""
        await asyncio.gather(*(delivery.run(stop) for delivery in self._by_shard.values()))

    async def drain(self, seconds: float) -> int:
        """Wait for the posts under way, at most so long; answers how many are left."""
        left = await asyncio.gather(
            *(delivery.drain(seconds) for delivery in self._by_shard.values())
        )
        return sum(left)
