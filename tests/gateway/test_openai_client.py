"""The official client needs nothing changed but `base_url`."""

import asyncio

import openai
import pytest

from tests.gateway.conftest import CHAT, MED, SHOP, House, eventually

pytestmark = pytest.mark.anyio

MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]


def client_of(house: House, key: str = SHOP, retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=retries)


async def test_a_plain_answer(house: House) -> None:
    async with client_of(house) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="med", messages=MESSAGES, max_tokens=8
        )
    completion = raw.parse()
    assert completion.choices[0].message.content == " w101 w102 w103"
    assert completion.model == MED.version
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 3
    assert raw.headers["x-byline-adapter"] == MED.version


async def test_a_streamed_answer(house: House) -> None:
    async with client_of(house) as client:
        stream = await client.chat.completions.create(
            model="med", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "w103" in text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 3


async def test_completions_plain_and_streamed(house: House) -> None:
    async with client_of(house) as client:
        plain = await client.completions.create(model="med", prompt=[1, 2, 3], max_tokens=4)
        assert plain.choices[0].text == " w101 w102 w103"
        stream = await client.completions.create(model="auto", prompt="a fever", stream=True)
        texts = [chunk.choices[0].text async for chunk in stream]
    assert len(texts) == 3
    assert house.engine.asked[1][2]["model"] == MED.version


async def test_the_synchronous_client(house: House) -> None:
    def ask() -> tuple[str | None, int]:
        with openai.OpenAI(base_url=f"{house.url}/v1", api_key=SHOP, max_retries=0) as client:
            completion = client.chat.completions.create(model="med", messages=MESSAGES)
            stream = client.chat.completions.create(model="med", messages=MESSAGES, stream=True)
            return completion.choices[0].message.content, len(list(stream))

    text, chunks = await asyncio.to_thread(ask)
    assert (text, chunks) == (" w101 w102 w103", 4)


async def test_models_are_listed_and_retrieved(house: House) -> None:
    async with client_of(house) as client:
        models = [model.id async for model in client.models.list()]
        assert models == ["tiny", "med", "cyber", "auto"]
        assert (await client.models.retrieve(MED.version)).owned_by == "clinic"


async def test_each_error_becomes_the_clients_own_exception(house: House) -> None:
    async with client_of(house) as client:
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.chat.completions.create(model="nobody", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(model="med", messages=MESSAGES, n=99)
        assert bad.value.param == "n"
    async with client_of(house, "byl_wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_a_call_without_funds_is_not_tried_again(house: House) -> None:
    house.ledger.funds["shop"] = 0
    async with client_of(house, retries=2) as client:
        with pytest.raises(openai.RateLimitError) as broke:
            await client.chat.completions.create(model="med", messages=MESSAGES)
    assert broke.value.code == "insufficient_quota"
    assert house.ledger.attempts == ["hold"]


async def test_a_stream_that_breaks_raises(house: House) -> None:
    house.engine.stop_after = 2
    async with client_of(house) as client:
        stream = await client.chat.completions.create(stream=True, **CHAT)  # type: ignore[call-overload]
        with pytest.raises(openai.APIError, match="stopped"):
            [chunk async for chunk in stream]


async def test_closing_a_stream_aborts_the_engine(house: House) -> None:
    house.engine.hang_after = 2
    async with client_of(house) as client:
        stream = await client.chat.completions.create(model="med", messages=MESSAGES, stream=True)
        await anext(aiter(stream))
        await anext(aiter(stream))
        await stream.close()
        await asyncio.wait_for(house.engine.aborted.wait(), 5)
    await eventually(lambda: house.ledger.captures)
