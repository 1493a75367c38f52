"""Query parameters: read strictly, refused by name."""

import math

from starlette.requests import Request

from byline.errors import InvalidInput


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
