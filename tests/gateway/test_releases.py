"""A new release in the home folder of a running gateway: all of it is taken over, or nothing."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from byline.artifacts import ArtifactStore
from byline.canonical import Json, canonical_text
from byline.delivery.spool import Spool
from byline.home import Home
from byline.ledger.shards import Shards
from byline.records import AdapterVersion, Capture, Posted, Release
from byline.registry import write_release
from byline.routing.text import COLUMNS
from gateway import releases
from gateway.archive_reads import ArchiveReads
from gateway.engine_client import Timeouts
from gateway.engines.engines import EngineBounds, Engines
from gateway.releases import read_serving
from gateway.services import Services
from gateway.telemetry import Telemetry
from tests.fake_engine import FakeEngine
from tests.fakes import FakeKeys, FakeLedger, FakeQuotas
from tests.gateway.conftest import CHAT, KEYS, SHOP, eventually, serving_engine, serving_gateway

pytestmark = pytest.mark.anyio
BASE = "base/tiny@eeeeeeeeeeee"
BOUNDS = EngineBounds(
    look_seconds=0.03, drain_seconds=0.2, timeouts=Timeouts(first_token=5.0, idle=5.0, answer=5.0)
)


class Shelf:
    """A home folder, and real artifacts in it that are small."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.store = ArtifactStore(self.home.artifacts)

    def make(self, kind: str, name: str, files: dict[str, str]) -> str:
        recipe: dict[str, Json] = {"files": dict(files)}
        with self.store.build(kind, name, recipe) as folder:
            for file, text in files.items():
                (folder / file).write_text(text)
        made = self.store.find(kind, recipe)
        assert made is not None
        return made.reference

    def adapter(self, name: str, seed: int) -> AdapterVersion:
        config = {
            "base_model_name_or_path": Path(BASE).name, "r": 8, "target_modules": ["q_proj"],
            "seed": seed,
        }  # fmt: skip
        version = self.make("adapters", name, {"adapter_config.json": json.dumps(config)})
        index = self.make("indexes", name, {"index.json": json.dumps({"adapter": version})})
        return AdapterVersion(
            adapter=name, version=version, path=f"adapters/{version}", owner="clinic",
            base_model="tiny", dataset="data@aaaaaaaaaaaa", index=index,
        )  # fmt: skip

    def router(self, *adapters: str, bias: float = 0.0) -> str:
        """One that sends everything to the first adapter."""
        recipe: dict[str, Json] = {"adapters": list(adapters), "bias": str(bias)}
        with self.store.build("router", "router", recipe) as folder:
            described: dict[str, Json] = {"adapters": list(adapters), "floor": 0.5}
            (folder / "router.json").write_text(canonical_text(described))
            np.savez(
                folder / "weights.npz", columns=np.zeros((COLUMNS, 3), np.float32),
                bias=np.array([bias, 0, 0], np.float32), words=np.array(["word"]),
                word_weights=np.zeros((1, 3), np.float32),
            )  # fmt: skip
        made = self.store.find("router", recipe)
        assert made is not None
        return made.reference

    def release(self, *adapters: AdapterVersion, router: str | None = None) -> Release:
        names = [adapter.adapter for adapter in adapters]
        return Release(
            "tiny", BASE, 2048, adapters, router or self.router(names[0], names[-1], bias=9.0)
        )


class SlowLedger(FakeLedger):
    """Takes its time between the choice of a version and the engine's turn."""

    async def hold(self, *which: Any, **when: Any) -> Posted:
        await asyncio.sleep(0.05)
        return await super().hold(*which, **when)


