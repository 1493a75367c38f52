"""GET /v1/models, the probes and the metrics page."""

from dataclasses import dataclass
from typing import cast

import pytest

from byline.aliases import Alias
from gateway.models import Models
from gateway.wire import Question
from tests.fakes import FakeRouter
from tests.gateway.conftest import ANN, CHAT, CYBER, MED, RELEASE, House, eventually

pytestmark = pytest.mark.anyio


async def test_the_list_names_base_adapters_and_auto(house: House) -> None:
    answer = await house.get("/v1/models")
    assert answer.fields["object"] == "list"
    assert [model["id"] for model in answer.fields["data"]] == ["tiny", "med", "cyber", "auto"]
    med = answer.fields["data"][1]
    assert (med["object"], med["created"], med["owned_by"]) == ("model", 0, "clinic")
    assert med["byline"] == {
        "kind": "adapter", "version": MED.version, "owner": "clinic", "base_model": "tiny",
        "dataset": MED.dataset, "index": MED.index,
    }  # fmt: skip


async def test_no_path_is_told(house: House) -> None:
    body = (await house.get("/v1/models")).body.decode()
    assert MED.path not in body
    assert RELEASE.base_path not in body


@pytest.mark.parametrize("name", ["tiny", "med", "auto", CYBER.version])
async def test_one_model_may_be_described(house: House, name: str) -> None:
    answer = await house.get(f"/v1/models/{name}")
    assert (answer.status, answer.fields["id"]) == (200, name)


@pytest.mark.parametrize("name", ["nobody", "../x", "a/b", "%2e%2e%2fetc"])
async def test_an_unknown_model_answers_404(house: House, name: str) -> None:
    answer = await house.ask(path=f"/v1/models/{name}", method="GET")
    assert answer.status == 404
    assert "code" in answer.fields["error"]


async def test_any_known_key_lists_models_and_none_does_not(house: House) -> None:
    assert (await house.get("/v1/models", ANN)).status == 200
    assert (await house.get("/v1/models", None)).status == 401
    assert (await house.get("/v1/models/med", None)).status == 401


async def test_the_probes_need_no_key(house: House) -> None:
    assert (await house.get("/healthz", None)).fields == {"status": "alive"}
    ready = (await house.get("/readyz", None)).fields
    assert ready["status"] == "ready"
    (engine,) = ready["engines"].values()
    assert engine == {
        "up": True, "breaker_open": False,
        "adapters": {MED.version: "ready", CYBER.version: "ready"},
    }  # fmt: skip


async def test_not_ready_while_the_engine_is_unwell(house: House) -> None:
    house.engine.healthy = False
    answer = await house.get("/readyz", None)
    assert (answer.status, answer.fields["error"]["code"]) == (503, "engine_unavailable")
    assert (await house.get("/healthz", None)).status == 200


async def test_not_ready_while_the_ledger_is_away(house: House) -> None:
    house.ledger.away = True
    answer = await house.get("/readyz", None)
    assert (answer.status, answer.fields["error"]["code"]) == (503, "ledger_unavailable")


async def test_metrics_are_in_prometheus_text_format(house: House) -> None:
    await house.get("/healthz")
    answer = await house.get("/metrics", None)
    assert answer.headers["content-type"].startswith("text/plain")
    line = b'byline_requests_total{model="none",route="/healthz",status="200"} 1.0'
    assert line in answer.body.splitlines()
    assert b"process_resident_memory_bytes" in answer.body


@dataclass(frozen=True, slots=True)
class Asked:
    """What `Models.target` reads of a question."""

    model: str
    route_text: str | None = None


def found(models: Models, name: str, inference: str = "i", text: str | None = None) -> str:
    question = cast(Question, Asked(name, text))
    return models.target(question, inference).served_by


def test_an_alias_divides_its_inferences_and_auto_goes_through_it() -> None:
    aliases = {"med": Alias("med", {MED.version: 1, CYBER.version: 1})}
    models = Models(RELEASE, FakeRouter({"fever": "med"}), aliases)
    drawn = [found(models, "med", f"i{number}") for number in range(100)]
    assert set(drawn) == {MED.version, CYBER.version}
    assert drawn == [found(models, "auto", f"i{n}", "a fever") for n in range(100)]
    assert found(models, MED.version) == MED.version, "an exact version is what it says"


def test_a_fallback_answers_only_where_what_was_drawn_is_not_loaded() -> None:
    aliases = {"care": Alias("care", {"med": 1}, ("cyber", "tiny"))}
    loaded = {MED.version, CYBER.version}
    models = Models(RELEASE, FakeRouter({}), aliases, loaded.__contains__)
    assert found(models, "care") == MED.version
    loaded.remove(MED.version)
    assert found(models, "care") == CYBER.version
    loaded.clear()
    assert found(models, "care") == "tiny"
    assert found(models, "med") == MED.version, "without a fallback it is refused by the engines"


@pytest.mark.parametrize("aliases", [{"care": Alias("care", {"med": 1}, ("cyber", "tiny"))}])
async def test_a_fallback_answers_and_is_charged_as_what_it_is(house: House) -> None:
    """Over HTTP, by what the engine really has: med is gone from it, and can't be loaded again."""
    drawn = await house.ask({**CHAT, "model": "care"})
    assert drawn.headers["x-byline-adapter"] == MED.version
    house.engine.load_refused = (400, "no")
    del house.engine.adapters[MED.version]
    await eventually(lambda: not house.services.engines.serves(MED.version))
    answer = await house.ask({**CHAT, "model": "care"})
    assert answer.headers["x-byline-adapter"] == CYBER.version
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    assert (capture.model, capture.served_by) == ("care", CYBER.version)
    assert capture.adapter_version == CYBER.version
    refused = await house.ask(CHAT)
    assert (refused.status, refused.fields["error"]["code"]) == (503, "adapter_unavailable")


async def test_an_alias_is_listed_with_its_weights() -> None:
    models = Models(RELEASE, FakeRouter({}), {"med": Alias("med", {MED.version: 9}, ("tiny",))})
    names = [model["id"] for model in models.listing()]
    assert names == ["tiny", "cyber", "med", "auto"]
    assert models.described("med")["byline"] == {
        "kind": "alias", "weights": {MED.version: 9}, "fallback": ["tiny"],
    }  # fmt: skip
