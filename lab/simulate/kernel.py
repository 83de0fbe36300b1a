"""The event loop of a simulated fleet, compiled: nginx's picks and the engines of all backends.

Its results equal those of `lab/oracle` and `backends/llm/engine.py`, event by event; a property
test compares them (tests/simulate/test_kernel.py). It is fast for three reasons: engine steps that
only lengthen the running sequences are computed in one jump; the prefix cache stores runs of
blocks, not single blocks; the loop allocates no memory.

Times are picoseconds; -1 means "none". `b` is the number of a backend. `s` is the number of a slot,
which holds one request in flight. A `run` is a sequence of consecutive blocks of one node of the
prefix tree in one backend's pool, starting at the node's first block. A request that holds a block
also holds all blocks before it, so a later block is never more recently used than an earlier one.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

# Also stated in backends/llm, but not imported: numba's cache sees a change of this file only.
PICOSECONDS = 10**12
BLOCK_TOKENS = 16
WATERMARK = 100

NEVER = np.int64(2**62)
GAP_BINS = 60_000
GAP_SCALE = 1000.0  # bins per factor of e: a bin is 0.1 % wide

STATIC, ROUND_ROBIN, LEAST_CONN, LEAST_TIME, RANDOM, RANDOM_TWO, STICKY = range(7)
DONE, MORE, FULL = range(3)  # why the loop returned: all done, enough for now, no room

Ints = npt.NDArray[np.int64]
Shorts = npt.NDArray[np.int32]
Backends = npt.NDArray[np.int16]  # of at most 10,000

jit: Any = numba.njit(cache=True)


def record(longs: str, shorts: str) -> Any:
    """Make the type of a record: 64-bit fields, then 32-bit ones."""
    fields = [*((name, np.int64) for name in longs.split())]
    return np.dtype([*fields, *((name, np.int32) for name in shorts.split())], align=True)


# the timing and the limits of a backend's engine
MACHINE = record("base token context pair max_seqs budget blocks", "")
# The state of an engine. A jump of `jump` equal steps with `decoded` sequences goes from `began`
# to `ends`. `idle_cached` blocks are cached, and no sequence holds them. `queue_size` counts the
# requests that are not admitted: the slots from `queue_head` on, then those from `waiting_head` on.
SERVER = record(
    "began ends jump decoded steps sum_context free idle_cached idle_since next_last busy_since"
    " busy preemptions",
    "waiting_head waiting_tail queue_head queue_size partial chunk_head chunk_tail chunks running"
    " lru_head lru_tail peak",
)
# A request that was admitted, or is the next to be. `next` links the queue and the chunks of a
# step; `private` is the run of blocks that it does not share.
SLOT = record(
    "computed produced target joined last_at stopped started first",
    "request next prompt output node named blocks private cached",
)
# A run of blocks. `full` counts the holders of the whole node, `part` is the length that one more
# holds. A private run has node -1.
RUN = record("", "node size full part before after owner listed")
NODE = record("", "parent end")


class Jobs(NamedTuple):
    """The requests. `due` is a time for a first request, a pause for one that follows another."""

    due: Ints
    firsts: Shorts  # requests that follow nothing, in the order of their times
    follows: Shorts  # the request that follows this one's answer; empty where none does
    prompt: Shorts
    output: Shorts
    node: Shorts  # the deepest node of the prefix tree that the prompt shares
    pick: Backends  # the server, where the method decides by the request alone
    user: Shorts
    pending: Ints  # heap of requests that follow an answer: their times
    pending_request: Shorts
    last_due: int  # nothing is sent at this time or later
    stream: bool  # whether the header of an answer comes with its first token
    depth: int  # of the prefix tree


class Result(NamedTuple):
    """The outcome of each request; -1 where it was not sent."""

    sent: Ints
    first: Ints
    last: Ints
    cached: Shorts
    queued: npt.NDArray[np.float32]  # milliseconds before the request was first admitted
    backend: Backends


class State(NamedTuple):
    """The state of all backends, of the requests in flight and of the prefix caches."""

    fleet: Any  # [backend] MACHINE
    servers: Any  # [backend] SERVER
    decoding: Any  # [backend, position]: slots in the order in which they began to decode
    growing: Any  # [backend, steps modulo 16]: sequences that need a block then
    slots: Any  # SLOT
    runs: Any  # RUN
    nodes: Any  # NODE: `end` counts the blocks from the root
    waiting: Shorts  # by request: the one that arrived next at the same backend
    table: Any  # the run of node · backends + backend
    tree: Ints  # a tournament of the backends: who has the earliest event
    free_slots: Shorts
    free_runs: Shorts
    path: Shorts
    gaps: Ints  # histogram of the times between two tokens, in bins of equal ratio; the longest
    at: Ints  # [next first request, pending follow-ups, free slots, free runs, sent]


class Ranking(NamedTuple):
    """The servers by load: one tournament tree for each weight that servers have.

    The nodes of all trees stand in one array; the tree of class `c` begins at `begin[c]` and has
    `size[c]` leaves. `least` is the fewest requests in flight below a node. The servers with that
    number are tied: `tied` counts them, `score` is the highest current weight among them, `best`
    the server that has it. `owed` turns are credited to the tied servers below a node when the node
    is next visited.
    """

    weight: Ints  # by class
    begin: Ints
    size: Ints
    of: Shorts  # by server: its class
    place: Shorts  # by server: its leaf, in config order
    least: Ints
    tied: Ints
    score: Ints
    owed: Ints
    best: Shorts


class Peers(NamedTuple):
    """The state that nginx keeps of each server."""

    weight: Ints
    conns: Ints
    current: Ints
    header: Ints
    checked: Ints
    ends: Ints  # running sums of the weights
    bound: Shorts  # by user: the server of its cookie; empty if the method is not sticky
    random: npt.NDArray[np.uint64]
    ranking: Ranking


# --- the prefix cache ---------------------------------------------------------------------


@jit
def lru_append(st, b, run):
    """Append a run to the LRU list as the most recently used one."""
    st.runs[run].before = st.servers[b].lru_tail
    st.runs[run].after = -1
    if st.servers[b].lru_tail >= 0:
        st.runs[st.servers[b].lru_tail].after = run
    else:
        st.servers[b].lru_head = run
    st.servers[b].lru_tail = run
    st.runs[run].listed = True


@jit
def lru_remove(st, b, run):
    """Remove a run from the LRU list; its blocks can no longer be evicted."""
    before, after = st.runs[run].before, st.runs[run].after
    if before >= 0:
        st.runs[before].after = after
    else:
        st.servers[b].lru_head = after
    if after >= 0:
        st.runs[after].before = before
    else:
        st.servers[b].lru_tail = before
    st.runs[run].listed = False


@jit
def idle(st, run):
    """Return how many blocks of a run no sequence uses."""
    return 0 if st.runs[run].full > 0 else st.runs[run].size - st.runs[run].part


@jit
def new_run(st, node, owner):
    """Allocate an empty run and return its number."""
    st.at[3] -= 1
    run = st.free_runs[st.at[3]]
    st.runs[run].node, st.runs[run].owner = node, owner
    st.runs[run].size = st.runs[run].full = st.runs[run].part = 0
    st.runs[run].listed = False
    return run


@jit
def evict(st, b):
    """Evict least recently used blocks until the number of free blocks is not negative."""
    while st.servers[b].free < 0 and st.servers[b].idle_cached > 0:
        run = st.servers[b].lru_head
        unheld = idle(st, run)
        taken = min(unheld, -st.servers[b].free)
        st.runs[run].size -= taken
        st.servers[b].free += taken
        st.servers[b].idle_cached -= taken
        if taken < unheld:
            continue
        lru_remove(st, b, run)
        if st.runs[run].size == 0:
            drop(st, b, run)


@jit
def drop(st, b, run):
    """Free an empty run."""
    if st.runs[run].node >= 0:
        del st.table[np.int64(st.runs[run].node) * len(st.fleet) + b]
    elif st.runs[run].owner >= 0:
        st.slots[st.runs[run].owner].private = -1
    st.free_runs[st.at[3]] = run
    st.at[3] += 1


@jit
def path_to(st, node):
    """Write the nodes from the root to `node` into `path`; return their number."""
    depth = 0
    while node >= 0:
        st.path[depth] = node
        node = st.nodes[node].parent
        depth += 1
    return depth


@jit
def begin_of(st, node):
    """Return the blocks from the root to the start of a node."""
    return st.nodes[st.nodes[node].parent].end if st.nodes[node].parent >= 0 else 0


@jit
def match(st, b, s, limit):
    """Count the leading blocks of a request that are cached, and those of them no sequence uses."""
    node = st.slots[s].node
    depth = path_to(st, node)
    hits = unheld = 0
    for level in range(depth - 1, -1, -1):
        step = st.path[level]
        key = np.int64(step) * len(st.fleet) + b
        begin = begin_of(st, step)
        if begin == st.nodes[step].end:  # less than a block more than its parent
            continue
        if hits >= limit or key not in st.table:
            return hits, unheld
        run = st.table[key]
        count = min(st.runs[run].size, limit - begin)
        hits += count
        if st.runs[run].full == 0:
            unheld += max(0, count - st.runs[run].part)
        if hits < st.nodes[step].end:
            return hits, unheld
    if st.slots[s].private >= 0 and hits < limit:
        count = min(st.runs[st.slots[s].private].size, limit - hits)
        hits += count
        unheld += count
    return hits, unheld


@jit
def claim(st, b, s, start, stop, naming):
    """Hold the blocks from `start` to `stop` of a request's path.

    With `naming` the request has computed these blocks itself; its copies of blocks that the pool
    already has are freed.
    """
    if stop <= start:
        return
    node = st.slots[s].node
    for level in range(path_to(st, node) - 1, -1, -1):
        step = st.path[level]
        begin = begin_of(st, step)
        if st.nodes[step].end <= max(start, begin):
            continue
        if begin >= stop:
            return
        key = np.int64(step) * len(st.fleet) + b
        if key not in st.table:
            st.table[key] = new_run(st, step, -1)
        run = st.table[key]
        length = min(stop, st.nodes[step].end) - begin
        hold(st, b, run, max(start - begin, 0), length, naming)
        if length == st.nodes[step].end - begin:
            st.runs[run].full += 1
            st.runs[run].part = 0
    begin = st.nodes[node].end if node >= 0 else 0
    if begin >= stop:
        return
    if st.slots[s].private < 0:
        st.slots[s].private = new_run(st, -1, s)
    hold(st, b, st.slots[s].private, max(start - begin, 0), stop - begin, naming)


@jit
def hold(st, b, run, start, stop, naming):
    """Hold the blocks of a run from `start` to `stop`; extend the run where it is shorter."""
    known = max(0, min(st.runs[run].size, stop) - start)
    if naming:
        st.servers[b].free += known
    st.runs[run].size = max(st.runs[run].size, stop)
    st.runs[run].part = stop
    if st.runs[run].full == 0:
        st.servers[b].idle_cached -= known
        if st.runs[run].listed and st.runs[run].size == stop:
            lru_remove(st, b, run)


@jit
def release(st, b, s):
    """Release the blocks of a request; full blocks stay in the prefix cache."""
    full = st.slots[s].computed // BLOCK_TOKENS
    claim(st, b, s, st.slots[s].named, full, True)
    named = max(full, st.slots[s].named)
    st.servers[b].free += st.slots[s].blocks - named
    node = st.slots[s].node
    if st.slots[s].private >= 0:
        unhold(st, b, st.slots[s].private)
    while node >= 0:
        begin = begin_of(st, node)
        if begin < min(named, st.nodes[node].end):
            run = st.table[np.int64(node) * len(st.fleet) + b]
            if named >= st.nodes[node].end:
                st.runs[run].full -= 1
                if st.runs[run].full == 0:
                    st.servers[b].idle_cached += idle(st, run)
                    lru_append(st, b, run)
            elif st.runs[run].full == 0:
                unhold(st, b, run)
            else:
                st.runs[run].part = 0
        node = st.nodes[node].parent
    st.slots[s].blocks = st.slots[s].named = 0
    evict(st, b)


@jit
def unhold(st, b, run):
    """Release the part of a run that one request holds."""
    if st.runs[run].part == 0:
        return
    st.servers[b].idle_cached += st.runs[run].part
    st.runs[run].part = 0
    if st.runs[run].listed:
        lru_remove(st, b, run)
    lru_append(st, b, run)


# --- one backend's engine -----------------------------------------------------------------


@jit
def computed_by(st, b, s):
    """Return how many tokens of a decoding sequence have their KV computed."""
    return st.slots[s].computed + st.servers[b].steps - st.slots[s].joined


@jit
def take(st, b, count):
    """Allocate blocks; evict cached ones where too few are free."""
    st.servers[b].free -= count
    evict(st, b)


@jit
def available(st, b):
    """Return how many blocks can be allocated: free ones and cached ones that no sequence uses."""
    return st.servers[b].free + st.servers[b].idle_cached


@jit
def grow(st, b, at):
    """Allocate a block for each sequence that needs one; return whether one was preempted."""
    residue = st.servers[b].steps % BLOCK_TOKENS
    preempted = False
    while st.growing[b, residue] > available(st, b):
        if st.servers[b].running + (st.servers[b].partial >= 0) < 2:
            break
        preempt(st, b, at)
        st.servers[b].preemptions += 1
        preempted = True
    if st.growing[b, residue]:
        take(st, b, np.int64(st.growing[b, residue]))
    return preempted


@jit
def preempt(st, b, at):
    """Free the blocks of the sequence admitted last, and put it at the head of the queue."""
    s = st.servers[b].partial
    if s >= 0:
        st.servers[b].partial = -1
    else:
        s = st.decoding[b, st.servers[b].running - 1]
        st.servers[b].running -= 1
        leave(st, b, s)
        st.servers[b].next_last = NEVER
        for position in range(st.servers[b].running):
            other = st.decoding[b, position]
            st.servers[b].next_last = min(st.servers[b].next_last, st.slots[other].last_at)
        st.slots[s].stopped = at
    release(st, b, s)
    st.slots[s].computed = 0
    st.slots[s].target = st.slots[s].prompt + st.slots[s].produced
    st.slots[s].next = st.servers[b].queue_head
    st.servers[b].queue_head = s
    st.servers[b].queue_size += 1


@jit
def leave(st, b, s):
    """Remove a sequence from the decoding ones; store how much it has computed and produced."""
    st.growing[b, (st.slots[s].joined - st.slots[s].computed) % BLOCK_TOKENS] -= 1
    computed = computed_by(st, b, s)
    st.servers[b].sum_context -= computed
    st.slots[s].produced += computed - st.slots[s].computed
    st.slots[s].computed = computed
    st.slots[s].blocks = (computed + BLOCK_TOKENS - 1) // BLOCK_TOKENS


@jit
def join(st, b, s):
    """Add a sequence to the decoding ones, from the next step on."""
    st.decoding[b, st.servers[b].running] = s
    st.servers[b].running += 1
    st.slots[s].joined = st.servers[b].steps
    st.servers[b].sum_context += st.slots[s].computed
    left = st.slots[s].output - st.slots[s].produced
    st.slots[s].last_at = st.servers[b].steps + left
    st.servers[b].next_last = min(st.servers[b].next_last, st.slots[s].last_at)
    st.growing[b, (st.slots[s].joined - st.slots[s].computed) % BLOCK_TOKENS] += 1


@jit
def admit(st, b, s, at):
    """Admit a request if max_num_seqs and the free blocks allow it; allocate its blocks."""
    running = st.servers[b].running + st.servers[b].chunks + (st.servers[b].partial >= 0)
    if running >= st.fleet[b].max_seqs:
        return False
    limit = (st.slots[s].target - 1) // BLOCK_TOKENS
    hits, unheld = match(st, b, s, limit)
    needed = (st.slots[s].target + BLOCK_TOKENS - 1) // BLOCK_TOKENS - hits
    left = available(st, b) - unheld - needed
    if running and left < st.fleet[b].blocks // WATERMARK:
        return False
    claim(st, b, s, 0, hits, False)
    take(st, b, needed)
    st.slots[s].blocks = hits + needed
    st.slots[s].named = hits
    st.slots[s].computed = hits * BLOCK_TOKENS
    if st.slots[s].started < 0:
        st.slots[s].started = at
        st.slots[s].cached = st.slots[s].computed
    return True


@jit
def compute(st, b, s, room):
    """Put the next chunk of a prompt into the step; return its tokens and its pairs of tokens."""
    before = st.slots[s].computed
    tokens = min(room, st.slots[s].target - before)
    st.slots[s].computed += tokens
    full = st.slots[s].computed // BLOCK_TOKENS
    if full > st.slots[s].named:
        claim(st, b, s, st.slots[s].named, full, True)
        st.slots[s].named = full
    if st.slots[s].computed < st.slots[s].target:
        st.servers[b].partial = s
    st.slots[s].next = -1
    if st.servers[b].chunks:
        st.slots[st.servers[b].chunk_tail].next = s
    else:
        st.servers[b].chunk_head = s
    st.servers[b].chunk_tail = s
    st.servers[b].chunks += 1
    return tokens, tokens * before + tokens * (tokens + 1) // 2


@jit
def enqueue(st, b, request):
    """Add a request to the end of a backend's queue."""
    if st.servers[b].waiting_head < 0:
        st.servers[b].waiting_head = request
    else:
        st.waiting[st.servers[b].waiting_tail] = request
    st.servers[b].waiting_tail = request
    st.servers[b].queue_size += 1


