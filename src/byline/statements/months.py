"""Calendar months in UTC, what a statement is about, and times as people read them. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from byline.errors import InvalidInput

MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
YEARS = range(1970, 9_999)  # from the first millisecond there is to the last year with a next


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """One month, written YYYY-MM."""

    year: int
    number: int  # 1 to 12

    @classmethod
    def parse(cls, text: str) -> "Month":
        """The month that `text` names. Raises InvalidInput for anything but YYYY-MM."""
        if not MONTH.fullmatch(text) or int(text[:4]) not in YEARS:
            raise InvalidInput(f"'{text[:20]}' is no month: write 2026-11", param="month")
        return cls(int(text[:4]), int(text[5:]))

    @classmethod
    def of(cls, time_ms: int) -> "Month":
        """The month in which that millisecond lies."""
        day = datetime.fromtimestamp(time_ms // 1_000, UTC)
        return cls(day.year, day.month)

    @property
    def start_ms(self) -> int:
        """Its first millisecond."""
        return int(datetime(self.year, self.number, 1, tzinfo=UTC).timestamp()) * 1_000

    @property
    def end_ms(self) -> int:
        """The first millisecond after it."""
        return self.next.start_ms

    @property
    def next(self) -> "Month":
        """The month after it."""
        return Month(self.year + self.number // 12, self.number % 12 + 1)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"


def time_text(time_ms: int) -> str:
    """A time as people read it, in UTC, to the second."""
    return datetime.fromtimestamp(time_ms // 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
