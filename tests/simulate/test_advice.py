"""Eight fleets with a known best method; the content of fleet files."""

import re

import pytest

from nginx_llm_lab.backends.llm.profiles import PROFILES
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf import upstream
from nginx_llm_lab.report import scores
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
    """No difference: the simplest method is recommended, the tie is mentioned."""
    result = advised(tmp_path, EQUAL)

    assert result.best[:2] == ("round_robin", "least_conn")


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
    result = advised(tmp_path, fleet)

    assert result.best[0] == method
    assert beaten not in result.best


def test_behind_one_nat_an_address_is_no_key(tmp_path):
    """All requests come from one address: ip_hash sends them to one server of four."""
    result = advised(tmp_path, NAT)

    assert result.ranking[-1].method == "ip_hash"
    assert "ip_hash" not in result.best


def test_the_config_is_read_back_as_the_method(tmp_path):
    """What is printed balances by the method that was named, over all servers."""
    result = advised(tmp_path, EQUAL + "nginx: 1.26.3\n")
    conf = tmp_path / "nginx.conf"
    conf.write_text(result.config)

    group = upstream.read(conf)

    assert (group.method, len(group.servers)) == ("round_robin", 4)
    assert result.refused == {
        "least_time": "needs nginx 1.31.0",
        "sticky": "needs nginx 1.29.6",
    }


def test_the_config_has_room_for_what_one_server_runs():
    """An h100-8b runs 1,024 requests; each is a connection of the client and one of the server."""
    config = advice.config_of("least_conn", ["backend-1"])

    connections = re.search(r"worker_connections (\d+);", config)
    assert connections
    assert int(connections[1]) >= 2 * PROFILES["h100-8b"].max_num_seqs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: 3\n", r'a fleet needs "servers".*fleet\.yaml:1:1'),
        ("servers: [fast]\nrate: 3\n", r"servers\[0\] must be one of .*fleet\.yaml:1:11"),
        ("servers: [h100-8b]\nnginx: new\nrate: 3\n", r"nginx must be a version.*:2:8"),
        ("servers: [h100-8b]\nspeed: 3\n", r'unknown key "speed" of a fleet.*:2:1'),
        ("servers: [h100-8b]\nprompt: 5\n", r'arrivals poisson needs "rate"'),
        ("", r"is empty\ntry:   keys: servers, nginx, nat,"),
        ("servers: []\nrate: 3\n", r"servers must be from 1 to 1,000 in all, not 0,.*:1:10"),
        ("servers: [{profile: h100-8b, queue_limit: 3}]\nrate: 3\n", r'unknown key "queue_limit"'),
        ("servers: [h100-8b]\nnginx: 1.8.1\nrate: 3\n", r"1\.9\.0 or newer, which has zone.*:2:8"),
        (f"servers: [h100-8b]\nnginx: {'9' * 5000}.1.1\nrate: 3\n", r"nginx must be a version"),
        ("servers: [h100-8b]\nrate: 3\nrate: 4\n", r'"rate" is given twice.*\ntry:   leave out'),
        (
            "servers: [h100-8b]\nrate: 1\nclients: 9\nnat: true\n",
            r"with nat all clients have one address in .*:3:10\ntry:   leave out clients",
        ),
        (
            "servers: [h100-8b]\nrate: 0.001\nrequests: 5000\n",
            r"begins after 5\d\.\d days; at most 26 are simulated in fleet",
        ),
        (
            "servers: [h100-8b]\nrate: 99999\nduration: 86400\n",
            r"at most 10,000,000 requests.*fleet\.yaml:3:11",
        ),
        (
            "servers: [h100-8b]\nrate: 0.001\nduration: 1\n",
            r'too few requests to compare in fleet ".*fleet\.yaml"',
        ),
        (
            "servers: [cpu-small]\nrate: 1\nprompt: 30000\n",
            r'longer than a backend\'s KV cache: 8,192 in fleet ".*fleet\.yaml"',
        ),
    ],
)
def test_a_wrong_fleet_file_is_named_with_its_line(tmp_path, text, message):
    """File, line and column, and what is allowed."""
    with pytest.raises(UsageError, match=message):
        advised(tmp_path, text)


@pytest.mark.parametrize("fast", [0, 1, 2])
def test_ip_hash_is_not_named_because_one_nat_met_the_fast_server(tmp_path, fast):
    """Which server the one address gets is chance: in some runs it is a slow one."""
    servers = ["{profile: h100-8b, slow: 4}"] * 3
    servers[fast] = "h100-8b"

    result = advised(tmp_path, f"servers: [{', '.join(servers)}]\nrate: 4\nnat: true\n{SHORT}")

    assert result.best[0] == "least_time"
    assert "ip_hash" not in result.best


def test_an_old_nginx_has_no_random_two(tmp_path):
    """nginx has it since 1.15.1, and prompt_prefix's map since 1.11.2."""
    result = advised(tmp_path, EQUAL + "nginx: 1.10.3\n")

    assert result.refused["random_two"] == "needs nginx 1.15.1"
    assert result.refused["prompt_prefix"] == "needs nginx 1.11.2"
    assert [row.method for row in result.ranking] == ["round_robin", "least_conn", "ip_hash"]


def test_a_best_time_of_zero_is_compared_in_milliseconds(tmp_path):
    """Nothing is a share of 0 ms: by turns most requests go to the server that takes time."""
    servers = "[{profile: h100-8b, weight: 3}, {profile: instant, count: 2}]"

    result = advised(tmp_path, f"servers: {servers}\nrate: 1\nnginx: 1.26.3\n{SHORT}")

    by_turns = next(row for row in result.ranking if row.method == "round_robin")
    assert re.match(r"ttft_p50_ms 8\.9 above \w+'s", by_turns.why)


def test_what_the_best_method_loses_is_told(tmp_path):
    """prompt_prefix halves TTFT p50 many times; its p99 is worse than that of turns."""
    result = advised(tmp_path, SHARED)

    assert result.trade_offs[0].startswith("ttft_p99_ms +")
    assert f"trade-off of prompt_prefix: {result.trade_offs[0]}" in scores.advice(result)


def test_only_a_fleet_that_falls_behind_is_called_overloaded(tmp_path):
    """Its times are those of a longer and longer queue, by any method."""
    busy = EQUAL.replace("h100-8b", "cpu-small")
    overloaded, idle = advised(tmp_path, busy), advised(tmp_path, EQUAL)
    single = advised(tmp_path, EQUAL.replace("requests: 400", "requests: 1"))
    slightly = advised(tmp_path, busy.replace("requests: 400", "requests: 1500"))

    assert (overloaded.overloaded, slightly.overloaded) == (True, True)
    assert "overloaded: requests arrive faster" in scores.advice(overloaded)
    assert (idle.overloaded, single.overloaded) == (False, False)


def test_a_fleet_may_be_larger_than_the_lab(tmp_path):
    """200 servers are simulated and written, though Docker would not run them here."""
    text = "servers: [{profile: h100-8b, count: 200}]\nrate: 200\nrequests: 50\noutput: 1\n"

    result = advised(tmp_path, text)

    assert result.config.count("server backend-") == 200
    assert " -    " in scores.advice(result)  # responses of one token have no ITL


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
