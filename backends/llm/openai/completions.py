"""Format chat and text completions as OpenAI does, streamed or not."""

import json
import time
import uuid
from collections.abc import Mapping

from ..wire import json_bytes
from .work import Answer, Work


class Completion:
    """The shape of a completion, of a chat or of a text."""

    def __init__(
        self, chat: bool, model: str, include_usage: bool, continuous_usage: bool = False
    ) -> None:
        self.chat = chat
        self.continuous_usage = continuous_usage
        self._include_usage = include_usage
        prefix = "chatcmpl" if chat else "cmpl"
        self._base = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": "fp_lab",
        }

    def body(self, work: Work) -> dict[str, object]:
        """Return the body of a response that is not streamed."""
        choices = [self._choice(answer) for answer in work.answers]
        return {**self._base, "choices": choices, "usage": work.usage()}

    def events(self, work: Work) -> list["Events"]:
        """The events of each choice."""
        return [Events(answer, self) for answer in work.answers]

    def last(self, work: Work) -> bytes:
        """Return the usage event, if requested, and [DONE]."""
        usage = self.chunk([], usage=work.usage()) if self._include_usage else b""
        return usage + b"data: [DONE]\n\n"

    def _choice(self, answer: Answer) -> dict[str, object]:
        pieces = (*answer.echo, *answer.pieces)
        added: dict[str, object] = {"text": "".join(pieces)}
        if self.chat:
            added = {"message": _message(answer)}
        logprobs = answer.logprobs.of(pieces, prompt=len(answer.echo)) if answer.logprobs else None
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
        """One choice of an event: its delta, and the finish reason if it ends."""
        added: Mapping[str, object] = {"delta": delta} if self.chat else {"text": "", **delta}
        return {"index": index, **added, "logprobs": logprobs, "finish_reason": reason}

    def usage(self, answer: Answer, tokens: int) -> Mapping[str, object]:
        """The usage field of an event, after `tokens` tokens of its choice."""
        if self.continuous_usage:
            prompt = answer.request.prompt_tokens
            counts = {"prompt_tokens": prompt, "completion_tokens": tokens}
            return {"usage": {**counts, "total_tokens": prompt + tokens}}
        return {"usage": None} if self._include_usage else {}

    def token(self, answer: Answer, piece: str) -> Mapping[str, object]:
        """Return the delta of one token."""
        if answer.tool:
            return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        return {"content" if self.chat else "text": piece}

    def opening(self, answer: Answer) -> Mapping[str, object] | None:
        """Return the delta before the first token: the role, a called tool's name, the prompt."""
        if not self.chat:
            return {"text": "".join(answer.echo)} if answer.echo else None
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
    """The events of one choice; where only the text differs, the rest is formatted in advance."""

    def __init__(self, answer: Answer, shape: Completion) -> None:
        def event(
            delta: Mapping[str, object],
            reason: str | None = None,
            logprobs: Mapping[str, object] | None = None,
            tokens: int = 0,
        ) -> bytes:
            part = shape.part(answer.index, delta, reason, logprobs)
            return shape.chunk([part], **shape.usage(answer, tokens))

        mark = uuid.uuid4().hex
        token = event(shape.token(answer, mark))
        self._before, _, self._after = token.partition(f'"{mark}"'.encode())
        opening = shape.opening(answer)
        echoed = len(answer.echo)
        echo_logprobs = (
            answer.logprobs.of(answer.echo, prompt=echoed) if answer.logprobs and echoed else None
        )
        self._opening = b"" if opening is None else event(opening, logprobs=echo_logprobs)
        self._answer = answer
        self._event = event
        self._shape = shape
        self._only_text_differs = not answer.logprobs and not shape.continuous_usage
        # vLLM sends a text's finish reason with its last token: load tools time every event
        self._closing = -1 if shape.chat else len(answer.pieces) - 1
        self.end = b""
        if shape.chat:
            self.end = event({}, answer.finish_reason, tokens=len(answer.pieces))

    def token(self, number: int) -> bytes:
        """The event of one token; before the first token, that of the role or of the prompt."""
        opening = b"" if number else self._opening
        piece = self._answer.pieces[number]
        if self._only_text_differs and number != self._closing:
            return opening + self._before + json.dumps(piece).encode() + self._after
        delta = self._shape.token(self._answer, piece)
        reason = self._answer.finish_reason if number == self._closing else None
        return opening + self._event(delta, reason, self._logprobs(number), number + 1)

    def _logprobs(self, number: int) -> Mapping[str, object] | None:
        echo, logprobs = self._answer.echo, self._answer.logprobs
        if not logprobs:
            return None
        pieces = (*echo, *self._answer.pieces[: number + 1])
        return logprobs.of(pieces, len(pieces) - 1, prompt=len(echo))
