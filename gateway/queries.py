"""Query parameters: read strictly, refused by name."""

import math
from dataclasses import dataclass

from starlette.requests import Request

from byline.archive.cursor import Cursor, cursor_from
from byline.archive.days import day_number
from byline.archive.periods import Period
from byline.errors import InvalidInput
from byline.limits import LINES_PER_PAGE_MAX

LINES_DEFAULT = 50


@dataclass(frozen=True, slots=True)
class LinesAsked:
    """Which lines, and how many of them: `from`, `to`, `limit`, `cursor`."""

    period: Period
    limit: int
    cursor: Cursor | None


def number(request: Request, name: str, *, default: float, least: float, most: float) -> float:
    """A number between two bounds. Raises InvalidInput that names the parameter."""
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not least <= value <= most:  # also false for NaN
        raise InvalidInput(f"'{name}' is a number from {least:g} to {most:g}.", param=name)
    return value


def lines_asked(request: Request) -> LinesAsked:
    """The period, the page's length and its cursor. Raises InvalidInput."""
    period = Period(_day(request, "from"), _day(request, "to"))
    if period.first is not None and period.last is not None and period.first > period.last:
        raise InvalidInput("'from' is after 'to'.", param="from")
    limit = number(request, "limit", default=LINES_DEFAULT, least=1, most=LINES_PER_PAGE_MAX)
    cursor = request.query_params.get("cursor")
    return LinesAsked(period, int(limit), None if cursor is None else cursor_from(cursor))


def _day(request: Request, name: str) -> int | None:
    given = request.query_params.get(name)
    if given is None:
        return None
    try:
        return day_number(given)
    except ValueError:
        raise InvalidInput(f"'{name}' is a UTC day, as 2026-11-22.", param=name) from None
