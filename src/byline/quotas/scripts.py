"""The Lua scripts of quotas, as they are sent."""

import hashlib
from pathlib import Path

from byline.limits import (
    QUOTA_CLOCK_BACK_MS_MAX,
    QUOTA_CLOSED_KEPT_MS,
    QUOTA_USE_KEPT_MS,
    QUOTA_WINDOW_SECONDS,
)

FOLDER = Path(__file__).parent / "quota_scripts"
NAMES = ("admit", "correct", "overdue", "used")
BOUNDS = {
    "WINDOW": QUOTA_WINDOW_SECONDS,
    "CLOCK_BACK_MS_MAX": QUOTA_CLOCK_BACK_MS_MAX,
    "USE_KEPT_MS": QUOTA_USE_KEPT_MS,
    "CLOSED_KEPT_MS": QUOTA_CLOSED_KEPT_MS,
}


def script_texts() -> dict[str, str]:
    """Every script by its name: the bounds, the prelude and its own body."""
    bounds = f"local {', '.join(BOUNDS)} = {', '.join(map(str, BOUNDS.values()))}\n"
    prelude = bounds + _read("prelude")
    return {name: prelude + _read(name) for name in NAMES}


def sha1_of(text: str) -> str:
    """The name under which a server knows a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _read(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text()
