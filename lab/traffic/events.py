"""An OpenAI event stream (server-sent events), read as it arrives."""

from collections.abc import Iterator
from typing import Any

LONGEST_LINE = 1 << 20  # bytes: a "stream" without line ends must not fill the memory
MODEL = "lab-llm"  # the backends' default name of the model
_DONE = b"[DONE]"


class EventStream:
    """Splits received data into events. `done` is true once [DONE] was received."""

    def __init__(self) -> None:
        self.done = False
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the payload of each event that is complete with this data; none after [DONE].

        Raises ValueError for a line of more than LONGEST_LINE bytes.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise ValueError(f"a line of more than {LONGEST_LINE:,} bytes")
        for line in lines:
            if self.done or not line.startswith(b"data:"):
                continue
            payload = line[5:].strip()
            if payload == _DONE:
                self.done = True
            else:
                yield payload


def text_of(event: Any) -> str:
    """The text in a chunk of a stream; the first and the last chunk often have none.

    Raises AttributeError or TypeError for an event that is not a chunk.
    """
    for choice in event.get("choices") or ():
        piece = choice.get("delta") or choice
        if text := piece.get("content") or piece.get("text") or piece.get("reasoning_content"):
            return str(text)
    return ""
