"""Each inference is held once, captured once and settled once, its legs are its charge; whatever
sums to zero and is none of that is found all the same."""

from collections.abc import Mapping, Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.ledger import inference_books
from byline.ledger.books import Fold, Page, Snapshot
from byline.posting.postings import DAY_MS

HOLD = {"app:demo": -1_000, "hold:i": 1_000}
CAPTURE = {"hold:i": -1_000, "app:demo": 100, "platform": 400, "open:i": 500}
SETTLE = {"open:i": -500, "contrib:alice": 300, "unattributed:h": 200}
BACK = {"hold:i": -1_000, "app:demo": 1_000}
REFUND = {"app:demo": 451, "platform": -400, "refund": -51}
LATE = {"app:demo": -900, "platform": 400, "open:i": 500}

Step = tuple[str, Mapping[str, int]]


def an_entry(
    seq: int, kind: str, legs: Mapping[str, int], *, time_ms: int = 0, inference: str = "i"
) -> tuple[bytes, list[bytes]]:
    fields = {
        "v": 1, "seq": seq, "kind": kind, "inference": inference, "adapter_version": None,
        "key": f"{inference}/{kind}/0", "time_ms": time_ms, "policy": "",
        "manifest_sha256": None, "charge": "900" if kind.startswith("capture") else "0",
        "legs": [[account, str(nano)] for account, nano in legs.items()],
    }  # fmt: skip
    return b"%d-1" % seq, [b"e", orjson.dumps(fields)]


def folded(*steps: Step, base: Snapshot | None = None) -> Fold:
    fold = Fold(base)
    first = fold.seq + 1
    page: Page = [an_entry(seq, kind, legs) for seq, (kind, legs) in enumerate(steps, first)]
    fold.add_page(page)
    return fold


def wrong(*steps: Step, base: Snapshot | None = None) -> str | None:
    fold = folded(*steps, base=base)
    assert not fold.unbalanced
    return fold.inferences.wrong.get("i")


@pytest.mark.parametrize(
    "steps",
    [
        [("hold", HOLD), ("capture", CAPTURE), ("settle", SETTLE)],
        [("hold", HOLD), ("void", BACK)],
        [
            ("hold", HOLD),
            ("capture", CAPTURE),
            ("settle", SETTLE),
            ("refund", {"app:demo": 450, "platform": -450}),
            ("refund", {"app:demo": 450, "contrib:alice": -300, "refund": -150}),
        ],
        [("hold", HOLD), ("expire", BACK), ("capture_late", LATE), ("settle", SETTLE)],
        [("hold", HOLD), ("capture", {**CAPTURE, "platform": 900, "open:i": 0})],
    ],
)
def test_a_whole_life_is_right(steps: Sequence[Step]) -> None:
    steps = [(kind, {name: n for name, n in legs.items() if n}) for kind, legs in steps]
    assert wrong(*steps) is None


@pytest.mark.parametrize(
    ("says", "steps"),
    [
        ("held a second time", [("hold", HOLD), ("hold", HOLD)]),
        ("held a second time", [("hold", HOLD), ("expire", BACK), ("hold", HOLD)]),
        ("other legs than a hold's", [("hold", {"platform": -5, "hold:i": 5})]),
        ("other legs than a hold's", [("hold", {**HOLD, "hold:i": 999, "platform": 1})]),
        ("captured without a hold", [("capture", CAPTURE)]),
        ("captured without a hold", [("hold", HOLD), ("capture", CAPTURE), ("capture", CAPTURE)]),
        ("without closing its hold", [("hold", HOLD), ("capture", {"hold:i": -999, "app:demo": 99,
                                                                   "platform": 900})]),
        ("other than its charge", [("hold", HOLD), ("capture", {**CAPTURE, "app:demo": 99,
                                                                "platform": 401})]),
        ("charged to its application", [("hold", HOLD), ("capture", {
            "hold:i": -1_000, "app:other": 100, "platform": 900})]),
        ("leg of -1 for platform", [("hold", HOLD), ("capture", {
            **CAPTURE, "platform": -1, "host": 401})]),
        ("a pool of another", [("hold", HOLD), ("capture", {
            "hold:i": -1_000, "app:demo": 100, "platform": 400, "open:j": 500})]),
        ("late without an expired hold", [("capture_late", LATE)]),
        ("late without an expired hold", [("hold", HOLD), ("expire", BACK), ("capture_late", LATE),
                                          ("capture_late", LATE)]),
        ("given back without a hold", [("void", BACK)]),
        ("given back with other legs", [("hold", HOLD), ("void", {
            "hold:i": -1_000, "app:other": 1_000})]),
        ("settled without an open pool", [("settle", SETTLE)]),
        ("settled without an open pool", [("hold", HOLD), ("capture", CAPTURE), ("settle", SETTLE),
                                          ("settle", SETTLE)]),
        ("without closing its pool", [("hold", HOLD), ("capture", CAPTURE), ("settle", {
            "open:i": -499, "contrib:alice": 499})]),
        ("other accounts than contributors", [("hold", HOLD), ("capture", CAPTURE), ("settle", {
            "open:i": -500, "platform": 500})]),
        ("refunded beyond its charge", [("hold", HOLD), ("capture", CAPTURE), ("settle", SETTLE),
                                        ("refund", REFUND), ("refund", REFUND)]),
        ("refunded beyond its charge", [("hold", HOLD), ("expire", BACK), ("capture_late", LATE),
                                        ("settle", SETTLE), ("refund", REFUND),
                                        ("refund", REFUND)]),
        ("a refund touched open:i", [("hold", HOLD), ("capture", CAPTURE), ("refund", {
            "open:i": -500, "app:demo": 500})]),
        ("a adjust touched open:i", [("hold", HOLD), ("capture", CAPTURE), ("adjust", {
            "open:i": -500, "platform": 500})]),
    ],
)  # fmt: skip
def test_what_is_none_is_found(says: str, steps: Sequence[Step]) -> None:
    found = wrong(*steps)
    assert found is not None
    assert says in found
    assert found.endswith(f"by entry {len(steps)}")


