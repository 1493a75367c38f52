"""The harness of the gateway's comparison: its arithmetic by hand, and the engine's stand-in."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.answers import read_plain, read_stream
from loadtests import bench_gateway
from loadtests.gateway_bench import entrants, ours, peers, streams, upstream, wrk
from loadtests.gateway_bench.figures import GROWTH_REQUESTS, Bar, bars, rounded, summary
from loadtests.gateway_bench.peers import Command, Peer

GATEWAYS = {
    "direct": {"p50_ms_1": 0.02},
    "byline": {
        "p50_ms_1": 0.92, "requests_per_second_32": 5_000.0, "p99_ms_32": 20.0,
        "burst_chunks_per_second": 200_000.0,
    },
    "portkey": {"p50_ms_1": 0.6, "requests_per_second_32": 1_250.0, "p99_ms_32": 80.0},
    "litellm": {"requests_per_second_32": 100.0, "burst_chunks_per_second": 4_000.0},
    "tensorzero": {"p50_ms_1": 0.27},
}  # fmt: skip


def test_the_bars_are_what_this_very_run_measured() -> None:
    found = bars(GATEWAYS, sync_ms=0.2, growth=0.01, grown_over=GROWTH_REQUESTS)
    assert {name: (each["value"], each["bar"], each["passed"]) for name, each in found.items()} == {
        "requests_per_second_32_times_litellm": (50.0, 40.0, True),
        "requests_per_second_32_times_portkey": (4.0, 2.5, True),
        "added_p50_ms_beyond_one_sync": (0.7, 0.8, True),
        "added_p50_times_tensorzero": (2.8, 2.0, False),
        "p99_ms_32_times_portkey": (0.25, 1.0, True),
        "burst_chunks_per_second_times_litellm": (50.0, 100.0, False),
        "burst_chunks_per_second": (200_000, 150_000.0, True),
        "rss_growth": (0.01, 0.05, True),
    }


def test_a_bar_without_its_peer_says_why_and_has_no_verdict() -> None:
    alone = {name: GATEWAYS[name] for name in ("direct", "byline")}
    found = bars(alone, sync_ms=0.2, growth=0.01, grown_over=2_000)
    undecided = {name for name, each in found.items() if each["passed"] is None}
    assert undecided == {
        "requests_per_second_32_times_litellm", "requests_per_second_32_times_portkey",
        "added_p50_times_tensorzero", "p99_ms_32_times_portkey",
        "burst_chunks_per_second_times_litellm", "rss_growth",
    }  # fmt: skip
    assert found["added_p50_times_tensorzero"]["why"] == "tensorzero was not measured"
    assert found["rss_growth"]["why"] == "only 2000 requests"


@pytest.mark.parametrize(("value", "at_most", "passed"), [
    (2.0, True, True), (2.1, True, False), (2.0, False, True), (1.9, False, False),
])  # fmt: skip
def test_a_bar_is_passed_by_reaching_it(value: float, at_most: bool, passed: bool) -> None:
    assert Bar("some", value, 2.0, at_most).fields()["passed"] is passed


def test_rounds_come_to_medians_and_their_spread() -> None:
    found = summary([{"p50": 3.0, "rss": None}, {"p50": 1.0, "paced": 7.0}, {"p50": 2.0}])
    assert found == {
        "p50": 2.0, "rss": None, "paced": 7.0,
        "rounds": {"p50": [1.0, 2.0, 3.0], "rss": [], "paced": [7.0]},
    }  # fmt: skip


def test_figures_have_four_digits() -> None:
    assert [rounded(value) for value in (0.123456, 74_386.4, 76.51, None)] == [
        0.1235, 74_386, 76.51, None,
    ]  # fmt: skip


def test_a_load_counts_what_was_answered_while_it_asked() -> None:
    output = 'Running\nRESULT {"requests":132,"bytes":9,"p50_us":250,"p99_us":4000,"failures":1}\n'
    load = wrk.load_of(output, 32, 2.0)
    assert (load.rate, load.p50_ms, load.p99_ms, load.failures) == (50.0, 0.25, 4.0, 1)


def test_the_tool_asks_for_a_time_and_then_waits() -> None:
    question = wrk.Question("http://here", "/v1", {"authorization": "Bearer x"}, '{"a": "b"}')
    script = wrk.script_of(question, 1.5)
    assert 'wrk.body = [==[{"a": "b"}]==]' in script
    assert "wrk.headers[ [==[authorization]==] ] = [==[Bearer x]==]" in script
    assert "last = seconds() + 1.5" in script
    assert [wrk.Times(asked, 0.5).whole_seconds for asked in (1.5, 2.0, 0.5)] == [2, 3, 1]


def test_a_slow_gateway_is_asked_for_longer_and_waited_for() -> None:
    fast = wrk.Times.enough(1.5, connections=32, one_answer=0.001)
    assert (fast.asking, fast.quiet) == (1.5, 0.5)
    slow = wrk.Times.enough(1.5, connections=32, one_answer=0.025)
    assert [slow.asking, slow.quiet] == pytest.approx([2.4, 1.6])
    assert wrk.Times.enough(1.5, connections=32, one_answer=9.0) == wrk.Times(10.0, 10.0)


def test_books_are_whole_only_when_nothing_is_missing() -> None:
    def account(holds: int, captures: int, voids: int, asked: int) -> ours.Account:
        return ours.Account(holds, captures, voids, asked, True, dict(ours.KEPT))

    assert account(10, 10, 0, 10).whole
    assert account(10, 9, 1, 10).whole  # one client went away
    assert account(10, 9, 1, 9).whole  # … before the engine was asked
    assert not account(10, 9, 0, 10).whole  # a hold that nothing ended
    assert not account(10, 10, 0, 11).whole  # served, and not held for
    assert not account(10, 10, 0, 9).whole  # charged, and not served
    assert not ours.Account(1, 1, 0, 1, False, dict(ours.KEPT)).whole
    assert not ours.Account(1, 1, 0, 1, True, {**ours.KEPT, "appendfsync": "everysec"}).whole


def test_the_stand_in_answers_as_an_engine_does() -> None:
    answer = read_plain(upstream.plain_answer(), choices=1, inference="none")
    assert (len(answer.prompt), len(answer.choices[0])) == (upstream.PROMPT_TOKENS, 16)
    assert not answer.mismatched
    streamed = read_stream(b"".join(upstream.stream_events()), choices=1)
    assert len(streamed.choices[0]) == upstream.CHUNKS
    assert streamed.usage == (upstream.PROMPT_TOKENS, upstream.CHUNKS)
    assert not streamed.mismatched


def test_a_request_is_taken_when_it_is_whole() -> None:
    head = b"POST /v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
    assert upstream.split_request(head[:-1]) is None
    assert upstream.split_request(head + b"abc") is None
    assert upstream.split_request(head + b"abcdGET") == (b"POST", b"/v1", b"abcd", b"GET")
    chunked = b"POST /v1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n"
    assert upstream.split_request(chunked) is None
    assert upstream.split_request(chunked + b"0\r\n\r\n") == (
        b"POST",
        b"/v1",
        b"4\r\nabcd\r\n",
        b"",
    )


@asynccontextmanager
async def stand_in() -> AsyncIterator[tuple[int, dict[int, int]]]:
    counts: dict[int, int] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: upstream.Connection(counts), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], counts


async def test_streams_are_read_to_their_end_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "PACE_SECONDS", 0.0005)
    async with stand_in() as (port, counts):
        entrant = entrants.Entrant("direct", f"http://127.0.0.1:{port}", Command([]), None)
        bursts = await streams.answered(entrant.burst(), 2)
        paced = await streams.answered(entrant.paced(), 3)
        monkeypatch.setattr(streams, "SECONDS_MAX", 0.5)  # it never says that it is over
        plain = await streams.answered(entrant.plain(), 1)
    assert all(each.whole for each in (*bursts, *paced))
    assert not plain[0].whole
    assert len(bursts[0].gaps) < upstream.CHUNKS / 4 < len(paced[0].gaps)  # at once; one by one
    assert counts == {port: 6}
    found = streams.figures(paced)
    assert (found["streams"], found["broken"], found["chunks"]) == (3, 0, 600)


async def test_a_stream_that_breaks_off_is_counted_as_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream, "BURST", upstream.BURST[: len(upstream.BURST) // 2])
    monkeypatch.setattr(streams, "SECONDS_MAX", 0.2)
    async with stand_in() as (port, _):
        entrant = entrants.Entrant("direct", f"http://127.0.0.1:{port}", Command([]), None)
        found = streams.figures(await streams.answered(entrant.burst(), 1))
    assert found["broken"] == 1
    assert 0 < found["chunks"] < upstream.CHUNKS


def test_a_quick_run_has_one_peer_and_says_why_the_others_are_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def program(there: bool) -> Callable[[], Path | None]:
        return lambda: Path("/program") if there else None

    installed = {"nginx": True, "portkey": False, "litellm": True}
    found = [Peer(name, program(there), peers.ALL[0].command) for name, there in installed.items()]
    monkeypatch.setattr(peers, "ALL", tuple(found))
    chosen, why = bench_gateway.chosen_peers(None, quick=True)
    assert [peer.name for peer in chosen] == ["litellm"]
    assert why == {"nginx": "not asked for", "portkey": bench_gateway.NOT_INSTALLED}
    chosen, why = bench_gateway.chosen_peers(None, quick=False)
    assert [peer.name for peer in chosen] == ["nginx", "litellm"]


def test_every_peer_is_told_where_to_listen_and_whom_to_ask(tmp_path: Path) -> None:
    for peer in peers.ALL:
        folder = tmp_path / peer.name
        folder.mkdir()
        command = peer.command(Path("/program"), folder, 19_001, 19_002)
        written = " ".join(path.read_text() for path in folder.iterdir())
        said = " ".join([*command.argv, *command.headers.values(), written])
        assert "19002" in said, peer.name
        assert "19001" in said or command.says_address, peer.name


def test_questions_are_json_and_differ_in_what_they_ask_for() -> None:
    entrant = entrants.Entrant("direct", "http://here", Command([]), None)
    plain, burst, paced = (
        json.loads(question.body)
        for question in (entrant.plain(), entrant.burst(), entrant.paced())
    )
    assert "stream" not in plain
    assert burst["stream"] is paced["stream"] is True
    assert upstream.PACED_WORD.decode() in paced["messages"][0]["content"]
    assert upstream.PACED_WORD.decode() not in burst["messages"][0]["content"]
