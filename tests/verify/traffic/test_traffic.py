"""The requests that show a method, and the hits that they come to."""

from dataclasses import replace
from pathlib import Path

import pytest

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf import routes, tree, upstream, variables
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.nginxconf.request import Request
from nginx_llm_lab.nginxconf.variables import Variables
from nginx_llm_lab.verdict import replay
from nginx_llm_lab.verify import traffic
from nginx_llm_lab.verify.traffic import PlannedRequest, Traffic, Trial, templates, upstream_choice
from nginx_llm_lab.verify.traffic.template import Entry, Template

ROUTE_MAPS = r"""map $http_x_pod $by_header { x x; y y; }
    map $cookie_sid $by_cookie { ~\.(?<r>\w)$ $r; }"""
RECORD = {
    "id": "probe-1",
    "status": 200,
    "server": "127.0.0.1:8001",
    "cookie": "",
    "sent": 10.0,
    "received": 10.001,
    "answered": 10.101,
    "done": 10.103,
}


def ready(
    tmp_path: Path, block: str, http: str = "", server: str = ""
) -> tuple[Upstream, Template, Variables]:
    """One upstream with a template to it."""
    file = tmp_path / "nginx.conf"
    file.write_text(
        f"events {{}} http {{ {http} upstream u {{ {block} }}"
        f" server {{ {server} location /v1/ {{ proxy_pass http://u; }} }} }}"
    )
    config = tree.read(file)
    conf = variables.read(config, "u")
    assert conf.route is not None
    return upstream.read(config, "u"), templates.candidates(conf.route, conf)[0], conf


def made(tmp_path: Path, block: str, http: str = "", server: str = "") -> Traffic:
    """The traffic of one upstream."""
    claim, template, conf = ready(tmp_path, block, http, server)
    return traffic.method_traffic(claim, template, conf, 1, Trial(traffic.at_once(claim)[0]))


def keys(tmp_path: Path, key: str, http: str = "", server: str = "") -> set[bytes]:
    """The values that a hash key takes over its traffic."""
    claim, template, conf = ready(tmp_path, f"hash {key}; server a; server b;", http, server)
    sent = traffic.method_traffic(claim, template, conf, 1, Trial(1))
    evaluate = variables.compile_text(claim.key, replace(conf, route=template.route))
    return {evaluate(planned.request) for planned in sent.requests}


@pytest.mark.parametrize(
    "key",
    [
        "$request_uri",
        "$uri",
        "$arg_user",
        "$http_x_session_id",
        "$http_authorization",
        "$cookie_chat",
        "$request_body",
        "$remote_user",
        "$remote_addr",
        "$binary_remote_addr$http_user_agent",
        "$api_key",
        "$mine",
    ],
)
def test_a_hash_key_takes_many_values(tmp_path: Path, key: str) -> None:
    """Whatever the key is made of, through maps and set too, the traffic varies it."""
    http = 'map $http_x_api_key $api_key { default $http_x_api_key; "" $remote_addr; }'
    http += " map $api_key $mine { default $api_key; }"

    assert len(keys(tmp_path, key, http)) > 50


@pytest.mark.parametrize("key", ["$remote_user", "$http_authorization"])
def test_a_key_of_the_user_varies_where_nginx_asks_for_a_login(tmp_path: Path, key: str) -> None:
    """Each user is in the password file that the lab supplies."""
    login = "auth_basic x; auth_basic_user_file users;"
    claim, template, conf = ready(tmp_path, f"hash {key}; server a; server b;", server=login)

    sent = traffic.method_traffic(claim, template, conf, 1, Trial(1)).requests

    heads = {planned.request.headers["Authorization"] for planned in sent}
    assert len(heads) > 50
    assert heads <= {templates.authorization(user) for user in templates.USERS}


def test_a_key_that_an_if_requires_keeps_its_beginning(tmp_path: Path) -> None:
    """Otherwise all requests would count against one limit."""
    http = (
        "limit_req_zone $http_authorization zone=z:1m rate=1r/s;"
        ' map $http_authorization $ok { default 0; "~^Bearer sk-[A-Za-z0-9]{20,}$" 1; }'
    )
    location = "limit_req zone=z; if ($ok = 0) { return 401; }"
    claim, template, conf = ready(tmp_path, "server a; server b;", http, location)

    sent = traffic.method_traffic(claim, template, conf, 1, Trial(1)).requests

    sent_keys = {planned.request.headers["Authorization"] for planned in sent}
    assert len(sent_keys) > 50
    assert all(key.startswith("Bearer sk-") for key in sent_keys)


