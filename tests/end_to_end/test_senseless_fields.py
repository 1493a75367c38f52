"""No field that a client may send kills a real engine, or makes it fail: it answers or it refuses.

Each field that this vLLM knows, and some it does not, has each of many values that make no sense.
The base model answers most of them: what a specialist answers, the worker has to attribute.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from byline.registry import read_release
from tests.end_to_end.conftest import Running

pytestmark = pytest.mark.engine
SECONDS_MAX = 60.0  # of one answer; what needs longer keeps others waiting
AT_ONCE = 8
SPECIALIST = "healthcare"
ENTRY = "vllm.entrypoints.openai"
CLASSES = {
    "/v1/chat/completions": f"{ENTRY}.chat_completion.protocol.ChatCompletionRequest",
    "/v1/completions": f"{ENTRY}.completion.protocol.CompletionRequest",
}
QUESTIONS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Why?"}]},
    "/v1/completions": {"prompt": "Why?"},
}
# The price is theirs, and a whole context takes its time.
LEFT_OUT = {"model", "max_tokens", "max_completion_tokens", "messages", "prompt"}
DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    True, 0, -1, -1e308, 2**63, 10**30, "", "\x00", "x" * 4_000, [], [-1], [10**9] * 300, [None],
    DEEP, {"x": 1}, {"999999999": 100}, {"type": "json_object"}, {"regex": "("}, {"choice": [""]},
    {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}},
    {"json": {"type": "array", "items": {"$ref": "#"}}}, {"grammar": "root ::= root"},
    {"type": "function", "function": {"name": "x"}},
    [{"type": "function", "function": {"name": "x", "parameters": {"type": "nothing"}}}],
)  # fmt: skip


def fields_of(name: str) -> list[str]:
    """The fields of one of vLLM's own classes; it is imported in a process of its own."""
    module, _, kind = name.rpartition(".")
    code = f"import json, {module} as m; print(json.dumps(list(m.{kind}.model_fields)))"
    argv = [sys.executable, "-c", code]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    found: list[str] = json.loads(ran.stdout.splitlines()[-1])
    return found


def post(running: Running, path: str, fields: dict[str, Any]) -> int:
    body = {"max_tokens": 2, **QUESTIONS[path], **fields}
    request = urllib.request.Request(
        running.url + path,
        json.dumps(body).encode(),
        {"authorization": f"Bearer {running.keys['application']}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:
            answer.read()
            status: int = answer.status
            return status
    except urllib.error.HTTPError as refused:
        return refused.code


@pytest.mark.parametrize("path", QUESTIONS)
def test_no_value_of_any_field_kills_the_engine(running: Running, path: str) -> None:
    names = [name for name in fields_of(CLASSES[path]) if name not in LEFT_OUT]
    assert len(names) > 40
    base = read_release(running.home / "release.json").base_model
    models = [SPECIALIST, *[base] * (len(VALUES) - 1)]
    answered: Counter[int] = Counter()
    faults: list[dict[str, Any]] = []
    with ThreadPoolExecutor(AT_ONCE) as clients:
        for name in (*names, "lora_name", "logits_processors", "unheard_of"):
            asked = [
                {name: value, "model": model} for value, model in zip(VALUES, models, strict=True)
            ]
            statuses = list(clients.map(lambda fields: post(running, path, fields), asked))
            faults += [f for f, status in zip(asked, statuses, strict=True) if status >= 500]
            answered.update(statuses)
            assert post(running, path, {"model": base}) == 200, f"after {name}"
    assert post(running, path, {"model": SPECIALIST}) == 200
    assert not faults
    assert min(answered[200], answered[400]) > 100, answered
    assert running.books().balanced
