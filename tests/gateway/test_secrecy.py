"""What a client sends and a model answers stands in no log line, no metric and no span.

Every path is asked with marked words for key, prompt and answer, by an engine that quotes the
prompt in its refusals; then everything the gateway wrote down is searched for the marks.
"""

import asyncio
import io
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from byline.errors import InsufficientFunds
from byline.records import Caller, KeyRole
from gateway.operator_log import FIELDS, JsonLines, log_to_stderr
from gateway.tracing import Tracing
from tests.fakes import FakeRoute
from tests.gateway.conftest import House, eventually

pytestmark = pytest.mark.anyio

KEY, WRONG_KEY = "byl_keymark", "byl_wrongmark"
PROMPT, ANSWER = "promptmark", "answermark"
CHAT: dict[str, Any] = {
    "model": "med", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8,
    "stop": [f"{PROMPT} stop"], "user": f"{PROMPT} user",
}  # fmt: skip
STREAM = {**CHAT, "stream": True}
COMPLETION = {"model": "med", "prompt": PROMPT, "max_tokens": 8}
QUOTING = {"error": {"message": f"bad input: {PROMPT} {ANSWER}", "param": PROMPT}}


@pytest.fixture
def spans() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def tracing(spans: io.StringIO) -> Tracing:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=spans)))
    return Tracing(provider)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Everything that any logger writes, as the program would."""
    text, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonLines())
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.INFO)
    yield text
    root.removeHandler(handler)
    root.setLevel(before)


async def answers(house: House) -> None:
    for fields in (CHAT, STREAM, {**CHAT, "model": "auto"}, {**CHAT, "model": "tiny"}):
        assert (await house.ask(fields, key=KEY)).status == 200
    await house.ask(COMPLETION, key=KEY, path="/v1/completions")
    await house.ask({"model": "med", "input": PROMPT}, key=KEY, path="/v1/responses")
    await house.ask({"model": "med", "prompt": PROMPT}, key=KEY, path="/v1/tokenize")
    await house.ask({"model": "med", "input": PROMPT}, key=KEY, path="/v1/embeddings")


async def refusals(house: House) -> None:
    await house.ask(CHAT, key=WRONG_KEY)
    await house.ask({**CHAT, "model": PROMPT}, key=KEY)
    await house.ask({**CHAT, PROMPT: 1, "n": PROMPT}, key=KEY)
    await house.ask({**CHAT, "messages": [{"role": PROMPT}]}, key=KEY)
    await house.ask({**CHAT, "messages": [{"role": "user", "content": PROMPT * 1_000}]}, key=KEY)
    await house.ask(path="/v1/chat/completions", key=KEY, data=f'{{"{PROMPT}'.encode())
    await house.ask(path=f"/v1/{PROMPT}", key=KEY, method="GET")
    await house.get(f"/v1/models/{PROMPT}", key=KEY)
    await house.get(f"/v1/attributions/{PROMPT}", key=KEY)
    house.ledger.refusals["hold"] = deque([InsufficientFunds("shop can't pay")])
    await house.ask(CHAT, key=KEY)


async def engine_refuses(house: House) -> None:
    for status in (400, 404, 422, 429, 500, 503):
        house.engine.refuses = (status, QUOTING)
        for fields in (CHAT, STREAM):
            assert (await house.ask(fields, key=KEY)).status >= 400


async def engine_breaks(house: House) -> None:
    house.engine.error_event = b"data: %s\n\n" % json.dumps(QUOTING).encode()
    house.engine.error_after = 3
    assert b"error" in (await house.ask(STREAM, key=KEY)).body
    house.engine.error_after, house.engine.stop_after = None, 3
    await house.ask(STREAM, key=KEY)
    house.engine.stop_after, house.engine.answer = None, f"{ANSWER} no JSON".encode()
    await house.ask(CHAT, key=KEY)


async def client_leaves(house: House) -> None:
    house.engine.pause, house.engine.tokenizer_refuses = 0.05, 400
    for fields, seconds in ((CHAT, 0.03), (STREAM, 0.12)):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await house.ask(fields, key=KEY)
    await eventually(lambda: not house.ledger.holds)


async def ledger_fails(house: House) -> None:
    house.ledger.fail("hold", "before", "after")
    await house.ask(CHAT, key=KEY)
    house.ledger.fail("capture", "before")
    await house.ask(CHAT, key=KEY)
    house.ledger.refusals["capture"] = deque([InsufficientFunds("shop can't pay")])
    await house.ask(STREAM, key=KEY)


async def a_bug(house: House) -> None:
    routes: dict[str, FakeRoute] = {}

    def fail(text: str) -> FakeRoute:
        try:
            return routes[f"{text} in {KEY}"]
        except KeyError as problem:
            raise RuntimeError(f"could not route {text}") from problem

    house.services.router.route = fail  # type: ignore[method-assign]
    answer = await house.ask({**CHAT, "model": "auto"}, key=KEY)
    assert answer.status == 500


@pytest.mark.parametrize(
    "path",
    [answers, refusals, engine_refuses, engine_breaks, client_leaves, ledger_fails, a_bug],
)
async def test_no_prompt_no_answer_and_no_key_is_written_down(
    house: House, lines: io.StringIO, spans: io.StringIO, path: Callable[[House], Awaitable[None]]
) -> None:
    house.keys.callers[KEY] = Caller(KeyRole.APPLICATION, "shop")
    house.engine.word = ANSWER
    await path(house)
    await eventually(lambda: '"logger":"gateway.requests"' in lines.getvalue())
    page = (await house.get("/metrics")).body.decode()
    written = {"logs": lines.getvalue(), "metrics": page, "spans": spans.getvalue()}
    if path is not a_bug and path is not refusals:
        assert '"gen_ai.operation.name"' in written["spans"]
    for where, text in written.items():
        for mark in (PROMPT, ANSWER, "keymark", "wrongmark"):
            at = text.find(mark)
            assert at < 0, f"{mark} in the {where}: {text[max(at - 300, 0) : at + 100]}"
    for line in lines.getvalue().splitlines():
        json.loads(line)


def request_lines(lines: io.StringIO) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [fields for fields in found if fields["logger"] == "gateway.requests"]


async def test_each_inference_is_one_line_with_what_an_operator_looks_for(
    house: House, lines: io.StringIO
) -> None:
    answer = await house.ask(STREAM | {"model": "auto"}, headers={"x-request-id": "mine"})
    await eventually(lambda: len(request_lines(lines)) == 1)
    line = request_lines(lines)[0]
    inference = answer.headers["x-byline-inference-id"]
    expected = {
        "level": "INFO", "message": "answered", "request_id": "mine", "inference_id": inference,
        "route": "/v1/chat/completions", "method": "POST", "status": 200, "model": "tiny",
        "mode": "stream", "application": "shop", "prompt_tokens": 3, "completion_tokens": 3,
        "usage_source": "engine", "partial": False,
        "charge_nano": house.ledger.captures[inference].charge_nano,
    }  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    assert len(line["trace_id"]) == 32
    assert line["time"][-6:] == "+00:00"
    for name in ("total", "own", "upstream", "first_token", "hold", "engine", "capture"):
        assert 0 <= line[f"{name}_ms"] <= line["total_ms"] + 50


async def test_a_client_that_left_has_one_line_with_what_it_was_charged(
    house: House, lines: io.StringIO
) -> None:
    house.engine.hang_after = 3  # the role and two tokens
    house.ledger.capture_pause = 0.1
    await house.leave_after(STREAM, b"w102")
    await eventually(lambda: request_lines(lines))
    line = request_lines(lines)[0]
    assert (line["status"], line["code"], line["partial"]) == (499, "client_gone", True)
    assert line["charge_nano"] > 0


async def test_a_refusal_says_its_code_and_a_fault_of_ours_is_a_warning(
    house: House, lines: io.StringIO
) -> None:
    await house.ask({**CHAT, "model": "nobody"})
    house.ledger.away = True
    await house.ask(CHAT)
    await house.get("/healthz")
    await eventually(lambda: len(request_lines(lines)) == 3)
    found = [(line["level"], line["status"], line.get("code")) for line in request_lines(lines)]
    assert found == [
        ("INFO", 404, "model_not_found"),
        ("WARNING", 503, "ledger_unavailable"),
        ("DEBUG", 200, None),
    ]
    assert "inference_id" not in request_lines(lines)[0]


async def test_a_stream_that_breaks_off_is_a_warning_and_is_counted(
    house: House, lines: io.StringIO
) -> None:
    house.engine.stop_after = 3
    await house.ask(STREAM)
    await eventually(lambda: request_lines(lines))
    line = request_lines(lines)[0]
    assert (line["level"], line["status"], line["code"]) == ("WARNING", 200, "engine_broke")
    assert house.metric("byline_streams_broken_total", model="med") == 1


async def test_contributors_are_not_named_in_the_logs(house: House, lines: io.StringIO) -> None:
    await house.get("/v1/models", key="byl_ann")
    await eventually(lambda: request_lines(lines))
    assert "ann" not in json.dumps(request_lines(lines))


def test_a_line_holds_text_that_is_no_utf8() -> None:
    record = logging.LogRecord("gateway", logging.INFO, "x.py", 1, "a \ud800 b", None, None)
    setattr(record, FIELDS, {"route": "/v1"})
    line = JsonLines().format(record).encode()
    assert json.loads(line)["message"] == "a \\ud800 b"
    assert json.loads(line)["route"] == "/v1"


def test_logging_is_json_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        log_to_stderr("INFO")
        logging.getLogger("gateway").info("hello")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert json.loads(capsys.readouterr().err)["message"] == "hello"
