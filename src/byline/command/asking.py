"""Asks the gateway as any application would, with the `openai` client, and shows the byline."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from byline.errors import BylineError, NotFound
from byline.money import usd
from byline.records import Example

ATTRIBUTION_WAIT_SECONDS = 60
ANSWER_TOKENS_MAX = 64

# One question in the users' own words for each specialist, and through `auto` one that each should
# get and one that none should.
QUESTIONS: tuple[tuple[str, str], ...] = (
    ("healthcare", "A chart says the child has a broad nasal bridge. What does that look like?"),
    ("cybersecurity", "Why is it dangerous when a program trusts the length field of a packet?"),
    ("compliance", "What must we do about audit records so that nobody can change them?"),
    ("auto", "What is meant by an abnormal curvature of the spine?"),
    ("auto", "How can an attacker abuse a web page that prints user input without escaping it?"),
    ("auto", "Which controls limit remote access to our cloud systems?"),
    ("auto", "Write two lines about the sea at night."),
)


def get_json(url: str, api_key: str, *, seconds: float = 90.0) -> Any:  # noqa: ANN401 - JSON
    """GET a JSON document from the gateway. Raises BylineError with the gateway's own words."""
    request = urllib.request.Request(  # noqa: S310 - the gateway's own http address
        url, headers={"Authorization": f"Bearer {api_key}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as problem:
        text = problem.read().decode("utf-8", "replace")
        try:
            message = json.loads(text)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = text[:300]
        kind = NotFound if problem.code == 404 else BylineError
        raise kind(f"{message} (HTTP {problem.code})") from problem
    except (urllib.error.URLError, OSError) as problem:
        raise BylineError(f"the gateway at {url} did not answer: {problem}") from problem


def ask(
    url: str, api_key: str, model: str, question: str, *, max_tokens: int = ANSWER_TOKENS_MAX
) -> dict[str, Any]:
    """Ask one question; answers the answer's text together with its settled attribution."""
    from openai import APIError, OpenAI

    began = time.monotonic()
    with OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0, timeout=300.0) as client:
        try:
            raw = client.chat.completions.with_raw_response.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                max_tokens=max_tokens,
                temperature=0.0,
            )
        except APIError as problem:
            raise BylineError(f"asking {model}: {problem.message}") from problem
    completion = raw.parse()
    inference = raw.headers["x-byline-inference-id"]
    answered = time.monotonic()
    attribution = attribution_of(url, api_key, inference)
    return {
        "question": question,
        "text": completion.choices[0].message.content or "",
        "asked": model,
        "attribution": attribution,
        "answer_seconds": round(answered - began, 3),
        "attribution_seconds": round(time.monotonic() - answered, 3),
    }


def attribution_of(
    url: str, api_key: str, inference: str, *, wait_seconds: int = ATTRIBUTION_WAIT_SECONDS
) -> dict[str, Any]:
    """The attribution of one inference, waiting for it within bounds."""
    address = f"{url}/v1/attributions/{inference}?wait={wait_seconds}"
    found: dict[str, Any] = get_json(address, api_key, seconds=wait_seconds + 30.0)
    return found


def summary(answer: Mapping[str, Any]) -> dict[str, Any]:
    """One answer as `byline up --once --json` prints it."""
    attribution = answer["attribution"]
    keys = ("state", "reason", "prompt_tokens", "completion_tokens", "charge_nano", "legs",
            "pool_nano", "unattributed_nano", "unattributed_ppb", "lift_nats")  # fmt: skip
    return {
        "model": answer["asked"],
        "adapter": attribution["adapter"],
        "inference_id": attribution["id"],
        **{key: attribution[key] for key in keys},
        "shares": [
            {key: share[key] for key in ("contributor", "share_ppb", "nano")}
            for share in attribution["shares"]
        ],
        "examples": [
            {key: example[key] for key in ("id", "contributor", "score")}
            for example in attribution["examples"]
        ],
        "question": answer["question"],
        "text": answer["text"],
        "seconds": {key: answer[f"{key}_seconds"] for key in ("answer", "attribution")},
    }


def show_answer(console: Console, answer: Mapping[str, Any], rows: Mapping[str, Example]) -> None:
    """An answer and its byline, for a person; `rows` are the examples that can be quoted."""
    attribution = answer["attribution"]
    console.print()
    console.print(f"[bold]{answer['asked']}[/] -> {attribution['adapter']}", highlight=False)
    console.print(f"  Q  {answer['question']}", markup=False, highlight=False)
    console.print(f"  A  {answer['text'].strip()}", markup=False, highlight=False)
    charge = attribution["charge_nano"]
    tokens = f"{attribution['prompt_tokens']}+{attribution['completion_tokens']} tokens"
    console.print(f"  charged {usd(charge)} USD ({charge} nano, {tokens})", highlight=False)
    if not attribution["shares"]:
        reason = attribution["reason"] or attribution["state"]
        console.print(f"  nobody is paid for this one: {reason}", highlight=False)
        return
    for share in attribution["shares"][:6]:
        percent = share["share_ppb"] / 10_000_000
        console.print(
            f"  by {share['contributor']:<40} {percent:6.2f} %  {share['nano']:>10} nano",
            markup=False,
            highlight=False,
        )
    for example in attribution["examples"][:3]:
        row = rows.get(example["id"])
        quoted = row.prompt if row else example["id"]
        console.print(
            f"  from {quoted!r} ({example['contributor']}), influence {example['score']:+.3f}",
            markup=False,
            highlight=False,
        )
    for span in attribution["verbatim"][:3]:
        console.print(f"  {_said_verbatim(span, rows)}", markup=False, highlight=False)


def _said_verbatim(span: Mapping[str, Any], rows: Mapping[str, Example]) -> str:
    """Which words of the answer stand in which row."""
    where = span["rows"][0]
    row = rows.get(where["id"])
    words = row.completion[slice(*where["characters"])] if row else "..."
    others = f" and {span['occurrences'] - 1} more" if span["occurrences"] > 1 else ""
    return f"verbatim {words!r} in {where['id']} ({where['contributor']}){others}"


def earnings_table(balances: Mapping[str, int], names: Mapping[str, str]) -> Table:
    """What each contributor has earned, most first."""
    table = Table(title="Earnings")
    for column in ("contributor", "name"):
        table.add_column(column, overflow="fold")  # an id is broken, never cut
    for column in ("nano-USD", "USD"):
        table.add_column(column, justify="right", no_wrap=True)
    prefix = "contrib:"
    rows = [(nano, key) for key, nano in balances.items() if key.startswith(prefix)]
    for nano, account in sorted(rows, reverse=True):
        contributor = account.removeprefix(prefix)
        table.add_row(contributor, names.get(contributor, ""), str(nano), usd(nano))
    return table
