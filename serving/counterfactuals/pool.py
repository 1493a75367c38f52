"""Trains what is missing of a plan in several processes, each with a base model of its own."""

import ctypes
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byline.artifacts import Artifact
from byline.command.guardian import die_with_parent
from byline.fidelity.study import Study, read_study
from serving.counterfactuals.plan import Planner, Run
from serving.progress import Report

POLL_SECONDS = 2.0


@dataclass(slots=True)
class _Bench:
    """What one process keeps between its runs: the model with a fresh adapter, and the rows."""

    study: Study
    store: Any  # its type, and those below, would load the model libraries in the parent, too
    model: Any
    start: Any
    rows: Any
    steps_done: Any


_bench: list[_Bench] = []  # one in each worker process; the pool has no other place for it


def _prepare(
    base: Path,
    study_path: Path,
    root: Path,
    steps_done: Any,  # noqa: ANN401 - a shared integer has no public type
) -> None:
    from serving.checkpoints import load_base_model, load_tokenizer
    from serving.counterfactuals.runs import RunStore
    from serving.fine_tuning import be_deterministic
    from serving.lora import add_lora, flat_weights
    from serving.recipes import TRAINING_THREADS, LoraShape
    from serving.rows import encode

    die_with_parent()  # else what is queued would be trained for nobody
    be_deterministic(TRAINING_THREADS)
    study = read_study(study_path)
    model = add_lora(load_base_model(base), LoraShape())
    rows = encode(load_tokenizer(base), study.rows)
    start = flat_weights(model).clone()
    _bench.append(_Bench(study, RunStore(root), model, start, rows, steps_done))


def _train(runs: Sequence[Run]) -> None:
    """Train some runs of one order together, and store them."""
    import torch

    from serving.fine_tuning import fine_tune
    from serving.lora import set_flat_weights
    from serving.recipes import RunSettings

    bench = _bench[0]
    owners = torch.tensor(bench.study.contributor_of)
    weights = torch.tensor([run.weights for run in runs])[:, owners]

    def stepped() -> None:
        with bench.steps_done.get_lock():
            bench.steps_done.value += len(runs)

    set_flat_weights(bench.model, bench.start)
    trained = fine_tune(bench.model, bench.rows, weights, runs[0].order, RunSettings(), stepped)
    for run, theta, losses in zip(runs, trained.theta, trained.losses.T, strict=True):
        bench.store.write(run, bench.model, theta, losses.tolist())
    _give_memory_back()


def _give_memory_back() -> None:
    """To the system, what the run freed: in pieces of many sizes it would grow with every run."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)


def together(runs: Sequence[Run], size: int) -> list[list[Run]]:
    """Runs of one order in groups of at most `size`, in their order."""
    groups: list[list[Run]] = []
    for run in runs:
        if groups and len(groups[-1]) < size and groups[-1][0].order == run.order:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def train_missing(
    base: Artifact,
    study_path: Path,
    root: Path,
    shape: tuple[int, int],
    report: Report,
    wanted: Sequence[Run] | None = None,
) -> int:
    """Train what is missing with (processes, runs together); answers how many it was.

    Of these runs of the study, if `wanted` is given; else of its whole plan.
    """
    from serving.counterfactuals.runs import RunStore
    from serving.fine_tuning import steps_of

    processes, size = shape
    planner = Planner(read_study(study_path), base.sha256)
    missing = RunStore(root).missing(planner.plan() if wanted is None else wanted)
    if not missing:
        return 0
    context = multiprocessing.get_context("spawn")
    steps_done = context.Value("q", 0)
    total = len(missing) * steps_of(len(planner.study.rows), planner.settings)
    groups = together(missing, size)
    with ProcessPoolExecutor(
        max_workers=min(processes, len(groups)),
        mp_context=context,
        initializer=_prepare,
        initargs=(base.path, study_path, root, steps_done),
    ) as pool:
        waiting: set[Future[None]] = {pool.submit(_train, group) for group in groups}
        try:
            while waiting:
                done, waiting = wait(waiting, POLL_SECONDS, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                report("counterfactual runs", steps_done.value, total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return len(missing)
