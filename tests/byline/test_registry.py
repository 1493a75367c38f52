"""The checks of a release before anything of it is served."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from byline.errors import StartFailed
from byline.records import AdapterVersion, Release
from byline.registry import check_adapters

LAW = AdapterVersion(
    adapter="law", version="law@0123456789ab", path="adapters/law@0123456789ab", owner="firm",
    base_model="tiny", dataset="d@0123456789ab", index="i@0123456789ab",
)  # fmt: skip
RELEASE = Release("tiny", "base/tiny@ffffffffffff", 2048, (LAW,), "router@0123456789ab")
CONFIG = {
    "base_model_name_or_path": "tiny@ffffffffffff", "r": 8, "bias": "none",
    "target_modules": ["q_proj", "v_proj"], "rank_pattern": {}, "modules_to_save": None,
}  # fmt: skip


def store(folder: Path, **changes: object) -> Path:
    place = folder / LAW.path
    place.mkdir(parents=True, exist_ok=True)
    (place / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder


def test_an_adapter_that_fits_its_base_model_is_served(tmp_path: Path) -> None:
    check_adapters(RELEASE, store(tmp_path), rank_max=8)
    check_adapters(replace(RELEASE, adapters=()), tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"base_model_name_or_path": "tiny@000000000000"}, "trained on tiny@000000000000"),
        ({"base_model_name_or_path": None}, "trained on None"),
        ({"r": 9}, "rank 9, above the engine's 8"),
        ({"r": "8"}, "has no rank"),
        ({"r": 0}, "has no rank"),
        ({"target_modules": ["q_proj", "up_proj", "lm_head"]}, "changes lm_head, up_proj"),
        ({"target_modules": "all-linear"}, "does not name its target modules"),
        ({"target_modules": []}, "does not name its target modules"),
        ({"bias": "all"}, "uses bias"),
        ({"use_dora": True, "rank_pattern": {"q_proj": 64}}, "uses rank_pattern, use_dora"),
        ({"modules_to_save": ["embed_tokens"]}, "uses modules_to_save"),
    ],
)
def test_an_adapter_that_does_not_fit_stops_the_start(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(StartFailed, match=rf"law@0123456789ab .*{says}"):
        check_adapters(RELEASE, store(tmp_path, **changes), rank_max=8)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": "law"}, "not named by its content"),
        ({"path": "adapters/../../etc"}, "not named by its content"),
        ({"path": "adapters/law@000000000000"}, "not named by its content"),
        ({"base_model": "other"}, "is for other, not for tiny"),
    ],
)
def test_a_release_that_contradicts_itself_stops_the_start(
    tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    release = replace(RELEASE, adapters=(replace(LAW, **changes),))
    with pytest.raises(StartFailed, match=says):
        check_adapters(release, store(tmp_path))


def test_one_version_twice_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="there twice"):
        check_adapters(replace(RELEASE, adapters=(LAW, LAW)), store(tmp_path))


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_configuration_that_can_not_be_read_stops_the_start(
    tmp_path: Path, content: str | None
) -> None:
    place = store(tmp_path) / LAW.path / "adapter_config.json"
    place.unlink()
    if content is not None:
        place.write_text(content)
    with pytest.raises(StartFailed, match="can't be read"):
        check_adapters(RELEASE, tmp_path)
