"""kill -9 of the engine, the worker, the gateway and Redis loses nothing and doubles nothing.

The programs under fire are this test's own, with a ledger of their own; the engine is the session's
where it is not the one to be killed. `byline up` itself stops everything when a part dies, so each
is restarted here, as a supervisor would.
"""

import asyncio
import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import httpx
import psutil
import pytest
from openai import APIConnectionError, APIError, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from byline.command.account import ensure_accounts
from byline.command.programs import Ports, Program, programs, redis_program
from byline.command.tree import answers
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.records import AttributionState, InferenceRecord, JournalEntry, UsageSource
from tests.end_to_end.conftest import PORTS, Running
from tests.end_to_end.test_leaving import LONG
from tests.ports import free_ports

pytestmark = [pytest.mark.engine, pytest.mark.slow]
READY_SECONDS = 240.0  # an engine on a busy machine
SETTLED_SECONDS = 120.0


class Stack:
    """The programs of one ledger, each killed and started again at will; by default no engine."""

    def __init__(self, home: Home, engine_url: str | None) -> None:
        self.home = home
        self.ports = Ports(free_ports(PORTS))
        self._programs = {p.name: p for p in programs(home, self.ports)}
        self._programs["redis"] = redis_program(home, self.ports)
        gateway = self._programs["gateway"]
        env = {**gateway.env, "BYLINE_GATEWAY_ENGINE_URLS": engine_url or self.ports.engine_url,
               "BYLINE_GATEWAY_HOLD_SECONDS": "20"}  # fmt: skip
        self._programs["gateway"] = Program("gateway", gateway.argv, env, gateway.ready_url, 60.0)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        program = self._programs[name]
        self.home.logs.mkdir(parents=True, exist_ok=True)
        with (self.home.logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                program.argv, env=dict(program.env), stdout=log, stderr=subprocess.STDOUT
            )

    def wait_ready(self, name: str) -> None:
        url = self._programs[name].ready_url
        deadline = time.monotonic() + READY_SECONDS
        while url is not None and not answers(url):
            assert time.monotonic() < deadline, (self.home.logs / f"{name}.log").read_text()[-2000:]
            assert self._processes[name].poll() is None
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """With all that it has started: vLLM's parts outlive the one that answers."""
        process = self._processes[name]
        tree = (
            psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        )
        process.kill()
        for child in tree:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()
        psutil.wait_procs(tree, timeout=READY_SECONDS)

    def stop(self) -> None:
        for name in ("gateway", "worker", "engine", "redis"):
            if name in self._processes:
                self.kill(name)

    def journal(self) -> list[JournalEntry]:
        async def read() -> list[JournalEntry]:
            ledger = await Ledger.open(self.ports.redis_url)
            try:
                books = await ledger.check()
                assert books.balanced, books
                return [entry async for entry in ledger.entries()]
            finally:
                await ledger.close()

        return asyncio.run(read())

    def record(self, inference: str) -> InferenceRecord:
        async def read() -> InferenceRecord | None:
            ledger = await Ledger.open(self.ports.redis_url)
            try:
                return await ledger.inference(inference)
            finally:
                await ledger.close()

        found = asyncio.run(read())
        assert found is not None
        return found

    def states(self, inferences: list[str]) -> Counter[str]:
        async def read() -> Counter[str]:
            ledger = await Ledger.open(self.ports.redis_url)
            try:
                found: Counter[str] = Counter()
                for inference in inferences:
                    record = await ledger.inference(inference)
                    found[record.attributions[0].state.value if record else "absent"] += 1
                return found
            finally:
                await ledger.close()

        return asyncio.run(read())


@pytest.fixture
def stack(running: Running, tmp_path: Path) -> Iterator[Stack]:
    with _started(running, tmp_path, running.engine_url, "worker", "gateway") as made:
        yield made


@pytest.fixture
def stack_with_engine(running: Running, tmp_path: Path) -> Iterator[Stack]:
    with _started(running, tmp_path, None, "engine", "gateway") as made:
        yield made


@contextmanager
def _started(
    running: Running, folder: Path, engine_url: str | None, *names: str
) -> Iterator[Stack]:
    (folder / "artifacts").symlink_to((running.home / "artifacts").resolve())
    (folder / "release.json").write_text((running.home / "release.json").read_text())
    made = Stack(Home(folder), engine_url)
    try:
        made.start("redis")
        assert _keys_when_ready(made)
        for name in names:
            made.start(name)
        for name in names:
            made.wait_ready(name)
        yield made
    finally:
        made.stop()


def _keys_when_ready(stack: Stack) -> str:
    from byline.errors import LedgerUnavailable

    deadline = time.monotonic() + 20
    while True:
        try:
            keys = asyncio.run(
                ensure_accounts(
                    stack.home,
                    redis_url=stack.ports.redis_url,
                    gateway_url=stack.ports.gateway_url,
                    contributors=(),
                    now_ms=time.time_ns() // 1_000_000,
                )
            )
        except LedgerUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            key: str = keys["application"]
            return key


