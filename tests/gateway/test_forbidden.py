"""Nothing that a client sends reaches the engine but a question: no field of the gateway's own, no
route of the engine's administration, and no fault of ours whatever the fields are."""

import asyncio
import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.inferences import cache_salt
from tests.gateway.conftest import CHAT, CYBER, MED, SHOP, House

pytestmark = pytest.mark.anyio

ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/tokenize",
          "/v1/detokenize", "/v1/embeddings")  # fmt: skip
ENGINE_ROUTES = {"/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"}
# What vLLM offers beside its questions, in some of its modes.
ADMINISTRATION = (
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/load_lora_adapter", "/reset_prefix_cache",
    "/sleep", "/wake_up", "/collective_rpc", "/server_info", "/update_weights", "/start_profile",
    "/v1/chat/completions/render", "/inference/v1/generate", "/inference/v1/abort_requests",
    "/tokenizer_info", "/tokenize", "/detokenize", "/invocations", "/scale_elastic_ep", "/version",
    "/v1/chat/completions/../load_lora_adapter", "/v1//load_lora_adapter",
    "/v1/models/../load_lora_adapter", "/v1/responses/resp_1", "/v1/responses/resp_1/cancel",
)  # fmt: skip
# Written out: a name that is taken off the gateway's own lists must be missed here.
REFUSED = {
    "best_of",
    "stream_interval",
    "use_beam_search",
    "echo",
    "prompt_logprobs",
    "prompt_embeds",
    "chat_template",
}
STRIPPED = {"priority", "request_id", "session_id", "cache_salt", "vllm_xargs", "stream_options",
            "kv_transfer_params", "ec_transfer_params", "return_token_ids", "byline"}  # fmt: skip
OURS = REFUSED | STRIPPED
# What the engine is sent under such a name is the gateway's.
SET = {"cache_salt", "return_token_ids", "stream_options"}
names = st.one_of(
    st.sampled_from(sorted(OURS)),
    st.sampled_from(
        [
            "model", "messages", "prompt", "input", "stream", "n", "max_tokens", "tools",
            "tool_choice", "max_output_tokens", "text", "instructions", "response_format",
            "structured_outputs", "chat_template_kwargs", "documents", "stop", "user", "logit_bias",
            "lora_name", "lora_path", "truncate_prompt_tokens", "mm_processor_kwargs", "tokens",
            "metadata", "add_special_tokens", "reasoning", "reasoning_effort", "store", "include",
            "background",
        ]
    ),
    st.text(max_size=20),
)  # fmt: skip
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
        st.sampled_from(["med", "auto", MED.version, "/v1/load_lora_adapter", "../x", "inline"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
VALID: dict[str, dict[str, object]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "med", "prompt": "p", "max_tokens": 4},
    "/v1/responses": {"model": "med", "input": "What helps?"},
    "/v1/tokenize": {"model": "med", "prompt": "p"},
    "/v1/detokenize": {"model": "med", "tokens": [1]},
    "/v1/embeddings": {"model": "med", "input": "p"},
}


def post(house: House, path: str, body: bytes) -> tuple[int, bytes]:
    """One request of a client that sends what it likes."""
    connection = http.client.HTTPConnection(urlsplit(house.url).netloc, timeout=20)
    try:
        connection.request("POST", path, body, {"authorization": f"Bearer {SHOP}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


async def in_a_thread(check: Callable[[], None]) -> None:
    """hypothesis is synchronous, and the gateway runs on this loop."""
    await asyncio.to_thread(check)


def assert_harmless(house: House) -> None:
    """What the engine was asked is a question, in the gateway's words where they are its own."""
    for path, headers, fields in house.engine.asked:
        assert path in ENGINE_ROUTES
        assert not fields.keys() & (STRIPPED - SET)
        assert all(fields.get(name) in (None, False, 1) for name in REFUSED)
        assert fields["cache_salt"] == cache_salt("shop")
        assert fields["return_token_ids"] is True
        assert fields.get("stream_options") in (None, {"include_usage": True})
        assert fields["model"] in {"tiny", MED.version, CYBER.version}
        assert headers["content-type"] == "application/json"
        assert "authorization" not in headers
    assert all(fields["model"] == "tiny" for fields in house.engine.tokenized)
    assert {name for name, _ in house.engine.loads} <= {MED.version, CYBER.version}
    house.engine.asked.clear()


bounds = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("path", ROUTES)
async def test_no_field_reaches_the_engine_that_is_not_the_clients(house: House, path: str) -> None:
    house.ledger.funds["shop"] = 10**15

    @bounds
    @given(st.dictionaries(names, values, max_size=4), st.booleans())
    def check(change: dict[str, Any], stream: bool) -> None:
        body = {**VALID[path], **({"stream": True} if stream else {}), **change}
        try:
            sent = json.dumps(body).encode()
        except ValueError:
            return
        status, answer = post(house, path, sent)
        assert status < 500, answer
        if status >= 400:
            assert json.loads(answer)["error"].keys() == {"message", "type", "param", "code"}
        assert_harmless(house)

    await in_a_thread(check)


async def test_bytes_that_are_no_json_are_refused(house: House) -> None:
    @bounds
    @given(st.binary(max_size=200), st.sampled_from(ROUTES))
    def check(body: bytes, path: str) -> None:
        status, answer = post(house, path, body)
        assert 400 <= status < 500, answer

    await in_a_thread(check)
    assert not house.engine.asked


@pytest.mark.parametrize("path", ADMINISTRATION)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_engines_own_routes_are_not_ours(house: House, path: str, method: str) -> None:
    loads = list(house.engine.loads)

    def ask() -> int:
        connection = http.client.HTTPConnection(urlsplit(house.url).netloc, timeout=20)
        fields = {"lora_name": "x", "lora_path": "/etc", "model": "med", "prompt": "p"}
        connection.request(method, path, json.dumps(fields), {"authorization": f"Bearer {SHOP}"})
        status = connection.getresponse().status
        connection.close()
        return status

    assert await asyncio.to_thread(ask) in (404, 405)
    assert not house.engine.asked
    assert not house.engine.tokenized
    assert house.engine.loads == loads


@pytest.mark.parametrize("name", sorted(STRIPPED - SET - {"byline"}))
async def test_a_stripped_field_never_passes(house: House, name: str) -> None:
    answer = await house.ask({**CHAT, name: "theirs"})
    assert answer.status == 200
    assert name not in house.engine.asked[0][2]
