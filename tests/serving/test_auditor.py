"""The auditor on a real Redis-protocol server, with an engine's log-probabilities made up.

Killed between any two steps and started again, it posts each adjustment once, and exactly what the
record on the disk says; then the served tokens are gone. What it asks of an engine over HTTP is
checked against an engine that answers as vLLM does.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from fractions import Fraction
from pathlib import Path

import httpx
import pytest
import uuid_utils

from byline.attribution import Measurement, attribute
from byline.auditing.audit import audit_from, audit_operation
from byline.auditing.payment import PaymentJudge, PaymentPauses
from byline.auditing.plan import AuditPlan, Counterfactuals, Order
from byline.auditing.store import AuditStore
from byline.canonical import sha256_hex
from byline.errors import EngineRefused, EngineUnavailable, NotFound
from byline.ledger.ledger import Ledger
from byline.posting.postings import attribution_jobs
from byline.records import Capture, Leg, Release, ServedTokens, Usage, UsageSource
from byline.redis_server import RedisServer, running_redis
from byline.registry import find_adapter, write_release
from byline.served import served_inferences, write_served
from serving.auditing.auditing import Auditing, Places
from serving.auditing.engine_scoring import PREFIX, EngineScoring
from serving.auditor import audit, look_through, remember
from serving.counterfactuals.run_files import HASH, WEIGHTS
from serving.settings import AuditorSettings
from serving.telemetry import AuditorMetrics
from tests.ports import free_port

pytestmark = pytest.mark.anyio

VERSION = "healthcare@0123456789ab"
UNATTRIBUTED = f"unattributed:{VERSION}"
STEPS = ("drawn", "scored", "kept", "posted", "forgotten")
ORDER = Order("full", {"ann": "less-ann", "bob": "less-bob"})
SCORES = {  # the truth: bob taught it, and ann did not
    "base": -20.0, VERSION: -10.0, f"{PREFIX}full": -10.0, f"{PREFIX}less-ann": -9.5,
    f"{PREFIX}less-bob": -13.0,
}  # fmt: skip


class Killed(BaseException):
    """The auditor died here."""


class Engine:
    """Scores as it was told; each time a little differently, as an engine does."""

    def __init__(self) -> None:
        self.asked = 0
        self.adapters: set[str] = set()
        self.away = False
        self.changed = False  # the runs' bytes

    async def log_probabilities(
        self, served: ServedTokens, ordinal: int, models: Sequence[str]
    ) -> list[float]:
        if self.away:
            raise EngineUnavailable("the engine is away")
        assert served.choices[ordinal]
        assert "base" not in models or len(models) == 1, "the base model is read alone"
        assert {name for name in models if name.startswith(PREFIX)} <= self.adapters
        self.asked += 1
        return [SCORES[name] + 1e-4 * self.asked for name in models]

    async def load(self, name: str, folder: Path) -> None:
        assert folder.name == name.removeprefix(PREFIX)
        if self.changed:
            raise EngineRefused(f"{name} is not to be loaded", status=409)
        self.adapters.add(name)

    async def unload(self, name: str) -> None:
        self.adapters.remove(name)


class Bench:
    """A ledger with one settled inference, and all that an auditor needs."""

    def __init__(self, ledger: Ledger, root: Path) -> None:
        self.ledger = ledger
        self.places = Places(root / "served", root / "counterfactuals", root / "audits", "base")
        self.engine = Engine()
        self.metrics = AuditorMetrics()
        self.is_logged = True
        self.rate = Fraction(1)
        self.counterfactuals = Counterfactuals((ORDER,), None)

    def auditing(self, step: Callable[[str], None] = lambda _: None) -> Auditing:
        plan = AuditPlan(self.rate, {VERSION: self.counterfactuals})
        return Auditing(
            self.ledger, self.engine, self.commitment, plan, self.places, self.metrics, step=step
        )

    def commitment(self, inference: str) -> str:
        if not self.is_logged:
            raise NotFound("no published tree head covers this yet")
        return f"log.example/usd\n7\n{inference}\n"

    async def serve_one(self, *, settle: bool = True) -> str:
        """One answered inference with two choices, the cheap method paying ann alone."""
        inference, now_ms = str(uuid_utils.uuid7()), time.time_ns() // 1_000_000
        sha256 = write_served(self.places.served, ServedTokens(inference, (1, 2), ((3,), (4,))))
        await self.ledger.hold(
            inference, "clinic", 1_000, expires_ms=now_ms + 60_000, time_ms=now_ms
        )
        capture = Capture(
            inference=inference, application="clinic", held_nano=1_000, charge_nano=900,
            credits=(Leg("platform", 300),), pools=(400, 200), skipped=None, model="healthcare",
            served_by=VERSION, adapter_version=VERSION, index="healthcare@ba9876543210",
            usage=Usage(2, (2, 1), UsageSource.ENGINE), partial=False, tokens_sha256=sha256,
            policy="2026-11",
        )  # fmt: skip
        await self.ledger.capture(capture, time_ms=now_ms)
        for job in attribution_jobs(capture, now_ms) if settle else ():
            cheap = Measurement(lift_nats=2.0, scores={"ann": 2.0, "bob": 0.0}, examples=())
            await self.ledger.settle(attribute(job, cheap), time_ms=now_ms)
        return inference

    async def once(self, inference: str, step: Callable[[str], None] = lambda _: None) -> bool:
        return await self.auditing(step).once(inference, now_ms=time.time_ns() // 1_000_000)

    def served(self) -> list[str]:
        return served_inferences(self.places.served)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    server = RedisServer(tmp_path, unix_socket=tmp_path / "s.sock")
    with running_redis(server):
        ledger = await Ledger.open(server.url)
        now_ms = time.time_ns() // 1_000_000
        await ledger.deposit(str(uuid_utils.uuid7()), "clinic", 10**6, time_ms=now_ms)
        yield Bench(ledger, tmp_path)
        await ledger.close()


async def adjustments(ledger: Ledger) -> list[str]:
    """The event keys of all adjustments."""
    return [entry.key async for entry in ledger.entries() if entry.kind == "adjust"]


@pytest.mark.parametrize("at", [*STEPS, "nowhere"])
@pytest.mark.parametrize("choice", [0, 1])
async def test_killed_at_any_step_it_posts_each_audit_once(
    bench: Bench, at: str, choice: int
) -> None:
    inference = await bench.serve_one()
    passed: list[str] = []

    def die(step: str) -> None:
        passed.append(step)
        if step == at and passed.count(step) > min(choice, at not in ("drawn", "forgotten")):
            raise Killed

    try:
        await bench.once(inference, die)
    except Killed:
        assert at != "nowhere"
        await bench.once(inference)
    else:
        assert at == "nowhere"
    assert not bench.served()
    keys = [f"{audit_operation(inference, ordinal)}/adjust/0" for ordinal in (0, 1)]
    assert await adjustments(bench.ledger) == keys
    balances = await bench.ledger.balances()
    assert balances["contrib:bob"] == 600
    assert balances.get("contrib:ann", 0) == 0
    assert (await bench.ledger.check()).balanced
    for ordinal in (0, 1):
        record = bench.places.audits / f"{inference}-{ordinal}.json"
        audit = audit_from(record.read_text())
        operation = audit.adjustment()
        assert (await bench.ledger.adjust(operation, time_ms=1)).duplicate


async def test_groups_of_one_are_audited_as_contributors_are(bench: Bench) -> None:
    alone = Order(ORDER.everybody, {f"group-{who}": run for who, run in ORDER.without.items()})
    groups = {f"group-{who}": {who: 3} for who in ORDER.without}
    audited = []
    for found in (Counterfactuals((ORDER,), None), Counterfactuals((alone,), None, groups)):
        bench.counterfactuals = found
        inference = await bench.serve_one()
        await bench.once(inference)
        record = (bench.places.audits / f"{inference}-0.json").read_text()
        audited.append(audit_from(record).audited.scores)
    assert audited[0].keys() == audited[1].keys()
    for who, score in audited[0].items():  # the engine's readings differ by its own noise
        assert audited[1][who] == pytest.approx(score, abs=2e6)


async def test_a_groups_audited_total_is_divided_beside_the_scores_on_the_record(
    bench: Bench,
) -> None:
    """The record has 2 nats for ann and none for bob, the group's effect is 3: 1 is by rows."""
    together = Order(ORDER.everybody, {"group-0": ORDER.without["bob"]})
    bench.counterfactuals = Counterfactuals((together,), None, {"group-0": {"ann": 1, "bob": 3}})
    inference = await bench.serve_one()
    await bench.once(inference)
    record = (bench.places.audits / f"{inference}-0.json").read_text()
    found = audit_from(record).audited.scores
    assert found == pytest.approx({"ann": 2.25e9, "bob": 0.75e9}, abs=2e6)