def _ask(stack: Stack, api_key: str, number: int) -> str | None:
    """The inference id of a whole answer, or None if the answer did not come whole."""
    url = f"{stack.ports.gateway_url}/v1"
    model = ("healthcare", "cybersecurity", "compliance")[number % 3]
    messages: list[ChatCompletionUserMessageParam] = [
        {"role": "user", "content": f"Question {number}: what does an auditor look for?"}
    ]
    try:
        with OpenAI(base_url=url, api_key=api_key, max_retries=0) as client:
            if number % 2:
                raw = client.chat.completions.with_raw_response.create(
                    model=model, messages=messages, max_tokens=16, temperature=0
                )
                raw.parse()
                return str(raw.headers["x-byline-inference-id"])
            with client.chat.completions.with_streaming_response.create(
                model=model, messages=messages, max_tokens=16, temperature=0, stream=True
            ) as streamed:
                lines = [line for line in streamed.iter_lines() if line]
                whole = bool(lines) and lines[-1] == "data: [DONE]"
                return str(streamed.headers["x-byline-inference-id"]) if whole else None
    except (APIError, APIConnectionError, OSError):
        return None
    except Exception as problem:  # a cut stream surfaces as the HTTP library's own error
        if "httpx" in type(problem).__module__ or "httpcore" in type(problem).__module__:
            return None
        raise


def test_kills_in_mid_traffic_lose_and_double_nothing(stack: Stack) -> None:
    api_key = _keys_when_ready(stack)
    answered: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        number = 0
        for victim in ("worker", "gateway", "redis"):
            asked: list[Future[str | None]] = []
            for _ in range(8):
                asked.append(pool.submit(_ask, stack, api_key, number))
                number += 1
            time.sleep(1.0)
            stack.kill(victim)
            time.sleep(0.3)
            stack.start(victim)
            stack.wait_ready(victim)
            answered += [found for found in (future.result() for future in asked) if found]
            if victim == "redis":
                stack.wait_ready("gateway")
        answered += [f for f in pool.map(lambda n: _ask(stack, api_key, n), range(100, 104)) if f]
    assert len(answered) >= 12
    _wait_until_settled(stack, answered)
    _assert_each_inference_balances(stack.journal(), answered)


def _wait_until_settled(stack: Stack, answered: list[str]) -> None:
    deadline = time.monotonic() + SETTLED_SECONDS
    done = {AttributionState.DONE.value}
    while True:
        states = stack.states(answered)
        holds = {e.inference for e in stack.journal() if e.kind == "hold"}
        ended = {
            entry.inference
            for entry in stack.journal()
            if entry.kind in ("capture", "capture_late", "void", "expire")
        }
        if set(states) <= done and holds == ended:
            return
        assert time.monotonic() < deadline, (states, len(holds - ended))
        time.sleep(1.0)


def _assert_each_inference_balances(journal: list[JournalEntry], answered: list[str]) -> None:
    by_inference: dict[str, list[JournalEntry]] = {}
    for entry in journal:
        if entry.inference is not None and entry.kind != "deposit":
            by_inference.setdefault(entry.inference, []).append(entry)
    assert set(answered) <= set(by_inference)
    for inference, entries in by_inference.items():
        kinds = Counter(entry.kind for entry in entries)
        captures = kinds["capture"] + kinds["capture_late"]
        assert kinds["hold"] == 1
        assert captures <= 1
        assert kinds["settle"] <= captures
        assert kinds["void"] + kinds["expire"] <= 1
        if inference in answered:
            assert captures == 1, "a whole answer is on the books"
        net = Counter[str]()
        for entry in entries:
            for leg in entry.legs:
                net[leg.account.partition(":")[0]] += leg.nano
        charge = sum(e.charge for e in entries if e.kind in ("capture", "capture_late"))
        assert net["hold"] == 0
        assert net["app"] == -charge


def test_an_engine_killed_in_a_stream_is_paid_for_what_it_delivered_and_comes_back(
    stack_with_engine: Stack,
) -> None:
    """Real vLLM, kill -9: an error event, the tokens that came are charged, adapters reload."""
    stack = stack_with_engine
    api_key = _keys_when_ready(stack)
    url = f"{stack.ports.gateway_url}/v1/chat/completions"
    headers = {"authorization": f"Bearer {api_key}"}
    body = {**LONG, "stream": True}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=120) as answer:
        assert answer.status_code == 200
        inference = answer.headers["x-byline-inference-id"]
        lines = answer.iter_lines()
        events = [line for line in islice(lines, 40) if line.startswith("data: ")]
        stack.kill("engine")
        events += [line for line in lines if line.startswith("data: ")]
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "engine_broke")
    delivered = sum('"token_ids":[' in event for event in events)
    assert delivered >= 10

    refused = httpx.post(url, json=LONG, headers=headers, timeout=60)
    assert refused.status_code in (502, 503)
    assert refused.json()["error"]["type"] == "server_error"

    stack.start("engine")
    stack.wait_ready("engine")
    deadline = time.monotonic() + READY_SECONDS
    while _ask(stack, api_key, 0) is None:  # a specialist: its adapter is loaded again by itself
        assert time.monotonic() < deadline
        time.sleep(0.5)

    ended = [e for e in stack.journal() if e.inference == inference and e.kind != "hold"]
    assert [entry.kind for entry in ended] == ["capture"]
    capture = stack.record(inference).capture
    assert capture.partial
    assert capture.usage.source is UsageSource.COUNTED
    assert sum(capture.usage.completion_tokens) == delivered
    held = Counter(entry.kind for entry in stack.journal())
    assert held["hold"] == held["capture"] + held["void"], "what was refused cost nothing"
