"""What the scripts of quotas answered, as records. Pure."""

from collections.abc import Sequence

from byline.posting.pipeline import Reply
from byline.quotas.scopes import Admitted, LimitName, Refused, Scope, Window


class NotItsAnswer(Exception):
    """The answer is another inference's, or none at all: replies have lost their order."""


class ClosedBefore(Exception):
    """The inference was corrected before its admission came: its sender has given it up."""


def require_named(reply: Reply, inference: str) -> str:
    """The status of an answer that names its inference; else NotItsAnswer."""
    match reply:
        case [str(status), str(named), *_] if named == inference:
            return status
    raise NotItsAnswer(f"{inference} was given an answer that is not its own")


def admission_from(reply: Reply, inference: str) -> Admitted | Refused:
    """Read an answer to `admit`. Raises NotItsAnswer or ClosedBefore."""
    status = require_named(reply, inference)
    match status, reply[2:]:
        case "unlimited", []:
            return Admitted(is_limited=False)
        case "closed", []:
            raise ClosedBefore(f"{inference} was given up before it was admitted")
        case "admitted", [*windows] if len(windows) == 6:
            requests, tokens = _windows(windows)
            return Admitted(is_limited=True, requests=requests, tokens=tokens)
        case "refused", [*windows, name, scope, limit, used, wanted, wait] if len(windows) == 6:
            requests, tokens = _windows(windows)
            return Refused(
                LimitName(name), Scope.parse(scope), int(limit), int(used), int(wanted),
                None if wait < 0 else int(wait), requests, tokens,
            )  # fmt: skip
    raise NotItsAnswer(f"{inference} was answered with '{status}'")


def _windows(numbers: Sequence[int]) -> tuple[Window | None, Window | None]:
    return _window(numbers[:3]), _window(numbers[3:])


def _window(numbers: Sequence[int]) -> Window | None:
    limit, remaining, reset_ms = numbers
    return None if limit < 0 else Window(limit, remaining, reset_ms)
