"""The engine's command line: what release and settings say, nothing that a stranger could use."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from byline.errors import StartFailed
from byline.records import AdapterVersion, Release
from serving.launcher import engine_command, require_files
from serving.settings import EngineSettings

ADAPTERS = tuple(
    AdapterVersion(
        adapter=name, version=f"{name}@0123456789ab", path=f"adapters/{name}@0123456789ab",
        owner=name, base_model="tiny", dataset="d@0123456789ab", index=f"{name}@ba9876543210",
    )
    for name in ("healthcare", "compliance")
)  # fmt: skip
RELEASE = Release("tiny", "base/tiny@0123456789ab", 2048, ADAPTERS, "router@0123456789ab")


def after(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


@pytest.fixture
def settings(tmp_path: Path) -> EngineSettings:
    return EngineSettings(home=tmp_path)


def test_the_engine_serves_the_release(settings: EngineSettings, tmp_path: Path) -> None:
    argv, _ = engine_command(settings, RELEASE, {}, on_cpu=True)
    assert argv[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert after(argv, "--model") == str(tmp_path / "artifacts/base/tiny@0123456789ab")
    assert after(argv, "--served-model-name") == "tiny"
    assert after(argv, "--host") == "127.0.0.1"
    assert after(argv, "--max-model-len") == "2048"
    first = argv.index("--lora-modules") + 1
    path = tmp_path / "artifacts/adapters/healthcare@0123456789ab"
    assert argv[first] == f"healthcare@0123456789ab={path}"
    assert argv[first + 1].startswith("compliance@0123456789ab=")


def test_lora_leaves_the_logits_layer_alone(settings: EngineSettings) -> None:
    argv, _ = engine_command(settings, RELEASE, {}, on_cpu=True)
    first = argv.index("--lora-target-modules") + 1
    assert argv[first : first + 6] == [
        "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "--lora-modules",
    ]  # fmt: skip


def test_the_cpus_engine_has_our_worker_wherever_it_mixes_adapters(
    settings: EngineSettings,
) -> None:
    argv, _ = engine_command(settings, RELEASE, {}, on_cpu=True)
    assert after(argv, "--worker-cls") == "serving.cpu_engine.Worker"
    argv, _ = engine_command(settings, RELEASE, {}, on_cpu=False)
    assert "--worker-cls" not in argv


def test_the_engine_keeps_every_counterfactual_adapter_in_memory(settings: EngineSettings) -> None:
    few, _ = engine_command(settings, RELEASE, {}, on_cpu=True, audit_runs=3)
    assert after(few, "--max-cpu-loras") == str(settings.max_cpu_loras)
    many, _ = engine_command(settings, RELEASE, {}, on_cpu=True, audit_runs=33)
    assert after(many, "--max-cpu-loras") == str(len(RELEASE.adapters) + 33)


def test_the_gateway_may_load_adapters_where_there_are_any(settings: EngineSettings) -> None:
    _, environment = engine_command(settings, RELEASE, {}, on_cpu=True)
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    bare = replace(RELEASE, adapters=())
    _, environment = engine_command(
        settings, bare, {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}, on_cpu=True
    )
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "0"


def test_an_unknown_model_is_never_answered_by_the_base_model(settings: EngineSettings) -> None:
    _, environment = engine_command(
        settings, RELEASE, {"VLLM_SKIP_MODEL_NAME_VALIDATION": "1"}, on_cpu=True
    )
    assert environment["VLLM_SKIP_MODEL_NAME_VALIDATION"] == "0"


def test_the_engine_calls_nobody_and_keeps_our_environment(settings: EngineSettings) -> None:
    _, environment = engine_command(settings, RELEASE, {"PATH": "/bin"}, on_cpu=True)
    assert environment["PATH"] == "/bin"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "2"


def test_an_eager_engine_compiles_nothing_at_its_first_request(settings: EngineSettings) -> None:
    argv, environment = engine_command(settings, RELEASE, {}, on_cpu=True)
    assert "--enforce-eager" in argv
    assert environment["TORCHDYNAMO_DISABLE"] == "1"
    compiled = settings.model_copy(update={"enforce_eager": False})
    argv, environment = engine_command(compiled, RELEASE, {}, on_cpu=True)
    assert "--enforce-eager" not in argv
    assert "TORCHDYNAMO_DISABLE" not in environment


def test_a_release_without_adapters_serves_the_base_model(settings: EngineSettings) -> None:
    bare = Release("tiny", "base/tiny@0123456789ab", 2048, (), "router@0123456789ab")
    argv, _ = engine_command(settings, bare, {}, on_cpu=True)
    assert not any("lora" in word for word in argv)


def test_more_arguments_come_last(tmp_path: Path) -> None:
    settings = EngineSettings(home=tmp_path, arguments=("--max-num-queued-reqs", "9"))
    argv, _ = engine_command(settings, RELEASE, {}, on_cpu=True)
    assert argv[-2:] == ["--max-num-queued-reqs", "9"]


def test_settings_come_from_the_environment_and_a_bad_one_names_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BYLINE_ENGINE_PORT", "9001")
    monkeypatch.setenv("BYLINE_ENGINE_ARGUMENTS", '["--seed", "3"]')
    settings = EngineSettings()
    assert (settings.port, settings.arguments) == (9001, ("--seed", "3"))
    monkeypatch.setenv("BYLINE_ENGINE_MAX_LORA_RANK", "7")
    with pytest.raises(ValidationError, match="max_lora_rank"):
        EngineSettings()


def test_a_release_whose_files_are_gone_does_not_start(settings: EngineSettings) -> None:
    with pytest.raises(StartFailed, match="run `byline up`"):
        require_files(settings, RELEASE)


def test_an_adapter_above_the_engines_rank_does_not_start(
    settings: EngineSettings, tmp_path: Path
) -> None:
    for path in [RELEASE.base_path, *(adapter.path for adapter in ADAPTERS)]:
        (tmp_path / "artifacts" / path).mkdir(parents=True)
    config = {"base_model_name_or_path": "tiny@0123456789ab", "r": 32, "target_modules": ["q_proj"]}
    for adapter in ADAPTERS:
        place = tmp_path / "artifacts" / adapter.path / "adapter_config.json"
        place.write_text(json.dumps(config))
    with pytest.raises(StartFailed, match=r"healthcare@0123456789ab .* has rank 32"):
        require_files(settings, RELEASE)
    require_files(settings.model_copy(update={"max_lora_rank": 32}), RELEASE)
