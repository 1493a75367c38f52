"""Cuts a byte stream of the Redis protocol into whole messages. Knows no command."""

ONE_LINE = b"+-:_,#("  # these kinds end with their line
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
        self._bytes = data = self._bytes + data if self._bytes else data
        whole, start, at, missing = [], 0, self._at, self._missing
        # One loop without calls: every byte of a run goes through it.
        while (line_end := data.find(LINE_END, at)) >= 0:
            kind, after = data[at], line_end + 2
            if kind in LISTS:
                missing += max(int(data[at + 1 : line_end]), 0)
            elif kind not in ONE_LINE and (size := int(data[at + 1 : line_end])) >= 0:
                after += size + 2
                if after > len(data):
                    break
            at = after
            missing -= 1
            if not missing:
                whole.append(data[start:at])
                start, missing = at, 1
        self._bytes, self._at, self._missing = data[start:], at - start, missing
        return whole