@jit
def first_queued(jobs, st, b):
    """Return the slot of the first request in a queue; give it one where it has none."""
    if st.servers[b].queue_head >= 0:
        return st.servers[b].queue_head
    request = st.servers[b].waiting_head
    last = request == st.servers[b].waiting_tail
    st.servers[b].waiting_head = -1 if last else st.waiting[request]
    st.at[2] -= 1
    s = st.free_slots[st.at[2]]
    st.slots[s].request, st.slots[s].next, st.slots[s].private = request, -1, -1
    st.slots[s].computed = st.slots[s].produced = 0
    st.slots[s].blocks = st.slots[s].named = 0
    st.slots[s].started = st.slots[s].first = -1
    st.slots[s].prompt, st.slots[s].output = jobs.prompt[request], jobs.output[request]
    st.slots[s].node = jobs.node[request]
    st.slots[s].target = max(1, jobs.prompt[request])
    st.servers[b].queue_head = s
    return s


@jit
def begin(jobs, st, b, at):
    """Schedule the next step or a jump of decode-only steps; go idle where there is no work."""
    preempted = grow(st, b, at)
    decoded = st.servers[b].running
    room = st.fleet[b].budget - decoded
    prefilled = pairs = np.int64(0)
    if st.servers[b].partial >= 0 and room > 0:
        s = st.servers[b].partial
        st.servers[b].partial = -1
        tokens, more = compute(st, b, s, room)
        prefilled += tokens
        pairs += more
    while not preempted and st.servers[b].queue_size and room > prefilled:
        s = first_queued(jobs, st, b)
        if not admit(st, b, s, at):
            break
        st.servers[b].queue_head = st.slots[s].next
        st.servers[b].queue_size -= 1
        tokens, more = compute(st, b, s, room - prefilled)
        prefilled += tokens
        pairs += more
    st.servers[b].decoded = decoded
    if not decoded and not st.servers[b].chunks:
        st.servers[b].idle_since = at
        st.servers[b].ends = NEVER
        return
    st.servers[b].began = at
    if st.servers[b].chunks or preempted:
        st.servers[b].jump = 1
    else:
        # up to the next last token, and while the blocks are sure to suffice
        sure = 1 + BLOCK_TOKENS * (available(st, b) // decoded)
        st.servers[b].jump = max(1, min(st.servers[b].next_last - st.servers[b].steps, sure))
    st.servers[b].ends = (
        at
        + st.fleet[b].token * prefilled
        + st.fleet[b].pair * pairs
        + duration_of(st, b, st.servers[b].jump)
    )


@jit
def duration_of(st, b, steps):
    """Return the duration of a number of decode-only steps that begin now."""
    decoded = st.servers[b].decoded
    one = (
        st.fleet[b].base
        + st.fleet[b].token * decoded
        + st.fleet[b].context * st.servers[b].sum_context
    )
    return steps * one + st.fleet[b].context * decoded * (steps * (steps - 1) // 2)


@jit
def cut_jump(st, b, now):
    """End a jump with the step that runs at `now`, so that the next step can admit a request."""
    if st.servers[b].jump == 1:
        return
    low, high = 1, st.servers[b].jump
    while low < high:
        middle = (low + high) // 2
        if st.servers[b].began + duration_of(st, b, middle) > now:
            high = middle
        else:
            low = middle + 1
    st.servers[b].jump = low
    st.servers[b].ends = st.servers[b].began + duration_of(st, b, low)


@jit
def count_gap(st, gap, count):
    """Count a time between two tokens."""
    if gap > st.gaps[GAP_BINS]:
        st.gaps[GAP_BINS] = gap
    place = int(np.log(gap) * GAP_SCALE) if gap > 0 else 0
    st.gaps[min(place, GAP_BINS - 1)] += count


@jit
def note_gaps(st, b):
    """Count the inter-token times of the steps that end now."""
    steps, decoded = st.servers[b].jump, st.servers[b].decoded
    if not decoded:
        return
    if steps == 1:
        count_gap(st, st.servers[b].ends - st.servers[b].began, decoded)
        return
    first = duration_of(st, b, 1)
    more = st.fleet[b].context * decoded
    if more * steps * 2000 < first:  # all in one bin, or nearly
        count_gap(st, first + more * (steps - 1), 1)
        count_gap(st, first + more * (steps // 2), decoded * steps - 1)
        return
    for step in range(steps):
        count_gap(st, first + more * step, decoded)


@jit
def finish_steps(st, b, ended):
    """Produce the tokens of the steps that end now; list finished slots, return their number."""
    at, steps, decoded = st.servers[b].ends, st.servers[b].jump, st.servers[b].decoded
    note_gaps(st, b)
    count = 0
    if decoded:
        if steps > 1:
            blocks = decoded * ((steps - 1) // BLOCK_TOKENS)
            for step in range(1, (steps - 1) % BLOCK_TOKENS + 1):
                blocks += st.growing[b, (st.servers[b].steps + step) % BLOCK_TOKENS]
            if blocks:
                take(st, b, np.int64(blocks))
        st.servers[b].steps += steps
        st.servers[b].sum_context += decoded * steps
        if st.servers[b].steps == st.servers[b].next_last:
            count = finish_decoding(st, b, ended)
    return finish_chunks(st, b, ended, count, at)


@jit
def finish_chunks(st, b, ended, count, at):
    """Produce the first token of each prompt whose prefill is complete, and start its decoding."""
    s = st.servers[b].chunk_head
    chunks = st.servers[b].chunks
    st.servers[b].chunks = 0
    for _ in range(chunks):
        following = st.slots[s].next
        if st.slots[s].computed >= st.slots[s].target:
            if st.slots[s].produced:
                count_gap(st, at - st.slots[s].stopped, 1)
            st.slots[s].produced += 1
            if st.slots[s].first < 0:
                st.slots[s].first = at
            if st.slots[s].produced == st.slots[s].output:
                release(st, b, s)
                ended[count] = s
                count += 1
            else:
                join(st, b, s)
        s = following
    return count


@jit
def finish_decoding(st, b, ended):
    """Finish the sequences that have their last token; the others keep their order."""
    count = kept = 0
    following = NEVER
    for position in range(st.servers[b].running):
        s = st.decoding[b, position]
        if st.slots[s].last_at == st.servers[b].steps:
            leave(st, b, s)
            release(st, b, s)
            ended[count] = s
            count += 1
        else:
            st.decoding[b, kept] = s
            following = min(following, st.slots[s].last_at)
            kept += 1
    st.servers[b].running = kept
    st.servers[b].next_last = following
    return count


# --- nginx --------------------------------------------------------------------------------


@jit
def draw(peers, below):
    """Draw a random integer below `below` with splitmix64."""
    peers.random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = peers.random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.int64(z >> np.uint64(2)) % below


@jit
def credit_children(ranking, c, node):
    """Pass the turns that are owed below a node on to its children."""
    at, owed = ranking.begin[c] + node, ranking.owed[ranking.begin[c] + node]
    if not owed:
        return
    for child in range(ranking.begin[c] + 2 * node, ranking.begin[c] + 2 * node + 2):
        if ranking.least[child] == ranking.least[at]:
            ranking.owed[child] += owed
            ranking.score[child] += owed * ranking.weight[c]
    ranking.owed[at] = 0


@jit
def merge(ranking, c, node):
    """Compute a node from its children; of equal scores the earlier server's comes first."""
    at = ranking.begin[c] + node
    left, right = ranking.begin[c] + 2 * node, ranking.begin[c] + 2 * node + 1
    ranking.least[at] = min(ranking.least[left], ranking.least[right])
    ranking.tied[at] = 0
    for child in range(right, left - 1, -1):
        if ranking.least[child] == ranking.least[at]:
            if ranking.tied[at] == 0 or ranking.score[child] >= ranking.score[at]:
                ranking.score[at], ranking.best[at] = ranking.score[child], ranking.best[child]
            ranking.tied[at] += ranking.tied[child]


@jit
def merge_all(ranking, c):
    """Compute all nodes of a tournament from its leaves."""
    for node in range(ranking.size[c] - 1, 0, -1):
        merge(ranking, c, node)


@jit
def rank(ranking, b, conns, score):
    """Add to a server's requests in flight and to its current weight."""
    c = ranking.of[b]
    leaf = ranking.size[c] + ranking.place[b]
    height = 0
    while leaf >> (height + 1):
        height += 1
    for above in range(height, 0, -1):
        credit_children(ranking, c, leaf >> above)
    ranking.least[ranking.begin[c] + leaf] += conns
    ranking.score[ranking.begin[c] + leaf] += score
    for above in range(1, height + 1):
        merge(ranking, c, leaf >> above)


@jit
def lowest(ranking):
    """Return a class with the fewest requests in flight per weight, and how many servers tie."""
    first, tied = 0, np.int64(0)
    for c in range(len(ranking.weight)):
        root = ranking.begin[c] + 1
        mine = ranking.least[root] * ranking.weight[first]
        least = ranking.least[ranking.begin[first] + 1] * ranking.weight[c]
        if mine < least:
            first, tied = c, np.int64(0)
        if mine <= least:
            tied += ranking.tied[root]
    return first, tied


@jit
def credit(ranking, first):
    """Add the weights of the servers that tie with a class; return the best one and the sum."""
    best, score, total = np.int32(-1), np.int64(0), np.int64(0)
    for c in range(len(ranking.weight)):
        root, lead = ranking.begin[c] + 1, ranking.begin[first] + 1
        if ranking.least[root] * ranking.weight[first] != ranking.least[lead] * ranking.weight[c]:
            continue
        ranking.owed[root] += 1
        ranking.score[root] += ranking.weight[c]
        total += ranking.tied[root] * ranking.weight[c]
        highest, server = ranking.score[root], ranking.best[root]
        if best < 0 or highest > score or (highest == score and server < best):
            best, score = server, highest
    return best, total


@jit
def round_robin(peers):
    """Take a turn of smooth weighted round robin: the highest score, the first on a tie."""
    best, total = credit(peers.ranking, 0)  # nothing counts as in flight: all tie
    rank(peers.ranking, best, 0, -total)
    return best


@jit
def current_weight(ranking, b):
    """Return a server's current weight."""
    c = ranking.of[b]
    rank(ranking, b, 0, 0)  # credits the turns owed on the path to it
    return ranking.score[ranking.begin[c] + ranking.size[c] + ranking.place[b]]


@jit
def sticky(peers, user):
    """Return the server of the user's cookie; without one, the next server by round robin."""
    bound, total = peers.bound[user], peers.ends[-1]
    if bound >= 0 and current_weight(peers.ranking, bound) <= peers.weight[bound] - total:
        return bound
    best, _ = credit(peers.ranking, 0)
    if bound >= 0:
        best = bound
    rank(peers.ranking, best, 0, -total)
    peers.bound[user] = best
    return best


@jit
def least_conn(peers):
    """Return the server with the fewest requests in flight per weight; ties by round robin."""
    first, tied = lowest(peers.ranking)
    if tied == 1:
        return peers.ranking.best[peers.ranking.begin[first] + 1]
    best, total = credit(peers.ranking, first)
    rank(peers.ranking, best, 0, -total)
    return best


@jit
def estimate(peers, b, second):
    """Estimate the time of one more request: the rounded average times the requests in flight."""
    time = peers.header[b]
    unchecked = second - peers.checked[b]
    if unchecked > 10:
        time >>= min(unchecked // 11, 62)
    time = 5000 if time > 5000 else time + 20 - time % 20
    return time * (1 + peers.conns[b])


@jit
def least_time(peers, second):
    """Return the server with the least estimate per weight; ties by round robin, as in nginx."""
    best, tied, least = 0, 1, estimate(peers, 0, second)
    for b in range(1, len(peers.weight)):
        eta = estimate(peers, b, second)
        if eta * peers.weight[best] < least * peers.weight[b]:
            best, tied, least = b, 1, eta
        elif eta * peers.weight[best] == least * peers.weight[b]:
            tied += 1
    if tied == 1:
        return best
    total, first = 0, best
    for b in range(first, len(peers.weight)):
        eta = estimate(peers, b, second)
        if eta * peers.weight[first] != least * peers.weight[b]:
            continue
        if eta * peers.weight[best] == least * peers.weight[b]:
            total += peers.weight[b]
            peers.current[b] += peers.weight[b]
            if peers.current[b] > peers.current[best]:
                best = b
    peers.current[best] -= total
    return best


@jit
def drawn(peers):
    """Draw a server with a probability proportional to its weight."""
    return np.searchsorted(peers.ends, draw(peers, peers.ends[-1]), "right")


@jit
def random_two(peers):
    """Draw two servers and return the less loaded one; on a tie the second."""
    first = -1
    for _ in range(21):
        b = drawn(peers)
        if b == first:
            continue
        if first >= 0:
            busier = peers.conns[b] * peers.weight[first] > peers.conns[first] * peers.weight[b]
            return first if busier else b
        first = b
    return round_robin(peers)


@jit
def pick(method, jobs, peers, request, now):
    """Return the server that nginx picks."""
    if method == STATIC or len(peers.weight) == 1:
        return np.int64(jobs.pick[request]) if method == STATIC else np.int64(0)
    if method == LEAST_CONN:
        return np.int64(least_conn(peers))
    if method == LEAST_TIME:
        return np.int64(least_time(peers, now // PICOSECONDS))
    if method == RANDOM:
        return np.int64(drawn(peers))
    if method == RANDOM_TWO:
        return np.int64(random_two(peers))
    if method == STICKY:
        return np.int64(sticky(peers, jobs.user[request]))
    return np.int64(round_robin(peers))


@jit
def averaged(average, sample):
    """Return the moving average after a sample: 5 % new value, 95 % old average."""
    return int(0.5 + (sample * 0.05 + average * 0.95)) if average else sample


# --- the loop -----------------------------------------------------------------------------


@jit
def set_due(st, b):
    """Update the tournament tree of the earliest event after a backend's event has changed."""
    tree, size = st.tree, len(st.tree) // 2
    place = (size + b) // 2
    while place >= 1:
        left, right = tree[2 * place], tree[2 * place + 1]
        if right < 0 or (left >= 0 and st.servers[left].ends <= st.servers[right].ends):
            tree[place] = left
        else:
            tree[place] = right
        place //= 2


@jit
def set_all_due(st):
    """Compute the tournament tree of the earliest event from its leaves."""
    for b in range(len(st.servers)):
        set_due(st, b)


@jit
def push(st, jobs, time, request):
    """Push a follow-up request on the heap of pending ones."""
    heap, requests = jobs.pending, jobs.pending_request
    place = st.at[1]
    st.at[1] += 1
    while place:
        above = (place - 1) // 2
        if heap[above] < time or (heap[above] == time and requests[above] < request):
            break
        heap[place], requests[place] = heap[above], requests[above]
        place = above
    heap[place], requests[place] = time, request


@jit
def pop(st, jobs):
    """Pop the earliest follow-up request from the heap and return it."""
    heap, requests = jobs.pending, jobs.pending_request
    top = requests[0]
    st.at[1] -= 1
    size = st.at[1]
    time, request = heap[size], requests[size]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            heap[other] < heap[child]
            or (heap[other] == heap[child] and requests[other] < requests[child])
        ):
            child = other
        if time < heap[child] or (time == heap[child] and request < requests[child]):
            break
        heap[place], requests[place] = heap[child], requests[child]
        place = child
    heap[place], requests[place] = time, request
    return top


@jit
def arrive(method, jobs, st, result, peers, request, now):
    """Pick a server for a request, and queue the request there."""
    b = pick(method, jobs, peers, request, now)
    if method == LEAST_CONN:
        rank(peers.ranking, b, 1, 0)
    second = now // PICOSECONDS
    if second - peers.checked[b] > 10:
        peers.checked[b] = second
    if peers.conns[b] == 0:
        st.servers[b].busy_since = now
    peers.conns[b] += 1
    st.servers[b].peak = max(st.servers[b].peak, peers.conns[b])
    result.sent[request] = now
    enqueue(st, b, request)
    if st.servers[b].ends == NEVER:
        start = max(now, st.servers[b].idle_since)
        begin(jobs, st, b, start)
    elif st.servers[b].queue_size == 1:
        cut_jump(st, b, now)
    set_due(st, b)


@jit
def depart(method, jobs, st, result, peers, b, s, now):
    """Finish a request: record its times, free its slot, schedule the request that follows it."""
    request = st.slots[s].request
    result.first[request] = st.slots[s].first
    result.last[request] = now
    result.cached[request] = st.slots[s].cached
    result.queued[request] = (st.slots[s].started - result.sent[request]) / (PICOSECONDS / 1000)
    result.backend[request] = b
    if st.slots[s].private >= 0:
        st.runs[st.slots[s].private].owner = -1
    st.free_slots[st.at[2]] = s
    st.at[2] += 1
    peers.conns[b] -= 1
    if method == LEAST_CONN:
        rank(peers.ranking, b, -1, 0)
    if peers.conns[b] == 0:
        st.servers[b].busy += now - st.servers[b].busy_since
    ms = PICOSECONDS // 1000
    header_at = result.first[request] if jobs.stream else now
    header = header_at // ms - result.sent[request] // ms
    peers.header[b] = averaged(peers.header[b], header)
    following = jobs.follows[request] if len(jobs.follows) else -1
    if following >= 0 and now + jobs.due[following] < jobs.last_due:
        push(st, jobs, now + jobs.due[following], following)


@jit
def slots_short(st):
    """Return whether one backend's next step may admit more requests than there are free slots."""
    return st.at[2] < st.decoding.shape[1]


@jit
def runs_short(jobs, st):
    """Return whether the next event may need more runs of blocks than are free."""
    admitted = len(st.slots) - st.at[2] + st.decoding.shape[1]
    return st.at[3] < (admitted + 1) * (jobs.depth + 1)


@jit
def loop(method, jobs, st, result, peers, ended, most):
    """Process events in the order of their times until `most` more requests have been sent."""
    stop = st.at[4] + most
    while True:
        if slots_short(st) or runs_short(jobs, st):
            return FULL
        first, request, now = next_arrival(st, jobs)
        b = st.tree[1]
        due = st.servers[b].ends
        if due != NEVER and due <= now:
            for place in range(finish_steps(st, b, ended)):
                depart(method, jobs, st, result, peers, b, ended[place], due)
            begin(jobs, st, b, due)
            set_due(st, b)
            continue
        if now == NEVER:
            return DONE
        if st.at[4] >= stop:
            return MORE
        if first:
            st.at[0] += 1
        else:
            pop(st, jobs)
        st.at[4] += 1
        arrive(method, jobs, st, result, peers, request, now)


@jit
def next_arrival(st, jobs):
    """Return whether the next request is a first one, its number, and when it is due."""
    request, now = -1, NEVER
    if st.at[1]:
        request, now = jobs.pending_request[0], jobs.pending[0]
    if st.at[0] < len(jobs.firsts):
        other = jobs.firsts[st.at[0]]
        due = jobs.due[other]
        if due < now or (due == now and other < request):
            return True, np.int64(other), jobs.due[other]
    return False, np.int64(request), np.int64(now)
