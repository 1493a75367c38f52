"""Stands between a poster and its server, and tampers with the replies on their way back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

# Whole replies, as the bytes they came in, to what is handed on instead.
Tampering = Callable[[list[bytes]], list[bytes]]


def whole_replies(data: bytes) -> tuple[list[bytes], bytes]:
    """The replies in `data`, and what is left of one that is not whole."""
    replies = []
    while (end := _end_of_reply(data, 0)) is not None:
        replies.append(data[:end])
        data = data[end:]
    return replies, data


def parts(reply: bytes) -> list[bytes]:
    """The replies that a list is made of."""
    return whole_replies(reply[reply.index(b"\r\n") + 2 :])[0]


def _end_of_reply(data: bytes, start: int) -> int | None:
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    end, kind, rest = line_end + 2, data[start : start + 1], data[start + 1 : line_end]
    if kind == b"$" and int(rest) >= 0:
        end += int(rest) + 2
        return end if end <= len(data) else None
    if kind == b"*":
        for _ in range(int(rest)):
            inner = _end_of_reply(data, end)
            if inner is None:
                return None
            end = inner
    return end


class Meddler:
    """A unix socket that hands commands on, and replies as `tamper` makes them."""

    def __init__(self, path: Path, server: Path) -> None:
        self.url = f"unix://{path}"
        self.tamper: Tampering | None = None  # for the next replies of a posting script only
        self.opens_replies = False  # tamper with what the first of these replies is made of
        self.delay_seconds = 0.0
        self._path = path
        self._server = server
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Meddler"]:
        """Listen as long as the block."""
        server = await asyncio.start_unix_server(self._serve, self._path)
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(self._server)
        self._writers |= {writer, forth}
        answering = asyncio.create_task(self._hand_back(back, writer))
        try:
            while data := await reader.read(1 << 16):
                forth.write(data)
        except ConnectionError:
            pass
        finally:
            answering.cancel()
            for each in (forth, writer):
                each.transport.abort()
                self._writers.discard(each)

    async def _hand_back(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rest = b""
        while data := await back.read(1 << 16):
            replies, rest = whole_replies(rest + data)
            if self.tamper is not None and any(b"posted" in reply for reply in replies):
                tamper, self.tamper = self.tamper, None
                if self.opens_replies:
                    within = tamper(parts(replies[0]))
                    replies[0] = b"".join([b"*%d\r\n" % len(within), *within])
                else:
                    replies = tamper(replies)
            await asyncio.sleep(self.delay_seconds)
            writer.write(b"".join(replies))
        writer.transport.abort()
