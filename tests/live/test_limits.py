"""The limits of the backends' engines: set, shown, felt by clients, and reset by a profile."""

from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

import pytest
import requests

from nginx_llm_lab.backends.llm.profiles import Limits
from nginx_llm_lab.experiment import fleet
from nginx_llm_lab.stack import behaviour

ONE_RUNS_ONE_WAITS = Limits(max_num_seqs=1, queue_limit=1)


@pytest.fixture
def limited(lab):
    """The lab with backends that run one request and let one wait; usual backends afterwards."""
    fleet.up(lab.lab, 3, "h100-8b", None, ONE_RUNS_ONE_WAITS)
    yield lab
    fleet.up(lab.lab, 3, "instant")
    assert {str(one) for one in fleet.conditions(lab.lab).values()} == {"instant, time scale 1"}


def test_a_full_queue_refuses_with_retry_after(limited):
    """Of five requests at one backend one runs, one waits, and three are told when to come back."""
    limited.use("round_robin", server_params=["backend-2: down", "backend-3: down"])
    asked = {"model": "lab-llm", "prompt": "Tell me a story.", "max_tokens": 16_000}

    def complete(_: int) -> requests.Response:
        return requests.post(f"{limited.lab.door}/v1/completions", json=asked, timeout=60)

    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(complete, number) for number in range(5)]
        first_three = [call.result() for call in islice(as_completed(calls), 3)]
        shown = str(fleet.conditions(limited.lab)["backend-1"])
        behaviour.request(limited.lab, "backend-1", "PUT", "/profile", {"profile": "instant"})
        answers = [call.result() for call in calls]

    assert shown == "h100-8b, max_num_seqs 1, queue_limit 1, time scale 1"
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503]
    assert {answer.headers.get("Retry-After") for answer in first_three} == {"1"}
    assert {answer.json()["error"]["code"] for answer in first_three} == {"queue_full"}
