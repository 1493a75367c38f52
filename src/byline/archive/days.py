"""UTC days, as the archive numbers them: whole days since 1970-01-01."""

from datetime import date

from byline.limits import CLEARING_DAYS
from byline.posting.postings import DAY_MS

EPOCH = date(1970, 1, 1).toordinal()


def day_number(iso: str) -> int:
    """The number of a day written as YYYY-MM-DD. Raises ValueError for anything else."""
    day = date.fromisoformat(iso)
    if day.isoformat() != iso:
        raise ValueError(f"'{iso}' is no day as YYYY-MM-DD")
    return day.toordinal() - EPOCH


def iso_day(day: int) -> str:
    """A day's number as YYYY-MM-DD."""
    return date.fromordinal(day + EPOCH).isoformat()


def first_pending_day(now_ms: int) -> int:
    """Earnings of this day and of later ones are pending.

    A day's earnings clear all at once, when CLEARING_DAYS whole days have passed after it.
    """
    return now_ms // DAY_MS - CLEARING_DAYS