def test_a_fold_that_begins_at_a_snapshot_judges_what_is_unfinished_there() -> None:
    at_hold = Snapshot(1, HOLD)
    assert wrong(("capture", CAPTURE), ("settle", SETTLE), base=at_hold) is None
    assert wrong(("void", BACK), base=at_hold) is None
    assert wrong(("capture_late", LATE), base=Snapshot(2, {"app:demo": 5})) is None
    assert "without a hold" in (wrong(("capture", CAPTURE), base=Snapshot(2, {"app:x": 5})) or "")


def test_waiting_holds_and_pools_are_counted() -> None:
    fold = folded(("hold", HOLD))
    assert fold.waiting == {"hold:": 1, "open:": 0}
    fold = folded(("hold", HOLD), ("capture", CAPTURE))
    assert fold.waiting == {"hold:": 0, "open:": 1}
    assert Fold(Snapshot(2, fold.accounts)).waiting == fold.waiting


def test_an_expired_hold_is_forgotten_when_it_can_be_captured_no_more() -> None:
    fold = Fold()
    seq = 0
    for day in range(100):
        name = f"i{day}"
        for kind, sign in (("hold", 1), ("expire", -1)):
            seq += 1
            legs = {"app:demo": -sign * 5, f"hold:{name}": sign * 5}
            fold.add_page([an_entry(seq, kind, legs, time_ms=day * DAY_MS, inference=name)])
    assert not fold.problems
    assert len(fold.inferences._expired) <= inference_books.FORGET_MS // DAY_MS + 2


def test_only_the_newest_charges_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_books, "CHARGES_MAX", 2)
    fold = Fold()
    names = ("i", "j", "k")
    for name in names:
        for kind, legs in (("hold", HOLD), ("capture", CAPTURE)):
            own = {account.replace(":i", f":{name}"): nano for account, nano in legs.items()}
            fold.add_page([an_entry(fold.seq + 1, kind, own, inference=name)])
    for name in names:
        legs = {"app:demo": 901, "refund": -901}
        fold.add_page([an_entry(fold.seq + 1, "refund", legs, inference=name)])
    assert set(fold.inferences.wrong) == {"j", "k"}


def test_two_legs_of_one_account_and_another_kind_of_id_are_broken() -> None:
    fields = orjson.loads(an_entry(1, "hold", HOLD)[1][1])
    fields["legs"] = [["app:demo", "0"], ["app:demo", "0"]]
    fold = Fold()
    fold.add_page([(b"1-1", [b"e", orjson.dumps(fields)])])
    assert fold.unbalanced == [1]
    fold.add_page([(b"2-2", [b"e", an_entry(2, "hold", HOLD)[1][1]])])
    assert (fold.unbalanced, fold.gaps) == ([1, 2], [])


def test_a_leg_of_nothing_changes_nothing() -> None:
    assert folded(("adjust", {"host": 0})).accounts == {}


def test_the_list_of_what_is_wrong_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_books, "LISTED_MAX", 2)
    fold = Fold()
    for seq in range(1, 5):
        legs = {f"hold:i{seq}": -1, "app:demo": 1}
        fold.add_page([an_entry(seq, "void", legs, inference=f"i{seq}")])
    assert len(fold.inferences.wrong) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from(list(orjson.loads(an_entry(1, "hold", HOLD)[1][1])))


@given(names, json_values)
def test_any_field_of_an_entry_may_be_broken_and_the_fold_goes_on(name: str, value: object) -> None:
    stream_id, (field, text) = an_entry(1, "hold", HOLD)
    entry = orjson.loads(text)
    entry[name] = value
    renamed = {key if key != name else f"{key}!": it for key, it in entry.items()}
    for broken in (entry, renamed):
        fold = Fold()
        fold.add_page([(stream_id, [field, orjson.dumps(broken)]), an_entry(2, "void", BACK)])
        assert fold.seq == 2
        assert sum(fold.accounts.values()) == 0 or fold.problems
