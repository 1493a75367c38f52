"""`byline limits …` over a real server: what is set, shown, listed and removed; and what is not."""

import json
import uuid
from typing import Any

import pytest
from typer.testing import CliRunner

from byline.command.__main__ import app
from byline.errors import InvalidInput, NotFound


def run(redis_url: str, *words: str) -> Any:
    outcome = CliRunner().invoke(app, ["limits", *words, "--redis-url", redis_url, "--json"])
    if outcome.exception is not None:
        raise outcome.exception
    return json.loads(outcome.output)


def test_limits_are_set_shown_listed_and_removed(redis_url: str) -> None:
    name = uuid.uuid4().hex
    run(redis_url, "set", "organisation", name, "--requests-per-minute", "60")
    run(redis_url, "set", "organisation", name, "--usd-per-day", "2.5", "--usd-per-month", "0")
    limits = {
        "kind": "organisation", "name": name, "requests_per_minute": 60,
        "tokens_per_minute": None, "nano_per_day": 2_500_000_000, "nano_per_month": 0,
    }  # fmt: skip
    none_used = {"requests": 0, "tokens": 0, "nano_of_day": 0, "nano_of_month": 0}
    assert run(redis_url, "show", "organisation", name) == {**limits, "used": none_used}
    assert limits in run(redis_url, "list")["limits"]
    assert run(redis_url, "remove", "organisation", name) == {"removed": f"organisation:{name}"}
    assert limits not in run(redis_url, "list")["limits"]
    for command in ("show", "remove"):
        with pytest.raises(NotFound, match="no limits"):
            run(redis_url, command, "organisation", name)


@pytest.mark.parametrize(
    "words",
    [
        ("application", "shop"),
        ("application", "a b", "--requests-per-minute", "1"),
        ("application", "shop", "--usd-per-day", "-1"),
        ("application", "shop", "--usd-per-day", "1000001"),
        ("application", "shop", "--requests-per-minute", "1000000001"),
    ],
)
def test_what_is_no_limit_sets_none(redis_url: str, words: tuple[str, ...]) -> None:
    before = run(redis_url, "list")
    with pytest.raises(InvalidInput):
        run(redis_url, "set", *words)
    assert run(redis_url, "list") == before


def test_a_person_reads_them(redis_url: str) -> None:
    name = uuid.uuid4().hex
    for words, said in [
        (("set", "key", name, "--tokens-per-minute", "9"), "tokens_per_minute 9"),
        (("show", "key", name), "used: requests 0"),
        (("list",), name),
        (("remove", "key", name), "not limited any more"),
    ]:
        outcome = CliRunner().invoke(app, ["limits", *words, "--redis-url", redis_url])
        assert said in outcome.output
