"""Cuts a byte stream of the Redis protocol into whole messages. Knows no command."""

ONE_LINE = b"+-:_,#("  # these kinds end with their line
SIZED = b"$=!"  # bytes of a stated length follow
LISTS = b"*~>"  # so many messages follow
LINE_END = b"\r\n"


class Messages:
    """What has come in of one direction of one connection; a message may come in parts."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0  # how far the first message has been looked at
        self._missing = 1  # messages that are still to come until the first one is whole

    def feed(self, data: bytes) -> list[bytes]:
        """Add what came; answers the messages that are now whole."""
        self._bytes += data
        whole, start = [], 0
        while self._reaches_end():
            whole.append(self._bytes[start : self._at])
            start, self._missing = self._at, 1
        self._bytes = self._bytes[start:]
        self._at -= start
        return whole

    def _reaches_end(self) -> bool:
        while self._missing:
            line_end = self._bytes.find(LINE_END, self._at)
            if line_end < 0:
                return False
            follows, after = self._header(line_end)
            if after > len(self._bytes):
                return False
            self._at = after
            self._missing += follows - 1
        return True

    def _header(self, line_end: int) -> tuple[int, int]:
        """How many messages belong to the one whose header ends here, and where the rest begins."""
        kind, after = self._bytes[self._at], line_end + len(LINE_END)
        if kind in ONE_LINE:
            return 0, after
        count = int(self._bytes[self._at + 1 : line_end])
        if kind in LISTS:
            return max(count, 0), after
        assert kind in SIZED, f"byte {kind} begins no message"
        return 0, after if count < 0 else after + count + len(LINE_END)
