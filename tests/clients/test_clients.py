"""Real clients need nothing changed but the address and the key: plain, streamed, refused.

Each client runs as its own program with its own packages (`make clients` installs them) against a
running gateway, and says of each check what came of it.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.installing import LANGCHAIN, LLAMA_INDEX, NODE, OPENAI_2, ClientSet
from tests.gateway_program import ROOT, GatewayProgram

HERE = Path(__file__).parent
SECONDS_MAX = 60.0
ALL = (
    "plain", "streamed", "usage", "tools", "tools_streamed", "json_schema",
    "unknown_key", "unknown_model", "bad_value", "no_money",
)  # fmt: skip
ASYNC = ("plain_async", "streamed_async")
OPENAI = ("models", "responses", "responses_streamed", "broken_stream")
OPENAI_PYTHON = (
    *OPENAI, *ASYNC, "tools_async", "errors_async", "models_async", "completions",
    "several_choices", "embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class Client:
    """One client: its script, its packages, and what it checks beside what all of them check."""

    name: str
    script: str
    packages: ClientSet | None  # None: it is in our own environment
    more: tuple[str, ...] = ()


CLIENTS = (
    Client("openai 3 (Python)", "asking_openai", None, OPENAI_PYTHON),
    Client("openai 2 (Python)", "asking_openai", OPENAI_2, OPENAI_PYTHON),
    Client("langchain-openai", "asking_langchain", LANGCHAIN, (*ASYNC, "responses", "completions")),
    Client("llama-index OpenAILike", "asking_llama_index", LLAMA_INDEX, ASYNC),
    Client("openai (JavaScript)", "asking_openai.mjs", NODE, OPENAI),
    Client("AI SDK", "asking_ai_sdk.mjs", NODE),
)
CASES = [
    pytest.param(client, check, id=f"{client.name}: {check}")
    for client in CLIENTS
    for check in (*ALL, *client.more)
]


@dataclass(frozen=True)
class Said:
    """What a client said of each check, and what the engine was asked meanwhile."""

    checks: dict[str, str]
    asked: list[dict[str, Any]]


class Interviews:
    """Runs each client once, when it is first asked about."""

    def __init__(self, program: GatewayProgram, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._said: dict[str, Said] = {}

    def said(self, client: Client) -> Said:
        if client.name not in self._said:
            before = len(self._program.engine.asked)
            checks = self._run(client)
            self._said[client.name] = Said(checks, self._program.engine.asked[before:])
        return self._said[client.name]

    def _run(self, client: Client) -> dict[str, str]:
        keys = self._program.keys
        env = {
            "PATH": os.environ["PATH"], "HOME": str(self._folder),
            "BASE_URL": f"{self._program.url}/v1", "API_KEY": keys.shop, "POOR_KEY": keys.poor,
        }  # fmt: skip
        if client.packages is not None:
            env["PYTHONPATH"] = str(client.packages.folder)
        ran = subprocess.run(
            self._argv(client), env=env, cwd=ROOT, timeout=SECONDS_MAX,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-3_000:]
        said: dict[str, str] = json.loads(ran.stdout)
        return said

    def _argv(self, client: Client) -> list[str]:
        if client.packages is not NODE:
            return [sys.executable, "-m", f"tests.clients.{client.script}"]
        # A module finds its packages beside itself.
        beside = self._folder / "node"
        if not beside.exists():
            beside.mkdir()
            (beside / "node_modules").symlink_to(NODE.folder / "node_modules")
            for script in (HERE / "node").glob("*.mjs"):
                shutil.copy(script, beside)
        return ["node", str(beside / client.script)]


def require(client: Client) -> None:
    """Skip, with a reason, where the client is not on this machine."""
    if client.packages is not None and not client.packages.folder.is_dir():
        pytest.skip(f"{client.name} is not installed: run `make clients`")
    if client.packages is NODE and shutil.which("node") is None:
        pytest.skip(f"{client.name} needs node, which is not on this machine")


@pytest.fixture(scope="module")
def interviews(program: GatewayProgram, tmp_path_factory: pytest.TempPathFactory) -> Interviews:
    return Interviews(program, tmp_path_factory.mktemp("clients"))


@pytest.mark.slow
@pytest.mark.parametrize(("client", "check"), CASES)
def test_a_client_is_served(interviews: Interviews, client: Client, check: str) -> None:
    require(client)
    result = interviews.said(client).checks[check]
    assert result == "passed", result


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_no_check_of_a_client_is_forgotten(interviews: Interviews, client: Client) -> None:
    require(client)
    assert set(interviews.said(client).checks) == {*ALL, *client.more}


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_tools_and_schemas_reach_the_engine_whole(interviews: Interviews, client: Client) -> None:
    require(client)
    asked = interviews.said(client).asked
    functions = [tool["function"] for body in asked for tool in body.get("tools") or ()]
    assert functions
    for function in functions:
        assert function["name"] == "look_up"
        assert function["parameters"]["properties"]["answer"]["type"] == "integer"
        assert function["parameters"]["required"] == ["answer"]
    formats = [body["response_format"] for body in asked if body.get("response_format")]
    assert formats
    for wanted in formats:
        assert wanted["type"] == "json_schema"
        assert wanted["json_schema"]["strict"] is True
        assert wanted["json_schema"]["schema"]["properties"]["answer"]["type"] == "integer"


@pytest.mark.slow
def test_the_books_balance_after_all_clients(
    interviews: Interviews, program: GatewayProgram
) -> None:
    program.assert_quiet()
