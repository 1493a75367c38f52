"""The prompt of an answer that nobody waited for: the engine tells its token ids again.

A client that leaves pays for its prompt at least, and no charge is a guess: where the ids can't be
had exactly, there is no charge.
"""

import asyncio
import logging
from typing import Protocol

from byline.errors import EngineError, InvalidInput
from gateway.answers import token_ids
from gateway.engine_client import Ask
from gateway.wire import Endpoint, JsonObject, Question, dumped, read_object

log = logging.getLogger("gateway")

TOKENIZE = "/tokenize"
TOKENIZE_SECONDS = 5.0
# What the engine's tokenizer takes by the names that a chat has them by ...
SAME = (
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
)
# ... and what a chat hands to its template beside the client's own values for it.
TO_TEMPLATE = ("documents", "reasoning_effort")


class Asks(Protocol):
    """What is needed of an engine client."""

    async def ask(self, ask: Ask) -> bytes:
        """The engine's whole answer."""


async def prompt_of(
    engine: Asks, question: Question, served_by: str, inference: str, context_tokens: int
) -> tuple[int, ...] | None:
    """The prompt's token ids, or None: they can't be had, or the engine would have refused it."""
    fields = question.fields
    prompt = fields.get("prompt")
    if isinstance(prompt, list):
        ids = tuple(prompt)
    elif (body := tokenize_body(question, served_by)) is None:
        return None
    else:
        try:
            async with asyncio.timeout(TOKENIZE_SECONDS):
                raw = await engine.ask(Ask(TOKENIZE, dumped(body), inference))
            ids = token_ids(read_object(raw).get("tokens"))
        except (EngineError, InvalidInput, TimeoutError, ValueError) as problem:
            # Without the engine's words, which may quote the prompt.
            log.warning("the prompt of %s was not counted: %s", inference, type(problem).__name__)
            return None
    ids = _truncated(ids, fields)
    return ids if 0 < len(ids) < context_tokens else None


def tokenize_body(question: Question, served_by: str) -> JsonObject | None:
    """What the engine's tokenizer is asked; None where a part of the prompt is no text."""
    fields = question.fields
    if question.endpoint is Endpoint.COMPLETION:
        special = {"add_special_tokens": fields.get("add_special_tokens", True)}
        return {"model": served_by, "prompt": fields["prompt"], **special}
    given = fields.get("chat_template_kwargs") or {}
    if not question.is_text or not isinstance(given, dict):
        return None
    template = dict(given)
    template |= {name: fields[name] for name in TO_TEMPLATE if fields.get(name) is not None}
    if fields.get("reasoning_effort") is not None:  # as the engine's chat does it
        template.setdefault("enable_thinking", fields["reasoning_effort"] != "none")
    body = {name: fields[name] for name in SAME if fields.get(name) is not None}
    return {"model": served_by, **body, **({"chat_template_kwargs": template} if template else {})}


def _truncated(ids: tuple[int, ...], fields: JsonObject) -> tuple[int, ...]:
    """As the engine cuts a prompt: the end stays, unless it was told to cut that."""
    most = fields.get("truncate_prompt_tokens")
    if type(most) is not int or not 0 < most < len(ids):
        return ids
    return ids[:most] if fields.get("truncation_side") == "right" else ids[-most:]
