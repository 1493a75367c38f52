"""One inference on its way: admitted, generated, captured; and what the client is told."""

import json
import logging

import pytest

from byline.money import POLICY, charge_nano
from byline.records import UsageSource
from byline.served import read_served
from gateway.inferences import cache_salt
from tests.gateway.conftest import CHAT, MED, OPERATOR, OTHER, RELEASE, SHOP, House, eventually

pytestmark = pytest.mark.anyio


async def test_a_plain_answer_passes_through_as_the_engine_sent_it(house: House) -> None:
    answer = await house.ask(CHAT)
    assert answer.status == 200
    assert answer.body == house.engine.sent
    assert answer.headers["content-type"] == "application/json"


async def test_the_headers_name_inference_adapter_and_attribution(house: House) -> None:
    answer = await house.ask(CHAT)
    inference = answer.headers["x-byline-inference-id"]
    assert inference in house.ledger.captures
    assert answer.headers["x-byline-adapter"] == MED.version
    assert answer.headers["x-byline-attribution"] == f"/v1/attributions/{inference}"
    assert "x-byline-route-confidence" not in answer.headers


async def test_the_capture_is_posted_before_the_answer_arrives(house: House) -> None:
    answer = await house.ask(CHAT)
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    charge = charge_nano(POLICY.adapter_price, 3, 3)
    assert (capture.charge_nano, capture.application, capture.model) == (charge, "shop", "med")
    assert (capture.served_by, capture.adapter_version) == (MED.version, MED.version)
    assert (capture.usage.prompt_tokens, capture.usage.completion_tokens) == (3, (3,))
    assert capture.usage.source is UsageSource.ENGINE
    assert capture.pools == (charge // 2,)
    assert not capture.partial
    assert house.ledger.funds["shop"] == 10**9 - charge


async def test_the_served_tokens_lie_where_the_worker_finds_them(house: House) -> None:
    answer = await house.ask({"model": "med", "prompt": "p"}, path="/v1/completions")
    inference = answer.headers["x-byline-inference-id"]
    sha256 = house.ledger.captures[inference].tokens_sha256
    assert sha256 is not None
    tokens = read_served(house.served, inference, sha256)
    assert (tokens.prompt, tokens.choices) == ((11, 12, 13), ((101, 102, 103),))
    assert len(tokens.salt) == 32, "so that nobody can try guesses of a prompt against the hash"


async def test_the_engine_is_asked_for_the_version_with_token_ids(house: House) -> None:
    answer = await house.ask({**CHAT, "temperature": 0, "top_k": 5, "return_token_ids": False})
    path, headers, fields = house.engine.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["x-request-id"] == answer.headers["x-byline-inference-id"]
    assert fields["model"] == MED.version
    assert fields["return_token_ids"] is True
    assert (fields["temperature"], fields["top_k"]) == (0, 5)
    assert "stream_options" not in fields


async def test_what_else_a_client_asks_passes_on_untouched(house: House) -> None:
    schema = {"name": "x", "strict": True, "schema": {"type": "object", "required": []}}
    parameters = {"type": "object", "properties": {"a": {"type": "null"}}}
    content = [{"type": "text", "text": "\u2028"}]
    asked = {
        "messages": [{"role": "user", "name": "z\u00fc", "content": content}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}],
        "tool_choice": "auto", "parallel_tool_calls": False, "max_tokens": 4, "n": 1, "user": "u",
        "response_format": {"type": "json_schema", "json_schema": schema}, "seed": 2**62,
        "logprobs": True, "top_logprobs": 2, "stop": ["a", ""], "logit_bias": {"7": -1.5},
        "temperature": 0.1, "top_p": 1e-7, "metadata": {"a": "b"},
        "structured_outputs": {"regex": "a"},
        "unheard_of": {"deep": [None, True, 1.0, {"": ""}]},
    }  # fmt: skip
    await house.ask({"model": "med", **asked})
    sent = house.engine.asked[0][2]
    assert {name: sent[name] for name in sent if name in asked} == asked
    assert sent.keys() - asked.keys() == {"model", "return_token_ids", "cache_salt"}
    assert json.dumps(sent["unheard_of"]) == json.dumps(asked["unheard_of"])