def test_requests_stay_on_their_way_whatever_is_varied(tmp_path: Path) -> None:
    """A varied path still lands in the location, a fixed host keeps its server."""
    claim, template, conf = ready(tmp_path, "hash $host$uri; server a; server b;")
    still = templates.keeps_route(template, conf)

    sent = traffic.method_traffic(claim, template, conf, 1, Trial(1)).requests

    assert all(still(planned.request) for planned in sent)


def test_what_chooses_the_upstream_is_not_varied(tmp_path: Path) -> None:
    """The header that a map reads to choose the pool is also its hash key: it stays."""
    file = tmp_path / "nginx.conf"
    file.write_text(
        "events {} http { map $http_x_model $pool { default other; llama u; }"
        " upstream other { server c; } upstream u { hash $http_x_model; server a; server b; }"
        " server { location / { proxy_pass http://$pool; } } }"
    )
    conf = variables.read(tree.read(file), "u")
    assert conf.route is not None
    template = templates.candidates(conf.route, conf)[0]

    sent = traffic.method_traffic(
        upstream.read(tree.read(file), "u"), template, conf, 1, Trial(1)
    ).requests

    assert {planned.request.headers["X-Model"] for planned in sent} == {"llama"}


def test_no_two_requests_are_alike(tmp_path: Path) -> None:
    """A cache that answered for the upstream would hide it."""
    sent = made(tmp_path, "server a; server b;").requests

    assert len({planned.request.uri for planned in sent}) == len(sent)


def test_the_same_seed_makes_the_same_traffic(tmp_path: Path) -> None:
    """A verification can be repeated."""
    block = "ip_hash; server a; server b;"

    assert made(tmp_path, block) == made(tmp_path, block)


def test_ip_hash_gets_clients_of_many_addresses(tmp_path: Path) -> None:
    """All of 127.0.0.0/8 is the machine's own."""
    sent = made(tmp_path, "ip_hash; server a; server b;").requests

    assert len({planned.request.client_ip.rpartition(".")[0] for planned in sent}) > 100


@pytest.mark.parametrize(
    ("block", "at_once"),
    [
        ("server a; server b;", (1,)),
        ("least_conn; server a; server b;", (6, 3)),
        ("least_conn; server a; server b; server c; server d; server e;", (10, 5)),
        ("least_conn; server a max_conns=1; server b max_conns=2;", (3, 2)),
        ("least_conn; server a;", (1,)),
        ("least_conn; sticky cookie s; server a; server b;", (1,)),
        ("least_time header; server a; server b;", (1,)),
        ("random two; server a; server b;", (6, 3)),
        ("random; server a; server b;", (1,)),
    ],
)
def test_only_methods_that_look_at_the_load_get_requests_that_overlap(
    tmp_path: Path, block: str, at_once: tuple[int, ...]
) -> None:
    """All else is exact one request after the other."""
    claim, _, _ = ready(tmp_path, block)

    assert traffic.at_once(claim) == at_once


@pytest.mark.parametrize(
    ("block", "asked"),
    [
        ("server a; server b;", ""),
        ("least_conn; server a;", ""),
        ("least_conn; server a; server b;", "lab_lasts=0."),
        ("least_time header; server a; server b;", "lab_lasts=own"),
    ],
)
def test_answers_take_time_where_that_decides(tmp_path: Path, block: str, asked: str) -> None:
    """The probe's too: the first time that least_time sees counts for long."""
    claim, template, conf = ready(tmp_path, block)
    sent = made(tmp_path, block).requests

    for planned in (traffic.probe(claim, template, conf, 1), *sent):
        assert asked in planned.request.uri
        assert ("X-Lab-Duration" in planned.request.headers) == bool(asked)


def test_a_limit_per_address_does_not_slow_the_traffic(tmp_path: Path) -> None:
    """Requests come from many addresses, of which each has few."""
    limit = "limit_req_zone $binary_remote_addr zone=z:1m rate=1r/s; limit_req zone=z;"

    limited = made(tmp_path, "server a; server b;", limit).requests
    free = made(tmp_path, "server a; server b;").requests

    assert len({planned.request.client_ip for planned in limited}) > len(limited) - 5
    assert len({planned.request.client_ip for planned in free}) == 1


def test_a_hash_of_the_proxy_protocol_s_address_has_many_clients(tmp_path: Path) -> None:
    """The lab's client sends its source address in the PROXY header."""
    block = "hash $proxy_protocol_addr; server a; server b;"

    sent = made(tmp_path, block, server="listen 80 proxy_protocol;").requests

    assert len({planned.request.client_ip for planned in sent}) > len(sent) - 5


