"""The users of a load test: applications that ask, plain and streamed, and polling contributors.

Reads BYLINE_URL, BYLINE_KEYS (the path of keys.json) and, where it is set, BYLINE_INFERENCES: a
file to which the id of each answered inference is appended.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from locust import HttpUser, between, events, task
from locust.clients import ResponseContextManager

TIMEOUT_SECONDS = 300.0
COMPLETION_TOKENS = (16, 24)
FIRST_TOKEN = "FIRST"  # the request type of first-token times, which are no requests
QUESTIONS = (
    "What does a broad nasal bridge look like?",
    "Which signs belong to an abnormal curvature of the spine?",
    "Why is it dangerous when a program trusts the length field of a packet?",
    "How does an attacker use a page that prints input without escaping it?",
    "What must we do so that nobody can change audit records?",
    "Which controls limit remote access to our cloud systems?",
    "Write two lines about the sea at night.",
)


def count_user_errors(environment: Any, **_: object) -> None:  # noqa: ANN401 - see below
    """Count what a user's code stumbles over as a failure: Locust itself only logs it."""

    def count(exception: Exception, **_: object) -> None:
        environment.events.request.fire(
            request_type="ERROR",
            name=f"{type(exception).__name__} of a user",
            response_time=0,
            response_length=0,
            exception=exception,
            context={},
        )

    environment.events.user_error.add_listener(count)


# Locust knows no other way in than at import, and gives its hooks no types.
events.init.add_listener(count_user_errors)  # type: ignore[no-untyped-call]


class BylineUser(HttpUser):
    """What all users share: the address and the keys."""

    abstract = True
    host = os.environ.get("BYLINE_URL")
    wait_time = between(0.05, 0.25)

    def keys(self) -> dict[str, Any]:
        """The demo's API keys."""
        found: dict[str, Any] = json.loads(Path(os.environ["BYLINE_KEYS"]).read_text())
        return found


class Asking(BylineUser):
    """An application: short questions to every adapter, to the base model and to `auto`."""

    abstract = True

    def on_start(self) -> None:
        """Authenticate, and learn which models there are."""
        self.client.headers["Authorization"] = f"Bearer {self.keys()['application']}"
        response = self.client.get("/v1/models", name="models")
        self.models = [model["id"] for model in response.json()["data"]]

    def question(self, *, stream: bool) -> dict[str, Any]:
        """The body of one request."""
        return {
            "model": random.choice(self.models),
            "messages": [{"role": "user", "content": random.choice(QUESTIONS)}],
            "max_tokens": random.randint(*COMPLETION_TOKENS),
            "stream": stream,
        }

    def answered(self, response: ResponseContextManager) -> None:
        """Keep the inference's id for whoever waits for its attribution."""
        file = os.environ.get("BYLINE_INFERENCES")
        if file:
            with Path(file).open("a") as lines:
                lines.write(response.headers["x-byline-inference-id"] + "\n")


class ChatPlain(Asking):
    """Asks and waits for the whole answer."""

    weight = 3

    @task
    def ask(self) -> None:
        """One chat completion."""
        with self.client.post(
            "/v1/chat/completions",
            json=self.question(stream=False),
            name="chat plain",
            timeout=TIMEOUT_SECONDS,
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}: {response.text[:200]}")
                return
            body = response.json()
            if not body["choices"] or body["usage"]["completion_tokens"] < 1:
                response.failure("an answer without choices or usage")
                return
            self.answered(response)


class ChatStreamed(Asking):
    """Asks and reads the answer as it comes, to its very end."""

    weight = 3

    @task
    def ask(self) -> None:
        """One streamed chat completion; its first token is a figure of its own."""
        began = time.perf_counter()
        with self.client.post(
            "/v1/chat/completions",
            json=self.question(stream=True),
            name="chat streamed",
            timeout=TIMEOUT_SECONDS,
            stream=True,
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}: {response.text[:200]}")
                return
            first_seconds, problem = read_stream(response.iter_lines(), began)
            # Locust has timed the headers only; the answer is there when its stream has ended.
            response.request_meta["response_time"] = (time.perf_counter() - began) * 1_000
            if problem:
                response.failure(problem)
                return
            self.answered(response)
        if first_seconds is not None:
            self.environment.events.request.fire(
                request_type=FIRST_TOKEN,
                name="chat streamed, first token",
                response_time=first_seconds * 1_000,
                response_length=0,
                exception=None,
                context={},
            )


class ContributorPolling(BylineUser):
    """A contributor who looks at the earnings page."""

    weight = 1
    wait_time = between(0.5, 1.5)

    def on_start(self) -> None:
        """Be one of the contributors."""
        secret = random.choice(list(self.keys()["contributors"].values()))
        self.client.headers["Authorization"] = f"Bearer {secret}"

    @task
    def poll(self) -> None:
        """The balance and the newest lines."""
        self.client.get("/v1/contributors/me/earnings", name="earnings", timeout=TIMEOUT_SECONDS)


def read_stream(lines: Iterator[bytes], began: float) -> tuple[float | None, str | None]:
    """Read a stream to its end: the seconds to its first text, and what is wrong with it."""
    first_seconds = None
    done = False
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            done = True
            continue
        event = json.loads(data)
        if "error" in event:
            return first_seconds, f"an error in the stream: {event['error']}"
        if first_seconds is None and any(c["delta"].get("content") for c in event["choices"]):
            first_seconds = time.perf_counter() - began
    return first_seconds, None if done else "the stream ended without [DONE]"
