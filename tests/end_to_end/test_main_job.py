"""The main job on real parts: contributed rows have become a paid answer, and the books balance."""

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, AuthenticationError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from byline.bookkeeping.gauges import FOUND
from byline.command.asking import attribution_of, get_json
from byline.limits import PPB
from byline.registry import read_release
from byline.served import served_inferences
from helm.dashboards.expressions import missing_metrics
from tests.end_to_end.conftest import Running

pytestmark = pytest.mark.engine
ARCHIVED_SECONDS = 5.0  # it takes well below one; the machine may be busy
SPECIALISTS = ("healthcare", "cybersecurity", "compliance")
QUESTION: list[ChatCompletionUserMessageParam] = [
    {"role": "user", "content": "What does a broad nasal bridge look like?"}
]


@pytest.fixture(scope="session")
def client(running: Running) -> Iterator[OpenAI]:
    url, api_key = f"{running.url}/v1", running.keys["application"]
    with OpenAI(base_url=url, api_key=api_key, max_retries=0) as opened:
        yield opened


def operator_view(running: Running, inference: str) -> dict[str, object]:
    return attribution_of(running.url, running.keys["operator"], inference)


def test_each_specialist_answers_and_its_contributors_are_named(running: Running) -> None:
    by_model = {answer["model"]: answer for answer in running.report["answers"]}
    for name in SPECIALISTS:
        answer = by_model[name]
        assert answer["text"].strip()
        assert answer["adapter"].startswith(f"{name}@")
        assert answer["state"] == "done"
        assert answer["shares"] or answer["unattributed_nano"] == answer["pool_nano"]
        assert answer["examples"]


def test_every_charge_is_the_sum_of_its_legs_and_every_pool_of_its_shares(running: Running) -> None:
    for answer in running.report["answers"]:
        assert sum(answer["legs"].values()) == answer["charge_nano"]
        paid = sum(share["nano"] for share in answer["shares"])
        assert paid + answer["unattributed_nano"] == answer["pool_nano"]
        if answer["pool_nano"]:
            ppb = sum(share["share_ppb"] for share in answer["shares"])
            assert ppb + answer["unattributed_ppb"] == PPB


def test_auto_reaches_a_specialist_and_leaves_small_talk_to_the_base_model(
    running: Running,
) -> None:
    autos = {a["question"]: a for a in running.report["answers"] if a["model"] == "auto"}
    base = read_release(running.home / "release.json").base_model
    small_talk = autos.pop("Write two lines about the sea at night.")
    assert small_talk["adapter"] == base
    assert (small_talk["state"], small_talk["reason"]) == ("skipped", "base_model")
    assert small_talk["pool_nano"] == 0
    assert not small_talk["shares"]
    reached = {answer["adapter"].partition("@")[0] for answer in autos.values()}
    assert reached == set(SPECIALISTS)


def test_the_books_balance(running: Running) -> None:
    assert running.report["accounts_sum_nano"] == 0
    assert running.books().balanced


def test_a_streamed_answer_is_the_plain_one_and_costs_the_same(
    running: Running, client: OpenAI
) -> None:
    plain = client.chat.completions.with_raw_response.create(
        model="healthcare", messages=QUESTION, max_tokens=24, temperature=0
    )
    with client.chat.completions.with_streaming_response.create(
        model="healthcare", messages=QUESTION, max_tokens=24, temperature=0, stream=True
    ) as streamed:
        events = [line for line in streamed.iter_lines() if line.startswith("data: ")]
        streamed_id = streamed.headers["x-byline-inference-id"]
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert all(chunk["choices"] for chunk in chunks), "the usage chunk was not asked for"
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == plain.parse().choices[0].message.content
    one = operator_view(running, plain.headers["x-byline-inference-id"])
    other = operator_view(running, streamed_id)
    for key in ("charge_nano", "prompt_tokens", "completion_tokens", "pool_nano"):
        assert one[key] == other[key]


def test_text_completions_are_attributed_too(running: Running, client: OpenAI) -> None:
    raw = client.completions.with_raw_response.create(
        model="cybersecurity", prompt="SQL injection is", max_tokens=12, temperature=0
    )
    assert raw.parse().choices[0].text
    found = operator_view(running, raw.headers["x-byline-inference-id"])
    assert found["state"] == "done"


