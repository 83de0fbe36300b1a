"""Plan the requests of a scenario: client, content and time of each."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice, takewhile
from typing import Any, TypeAlias

import numpy as np

from ..nginxconf.request import Request
from .events import MODEL
from .outline import BLOCK, Outline
from .scenario import Scenario
from .trace_file import BLOCK_TOKENS, Row

Message: TypeAlias = dict[str, str]

# Three letters and a space: one token, whether a tokeniser counts words or four characters.
_LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", dtype=np.uint8)
_SPACE = ord(" ")
_HEADERS = {
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",  # compression would delay tokens
}
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


@dataclass(frozen=True, slots=True)
class Planned:
    """One request before it is sent.

    `due` is in seconds: after the start of the run, or, where the request follows another one's
    answer (`after` is that one's number), after the end of that answer. `session` numbers the
    conversations and `turn` its requests, from 0. `messages` is for the chat API, `prompt` the same
    as one text for the completions API; the other one is empty. A `request` is sent as it is,
    instead of an LLM call. `visitor` names the owner of its cookies, if not its user.
    """

    number: int
    due: float
    after: int | None
    client_ip: str
    tenant: int
    session: int
    turn: int
    max_tokens: int
    stream: bool
    api: str
    model: str
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    request: Request | None = None
    visitor: str = ""


@dataclass(frozen=True, slots=True)
class User:
    """A user: sends a request, waits for the response, thinks, and sends the next one.

    `due` is when the first request is due, in seconds after the start of the run. `requests` can
    be iterated once; with closed arrivals and no number of requests it never ends.
    """

    number: int
    due: float
    requests: Iterator[Planned]


@dataclass(frozen=True, slots=True)
class Plan:
    """Users in the order in which they come, and the bounds of the run.

    Nothing is sent `duration` seconds after the start or later (None: no such bound). `total` is
    the maximum number of requests, None if only time ends the run. `keepalive` keeps connections
    open from one request to the next. A user whose request failed waits `pause_after_failure`
    seconds, so that immediate refusals do not cause a flood of requests.
    """

    users: Iterator[User]
    duration: float | None
    total: int | None
    keepalive: bool = False
    pause_after_failure: float = 1.0


def plan(scenario: Scenario) -> Plan:
    """The requests of a scenario, generated lazily. Same scenario, same plan."""
    if scenario.trace is not None:
        return Plan(_traced(scenario, scenario.trace.rows), None, len(scenario.trace.rows))
    return Plan(users(scenario), scenario.duration, total(scenario))


def fixed(requests: Sequence[Request], concurrency: int = 1, visitors: Sequence[str] = ()) -> Plan:
    """Each request once, `concurrency` at a time; each user takes the next unsent request.

    With a concurrency of 1 all use one connection, so nginx sees them in exactly this order.
    `visitors`, if given, names the owner of each request's cookies.
    """
    names = visitors or [""] * len(requests)
    waiting = iter(
        [plain(number, *pair) for number, pair in enumerate(zip(requests, names, strict=True))]
    )
    most = min(concurrency, len(requests))
    together = (User(number, 0.0, waiting) for number in range(most))
    return Plan(together, None, len(requests), keepalive=True, pause_after_failure=0.0)


def plain(number: int, request: Request, visitor: str = "") -> Planned:
    """A request that is not an LLM call."""
    return Planned(
        number,
        due=0.0,
        after=None,
        client_ip=request.client_ip,
        tenant=0,
        session=0,
        turn=0,
        max_tokens=0,
        stream=False,
        api="",
        model="",
        request=request,
        visitor=visitor,
    )


def streamed(
    number: int, messages: tuple[Message, ...], max_tokens: int, client_ip: str = "127.0.0.1"
) -> Planned:
    """One streamed chat outside a scenario."""
    return Planned(
        number,
        due=0.0,
        after=None,
        client_ip=client_ip,
        tenant=0,
        session=number,
        turn=0,
        max_tokens=max_tokens,
        stream=True,
        api="chat",
        model=MODEL,
        messages=messages,
    )


def users(scenario: Scenario) -> Iterator[User]:
    """The scenario's users in the order in which they come.

    Open arrivals: each user has one conversation and leaves. Closed: there are `users` of them from
    the start (after a first think time), and they never leave.
    """
    outline = Outline(scenario)
    if scenario.arrivals == "closed":
        shares = (share_of(scenario, user) for user in range(scenario.users))
        return (
            User(user, outline.pause(user, 0), _closed_loop_conversations(outline, user, share))
            for user, share in enumerate(shares)
            if share != 0
        )
    return (
        User(user, due, islice(_converse(outline, user, user, due), share))
        for user, (due, share) in enumerate(arrivals_of(scenario))
    )


def requests(users: Iterable[User]) -> Iterator[Planned]:
    """Every request of every user, one user after the other."""
    return chain.from_iterable(user.requests for user in users)


def total(scenario: Scenario) -> int | None:
    """The maximum number of requests of the scenario; None if only time ends it."""
    if scenario.arrivals == "closed" or scenario.duration is None:
        return scenario.requests
    return sum(share for _, share in arrivals_of(scenario))


def _rng(scenario: Scenario, *path: int) -> np.random.Generator:
    """A separate random generator for each use, so that none depends on the order of the others."""
    return np.random.default_rng([scenario.seed, *path])


_ARRIVALS, _SYSTEM, _TEXT, _SHARED, _OWN = range(5)


def arrivals_of(scenario: Scenario) -> Iterator[tuple[float, int]]:
    """When each conversation begins, and how many of its turns the limit of requests allows."""
    turns = scenario.sessions.turns
    dues = dues_of(scenario)
    if scenario.duration is not None:
        end = scenario.duration
        dues = takewhile(lambda due: due < end, dues)
    if scenario.requests is None:
        return ((due, turns) for due in dues)
    lefts = range(scenario.requests, 0, -turns)
    # zip takes from `lefts` first, so it ends without another of the dues, which may be endless
    return ((due, min(left, turns)) for left, due in zip(lefts, dues, strict=False))


def dues_of(scenario: Scenario) -> Iterator[float]:
    """The endless sequence of moments at which conversations begin, in seconds."""
    if scenario.arrivals == "constant":
        return (n / scenario.rate for n in count())
    if scenario.arrivals == "bursts":
        return (n // scenario.burst * scenario.burst / scenario.rate for n in count())
    return _poisson(_rng(scenario, _ARRIVALS), scenario.rate)


def _poisson(rng: np.random.Generator, rate: float) -> Iterator[float]:
    now = 0.0
    while True:
        # cumsum adds one by one, as a loop would
        moments = np.cumsum([now, *rng.exponential(1 / rate, BLOCK)])[1:].tolist()
        yield from moments
        now = moments[-1]


def share_of(scenario: Scenario, user: int) -> int | None:
    """How many of the requests one closed-loop user sends; None: no bound."""
    if scenario.requests is None:
        return None
    return len(range(user, scenario.requests, scenario.users))


def _closed_loop_conversations(outline: Outline, user: int, share: int | None) -> Iterator[Planned]:
    """One conversation after the other; request k of user u has the number u + k · users."""
    users = outline.scenario.users
    turns = chain.from_iterable(
        _converse(outline, user + n * users, user, outline.pause(user, n)) for n in count()
    )
    for k, planned in enumerate(islice(turns, share)):
        number = user + k * users
        yield replace(planned, number=number, after=number - users if k else None)


def _converse(outline: Outline, session: int, user: int, due: float) -> Iterator[Planned]:
    """One conversation; each turn contains the conversation so far.

    The answers in that history are placeholders of the requested length, because the requests must
    not depend on the answers of a run.
    """
    scenario = outline.scenario
    block, row = outline.conversations(session // BLOCK), session % BLOCK
    rng = _rng(scenario, _TEXT, session)
    tenant = int(block.tenants[row])
    history = _opening(scenario, tenant)
    address = client_address(outline.client(user))
    first = session * scenario.sessions.turns
    for turn in range(scenario.sessions.turns):
        prompt = _words(rng, int(block.prompts[row, turn]))
        history = (*history, _message("user", prompt))
        answer = int(block.answers[row, turn])
        chat = scenario.api == "chat"
        yield Planned(
            number=first + turn,
            due=float(block.pauses[row, turn]) if turn else due,
            after=first + turn - 1 if turn else None,
            client_ip=address,
            tenant=tenant,
            session=session,
            turn=turn,
            max_tokens=answer,
            stream=scenario.stream,
            api=scenario.api,
            model=scenario.model,
            messages=history if chat else (),
            prompt="" if chat else " ".join(message["content"] for message in history),
        )
        history = (*history, _message("assistant", _words(rng, answer)))


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _opening(scenario: Scenario, tenant: int) -> tuple[Message, ...]:
    """The tenant's system prompt: the same in all of its conversations."""
    tokens = scenario.tenants.system_tokens
    if not tokens:
        return ()
    return (_message("system", _words(_rng(scenario, _SYSTEM, tenant), tokens)),)


def client_address(client: int) -> str:
    """A private address with distinct first three octets: ip_hash uses only those."""
    return f"10.{client >> 8}.{client & 255}.1"


# --- a trace ------------------------------------------------------------------------------


def _traced(scenario: Scenario, rows: Sequence[Row]) -> Iterator[User]:
    """A user for each request of a trace, arriving at its time in the trace.

    A session is one client, with its own cookies; each request without a session is a separate one.
    """
    clients: dict[str, int] = {}
    for number, row in enumerate(rows):
        client = clients.setdefault(row.session or f"request {number}", len(clients))
        text = _prompt(scenario, row, number)
        chat = scenario.api == "chat"
        planned = Planned(
            number=number,
            due=row.at,
            after=None,
            client_ip=client_address(client & 0xFFFF),
            tenant=row.blocks[0] if row.blocks else 0,
            session=client,
            turn=0,
            max_tokens=row.output_tokens,
            stream=scenario.stream,
            api=scenario.api,
            model=scenario.model,
            messages=(_message("user", text),) if chat else (),
            prompt="" if chat else text,
            visitor=row.session,
        )
        yield User(number, row.at, iter((planned,)))


def _prompt(scenario: Scenario, row: Row, number: int) -> str:
    """A prompt of the row's length: the text of each of its blocks, or random words."""
    if not row.blocks:
        return _words(_rng(scenario, _OWN, number), max(1, row.input_tokens))
    lengths = [BLOCK_TOKENS] * len(row.blocks)
    lengths[-1] = row.input_tokens - BLOCK_TOKENS * (len(lengths) - 1)
    return " ".join(
        _words(_rng(scenario, _SHARED, block), tokens)
        for block, tokens in zip(row.blocks, lengths, strict=True)
    )


def _words(rng: np.random.Generator, tokens: int) -> str:
    """A text of `tokens` random words of three letters."""
    text = np.full((tokens, 4), _SPACE, dtype=np.uint8)
    text[:, :3] = _LETTERS[rng.integers(len(_LETTERS), size=(tokens, 3))]
    return text.tobytes()[:-1].decode()


def call(planned: Planned) -> Request:
    """The request to the OpenAI API, with vLLM's `ignore_eos` to get all requested tokens."""
    content: dict[str, Any] = {"model": planned.model}
    if planned.api == "chat":
        content["messages"] = planned.messages
    else:
        content["prompt"] = planned.prompt
    content |= {"max_tokens": planned.max_tokens, "ignore_eos": True, "stream": planned.stream}
    if planned.stream:
        content["stream_options"] = {"include_usage": True}
    body = json.dumps(content, separators=(",", ":")).encode()
    return Request(PATHS[planned.api], planned.client_ip, "POST", _HEADERS, body)
