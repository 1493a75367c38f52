"""An adapter without each of its contributors: what is served is measured, and pay follows that.

On a tiny model, by the same programs: runs, reliability, the plan, an index of tangents.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from byline.artifacts import ArtifactStore
from byline.attribution import replayed
from byline.auditing.plan import Counterfactuals, Order, enter, read_plan
from byline.errors import StartFailed
from byline.home import Home
from byline.records import AttributionJob, ServedTokens
from byline.served import write_served
from serving import index_builder, retraining
from serving.attributor import Attributor
from serving.checkpoints import load_base_model
from serving.counterfactuals.runs import weights_in
from serving.index_builder import Ingredients, build_index
from serving.influence import DAMPED_FISHER, TANGENT, AdapterIndex
from serving.lora import load_lora
from serving.progress import no_report
from serving.retraining import Trained, retrain
from tests.serving.tiny import TinyHome

pytestmark = pytest.mark.slow
PROMPT, COMPLETION = (1, 14, 24, 3, 2), (4, 4, 3)
RATE = "1/7"


@pytest.fixture(scope="module")
def retrained(tiny_home: TinyHome) -> Counterfactuals:
    trained = Trained(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    return retrain(tiny_home.home, trained, 2, 1, no_report)[0]


@pytest.fixture(scope="module")
def plan(tiny_home: TinyHome, retrained: Counterfactuals) -> Iterator[Path]:
    path = tiny_home.home.audit_plan
    enter(path, tiny_home.adapter.reference, retrained, Fraction(RATE))
    yield path
    path.unlink()  # the home is shared with tests that know no audits


def contributor_vectors(tiny: TinyHome, counterfactuals: Counterfactuals) -> AdapterIndex:
    ingredients = Ingredients(
        tiny.adapter, tiny.dataset, tiny.base, counterfactuals, tiny.home.counterfactuals
    )
    store = ArtifactStore(tiny.home.artifacts)
    return AdapterIndex.load(build_index(store, ingredients, 1, no_report))


def test_each_order_leaves_every_contributor_out_once(
    tiny_home: TinyHome, retrained: Counterfactuals
) -> None:
    people = {"contributor-0", "contributor-1", "contributor-2"}
    assert [set(order.without) for order in retrained.orders] == [people] * 2
    runs = [run for order in retrained.orders for run in order.runs]
    assert len(set(runs)) == 8
    assert all((tiny_home.home.counterfactuals / run).is_dir() for run in runs)
    assert retrained.reliability_ppb is not None
    assert 0 <= retrained.reliability_ppb <= 10**9


def test_the_first_orders_run_with_everybody_is_what_is_served(
    tiny_home: TinyHome, retrained: Counterfactuals
) -> None:
    model = load_lora(load_base_model(tiny_home.base.path), tiny_home.adapter.path)
    runs = tiny_home.home.counterfactuals
    served = weights_in(tiny_home.adapter.path, model)
    assert served.equal(weights_in(runs / retrained.orders[0].everybody, model))
    assert not served.equal(weights_in(runs / retrained.orders[1].everybody, model))


def test_an_adapter_that_its_recipe_does_not_give_is_refused(tiny_home: TinyHome) -> None:
    """Else the tangents would be those of another adapter than the one that answers."""
    known = Trained(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    made, _ = retrain(tiny_home.home, known, 1, 1, no_report)
    run = made.orders[0].without["contributor-0"]
    other = replace(tiny_home.adapter, path=tiny_home.home.counterfactuals / run)
    trained = Trained(other, tiny_home.dataset, tiny_home.base)
    with pytest.raises(StartFailed, match="Train it anew"):
        retrain(tiny_home.home, trained, 1, 1, no_report)


def test_one_order_measures_no_reliability(tiny_home: TinyHome) -> None:
    trained = Trained(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    made, found = retrain(tiny_home.home, trained, 1, 1, no_report)
    assert made.reliability_ppb is None
    assert found is None


def test_the_indexs_vectors_are_the_mean_tangents(
    tiny_home: TinyHome, retrained: Counterfactuals
) -> None:
    index = contributor_vectors(tiny_home, retrained)
    assert (index.manifest.method, index.manifest.reliability_ppb) == (
        TANGENT, retrained.reliability_ppb,
    )  # fmt: skip
    model = load_lora(load_base_model(tiny_home.base.path), tiny_home.adapter.path)

    def weights(run: str) -> torch.Tensor:
        return weights_in(tiny_home.home.counterfactuals / run, model)

    direction = np.random.default_rng(1).normal(size=index.manifest.dimensions).astype(np.float32)
    found, _ = index.score(direction)
    for who in index.manifest.contributors:
        tangents = [weights(o.everybody) - weights(o.without[who]) for o in retrained.orders]
        expected = torch.stack(tangents).mean(0).double() @ torch.from_numpy(direction).double()
        assert found[who] == pytest.approx(expected.item(), rel=1e-3, abs=1e-4)


def test_runs_of_other_contributors_make_no_index(
    tiny_home: TinyHome, retrained: Counterfactuals
) -> None:
    first = retrained.orders[0]
    fewer = Order(first.everybody, {"contributor-0": first.without["contributor-0"]})
    with pytest.raises(StartFailed, match="byline counterfactuals"):
        contributor_vectors(tiny_home, Counterfactuals((fewer,), None))


def test_an_answer_is_paid_by_tangents_and_the_unreliable_part_by_nobody(
    tiny_home: TinyHome, retrained: Counterfactuals
) -> None:
    half = replace(retrained, reliability_ppb=500_000_000)
    store = ArtifactStore(tiny_home.home.artifacts)
    ingredients = Ingredients(
        tiny_home.adapter, tiny_home.dataset, tiny_home.base, half, tiny_home.home.counterfactuals
    )
    made = build_index(store, ingredients, 1, no_report)
    inference = "0192f000-0000-7000-8000-000000000077"
    served = ServedTokens(inference, PROMPT, (COMPLETION,))
    job = AttributionJob(
        inference=inference, ordinal=0, application="app",
        adapter_version=tiny_home.adapter.reference, index=made.reference,
        tokens_sha256=write_served(tiny_home.home.served, served), pool_nano=1_000, enqueued_ms=0,
    )  # fmt: skip
    found = Attributor.load(tiny_home.home, tiny_home.release).attribute(job)
    assert (found.method, found.reliability_ppb) == (TANGENT, 500_000_000)
    assert found.reason is None
    assert found.unattributed_nano == 500
    assert sum(share.nano for share in found.shares) == 500
    assert found.claims is not None  # by rows that add up to the tangents' scores
    assert all(found.claims.get(who, 0) >= score - 10 for who, score in found.scores.items())
    assert replayed(found) == found


def test_the_programs_write_the_plan_and_index_by_it(
    tiny_home: TinyHome, plan: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = [
        "program", "--home", str(tiny_home.home.root), "--adapter", tiny_home.adapter.reference,
        "--dataset", tiny_home.dataset.reference, "--base", tiny_home.base.reference,
    ]  # fmt: skip
    before = plan.read_text()
    monkeypatch.setattr(sys, "argv", [*arguments, "--rate", RATE, "--processes", "1"])
    retraining.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])["result"]
    assert (result["runs"], result["contributors"]) == (8, 3)
    assert 0 <= result["orders_distance"] <= 1
    assert plan.read_text() == before
    known = read_plan(plan)
    assert known is not None
    assert known.rate == Fraction(RATE)
    assert known.adapters[tiny_home.adapter.reference].reliability_ppb == result["reliability_ppb"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--threads", "1"])
    index_builder.main()
    reference = json.loads(capsys.readouterr().out.splitlines()[-1])["result"]["reference"]
    made = ArtifactStore(tiny_home.home.artifacts).open("indexes", reference)
    assert AdapterIndex.load(made).manifest.method == TANGENT
    plan.rename(plan.with_suffix(".aside"))
    index_builder.main()
    reference = json.loads(capsys.readouterr().out.splitlines()[-1])["result"]["reference"]
    plan.with_suffix(".aside").rename(plan)
    assert reference == tiny_home.index.reference
    assert AdapterIndex.load(tiny_home.index).manifest.method == DAMPED_FISHER


def test_the_plan_keeps_what_else_it_says(tmp_path: Path) -> None:
    path = Home(tmp_path).audit_plan
    order = Order("full", {"ann": "without"})
    enter(path, "weather@000000000000", Counterfactuals((order,), 5), Fraction(1))
    given = json.loads(path.read_text())
    path.write_text(json.dumps({**given, "note": "ours"}))
    enter(path, "weather@111111111111", Counterfactuals((order,), None), Fraction(1, 3))
    assert json.loads(path.read_text())["note"] == "ours"
    plan = read_plan(path)
    assert plan is not None
    assert plan.rate == Fraction(1, 3)
    assert plan.adapters["weather@000000000000"] == Counterfactuals((order,), 5)
    assert plan.adapters["weather@111111111111"].reliability_ppb is None
    path.write_text("{}")
    with pytest.raises(StartFailed, match="no plan of audits"):
        enter(path, "weather@222222222222", Counterfactuals((order,), None), Fraction(1))
