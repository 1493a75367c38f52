"""The registry: which base model, adapters and router are being served, as one file.

`release.json` in the home folder names artifacts by their content. It is replaced whole, by rename;
a running gateway takes a new one over by itself.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from byline.artifacts import REFERENCE
from byline.errors import NotFound, StartFailed
from byline.records import AdapterVersion, Release

AUTO = "auto"
ADAPTER_CONFIG = "adapter_config.json"  # PEFT's
UNSUPPORTED = ("rank_pattern", "alpha_pattern", "modules_to_save", "use_dora")
# What an adapter may change: the engine is started for these, and gradients are taken on them.
TARGET_MODULES = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})


def write_release(path: Path, release: Release) -> None:
    """Replace the release file, all or nothing."""
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(asdict(release), indent=2) + "\n")
    os.replace(aside, path)


def read_release(path: Path) -> Release:
    """The release file as a record. Raises StartFailed if there is none or it can't be read."""
    try:
        fields = json.loads(path.read_text())
        adapters = tuple(AdapterVersion(**adapter) for adapter in fields.pop("adapters"))
        release = Release(adapters=adapters, **fields)
        _check_types(release)
    except FileNotFoundError as problem:
        raise StartFailed(f"no release at {path}: run `byline up` first") from problem
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise StartFailed(f"{path} is no release ({problem}): run `byline up`") from problem
    return release


def _check_types(release: Release) -> None:
    """Raise TypeError for a field that is not of its kind: JSON has let it through."""
    if type(release.context_tokens) is not int or release.context_tokens < 1:
        raise TypeError("context_tokens is no count")
    texts = {name: getattr(release, name) for name in ("base_model", "base_path", "router")}
    for fields in (texts, *map(asdict, release.adapters)):
        for name, value in fields.items():
            if not isinstance(value, str) or not value:
                raise TypeError(f"{name} is no text")


def find_adapter(release: Release, name: str) -> AdapterVersion | None:
    """The adapter version served for a client's model name; None is the base model.

    `name` may be an adapter's name, an exact version, or the base model. Raises NotFound otherwise:
    a name from a client never becomes a path.
    """
    if name == release.base_model:
        return None
    for adapter in release.adapters:
        if name in (adapter.adapter, adapter.version):
            return adapter
    raise NotFound(f"The model '{name}' does not exist. See GET /v1/models.", param="model")


def check_adapters(release: Release, artifacts: Path, *, rank_max: int | None = None) -> None:
    """Raise StartFailed for the first adapter that can't be served on the release's base model.

    The engine compares none of this: an adapter of another base model would be loaded, and answer.
    """
    seen: set[str] = set()
    for adapter in release.adapters:
        what = f"the adapter {adapter.version} of the release"
        if not REFERENCE.match(adapter.version) or adapter.path != f"adapters/{adapter.version}":
            raise StartFailed(f"{what} is not named by its content, or lies elsewhere")
        if adapter.version in seen or adapter.version == release.base_model:
            raise StartFailed(f"{what} is there twice")
        seen.add(adapter.version)
        if adapter.base_model != release.base_model:
            raise StartFailed(f"{what} is for {adapter.base_model}, not for {release.base_model}")
        config = _adapter_config(artifacts / adapter.path / ADAPTER_CONFIG, what)
        for fault in _faults(config, Path(release.base_path).name, rank_max):
            raise StartFailed(f"{what} {fault}")


def _adapter_config(path: Path, what: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as problem:
        raise StartFailed(f"{what} can't be read ({problem}): run `byline up`") from problem
    if not isinstance(config, dict):
        raise StartFailed(f"{what} can't be read: {path} is no object")
    return config


def _faults(config: Mapping[str, Any], base: str, rank_max: int | None) -> Iterator[str]:
    """What keeps an adapter from being served, most important first. `base` is a reference."""
    trained_on = config.get("base_model_name_or_path")
    if trained_on != base:
        yield f"was trained on {trained_on}, and {base} is served"
    rank = config.get("r")
    if type(rank) is not int or rank < 1:
        yield "has no rank"
    elif rank_max is not None and rank > rank_max:
        yield f"has rank {rank}, above the engine's {rank_max} (BYLINE_ENGINE_MAX_LORA_RANK)"
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not targets:
        yield "does not name its target modules"
    elif unknown := sorted(set(map(str, targets)) - TARGET_MODULES):
        yield f"changes {', '.join(unknown)}, which the engine is not started for"
    extras = [name for name in UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        extras.append("bias")
    if extras:
        yield f"uses {', '.join(extras)}, which is not supported"
