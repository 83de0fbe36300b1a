"""The run's own requests have keys that the client computed."""

from dataclasses import replace

from nginx_llm_lab.accounts.judging.own_requests import keys_as_sent
from tests.accounts.judging.run_folders import BACKENDS, CLAIM, evidence, record


def test_keys_are_not_compared_once_the_upstream_has_changed() -> None:
    """The client computed them by the config that nginx had at first."""
    sent = evidence(1, records=(record(0, BACKENDS[0], key="e"),))

    assert keys_as_sent(sent) == {"id-0": b"e"}
    assert keys_as_sent(replace(sent, claims={"upstream-2.conf": CLAIM})) == {}
