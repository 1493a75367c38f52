"""What every account is paid in a world, by the rules of production, and what that earns cheats.

Gains and losses are ratios of sums over all answers, each world's own answers to the same
questions; intervals are of a bootstrap over questions, with the same draws for both sides. They
say how far other questions would change the figure, and nothing of other training orders.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from byline.attacks.worlds import Arena, Attack, World
from byline.attribution import Measurement, attribute
from byline.canonical import Json
from byline.fidelity.measures import Array
from byline.fidelity.resampling import Figure, draw, interval
from byline.limits import PPB
from byline.money import POLICY, charge_nano, credits_of_capture
from byline.records import AttributionJob

Integers: TypeAlias = NDArray[np.int64]
Paid: TypeAlias = Mapping[str, Integers]  # account -> nano-USD of each answer, [A]

DRAWS = 2_000
GAIN_MAX = 1.05
LOSS_MAX = 0.05
RETURN_CAP = POLICY.adapter_split["pool"] / PPB  # all that a question's price pays contributors
COPYING = (Attack.COPIES, Attack.COPIES_ASIDE, Attack.PADDED)
BARRED = (*COPYING, Attack.SPLIT, Attack.OUTLIERS, Attack.INFLATED)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the adapter of one training says: A answers to the study's questions, n rows trained."""

    rows: tuple[str, ...]  # ids
    scores: Array  # [A, n], nats: of each row, by the method that serves
    lift: Array  # [A], nats
    prompt_tokens: Integers  # [A]
    completion_tokens: Integers  # [A]

    @property
    def charges(self) -> list[int]:
        """The price of each answer, nano-USD."""
        counts = zip(self.prompt_tokens.tolist(), self.completion_tokens.tolist(), strict=True)
        return [charge_nano(POLICY.adapter_price, *tokens) for tokens in counts]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One world's figures; `gain` compares with honest rows, and `passed` is None without a bar."""

    world: World
    found: int  # of the attacker's rows: copies that are not trained
    gain: Figure | None = None  # None where the honest pay is nothing
    owner_loss: Figure | None = None
    paid_nano: int = 0  # to the attacker's accounts
    passed: bool | None = None


def pay(world: World, reading: Reading) -> dict[str, Integers]:
    """Every account's nano-USD for each answer, [A]; nobody is in it without a row that taught."""
    owner_of = {row.id: row.contributor for row in world.rows}
    owners = [owner_of[row] for row in reading.rows]
    paid = {who: np.zeros(len(reading.lift), dtype=np.int64) for who in sorted(set(owners))}
    for place, (scores, charge) in enumerate(
        zip(reading.scores.tolist(), reading.charges, strict=True)
    ):
        name = f"question-{place}"
        _, pool = credits_of_capture(
            POLICY, charge, inference=name, base_model="base", owner_of="adapter"
        )
        job = AttributionJob(name, 0, "", "", "", "", pool, 0)
        lift = float(reading.lift[place])
        rows = list(zip(owners, scores, strict=True))
        for share in attribute(job, Measurement(lift, {}, (), row_scores=rows)).shares:
            paid[share.contributor][place] = share.nano
    return paid


def outcomes(
    arena: Arena, worlds: Sequence[World], readings: Mapping[str, Reading]
) -> list[Outcome]:
    """Every attack's figures. `readings` are by training, and have that of every world."""
    first = arena.worlds[0]
    judge = _Judge(arena, pay(first, readings[first.training]))
    return [
        judge.outcome(world, readings[world.training])
        for world in worlds
        if world.attack is not Attack.HONEST
    ]


class _Judge:
    """Compares worlds with the honest one."""

    def __init__(self, arena: Arena, honest: Paid) -> None:
        self._arena = arena
        self._honest = honest
        self._draws = draw(len(arena.study.questions), 1, DRAWS, seed=1).answers

    def outcome(self, world: World, reading: Reading) -> Outcome:
        paid = pay(world, reading)
        nothing = np.zeros(len(reading.lift), dtype=np.int64)
        taken = sum((paid.get(who, nothing) for who in world.accounts), nothing)
        own = [row.id for row in world.rows if row.contributor in world.accounts]
        plain = Outcome(world, len(set(own) - set(reading.rows)), paid_nano=int(taken.sum()))
        if world.attack is Attack.ZERO_WEIGHT:
            unharmed = all(np.array_equal(paid[who], self._honest[who]) for who in self._honest)
            return replace(plain, passed=plain.found > 0 and plain.paid_nano == 0 and unharmed)
        if world.attack is Attack.WASH:
            return self._wash(plain, taken, np.array(reading.charges))
        if world.attack is Attack.JUNK:
            return replace(plain, gain=_ratio(taken, self._honest_pay_of(len(own)), self._draws))
        gain = _ratio(taken, self._honest[self._arena.attacker], self._draws)
        owner = self._arena.owner
        kept = _ratio(paid[owner], self._honest[owner], self._draws)
        loss = None if kept is None else Figure(1 - kept.value, 1 - kept.high, 1 - kept.low)
        passed = _passed(world, gain, loss) if world.attack in BARRED else None
        return replace(plain, gain=gain, owner_loss=loss, passed=passed)

    def _wash(self, plain: Outcome, taken: Integers, prices: Integers) -> Outcome:
        """What comes back of the price of questions about the attacker's own rows."""
        questions = self._arena.study.questions
        mine = [place for place, each in enumerate(questions) if each.about == self._arena.attacker]
        if not mine:
            return plain
        draws = draw(len(mine), 1, DRAWS, seed=1).answers
        gain = _ratio(taken[mine], prices[mine], draws)
        return replace(plain, gain=gain, passed=gain is not None and gain.high <= RETURN_CAP)

    def _honest_pay_of(self, rows: int) -> Array:
        """What so many rows earn by the mean of all honest ones, [A]."""
        everyone = np.sum(list(self._honest.values()), axis=0)
        mean: Array = everyone * (rows / len(self._arena.worlds[0].trained))
        return mean


def _passed(world: World, gain: Figure | None, loss: Figure | None) -> bool:
    """Bars are on upper bounds; the owner's loss has one where its rows are copied."""
    copied = world.attack in COPYING
    return (
        gain is not None
        and gain.high <= GAIN_MAX
        and (not copied or (loss is not None and loss.high <= LOSS_MAX))
    )


def _ratio(above: Integers, below: Integers | Array, draws: Integers) -> Figure | None:
    """The ratio of sums, with its interval over `draws` [B, A] of places; None over nothing."""
    if below.sum() <= 0:
        return None
    upper, lower = above[draws].sum(axis=1), below[draws].sum(axis=1)
    drawn = np.divide(upper, lower, out=np.full(len(draws), np.inf), where=lower > 0)
    return interval(float(above.sum() / below.sum()), drawn)


def as_json(outcomes: Sequence[Outcome]) -> list[Json]:
    """One object an attack."""
    return [
        {
            "attack": str(outcome.world.attack),
            "sent": outcome.world.sent,
            "edit_rate": outcome.world.edit_rate,
            "found": outcome.found,
            "gain": _figure(outcome.gain),
            "owner_loss": _figure(outcome.owner_loss),
            "paid_nano": outcome.paid_nano,
            "passed": outcome.passed,
        }
        for outcome in outcomes
    ]


def _figure(figure: Figure | None) -> Json:
    """Value and interval; a bound that is infinite is null."""
    if figure is None:
        return None
    named = {"value": figure.value, "low": figure.low, "high": figure.high}
    return {name: round(each, 4) if math.isfinite(each) else None for name, each in named.items()}
