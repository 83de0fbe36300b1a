"""Streams through nginx: token by token, nothing merged or lost, slots freed at once."""

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from nginx_llm_lab.accounts import figures, join
from nginx_llm_lab.evidence import access_log
from nginx_llm_lab.evidence import journal as journals
from nginx_llm_lab.pytest_plugin import LiveLab
from nginx_llm_lab.stack import behaviour, compose, nginx
from nginx_llm_lab.traffic import sender, workload
from nginx_llm_lab.traffic.scenario import Lengths, Scenario

ALL = ("backend-1", "backend-2", "backend-3")
CHAT = "/v1/chat/completions"
ONLY_FIRST = ("backend-2: down", "backend-3: down")
WATCHER = """
import re, sys, time, urllib.request
name, times = sys.argv[1], int(sys.argv[2])
pattern = re.compile("^vllm:" + name + "{[^}]*} ([0-9.]+)", re.M)
def value():
    with urllib.request.urlopen("http://127.0.0.1:8000/metrics", timeout=5) as answer:
        return float(pattern.search(answer.read().decode())[1])
usual = value()
print("watching", flush=True)
for _ in range(times):
    while value() <= usual: time.sleep(0.002)
    print("held", flush=True)
    while value() > usual: time.sleep(0.002)
    print(time.time(), flush=True)
"""


@pytest.fixture
def timed(lab):
    """Give backends a profile (backend-1, if none is named); afterwards they are instant again."""
    changed = set()

    def equip(profile: str, time_scale: float = 1.0, names: tuple[str, ...] = ALL[:1]) -> None:
        for name in names:
            changed.add(name)
            asked = {"profile": profile, "time_scale": time_scale}
            behaviour.request(lab.lab, name, "PUT", "/profile", asked)

    yield equip
    equip("instant", names=tuple(changed))


