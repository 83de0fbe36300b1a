"""A scenario as arrays: when requests are due, their tokens, and what their prompts share."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ..traffic import outline, workload
from ..traffic.scenario import Scenario
from ..traffic.trace_file import BLOCK_TOKENS as TRACE_BLOCK
from ..traffic.trace_file import Row

if TYPE_CHECKING:
    from .kernel import Ints, Shorts

PICOSECONDS = 10**12
BLOCK_TOKENS = 16
FOREVER = 2**61


@dataclass(frozen=True)
class Workload:
    """The requests of a scenario, by number; times in picoseconds.

    `due` is a moment for the requests in `firsts`, for the others a pause after the answer that
    they follow. `follows` has the number of the request that follows each one's answer, -1 for
    none. `node` is the deepest node of the prefix tree that a prompt shares with others, -1 for
    none; the tree's nodes have a `parent` and an `end`, in blocks of 16 tokens from the root.
    """

    due: "Ints"
    firsts: "Shorts"
    follows: "Shorts"
    prompt: "Shorts"
    output: "Shorts"
    node: "Shorts"
    user: "Shorts"
    session: "Shorts"
    tenant: "Shorts"
    client: "Shorts"
    turn: "Shorts"
    parent: "Shorts"
    end: "Shorts"
    last_due: int
    depth: int
    stream: bool = True

    def __len__(self) -> int:
        """Count the requests."""
        return len(self.due)


def workload_of(scenario: Scenario, share: int | None = None) -> Workload:
    """Generate a scenario's requests, the same that `lab load` sends.

    `share` bounds the requests of each closed user, where only the duration ends them.
    """
    if scenario.trace is not None:
        return _traced(scenario, scenario.trace.rows)
    sketch = outline.Outline(scenario)
    turns = scenario.sessions.turns
    if scenario.arrivals == "closed":
        chains = _closed(scenario, sketch, share)
    else:
        chains = _open(scenario, turns)
    sessions, lengths = chains.sessions, chains.lengths
    last = scenario.duration
    numbers = np.repeat(np.cumsum(lengths) - lengths, lengths)
    turn = np.arange(len(numbers)) - numbers
    count = len(sessions)
    wanted = np.unique(sessions // outline.BLOCK) if count else np.empty(0, np.int64)
    prompts = np.empty((count, turns), np.int32)
    answers, pauses = np.empty_like(prompts), np.empty((count, turns))
    tenants = np.empty(count, np.int32)
    order = np.argsort(sessions // outline.BLOCK, kind="stable")
    edges = np.searchsorted(sessions[order] // outline.BLOCK, [*wanted, np.iinfo(np.int64).max])
    for block, start, stop in zip(wanted, edges, edges[1:], strict=False):
        rows = order[start:stop]
        places = sessions[rows] % outline.BLOCK
        drawn = sketch.conversations(int(block))
        prompts[rows], answers[rows] = drawn.prompts[places], drawn.answers[places]
        pauses[rows], tenants[rows] = drawn.pauses[places], drawn.tenants[places]
    session = np.repeat(np.arange(count), lengths)
    due = pauses[session, turn]
    first = turn == 0
    due[first] = chains.dues
    fresh = np.flatnonzero(first)
    follows = np.full(len(due), -1, np.int32)
    same = session[1:] == session[:-1]
    follows[:-1][same] = np.flatnonzero(same) + 1
    # a closed user's next conversation follows the one before
    follows[chains.ends(lengths)] = chains.next_starts(lengths)
    begins = fresh[~chains.follows_another]
    prompt = _prompt_tokens(scenario, prompts, answers)[session, turn]
    node, parent, end, depth = _tree(scenario, tenants, prompt, session, turn, lengths)
    users = chains.users
    clients = _clients(sketch, users)
    ticks = np.rint(due * PICOSECONDS).astype(np.int64)
    return Workload(
        due=ticks,
        firsts=begins[np.argsort(ticks[begins], kind="stable")].astype(np.int32),
        follows=follows,
        prompt=prompt.astype(np.int32),
        output=answers[session, turn],
        node=node,
        user=users[session].astype(np.int32),
        session=sessions[session].astype(np.int32),
        tenant=tenants[session],
        client=clients[session].astype(np.int32),
        turn=turn.astype(np.int32),
        parent=parent,
        end=end,
        last_due=round(last * PICOSECONDS) if last is not None else FOREVER,
        depth=depth,
        stream=scenario.stream,
    )


@dataclass(frozen=True)
class _Chains:
    """Conversations: their numbers, users and lengths, and when each begins.

    `dues` are moments, or pauses where `follows_another`; `nexts` the row of the conversation that
    the same user has afterwards, -1 for none.
    """

    sessions: "Ints"
    users: "Ints"
    lengths: "Ints"
    dues: np.ndarray[tuple[int], np.dtype[np.float64]]
    nexts: "Ints"
    follows_another: np.ndarray[tuple[int], np.dtype[np.bool_]]

    def ends(self, lengths: "Ints") -> "Ints":
        """Return the last request of each conversation that another one follows."""
        return (np.cumsum(lengths) - 1)[self.nexts >= 0]

    def next_starts(self, lengths: "Ints") -> "Ints":
        """Return the first request of each conversation that follows another one."""
        starts = np.cumsum(lengths) - lengths
        return starts[self.nexts[self.nexts >= 0]]


def _open(scenario: Scenario, turns: int) -> _Chains:
    total = workload.total(scenario)
    if total is None:
        pairs = list(workload.arrivals_of(scenario))
        dues = np.array([due for due, _ in pairs])
        lengths = np.array([share for _, share in pairs], np.int64)
    else:
        count = -(-total // turns)
        dues = np.fromiter(islice(workload.dues_of(scenario), count), float, count)
        lengths = np.full(count, turns, np.int64)
        lengths[-1:] = total - turns * (count - 1)
    sessions = np.arange(len(dues))
    none = np.full(len(dues), -1, np.int64)
    return _Chains(sessions, sessions, lengths, dues, none, none >= 0)


def _closed(scenario: Scenario, sketch: outline.Outline, share: int | None) -> _Chains:
    users, turns = scenario.users, scenario.sessions.turns
    sessions, owners, lengths, dues = [], [], [], []
    nexts: list[int] = []
    later: list[bool] = []
    for user in range(users):
        left = workload.share_of(scenario, user)
        left = share if left is None else left if share is None else min(left, share)
        visit = 0
        while left is None or left > 0:
            length = turns if left is None else min(turns, left)
            left = None if left is None else left - length
            sessions.append(user + visit * users)
            owners.append(user)
            lengths.append(length)
            dues.append(sketch.pause(user, visit))
            nexts.append(len(nexts) + 1 if left else -1)
            later.append(visit > 0)
            visit += 1
    return _Chains(
        np.array(sessions, np.int64),
        np.array(owners, np.int64),
        np.array(lengths, np.int64),
        np.array(dues),
        np.array(nexts, np.int64),
        np.array(later, bool),
    )


def _prompt_tokens(scenario: Scenario, prompts: "Shorts", answers: "Shorts") -> "Ints":
    """Count the tokens of each turn's whole prompt, as the backend counts them.

    A chat message has one token for its role, and the prompt ends with the assistant's.
    """
    history = np.cumsum(answers, axis=1, dtype=np.int64) - answers
    written = np.cumsum(prompts, axis=1, dtype=np.int64) + history
    system = scenario.tenants.system_tokens
    if scenario.api != "chat":
        return written + system
    turns = np.arange(prompts.shape[1])
    return written + 2 + 2 * turns + (system + 1 if system else 0)


def _tree(
    scenario: Scenario,
    tenants: "Shorts",
    prompt: "Ints",
    session: "Ints",
    turn: "Ints",
    lengths: "Ints",
) -> "tuple[Shorts, Shorts, Shorts, int]":
    """Lay out the prefix tree: a node for each tenant, one for each turn that another follows."""
    system = scenario.tenants.system_tokens
    chat = scenario.api == "chat"
    # the role of the user's message is the same in all prompts, too
    shared = (system + (2 if chat else 0)) // BLOCK_TOKENS if system else 0
    customers = scenario.tenants.n if shared else 0
    last = turn == lengths[session] - 1
    inner = ~last
    full = prompt // BLOCK_TOKENS
    number = np.cumsum(inner) - 1 + customers
    begins = np.where(shared, tenants[session], -1)
    before = np.roll(number, 1)
    above = np.where(turn > 0, before, begins)
    node = np.where(inner, number, above).astype(np.int32)
    parent = np.concatenate([np.full(customers, -1), above[inner]]).astype(np.int32)
    end = np.concatenate([np.full(customers, shared), full[inner]]).astype(np.int32)
    return node, parent, end, int(lengths.max(initial=1)) + 1


def _clients(sketch: outline.Outline, users: "Ints") -> "Ints":
    clients = np.empty(len(users), np.int64)
    blocks = users // outline.BLOCK
    order = np.argsort(blocks, kind="stable")
    wanted = np.unique(blocks)
    edges = np.searchsorted(blocks[order], [*wanted, np.iinfo(np.int64).max])
    for block, start, stop in zip(wanted, edges, edges[1:], strict=False):
        rows = order[start:stop]
        clients[rows] = sketch.clients(int(block))[users[rows] % outline.BLOCK]
    return clients


def _traced(scenario: Scenario, rows: Sequence[Row]) -> Workload:
    """Lay out the requests of a trace; blocks of the same ids from the start are shared."""
    clients: dict[str, int] = {}
    labels = [row.session or f"request {number}" for number, row in enumerate(rows)]
    client = np.array([clients.setdefault(label, len(clients)) for label in labels], np.int32)
    # a chat prompt begins with a role and ends with one
    role = 1 if scenario.api == "chat" else 0
    due = np.rint(np.array([row.at for row in rows]) * PICOSECONDS).astype(np.int64)
    nodes: dict[tuple[int, int], int] = {}
    ends: list[int] = []
    deepest = np.full(len(rows), -1, np.int32)
    for number, row in enumerate(rows):
        for place in range(row.input_tokens // TRACE_BLOCK if row.blocks else 0):
            key = (int(deepest[number]), row.blocks[place])
            if key not in nodes:
                nodes[key] = len(ends)
                ends.append((role + TRACE_BLOCK * (place + 1)) // BLOCK_TOKENS)
            deepest[number] = nodes[key]
    depth = max((len(row.blocks) for row in rows), default=0) + 1
    zeros = np.zeros(len(rows), np.int32)
    return Workload(
        due=due,
        firsts=np.argsort(due, kind="stable").astype(np.int32),
        follows=np.full(len(rows), -1, np.int32),
        prompt=np.array([max(1, row.input_tokens) + 2 * role for row in rows], np.int32),
        output=np.array([row.output_tokens for row in rows], np.int32),
        node=deepest,
        user=np.arange(len(rows), dtype=np.int32),
        session=client,
        tenant=np.array([row.blocks[0] if row.blocks else 0 for row in rows], np.int32),
        client=client & 0xFFFF,
        turn=zeros,
        parent=np.array([parent for parent, _ in nodes], np.int32),
        end=np.array(ends, np.int32),
        last_due=FOREVER,
        depth=depth,
        stream=scenario.stream,
    )
