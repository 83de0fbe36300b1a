"""ip_hash: the client's address decides."""

from nginx_llm_lab.experiment import run
from nginx_llm_lab.traffic import ab


def test_many_addresses_go_where_they_were_predicted(lab):
    """IPv4 by three octets, IPv6 whole."""
    lab.use("ip_hash", weights=(1, 2, 3))

    outcome = lab.send(400)

    assert outcome.holds, outcome


def test_one_ab_run_is_one_client(lab):
    """All of its requests go to one server, and the lab says why."""
    lab.use("ip_hash")

    bench = run.bench(lab.lab, ab.Ab(200))

    assert list(bench.split.counts.values()) == [200]
    assert "one address" in bench.note
