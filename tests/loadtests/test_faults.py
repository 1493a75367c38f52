"""The fault run itself: its plan replays, its checker finds what is wrong, its doors do as told."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from byline.records import Capture
from loadtests.faults.asking import Asking
from loadtests.faults.checker import Checker
from loadtests.faults.faults import Fault, Kind
from loadtests.faults.messages import Acknowledged, Refused, Spooled, Unknown
from loadtests.faults.mutants import MUTANTS, Patch, patched_scripts
from loadtests.faults.operations import (
    Expect,
    Flow,
    Hold,
    Operation,
    Unbalanced,
    attribution_of,
    job_of,
    key_of,
    legs_of,
    legs_of_settle,
)
from loadtests.faults.plan import START_MS, Turn, turns
from loadtests.faults.proxy import Door
from loadtests.faults.record import Record
from loadtests.faults.resp import Messages
from loadtests.faults.verdict import Verdict

ROOT = Path(__file__).parents[2]
SEED = 7
SEEDS = (1, 2, 3)
SECONDS = 20
START_AND_END_SECONDS_MAX = 280

# --- the plan ---


def planned(seed: int, count: int) -> list[Turn]:
    return list(islice(turns(seed), count))


def test_a_seed_plans_the_same_operations_and_faults_again() -> None:
    assert planned(SEED, 40) == planned(SEED, 40)
    assert planned(SEED, 3) != planned(SEED + 1, 3)


def test_a_plan_comes_to_every_kind_of_fault_and_to_everything_that_can_be_asked_for() -> None:
    planned_turns = planned(SEED, 60)
    assert {fault.kind for turn in planned_turns for fault in turn.faults} == set(Kind)
    asked = [flow for turn in planned_turns for flow in turn.flows]
    assert {type(op) for flow in asked for op in flow.operations} >= {Hold, Capture, Unbalanced}
    assert {flow.expect for flow in asked} == set(Expect)


def test_the_clock_passes_holds_midnights_and_the_age_of_marks() -> None:
    moments = [turn.now_ms for turn in planned(SEED, 120)]
    steps = [later - earlier for earlier, later in pairwise(moments)]
    assert min(steps) > 0
    assert any(moment % 86_400_000 < 2 for moment in moments)
    assert any(step > 900_000 for step in steps)
    assert any(step > 34 * 86_400_000 for step in steps)


def test_what_must_be_refused_never_has_the_payload_of_what_is_issued(tmp_path: Path) -> None:
    issued: dict[str, Operation] = {}
    for turn in planned(SEED, 30):
        for flow in turn.flows:
            for operation in flow.operations:
                if flow.expect is not Expect.REFUSED:
                    assert issued.setdefault(key_of(operation), operation) == operation
    for turn in planned(SEED, 30):
        for flow in turn.flows:
            if flow.expect is Expect.REFUSED:
                assert all(issued.get(key_of(op)) != op for op in flow.operations)


# --- the record ---


def a_flow() -> Flow:
    """A hold and its capture, with at least one pool."""
    asking = Asking(Random(SEED))
    return next(
        flow
        for flow in asking.flows(START_MS, 200)
        if len(flow.operations) == 2
        and isinstance(capture := flow.operations[1], Capture)
        and capture.pools
        and flow.expect is Expect.POSTED
    )


def test_a_flow_is_answered_when_nothing_of_it_is_unknown(tmp_path: Path) -> None:
    flow = a_flow()
    hold, capture = map(key_of, flow.operations)
    with Record(tmp_path / "record.jsonl") as record:
        record.issue([flow])
        assert not record.is_answered(flow)
        record.note_unknown(Unknown(hold))
        record.note_acknowledged(Acknowledged(hold, 1, duplicate=True, late=False))
        assert record.counts["unknown_resolved"] == 1
        assert not record.is_answered(flow)
        record.note_spooled(Spooled(capture))
        assert record.is_answered(flow)
    kept = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    assert [(line["what"], line["key"]) for line in kept] == [
        ("acknowledged", hold), ("spooled", capture),
    ]  # fmt: skip
    assert kept[0]["payload"]["nano"] == getattr(flow.operations[0], "nano", None)


def test_what_was_refused_for_lack_of_money_is_asked_for_again(tmp_path: Path) -> None:
    flow = a_flow()
    hold = key_of(flow.operations[0])
    with Record(tmp_path / "record.jsonl") as record:
        record.issue([flow])
        record.note_refused(Refused(hold, "InsufficientFunds", "poor"))
        assert record.not_posted([flow]) == [hold]
        (again,) = record.refused_for_funds()
        assert again.operations == flow.operations[:1]
        assert not record.is_answered(again)


# --- the checker ---


class Story:
    """A journal written by hand, and what the checker makes of it."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.verdict = Verdict()
        self.checker = Checker(SEED, record, self.verdict)
        self.seq = 0
        self.flow = a_flow()
        self.hold, self.capture = self.flow.operations
        record.issue([self.flow])

    def post(self, key: str, kind: str, legs: dict[str, int], seq: int | None = None) -> None:
        self.seq = seq or self.seq + 1
        flat = [[account, str(nano)] for account, nano in legs.items()]
        self.checker.add(
            self.seq, json.dumps({"seq": self.seq, "key": key, "kind": kind, "legs": flat})
        )

    def fund(self) -> None:
        assert isinstance(self.hold, Hold)
        self.checker.accounts[f"app:{self.hold.application}"] = self.hold.nano

    def post_all(self) -> None:
        """The honest course of one inference."""
        self.fund()
        assert isinstance(self.capture, Capture)
        for operation, kind in ((self.hold, "hold"), (self.capture, "capture")):
            self.post(key_of(operation), kind, legs_of(operation) or {})
        for ordinal in range(len(self.capture.pools)):
            self.post(self.settle_key(ordinal), "settle", self.settled(ordinal))

    def settle_key(self, ordinal: int) -> str:
        assert isinstance(self.capture, Capture)
        return f"{self.capture.inference}/settle/{ordinal}"

    def settled(self, ordinal: int) -> dict[str, int]:
        assert isinstance(self.capture, Capture)
        return legs_of_settle(attribution_of(SEED, job_of(self.capture, ordinal)))

    def acknowledge(self, operation: Operation, seq: int) -> None:
        report = Acknowledged(key_of(operation), seq, duplicate=False, late=False)
        self.record.note_acknowledged(report)


