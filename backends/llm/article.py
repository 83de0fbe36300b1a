"""The article's API: a greeting, a chat in upper case, two completions."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache

from starlette.types import Receive, Scope

from .wire import TEXT, RefusedError, Reply, header, json_bytes, parse_json, quote, read_body

MAX_DURATION = 600.0
# on every path: a POST to an unknown one is answered too, with 404
ALLOWED = "GET, HEAD, POST"
# what an OpenAI client requests if its base URL lacks the /v1
_OPENAI = frozenset({"/chat/completions", "/embeddings", "/responses"})


@cache
def greet(name: str) -> Reply:
    """Answer a GET with the backend's name."""
    return Reply(200, f"Response from: {name}".encode(), TEXT)


def chat(name: str, body: bytes) -> Reply:
    """Answer {"message": text}; raises RefusedError (400) for anything else."""
    try:
        content = parse_json(body)
    except ValueError as error:
        raise RefusedError(400, str(error)) from None
    if not isinstance(content, dict):
        raise RefusedError(400, "body must be a JSON object")
    message = content.get("message")
    if not isinstance(message, str):
        raise RefusedError(400, '"message" must be a string')
    original, response = quote(message), quote(f"Processed by chat API: {message.upper()}")
    server, timestamp = _signature(name).values()
    answer = (
        f'{{"original":{original},"response":{response},'
        f'"server":"{server}","timestamp":"{timestamp}"}}'
    )
    return Reply(200, answer.encode())


def complete(name: str, body: bytes) -> Reply:
    """Answer text with its first and last five characters; 400 for a body that is not UTF-8."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"body is not UTF-8 (byte {error.start})") from None
    completions = [
        {"text": f"Completion 1: {text[:5]}...", "index": 0},
        {"text": f"Completion 2: {text[-5:]}...", "index": 1},
    ]
    return Reply(200, json_bytes({"completions": completions} | _signature(name)))


ACTIONS: Mapping[str, Callable[[str, bytes], Reply]] = {"/chat": chat, "/completions": complete}


def refuse(name: str, error: RefusedError) -> Reply:
    """Format an error as the article's API does."""
    headers = tuple((key.encode(), value.encode()) for key, value in error.headers.items())
    return Reply(
        error.status, json_bytes({"error": error.message} | _signature(name)), headers=headers
    )


def duration(scope: Scope) -> float:
    """The seconds in the X-Lab-Duration header; 0 without one."""
    value = header(scope, b"x-lab-duration")
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= MAX_DURATION:
        raise RefusedError(400, f"X-Lab-Duration must be seconds from 0 to {MAX_DURATION:g}")
    return seconds


def _signature(name: str) -> dict[str, str]:
    return {"server": name, "timestamp": datetime.now(UTC).isoformat(timespec="microseconds")}


async def answer(name: str, scope: Scope, receive: Receive, limit: int) -> Reply:
    """Answer any request outside the other APIs; raises what `read_body` and the actions raise."""
    method, path = scope["method"], scope["path"]
    if method in {"GET", "HEAD"}:
        return greet(name)
    action = ACTIONS.get(path)
    if method == "POST" and action:
        return action(name, await read_body(scope, receive, limit))
    if method == "POST":
        hint = "; OpenAI's API is under /v1/" if path in _OPENAI else ""
        raise RefusedError(404, f"no such path: POST {path}{hint}")
    raise RefusedError(405, f"method {method} is not allowed here", {"Allow": ALLOWED})
