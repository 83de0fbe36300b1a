"""Format answers as OpenAI's Responses API does, streamed or not."""

import time
import uuid
from collections.abc import Mapping

from ..wire import json_bytes
from .work import Answer, Work

Json = dict[str, object]

# what these fields always are here: nothing is stored, and nothing runs in the background
_FIXED: Mapping[str, object] = {
    "background": False,
    "error": None,
    "max_tool_calls": None,
    "previous_response_id": None,
    "service_tier": "default",
    "store": False,
    "truncation": "disabled",
}


class ResponseShape:
    """The shape of one response; `echo` holds the call's fields that a response repeats."""

    def __init__(self, echo: Mapping[str, object]) -> None:
        self._base = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            **_FIXED,
            **echo,
        }
        self._item_id = uuid.uuid4().hex

    def body(self, work: Work) -> Json:
        """The finished response: completed, or incomplete if `max_output_tokens` cut it off."""
        (answer,) = work.answers
        cut = answer.finish_reason == "length"
        return {
            **self._base,
            "status": _status(answer),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self.item(answer, "".join(answer.pieces), _status(answer))],
            "usage": _usage(work),
        }

    def begun(self) -> Json:
        """The response before its first token."""
        known: Json = {
            "status": "in_progress",
            "incomplete_details": None,
            "output": [],
            "usage": None,
        }
        return {**self._base, **known}

    def item(self, answer: Answer, content: str | None, status: str) -> Json:
        """The response's only item, a message or a tool call; empty `content` means none yet."""
        if answer.tool:
            return {
                "type": "function_call",
                "id": f"fc_{self._item_id}",
                "call_id": answer.tool.id,
                "name": answer.tool.name,
                "arguments": content or "",
                "status": status,
            }
        return {
            "type": "message",
            "id": f"msg_{self._item_id}",
            "role": "assistant",
            "content": [] if content is None else [text_part(content, logprobs(answer))],
            "status": status,
        }

    def events(self, work: Work) -> list["ResponseEvents"]:
        """The events of the one answer."""
        (answer,) = work.answers
        return [ResponseEvents(answer, self)]

    def last(self, work: Work) -> bytes:
        """The event that carries the whole response."""
        (events,) = self.events(work)
        response = self.body(work)
        return event(f"response.{response['status']}", events.count, response=response)


class ResponseEvents:
    """The events of a streamed response, numbered from 0; `ResponseShape` makes the last one."""

    def __init__(self, answer: Answer, shape: ResponseShape) -> None:
        self._answer = answer
        item = shape.item(answer, None, "in_progress")
        self._place: Json = {"item_id": item["id"], "output_index": 0}
        self._delta = "response.function_call_arguments.delta"
        if not answer.tool:
            self._place["content_index"] = 0
            self._delta = "response.output_text.delta"
        opening = [
            event("response.created", 0, response=shape.begun()),
            event("response.in_progress", 1, response=shape.begun()),
            event("response.output_item.added", 2, output_index=0, item=item),
        ]
        if not answer.tool:
            part = text_part("", [])
            opening.append(event("response.content_part.added", 3, **self._place, part=part))
        self._opening = b"".join(opening)
        self._first = len(opening)
        end = self._end(shape)
        self.end = b"".join(end)
        self.count = self._first + len(answer.pieces) + len(end)

    def token(self, number: int) -> bytes:
        """The event of one token; the first brings the opening events before it."""
        fields = {**self._place, "delta": self._answer.pieces[number]}
        if not self._answer.tool:
            fields["logprobs"] = logprobs(self._answer, number, number + 1)
        opening = b"" if number else self._opening
        return opening + event(self._delta, self._first + number, **fields)

    def _end(self, shape: ResponseShape) -> list[bytes]:
        content = "".join(self._answer.pieces)
        number = self._first + len(self._answer.pieces)
        if self._answer.tool:
            done = {**self._place, "name": self._answer.tool.name, "arguments": content}
            events = [event("response.function_call_arguments.done", number, **done)]
        else:
            listed = logprobs(self._answer)
            part = text_part(content, listed)
            text = {**self._place, "text": content, "logprobs": listed}
            events = [
                event("response.output_text.done", number, **text),
                event("response.content_part.done", number + 1, **self._place, part=part),
            ]
        item = shape.item(self._answer, content, _status(self._answer))
        number += len(events)
        return [*events, event("response.output_item.done", number, output_index=0, item=item)]


def event(kind: str, number: int, **fields: object) -> bytes:
    """One server-sent event with its name, as this API has it."""
    content = {"type": kind, "sequence_number": number, **fields}
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json_bytes(content))


def text_part(text: str, listed: object) -> Json:
    """Text as a part of a message, with its probabilities if they are included."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": listed}


def logprobs(answer: Answer, first: int = 0, end: int | None = None) -> object:
    """The probabilities of the answer's tokens from `first` to `end`; empty if not included."""
    if not answer.logprobs:
        return []
    return answer.logprobs.of(answer.pieces[:end], first)["content"]


def _status(answer: Answer) -> str:
    return "incomplete" if answer.finish_reason == "length" else "completed"


def _usage(work: Work) -> Json:
    figures = work.figures
    return {
        "input_tokens": figures.prompt_tokens,
        "input_tokens_details": {"cached_tokens": figures.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": figures.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": figures.prompt_tokens + figures.completion_tokens,
    }
