"""Aliases: who answers is decided by weight and the inference's id; wrong ones stop the start."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.aliases import Alias, read_aliases
from byline.errors import StartFailed
from byline.records import AdapterVersion, Release

OLD, NEW = (
    AdapterVersion(
        adapter="law", version=version, path=f"adapters/{version}", owner="firm",
        base_model="tiny", dataset="d@0123456789ab", index="i@0123456789ab",
    )
    for version in ("law@0123456789ab", "law@ba9876543210")
)  # fmt: skip
RELEASE = Release("tiny", "base/tiny@0123456789ab", 2048, (OLD, NEW), "router@0123456789ab")


def read(folder: Path, text: str) -> dict[str, Alias]:
    (folder / "aliases.toml").write_text(text)
    return read_aliases(folder / "aliases.toml", RELEASE)


def test_no_file_is_no_alias(tmp_path: Path) -> None:
    assert read_aliases(tmp_path / "aliases.toml", RELEASE) == {}


def test_an_adapters_own_name_may_be_divided_between_its_versions(tmp_path: Path) -> None:
    (law,) = read(
        tmp_path,
        f'[law]\nweights = {{"{OLD.version}" = 90, "{NEW.version}" = 10}}\nfallback = ["tiny"]\n',
    ).values()
    assert law == Alias("law", {OLD.version: 90, NEW.version: 10}, ("tiny",))
    drawn = Counter(law.drawn(f"inference-{number}") for number in range(10_000))
    assert 800 < drawn[NEW.version] < 1_200
    assert drawn.total() == drawn[OLD.version] + drawn[NEW.version]


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), min_size=1),
    st.text(max_size=40),
)
def test_what_is_drawn_has_a_weight_and_is_always_the_same(
    weights: dict[str, int], inference: str
) -> None:
    if not sum(weights.values()):
        return
    drawn = Alias("x", weights).drawn(inference)
    assert weights[drawn] > 0
    assert Alias("x", dict(reversed(weights.items()))).drawn(inference) == drawn


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[auto]\nweights = {tiny = 1}", "not free"),
        ("[tiny]\nweights = {law = 1}", "not free"),
        ('["law@0123456789ab"]\nweights = {law = 1}', "not free"),
        ('["../x"]\nweights = {law = 1}', "not free"),
        ("[a]\nweights = {nobody = 1}", "nobody"),
        ("[a]\nweights = {law = 1}\nfallback = ['b']\n[b]\nweights = {law = 1}", "'b'"),
        ("[a]\nweights = {law = 0}", "sum to zero"),
        ("[a]\nweights = {law = -1, tiny = 2}", "whole number"),
        ("[a]\nweights = {law = 0.5}", "whole number"),
        ("[a]\nweights = {law = true}", "whole number"),
        ("[a]\nweights = 5", "whole number"),
        ("[a]\nfallback = ['law']", "whole number"),
        ("[a]\nweights = {law = 1}\nfallback = 'law'", "list of names"),
        ("[a]\nweights = {law = 1}\nwieght = 1", "nothing else"),
        ("a = 1", "nothing else"),
        ("[a", "can't be read"),
    ],
)
def test_an_alias_of_what_is_not_served_stops_the_start(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(StartFailed, match=says):
        read(tmp_path, text)


def test_a_folder_in_the_files_place_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "aliases.toml").mkdir()
    with pytest.raises(StartFailed, match="can't be read"):
        read_aliases(tmp_path / "aliases.toml", replace(RELEASE, adapters=()))
