"""nginx's retries of GET and POST, before and after they were sent, and their limits."""

import threading
import time
from contextlib import contextmanager

import pytest
import requests

from nginx_llm_lab import verdict
from nginx_llm_lab.evidence import access_log, folder
from nginx_llm_lab.evidence import journal as journals
from nginx_llm_lab.nginxconf import upstream
from nginx_llm_lab.stack import compose, faults, nginx, shell

FIRST = ("backend-2: backup", "backend-3: down")  # backend-1 has it all, backend-2 stands by
ESTABLISHED = "grep -c ' [0-9A-F]*:1F40 [0-9A-F]*:[0-9A-F]* 01 ' /proc/net/tcp"


@contextmanager
def broken(lab, service, kind, value=None):
    """A fault for the length of a block."""
    faults.fault(lab.lab, service, kind, value)
    try:
        yield
    finally:
        faults.heal(lab.lab)


def ask(lab, method="GET", path="/", **headers):
    """One request through the lab door."""
    body = {"message": "again"} if method == "POST" else None
    url = f"{lab.lab.door}{'/chat' if method == 'POST' else path}"
    return requests.request(method, url, headers=headers, json=body, timeout=30)


def attempts(lab, answer):
    """The servers that nginx tried for a request, and their status."""
    names = faults.known_addresses(lab.lab)
    request_id = answer.headers["X-Request-ID"]

    def line():
        log = access_log.read(nginx.log_since(lab.lab, 0).splitlines()).hits
        return [hit for hit in log if hit.request_id == request_id]

    shell.wait_for(lambda: len(line()) == 1, 10, "nginx's line")
    (hit,) = access_log.named(line(), names)
    tried = (server.split(":")[0] for server in hit.upstream_addr)
    return list(zip(tried, hit.upstream_status, strict=True))


def executed(lab, answer):
    """The backends that have a line of a request, once the one that answered has."""
    request_id, last = answer.headers["X-Request-ID"], answer.headers.get("X-Backend", "")

    def found():
        text = compose.journals(lab.lab, time.time() - 60, 1)
        return [e.backend for e in journals.read(text.splitlines()).entries if e.id == request_id]

    shell.wait_for(lambda: last in [*found(), ""], 10, "the backend's line")
    return sorted(found())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_connection_is_retried_for_all(lab, method):
    """What was never sent can be sent elsewhere; it is executed once."""
    lab.use("round_robin", server_params=FIRST)

    with broken(lab, "backend-1", "kill"):
        answer = ask(lab, method)
        tried = attempts(lab, answer)

    assert answer.status_code == 200
    assert [server for server, _ in tried] == ["backend-1", "backend-2"]
    assert executed(lab, answer) == ["backend-2"]


@pytest.mark.parametrize(
    ("method", "rules", "status", "where"),
    [
        ("GET", "", 200, ["backend-1", "backend-2"]),
        ("POST", "", 502, ["backend-1"]),
        ("POST", "error timeout non_idempotent", 200, ["backend-1", "backend-2"]),
    ],
)
def test_what_was_sent_is_retried_only_where_it_may_be_repeated(lab, method, rules, status, where):
    """backend-1 reads the request and hangs up; with non_idempotent a POST is executed twice."""
    lab.use("round_robin", server_params=FIRST, next_upstream=rules)

    with broken(lab, "backend-1", "drop", 0):
        answer = ask(lab, method)

    assert answer.status_code == status
    assert executed(lab, answer) == where


def test_in_flight_on_a_killed_backend_a_get_goes_on_and_a_post_is_lost(lab):
    """The POST was sent; it may have been executed, so nginx does not retry it."""
    lab.use("round_robin", server_params=FIRST)
    answers = {}

    def send(method: str) -> None:
        answers[method] = ask(lab, method, **{"X-Lab-Duration": "4"})

    senders = [threading.Thread(target=send, args=(method,)) for method in ("GET", "POST")]
    for sender in senders:
        sender.start()
    shell.wait_for(lambda: connections(lab, "backend-1") >= 2, 10, "two requests at backend-1")
    with broken(lab, "backend-1", "kill"):
        for sender in senders:
            sender.join()

    assert answers["GET"].status_code == 200
    assert answers["GET"].headers["X-Backend"] == "backend-2"
    assert answers["POST"].status_code == 502


def connections(lab, name):
    """How many connections to a backend's port are open."""
    return int(compose.execute(lab.lab, name, ["sh", "-c", f"{ESTABLISHED} || true"]))


@pytest.mark.parametrize(
    ("method", "rules", "status", "tried"),
    [
        ("GET", "", 500, [("backend-1", 500)]),
        ("GET", "error timeout http_500", 200, [("backend-1", 500), ("backend-2", 200)]),
        ("POST", "error timeout http_500", 500, [("backend-1", 500)]),
        (
            "POST",
            "error timeout http_500 non_idempotent",
            200,
            [("backend-1", 500), ("backend-2", 200)],
        ),
    ],
)
def test_an_error_is_an_answer_unless_its_status_is_listed(lab, method, rules, status, tried):
    """http_500 has nginx ask the next server, a POST only with non_idempotent as well."""
    lab.use("round_robin", server_params=FIRST, next_upstream=rules)

    with broken(lab, "backend-1", "error_rate"):
        answer = ask(lab, method)

    assert answer.status_code == status
    assert attempts(lab, answer) == tried


@pytest.mark.parametrize(("most", "tries"), [(1, [2, 1, 1, 1]), (2, [2, 2, 1, 1]), (0, [2] * 4)])
def test_max_fails_is_the_number_of_failures_before_a_ban(lab, most, tries):
    """0 never leaves it out: every request tries the broken server first."""
    everywhere = f"max_fails={most} fail_timeout=60s"
    lab.use("round_robin", server_params=(everywhere, *FIRST))

    with broken(lab, "backend-1", "drop", 0):
        answers = [ask(lab) for _ in tries]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert [len(attempts(lab, answer)) for answer in answers] == tries


def test_with_every_server_banned_nginx_makes_no_attempt(lab):
    """502 without an attempt, until fail_timeout is over."""
    lab.use("round_robin", server_params=("max_fails=1 fail_timeout=60s",))

    with broken(lab, "all", "drop", 0):
        first, second = ask(lab), ask(lab)

    assert [first.status_code, second.status_code] == [502, 502]
    assert len(attempts(lab, first)) == 3
    assert attempts(lab, second) == [("llm", 502)]


@pytest.mark.parametrize(
    ("method", "weights"), [("round_robin", (3, 2, 1)), ("least_conn", ()), ("hash", ())]
)
def test_who_gets_the_share_of_a_dead_server_is_predicted(lab, method, weights):
    """While it is out and after it is back, every pick is as the oracle says."""
    lab.use(method, weights=weights, server_params=("fail_timeout=1s",))

    with broken(lab, "backend-2", "kill"):
        during = lab.send(120, concurrency=1)
    after = lab.send(60, concurrency=1)

    assert compared(during) == "PASS", during
    assert compared(after) == "PASS", after
    assert "backend-2" in after.split.counts


def compared(outcome):
    """The word on each request beside its prediction; alternatives would take more requests."""
    evidence = folder.read(outcome.folder)
    log = evidence.log()
    return verdict.judge(
        upstream.read(outcome.folder / "upstream.conf"),
        tuple(access_log.named(log.hits, evidence.addresses)),
        sequential=True,
        addresses={name: (address,) for address, name in evidence.addresses.items()},
        alone=True,
    ).word
