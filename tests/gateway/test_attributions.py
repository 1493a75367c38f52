"""GET /v1/attributions/{id}: its shape, the wait, and who sees what."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
import uuid_utils

from byline.canonical import canonical_text
from byline.limits import PPB
from byline.records import (
    Attribution,
    AttributionState,
    ExampleInfluence,
    Share,
    VerbatimRow,
    VerbatimSpan,
)
from byline.records_json import attribution_fields, attribution_from
from tests.gateway.conftest import ANN, BOB, CHAT, MED, OPERATOR, OTHER, OWNER, House, eventually

pytestmark = pytest.mark.anyio

STRANGER = "byl_stranger"
SPAN = VerbatimSpan((0, 16), (0, 4), 21.5, 1, (VerbatimRow("row-9", "ann", (3, 19), (1, 5)),))


def done(pending: Attribution) -> Attribution:
    """What a worker would settle: ann 60 %, bob 30 %, a tenth to nobody."""
    pool = pending.pool_nano
    ann, bob = pool * 6 // 10, pool * 3 // 10
    return replace(
        pending,
        state=AttributionState.DONE,
        lift_nats=2.5,
        shares=(Share("ann", 1.5, 600_000_000, ann), Share("bob", 0.7, 300_000_000, bob)),
        unattributed_nano=pool - ann - bob,
        unattributed_ppb=100_000_000,
        examples=(ExampleInfluence("row-1", "ann", 0.9), ExampleInfluence("row-2", "bob", 0.4)),
        scores={"ann": 1_500_000_000, "bob": 700_000_000, "cyd": -1},
        method="damped_fisher",
        reliability_ppb=900_000_000,
        libraries={"torch": "2.13.0"},
        tokens_sha256="ab" * 32,
        tokens_salt="cd" * 16,
        verbatim=(SPAN,),
    )


async def asked(house: House, *, settle: bool = True, **more: object) -> str:
    """The id of a captured inference."""
    inference = (await house.ask({**CHAT, **more})).headers["x-byline-inference-id"]
    if settle:
        settle_all(house, inference)
    return inference


def settle_all(house: House, inference: str) -> None:
    choices = house.ledger.attributions[inference]
    house.ledger.attributions[inference] = [done(choice) for choice in choices]


def path(inference: str, wait: float | None = None) -> str:
    query = "" if wait is None else f"?wait={wait}"
    return f"/v1/attributions/{inference}{query}"


async def test_the_payer_sees_everything(house: House) -> None:
    inference = await asked(house)
    answer = await house.get(path(inference))
    charge = 2250
    pool = charge // 2
    assert answer.status == 200
    choices = answer.fields.pop("choices")
    assert answer.fields == {
        "object": "attribution", "id": inference, "state": "done", "reason": None, "model": "med",
        "adapter": MED.version, "application": "shop", "time_ms": 1_000, "prompt_tokens": 3,
        "completion_tokens": 3, "usage_source": "engine", "partial": False, "charge_nano": charge,
        "legs": {
            "platform": 225, "host": answer.fields["legs"]["host"],
            "base:tiny": answer.fields["legs"]["base:tiny"], "owner:med": 450,
            f"open:{inference}": pool,
        },
        "pool_nano": pool, "unattributed_nano": pool - 675 - 337, "unattributed_ppb": 100_000_000,
        "lift_nats": 2.5, "index": MED.index,
        "shares": [
            {"contributor": "ann", "share_ppb": 600_000_000, "nano": 675, "score": 1.5},
            {"contributor": "bob", "share_ppb": 300_000_000, "nano": 337, "score": 0.7},
        ],
        "examples": [
            {"id": "row-1", "contributor": "ann", "score": 0.9},
            {"id": "row-2", "contributor": "bob", "score": 0.4},
        ],
        "method": "damped_fisher", "reliability_ppb": 900_000_000,
        "verbatim": [{
            "characters": [0, 16], "tokens": [0, 4],
            "rarity_nats": 21.5, "occurrences": 1,
            "rows": [{"id": "row-9", "contributor": "ann", "characters": [3, 19],
                      "tokens": [1, 5]}],
        }],
    }  # fmt: skip
    assert sum(answer.fields["legs"].values()) == charge
    assert [choice["ordinal"] for choice in choices] == [0]
    assert choices[0]["shares"] == answer.fields["shares"]


async def test_each_choice_is_its_record_byte_for_byte(house: House) -> None:
    """So its hash is the one in the journal, and its shares can be computed from it again."""
    inference = await asked(house)
    (settled,) = house.ledger.attributions[inference]
    (choice,) = (await house.get(path(inference))).fields["choices"]
    assert canonical_text(choice) == canonical_text(attribution_fields(settled))
    assert attribution_from(choice) == settled


async def test_an_attribution_that_is_not_there_yet_says_pending(house: House) -> None:
    answer = await house.get(path(await asked(house, settle=False)))
    assert (answer.status, answer.fields["state"], answer.fields["shares"]) == (200, "pending", [])


async def test_a_base_models_answer_is_skipped_with_its_reason(house: House) -> None:
    answer = await house.get(path(await asked(house, settle=False, model="tiny")))
    assert (answer.fields["state"], answer.fields["reason"]) == ("skipped", "base_model")
    assert (answer.fields["pool_nano"], answer.fields["shares"]) == (0, [])


async def test_a_failed_attribution_is_a_visible_state(house: House) -> None:
    house.engine.choices = [[1], [2]]
    inference = await asked(house, n=2)
    first, second = house.ledger.attributions[inference]
    failed = replace(second, state=AttributionState.FAILED, reason="index gone", shares=())
    house.ledger.attributions[inference] = [first, failed]
    answer = await house.get(path(inference))
    assert (answer.fields["state"], answer.fields["reason"]) == ("failed", "index gone")
    assert [choice["state"] for choice in answer.fields["choices"]] == ["done", "failed"]


async def test_several_choices_are_summed_to_one_whole(house: House) -> None:
    house.engine.choices = [[1, 2, 3], [4], [5, 6]]
    answer = await house.get(path(await asked(house, n=3)))
    fields: dict[str, Any] = answer.fields
    assert len(fields["choices"]) == 3
    for name in ("pool_nano", "unattributed_nano"):
        assert fields[name] == sum(choice[name] for choice in fields["choices"])
    paid = {share["contributor"]: share["nano"] for share in fields["shares"]}
    assert sum(paid.values()) + fields["unattributed_nano"] == fields["pool_nano"]
    ppb = [share["share_ppb"] for share in fields["shares"]]
    assert sum(ppb) + fields["unattributed_ppb"] == PPB
    assert fields["lift_nats"] == 7.5
    assert [example["id"] for example in fields["examples"]] == ["row-1", "row-2"]


async def test_the_wait_ends_when_the_worker_settles(house: House) -> None:
    inference = await asked(house, settle=False)
    waiting = asyncio.create_task(house.get(path(inference, 10)))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    settle_all(house, inference)
    answer = await asyncio.wait_for(waiting, 8)
    assert answer.fields["state"] == "done"


async def test_the_wait_is_bounded_and_then_says_what_there_is(house: House) -> None:
    inference = await asked(house, settle=False)
    began = time.monotonic()
    answer = await house.get(path(inference, 0.3))
    assert 0.3 <= time.monotonic() - began < 5
    assert answer.fields["state"] == "pending"


async def test_the_wait_covers_an_answer_that_is_not_captured_yet(house: House) -> None:
    house.ledger.capture_pause = 0.4
    house.engine.pause = 0.05
    async with house.http.post(
        f"{house.url}/v1/chat/completions",
        json={**CHAT, "stream": True},
        headers={"authorization": "Bearer byl_shop"},
    ) as response:
        inference = response.headers["x-byline-inference-id"]
        assert (await house.get(path(inference))).fields["state"] == "pending"
        assert (await house.get(path(inference), key="byl_other")).status == 404
        waiting = asyncio.create_task(house.get(path(inference, 10)))
        await response.read()
    await eventually(lambda: house.ledger.captures)
    settle_all(house, inference)
    assert (await waiting).fields["state"] == "done"


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "soon", ""])
async def test_a_wait_out_of_bounds_answers_400(house: House, wait: str) -> None:
    answer = await house.get(f"/v1/attributions/x?wait={wait}")
    assert (answer.status, answer.fields["error"]["param"]) == (400, "wait")


@pytest.mark.parametrize("name", ["x", "..%2f..%2fetc", str(uuid_utils.uuid4()), "a" * 500])
async def test_what_is_no_inference_id_answers_404(house: House, name: str) -> None:
    assert (await house.get(f"/v1/attributions/{name}")).status == 404


async def test_an_operator_sees_what_the_payer_sees(house: House) -> None:
    inference = await asked(house)
    payers, operators = await house.get(path(inference)), await house.get(path(inference), OPERATOR)
    assert payers.fields == operators.fields


async def test_a_contributor_sees_its_own_line_and_nothing_of_others(house: House) -> None:
    inference = await asked(house)
    answer = await house.get(path(inference), BOB)
    assert [share["contributor"] for share in answer.fields["shares"]] == ["bob"]
    assert [example["id"] for example in answer.fields["examples"]] == ["row-2"]
    assert answer.fields["shares"][0]["nano"] == 337
    assert (answer.fields["state"], answer.fields["adapter"]) == ("done", MED.version)
    assert b"ann" not in answer.body
    for private in (b"verbatim", b"row-9", b"tokens_salt", b"scores", b"abab"):
        assert private not in answer.body
    assert not {"application", "charge_nano", "legs", "prompt_tokens"} & answer.fields.keys()
    anns = await house.get(path(inference, 1), ANN)
    assert anns.fields["shares"][0]["contributor"] == "ann"


async def test_others_can_not_tell_it_from_one_that_does_not_exist(house: House) -> None:
    inference = await asked(house)
    absent = str(uuid_utils.uuid7())
    house.keys.callers[STRANGER] = replace(house.keys.callers[ANN], subject="stranger")
    for key in (OTHER, OWNER, STRANGER):
        theirs, none = await house.get(path(inference), key), await house.get(path(absent), key)
        assert (theirs.status, none.status) == (404, 404)
        assert theirs.body.replace(inference.encode(), b"") == none.body.replace(
            absent.encode(), b""
        )


async def test_another_application_does_not_even_wait(house: House) -> None:
    inference = await asked(house, settle=False)
    began = time.monotonic()
    assert (await house.get(path(inference, 10), OTHER)).status == 404
    assert time.monotonic() - began < 8


async def test_a_client_that_leaves_ends_its_wait(house: House) -> None:
    inference = await asked(house, settle=False)
    waiting = asyncio.create_task(house.get(path(inference, 30)))
    await eventually(lambda: house.metric("byline_requests_in_flight") == 1)
    waiting.cancel()
    await eventually(lambda: house.metric("byline_requests_in_flight") == 0)


async def test_a_ledger_that_is_away_answers_503(house: House) -> None:
    inference = await asked(house)
    house.ledger.away = True
    assert (await house.get(path(inference))).status == 503
