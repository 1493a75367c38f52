"""The gateway's smaller parts alone: settings, the engine's connection, usage, logs."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from byline.errors import EngineBroke, EngineUnavailable
from byline.records import UsageSource
from gateway.answers import Answer, read_stream, usage_of
from gateway.background import Background
from gateway.engine_client import Ask, EngineClient, Timeouts
from gateway.operator_log import JsonLines
from gateway.settings import GatewaySettings
from gateway.streaming import Tape

pytestmark = pytest.mark.anyio

ASK = Ask("/v1/completions", b"{}", "an-inference")
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@asynccontextmanager
async def raw_engine(*answers: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """An engine that answers each request with the next bytes; none closes the connection.

    The second value counts requests by connection.
    """
    left = list(answers)
    requests: list[int] = []
    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(0)
        place = len(requests) - 1
        if (task := asyncio.current_task()) is not None:
            served.append(task)
        with suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                requests[place] += 1
                answer = left.pop(0)
                if not answer:
                    break
                writer.write(answer)
        writer.close()
        with suppress(ConnectionResetError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}", requests
    finally:
        server.close()
        await asyncio.gather(*served)


async def test_an_idle_connection_that_was_closed_is_replaced_once() -> None:
    async with raw_engine(ANSWER, b"", ANSWER) as (url, requests):
        engine = EngineClient.open(url)
        assert await engine.ask(ASK) == b"{}"
        assert await engine.ask(ASK) == b"{}"
        assert requests == [2, 1]
        await engine.close()


async def test_a_new_connection_that_is_closed_is_not_tried_again() -> None:
    async with raw_engine(b"", ANSWER) as (url, requests):
        engine = EngineClient.open(url)
        with pytest.raises(EngineBroke):
            await engine.ask(ASK)
        assert requests == [1]
        await engine.close()


async def test_an_answer_cut_short_is_broken() -> None:
    async with raw_engine(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", b"") as (url, _):
        engine = EngineClient.open(url, timeouts=Timeouts(answer=0.2))
        with pytest.raises(EngineBroke):
            await engine.ask(ASK)
        await engine.close()


async def test_an_engine_that_is_not_there_is_unavailable() -> None:
    async with raw_engine() as (url, _):
        pass
    engine = EngineClient.open(url)
    with pytest.raises(EngineUnavailable):
        await engine.ask(ASK)
    with pytest.raises(EngineUnavailable):
        await engine.probe()
    await engine.close()


async def test_background_work_is_given_up_after_its_time_and_its_errors_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    background = Background()

    async def fail() -> None:
        raise RuntimeError("lost")

    background.start(fail())
    background.start(asyncio.sleep(60))
    assert await background.drain(0.05) == 1
    assert "a background task failed" in caplog.text


EVENTS = (
    'data: {"choices":[{"index":0,"text":"\u00e9 [DONE]"}]}\n\n: keep-alive\n\n'
    'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
    "data: [DONE]\n\n"
).encode()


@given(st.lists(st.integers(0, len(EVENTS))), st.booleans(), st.booleans())
def test_however_a_stream_is_cut_the_same_passes_on(
    cuts: list[int], shows_usage: bool, carriage_returns: bool
) -> None:
    events = EVENTS.replace(b"\n", b"\r\n") if carriage_returns else EVENTS
    tape = Tape(shows_usage=shows_usage)
    places = [0, *sorted(cuts), len(events)]
    passed = b"".join(tape.feed(events[a:b]) for a, b in pairwise(places))
    usage_at, done_at = events.index(b'data: {"choices":[],'), events.index(b"data: [DONE]")
    assert passed == (events[:done_at] if shows_usage else events[:usage_at])
    assert (tape.finished, tape.last) == (True, events[done_at:])
    assert tape.kept() == events[:done_at]
    assert tape.problem is None


def test_an_event_that_can_not_be_read_is_a_problem() -> None:
    tape = Tape(shows_usage=True)
    assert tape.feed(b'data: {"choices":[]\n\ndata: {"choices":[]}\n\n') == b""
    assert tape.problem is not None


def run_gateway(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {f"BYLINE_GATEWAY_{name}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "gateway"], capture_output=True, text=True, timeout=60, check=False,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": "src:.", "BYLINE_GATEWAY_HOME": str(home), **env},
    )  # fmt: skip


def test_the_program_says_why_it_does_not_start(tmp_path: Path) -> None:
    bad = run_gateway(tmp_path, PORT="many", REDIS_URL="me:secret@there")
    assert bad.returncode == 2
    assert "BYLINE_GATEWAY_PORT is not valid" in bad.stderr
    assert "secret" not in bad.stderr
    empty = run_gateway(tmp_path)
    assert empty.returncode == 1
    assert "byline up" in json.loads(empty.stderr)["message"]


def test_the_program_may_have_as_many_connections_as_the_system_lets_it() -> None:
    code = (
        "import resource\n"
        "from gateway.__main__ import OPEN_FILES, allow_connections\n"
        "_, most = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))\n"
        "allow_connections()\n"
        "wanted = min(OPEN_FILES, most) if most >= 0 else OPEN_FILES\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, most)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2],
                   env={"PYTHONPATH": "src:."})  # fmt: skip


def test_usage_of_choices_follows_the_engine_where_ids_are_missing() -> None:
    usage = usage_of(Answer((1,), ((1, 2), (3,)), (4, 6)), "i")
    assert (usage.prompt_tokens, usage.completion_tokens) == (4, (4, 2))
    assert sum(usage_of(Answer((), ((), ()), (4, 5)), "i").completion_tokens) == 5


def test_usage_beside_one_of_several_choices_is_not_the_sum() -> None:
    chunk = {
        "choices": [{"index": 1, "token_ids": [7]}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1},
    }
    events = b"data: %s\n\ndata: {broken\n\n" % json.dumps(chunk).encode()
    answer = read_stream(events, choices=2)
    assert answer == Answer((), ((), (7,)), None)
    assert usage_of(answer, "i").source is UsageSource.COUNTED
    assert read_stream(events, choices=1).usage == (2, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "0"), ("PORT", "http"), ("REDIS_URL", "localhost"), ("ENGINE_URLS", "ftp://x"),
     ("REQUEST_BYTES_MAX", "1"), ("HOLD_SECONDS", "1"), ("LOG_LEVEL", "LOUD"), ("HOST", ""),
     ("LEDGERS", ""), ("LEDGERS", "../usd"), ("PLACED", "shop")],
)  # fmt: skip
def test_a_bad_setting_names_itself(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"BYLINE_GATEWAY_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        GatewaySettings()


def test_ledgers_and_places_are_named_with_commas_between(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (GatewaySettings().ledgers, GatewaySettings().placed) == (("usd",), {})
    monkeypatch.setenv("BYLINE_GATEWAY_LEDGERS", "usd-0, usd-1")
    monkeypatch.setenv("BYLINE_GATEWAY_PLACED", "shop=usd-1, me@home=usd-0")
    settings = GatewaySettings()
    assert settings.ledgers == ("usd-0", "usd-1")
    assert settings.placed == {"shop": "usd-1", "me@home": "usd-0"}


def test_each_setting_says_what_it_is_for_and_where_it_is_documented() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    for name, field in GatewaySettings.model_fields.items():
        assert field.description
        assert f"`{name.upper()}`" in manual, name


def test_a_log_line_is_one_json_object() -> None:
    try:
        int("two\nlines")
    except ValueError:
        record = logging.LogRecord(
            "gateway", logging.ERROR, "x.py", 1, "a %s\nb", ("c",), sys.exc_info()
        )
    line = JsonLines().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["message"]) == ("ERROR", "a c\nb")
    assert "ValueError" in fields["traceback"]


def test_importing_the_gateway_loads_no_model_library_and_starts_nothing() -> None:
    code = (
        "import sys, threading, gateway.app, gateway.engine_client\n"
        "bad = {'torch', 'vllm', 'transformers', 'serving'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2],
                   env={"PYTHONPATH": "src:."})  # fmt: skip
