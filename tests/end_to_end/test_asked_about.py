"""Who is paid for questions about contributors' own rows, and for others: a report, no bar."""

import json

import pytest

from byline.home import Home
from loadtests.asked_about import QUESTIONS_PER_ADAPTER, UNRELATED, Target, report
from tests.end_to_end.conftest import Running

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def test_the_report_covers_every_adapter_and_the_books_balance(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target(running.url, running.keys["application"])
    found = report(Home(running.home), target)
    with capsys.disabled():
        print("\n" + json.dumps(found))
    for adapter in found["adapters"].values():
        assert adapter["own_rows"]["questions"] == QUESTIONS_PER_ADAPTER
        assert adapter["unrelated"]["prompts"] == len(UNRELATED)
        for part in (adapter["own_rows"], adapter["unrelated"]):
            assert 0.0 <= part["paid_part_of_pool"]["mean"] <= 1.0
    books = running.books()
    assert books.balanced
    assert books.accounts_sum_nano == 0
