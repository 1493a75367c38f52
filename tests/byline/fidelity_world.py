"""A made-up fidelity measurement: rows, their study, and readings of a world of known effects."""

import numpy as np

from byline.fidelity.readings import Readings
from byline.fidelity.study import NO_DATE, Profile, Study, design
from byline.records import Example

PROFILE = Profile(6, 5, 24, 12, 6, 18, 12, 6, 2)
SIZES = {"a": 9, "b": 9, "c": 5, "d": 4, "e": 2, "f": 3}


def made_up_rows(sizes: dict[str, int]) -> list[Example]:
    """Rows by contributor, each a word longer than the one before."""
    return [
        Example(
            f"{who}-{number}",
            who,
            "",
            "",
            NO_DATE,
            f"what is {who} {number}",
            " ".join(f"{who}{number}{place}" for place in range(number + 2)),
        )
        for who, size in sizes.items()
        for number in range(size)
    ]


def made_up_study() -> Study:
    """The study of those rows."""
    return design("tiny", made_up_rows(SIZES), PROFILE, 1)


def made_up_readings(study: Study) -> Readings:
    """A world whose outcomes are sums of a known worth; the tangent knows it, Fisher half."""
    chance = np.random.default_rng(8)
    kinds = [True] * len(study.questions) + [False] * 6
    held_out = [n for n, each in enumerate(study.questions) if each.reference is not None]
    question = np.array([*range(len(study.questions)), *held_out])
    answers, people = len(question), len(study.contributors)
    worth = np.abs(chance.normal(size=(answers, people)))
    members = np.zeros((18, people))
    for line, coalition in zip(members, study.coalitions, strict=True):
        line[list(coalition)] = 1
    base = chance.normal(size=answers) - 30
    full = base + worth.sum(axis=1) + 2
    noise = chance.normal(size=(answers, people))
    return Readings(
        question=question, is_served=np.array(kinds), tokens=np.full(answers, 10),
        row_tokens=np.arange(len(study.rows)) + 1, base=base, full=np.stack([full, full + 1]),
        without=np.stack([full[:, None] - worth, full[:, None] + 1 - worth]),
        coalitions=(base[:, None] + worth @ members.T).T, coalition_places=np.arange(18),
        halved=(full - worth[:, 0] / 2)[None], halved_places=np.array([0]),
        smoothness=np.array([[0.9, 0.8]]),
        scores={"tangent/all": worth, "tangent/B alone": -worth,
                "damped fisher/lambda 0.1": worth + noise},
        likeness={"hidden states, last layer": np.abs(chance.normal(size=(answers, 24)))},
    )  # fmt: skip
