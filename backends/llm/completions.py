"""How OpenAI writes a completion, of a chat or of a text, streamed or whole."""

import json
import time
import uuid
from collections.abc import Mapping

from .logprobs import Logprobs
from .wire import json_bytes
from .work import Answer, Work


class Completion:
    """The shape of a completion, of a chat or of a text."""

    def __init__(self, chat: bool, model: str, include_usage: bool) -> None:
        self.chat = chat
        self._include_usage = include_usage
        prefix = "chatcmpl" if chat else "cmpl"
        self._base = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": "fp_lab",
        }

    def whole(self, work: Work) -> dict[str, object]:
        """Return the body of a response that is not streamed."""
        choices = [self._choice(answer) for answer in work.answers]
        return {**self._base, "choices": choices, "usage": work.usage()}

    def events(self, work: Work) -> list["Events"]:
        """The events of each choice."""
        usage = {"usage": None} if self._include_usage else {}
        return [Events(answer, self, usage) for answer in work.answers]

    def last(self, work: Work) -> bytes:
        """Return the usage event, if requested, and [DONE]."""
        usage = self.chunk([], usage=work.usage()) if self._include_usage else b""
        return usage + b"data: [DONE]\n\n"

    def _choice(self, answer: Answer) -> dict[str, object]:
        added: dict[str, object] = {"text": "".join(answer.pieces)}
        if self.chat:
            added = {"message": _message(answer)}
        logprobs = answer.logprobs.of(answer.pieces) if answer.logprobs else None
        finish = {"logprobs": logprobs, "finish_reason": answer.finish_reason}
        return {"index": answer.index, **added, **finish}

    def chunk(self, choices: list[dict[str, object]], **more: object) -> bytes:
        """Format one event of the stream."""
        base = dict(self._base)
        if self.chat:
            base["object"] = "chat.completion.chunk"
        return b"data: " + json_bytes({**base, "choices": choices, **more}) + b"\n\n"

    def part(
        self,
        index: int,
        delta: Mapping[str, object],
        reason: str | None = None,
        logprobs: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """One choice of an event: what it adds, and why it ends if it does."""
        added: Mapping[str, object] = {"delta": delta} if self.chat else {"text": "", **delta}
        return {"index": index, **added, "logprobs": logprobs, "finish_reason": reason}

    def token(self, answer: Answer, piece: str) -> Mapping[str, object]:
        """Return the delta of one token."""
        if answer.tool:
            return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        return {"content" if self.chat else "text": piece}

    def opening(self, answer: Answer) -> Mapping[str, object] | None:
        """Return the delta before the first token: the role, and a called tool's name."""
        if not self.chat:
            return None
        if not answer.tool:
            return {"role": "assistant", "content": ""}
        call = {"index": 0, **answer.tool.delta("")}
        return {"role": "assistant", "content": None, "tool_calls": [call]}


def _message(answer: Answer) -> dict[str, object]:
    content = "".join(answer.pieces)
    if not answer.tool:
        return {"role": "assistant", "content": content, "refusal": None}
    calls = [answer.tool.delta(content)]
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls}


class Events:
    """The events of one choice; all but a token's text is formatted beforehand."""

    def __init__(self, answer: Answer, shape: Completion, usage: Mapping[str, object]) -> None:
        def event(delta: Mapping[str, object], reason: str | None = None) -> bytes:
            return shape.chunk([shape.part(answer.index, delta, reason)], **usage)

        mark = uuid.uuid4().hex
        token = event(shape.token(answer, mark))
        self._before, _, self._after = token.partition(f'"{mark}"'.encode())
        opening = shape.opening(answer)
        self._role = b"" if opening is None else event(opening)
        self._answer = answer
        self._shape = shape
        self._usage = usage
        self.end = event({}, answer.finish_reason)

    def token(self, number: int) -> bytes:
        """The event of one token; a chat's first brings the role's before it."""
        opening = b"" if number else self._role
        piece = self._answer.pieces[number]
        if self._answer.logprobs:
            return opening + self._with_logprobs(self._answer.logprobs, number)
        return opening + self._before + json.dumps(piece).encode() + self._after

    def _with_logprobs(self, logprobs: Logprobs, number: int) -> bytes:
        pieces = self._answer.pieces[: number + 1]
        delta = self._shape.token(self._answer, pieces[-1])
        part = self._shape.part(self._answer.index, delta, None, logprobs.of(pieces, number))
        return self._shape.chunk([part], **self._usage)