@dataclass
class Place:
    """A running gateway over a home folder."""

    shelf: Shelf
    engine: FakeEngine
    ledger: FakeLedger
    telemetry: Telemetry
    url: str
    http: aiohttp.ClientSession
    old: AdapterVersion
    new: AdapterVersion

    async def ask(self, **fields: object) -> tuple[int, str]:
        """The status, and which version answered."""
        headers = {"authorization": f"Bearer {SHOP}"}
        path = f"{self.url}/v1/chat/completions"
        async with self.http.post(path, json={**CHAT, **fields}, headers=headers) as response:
            await response.read()
            return response.status, response.headers.get("x-byline-adapter", "")

    async def ask_known(self, model: str) -> tuple[int, str]:
        """The same, once the gateway knows the name."""
        deadline = time.monotonic() + 5
        while (answer := await self.ask(model=model))[0] == 404:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        return answer

    async def ready(self) -> dict[str, Any]:
        async with self.http.get(f"{self.url}/readyz") as response:
            found: dict[str, Any] = (await response.json())["release"]
            return found

    def put(self, release: Release) -> None:
        write_release(self.shelf.home.release, release)

    async def serves(self, *adapters: AdapterVersion) -> None:
        await self._shown("adapters", [adapter.version for adapter in adapters])

    async def refuses(self, word: str) -> None:
        deadline = time.monotonic() + 5
        while word not in str((await self.ready())["refused"]):
            assert time.monotonic() < deadline, (await self.ready())["refused"]
            await asyncio.sleep(0.02)

    async def _shown(self, name: str, value: object) -> None:
        deadline = time.monotonic() + 5
        while (shown := await self.ready())[name] != value:
            assert time.monotonic() < deadline, shown
            await asyncio.sleep(0.02)

    def captures(self) -> list[Capture]:
        return list(self.ledger.captures.values())


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(releases.Releases.__init__, "__kwdefaults__", {
        "look_seconds": 0.03, "again_seconds": 0.2,
    })  # fmt: skip
    shelf, engine, ledger, telemetry = Shelf(tmp_path), FakeEngine(), SlowLedger(), Telemetry()
    old, new = shelf.adapter("med", 1), shelf.adapter("med", 2)
    write_release(shelf.home.release, shelf.release(old))
    async with AsyncExitStack() as stack:
        engine_url = await stack.enter_async_context(serving_engine(engine))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        serving = read_serving(shelf.home)
        services = Services(
            shards=Shards({"usd": ledger}, {}),
            spools={"usd": Spool.open(tmp_path / "spool")},
            archive=ArchiveReads(f"sqlite:///{tmp_path}/archive.sqlite"),
            keys=FakeKeys(KEYS),
            quotas=FakeQuotas(),
            engines=Engines.open(
                [engine_url], serving.release, shelf.home.artifacts, telemetry.registry,
                bounds=BOUNDS,
            ),
            release=serving.release,
            router=serving.router,
            aliases=serving.aliases,
            served_folder=shelf.home.served,
            telemetry=telemetry,
            clock_ms=lambda: time.time_ns() // 1_000_000,
            home=shelf.home,
        )  # fmt: skip
        url, _ = await stack.enter_async_context(serving_gateway(services))
        yield Place(shelf, engine, ledger, telemetry, url, http, old, new)


async def test_a_switch_under_traffic_loses_and_doubles_nothing(place: Place) -> None:
    place.engine.pause = 0.01
    answers: list[tuple[int, str]] = []
    is_over = False

    async def client(number: int) -> None:
        await asyncio.sleep(number * 0.02)  # or they would all be at the same step
        while not is_over:
            answers.append(await place.ask(stream=number % 2 == 0))

    clients = [asyncio.create_task(client(number)) for number in range(8)]
    try:
        await eventually(lambda: len(answers) > 20)
        place.put(place.shelf.release(place.new))
        await place.serves(place.new)
        await eventually(lambda: place.old.version not in place.engine.adapters)
        seen = len(answers)
        await eventually(lambda: len(answers) > seen + 20)
    finally:
        is_over = True
        await asyncio.gather(*clients)
    assert {status for status, _ in answers} == {200}
    await eventually(lambda: len(place.captures()) == len(answers) and not place.ledger.holds)
    assert not place.ledger.voids
    asked = [fields["model"] for _, _, fields in place.engine.asked]
    served = [capture.served_by for capture in place.captures()]
    assert sorted(asked) == sorted(served) == sorted(version for _, version in answers)
    assert set(served) == {place.old.version, place.new.version}
    indexes = {place.old.version: place.old.index, place.new.version: place.new.index}
    assert all(c.index == indexes[c.served_by] for c in place.captures())
    for headers, fields in [(headers, fields) for _, headers, fields in place.engine.asked]:
        assert place.ledger.captures[headers["x-request-id"]].served_by == fields["model"]


async def test_an_answer_under_way_ends_with_the_version_it_began_with(place: Place) -> None:
    place.engine.pause = 0.15
    slow = asyncio.create_task(place.ask(stream=True))
    await eventually(lambda: place.engine.asked)
    place.put(place.shelf.release(place.new))
    await place.serves(place.new)
    await asyncio.sleep(0.3)
    assert place.old.version in place.engine.adapters, "its last answer is under way"
    assert await slow == (200, place.old.version)
    await eventually(place.captures)
    assert [(c.served_by, c.index) for c in place.captures()] == [
        (place.old.version, place.old.index)
    ]
    await eventually(lambda: place.old.version not in place.engine.adapters)


