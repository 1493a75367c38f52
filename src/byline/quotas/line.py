"""The connection to the server that keeps the quotas, made anew after it broke.

Nothing is sent twice here: whoever had no answer knows nothing, and refuses.
"""

import asyncio
from collections.abc import Mapping, Sequence

from hiredis import ReplyError

from byline.errors import LedgerUnavailable
from byline.posting.address import Address
from byline.posting.cluster import located
from byline.posting.pipeline import Pipeline, Reply, pack, packed, require_no_error
from byline.posting.redis_client import refusal
from byline.quotas.scripts import sha1_of

# Another server may answer: after one of these the server is looked for anew, and told the scripts.
ELSEWHERE = ("MOVED", "READONLY", "NOSCRIPT", "CLUSTERDOWN", "MASTERDOWN", "LOADING")


class Line:
    """One connection at a time; the requests of one event loop share it."""

    def __init__(
        self, url: str, tag: str, scripts: Mapping[str, str], *, timeout_seconds: float
    ) -> None:
        self._url = url
        self._tag = tag
        self._scripts = {name: (sha1_of(text), text) for name, text in scripts.items()}
        self._timeout_seconds = timeout_seconds
        self._pipeline: Pipeline | None = None
        self._opening: asyncio.Task[Pipeline] | None = None

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Reply:
        """Run a script once. Raises LedgerUnavailable: perhaps it ran, perhaps not."""
        sha1, _ = self._scripts[script]
        return await self.call("EVALSHA", sha1, len(keys), *keys, *arguments)

    async def call(self, *words: str | int) -> Reply:
        """Send one command once, likewise."""
        attempt = f"quotas: {words[0]}"
        pipeline = await self._open_pipeline()
        try:
            (reply,) = await pipeline.exchange(pack(words), 1)
        except LedgerUnavailable as problem:
            raise LedgerUnavailable(f"{attempt}: {problem}") from problem
        if isinstance(reply, ReplyError):
            if str(reply).startswith(ELSEWHERE):
                pipeline.break_off(f"the server answered: {reply}")
            raise refusal(attempt, str(reply))
        return reply

    def break_off(self, reason: str) -> None:
        """Close the connection; what is under way has no answer."""
        if self._pipeline is not None:
            self._pipeline.break_off(reason)

    async def close(self) -> None:
        """Close the connection, also one that is being made."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._pipeline is not None:
            self._pipeline.break_off("the quotas were closed")
            await self._pipeline.closed()

    async def _open_pipeline(self) -> Pipeline:
        """The connection; all who find none wait for the same attempt to make one."""
        if self._pipeline is not None and self._pipeline.broken is None:
            return self._pipeline
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    async def _open(self) -> Pipeline:
        address = Address.parse(await located(self._url, self._tag))
        pipeline = await Pipeline.open(address, timeout_seconds=self._timeout_seconds)
        loads = [("SCRIPT", "LOAD", text) for _, text in self._scripts.values()]
        try:
            require_no_error("load the quotas' scripts", await pipeline.exchange(*packed(loads)))
        except BaseException:
            pipeline.break_off("the scripts were not taken")
            raise
        return pipeline

    def _opened(self, attempt: "asyncio.Task[Pipeline]") -> None:
        self._opening = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._pipeline = attempt.result()
