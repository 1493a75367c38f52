"""Groups of contributors: totals are exact, and members of a group are divided by their rows."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.attribution import ROW_SPREAD, divided_in_groups, row_claims
from byline.auditing.groups import group_of, of_members
from byline.auditing.plan import read_plan
from byline.errors import StartFailed

NATS = st.floats(-50, 50, allow_nan=False).map(lambda nats: round(nats, 9))
GROUPS = {"group-0": {"ann": 2, "bob": 1}, "group-1": {"cem": 3}}
ROWS = ("ann", "ann", "bob", "cem", "cem", "cem")


@given(st.lists(NATS, min_size=6, max_size=6), NATS, NATS)
def test_members_parts_add_up_to_their_groups_score(
    found: list[float], first: float, second: float
) -> None:
    scores = {"group-0": first, "group-1": second}
    totals, rows = divided_in_groups(scores, list(zip(ROWS, found, strict=True)), group_of(GROUPS))
    assert totals["ann"] + totals["bob"] == pytest.approx(first, abs=1e-9)
    assert totals["cem"] == pytest.approx(second, abs=1e-9)
    assert [who for who, _ in rows] == list(ROWS)


def test_members_are_as_far_apart_as_their_own_rows_scores_put_them() -> None:
    found, scores = [3.0, -1.0, 2.0, 1.0, 1.0, 4.0], {"group-0": 2.0, "group-1": -1.0}
    _, rows = divided_in_groups(scores, list(zip(ROWS, found, strict=True)), group_of(GROUPS))
    parts = [part for _, part in rows]
    spread = ROW_SPREAD * math.hypot(*scores.values()) / math.hypot(*found)
    for one, other in [(0, 1), (1, 2), (3, 5)]:  # inside a group, of one owner and of two
        assert parts[one] - parts[other] == pytest.approx(spread * (found[one] - found[other]))


@given(st.lists(NATS, min_size=6, max_size=6), NATS, NATS)
def test_an_account_split_inside_its_group_claims_what_it_claimed(
    found: list[float], first: float, second: float
) -> None:
    scores = {"group-0": first, "group-1": second}
    _, whole = divided_in_groups(scores, list(zip(ROWS, found, strict=True)), group_of(GROUPS))
    owners = ("ann", "eve", "bob", "cem", "cem", "cem")
    split = {"group-0": {"ann": 1, "eve": 1, "bob": 1}, "group-1": {"cem": 3}}
    _, parts = divided_in_groups(scores, list(zip(owners, found, strict=True)), group_of(split))
    before, after = row_claims(whole), row_claims(parts)
    assert after.get("ann", 0) + after.get("eve", 0) == before.get("ann", 0)
    assert (after.get("bob"), after.get("cem")) == (before.get("bob"), before.get("cem"))


def test_a_group_of_which_no_row_was_looked_at_is_divided_evenly() -> None:
    totals, rows = divided_in_groups(
        {"group-0": 4.0, "group-1": 1.0}, [("cem", 2.0)], group_of(GROUPS)
    )
    assert totals == {"ann": 2.0, "bob": 2.0, "cem": 1.0}
    assert rows == [("cem", 1.0), ("ann", 2.0), ("bob", 2.0)]


@given(
    st.dictionaries(st.sampled_from(["ann", "bob", "cem"]), st.integers(-(10**10), 10**10)), NATS
)
def test_an_audits_members_add_up_to_their_groups_effect(
    known: dict[str, int], nats: float
) -> None:
    found = of_members({"group-0": nats, "group-1": 2.0}, GROUPS, known)
    assert found["ann"] + found["bob"] == pytest.approx(nats, abs=1e-9)
    assert found["cem"] == pytest.approx(2.0)


def test_what_an_audit_finds_more_is_spread_by_rows() -> None:
    scores = {"ann": 1_000_000_000, "bob": 2_000_000_000, "cem": 0}
    found = of_members({"group-0": 6.0, "group-1": -1.0}, GROUPS, scores)
    assert found == pytest.approx({"ann": 3.0, "bob": 3.0, "cem": -1.0})


def a_plan(path: Path, groups: Any) -> Path:
    order = {"everybody": "full", "without": {"group-0": "one", "group-1": "other"}}
    version = {"orders": [order], "reliability_ppb": None, "groups": groups}
    path.write_text(json.dumps({"rate": "1/20", "adapters": {"a@000000000000": version}}))
    return path


def test_a_plan_with_groups_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = read_plan(a_plan(tmp_path / "plan.json", GROUPS))
    assert plan is not None
    assert plan.adapters["a@000000000000"].groups == GROUPS


@pytest.mark.parametrize(
    "groups",
    [
        {"group-0": {"ann": 1}},
        {"group-0": {"ann": 1}, "group-1": {}},
        {"group-0": {"ann": 1}, "group-1": {"ann": 2}},
        {"group-0": {"ann": 1}, "group-1": {"bob": 0}},
        {"group-0": {"ann": 1}, "group-1": {"bob": "2"}},
        {"group-0": {"ann": 1}, "group-1": {"bob": True}},
        ["group-0", "group-1"],
    ],
)
def test_groups_that_contradict_their_runs_are_no_plan(tmp_path: Path, groups: object) -> None:
    with pytest.raises(StartFailed, match="is no plan of audits"):
        read_plan(a_plan(tmp_path / "plan.json", groups))
