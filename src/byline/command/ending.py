"""How the command ends when it can't do what was asked: one clear line, or one JSON object.

With `--json` every refusal, also of an option that does not exist, is the last line of standard
output: `{"error": {"code", "message", "param"}}`. Exit status 2 says that the command was not
understood, 1 that it could not be done.
"""

import errno
import json
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from byline.errors import BylineError, LedgerFrozen

HOW_TO_THAW = "`byline ledger thaw` ends it, once the reason is dealt with"


def run_command(app: typer.Typer, words: Sequence[str]) -> NoReturn:
    """Run the command with these words and exit; a bug keeps its traceback."""
    as_json = asks_for_json(words)
    try:
        status = app(list(words), standalone_mode=not as_json)
    except typer.TyperException as problem:  # with --json alone: else it was shown, with the usage
        _fail(as_json, "usage", problem.format_message(), _param(problem), problem.exit_code)
    except BylineError as problem:
        _fail(as_json, _code(problem), _text(problem), getattr(problem, "param", None))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as problem:
        if problem.errno != errno.ENOSPC:
            raise
        _fail(as_json, "disk_full", f"the disk is full ({problem}). Free some space and run it "
              "again: nothing half-built was kept.")  # fmt: skip
    sys.exit(status if isinstance(status, int) else 0)


def asks_for_json(words: Sequence[str]) -> bool:
    """True where `--json` is among the options; what stands after `--` is none."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _fail(
    as_json: bool, code: str, message: str, param: str | None = None, status: int = 1
) -> NoReturn:
    if as_json:
        print(json.dumps({"error": {"code": code, "message": message, "param": param}}))
    else:
        sys.stderr.write(f"byline: {message}\n")
    sys.exit(status)


def _text(problem: BylineError) -> str:
    if isinstance(problem, LedgerFrozen):
        return f"posting is frozen, nothing was posted ({problem}); {HOW_TO_THAW}"
    return str(problem)


def _code(problem: BylineError) -> str:
    """The name of the error, as the gateway would write it: `ledger_unavailable`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(problem).__name__).lower()


def _param(problem: typer.TyperException) -> str | None:
    """The option or argument that was wrong, by the name it has in the manual."""
    name: str | None = getattr(getattr(problem, "param", None), "name", None)
    option: str | None = getattr(problem, "option_name", None)
    return name or (option and option.lstrip("-").replace("-", "_"))
