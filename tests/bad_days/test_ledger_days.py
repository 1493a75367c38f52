"""Days on which the ledger's server is killed, stalled, read-only or full: nothing is served
unmetered, nothing that was served is lost, and the gateway comes back by itself."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from byline.posting.redis_client import connect
from tests.bad_days.asking import Answer, ask, eventually, within
from tests.gateway_program import GatewayProgram, running_program

pytestmark = pytest.mark.slow

STALL_SECONDS = 10.0
HEADROOM_SECONDS = 1.2  # the ledger's memory is looked at once a second
REFUSED_SECONDS_MAX = 12.0  # two attempts, each as long as the ledger's client waits at most


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProgram]:
    with running_program(tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest.fixture
def program(own: GatewayProgram) -> GatewayProgram:
    assert own.process.poll() is None, own.log()[-3_000:]
    assert ask(own).status == 200
    return own


def configured(program: GatewayProgram, *command: str) -> None:
    """One command to the server."""

    async def send() -> None:
        async with connect(program.redis_url) as redis:
            await redis.execute_command(*command)

    asyncio.run(send())


def answers_again(program: GatewayProgram) -> None:
    """Within seconds, by itself, and the books balance."""
    eventually(lambda: ask(program).status == 200, "the gateway answers again", 15.0)
    program.assert_quiet(30.0)


@contextmanager
def streaming(program: GatewayProgram) -> Iterator["list[Answer]"]:
    """A stream of some two seconds that begins before the block and ends in it, or after."""
    asked = len(program.engine.asked)
    ended: list[Answer] = []
    thread = threading.Thread(
        target=lambda: ended.append(
            ask(program, stream=True, seconds=40.0, stand_in={"tokens": 40, "pause": 0.05})
        )
    )
    thread.start()
    eventually(lambda: len(program.engine.asked) > asked, "the stream has begun")
    try:
        yield ended
    finally:
        thread.join(45.0)
    assert not thread.is_alive()


def assert_refused(program: GatewayProgram, code: str) -> None:
    """503 with a reason, and the engine is not asked."""
    asked = len(program.engine.asked)
    for stream in (False, True):
        with within(REFUSED_SECONDS_MAX):
            answer = ask(program, stream=stream, seconds=30.0)
        assert answer.status == 503, answer.body
        assert answer.error["code"] == code
        assert answer.error["type"] == "server_error"
        assert answer.headers["retry-after"] == "1"
    assert len(program.engine.asked) == asked


def test_killed_in_the_middle_of_a_stream(program: GatewayProgram) -> None:
    before = program.assert_quiet()["capture"]
    with streaming(program) as ended:
        program.redis.kill()
        program.redis.wait()
        assert_refused(program, "ledger_unavailable")
        assert ask(program, path="/readyz", method="GET").status == 503
        assert ask(program, path="/healthz", method="GET").status == 200
        eventually(lambda: bool(ended), "the stream has ended without the ledger")
        assert ended[0].events[-1] == "[DONE]"
        program.redis = program.server.start()
    answers_again(program)
    assert program.assert_quiet()["capture"] >= before + 2  # the stream's, and the last one


def test_stalled_for_ten_seconds(program: GatewayProgram) -> None:
    with ThreadPoolExecutor(20) as pool, streaming(program) as ended:
        os.kill(program.redis.pid, signal.SIGSTOP)
        stalled = time.monotonic()
        try:
            asked = len(program.engine.asked)
            waiting = [pool.submit(ask, program, seconds=40.0) for _ in range(20)]
            time.sleep(STALL_SECONDS)
            assert len(program.engine.asked) == asked, "something was served without a hold"
        finally:
            os.kill(program.redis.pid, signal.SIGCONT)
        answers = [each.result(30.0) for each in waiting]
        assert time.monotonic() - stalled < STALL_SECONDS + REFUSED_SECONDS_MAX
    assert ended[0].events[-1] == "[DONE]"
    assert {answer.status for answer in answers} <= {200, 503}
    for answer in answers:
        if answer.status == 503:
            assert answer.error["code"] == "ledger_unavailable"
    answers_again(program)


def test_read_only(program: GatewayProgram) -> None:
    with streaming(program) as ended:
        configured(program, "REPLICAOF", "127.0.0.1", "1")
        try:
            assert_refused(program, "ledger_unavailable")
            eventually(lambda: bool(ended), "the stream has ended without the ledger")
        finally:
            configured(program, "REPLICAOF", "NO", "ONE")
    assert ended[0].events[-1] == "[DONE]"
    answers_again(program)


def test_out_of_memory(program: GatewayProgram) -> None:
    with streaming(program) as ended:
        configured(program, "CONFIG", "SET", "maxmemory", "1mb")
        time.sleep(HEADROOM_SECONDS)
        try:
            assert_refused(program, "ledger_full")
            eventually(lambda: bool(ended), "the stream has ended without the ledger")
        finally:
            configured(program, "CONFIG", "SET", "maxmemory", "1gb")
    assert ended[0].events[-1] == "[DONE]"
    answers_again(program)


def test_too_few_replicas(program: GatewayProgram) -> None:
    configured(program, "CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        assert_refused(program, "ledger_unavailable")
    finally:
        configured(program, "CONFIG", "SET", "min-replicas-to-write", "0")
    answers_again(program)


def test_the_gateway_killed_while_the_ledger_is_away_loses_no_charge(tmp_path: Path) -> None:
    """What was served waits in the spool; the next gateway of this home sends it."""
    with running_program(tmp_path) as program:
        with streaming(program) as ended:
            program.redis.kill()
            program.redis.wait()
            eventually(lambda: bool(ended), "the stream has ended without the ledger")
        inference = ended[0].headers["x-byline-inference-id"]
        time.sleep(1.0)
        program.process.kill()
        program.process.wait()
        program.redis = program.server.start()
        program.start()
        program.assert_quiet(30.0)
        receipt = ask(program, path=f"/v1/receipts/{inference}", method="GET")
        assert json.loads(receipt.body)["state"] == "captured"
        assert json.loads(receipt.body)["completion_tokens"] == 40
