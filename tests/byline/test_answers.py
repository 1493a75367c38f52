"""What comes back from the server is read strictly: what is no answer is never taken for one."""

import pytest
from hiredis import ReplyError

from byline.errors import (
    InsufficientFunds,
    KeyConflict,
    LedgerFenced,
    LedgerFrozen,
    LedgerMisconfigured,
    LedgerRefused,
    LedgerUnavailable,
    LedgerUnconfirmed,
)
from byline.posting.answers import Answer, NotItsAnswer, ScriptForgotten, answer_to, outcome_of
from byline.posting.confirmation import Confirmation
from byline.posting.keys import Keys
from byline.posting.postings import deposit
from byline.posting.server_state import state_from
from byline.records import Posted
from tests.byline.cases import NOW_MS, event_id

POSTING = deposit(event_id(), "demo", 1, time_ms=NOW_MS)
KEY = POSTING.key


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (["posted", "7", "", KEY], Posted(7)),
        (["duplicate", "7", "late", KEY], Posted(7, duplicate=True, late=True)),
        (["nothing", "", "", KEY], None),
    ],
)
def test_a_posted_answer_is_read(reply: list[str], answer: Answer) -> None:
    assert answer_to(POSTING, reply) == answer


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("conflict", KeyConflict),
        ("fenced", LedgerFenced),
        ("frozen", LedgerFrozen),
        ("funds", InsufficientFunds),
        ("refused", LedgerRefused),
    ],
)
def test_a_refusal_is_the_ledgers_own_error(status: str, error: type[Exception]) -> None:
    answer = answer_to(POSTING, [status, "why", "", KEY])
    assert type(answer) is error
    assert str(answer) == f"deposit {POSTING.inference}: why"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("NOSCRIPT No matching script.", ScriptForgotten),
        ("OOM command not allowed when used memory > 'maxmemory'.", LedgerUnavailable),
        ("READONLY You can't write against a read only replica.", LedgerUnavailable),
        ("LOADING the dataset is in memory", LedgerUnavailable),
        ("MOVED 42 127.0.0.1:7000", LedgerUnavailable),
        ("MISCONF Errors writing to the AOF file", LedgerUnavailable),
        ("ERR something else", LedgerUnavailable),
        ("NOAUTH Authentication required.", LedgerMisconfigured),
        ("NOPERM User has no permissions", LedgerMisconfigured),
        ("WRONGPASS invalid username-password pair", LedgerMisconfigured),
        ("ERR AUTH <password> called without any password configured", LedgerMisconfigured),
    ],
)
def test_a_servers_error_is_unavailable_unless_it_is_about_rights(
    text: str, error: type[Exception]
) -> None:
    assert type(answer_to(POSTING, ReplyError(text))) is error


@pytest.mark.parametrize(
    "reply",
    [
        ["posted", "7", "", KEY[:-1] + "1"],
        ["posted", "seven", "", KEY],
        ["other", "7", "", KEY],
        ["posted", "7", ""],
        ["posted", 7, "", KEY],
        "OK",
        None,
        7,
    ],
)
def test_what_is_no_answer_to_this_posting_is_believed_by_nobody(reply: object) -> None:
    with pytest.raises(NotItsAnswer, match=KEY):
        answer_to(POSTING, reply)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Posted(1), "posted"),
        (Posted(1, duplicate=True), "duplicate"),
        (None, "duplicate"),
        (KeyConflict(""), "refused"),
        (InsufficientFunds(""), "refused"),
        (LedgerUnconfirmed(""), "unconfirmed"),
        (LedgerUnavailable(""), "unknown"),
        (LedgerMisconfigured(""), "unknown"),
    ],
)
def test_every_answer_has_one_outcome(answer: Answer, outcome: str) -> None:
    assert outcome_of(answer) == outcome


@pytest.mark.parametrize(
    ("replies", "found"),
    [
        (["OK", 2], 2),
        (["OK", 2, [1, 1]], 1),
        (["OK", 2, [0, 2]], 0),  # not even on the primary's own disk
        ([ReplyError("OOM"), 2], None),  # without the write, the wait is for an older one
        (["OK", ReplyError("ERR")], None),
        ([], None),
    ],
)
def test_only_a_written_and_counted_wait_confirms(replies: list[object], found: int | None) -> None:
    confirmation = Confirmation(Keys("usd"), 1, timeout_seconds=5.0)
    assert confirmation.found(replies) == found


@pytest.mark.parametrize(
    "replies", [["OK", "OK", "OK"], [[], [None], None], [["a"], [None, None], [None]], []]
)
def test_a_server_whose_answers_make_no_sense_is_not_posted_to(replies: list[object]) -> None:
    with pytest.raises(LedgerUnavailable, match="make no sense"):
        state_from(replies)
