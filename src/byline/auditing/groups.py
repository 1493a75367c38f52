"""Groups: contributors that are left out together, where they are too many for a run each.

A group's total is exact: what is lost without all of it. Inside, it is divided by row scores
(`byline.attribution.divided_in_groups`), so members are told apart as the cheaper method does.
"""

from collections.abc import Mapping
from typing import TypeAlias

from byline.limits import SCORE_UNITS_PER_NAT

Groups: TypeAlias = Mapping[str, Mapping[str, int]]
"""Group -> contributor -> how many rows it has."""

GROUPS_MAX = 64  # runs an order, by default: an hour of two cores


def group_of(groups: Groups) -> dict[str, str]:
    """Contributor -> its group."""
    return {who: group for group, members in groups.items() for who in members}


def of_members(
    effects: Mapping[str, float], groups: Groups, scores: Mapping[str, int]
) -> dict[str, float]:
    """Groups' effects T_G as their members', in nats, as an audit divides them.

    A member of n_c of the group's n_G rows gets s_c + (n_c / n_G) (T_G - sum of s over G), where s
    are the scores on the record, in 1e-9 nats: what is paid already tells members apart, and the
    difference to the audited total is spread by rows. So members' effects add up to their group's.
    """
    found: dict[str, float] = {}
    for group, members in groups.items():
        known = {who: scores.get(who, 0) / SCORE_UNITS_PER_NAT for who in members}
        left = (effects[group] - sum(known.values())) / sum(members.values())
        found |= {who: known[who] + rows * left for who, rows in members.items()}
    return found
