"""A response's `input` as a chat's messages. What is no text or function call is refused."""

from collections.abc import Iterable

from byline.errors import InvalidInput
from gateway.wire import JsonObject

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
TEXTS = ("input_text", "output_text", "text")


def messages_of(given: str | list[JsonObject], instructions: str | None) -> list[JsonObject]:
    """The messages; instructions come first. Raises InvalidInput for an item that has no place."""
    messages: list[JsonObject] = []
    if instructions is not None:
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not given:
        raise InvalidInput("'input' is empty.", param="input")
    for place, item in enumerate(given):
        _add(messages, item, f"input.{place}")
    return messages


def _add(messages: list[JsonObject], item: JsonObject, param: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        messages.append(_message(item, param))
    elif kind == "function_call":
        _add_call(messages, item, param)
    elif kind == "function_call_output":
        content = _text(item.get("output"), f"{param}.output")
        call = _string(item, "call_id", param)
        messages.append({"role": "tool", "tool_call_id": call, "content": content})
    else:
        raise InvalidInput(
            f"'{param}' is of a type that is not supported: messages, function_call and "
            "function_call_output are.",
            param=param,
        )


def _message(item: JsonObject, param: str) -> JsonObject:
    role = ROLES.get(_string(item, "role", param))
    if role is None:
        raise InvalidInput(f"'{param}.role' is one of {', '.join(ROLES)}.", param=f"{param}.role")
    return {"role": role, "content": _text(item.get("content"), f"{param}.content")}


def _add_call(messages: list[JsonObject], item: JsonObject, param: str) -> None:
    """A call belongs to the assistant's message before it, with the calls that stand beside it."""
    call = {
        "id": _string(item, "call_id", param),
        "type": "function",
        "function": {
            "name": _string(item, "name", param),
            "arguments": _string(item, "arguments", param),
        },
    }
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _text(content: object, param: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidInput(f"'{param}' is a text or a list of parts.", param=param)
    return "".join(_parts(content, param))


def _parts(content: list[object], param: str) -> Iterable[str]:
    for place, part in enumerate(content):
        fields = part if isinstance(part, dict) else {}
        text = fields.get("text") if fields.get("type") in TEXTS else None
        if not isinstance(text, str):
            raise InvalidInput(f"'{param}.{place}' is no text.", param=f"{param}.{place}")
        yield text


def _string(item: JsonObject, name: str, param: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidInput(f"'{param}.{name}' is a text.", param=f"{param}.{name}")
    return value
