"""The two clients that are compared: ours, and redis-py as anybody would use it at first."""

from byline.ledger.ledger import Ledger
from byline.posting import postings
from byline.posting.call import Call
from byline.posting.keys import Keys
from byline.posting.postings import Posting
from byline.posting.redis_client import Client
from byline.posting.scripts import Script
from byline.records import Attribution, Capture
from loadtests.ledger_bench.operations import now_ms

NAME = "usd"


class Naive:
    """One EVALSHA call a post, each on a connection of redis-py's pool; the same posting."""

    def __init__(self, redis: Client, epoch: int) -> None:
        self._redis = redis
        self._epoch = epoch
        self._keys = Keys(NAME)
        self._scripts = {name: Script(name) for name in ("capture", "settle")}

    async def load(self) -> None:
        """Give the server the scripts."""
        for script in self._scripts.values():
            await self._redis.script_load(script.text)

    async def capture(self, capture: Capture) -> None:
        """Post a capture."""
        await self._post(postings.capture(capture, time_ms=now_ms()))

    async def settle(self, attribution: Attribution) -> None:
        """Post a settlement."""
        await self._post(postings.settle(attribution, time_ms=now_ms()))

    async def _post(self, posting: Posting) -> None:
        call = Call(self._scripts[posting.script])
        call.add(posting, self._keys)
        ((status, *_),) = await self._redis.execute_command(*call.command(self._keys, self._epoch))
        assert status == "posted", status


class Ours:
    """The ledger's own client."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def capture(self, capture: Capture) -> None:
        """Post a capture."""
        assert not (await self._ledger.capture(capture, time_ms=now_ms())).duplicate

    async def settle(self, attribution: Attribution) -> None:
        """Post a settlement."""
        assert not (await self._ledger.settle(attribution, time_ms=now_ms())).duplicate
