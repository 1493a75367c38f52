"""A made-up dataset for attacks, and readings of a world where every row's worth is known."""

import random
from collections.abc import Mapping

import numpy as np

from byline.attacks.pay import Reading
from byline.attacks.worlds import Arena, World, design_arena
from byline.fidelity.study import Profile
from byline.records import Example

PROFILE = Profile(5, 6, 24, 20, 20, 0, 10, 4, 1)
SIZES = {"ann": 9, "ben": 8, "cat": 14, "dan": 5, "eve": 4}


def attacked_rows(words: int = 12) -> list[Example]:
    """Rows of random words, each of its own."""
    chance = random.Random(4)
    return [
        Example(
            f"{who}-{number}", who, "", "", "2020-01-01", f"what is {who} {number}?",
            " ".join(f"w{chance.randrange(400)}" for _ in range(words)),
        )
        for who, size in SIZES.items()
        for number in range(size)
    ]  # fmt: skip


def made_up_arena() -> Arena:
    """The worlds of those rows."""
    return design_arena("made-up", attacked_rows(), 1, PROFILE)


def made_up_readings(
    arena: Arena, worth: Mapping[str, float] | None = None, lift: float = 3.0
) -> dict[str, Reading]:
    """By training: every row is worth about 1 to each answer, or what `worth` says of its id."""
    known = dict(worth or {})

    def reading(world: World) -> Reading:
        asked = len(arena.study.questions)
        scores = np.empty((asked, len(world.trained)))
        for column, row in zip(scores.T, world.trained, strict=True):
            column[:] = known.get(row, 1) * np.random.default_rng(len(row)).uniform(0.5, 1.5, asked)
        return Reading(
            world.trained, scores, np.full(asked, lift),
            np.arange(asked) + 20, np.arange(asked) % 7 + 1,
        )  # fmt: skip

    return {world.training: reading(world) for world in arena.worlds}