async def test_what_is_the_gateways_to_set_is_stripped(house: House) -> None:
    stripped = {
        "priority": -9, "request_id": "mine", "cache_salt": "s", "vllm_xargs": {"a": 1},
        "kv_transfer_params": {}, "ec_transfer_params": {}, "session_id": "theirs",
    }  # fmt: skip
    assert (await house.ask({**CHAT, **stripped})).status == 200
    sent = house.engine.asked[0][2]
    assert stripped.keys() & sent.keys() == {"cache_salt"}
    assert sent["cache_salt"] == cache_salt("shop")


async def test_each_application_has_a_prefix_cache_of_its_own(house: House) -> None:
    house.ledger.funds["other"] = 10**9
    for key in (SHOP, OTHER, SHOP):
        assert (await house.ask(CHAT, key=key)).status == 200
    first, other, again = (fields["cache_salt"] for _, _, fields in house.engine.asked)
    assert first == again != other
    assert len(first) == 64


async def test_the_hold_covers_the_longest_answer(house: House) -> None:
    house.engine.choices = [[1], [2, 3]]
    body = json.dumps({**CHAT, "n": 2}).encode()
    answer = await house.ask(data=body)
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    prompt_tokens_max = len(body) + 64 + 16
    assert capture.held_nano == charge_nano(POLICY.adapter_price, prompt_tokens_max, 2 * 8)


async def test_without_a_limit_the_hold_covers_the_context(house: House) -> None:
    fields = {"model": "med", "messages": [{"role": "user", "content": "x" * 3_000}]}
    answer = await house.ask(fields)
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    assert capture.held_nano == charge_nano(POLICY.adapter_price, 2048, 2048)


async def test_each_of_several_choices_gets_its_part_of_the_pool(house: House) -> None:
    house.engine.choices = [[1, 2, 3], [4]]
    answer = await house.ask({**CHAT, "n": 2})
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    assert capture.usage.completion_tokens == (3, 1)
    assert len(capture.pools) == 2
    assert abs(capture.pools[0] - 3 * capture.pools[1]) <= 3
    assert sum(capture.pools) + sum(leg.nano for leg in capture.credits) == capture.charge_nano


async def test_a_base_model_answer_has_no_pool_and_keeps_no_tokens(house: House) -> None:
    answer = await house.ask({**CHAT, "model": "tiny"})
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    assert (capture.pools, capture.skipped, capture.adapter_version) == ((), "base_model", None)
    assert capture.charge_nano == charge_nano(POLICY.base_price, 3, 3)
    assert capture.tokens_sha256 is None
    assert not house.served.exists()
    assert house.engine.asked[0][2]["model"] == "tiny"


async def test_an_exact_version_may_be_asked_for(house: House) -> None:
    answer = await house.ask({**CHAT, "model": MED.version})
    assert answer.headers["x-byline-adapter"] == MED.version


async def test_auto_goes_where_the_router_says(house: House) -> None:
    fields = {"model": "auto", "messages": [
        {"role": "user", "content": "an exploit"}, {"role": "assistant", "content": "?"},
        {"role": "user", "content": [{"type": "text", "text": "I have a fever"}]},
    ]}  # fmt: skip
    answer = await house.ask(fields)
    assert answer.headers["x-byline-adapter"] == MED.version
    assert answer.headers["x-byline-route-confidence"] == "0.9000"
    assert answer.headers["x-byline-route-runner-up"] == "cyber"
    assert house.ledger.captures[answer.headers["x-byline-inference-id"]].model == "auto"
    assert house.metric("byline_auto_routed_total", model="med") == 1


async def test_auto_below_the_floor_is_answered_by_the_base_model(house: House) -> None:
    answer = await house.ask({"model": "auto", "prompt": "a poem"}, path="/v1/completions")
    assert answer.headers["x-byline-adapter"] == "tiny"
    assert answer.headers["x-byline-route-confidence"] == "0.2100"
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    assert capture.skipped == "base_model"


