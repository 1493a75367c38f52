"""The registry: which base model, adapters and router are being served, as one file.

`release.json` in the home folder names artifacts by their content; a program reads it once, when it
starts. It is replaced whole, by rename.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from byline.errors import NotFound, StartFailed
from byline.records import AdapterVersion, Release

AUTO = "auto"


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
        return Release(adapters=adapters, **fields)
    except FileNotFoundError as problem:
        raise StartFailed(f"no release at {path}: run `byline up` first") from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise StartFailed(f"{path} is no release ({problem}): run `byline up`") from problem


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
