"""An adapter without each of its contributors: what is served is measured, and pay follows that.

On a tiny model, by the same programs: runs, reliability, the plan, an index of tangents.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from byline.artifacts import ArtifactStore
from byline.attribution import integer_scores, replayed
from byline.auditing.plan import Counterfactuals, Order, enter, read_plan
from byline.errors import ArtifactError, InvalidInput, StartFailed
from byline.home import Home
from byline.records import AttributionJob, ServedTokens
from byline.served import served_bytes, write_served
from serving import index_builder, rescoring, retraining
from serving.attributor import Attributor, Taught
from serving.checkpoints import load_base_model
from serving.counterfactuals.grouping import clusters
from serving.counterfactuals.run_files import LINE, WEIGHTS
from serving.counterfactuals.runs import weights_in
from serving.gradients import row_gradients
from serving.index_builder import Ingredients, build_index
from serving.influence import DAMPED_FISHER, TANGENT, AdapterIndex
from serving.lora import load_lora
from serving.progress import no_report
from serving.retraining import Scale, Trained, retrain
from serving.rows import Row
from serving.training import train
from tests.serving.test_copies_in_training import dataset_of, honest_rows, near_copies
from tests.serving.tiny import TinyHome, examples

pytestmark = pytest.mark.slow
PROMPT, COMPLETION = (1, 14, 24, 3, 2), (4, 4, 3)
RATE = "1/7"


@pytest.fixture(scope="module")
def retrained(tiny_home: TinyHome) -> Counterfactuals:
    trained = Trained(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    return retrain(tiny_home.home, trained, Scale(2, 6, 1), no_report)[0]


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
    made, _ = retrain(tiny_home.home, known, Scale(1, 6, 1), no_report)
    run = made.orders[0].without["contributor-0"]
    other = replace(tiny_home.adapter, path=tiny_home.home.counterfactuals / run)
    trained = Trained(other, tiny_home.dataset, tiny_home.base)
    with pytest.raises(StartFailed, match="Train it anew"):
        retrain(tiny_home.home, trained, Scale(1, 6, 1), no_report)


def test_one_order_measures_no_reliability(tiny_home: TinyHome) -> None:
    trained = Trained(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    made, found = retrain(tiny_home.home, trained, Scale(1, 6, 1), no_report)
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


def test_an_answer_is_paid_and_replayed_by_tangents_and_the_unreliable_part_by_nobody(
    tiny_home: TinyHome, retrained: Counterfactuals, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
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
    tokens = tmp_path / "kept.json"  # what `byline attribution replay --tokens` reads
    tokens.write_bytes(served_bytes(served))
    arguments = [
        "program", "--home", str(tiny_home.home.root), "--tokens", str(tokens), "--threads", "1",
        "--adapter", job.adapter_version, "--index", job.index, "--sha256", job.tokens_sha256,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    rescoring.main()
    again = json.loads(capsys.readouterr().out.splitlines()[-1])["result"]
    assert integer_scores(again["scores"]) == found.scores
    assert again["claims"] == found.claims


def test_the_programs_write_the_plan_and_index_by_it(
    tiny_home: TinyHome, plan: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = [
        "program", "--home", str(tiny_home.home.root), "--adapter", tiny_home.adapter.reference,
        "--dataset", tiny_home.dataset.reference, "--base", tiny_home.base.reference,
    ]  # fmt: skip
    before = plan.read_text()
    monkeypatch.setattr(
        sys, "argv", [*arguments, "--questions", "6", "--rate", RATE, "--processes", "1"]
    )
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


def test_weights_that_changed_on_disk_are_refused_and_trained_anew_when_deleted(
    tiny_home: TinyHome, retrained: Counterfactuals
) -> None:
    """Neither measured nor made into an index, whose pay would follow them."""
    run = tiny_home.home.counterfactuals / retrained.orders[0].without["contributor-1"]
    path = run / WEIGHTS
    whole = path.read_bytes()
    trained = Trained(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    changed = replace(retrained, reliability_ppb=1)  # an index that was never built
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:40]):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="changed since they were trained"):
            retrain(tiny_home.home, trained, Scale(2, 6, 1), no_report)
        with pytest.raises(ArtifactError, match="changed since they were trained"):
            contributor_vectors(tiny_home, changed)
    shutil.rmtree(run)
    assert retrain(tiny_home.home, trained, Scale(2, 6, 1), no_report)[0] == retrained
    assert path.read_bytes() == whole


def test_killed_between_two_runs_it_trains_only_what_is_missing(
    tiny_home: TinyHome, retrained: Counterfactuals, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_home.home.counterfactuals
    names = [run for order in retrained.orders for run in order.runs]
    shutil.rmtree(root / names[-1])
    (root / ".partial-killed").mkdir()  # what a killed writer leaves
    before = {name: (root / name / WEIGHTS).stat().st_mtime_ns for name in names[:-1]}
    trained = Trained(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    assert retrain(tiny_home.home, trained, Scale(2, 6, 1), no_report)[0] == retrained
    assert {name: (root / name / WEIGHTS).stat().st_mtime_ns for name in names[:-1]} == before
    (root / ".partial-killed").rmdir()

    def trains(*_: object, **__: object) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr("serving.counterfactuals.pool.ProcessPoolExecutor", trains)
    assert retrain(tiny_home.home, trained, Scale(2, 6, 1), no_report)[0] == retrained


def test_the_same_plan_finds_the_same_index(
    tiny_home: TinyHome, retrained: Counterfactuals, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = contributor_vectors(tiny_home, retrained)

    def builds(*_: object) -> None:
        raise AssertionError("built twice")

    monkeypatch.setattr(index_builder, "_build_into", builds)
    assert contributor_vectors(tiny_home, retrained).manifest == made.manifest


def test_a_dataset_of_one_contributor_is_retrained_and_indexed(tiny_home: TinyHome) -> None:
    """Without that one nothing is trained on: the tangent is the whole adapter."""
    store = ArtifactStore(tiny_home.home.artifacts)
    alone = dataset_of(store, [replace(row, contributor="ann") for row in examples(1, 6)])
    adapter = train(store, alone, tiny_home.base, no_report)
    made, found = retrain(
        tiny_home.home, Trained(adapter, alone, tiny_home.base), Scale(2, 6, 1), no_report
    )
    assert [set(order.without) for order in made.orders] == [{"ann"}] * 2
    assert found is not None
    assert found.distance == 0  # all of the money is hers in either order
    assert made.reliability_ppb is not None
    ingredients = Ingredients(adapter, alone, tiny_home.base, made, tiny_home.home.counterfactuals)
    index = AdapterIndex.load(build_index(store, ingredients, 1, no_report))
    assert (index.manifest.method, index.manifest.contributors) == (TANGENT, ("ann",))


def test_a_contributor_of_copies_alone_has_no_run_and_no_place_in_the_index(
    tiny_home: TinyHome,
) -> None:
    honest = honest_rows()
    store = ArtifactStore(tiny_home.home.artifacts)
    dataset = dataset_of(store, [*honest, *near_copies(honest, 1)])
    adapter = train(store, dataset, tiny_home.base, no_report)
    made, _ = retrain(
        tiny_home.home, Trained(adapter, dataset, tiny_home.base), Scale(1, 6, 1), no_report
    )
    people = {row.contributor for row in honest}
    assert set(made.orders[0].without) == people
    assert "mallory" not in people
    ingredients = Ingredients(
        adapter, dataset, tiny_home.base, made, tiny_home.home.counterfactuals
    )
    index = AdapterIndex.load(build_index(store, ingredients, 1, no_report))
    assert set(index.manifest.contributors) == people


@pytest.mark.parametrize(
    ("more", "plan_text", "said"),
    [
        (["--orders", "0"], None, "0 training orders"),
        (["--orders", "-2"], None, "-2 training orders"),
        (["--rate", "2"], None, r"not in \(0, 1\]"),
        (["--rate", "often"], None, "no audit rate"),
        ([], '{"rate": "1/20", "adapt', "no plan of audits"),
    ],
)
def test_what_cant_be_done_is_refused_before_anything_is_trained(
    tiny_home: TinyHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    more: list[str], plan_text: str | None, said: str,
) -> None:  # fmt: skip
    def trains(*_: object, **__: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(retraining, "train_missing", trains)
    home = Home(tmp_path)
    home.artifacts.symlink_to(tiny_home.home.artifacts)
    if plan_text is not None:
        home.audit_plan.write_text(plan_text)
    arguments = [
        "program", "--home", str(tmp_path), "--adapter", tiny_home.adapter.reference,
        "--dataset", tiny_home.dataset.reference, "--base", tiny_home.base.reference, *more,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises((InvalidInput, StartFailed), match=said):
        retraining.main()


@pytest.fixture(scope="module")
def in_groups(tiny_home: TinyHome) -> Counterfactuals:
    trained = Trained(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    return retrain(tiny_home.home, trained, Scale(2, 6, 1, groups=2), no_report)[0]


def test_contributors_in_groups_are_left_out_together(
    tiny_home: TinyHome, in_groups: Counterfactuals, retrained: Counterfactuals
) -> None:
    assert in_groups.groups is not None
    members = {who for each in in_groups.groups.values() for who in each}
    assert members == {"contributor-0", "contributor-1", "contributor-2"}
    assert {rows for each in in_groups.groups.values() for rows in each.values()} == {4}
    assert [set(order.without) for order in in_groups.orders] == [set(in_groups.groups)] * 2
    assert len(in_groups.groups) == 2
    alone, pair = sorted(in_groups.groups.values(), key=len)
    # Whoever is a group by itself is left out as before, by the same run.
    (name,) = [name for name, each in in_groups.groups.items() if each == alone]
    assert in_groups.orders[0].without[name] == retrained.orders[0].without[next(iter(alone))]
    assert len(pair) == 2
    for order in in_groups.orders:  # all of a group's members weigh nothing, and nobody else
        for group, run in order.without.items():
            line = json.loads((tiny_home.home.counterfactuals / run / LINE).read_text())
            left_out = in_groups.groups[group]
            assert line["weights"] == [float(who not in left_out) for who in sorted(members)]
    again = retrain(
        tiny_home.home, Trained(tiny_home.adapter, tiny_home.dataset, tiny_home.base),
        Scale(2, 6, 1, groups=2), no_report,
    )  # fmt: skip
    assert again[0] == in_groups


def test_a_groups_exact_total_is_divided_among_its_members(
    tiny_home: TinyHome, in_groups: Counterfactuals
) -> None:
    store = ArtifactStore(tiny_home.home.artifacts)
    ingredients = Ingredients(
        tiny_home.adapter, tiny_home.dataset, tiny_home.base, in_groups,
        tiny_home.home.counterfactuals,
    )  # fmt: skip
    made = build_index(store, ingredients, 1, no_report)
    index = AdapterIndex.load(made)
    assert in_groups.groups is not None
    assert index.manifest.units == tuple(sorted(in_groups.groups))
    inference = "0192f000-0000-7000-8000-000000000078"
    served = ServedTokens(inference, PROMPT, (COMPLETION,))
    job = AttributionJob(
        inference=inference, ordinal=0, application="app",
        adapter_version=tiny_home.adapter.reference, index=made.reference,
        tokens_sha256=write_served(tiny_home.home.served, served), pool_nano=1_000, enqueued_ms=0,
    )  # fmt: skip
    attributor = Attributor.load(tiny_home.home, tiny_home.release)
    found = attributor.attribute(job)
    assert set(found.scores) == set(index.manifest.contributors)
    assert replayed(found) == found
    rows = attributor.measure(served, 0, Taught(job.adapter_version, job.index)).row_scores
    assert rows is not None
    model = load_lora(load_base_model(tiny_home.base.path), tiny_home.adapter.path)
    gradient = row_gradients(model, [Row(PROMPT, COMPLETION)]).gradients[0].numpy()
    totals, _ = index.score(gradient)
    for group, members in in_groups.groups.items():
        own = sum(found.scores[who] for who in members)
        assert own == pytest.approx(totals[group] * 10**9, rel=1e-4, abs=1e4)
        parts = sum(part for who, part in rows if who in members)
        assert own == pytest.approx(parts * 10**9, rel=1e-6, abs=1e3)


def test_fewer_than_two_groups_are_refused(tiny_home: TinyHome) -> None:
    trained = Trained(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    with pytest.raises(InvalidInput, match="tell nobody apart"):
        retrain(tiny_home.home, trained, Scale(1, 6, 1, groups=1), no_report)


def test_likes_are_in_one_cluster() -> None:
    chance = np.random.default_rng(3)
    kinds = chance.normal(size=(4, 64))
    which = [0, 1, 2, 3] * 5
    vectors = np.array([(1 + n) * kinds[kind] for n, kind in enumerate(which)])
    vectors = (vectors + 0.1 * chance.normal(size=vectors.shape)).astype(np.float32)
    found = clusters(vectors, 4)
    assert len(set(found)) == 4
    assert len({*zip(which, found, strict=True)}) == 4  # one cluster a kind, whatever their size
    assert clusters(vectors, 4) == found
    assert sorted(clusters(vectors[:3], 9)) == [0, 1, 2]


def test_one_group_of_everybody_is_refused(
    tiny_home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.counterfactuals.grouping.clusters", lambda *_: [0, 0, 0])
    trained = Trained(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    with pytest.raises(StartFailed, match="no group of them can be left out"):
        retrain(tiny_home.home, trained, Scale(1, 6, 1, groups=2), no_report)
