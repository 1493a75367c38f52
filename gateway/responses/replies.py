"""A chat's answer as a response object."""

import json

from byline.errors import EngineBroke
from gateway.wire import JsonObject

# Why an answer ended before its end, by the chat's finish reason.
CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}


def response_object(
    response_id: str, created: int, model: str, echo: JsonObject, *, status: str = "in_progress"
) -> JsonObject:
    """A response that has no output yet."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        **echo,
        "usage": None,
    }


def finished(response: JsonObject, output: list[JsonObject], reason: str | None,
             usage: JsonObject | None) -> JsonObject:  # fmt: skip
    """The response with its output, as the chat's finish reason says that it ended."""
    return {
        **response,
        "status": status_of(reason),
        "incomplete_details": {"reason": CUT[reason]} if reason in CUT else None,
        "output": output,
        "usage": usage_fields(usage) if usage else None,
    }


def status_of(reason: str | None) -> str:
    """The status of a response, and of its last item, as the chat's finish reason says."""
    return "incomplete" if reason in CUT else "completed"


def output_of(message: JsonObject, response_id: str, reason: str | None) -> list[JsonObject]:
    """The output items of a chat's message: its text, then the functions that it calls."""
    calls = message.get("tool_calls") or []
    items: list[JsonObject] = []
    if message.get("content") or not calls:
        items.append(text_item(item_id("msg", response_id, 0), message.get("content") or ""))
    for call in calls:
        function = call["function"]
        items.append(
            call_item(
                item_id("fc", response_id, len(items)),
                call["id"],
                function["name"],
                function["arguments"],
            )
        )
    items[-1]["status"] = status_of(reason)
    return items


def item_id(kind: str, response_id: str, place: int) -> str:
    """The id of one output item."""
    return f"{kind}_{response_id.removeprefix('resp_')}_{place}"


def text_part(text: str) -> JsonObject:
    """A message's one part."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def text_item(name: str, text: str, status: str = "completed") -> JsonObject:
    """A message."""
    return {
        "id": name,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [text_part(text)],
    }


def call_item(
    name: str, call: str, function: str, arguments: str, status: str = "completed"
) -> JsonObject:
    """A function that the client is asked to call."""
    return {
        "id": name,
        "type": "function_call",
        "status": status,
        "call_id": call,
        "name": function,
        "arguments": arguments,
    }


def usage_fields(usage: JsonObject) -> JsonObject:
    """A chat's usage by a response's names."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    completion = usage.get("completion_tokens") or 0
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": usage["prompt_tokens"] + completion,
    }


def from_chat(response: JsonObject, body: bytes) -> JsonObject:
    """The response to a whole chat answer. Raises EngineBroke if it is none."""
    try:
        chat = json.loads(body)
        choice = chat["choices"][0]
        reason = choice.get("finish_reason")
        output = output_of(choice["message"], response["id"], reason)
        return finished(response, output, reason, chat["usage"])
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError) as problem:
        raise EngineBroke("The engine's answer can't be read.") from problem
