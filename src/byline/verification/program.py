"""The program: its options, what it prints, its exit status."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from .files import FAILED, HOLDS, Files
from .policies import Policy
from .proof import Refused, printable
from .replay import replay
from .together import conclude

NOT_SHOWN = (
    "What no proof shows: an inference that was never recorded (the application's own receipts are "
    "the answer to that), and that the weights are causally right (audits measure it). Witnesses "
    "that the operator runs himself make a fork detectable, not impossible."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check files or an export; 0 if all of it holds, 1 if not, 2 if it was not understood."""
    parser = argparse.ArgumentParser(
        prog="verify", description="Check Byline's proofs offline.", epilog=NOT_SHOWN
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    trust = parser.add_mutually_exclusive_group(required=True)
    trust.add_argument("--key", action="append", metavar="VKEY", help="a log's or receipts' key")
    trust.add_argument("--policy", type=Path, help="a file that says which keys are trusted")
    parser.add_argument("--against", type=Path, metavar="OLDER", help="a file with an older head")
    parser.add_argument("--replay", type=Path, metavar="EXPORT", help="the folder of an export")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_intermixed_args(arguments)
    if bool(options.files) == bool(options.replay):
        parser.error("it needs files, or the export to replay")
    keys, path = options.key, options.policy
    try:
        policy = Policy("\n".join(keys) if keys else path.read_text("utf-8"))
    except (Refused, OSError, UnicodeError) as problem:
        parser.error(printable(f"it is not clear whom to trust: {problem}"))
    if options.replay is None:
        found = check(options.files, policy, options.against)
        return _report(found, {"files": len(options.files)}, as_json=options.json)
    found, balances = replay(options.replay, policy, options.against)
    texts = {account: str(nano) for account, nano in sorted(balances.items())}
    for account, nano in texts.items():
        print(f"{int(nano):>26,}  {printable(account)}")  # noqa: T201 - it is a program
    return _report(found, {"balances": texts}, as_json=options.json)


def check(paths: Sequence[Path], policy: Policy, against: Path | None = None) -> Files:
    """Check the files, then what they show together."""
    found = Files(policy)
    for path in paths:
        found.attempt(str(path), found.read, path)
    older = None if against is None else found.attempt(str(against), found.older, against)
    conclude(found, older)
    return found


def verdict(found: Files) -> str:
    """The last word: what holds, and how much is not shown."""
    if found.failed:
        return "FAILED"
    open_ = len(found.not_shown)
    return f"All of it holds; in brackets, {open_} not shown." if open_ else "All of it holds."


def _report(found: Files, facts: Mapping[str, object], *, as_json: bool) -> int:
    """Print a sentence for each check; answers the exit status."""
    for mark, sentence in found.said:
        print(f"{mark:<6} {sentence}")  # noqa: T201
    print(f"\n{verdict(found)}\n{NOT_SHOWN}")  # noqa: T201
    if as_json:
        checks = sum(mark in (HOLDS, FAILED) for mark, _ in found.said)
        print(json.dumps({"verified": not found.failed, "checks": checks,  # noqa: T201
                          "failed": found.failed, "not_shown": found.not_shown,
                          **facts}))  # fmt: skip
    return 1 if found.failed else 0
