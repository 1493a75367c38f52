"""The Lua scripts of the ledger, as they are sent."""

import hashlib
from pathlib import Path

from byline import limits

SCRIPTS = Path(__file__).parent / "ledger_scripts"
BOUNDS = (
    "LEG_NANO_MAX",
    "LEGS_PER_ENTRY_MAX",
    "BALANCE_DIGITS_MAX",
    "CONTRIBUTOR_DEBT_NANO_MAX",
    "CENT_NANO",
)


class Script:
    """One posting script: the prelude and its own body."""

    def __init__(self, name: str) -> None:
        self.text = prelude() + script_text(name)
        self.sha1 = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


def prelude() -> str:
    """What stands before the body of every posting script, with the bounds that it reads."""
    values = ", ".join(str(getattr(limits, bound)) for bound in BOUNDS)
    return f"local {', '.join(BOUNDS)} = {values}\n{script_text('prelude')}"


def script_text(name: str) -> str:
    """The text of one file of `ledger_scripts`."""
    return (SCRIPTS / f"{name}.lua").read_text()
