"""Doors: each actor reaches Redis through its own, where replies are lost, late, or come twice.

A door counts the requests that pass since it was armed, so that a fault strikes the same request of
the same turn in every run of one seed. It knows the protocol's message bounds and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from loadtests.faults.faults import Fault, Kind
from loadtests.faults.resp import Messages

READ_BYTES = 1 << 18


class Ended(Exception):
    """A fault ends the connection here."""


class Door:
    """One actor's way to the server at `upstream`."""

    def __init__(self, path: Path, kill_server: Callable[[], None]) -> None:
        self.path = path
        self.kill_server = kill_server
        self.upstream: Path | None = None
        self.silent = False  # no reply passes: what happened inside stays unknown
        self.struck: list[Kind] = []
        self._faults: dict[int, Fault] = {}
        self._count = 0
        self._passages: set[Passage] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The address that the actor is given."""
        return f"unix://{self.path}"

    async def open(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_unix_server(self._enter, str(self.path))

    async def close(self) -> None:
        """Listen no more; returns when every connection has ended."""
        if self._server is not None:
            self._server.close()
        self.cut()
        if self._serving:
            await asyncio.wait(self._serving)

    def arm(self, faults: Sequence[Fault]) -> None:
        """Count anew and strike each fault at its request; none disarms."""
        self._faults = {fault.at: fault for fault in faults}
        self._count = 0

    def point_to(self, upstream: Path) -> None:
        """Lead to another server from now on; the connections to the old one are cut."""
        self.upstream = upstream
        self.cut()

    def cut(self) -> None:
        """Cut every connection."""
        for passage in self._passages:
            passage.abort()

    def next_fault(self) -> Fault | None:
        """Count one request; what is to strike it?"""
        self._count += 1
        fault = self._faults.pop(self._count, None)
        if fault is not None:
            self.struck.append(fault.kind)
        return fault

    def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_unix_connection(str(self.upstream))
        except OSError:
            writer.transport.abort()
            return
        passage = Passage(self, writer, to_server)
        self._passages.add(passage)
        await passage.run(reader, from_server)
        self._passages.discard(passage)


class Passage:
    """One connection through a door."""

    def __init__(
        self, door: Door, to_actor: asyncio.StreamWriter, to_server: asyncio.StreamWriter
    ) -> None:
        self._door = door
        self._to_actor = to_actor
        self._to_server = to_server
        self._asked = 0  # requests that the server was given
        self._answered = 0
        self._struck: dict[int, Fault] = {}  # number of a reply -> what strikes it
        self._swallowed: set[int] = set()  # numbers of replies that nobody asked for

    def abort(self) -> None:
        """Cut it in both directions at once."""
        self._to_actor.transport.abort()
        self._to_server.transport.abort()

    async def run(self, actor: asyncio.StreamReader, server: asyncio.StreamReader) -> None:
        """Pass on until one side ends."""
        directions = [
            asyncio.ensure_future(self._pass(actor, self._to_server, self._request)),
            asyncio.ensure_future(self._pass(server, self._to_actor, self._reply)),
        ]
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for direction in directions:
            direction.cancel()
        await asyncio.wait(directions)
        self.abort()

    async def _pass(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        passed: Callable[[bytes], Awaitable[bytes]],
    ) -> None:
        messages = Messages()
        try:
            while data := await source.read(READ_BYTES):
                for message in messages.feed(data):
                    sink.write(await passed(message))
                await sink.drain()
        except (OSError, Ended):
            return

    async def _request(self, message: bytes) -> bytes:
        """What the server is given instead of this request."""
        fault = self._door.next_fault()
        self._asked += 1
        if fault is None:
            return message
        if fault.kind is Kind.CLOSE_BEFORE:
            raise Ended
        if fault.kind is Kind.REDIS_BEFORE:
            self._door.kill_server()
            raise Ended
        if fault.kind is Kind.REDIS_FORWARDED:
            self._to_server.write(message)
            await asyncio.sleep(fault.seconds)  # the server may or may not come to it
            self._door.kill_server()
            raise Ended
        if fault.kind is Kind.REQUEST_TWICE:
            self._asked += 1
            self._swallowed.add(self._asked)
            return message + message
        self._struck[self._asked] = fault
        return message

    async def _reply(self, message: bytes) -> bytes:
        """What the actor is given instead of this reply."""
        self._answered += 1
        if self._door.silent or self._answered in self._swallowed:
            return b""
        fault = self._struck.pop(self._answered, None)
        if fault is None:
            return message
        if fault.kind is Kind.REDIS_ANSWERED:
            self._door.kill_server()
            raise Ended
        if fault.kind is Kind.CUT_REPLY:
            self._to_actor.write(message[: int(len(message) * fault.fraction)])
            await self._to_actor.drain()
            raise Ended
        if fault.kind is Kind.DROP_REPLY:
            raise Ended
        if fault.kind is Kind.REPLY_TWICE:
            return message + message
        await asyncio.sleep(fault.seconds)
        if fault.kind is Kind.STALL:
            raise Ended
        return message