def test_each_choice_is_attributed_by_itself(running: Running, client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="compliance", messages=QUESTION, max_tokens=12, n=2, temperature=1.0, seed=7
    )
    found = operator_view(running, raw.headers["x-byline-inference-id"])
    choices = found["choices"]
    assert isinstance(choices, list)
    assert [choice["state"] for choice in choices] == ["done", "done"]
    assert sum(choice["pool_nano"] for choice in choices) == found["pool_nano"]


def newest_earning(url: str, key: str, inference: str) -> dict[str, Any]:
    """The contributor's newest line, once the archive has it: soon after the settlement."""
    deadline = time.monotonic() + ARCHIVED_SECONDS
    while True:
        earned = get_json(f"{url}/v1/contributors/me/earnings", key)
        newest: dict[str, Any] = earned["lines"][0]
        if newest["inference"] == inference:
            return newest
        assert time.monotonic() < deadline, "the archive is late"
        time.sleep(0.1)


def test_a_contributor_sees_its_own_line_and_no_other(running: Running, client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="healthcare", messages=QUESTION, max_tokens=12, temperature=0
    )
    inference = raw.headers["x-byline-inference-id"]
    paid = attribution_of(running.url, running.keys["application"], inference)["shares"][0]
    contributor = paid["contributor"]
    key = running.keys["contributors"][contributor]
    seen = get_json(f"{running.url}/v1/attributions/{inference}", key)
    assert [share["contributor"] for share in seen["shares"]] == [contributor]
    assert {example["contributor"] for example in seen["examples"]} <= {contributor}
    assert "legs" not in seen
    newest = newest_earning(running.url, key, inference)
    assert newest["nano"] == paid["nano"]


def test_wrong_callers_get_errors_in_openai_shape(running: Running, client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as missing:
        client.chat.completions.create(model="no-such-adapter", messages=QUESTION)
    assert missing.value.code == "model_not_found"
    stranger = OpenAI(base_url=f"{running.url}/v1", api_key="byl_wrong", max_retries=0)
    with pytest.raises(AuthenticationError):
        stranger.chat.completions.create(model="healthcare", messages=QUESTION)
    with pytest.raises(APIStatusError) as refused:
        client.chat.completions.create(model="healthcare", messages=QUESTION, temperature=-3)
    assert refused.value.status_code == 400
    assert running.books().balanced


def samples(url: str) -> dict[str, float]:
    """Every sample of a `/metrics` page: name and labels to value."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def test_the_bookkeeper_finds_nothing_and_the_archive_has_everything(running: Running) -> None:
    entries = running.books().journal_entries
    deadline = time.monotonic() + ARCHIVED_SECONDS
    while True:
        books, archive = samples(running.bookkeeper_url), samples(running.archive_metrics_url)
        if (
            min(
                books['byline_books_folded_seq{ledger="usd"}'],
                archive['byline_archive_exported_seq{ledger="usd"}'],
            )
            >= entries
        ):
            break
        assert time.monotonic() < deadline, "bookkeeper or archive is late"
        time.sleep(0.1)
    for finding in FOUND:
        assert books[f'{finding}{{ledger="usd"}}'] == 0
    usage = get_json(f"{running.url}/v1/usage", running.keys["application"])
    assert usage["total"]["inferences"] >= len(running.report["answers"])
    assert usage["total"]["charge_nano"] >= sum(a["charge_nano"] for a in running.report["answers"])


def test_every_metric_of_the_dashboard_is_exported_by_this_run(running: Running) -> None:
    texts = []
    for url in (
        running.url,
        running.worker_url,
        running.archive_metrics_url,
        running.bookkeeper_url,
        running.notary_url,
    ):
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
            texts.append(response.read().decode())
    dashboard = Path("helm/dashboards/byline.json").read_text()
    missing = missing_metrics(dashboard, texts)
    # Nobody has trained counterfactual runs here, so no auditor is started.
    assert {name for name in missing if not name.startswith("byline_audit")} == set()


def test_served_token_ids_are_gone_once_settled(running: Running) -> None:
    kept = served_inferences(running.home / "artifacts/served")
    settled = [
        each["inference_id"] for each in running.report["answers"] if each["state"] == "done"
    ]
    assert settled
    assert not set(kept) & set(settled)
