"""Backends that come, go and drain under load: not one request is lost."""

import threading

import pytest
import requests

from nginx_llm_lab.experiment import fleet, soak
from nginx_llm_lab.stack import compose, nginx, shell


@pytest.fixture
def three(lab):
    """However many backends a test leaves, the next one finds three."""
    yield
    fleet.up(lab.lab, 3)
    lab.use("round_robin")


def test_backends_come_and_go_without_a_lost_request(lab, three):
    """3, then 5, then 2, under GETs, POSTs and streams: all are answered by who is there."""
    lab.use("round_robin")

    with soak.traffic(lab.lab.door, seed=1, rate=lambda: 60.0) as records:
        fleet.up(lab.lab, 5)
        five = served(lab, 40)
        fleet.up(lab.lab, 2)
        two = served(lab, 20)

    assert [record for record in records if record.error] == []
    assert len(records) > 100
    assert five == {f"backend-{number}" for number in range(1, 6)}
    assert two == {"backend-1", "backend-2"}


def served(lab, requests_sent):
    """Who answers now."""
    answers = [requests.get(lab.lab.door, timeout=10) for _ in range(requests_sent)]
    assert all(answer.ok for answer in answers)
    return {answer.headers["X-Backend"] for answer in answers}


def test_a_server_marked_down_finishes_what_it_has(lab):
    """What is in flight on backend-1 when it is marked down is answered by backend-1."""
    lab.use("round_robin", server_params=("backend-2: down", "backend-3: down"))
    answers = []

    def slow():
        headers = {"X-Lab-Duration": "3"}
        answers.append(requests.get(lab.lab.door, headers=headers, timeout=30))

    senders = [threading.Thread(target=slow) for _ in range(3)]
    for sender in senders:
        sender.start()
    count = "grep -c ' [0-9A-F]*:1F40 [0-9A-F]*:[0-9A-F]* 01 ' /proc/net/tcp || true"
    shell.wait_for(
        lambda: int(compose.execute(lab.lab, "backend-1", ["sh", "-c", count])) >= 3,
        10,
        "three requests at backend-1",
    )
    lab.use("round_robin", server_params=("backend-1: down",))
    others = served(lab, 10)
    for sender in senders:
        sender.join()

    assert others == {"backend-2", "backend-3"}
    assert [answer.headers["X-Backend"] for answer in answers] == ["backend-1"] * 3


def test_a_draining_server_keeps_its_sessions_and_gets_no_new_ones(lab):
    """By sticky, `drain` leaves who has the cookie where they are."""
    if nginx.version(lab.lab) < (1, 29, 6):
        pytest.skip("sticky and drain need nginx 1.29.6")
    lab.use("sticky")
    clients = [requests.Session() for _ in range(6)]
    homes = [client.get(lab.lab.door, timeout=10).headers["X-Backend"] for client in clients]

    lab.use("sticky", server_params=("backend-1: drain",))
    again = [client.get(lab.lab.door, timeout=10).headers["X-Backend"] for client in clients]
    strangers = {requests.get(lab.lab.door, timeout=10).headers["X-Backend"] for _ in range(9)}

    assert "backend-1" in homes
    assert again == homes
    assert strangers == {"backend-2", "backend-3"}