async def test_what_is_not_drawn_is_forgotten_and_moves_nothing(bench: Bench) -> None:
    bench.rate = Fraction(1, 10**12)
    inference = await bench.serve_one()
    assert await bench.once(inference)
    assert not bench.served()
    assert not await adjustments(bench.ledger)
    assert bench.engine.asked == 0


async def test_it_waits_for_the_settlement_and_for_the_signed_head(bench: Bench) -> None:
    pending = await bench.serve_one(settle=False)
    assert not await bench.once(pending)
    settled = await bench.serve_one()
    bench.is_logged = False
    assert not await bench.once(settled)
    assert len(bench.served()) == 2
    assert bench.engine.asked == 0


async def test_an_engine_that_is_away_costs_nothing_but_time(bench: Bench) -> None:
    inference = await bench.serve_one()
    bench.engine.away = True
    with pytest.raises(EngineUnavailable):
        await bench.once(inference)
    assert len(bench.served()) == 1
    bench.engine.away = False
    assert await bench.once(inference)
    assert len(await adjustments(bench.ledger)) == 2


async def test_an_audit_that_is_refused_is_told_of_and_comes_again(bench: Bench) -> None:
    first, second = await bench.serve_one(), await bench.serve_one()
    bench.engine.changed = True
    auditing, served, through = bench.auditing(), bench.places.served, list[str]()

    async def look() -> int:
        return await look_through(bench.ledger, auditing, served, through.append, asyncio.Event())

    assert await look() == 2
    assert not await adjustments(bench.ledger)
    bench.engine.changed = False
    assert await look() == 0
    assert through == [first, second]
    assert len(await adjustments(bench.ledger)) == 4