async def test_names_change_only_once_the_engine_has_what_is_new(place: Place) -> None:
    place.engine.load_refused = (500, "rank")
    place.put(place.shelf.release(place.new))
    await place.refuses("failed")
    assert await place.ask() == (200, place.old.version)
    assert place.telemetry.registry.get_sample_value("byline_release_refused") == 1
    place.engine.load_refused = None
    await place.serves(place.new)  # it is tried again by itself
    assert (await place.ready())["refused"] is None
    assert place.telemetry.registry.get_sample_value("byline_release_refused") == 0


async def test_a_new_adapter_that_changes_nothing_is_never_named(place: Place) -> None:
    place.engine.ignored = {place.new.version}
    place.put(place.shelf.release(place.new))
    await place.refuses("not_applied")
    assert await place.ask() == (200, place.old.version)
    place.put(place.shelf.release(place.old))
    await eventually(lambda: place.new.version not in place.engine.adapters)


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", '{"adapters": 3}', '{"adapters": []}', "\udcff"]
)
async def test_a_broken_file_changes_nothing(
    place: Place, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = dict(place.engine.adapters)
    aside = place.shelf.home.root / "aside"  # renamed, or a look could find it half written
    aside.write_bytes(text.encode(errors="surrogateescape"))
    aside.rename(place.shelf.home.release)
    await place.refuses("is no release")
    await asyncio.sleep(0.3)  # it is looked at again meanwhile
    assert await place.ask() == (200, place.old.version)
    assert place.engine.adapters == before
    errors = [record for record in caplog.records if "refused" in record.message]
    assert len(errors) == 1, "one line, however often it is looked at"
    place.put(place.shelf.release(place.new))
    await place.serves(place.new)


async def test_what_can_not_be_served_is_refused_whole(place: Place) -> None:
    shelf, new = place.shelf, place.new
    good = shelf.release(new)
    cases = {
        "another context_tokens": replace(place.shelf.release(place.old), context_tokens=4_096),
        "was trained on": replace(good, base_path="base/other@eeeeeeeeeeee"),
        "no release": replace(good, context_tokens="2048"),  # type: ignore[arg-type]
        "router": replace(good, router="router@000000000000"),
        "sends to": replace(good, router=shelf.router("law", "med")),
        "indexes": shelf.release(new, replace(place.old, index="gone@000000000000")),
        "named by its content": shelf.release(replace(new, path="../elsewhere")),
    }
    for word, release in cases.items():
        place.put(release)
        await place.refuses(word)
        assert await place.ask() == (200, place.old.version)
    assert list(place.engine.adapters) == [place.old.version]


async def test_an_alias_of_what_leaves_keeps_the_old_release(place: Place) -> None:
    place.shelf.home.aliases.write_text(f'[mine]\nweights = {{"{place.old.version}" = 1}}\n')
    assert await place.ask_known("mine") == (200, place.old.version)
    place.put(place.shelf.release(place.new))
    await place.refuses("alias")
    assert await place.ask(model="mine") == (200, place.old.version)
    place.shelf.home.aliases.write_text("[mine]\nweights = {med = 1}\n")
    await place.serves(place.new)
    assert await place.ask(model="mine") == (200, place.new.version)


async def test_an_adapter_whose_bytes_have_changed_is_refused(place: Place) -> None:
    folder = place.shelf.home.artifacts / place.new.path
    text = (folder / "adapter_config.json").read_text()
    (folder / "adapter_config.json").write_text(text + " ")
    place.put(place.shelf.release(place.new))
    await place.refuses("not what its hash says")
    assert place.new.version not in place.engine.adapters


async def test_the_old_file_put_back_is_a_rollback(place: Place) -> None:
    old_text = place.shelf.home.release.read_bytes()
    place.put(place.shelf.release(place.new))
    await place.serves(place.new)
    assert await place.ask() == (200, place.new.version)
    place.shelf.home.release.write_bytes(old_text)
    await place.serves(place.old)
    assert await place.ask() == (200, place.old.version)
    await eventually(lambda: list(place.engine.adapters) == [place.old.version])


async def test_aliases_and_the_router_change_with_the_release(place: Place) -> None:
    law = place.shelf.adapter("law", 3)
    assert await place.ask(model="auto") == (200, place.old.version)
    place.put(place.shelf.release(law, place.old))
    await place.serves(law, place.old)
    assert await place.ask(model="auto") == (200, law.version)
    place.shelf.home.aliases.write_text(f'[mine]\nweights = {{"{law.version}" = 1}}\n')
    assert await place.ask_known("mine") == (200, law.version)
    assert place.telemetry.known("law") == "law"
