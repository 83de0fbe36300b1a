"""A run whose requests get no answer is no evidence."""

import pytest

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.experiment.run import both_services, fixed, refuse_failures
from nginx_llm_lab.traffic import probes
from nginx_llm_lab.traffic.ab import Ab


def test_a_request_without_any_answer_stops_the_run() -> None:
    """How many, the first, and why; a 502 is an answer."""
    answered = Record(0, "a", 0.0, status=502, error="http_5xx")
    silent = Record(1, "b", 0.0, error="connect", detail="Connection refused")

    refuse_failures([answered])
    with pytest.raises(LabError) as refusal:
        refuse_failures([answered, silent])
    assert refusal.value.message == (
        "1 of 2 requests got no answer; request 2: connect Connection refused"
    )


def test_both_services_are_called_as_the_article_does() -> None:
    """Chat with JSON, completions with text."""
    chat, completions = both_services(Ab(10, 2))

    assert (chat.path, chat.content_type) == ("/chat", "application/json")
    assert (completions.path, completions.content_type) == ("/completions", "text/plain")


@pytest.mark.parametrize(("concurrency", "kept"), [(1, True), (20, False)])
def test_concurrent_requests_have_a_connection_each(concurrency: int, kept: bool) -> None:
    """A worker may accept every connection that is kept; one at a time they stay in order."""
    plan = probes.plan("least_conn", "", 30, 1, concurrency)

    assert fixed(plan).keepalive is kept