async def test_who_was_overpaid_owes_and_unattributed_may_owe_too(bench: Bench) -> None:
    bench.rate = Fraction(1, 2)
    for _ in range(20):
        await bench.once(await bench.serve_one())
    balances = await bench.ledger.balances()
    moved = balances["contrib:bob"]
    assert moved > 0
    assert moved % 1_200 == 0  # twice the pools of each inference that was drawn
    assert balances.get("contrib:ann", 0) == 20 * 600 - moved
    assert (await bench.ledger.check()).balanced
    paid_error = {"adapter": "healthcare", "figure": "payout_error", "bound": "mean"}
    value = bench.metrics.registry.get_sample_value("byline_audit_fidelity", paid_error)
    assert value == pytest.approx(1.0)


async def test_unattributed_falls_below_zero_by_an_audit(bench: Bench) -> None:
    inference = await bench.serve_one()
    await bench.once(inference)
    audit = audit_from((bench.places.audits / f"{inference}-0.json").read_text()).adjustment()
    legs = (Leg("contrib:bob", 900), Leg(UNATTRIBUTED, -900))
    operation = str(uuid_utils.uuid7())
    given = type(audit)(operation, legs, "an audit", "auditor", VERSION)
    await bench.ledger.adjust(given, time_ms=1)
    assert (await bench.ledger.balances())[UNATTRIBUTED] == -900
    assert (await bench.ledger.check()).balanced


@pytest.mark.parametrize("killed", [False, True])
async def test_bad_audits_pause_payment_also_after_a_kill(bench: Bench, killed: bool) -> None:
    """Each answer here is paid to the wrong one; ten choices are enough to say so."""
    pauses = PaymentPauses(bench.places.audits.parent / "payment")
    plan = AuditPlan(bench.rate, {VERSION: Counterfactuals((ORDER,), None)})
    judge, store = PaymentJudge(plan, pauses), AuditStore(bench.places.audits)

    def judged(inference: str) -> None:
        assert not pauses.in_force()
        if len(list(bench.places.audits.glob("*.json"))) == 10 and killed:
            raise Killed
        judge.take(store.of(inference))
        judge.decide(now_ms=1)

    for _ in range(5):
        await bench.serve_one()
    looked = look_through(
        bench.ledger, bench.auditing(), bench.places.served, judged, asyncio.Event()
    )
    if killed:
        with pytest.raises(Killed):
            await looked
        remember(store, PaymentJudge(plan, pauses))
    else:
        await looked
    assert pauses.in_force()[VERSION].reason.endswith("over 10 audits")


def test_no_client_reaches_a_counterfactual_adapter() -> None:
    release = Release("base", "base/base@0123456789ab", 2_048, (), "router@0123456789ab")
    with pytest.raises(NotFound):
        find_adapter(release, f"{PREFIX}less-ann")


