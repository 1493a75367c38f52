"""SIGTERM to a real gateway process: answers under way finish, their captures are posted, and it
exits with 0 within its grace period."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from byline.redis_server import RedisServer, running_redis
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import CHAT, SHOP, STREAM, eventually, serving_engine
from tests.gateway.real_ledger import ask, deposit, kinds_of
from tests.ports import free_port

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]

# The program itself, with its own signals and server; only what it opens is the test's.
PROGRAM = """
import sys
from pathlib import Path
import gateway.__main__ as program
from tests.gateway.real_ledger import services_over

async def opened(settings):
    return await services_over(settings.redis_url, sys.argv[1], Path(sys.argv[2]))

program.open_services = opened
sys.exit(program.main())
"""


@dataclass
class Running:
    """A gateway process over a real ledger and a fake engine."""

    process: "subprocess.Popen[bytes]"
    url: str
    engine: FakeEngine
    server: RedisServer


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    server = RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")
    engine, port = FakeEngine(), free_port()
    async with AsyncExitStack() as stack:
        stack.enter_context(running_redis(server))
        await deposit(server)
        engine_url = await stack.enter_async_context(serving_engine(engine))
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, engine_url, str(tmp_path)], cwd=ROOT,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "src:.", "BYLINE_GATEWAY_PORT": str(port),
                 "BYLINE_GATEWAY_REDIS_URL": server.url, "BYLINE_GATEWAY_SHUTDOWN_SECONDS": "5"},
        )  # fmt: skip
        stack.callback(process.communicate)
        stack.callback(process.kill)
        url = f"http://127.0.0.1:{port}"
        await _until_ready(url)
        yield Running(process, url, engine, server)


async def _until_ready(url: str) -> None:
    async with aiohttp.ClientSession() as http, asyncio.timeout(30):
        while True:
            try:
                async with http.get(f"{url}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def ended(running: Running) -> tuple[int, float]:
    """The process's exit status, and how long it took after the signal."""
    started = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    status = await asyncio.to_thread(running.process.wait, 15)
    return status, time.monotonic() - started


@pytest.mark.parametrize("fields", [CHAT, STREAM], ids=["plain", "stream"])
async def test_an_answer_under_way_is_finished_and_captured(
    running: Running, fields: dict[str, object]
) -> None:
    running.engine.pause = 1.0 if fields is CHAT else 0.3
    asking = asyncio.create_task(ask(running.url, fields))
    await eventually(lambda: running.engine.asked)
    status, seconds = await ended(running)
    assert (status, seconds < 5) == (0, True)
    answered, body = await asking
    assert answered == 200
    assert b"w103" in body
    assert fields is CHAT or body.endswith(b"data: [DONE]\n\n")
    assert await kinds_of(running.server, count=3) == ["deposit", "hold", "capture"]


async def test_an_answer_that_takes_too_long_is_cut_and_what_came_is_charged(
    running: Running,
) -> None:
    running.engine.hang_after = 3
    headers = {"authorization": f"Bearer {SHOP}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{running.url}/v1/chat/completions", json=STREAM, headers=headers) as response,
    ):
        await response.content.readuntil(b"w102")
        status, seconds = await ended(running)
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    assert (status, 4 < seconds < 10) == (0, True)
    assert await kinds_of(running.server, count=3) == ["deposit", "hold", "capture"]


async def test_a_stopping_gateway_takes_no_new_requests(running: Running) -> None:
    running.engine.pause = 2.0
    asking = asyncio.create_task(ask(running.url, CHAT))
    await eventually(lambda: running.engine.asked)
    ending = asyncio.create_task(ended(running))
    await asyncio.sleep(1.0)
    with pytest.raises(aiohttp.ClientError):
        await ask(running.url, CHAT)
    assert (await ending)[0] == 0
    assert (await asking)[0] == 200
