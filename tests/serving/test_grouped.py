"""Groups' scores given to contributors: totals stay, and splitting an account moves nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from byline.fidelity.measures import Array
from serving.fidelity.grouped import among_contributors

ANSWERS, ROWS = 2, 6
GROUPS = ((0, 3), (1, 2, 5), (4,))
NUMBERS = st.floats(-10, 10, allow_nan=False).filter(lambda number: not 0 < abs(number) < 1e-6)


@given(
    arrays(float, (ANSWERS, len(GROUPS)), elements=NUMBERS),
    arrays(float, (ANSWERS, ROWS), elements=NUMBERS),
    st.lists(st.integers(0, 3), min_size=ROWS, max_size=ROWS),
)
def test_contributors_add_up_to_what_the_groups_score(
    of_groups: Array, of_rows: Array, owners: list[int]
) -> None:
    found = among_contributors(of_groups, of_rows, GROUPS, owners)
    assert found.shape == (ANSWERS, max(owners) + 1)
    np.testing.assert_allclose(found.sum(axis=1), of_groups.sum(axis=1), atol=1e-6)


@given(
    arrays(float, (ANSWERS, len(GROUPS)), elements=NUMBERS),
    arrays(float, (ANSWERS, ROWS), elements=NUMBERS),
)
def test_two_accounts_of_one_owner_have_what_the_one_had(of_groups: Array, of_rows: Array) -> None:
    """Rows are grouped without regard to whose they are, so no split changes any run."""
    whole = among_contributors(of_groups, of_rows, GROUPS, [0, 0, 0, 0, 1, 1])
    split = among_contributors(of_groups, of_rows, GROUPS, [0, 2, 0, 2, 1, 1])
    np.testing.assert_allclose(split[:, 0] + split[:, 2], whole[:, 0], atol=1e-6)
    np.testing.assert_allclose(split[:, 1], whole[:, 1], atol=1e-6)


def test_inside_a_group_row_scores_decide() -> None:
    of_groups, of_rows = np.array([[6.0]]), np.array([[2.0, 1.0, -5.0]])
    found = among_contributors(of_groups, of_rows, [[0, 1, 2]], [0, 1, 2])
    assert found.sum() == pytest.approx(6.0)
    assert found[0, 0] > found[0, 1] > found[0, 2]