def body(tokens: int) -> dict[str, object]:
    """A chat that is answered with exactly so many tokens."""
    return {
        "model": "lab-llm",
        "messages": [{"role": "user", "content": "Say something."}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }


def tokens_in(data: bytes) -> int:
    """How many tokens the events of some bytes bring."""
    events = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return sum(bool(choice["delta"].get("content")) for choice in choices)


def joined(lab: LiveLab, scenario: Scenario) -> join.Joined:
    """Send a scenario by the method that serves; what client, nginx and backends saw of it."""
    mark, began = nginx.log_size(lab.lab), time.time()
    records = sender.run(workload.plan(scenario), lab.lab.door, limit=60)
    log = access_log.read(nginx.log_with(lab.lab, mark, len(records)).splitlines(keepends=True))
    journal = compose.journals(lab.lab, began, len(records))
    known = {record.id for record in records}
    entries = [entry for entry in journals.read(journal.splitlines()).entries if entry.id in known]
    return join.join(records, (*log.hits, *log.unproxied), entries)


@contextmanager
def watched(lab: LiveLab, metric: str, times: int) -> Iterator[Callable[[], str]]:
    """Watch a backend's metric from inside its container: lines of when it was held and free."""
    container = compose.container_id(lab.lab, "backend-1")
    words = ["docker", "exec", container, "python3", "-c", WATCHER, metric, str(times)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        lines = map(str.strip, watcher.stdout)
        try:
            assert next(lines) == "watching"
            yield lambda: next(lines)
        finally:
            watcher.kill()


def long_stream(lab: LiveLab) -> requests.Response:
    """A stream that has begun and that nobody will wait for."""
    return requests.post(f"{lab.lab.door}{CHAT}", json=body(4000), stream=True, timeout=30)


def test_every_token_is_an_event_of_its_own(lab, timed):
    """Always, though an HTTP chunk may carry several events where many streams run at once."""
    lab.use("round_robin", server_params=ONLY_FIRST)
    timed("h100-8b", 10)

    def events(_number: int) -> list[int]:
        answer = requests.post(f"{lab.lab.front}{CHAT}", json=body(40), timeout=30)
        return [tokens for event in answer.content.split(b"\n\n") if (tokens := tokens_in(event))]

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(events, range(20))) == [[1] * 40] * 20


def test_tokens_come_one_by_one(lab, timed):
    """The client reads each at another moment, spread over the time that they took to make."""
    lab.use("round_robin", server_params=ONLY_FIRST)
    timed("slow-8b")
    scenario = Scenario(
        "few", requests=6, arrivals="constant", rate=50.0, output=Lengths(tokens=20)
    )

    records = sender.run(workload.plan(scenario), lab.lab.door, limit=60)

    assert [len(set(record.token_times)) for record in records] == [20] * 6
    assert all(
        record.token_times[-1] - record.token_times[0] > 0.9 * 19 * 0.06 for record in records
    )


def test_the_first_token_is_as_early_as_without_nginx(lab, timed):
    """Curl in nginx's container, by turns direct and through nginx: 5 ms later at most.

    The median of 20 pairs, each within a tenth of a second: other work of the
    machine affects both of a pair alike.
    """
    lab.use("round_robin", server_params=ONLY_FIRST)
    timed("h100-8b")
    urls = [f"http://backend-1:8000{CHAT}", f"http://127.0.0.1:8080{CHAT}"] * 20
    outputs = [word for _ in urls for word in ("-o", "/dev/null")]
    options = ["-sSN", "-w", r"%{time_starttransfer}\n", "-d", json.dumps(body(2))]

    output = compose.execute(lab.lab, "nginx", ["curl", *options, *outputs, *urls])

    times = [float(line) * 1e3 for line in output.split()]
    later = [through - direct for direct, through in zip(times[::2], times[1::2], strict=True)]
    assert len(later) == 20
    assert min(times) > 4  # the model's own time to the first token: 4.8 ms
    assert statistics.median(later) < 5, times


def test_no_chunk_is_lost_among_many_streams(lab, timed):
    """300 streams of mixed lengths: whatever token a backend sent, its own client received."""
    lab.use("least_conn")
    timed("h100-8b", 10, ALL)
    lengths = Lengths("lognormal", median=40, sigma=1.0, max=400)
    scenario = Scenario("many", requests=300, arrivals="poisson", rate=100.0, output=lengths)

    rows = joined(lab, scenario)

    assert rows.findings == ()
    sent = [entry.tokens_sent for row in rows.rows for entry in row.entries]
    records = [row.record for row in rows.rows if row.record]
    assert len(sent) == 300
    assert [record.tokens for record in records] == sent
    assert [record.max_tokens for record in records] == sent


def test_a_client_that_hangs_up_frees_its_slot(lab, timed):
    """From the client's leaving to the backend's free slot: 100 ms at most (the median of five)."""
    lab.use("round_robin", server_params=ONLY_FIRST)
    timed("slow-8b")
    delays = []

    with watched(lab, "num_requests_running", 5) as told:
        for _ in range(5):
            answer = long_stream(lab)
            assert told() == "held"
            left = time.time()
            answer.close()
            delays.append(float(told()) - left)

    assert statistics.median(delays) < 0.1, delays


def test_a_client_that_hangs_up_in_the_queue_leaves_it(lab, timed):
    """cpu-small runs four at a time; the fifth waits, leaves, and is waited for no more."""
    lab.use("round_robin", server_params=ONLY_FIRST)
    timed("cpu-small")
    running = [long_stream(lab) for _ in range(4)]
    delays = []

    with watched(lab, "num_requests_waiting", 3) as told:
        for _ in range(3):
            with pytest.raises(requests.ReadTimeout):  # queued: no token, so no header either
                requests.post(f"{lab.lab.door}{CHAT}", json=body(9), stream=True, timeout=(5, 0.5))
            left = time.time()
            assert told() == "held"
            delays.append(float(told()) - left)
    for answer in running:
        answer.close()

    assert statistics.median(delays) < 0.1, delays


def test_tokens_sent_to_nobody_are_counted_as_such(lab, timed):
    """A client that left: nginx says 499, the backend client_gone, and both stop."""
    lab.use("round_robin", server_params=ONLY_FIRST)
    timed("slow-8b")
    mark, began = nginx.log_size(lab.lab), time.time()

    with requests.post(
        f"{lab.lab.door}{CHAT}",
        json=body(4000),
        headers={"X-Request-ID": "leaves-early"},
        stream=True,
        timeout=30,
    ) as answer:
        next(answer.iter_lines())

    line = json.loads(nginx.log_with(lab.lab, mark, 1).splitlines()[0])
    entries = journals.read(compose.journals(lab.lab, began, 1).splitlines()).entries
    [entry] = [entry for entry in entries if entry.id == "leaves-early"]
    assert line["request_id"] == "leaves-early"
    assert entry.fate == "client_gone"
    assert 0 < (entry.completion_tokens or 0) < 100


def test_a_truncated_stream_is_seen_and_counted(lab):
    """One of three backends drops after five tokens: its ten are truncated, the others whole."""
    lab.use("round_robin")
    output = Lengths(tokens=20)
    scenario = Scenario("cut", requests=30, arrivals="constant", rate=50.0, output=output)

    behaviour.request(lab.lab, "backend-1", "PUT", "/behaviour", {"drop_after_tokens": 5})
    try:
        rows = joined(lab, scenario)
    finally:
        behaviour.request(lab.lab, "backend-1", "DELETE", "/behaviour")

    told = figures.figures(rows)
    records = [row.record for row in rows.rows if row.record]
    cut = [record for record in records if record.truncated]
    assert told.overall.errors == {"truncated": 10}
    assert {record.backend for record in cut} == {"backend-1"}
    assert {record.tokens for record in cut} == {5}
    assert {record.tokens for record in records} == {5, 20}
    assert rows.unexplained == ()