@pytest.fixture
def story(tmp_path: Path) -> Any:
    with Record(tmp_path / "record.jsonl") as record:
        yield Story(record)


def test_an_honest_journal_is_clean(story: Story) -> None:
    story.post_all()
    story.acknowledge(story.hold, 1)
    story.acknowledge(story.capture, 2)
    story.checker.check_promises()
    story.checker.check_balances(dict(story.checker.accounts), "Redis")
    story.checker.check_jobs(set())
    story.checker.check_ends()
    assert [says for says in story.verdict.said if "sum to" not in says] == []


def test_an_acknowledged_operation_that_is_not_there_is_lost(story: Story) -> None:
    story.acknowledge(story.hold, 1)
    story.checker.check_promises()
    assert story.verdict.lost == {key_of(story.hold)}


def test_an_operation_that_is_there_twice_is_doubled(story: Story) -> None:
    story.post_all()
    story.post(key_of(story.hold), "hold", legs_of(story.hold) or {})
    assert story.verdict.doubled == {key_of(story.hold)}
    assert story.verdict.unbalanced  # and its inference is held twice


def test_an_operation_under_another_number_than_was_told_is_doubled(story: Story) -> None:
    story.post_all()
    story.acknowledge(story.hold, 2)
    story.checker.check_promises()
    assert story.verdict.doubled == {key_of(story.hold)}


