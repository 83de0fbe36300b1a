"""One request as the client saw it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One request as the client saw it, whether it succeeded or not.

    Times are seconds since the epoch, on one monotonic clock for the whole run; None where it
    did not come so far. `due` is when the request should have been sent, `sent` when it was,
    `end` when its last byte or its failure came. `token_times` has the time of each token
    received (empty without a stream), `first_token` the first of them. `tokens` counts what was
    received: the stream's tokens, else what `usage` says (None where an answer came without).
    `completion_tokens`, `prompt_tokens` and `cached_tokens` are what the server's `usage` says,
    None where it says nothing.

    `error` is "" or the kind of failure: connect, timeout, reset, truncated, malformed,
    stream_error (the server said so within the stream), http_3xx, http_4xx, http_5xx, unsent
    (more were open than the cap allows) or cut (the run's time was over). `detail` is what was
    said of it. `truncated`: an answer began and its end ([DONE], for a stream) never came.
    """

    number: int
    id: str
    due: float
    sent: float | None = None
    first_token: float | None = None
    token_times: tuple[float, ...] = ()
    end: float | None = None
    tokens: int | None = 0
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    status: int | None = None
    error: str = ""
    detail: str = ""
    backend: str = ""
    upstream: str = ""
    truncated: bool = False
    stream: bool = True
    max_tokens: int = 0
    client_ip: str = ""
    tenant: int = 0
    session: int = 0
    turn: int = 0
