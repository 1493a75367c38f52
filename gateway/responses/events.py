"""A chat's stream as the events of a response, each sent as soon as it is known."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from byline.errors import BylineError
from gateway.answers import objects_in
from gateway.errors import answered, told
from gateway.presenting import Added
from gateway.responses.replies import (
    call_item,
    finished,
    from_chat,
    item_id,
    status_of,
    text_item,
    text_part,
)
from gateway.wire import JsonObject


@dataclass(slots=True)
class Item:
    """The output item that is being written: a text, or the arguments of a call."""

    id: str
    place: int
    call: JsonObject | None  # call_id and name; None: a text
    pieces: list[str] = field(default_factory=list)

    def done(self, status: str) -> JsonObject:
        """The item as it ended."""
        whole = "".join(self.pieces)
        if self.call is None:
            return text_item(self.id, whole, status)
        return call_item(self.id, self.call["call_id"], self.call["name"], whole, status)

    @property
    def at(self) -> JsonObject:
        """What each event of this item says of its place."""
        part = {"content_index": 0} if self.call is None else {}
        return {"item_id": self.id, "output_index": self.place, **part}


class ResponsePresenter:
    """One response, whole or as events."""

    shows_usage = True  # the last event carries it

    def __init__(self, response: JsonObject) -> None:
        """`response` is the object without output."""
        self._response = response
        self._sequence = 0
        self._item: Item | None = None
        self._call_index: int | None = None  # of the open item, in the chat's list of calls
        self._output: list[JsonObject] = []
        self._reason: str | None = None
        self._usage: JsonObject | None = None

    def whole(self, body: bytes, added: Added) -> bytes:
        """A plain answer. Raises EngineBroke if it is none."""
        return json.dumps(self._with(from_chat(self._response, body), added)).encode()

    def events(self, events: bytes) -> bytes:
        """The response's events for some of the chat's chunks."""
        return b"".join(
            sent for chunk in objects_in(events) for sent in (*self._begin(), *self._chunk(chunk))
        )

    def end(self, done: bytes, added: Added) -> bytes:  # noqa: ARG002 - nothing of it is shown
        """The last event, which carries the whole response; there is no `[DONE]`."""
        sent = [*self._begin()]
        if self._item is None and not self._output:
            sent += self._open(None)
        sent += self._close(status_of(self._reason))
        response = finished(self._response, self._output, self._reason, self._usage)
        sent.append(
            self._event(f"response.{response['status']}", response=self._with(response, added))
        )
        return b"".join(sent)

    def broken(self, problem: BylineError) -> bytes:
        """OpenAI's `error` event."""
        param = getattr(problem, "param", None)
        code = answered(problem).code
        return self._event("error", code=code, message=told(problem), param=param)

    def _with(self, response: JsonObject, added: Added) -> JsonObject:
        return response if added is None else {**response, "byline": added}

    def _begin(self) -> Iterator[bytes]:
        if self._sequence == 0:
            yield self._event("response.created", response=self._response)
            yield self._event("response.in_progress", response=self._response)

    def _chunk(self, chunk: JsonObject) -> Iterator[bytes]:
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if text := delta.get("content"):
                if self._item is None or self._item.call is not None:
                    yield from self._open(None)
                yield from self._write(text)
            for call in delta.get("tool_calls") or ():
                yield from self._call(call)
            self._reason = choice.get("finish_reason") or self._reason

    def _call(self, call: JsonObject) -> Iterator[bytes]:
        function = call.get("function") or {}
        index = call.get("index", 0)
        if self._item is None or self._item.call is None or self._call_index != index:
            yield from self._open(
                {"call_id": call.get("id") or "", "name": function.get("name") or ""}
            )
            self._call_index = index
        if arguments := function.get("arguments"):
            yield from self._write(arguments)

    def _open(self, call: JsonObject | None) -> Iterator[bytes]:
        yield from self._close()
        place = len(self._output)
        name = item_id("msg" if call is None else "fc", self._response["id"], place)
        self._item = Item(name, place, call)
        if call is None:
            item = {**text_item(name, ""), "status": "in_progress", "content": []}
            yield self._event("response.output_item.added", output_index=place, item=item)
            yield self._event("response.content_part.added", **self._item.at, part=text_part(""))
        else:
            item = call_item(name, call["call_id"], call["name"], "", "in_progress")
            yield self._event("response.output_item.added", output_index=place, item=item)

    def _write(self, piece: str) -> Iterator[bytes]:
        assert self._item is not None
        self._item.pieces.append(piece)
        if self._item.call is None:
            text = {**self._item.at, "delta": piece, "logprobs": []}
            yield self._event("response.output_text.delta", **text)
        else:
            yield self._event(
                "response.function_call_arguments.delta", **self._item.at, delta=piece
            )

    def _close(self, status: str = "completed") -> Iterator[bytes]:
        if self._item is None:
            return
        item, self._item = self._item, None
        whole = "".join(item.pieces)
        if item.call is None:
            yield self._event("response.output_text.done", **item.at, text=whole, logprobs=[])
            yield self._event("response.content_part.done", **item.at, part=text_part(whole))
        else:
            named = {"name": item.call["name"], "arguments": whole}
            yield self._event("response.function_call_arguments.done", **item.at, **named)
        done = item.done(status)
        self._output.append(done)
        yield self._event("response.output_item.done", output_index=item.place, item=done)

    def _event(self, kind: str, **fields: object) -> bytes:
        body = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), json.dumps(body).encode())
