"""Canonical JSON is exactly what `rfc8785` says it is, however fast it is written."""

import math
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from byline.canonical import Json, canonical_bytes, canonical_text, digest

INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1e3, 1e3),
    st.sampled_from([0.0, -0.0, 1.0, 1e15, 1e16, 1e20, 1e21, 1e-4, 1e-5, 1e-6, 1e-7, 5e-324]),
)
LEAVES = st.one_of(st.none(), st.booleans(), INTEGERS, FLOATS, st.text())
KEYS = st.one_of(st.text(), st.text(st.characters(max_codepoint=127)), st.sampled_from("abc"))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(KEYS, inner)
    ),
)


@given(VALUES)
def test_any_json_has_rfc_8785s_own_bytes(value: Json) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value)


def test_every_character_is_written_as_rfc_8785_does() -> None:
    text = "".join(map(chr, range(0x800))) + "\ud7ff\ue000\uffff\U0001f600\U0010ffff"
    assert canonical_bytes({"a": text}) == rfc8785.dumps({"a": text})


def test_keys_are_sorted_by_utf_16_even_where_utf_8_has_another_order() -> None:
    assert canonical_text({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), math.nan, math.inf, "\ud800", {1: 2}, {"a": b""}]
)
def test_what_has_no_canonical_form_is_refused_as_rfc_8785_refuses_it(value: Any) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever it is, it is the same
        rfc8785.dumps(value)
    with pytest.raises(type(expected.value)):
        canonical_bytes(value)


def test_the_digest_is_of_the_canonical_bytes() -> None:
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
