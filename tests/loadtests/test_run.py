"""A load test around the real Locust; the gateway and the books are small fakes of this file."""

import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from loadtests import run
from loadtests.run import Installation, LoadTestFailed, last_json, load_test


class FakeGateway(ThreadingHTTPServer):
    """Answers what the users of the load test ask, as it should, or wrong in one way."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.truncate = False  # streams end without [DONE]
        self.garble = False  # plain answers are no JSON
        self.asked: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One connection to the fake gateway."""

    protocol_version = "HTTP/1.1"
    server: FakeGateway

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def do_GET(self) -> None:
        key = self.headers["authorization"].removeprefix("Bearer ")
        path = self.path.partition("?")[0]
        self.server.asked[f"{path.rpartition('/')[0]} {key}"] += 1
        if path == "/v1/models":
            self.send_json({"data": [{"id": "healthcare"}, {"id": "auto"}]})
        else:
            self.send_json({"state": "done"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked[body["model"]] += 1
        if not body["stream"]:
            answer = {"choices": [{}], "usage": {"completion_tokens": body["max_tokens"]}}
            self.send_data(b"<html>" if self.server.garble else json.dumps(answer).encode())
            return
        self.send_response(200)
        self.send_header("x-byline-inference-id", "id")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        events = ['{"choices": [{"delta": {"content": "a"}}]}', '{"choices": []}']
        for data in events if self.server.truncate else [*events, "[DONE]"]:
            line = f"data: {data}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def send_json(self, body: dict[str, Any]) -> None:
        self.send_data(json.dumps(body).encode())

    def send_data(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("x-byline-inference-id", "id")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "run.json").write_text(json.dumps({"gateway_url": gateway.url}))
    keys = {"application": "byl_app", "contributors": {"anna": "byl_anna"}}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    monkeypatch.setattr(run, "check_books", lambda _: {"balanced": True})
    return tmp_path


@pytest.mark.slow
def test_every_user_asks_and_each_answers_attribution_is_waited_for(
    home: Path, gateway: FakeGateway
) -> None:
    report = load_test(home, users=8, seconds=3, settle_seconds=5)
    assert report["failures"] == 0
    routes = report["routes"]
    assert routes.keys() == {
        "models", "chat plain", "chat streamed", "chat streamed, first token", "earnings",
    }  # fmt: skip
    answers = routes["chat plain"]["count"] + routes["chat streamed"]["count"]
    assert report["attributions"] == {"done": answers}
    assert gateway.asked["/v1/attributions byl_app"] == answers
    assert gateway.asked["/v1/contributors/me byl_anna"] == routes["earnings"]["count"]
    assert gateway.asked["healthcare"] > 0
    assert gateway.asked["auto"] > 0


@pytest.mark.slow
def test_a_cut_stream_and_an_answer_that_is_no_json_are_failures(
    home: Path, gateway: FakeGateway
) -> None:
    """Locust only logs an exception in a user's code: here it counts."""
    gateway.truncate = gateway.garble = True
    report = load_test(home, users=8, seconds=4, settle_seconds=5)
    streamed = report["routes"]["chat streamed"]
    stumbled = report["routes"]["JSONDecodeError of a user"]
    assert streamed["failures"] == streamed["count"] > 0
    assert stumbled["failures"] == stumbled["count"] > 0
    assert report["failures"] == streamed["failures"] + stumbled["failures"]


def test_an_attribution_that_stays_pending_is_given_up_in_time(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "get_json", lambda *_: {"state": "pending"})
    states = run.settled_states(Installation.running(home), ["a", "b"], seconds_max=0.05)
    assert list(states) == ["pending", "pending"]


def test_without_a_running_byline_the_test_says_what_to_start(tmp_path: Path) -> None:
    with pytest.raises(LoadTestFailed, match="start it with `byline up"):
        Installation.running(tmp_path)


def test_the_books_are_in_the_last_line() -> None:
    assert last_json('progress\n{"balanced": true}\n', "x") == {"balanced": True}


@pytest.mark.parametrize("text", ["", "not balanced", "[1]"])
def test_books_that_are_not_a_json_object_are_refused_with_the_programs_words(text: str) -> None:
    with pytest.raises(LoadTestFailed, match="x printed"):
        last_json(text, "x", "why")


def test_the_program_answers_2_when_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run", "--home", str(tmp_path)])
    assert run.main() == 2
    assert "nothing runs" in capsys.readouterr().err
