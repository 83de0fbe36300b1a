"""Eight fleets whose best method is known from how they are made; what a fleet file may say."""

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf import upstream
from nginx_llm_lab.simulate import advice

SHORT = "prompt: 200\noutput: 40\nrequests: 400\n"
EQUAL = f"servers: [{{profile: h100-8b, count: 4}}]\nrate: 4\n{SHORT}"
ONE_SLOW = (
    "servers: [{profile: h100-8b, count: 3}, {profile: h100-8b, slow: 8}]\n"
    f"rate: 12\narrivals: poisson\n{SHORT}"
)
# four caches of 65,536 tokens: no one holds 40 prompts of 4,000, each holds ten
SHARED = (
    "servers: [{profile: slow-8b, count: 4}]\nrate: 1\nprompt: 50\noutput: 10\nrequests: 400\n"
    "tenants: {n: 40, system_tokens: 4000}\n"
)
NAT = (
    "servers: [{profile: slow-8b, count: 4}]\nrate: 2\nprompt: 300\noutput: 60\nrequests: 400\n"
    "nat: true\n"
)
SESSIONS = (
    "servers: [{profile: slow-8b, count: 4}]\nrate: 0.15\nprompt: 600\noutput: 20\nrequests: 400\n"
    "sessions: {turns: 8, think: 5}\n"
)
# four sequences run at a time: who waits behind a long answer waits long
HEAVY_TAIL = (
    "servers: [{profile: cpu-small, count: 4}]\nrate: 0.9\nprompt: 50\nrequests: 800\n"
    "output: {dist: lognormal, median: 60, sigma: 1.5, max: 1500}\n"
)


def advised(tmp_path, text: str) -> advice.Advice:
    """The advice on a fleet file of that text."""
    file = tmp_path / "fleet.yaml"
    file.write_text(text)
    return advice.advise(str(file))


def test_equal_servers_and_equal_requests_are_a_tie(tmp_path):
    """Nothing to gain: the simplest method is named, the tie is told."""
    found = advised(tmp_path, EQUAL)

    assert found.best[:2] == ("round_robin", "least_conn")


@pytest.mark.parametrize(
    ("fleet", "method", "beaten"),
    [
        (ONE_SLOW, "least_time", "round_robin"),
        (ONE_SLOW + "nginx: 1.28.0\n", "least_conn", "round_robin"),
        (SHARED, "prompt_prefix", "least_conn"),
        (SESSIONS, "sticky", "least_conn"),
        (SESSIONS + "nginx: 1.26.3\nnat: true\n", "prompt_prefix", "least_conn"),
        (HEAVY_TAIL, "least_conn", "round_robin"),
    ],
    ids=["one slow", "one slow, old nginx", "shared", "sessions", "sessions, old", "heavy tail"],
)
def test_a_fleet_made_for_a_method_gets_it(tmp_path, fleet, method, beaten):
    """The method that the fleet is made for is named first, its opposite is beaten."""
    found = advised(tmp_path, fleet)

    assert found.best[0] == method
    assert beaten not in found.best


def test_behind_one_nat_an_address_is_no_key(tmp_path):
    """All requests come from one address: ip_hash sends them to one server of four."""
    found = advised(tmp_path, NAT)

    assert found.ranking[-1].method == "ip_hash"
    assert "ip_hash" not in found.best


def test_the_config_is_read_back_as_the_method(tmp_path):
    """What is printed balances by the method that was named, over all servers."""
    found = advised(tmp_path, EQUAL + "nginx: 1.26.3\n")
    conf = tmp_path / "nginx.conf"
    conf.write_text(found.config)

    group = upstream.read(conf)

    assert (group.method, len(group.servers)) == ("round_robin", 4)
    assert found.refused == {
        "least_time": "needs nginx 1.31.0",
        "sticky": "needs nginx 1.29.6",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: 3\n", r'a fleet needs "servers".*fleet\.yaml:1:1'),
        ("servers: [fast]\nrate: 3\n", r"servers\[0\] must be one of .*fleet\.yaml:1:11"),
        ("servers: [h100-8b]\nnginx: new\nrate: 3\n", r"nginx must be a version.*:2:8"),
        ("servers: [h100-8b]\nspeed: 3\n", r'unknown key "speed" of a fleet.*:2:1'),
        ("servers: [h100-8b]\nprompt: 5\n", r'arrivals poisson needs "rate"'),
    ],
)
def test_a_wrong_fleet_file_is_named_with_its_line(tmp_path, text, message):
    """File, line and column, and what is allowed."""
    with pytest.raises(UsageError, match=message):
        advised(tmp_path, text)


def test_a_missing_file_is_named():
    """No traceback for a typing error."""
    with pytest.raises(UsageError, match=r"cannot read fleet"):
        advice.advise("no-such-fleet.yaml")


def test_weights_of_a_fleet_are_simulated_and_written(tmp_path):
    """A slow server of weight 1 beside fast ones of weight 8 is no longer a slow one by turns."""
    slow = "servers: [{profile: h100-8b, count: 2%s}, {profile: h100-8b, slow: 8}]\nrate: 12\n"
    plain = advised(tmp_path, slow % "" + SHORT)
    weighted = advised(tmp_path, slow % ", weight: 8" + SHORT)

    by_turns = [
        next(row.values["ttft_p99_ms"] for row in one.ranking if row.method == "round_robin")
        for one in (plain, weighted)
    ]
    assert by_turns[1] < by_turns[0]
    assert weighted.config.count("weight=8") == 2