def test_a_limit_per_api_key_does_not_refuse_the_traffic(tmp_path: Path) -> None:
    """Requests have many keys, also where an `if` refuses those without one."""
    limit = "limit_req_zone $http_authorization zone=z:1m rate=1r/s; limit_req zone=z;"
    some = "if ($http_authorization = '') { return 401; }"
    one = "if ($http_authorization != 'Bearer x') { return 401; }"

    assert len(api_keys(made(tmp_path, "server a; server b;", limit, some))) > 50
    assert api_keys(made(tmp_path, "server a; server b;", limit, one)) == {"Bearer x"}


def api_keys(sent: Traffic) -> set[str | None]:
    """The different values of the header."""
    return {planned.request.headers.get("Authorization") for planned in sent.requests}


def test_sticky_visitors_come_back(tmp_path: Path) -> None:
    """Each of forty visitors has several requests, with one session's cookies."""
    sent = made(tmp_path, "sticky cookie s; server a; server b;").requests

    assert len({planned.session for planned in sent}) == traffic.VISITORS


def test_sticky_routes_are_handed_out(tmp_path: Path) -> None:
    """Most requests carry a route that a server has, some carry none."""
    block = "sticky route $arg_r; server a route=x; server b route=y;"

    uris = [planned.request.uri for planned in made(tmp_path, block).requests]

    assert {"x", "y"} == {uri.partition("r=")[2][:1] for uri in uris} - {""}
    assert any("r=" not in uri for uri in uris)


@pytest.mark.parametrize(
    "entries",
    [
        '"~^Bearer (?<token>.+)$" $token; default anonymous;',
        '"~^Bearer (?<token>.+)$" $token; "" "";',
        '"" $arg_user; default $http_authorization;',
    ],
)
def test_a_key_that_a_map_takes_out_of_a_header_varies(tmp_path: Path, entries: str) -> None:
    """A value that no line of the map matches would give every request the same key."""
    varied = keys(tmp_path, "$tenant", f"map $http_authorization $tenant {{ {entries} }}")

    assert len(varied) > 100


def test_a_key_takes_every_value_that_a_map_has(tmp_path: Path) -> None:
    """Only listed API keys are let through, each with the client's name."""
    http = 'map $http_x_key $client { default ""; k1 one; k2 two; ~^k(3|4)$ three; }'
    server = 'if ($client = "") { return 401; }'

    assert keys(tmp_path, "$client", http, server) == {b"one", b"two", b"three"}


@pytest.mark.parametrize(
    ("server", "varies"),
    [
        ("server_name *.llm.example.com;", True),
        ("listen 80 default_server; server_name _;", True),
        ("server_name lab.llm.example.com;", False),
        ("listen 443 ssl; server_name *.llm.example.com;", False),
    ],
)
def test_a_key_of_the_host_varies_where_any_host_chooses_the_server(
    tmp_path: Path, server: str, varies: bool
) -> None:
    """Tenants have names of one domain; by TLS the lab's client keeps to one name."""
    varied = keys(tmp_path, "$host", server=server)

    assert (len(varied) > 100) is varies


@pytest.mark.parametrize(
    ("lookups", "route"),
    [
        ("$http_x_pod", "x"),
        ("$by_header", "x"),
        ("$arg_r $http_x_pod", "y"),
        ("$by_cookie", "y"),
        ("$arg_none", ""),
    ],
)
def test_a_hit_has_the_route_by_which_nginx_binds(tmp_path: Path, lookups: str, route: str) -> None:
    """The first variable that is not empty: of a header, an argument, or a map of one."""
    block = f"sticky route {lookups}; server a route=x; server b route=y;"
    request = Request("/?r=y", headers={"Host": "lab", "X-Pod": "x", "Cookie": "sid=12.y"})

    one = hit(tmp_path, block, request, http=ROUTE_MAPS)

    claim = traffic.claim(ready(tmp_path, block, ROUTE_MAPS)[0])
    assert replay.sticky_of(claim, one) == route


@pytest.mark.parametrize("lookup", ["$http_x_pod", "$by_header", "$by_cookie"])
def test_routes_are_handed_out_where_sticky_looks_for_them(tmp_path: Path, lookup: str) -> None:
    """In a header, or as a map reads them from a header or a part of a cookie."""
    block = f"sticky route {lookup}; server a route=x; server b route=y;"

    sent = made(tmp_path, block, ROUTE_MAPS).requests

    texts = {" ".join(planned.request.headers.values()).rpartition(".")[2][-1] for planned in sent}
    assert texts >= {"x", "y"}


