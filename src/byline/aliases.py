"""Aliases: names of an installation's own for what its release serves, by weight, with fallbacks.

`aliases.toml` in the home folder, read with the release:

    [healthcare]                              # the name that clients ask for
    weights = {"healthcare@0123456789ab" = 95, "healthcare@ba9876543210" = 5}
    fallback = ["compliance"]                 # tried in this order where that is not loaded

An alias may take an adapter's short name: so a new version gets a part of its traffic. Which one an
inference gets is decided by its id alone, so that every gateway, and whoever looks later, agrees.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from byline.errors import NotFound, StartFailed
from byline.records import Release
from byline.registry import AUTO, find_adapter

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")  # no version: that is one adapter's own
WEIGHT_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Alias:
    """One name, what it stands for, and what comes in its place."""

    name: str
    weights: Mapping[str, int]  # by an adapter's name or version, or the base model's name
    fallback: tuple[str, ...] = ()

    def drawn(self, inference: str) -> str:
        """What answers this inference."""
        digest = sha256(f"{self.name} {inference}".encode()).digest()
        place = int.from_bytes(digest[:8]) % sum(self.weights.values())
        for name, weight in sorted(self.weights.items()):
            if place < weight:
                return name
            place -= weight
        raise AssertionError("a remainder is below the sum")


def read_aliases(path: Path, release: Release) -> dict[str, Alias]:
    """Every alias by its name; none where there is no such file.

    Raises StartFailed, naming the alias, for what the release does not serve.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise StartFailed(f"{path} can't be read: {problem}") from problem
    return {name: _alias(name, table, release, path) for name, table in tables.items()}


def _alias(name: str, table: object, release: Release, path: Path) -> Alias:
    try:
        return _checked(name, table, release)
    except (ValueError, NotFound) as problem:
        raise StartFailed(f"the alias '{name}' in {path}: {problem}") from problem


def _checked(name: str, table: object, release: Release) -> Alias:
    if not NAME.match(name) or name in (AUTO, release.base_model):
        raise ValueError("this name is not free")
    if not isinstance(table, dict) or not table.keys() <= {"weights", "fallback"}:
        raise ValueError("it has 'weights', and may have 'fallback', and nothing else")
    weights, fallback = table.get("weights"), table.get("fallback", [])
    if not isinstance(weights, dict) or not all(
        type(weight) is int and 0 <= weight <= WEIGHT_MAX for weight in weights.values()
    ):
        raise ValueError(f"each weight is a whole number from 0 to {WEIGHT_MAX}")
    if not sum(weights.values()):
        raise ValueError("the weights sum to zero")
    if not isinstance(fallback, list) or not all(isinstance(other, str) for other in fallback):
        raise ValueError("'fallback' is a list of names")
    for other in (*weights, *fallback):
        find_adapter(release, other)
    return Alias(name, weights, tuple(fallback))
