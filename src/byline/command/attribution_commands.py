"""`byline attribution ID` shows an attribution; `byline attribution replay ID` computes it again.

A replay needs nothing but the record: no key, no ledger, no model, unless token ids are given.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from byline.attribution import replayed
from byline.canonical import digest
from byline.command.asking import attribution_of, show_answer
from byline.command.options import DEFAULT_HOME, HomeOption, JsonOption
from byline.command.running import demo_keys, run_facts, show
from byline.errors import AttributionFailed, InvalidInput
from byline.home import Home
from byline.limits import SCORE_UNITS_PER_NAT
from byline.records import Attribution, Example
from byline.records_json import attribution_from
from byline.served import line_of_hash

SCORE_TOLERANCE = 1e-3  # of the largest score: what another machine's arithmetic may differ by
SHOW = "show"


class _ShowByDefault(TyperGroup):
    """A group whose first word may be left out: an id that is no subcommand's name is shown."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click's own
        """`ID ...` as `show ID ...`."""
        if args and args[0] not in (*self.commands, "--help"):
            args = [SHOW, *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


attribution_app = typer.Typer(
    cls=_ShowByDefault,
    no_args_is_help=True,
    help="Show the attribution of one inference (`byline attribution ID`), or compute it again.",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a replay holds against the record."""

    choice: int
    check: str
    passed: bool
    says: str


@attribution_app.command(SHOW)
def attribution_show(
    inference: Annotated[str, typer.Argument(metavar="ID", help="An inference id.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show the attribution of one inference."""
    found = _asked(home, inference)
    if as_json:
        print(json.dumps(found))
        return
    answer = {"asked": found["model"], "question": "-", "text": "-", "attribution": found}
    show_answer(Console(soft_wrap=True), answer, released_rows(home))


@attribution_app.command("replay")
def attribution_replay(
    inference: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Of an inference of the `byline up` in --home."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="A file instead: what the API answered, or one record."),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="The served token ids: recompute the scores, too, with --home's models."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Recompute every share from the recorded integer scores. Status 1 if anything differs."""
    if (inference is None) == (record is None):
        raise InvalidInput("give an inference id or --record FILE, one of the two", param="ID")
    found = _read(record) if record else _asked(home, str(inference))
    choices = records_in(found)
    hashes = [_hash(choice) for choice in choices]
    checks = [check for choice in choices for check in checked(choice)]
    if tokens is not None:
        for choice in choices:
            checks += _rescored(home, choice, tokens)
    is_whole = all(check.passed for check in checks)
    facts = {
        "replayed": is_whole,
        "records": hashes,
        "checks": [
            {"choice": each.choice, "check": each.check, "passed": each.passed, "says": each.says}
            for each in checks
        ],
    }
    lines = [f"SHA-256 of the record, in the journal manifest_sha256: {each}" for each in hashes]
    lines += [f"{'ok ' if each.passed else 'NOT'} {each.says}" for each in checks]
    show(as_json, facts, "\n".join(lines))
    raise typer.Exit(0 if is_whole else 1)


def records_in(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of every choice in what a file or the API holds."""
    whole = found.get("byline", found)
    choices = whole.get("choices", [whole]) if isinstance(whole, dict) else None
    if (
        not isinstance(choices, list)
        or not choices
        or not all(isinstance(each, dict) and "scores" in each for each in choices)
    ):
        raise InvalidInput("there is no attribution record in this: its scores are missing")
    return list(choices)


def _hash(fields: Mapping[str, Any]) -> str:
    """What the journal's entry calls the record. InvalidInput for numbers that JSON can't carry."""
    try:
        return digest(fields)
    except ValueError as problem:
        raise InvalidInput(f"this is no attribution record: {problem}") from problem


def checked(fields: Mapping[str, Any]) -> Iterator[Check]:
    """Everything that the record's own numbers decide, each held against what it says."""
    try:
        given = attribution_from(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise InvalidInput(f"this is no attribution record: {problem!r}") from problem
    who = f"{given.inference}, choice {given.ordinal}"

    def check(name: str, passed: bool, says: str) -> Check:
        return Check(given.ordinal, name, passed, f"{who}: {says}")

    try:
        again = replayed(given)
    except (AttributionFailed, ValueError) as problem:
        yield check("replayable", False, str(problem))
        return
    whole = fields["scores"] == dict(given.scores) and fields.get("claims") == given.claims
    yield check("scores", whole, "the scores and claims are whole 1e-9 nats")
    yield check(
        "reason", again.reason == given.reason, f"the reason recomputed is {again.reason or 'none'}"
    )
    yield from (check(*each) for each in _compared(given, again))


def _compared(given: Attribution, again: Attribution) -> Iterator[tuple[str, bool, str]]:
    """Shares and money of the record and of its replay."""
    source = "scores" if given.claims is None else "claims"
    recorded = [(share.contributor, share.share_ppb) for share in given.shares]
    shares = [(share.contributor, share.share_ppb) for share in again.shares]
    unattributed = (given.unattributed_ppb, given.unattributed_nano)
    left = (again.unattributed_ppb, again.unattributed_nano)
    yield (
        "shares", recorded == shares,
        f"{len(shares)} shares recomputed from the {source}" + _differing(recorded, shares, "ppb"),
    )  # fmt: skip
    paid = [(share.contributor, share.nano) for share in given.shares]
    owed = [(share.contributor, share.nano) for share in again.shares]
    yield (
        "money", paid == owed,
        f"{sum(nano for _, nano in owed)} of {again.pool_nano} nano-USD recomputed from the shares"
        + _differing(paid, owed, "nano-USD"),
    )  # fmt: skip
    yield (
        "unattributed", unattributed == left,
        f"unattributed recomputed: {left[0]} ppb, {left[1]} nano-USD"
        + ("" if unattributed == left else f"; recorded: {unattributed[0]}, {unattributed[1]}"),
    )  # fmt: skip
    shown = [share.score for share in given.shares] == [share.score for share in again.shares]
    yield ("shown_scores", shown, "the scores shown beside the shares are the recorded ones")


def _differing(
    recorded: Sequence[tuple[str, int]], again: Sequence[tuple[str, int]], unit: str
) -> str:
    """What to say of the first line that differs; nothing if none does."""
    if recorded == again:
        return ""
    said, computed = dict(recorded), dict(again)
    for who in sorted({*said, *computed}):
        if said.get(who) != computed.get(who):
            return f"; recorded for {who}: {said.get(who)} {unit}, recomputed {computed.get(who)}"
    return "; recorded in another order"


def _rescored(home: Path, fields: Mapping[str, Any], tokens: Path) -> Iterator[Check]:
    """The hash of the token ids, and the scores that the models of `home` give them again."""
    given = attribution_from(fields)
    who = f"{given.inference}, choice {given.ordinal}"
    try:
        data = tokens.read_bytes()
    except OSError as problem:
        raise InvalidInput(f"{tokens} can't be read: {problem}", param="tokens") from problem
    same = line_of_hash(data, str(given.tokens_sha256)) is not None
    yield Check(
        given.ordinal, "tokens", same,
        f"{who}: the token ids in {tokens} " + ("have" if same else "do NOT have")
        + f" the recorded hash {given.tokens_sha256}",
    )  # fmt: skip
    if not same or not given.scores:
        return
    from byline.command.preparing import run_program
    from byline.command.progress import Display

    arguments = [
        "--tokens", str(tokens), "--sha256", str(given.tokens_sha256),
        "--choice", str(given.ordinal),
        "--adapter", str(given.adapter_version), "--index", str(given.index),
    ]  # fmt: skip
    with Display().step("replay", "scoring again") as step:
        again = run_program(Home(home), "serving.rescoring", arguments, step)
    recorded = {name: score / SCORE_UNITS_PER_NAT for name, score in given.scores.items()}
    yield Check(given.ordinal, "rescored", *_scores_agree(who, recorded, again["scores"]))
    if given.claims is not None:
        yield Check(given.ordinal, "reclaimed", *_claims_agree(who, given.claims, again["claims"]))


def _scores_agree(
    who: str, recorded: Mapping[str, float], again: Mapping[str, float]
) -> tuple[bool, str]:
    scale = max(abs(score) for score in recorded.values())
    if recorded.keys() != again.keys():
        return False, f"{who}: the index has other contributors than the record"
    largest = max(abs(recorded[name] - again[name]) for name in recorded)
    return (
        largest <= SCORE_TOLERANCE * scale,
        f"{who}: the scores computed again differ by {largest:.3g} nats at most, "
        f"of a largest score of {scale:.3g}",
    )


def _claims_agree(
    who: str, recorded: Mapping[str, int], again: Mapping[str, int] | None
) -> tuple[bool, str]:
    """Who claims next to nothing may be in one of the two alone."""
    if again is None:
        return False, f"{who}: the index scores no rows, so nothing is claimed by them"
    names = {*recorded, *again}
    largest = max((abs(recorded.get(name, 0) - again.get(name, 0)) for name in names), default=0)
    scale = max(recorded.values(), default=0)
    return (
        largest <= SCORE_TOLERANCE * scale,
        f"{who}: the claims computed again differ by {largest / SCORE_UNITS_PER_NAT:.3g} nats at "
        f"most, of a largest claim of {scale / SCORE_UNITS_PER_NAT:.3g}",
    )


def released_rows(home: Path) -> Mapping[str, Example]:
    """The rows of what is being served, by id."""
    from byline.command.up import examples_of
    from byline.registry import read_release

    return examples_of(Home(home), read_release(Home(home).release))


def _asked(home: Path, inference: str) -> dict[str, Any]:
    url, key = run_facts(home)["gateway_url"], demo_keys(home)["operator"]
    return attribution_of(url, key, inference, wait_seconds=5)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object out of a file. Raises InvalidInput if it holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InvalidInput(f"{path} can't be read: {problem}", param="record") from problem
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} holds no JSON object", param="record")
    return found