def test_a_missing_number_is_a_gap(story: Story) -> None:
    story.fund()
    story.post(key_of(story.hold), "hold", legs_of(story.hold) or {}, seq=3)
    assert story.verdict.gaps == 2


def test_a_balance_that_the_journal_does_not_fold_to_drifts(story: Story) -> None:
    story.post_all()
    stored = dict(story.checker.accounts)
    stored["platform"] += 5
    story.checker.check_balances(stored, "Redis")
    assert story.verdict.drift_nano == 5


@pytest.mark.parametrize("wrong", ["invented", "changed", "overdrawn"])
def test_an_entry_that_nobody_asked_for_so_is_found(story: Story, wrong: str) -> None:
    assert isinstance(story.hold, Hold)
    legs = legs_of(story.hold) or {}
    if wrong == "invented":
        story.post(f"{START_MS}/deposit/0", "deposit", {"funding": -1, "app:demo": 1})
    elif wrong == "changed":
        story.fund()
        story.post(
            key_of(story.hold), "hold", {account: nano // 2 for account, nano in legs.items()}
        )
    else:
        story.post(key_of(story.hold), "hold", legs)
    assert any(says.startswith(wrong) for says in story.verdict.said)


def test_an_entry_that_does_not_sum_to_zero_is_found(story: Story) -> None:
    story.post("x/deposit/0", "deposit", {"funding": -1, "app:demo": 2})
    assert any("does not sum to zero" in says for says in story.verdict.said)


def test_an_open_pool_without_a_job_is_found(story: Story) -> None:
    assert isinstance(story.capture, Capture)
    story.fund()
    for operation, kind in ((story.hold, "hold"), (story.capture, "capture")):
        story.post(key_of(operation), kind, legs_of(operation) or {})
    jobs = {(story.capture.inference, ordinal) for ordinal in range(len(story.capture.pools))}
    story.checker.check_jobs(jobs)
    assert story.verdict.is_clean
    story.checker.check_jobs(set())
    assert story.verdict.unbalanced == {story.capture.inference}


def test_an_inference_that_never_ends_is_found(story: Story) -> None:
    story.fund()
    story.post(key_of(story.hold), "hold", legs_of(story.hold) or {})
    assert story.verdict.is_clean
    story.checker.check_ends()
    assert len(story.verdict.unbalanced) == 1


def test_a_pool_that_is_settled_twice_unbalances_its_inference(story: Story) -> None:
    story.post_all()
    story.post(story.settle_key(0), "settle", story.settled(0))
    assert story.verdict.unbalanced


def test_a_refund_beyond_the_charge_is_found(story: Story) -> None:
    story.post_all()
    assert isinstance(story.capture, Capture)
    charge = story.capture.charge_nano
    legs = {f"app:{story.capture.application}": charge + 1, "refund": -charge - 1}
    wrong = story.checker.inferences.add(story.capture.inference, "refund", "0", legs)
    assert wrong is not None
    assert "refunded" in wrong


# --- the doors ---

REQUEST = b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n"
REPLY = b"*3\r\n:1\r\n$2\r\nab\r\n*1\r\n+OK\r\n"


@pytest.mark.parametrize("size", range(1, len(REPLY) + 2))
def test_messages_are_whole_however_they_arrive(size: int) -> None:
    stream = REPLY + REQUEST + b"$-1\r\n*0\r\n-ERR no\r\n"
    messages = Messages()
    parts = [stream[start : start + size] for start in range(0, len(stream), size)]
    whole = [message for part in parts for message in messages.feed(part)]
    assert whole == [REPLY, REQUEST, b"$-1\r\n", b"*0\r\n", b"-ERR no\r\n"]


async def talk(tmp_path: Path, fault: Fault | None, *, silent: bool = False) -> tuple[int, bytes]:
    """Three requests through a door: how many the server got, and what the actor was answered."""
    heard = Messages()
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while data := await reader.read(1_000):
            for _ in heard.feed(data):
                requests += 1
                writer.write(b":%d\r\n" % requests)
        writer.close()

    killed = Counter[str]()
    server = await asyncio.start_unix_server(serve, str(tmp_path / "server.sock"))
    door = Door(tmp_path / "door.sock", lambda: killed.update(["server"]))
    door.silent = silent
    door.point_to(tmp_path / "server.sock")
    await door.open()
    door.arm([fault] if fault else [])
    reader, writer = await asyncio.open_unix_connection(str(door.path))
    answered = b""
    writer.write(REQUEST * 3)
    try:
        async with asyncio.timeout(0.3):
            while data := await reader.read(1_000):
                answered += data
    except TimeoutError:
        pass
    writer.close()
    await door.close()
    server.close()
    assert bool(killed) == (fault is not None and fault.kind.startswith("redis"))
    return requests, answered


@pytest.mark.parametrize(
    ("kind", "requests", "answered"),
    [
        (None, 3, b":1\r\n:2\r\n:3\r\n"),
        (Kind.DROP_REPLY, 3, b":1\r\n"),
        (Kind.CUT_REPLY, 3, b":1\r\n:2"),
        (Kind.DELAY_REPLY, 3, b":1\r\n:2\r\n:3\r\n"),
        (Kind.STALL, 3, b":1\r\n"),
        (Kind.REPLY_TWICE, 3, b":1\r\n:2\r\n:2\r\n:3\r\n"),
        (Kind.REQUEST_TWICE, 4, b":1\r\n:2\r\n:4\r\n"),
        (Kind.CLOSE_BEFORE, 1, None),
        (Kind.REDIS_BEFORE, 1, None),
        (Kind.REDIS_FORWARDED, 2, None),
        (Kind.REDIS_ANSWERED, 3, b":1\r\n"),
    ],
)
@pytest.mark.anyio
async def test_a_door_strikes_the_second_of_three_requests(
    tmp_path: Path, kind: Kind | None, requests: int, answered: bytes | None
) -> None:
    fault = Fault(kind, "poster", at=2, seconds=0.01, fraction=0.5) if kind else None
    got, told = await talk(tmp_path, fault)
    assert got == requests
    assert answered is None or told == answered


@pytest.mark.anyio
async def test_through_a_silent_door_no_reply_passes(tmp_path: Path) -> None:
    assert await talk(tmp_path, None, silent=True) == (3, b"")


# --- the mutants and the run ---


def test_every_mutant_changes_the_scripts_as_they_are_now(tmp_path: Path) -> None:
    for number, mutant in enumerate(MUTANTS):
        patched_scripts(mutant.patches, tmp_path / str(number))
    with pytest.raises(SystemExit, match="does not have once"):
        patched_scripts((Patch("hold", "no such text", ""),), tmp_path / "none")


@dataclass
class Run:
    """One run of the program, and the file in which lies what it says."""

    program: subprocess.Popen[bytes]
    said: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Run]]:
    """Three runs side by side: each waits much of its time for what it has killed."""
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "loadtests.faults", "--seconds", str(SECONDS), "--seed"]
    found: dict[int, Run] = {}
    with ExitStack() as stack:
        for seed in SEEDS:
            said = folder / str(seed)
            with said.open("wb") as out:
                program = subprocess.Popen(
                    [*command, str(seed)], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
                )
            stack.enter_context(program)
            stack.callback(program.kill)
            found[seed] = Run(program, said)
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_under_faults_loses_doubles_and_invents_nothing(
    runs: dict[int, Run], seed: int
) -> None:
    status = runs[seed].program.wait(SECONDS + START_AND_END_SECONDS_MAX)
    said = runs[seed].said.read_text()
    assert status == 0, said[-2_000:]
    figures = json.loads(said.splitlines()[-1])
    assert figures["findings"] == []
    assert figures["seed"] == seed
    assert figures["operations"] > 1_000
    assert sum(figures["kills"].values()) > 0
    for promise in ("lost", "doubled", "drift_nano", "gaps", "unbalanced_inferences"):
        assert figures[promise] == 0
