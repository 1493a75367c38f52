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
STRIKES_REQUEST = {Kind.CLOSE_BEFORE, Kind.REDIS_BEFORE, Kind.REDIS_FORWARDED, Kind.REQUEST_TWICE}
NOT_PASSED = Fault(Kind.REQUEST_TWICE)  # of a reply that nobody is to hear


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

    def abort(self) -> None:
        """Cut it in both directions at once; what is under way here is gone."""
        self._to_actor.transport.abort()
        self._to_server.transport.abort()

    async def run(self, actor: asyncio.StreamReader, server: asyncio.StreamReader) -> None:
        """Pass on until one side ends."""
        directions = [
            asyncio.create_task(
                self._pass(actor, self._to_server, self._request, self._suffer_request)
            ),
            asyncio.create_task(
                self._pass(server, self._to_actor, self._reply, self._suffer_reply)
            ),
        ]
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for direction in directions:
            direction.cancel()
        await asyncio.wait(directions)
        self._to_actor.close()
        self._to_server.close()

    async def _pass(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        fault_of_next: Callable[[], Fault | None],
        suffer: Callable[[Fault, bytes], Awaitable[None]],
    ) -> None:
        messages = Messages()
        try:
            while data := await source.read(READ_BYTES):
                untouched: list[bytes] = []
                for message in messages.feed(data):
                    fault = fault_of_next()
                    if fault is None:
                        untouched.append(message)
                        continue
                    sink.write(b"".join(untouched))
                    untouched.clear()
                    await suffer(fault, message)
                sink.write(b"".join(untouched))
                await sink.drain()
        except (OSError, Ended):
            return

    def _request(self) -> Fault | None:
        """What strikes the next request itself; what strikes its reply is noted."""
        fault = self._door.next_fault()
        self._asked += 1
        if fault is None or fault.kind in STRIKES_REQUEST:
            return fault
        self._struck[self._asked] = fault
        return None

    async def _suffer_request(self, fault: Fault, message: bytes) -> None:
        if fault.kind is Kind.REQUEST_TWICE:
            self._asked += 1
            self._struck[self._asked] = NOT_PASSED
            self._to_server.write(message + message)
            return
        if fault.kind is Kind.REDIS_FORWARDED:
            self._to_server.write(message)
            await asyncio.sleep(fault.seconds)  # the server may or may not come to it
        if fault.kind is not Kind.CLOSE_BEFORE:
            self._door.kill_server()
        raise Ended

    def _reply(self) -> Fault | None:
        self._answered += 1
        fault = self._struck.pop(self._answered, None)
        return NOT_PASSED if self._door.silent else fault

    async def _suffer_reply(self, fault: Fault, message: bytes) -> None:
        match fault.kind:
            case Kind.REPLY_TWICE:
                self._to_actor.write(message + message)
            case Kind.DELAY_REPLY:
                await asyncio.sleep(fault.seconds)
                self._to_actor.write(message)
            case Kind.STALL:
                await asyncio.sleep(fault.seconds)
                raise Ended
            case Kind.CUT_REPLY:
                self._to_actor.write(message[: int(len(message) * fault.fraction)])
                raise Ended
            case Kind.DROP_REPLY:
                raise Ended
            case Kind.REDIS_ANSWERED:
                self._door.kill_server()
                raise Ended