async def test_auto_without_a_text_is_refused(house: House) -> None:
    answer = await house.ask({"model": "auto", "prompt": [1, 2]}, path="/v1/completions")
    assert (answer.status, answer.fields["error"]["param"]) == (400, "model")


async def test_an_operator_may_ask_too(house: House) -> None:
    house.ledger.funds["ops"] = 10**9
    assert (await house.ask(CHAT, key=OPERATOR)).status == 200


async def test_an_answer_without_tokens_gives_the_hold_back(house: House) -> None:
    house.engine.choices = [[]]
    answer = await house.ask(CHAT)
    assert answer.status == 200
    assert house.ledger.voids == [answer.headers["x-byline-inference-id"]]
    assert not house.ledger.captures
    assert house.ledger.funds["shop"] == 10**9


async def test_usage_that_differs_from_the_token_ids_is_counted(house: House) -> None:
    house.engine.usage_off_by = 2
    answer = await house.ask(CHAT)
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    assert capture.usage.completion_tokens == (5,)
    assert house.metric("byline_usage_mismatch_total") == 1


async def test_a_full_disk_leaves_the_charge_and_a_hash_that_nothing_has(house: House) -> None:
    house.served.write_text("a file where the folder should be")
    answer = await house.ask(CHAT)
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    assert capture.tokens_sha256 == "0" * 64


async def test_the_metrics_tell_what_was_asked(house: House) -> None:
    await house.ask(CHAT)
    await house.ask({**CHAT, "stream": True})
    route = {"route": "/v1/chat/completions"}
    assert house.metric("byline_requests_total", **route, model="med", status="200") == 2
    assert house.metric("byline_own_seconds_count", **route) == 2
    assert house.metric("byline_upstream_seconds_count", **route) == 2
    assert house.metric("byline_first_token_seconds_count", model="med") == 1
    assert house.metric("byline_tokens_total", model="med", kind="completion") == 6
    assert house.metric("byline_usage_total", source="engine") == 2
    await eventually(lambda: house.metric("byline_captures_waiting") == 0)
    assert house.metric("byline_charged_nano_total", model="med") == 2 * 2250


async def test_names_that_clients_invent_never_become_labels(house: House) -> None:
    await house.ask({**CHAT, "model": "invented"})
    await house.get("/invented/path")
    assert b"invented" not in (await house.get("/metrics")).body


async def test_keys_and_prompts_are_never_logged(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    await house.ask(CHAT)
    await house.ask({**CHAT, "n": 99}, key=SHOP)
    await house.ask(CHAT, key="byl_wrong-secret")
    house.engine.stop_after = 0
    await house.ask(CHAT)
    ours = "\n".join(r.getMessage() for r in caplog.records)
    assert SHOP not in ours
    assert "wrong-secret" not in ours
    assert "What helps?" not in ours


@pytest.mark.parametrize(("given", "sent"), [(["hi"], "hi"), ([[5, 6]], [5, 6])])
async def test_a_list_of_one_prompt_is_that_prompt(
    house: House, given: object, sent: object
) -> None:
    """LangChain's and others' clients of completions always send lists."""
    answer = await house.ask({"model": "med", "prompt": given}, path="/v1/completions")
    assert answer.status == 200
    assert house.engine.asked[0][2]["prompt"] == sent


IMAGE = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[1,1]"}}


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "See:"}, IMAGE]}]},
        {"messages": [{"role": "user", "content": [{"image_url": "http://x/y.png"}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALLED]}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"documents": [{"text": "x"}]},
        {"chat_template_kwargs": {"thinking": True}},
    ],
)
async def test_what_bytes_do_not_bound_is_held_as_a_whole_context(
    house: House, change: dict[str, object]
) -> None:
    """An image has more tokens than its address has bytes; a template writes tools with indents."""
    house.engine.prompt = [7] * RELEASE.context_tokens
    answer = await house.ask({**CHAT, **change, "max_tokens": 8})
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    price = POLICY.adapter_price
    assert capture.held_nano == charge_nano(price, RELEASE.context_tokens, 8)
    assert capture.charge_nano == charge_nano(price, RELEASE.context_tokens, 3)