class FakeEngine:
    """Answers as vLLM does, over HTTP."""

    def __init__(self) -> None:
        self.running = [2.0, 0.0]  # at each look, the last for ever
        self.loaded = ["base", VERSION]
        self.bodies: list[dict[str, object]] = []
        self.wrong_once = 0.0  # nats a token

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/metrics":
            running = self.running.pop(0) if len(self.running) > 1 else self.running[0]
            line = 'vllm:num_requests_running{engine="0",model_name="base"}'
            return httpx.Response(200, text=f"# HELP x\n{line} {running}\n")
        if path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": name} for name in self.loaded]})
        body = json.loads(request.content)
        if path == "/v1/load_lora_adapter":
            if body["lora_name"] in self.loaded:
                return httpx.Response(400, text="The lora adapter has already been loaded.")
            self.loaded.append(body["lora_name"])
            return httpx.Response(200, text="Success")
        if body["model"] not in self.loaded:
            return httpx.Response(404, text="no such model")
        self.bodies.append(body)
        positions: list[object] = [None]
        for token in body["prompt"][1:]:
            likelier = {"7": {"logprob": -0.1, "rank": 1}}
            logprob = self.wrong_once - float(token)
            positions.append({**likelier, str(token): {"logprob": logprob, "rank": 2}})
        self.wrong_once = 0.0
        return httpx.Response(200, json={"choices": [{"prompt_logprobs": positions}]})


def stored_run(root: Path) -> Path:
    """A run's folder: its weights, and beside them their hash."""
    folder = root / "full"
    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS).write_bytes(b"weights")
    (folder / HASH).write_text(sha256_hex(b"weights"))
    return folder


async def test_an_adapter_whose_bytes_have_changed_is_not_loaded(tmp_path: Path) -> None:
    engine = FakeEngine()
    transport = httpx.MockTransport(engine)
    folder = stored_run(tmp_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        scoring = EngineScoring(client)
        (folder / WEIGHTS).write_bytes(b"others")
        with pytest.raises(EngineRefused, match="changed since they were trained"):
            await scoring.load(f"{PREFIX}full", folder)
        with pytest.raises(EngineRefused, match="No such file"):
            await scoring.load(f"{PREFIX}none", tmp_path / "none")
        assert await scoring.loaded() == []
        (folder / WEIGHTS).write_bytes(b"weights")
        await scoring.load(f"{PREFIX}full", folder)
        assert await scoring.loaded() == [f"{PREFIX}full"]


async def test_the_engine_scores_the_completion_alone_once_it_is_idle(tmp_path: Path) -> None:
    engine = FakeEngine()
    transport = httpx.MockTransport(engine)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        scoring = EngineScoring(client, at_once=1)
        for _ in range(2):
            await scoring.load(f"{PREFIX}full", stored_run(tmp_path))
        assert await scoring.loaded() == [f"{PREFIX}full"]
        served = ServedTokens("x", (11, 12), ((1, 2), (3, 4, 5)))
        found = await scoring.log_probabilities(served, 1, ["base", f"{PREFIX}full"])
    assert found == [-12.0, -12.0]
    assert engine.running == [0.0]  # it looked until the engine was idle
    assert [body["prompt"] for body in engine.bodies] == [[11, 12, 3, 4, 5]] * 4
    asked = [body["model"] for body in engine.bodies]
    assert asked == asked[::-1]  # twice, in the other order


async def test_readings_that_differ_are_no_reading() -> None:
    engine = FakeEngine()
    engine.wrong_once = 2.0
    transport = httpx.MockTransport(engine)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        scoring = EngineScoring(client)
        served = ServedTokens("x", (11, 12), ((1, 2),))
        with pytest.raises(EngineRefused, match="once -"):
            await scoring.log_probabilities(served, 0, ["base", VERSION])
        assert await scoring.log_probabilities(served, 0, ["base", VERSION]) == [-3.0, -3.0]


async def test_the_program_waits_for_engine_and_log_and_ends_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_release(tmp_path / "release.json", Release("base", "base/b@0", 2_048, (), "r@0"))
    order = {"everybody": "full", "without": {"ann": "less-ann"}}
    plan = {"rate": "1", "adapters": {VERSION: {"orders": [order]}}}
    (tmp_path / "audit_plan.json").write_text(json.dumps(plan))
    server = RedisServer(tmp_path, unix_socket=tmp_path / "s.sock")
    with running_redis(server):
        settings = AuditorSettings(
            home=tmp_path, redis_url=server.url, metrics_port=free_port(), look_seconds=0.05,
            engine_url=f"http://127.0.0.1:{free_port()}",
        )  # fmt: skip
        task = asyncio.create_task(audit(settings, AuditorMetrics()))
        async with asyncio.timeout(20):
            while "waiting" not in caplog.text:
                await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            await task
