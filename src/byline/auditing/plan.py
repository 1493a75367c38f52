"""What is audited: the rate, and each adapter version's counterfactual adapters. One JSON file.

    {"rate": "1/20", "adapters": {"healthcare@0123456789ab": {"reliability_ppb": 800000000,
     "orders": [{"everybody": RUN, "without": {CONTRIBUTOR: RUN, ...}}, ...]}}}

Optional beside `rate`: `rank_correlation_floor` and `payout_error_ceiling`, what audits must find
for a version to be paid (`byline.auditing.payment`).

Where contributors are left out in groups, CONTRIBUTOR is a group's name, and beside `orders` stands
`"groups": {GROUP: {CONTRIBUTOR: ITS ROWS, ...}, ...}` (`byline.auditing.groups`).

A RUN is the name of a folder under the home's `counterfactuals/`: an ordinary PEFT adapter. Effects
are differenced inside one training order and averaged over orders.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from byline.auditing.groups import Groups
from byline.auditing.lottery import parse_rate
from byline.errors import InvalidInput, StartFailed
from byline.limits import PPB

RANK_CORRELATION_FLOOR = 0.2  # noise has 0; a tangent had 0.88, a cheap Fisher some 0.5
PAYOUT_ERROR_CEILING = 0.5  # pay by rows had 0.47: above it, most of the money goes elsewhere
RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # never a path


@dataclass(frozen=True, slots=True)
class Order:
    """One training order's runs: with everybody, and without each contributor, or each group."""

    everybody: str
    without: Mapping[str, str]

    @property
    def runs(self) -> tuple[str, ...]:
        """Every run of the order."""
        return (self.everybody, *self.without.values())


@dataclass(frozen=True, slots=True)
class Counterfactuals:
    """What one adapter version is audited by."""

    orders: tuple[Order, ...]
    reliability_ppb: int | None
    groups: Groups | None = None  # None: every contributor is left out by itself


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """What is audited, and how often."""

    rate: Fraction
    adapters: Mapping[str, Counterfactuals]
    rank_correlation_floor: float = RANK_CORRELATION_FLOOR  # -1 and less never pauses
    payout_error_ceiling: float = PAYOUT_ERROR_CEILING  # 1 never pauses

    @property
    def runs(self) -> frozenset[str]:
        """Every counterfactual adapter that audits read."""
        planned = self.adapters.values()
        return frozenset(run for each in planned for order in each.orders for run in order.runs)


def read_plan(path: Path) -> AuditPlan | None:
    """The plan; None where nothing is audited. Raises StartFailed for a file that is no plan."""
    try:
        fields = json.loads(path.read_text())
        adapters = {version: _adapter(each) for version, each in fields["adapters"].items()}
        return AuditPlan(
            parse_rate(fields["rate"]),
            adapters,
            float(fields.get("rank_correlation_floor", RANK_CORRELATION_FLOOR)),
            float(fields.get("payout_error_ceiling", PAYOUT_ERROR_CEILING)),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidInput) as problem:
        raise StartFailed(f"{path} is no plan of audits: {problem}") from problem


def enter(path: Path, version: str, found: Counterfactuals, rate: Fraction) -> None:
    """Put an adapter version into the plan, all or nothing; the rate is the whole plan's.

    What else the plan says stays. Raises StartFailed where the file is no plan.
    """
    known = json.loads(path.read_text()) if read_plan(path) else {"adapters": {}}
    adapters = {**known["adapters"], version: asdict(found)}
    aside = path.with_suffix(".partial")
    aside.write_text(
        json.dumps({**known, "rate": str(rate), "adapters": adapters}, indent=1) + "\n"
    )
    os.replace(aside, path)


def _adapter(fields: Mapping[str, Any]) -> Counterfactuals:
    orders = tuple(Order(each["everybody"], dict(each["without"])) for each in fields["orders"])
    named = {contributor for order in orders for contributor in order.without}
    if not named or any(order.without.keys() != named for order in orders):
        raise ValueError("each training order must have a run without every contributor")
    for run in (run for order in orders for run in order.runs):
        if not isinstance(run, str) or not RUN.fullmatch(run):
            raise ValueError(f"{run!r} is no name of a run")
    reliability = fields.get("reliability_ppb")
    if reliability is not None and not (type(reliability) is int and 0 <= reliability <= PPB):
        raise ValueError(f"reliability_ppb is {reliability!r}")
    groups = fields.get("groups")
    if groups is not None:
        _check_groups(groups, named)
    return Counterfactuals(orders, reliability, groups)


def _check_groups(groups: Mapping[str, Mapping[str, Any]], named: set[str]) -> None:
    """Raises ValueError unless each group has a run without it, and each contributor one group."""
    members = [who for each in groups.values() for who in each]
    counts = [rows for each in groups.values() for rows in each.values()]
    if groups.keys() != named or not all(groups.values()) or len(set(members)) != len(members):
        raise ValueError("groups must be those that runs leave out, no contributor in two of them")
    if not all(type(rows) is int and rows > 0 for rows in counts):
        raise ValueError("a group's members must have rows")
