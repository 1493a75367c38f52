"""A posting carries exactly what its script joins into canonical text; nonsense is refused here."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.canonical import canonical_text, sha256_hex
from byline.errors import LedgerRefused
from byline.limits import EVENT_AGE_DAYS_MAX, LEG_NANO_MAX, LEGS_PER_ENTRY_MAX, PPB
from byline.posting import postings
from byline.posting.postings import Posting
from byline.records import (
    Attribution,
    AttributionState,
    Capture,
    ExampleInfluence,
    Leg,
    Share,
    Usage,
    UsageSource,
    VerbatimRow,
    VerbatimSpan,
)
from byline.records_json import (
    attribution_fields,
    attribution_from,
    capture_fields,
    capture_from,
    job_from,
)
from tests.byline.cases import NOW_MS, a_capture, a_failure, an_attribution, event_id

DAY_MS = 86_400_000
DRAWN_UP: dict[str, Callable[[str], Posting]] = {
    "deposit": lambda event: postings.deposit(event, "demo", 5, time_ms=NOW_MS),
    "hold": lambda event: postings.hold(
        event, "demo", 5, expires_ms=NOW_MS + 1_000, time_ms=NOW_MS
    ),
    "void": lambda event: postings.void(event, "demo", time_ms=NOW_MS),
    "expire": lambda event: postings.expire(event, time_ms=NOW_MS),
    "capture": lambda event: postings.capture(a_capture(event), time_ms=NOW_MS),
    "settle": lambda event: postings.settle(an_attribution(event), time_ms=NOW_MS),
}
scores = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(max_size=12)
nanos = st.integers(0, LEG_NANO_MAX)
ends = st.tuples(st.integers(0, 99), st.integers(0, 99))
attributions = st.builds(
    Attribution,
    inference=names,
    ordinal=st.integers(0, 7),
    state=st.sampled_from(AttributionState),
    reason=st.none() | names,
    adapter_version=st.none() | names,
    index=st.none() | names,
    lift_nats=st.none() | scores,
    pool_nano=nanos,
    unattributed_nano=nanos,
    unattributed_ppb=st.integers(0, PPB),
    shares=st.lists(st.builds(Share, names, scores, st.integers(0, PPB), nanos)).map(tuple),
    examples=st.lists(st.builds(ExampleInfluence, names, names, scores)).map(tuple),
    scores=st.dictionaries(names, st.integers(-(2**52), 2**52), max_size=4),
    method=st.none() | names,
    reliability_ppb=st.none() | st.integers(0, PPB),
    libraries=st.dictionaries(names, names, max_size=2),
    tokens_sha256=st.none() | names,
    tokens_salt=st.none() | names,
    verbatim=st.lists(
        st.builds(
            VerbatimSpan,
            ends,
            ends,
            scores,
            st.integers(0, 9),
            st.lists(st.builds(VerbatimRow, names, names, ends, ends), max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
)
captures = st.builds(
    Capture,
    inference=names,
    application=names,
    held_nano=nanos,
    charge_nano=nanos,
    credits=st.lists(st.builds(Leg, names, nanos)).map(tuple),
    pools=st.lists(nanos).map(tuple),
    skipped=st.none() | names,
    model=names,
    served_by=names,
    adapter_version=st.none() | names,
    index=st.none() | names,
    usage=st.builds(Usage, nanos, st.lists(nanos).map(tuple), source=st.sampled_from(UsageSource)),
    partial=st.booleans(),
    tokens_sha256=st.none() | names,
    policy=names,
)


@given(attributions)
def test_an_attribution_comes_back_from_its_json(attribution: Attribution) -> None:
    text = canonical_text(attribution_fields(attribution))
    assert attribution_from(json.loads(text)) == attribution


@given(captures)
def test_a_capture_comes_back_from_its_json(capture: Capture) -> None:
    assert capture_from(json.loads(canonical_text(capture_fields(capture)))) == capture


@given(
    st.sampled_from(["capture", "capture_late"]),
    st.integers(1, 2**53 - 1),
    st.integers(0, 2**40),
    st.text(max_size=10),
)
def test_the_pieces_of_an_entry_join_into_canonical_text(
    kind: str, seq: int, time_ms: int, policy: str
) -> None:
    capture = replace(a_capture(event_id(time_ms)), policy=policy)
    head, before_legs, before_seq, tail = postings.capture(capture, time_ms=time_ms).entry
    legs = '[["app:demo","-1"],["host","1"]]'
    text = f"{head}{kind}{before_legs}{legs}{before_seq}{seq}{tail}"
    assert canonical_text(json.loads(text)) == text
    entry = postings.parse_entry(text)
    assert (entry.seq, entry.kind, entry.policy, entry.time_ms) == (seq, kind, policy, time_ms)
    assert entry.legs == (Leg("app:demo", -1), Leg("host", 1))


@pytest.mark.parametrize("name", DRAWN_UP)
def test_each_posting_has_an_entry_in_canonical_text(name: str) -> None:
    """Also the fields that only some of them have, which are null in the others."""
    event = event_id()
    posting = DRAWN_UP[name](event)
    head, before_legs, before_seq, tail = posting.entry
    text = f"{head}{name}{before_legs}[]{before_seq}7{tail}"
    assert canonical_text(json.loads(text)) == text
    entry = postings.parse_entry(text)
    assert entry.key == posting.key == f"{event}/{name}/0"
    assert entry.inference == (None if name == "deposit" else event)
    hashed = posting.payload if name in {"capture", "settle"} else None
    assert entry.manifest_sha256 == (hashed and sha256_hex(hashed.encode()))


def test_time_is_no_part_of_the_payload() -> None:
    inference = event_id()
    first = postings.capture(a_capture(inference), time_ms=NOW_MS)
    again = postings.capture(a_capture(inference), time_ms=NOW_MS + 1)
    other = postings.capture(a_capture(inference, credit=399), time_ms=NOW_MS)
    assert (first.key, first.digest) == (again.key, again.digest)
    assert other.digest != first.digest
    assert first.key == f"{inference}/capture/0"
    assert first.bucket == str(NOW_MS // DAY_MS)


def test_a_capture_writes_one_job_for_each_choice_that_has_a_pool() -> None:
    inference = event_id()
    posting = postings.capture(
        a_capture(inference, held=2_000, pools=(300, 0, 200)), time_ms=NOW_MS
    )
    count = int(posting.arguments[8])
    jobs = [job_from(text, attempts=2, message_id="1-0") for text in posting.arguments[9:][:count]]
    assert [(job.ordinal, job.pool_nano) for job in jobs] == [(0, 300), (2, 200)]
    assert jobs[0].enqueued_ms == NOW_MS
    assert jobs[0].attempts == 2
    assert f"open:{inference}/2" in posting.arguments


@pytest.mark.parametrize("event", ["", "x", "7" * 36, "0b3d9a5c-0b7e-4a0b-8a67-3d2b0b9d6f10"])
@pytest.mark.parametrize("name", DRAWN_UP)
def test_an_event_without_a_uuid_of_version_7_is_refused(name: str, event: str) -> None:
    with pytest.raises(LedgerRefused, match="UUIDv7"):
        DRAWN_UP[name](event)


def test_an_event_that_is_not_in_canonical_form_is_refused() -> None:
    with pytest.raises(LedgerRefused, match="canonical form"):
        postings.expire(event_id().upper(), time_ms=NOW_MS)


@pytest.mark.parametrize("days", [-EVENT_AGE_DAYS_MAX - 1, 2])
def test_an_event_too_old_or_ahead_of_its_time_is_refused(days: int) -> None:
    event = event_id(NOW_MS + days * DAY_MS)
    with pytest.raises(LedgerRefused, match=r"days|future"):
        postings.hold(event, "demo", 1, expires_ms=NOW_MS, time_ms=NOW_MS)
    with pytest.raises(LedgerRefused, match=r"days|future"):
        postings.capture(a_capture(event), time_ms=NOW_MS)


def test_a_pool_is_settled_at_any_age() -> None:
    event = event_id(NOW_MS - 400 * DAY_MS)
    assert postings.settle(an_attribution(event), time_ms=NOW_MS).inference == event


@pytest.mark.parametrize("nano", [0, -1, LEG_NANO_MAX + 1])
def test_an_amount_out_of_bounds_is_refused(nano: int) -> None:
    with pytest.raises(LedgerRefused, match=r"must be positive|send it in parts"):
        postings.deposit(event_id(), "demo", nano, time_ms=NOW_MS)


@pytest.mark.parametrize("application", ["", 'de"mo', "de mo", "dämo", "a" * 125])
def test_an_account_that_would_need_escaping_is_refused(application: str) -> None:
    if application == "":
        application = "\n"
    with pytest.raises(LedgerRefused, match="is no account"):
        postings.deposit(event_id(), application, 1, time_ms=NOW_MS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"charge_nano": 901}, "don't sum"),
        ({"held_nano": 899}, "more than what is held"),
        ({"credits": (Leg("platform", -100), Leg("host", 500))}, "not positive"),
        ({"credits": (Leg("platform", 400), Leg("host", 0))}, "not positive"),
        ({"pools": (-500, 1_000)}, "not positive"),
        ({"tokens_sha256": None}, "needs an adapter version"),
        ({"index": None}, "needs an adapter version"),
        ({"adapter_version": None}, "needs an adapter version"),
        ({"credits": (Leg("plat form", 400),)}, "is no account"),
    ],
)
def test_a_capture_that_is_not_whole_is_refused(change: dict[str, object], says: str) -> None:
    capture = replace(a_capture(event_id()), **change)  # type: ignore[arg-type]
    with pytest.raises(LedgerRefused, match=says):
        postings.capture(capture, time_ms=NOW_MS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"state": AttributionState.PENDING}, "can't be settled"),
        ({"adapter_version": None}, "can't be settled"),
        ({"unattributed_nano": 1}, "don't sum"),
        ({"shares": (Share("a", 0, 0, -1), Share("b", 0, 0, 501))}, "don't sum"),
        ({"state": AttributionState.FAILED}, "yet with shares"),
        ({"shares": (Share("a b", 0, 0, 500),)}, "is no account"),
    ],
)
def test_an_attribution_that_is_not_whole_is_refused(change: dict[str, object], says: str) -> None:
    attribution = replace(an_attribution(event_id()), **change)  # type: ignore[arg-type]
    with pytest.raises(LedgerRefused, match=says):
        postings.settle(attribution, time_ms=NOW_MS)


def test_what_failed_pays_its_whole_pool_to_unattributed() -> None:
    arguments = postings.settle(a_failure(event_id()), time_ms=NOW_MS).arguments
    assert arguments[-1] == "500"
    assert arguments[-2].startswith("unattributed:")
    assert attribution_from(json.loads(arguments[5])).unattributed_ppb == PPB


def test_more_payees_than_an_entry_has_legs_are_refused() -> None:
    count = LEGS_PER_ENTRY_MAX  # and the pool's own leg
    shares = tuple(Share(f"c{index}", 0.0, 0, 1) for index in range(count))
    attribution = replace(an_attribution(event_id(), pool=count), shares=shares)
    with pytest.raises(LedgerRefused, match="2001 legs: an entry has 2000 at most"):
        postings.settle(attribution, time_ms=NOW_MS)


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"v":2}', "[]", '"x"', '{"v":1,"charge":"0","legs":[]}']
)
def test_what_is_no_entry_does_not_parse(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        postings.parse_entry(text)