def hit(
    tmp_path: Path, block: str, request: Request, entry: Entry | None = None, http: str = ""
) -> Hit:
    """The hit that a recorded request comes to."""
    claim, template, conf = ready(tmp_path, block, http)
    template = replace(template, entry=entry or template.entry)
    sent = [PlannedRequest("probe-1", request)]
    (one,) = traffic.hits(claim, template, conf, sent, [RECORD], {"127.0.0.1:8001": "gpu:8001"})
    return one


def test_a_record_becomes_a_hit_with_its_key_and_times(tmp_path: Path) -> None:
    """nginx picked between sending and receiving: the times allow just that."""
    logged = hit(
        tmp_path, "hash $arg_k; server gpu:8001; server b;", Request("/v1/?k=7", "127.9.9.9")
    )

    assert logged.upstream_addr == ("gpu:8001",)
    assert logged.hash_key == "7"
    assert logged.remote_addr == "127.9.9.9"
    assert logged.msec - logged.request_time == 10.0
    assert logged.upstream_response_time == pytest.approx((0.1,))


@pytest.mark.parametrize(
    ("entry", "seen"),
    [
        (Entry("127.0.0.1", 80), "127.9.9.9"),
        (Entry("127.0.0.1", 80, mapped=True), "::ffff:127.9.9.9"),
        (Entry("::1", 80), "::1"),
    ],
)
def test_a_client_has_the_address_that_nginx_sees(entry: Entry, seen: str) -> None:
    """Through an IPv6 socket an IPv4 client is a mapped address, of which ip_hash takes all."""
    assert traffic.as_seen("127.9.9.9", entry) == seen


def test_an_answer_from_a_cache_is_no_hit() -> None:
    """The same answer of the same stub backend twice: nginx gave it a second time by itself."""
    again = {**RECORD, "id": "u-2"}

    assert list(traffic.uncached([RECORD, again])) == [RECORD]


def test_what_the_upstream_did_not_answer_is_no_hit(tmp_path: Path) -> None:
    """A 401 of nginx's own takes no turn."""
    claim, template, conf = ready(tmp_path, "server a; server b;")
    refused = {**RECORD, "status": 401, "server": ""}

    sent = [PlannedRequest("probe-1", template.request)]

    assert list(traffic.hits(claim, template, conf, sent, [refused], {"127.0.0.1:8001": "a"})) == []


@pytest.mark.parametrize("other", [Server("b:1", backup=True), Server("b:1", down=True)])
def test_one_primary_gets_enough_requests_to_exclude_another_server(other: Server) -> None:
    """A single server needs only a few, since there is no other."""
    alone = Upstream((Server("a:1"),))
    beside = Upstream((Server("a:1"), other))

    assert traffic.how_many(alone) == traffic.FEWEST
    assert traffic.how_many(beside) == traffic.FEWEST_TO_CHOOSE


@pytest.mark.parametrize(("share", "times"), [("30%", 4), ("10%", 10), ("0.1%", 25)])
def test_more_is_sent_where_chance_chooses_the_upstream(
    tmp_path: Path, share: str, times: int
) -> None:
    """As many as its share requires, within limits."""
    file = tmp_path / "nginx.conf"
    file.write_text(
        "http { upstream u { server a; server b; } split_clients $request_id $to {"
        f" {share} u; * v; }}"
        " server { location / { proxy_pass http://$to; } location /u { proxy_pass http://u; } } }"
    )
    config = tree.read(file)
    conf, claim = variables.read(config, "u"), upstream.read(config, "u")
    made_by = [templates.candidates(route, conf)[0] for route in routes.routes(config)]
    sent = [traffic.method_traffic(claim, made, conf, 1, Trial(1)) for made in made_by]

    assert len(sent[0].requests) == times * len(sent[1].requests)


def test_every_request_differs_from_those_of_the_parts_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nginx's log tells requests apart by their targets, even if chance takes most."""
    claim, template, conf = ready(tmp_path, "server a; server b;")
    monkeypatch.setattr(upstream_choice, "by_chance", lambda *_: True)
    monkeypatch.setattr(traffic, "MOST", 100)
    second = Trial(1).next_part(traffic.MOST)

    parts = [
        traffic.method_traffic(claim, template, conf, 1, trial).requests
        for trial in (second, second.next_part(50))
    ]

    targets = [{planned.request.uri for planned in part} for part in parts]
    assert list(map(len, targets)) == [400, 200]
    assert targets[0].isdisjoint(targets[1])
