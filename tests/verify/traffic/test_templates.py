"""Requests that nginx sends through one proxy_pass."""

from dataclasses import replace
from pathlib import Path

import pytest

from nginx_llm_lab.nginxconf import variables
from nginx_llm_lab.verify.traffic import entrances, templates
from tests.verify.traffic.configs import read, template

TWO = "upstream stable {{ server a; }} upstream canary {{ server b; }} {}"


@pytest.mark.parametrize(
    ("test", "more", "name", "value"),
    [
        ('$http_x_canary = "always"', "", "X-Canary", "always"),
        ("$cookie_beta ~ ^(yes|1)$", "", "Cookie", "beta=yes"),
        ("$beta", "map $http_x_beta $beta { default 0; on true; }", "X-Beta", "on"),
        ("$beta ~ ^b", "map $http_x_beta $beta { on a; off b; }", "X-Beta", "off"),
    ],
)
@pytest.mark.parametrize(
    "location",
    [
        "set $to stable; if ({}) {{ set $to canary; }} proxy_pass http://$to;",
        "if ({}) {{ proxy_pass http://canary; }} proxy_pass http://stable;",
    ],
)
def test_a_canary_is_reached_by_what_its_if_tests(
    tmp_path: Path, location: str, test: str, more: str, name: str, value: str
) -> None:
    """By a header, a cookie or a map of one; all else goes to the stable servers."""
    server = f"location / {{ {location.format(test)} }}"

    canary = template(tmp_path, server, "canary", TWO.format(more))
    stable = template(tmp_path, server, "stable", TWO.format(more))

    assert canary.request.headers.get(name) == value
    assert name not in stable.request.headers


def test_an_upstream_that_a_capture_names_is_reached(tmp_path: Path) -> None:
    """A group of a server_name or of a location gets the text that proxy_pass makes a name of."""
    by_host = r"server_name ~^(?<Tenant>[a-z]+)\.lab$; location / { proxy_pass http://$tenant; }"
    by_path = "location ~ ^/models/(llama|qwen)/ { proxy_pass http://$1; }"
    upstreams = "upstream llama { server a; } upstream qwen { server b; }"

    assert template(tmp_path, by_host, "qwen", upstreams).request.headers["Host"] == "qwen.lab"
    assert template(tmp_path, by_path, "qwen", upstreams).request.uri == "/models/qwen/"


def test_an_upstream_that_a_script_may_choose_gets_a_request(tmp_path: Path) -> None:
    """Whether the script chooses it is seen where the request arrives."""
    http = "upstream u { server a; } js_set $pool main.pool;"

    assert template(tmp_path, "location /v1 { proxy_pass http://$pool; }", "u", http)


def test_a_named_location_is_reached_by_what_hands_on_to_it(tmp_path: Path) -> None:
    """`try_files $uri @app` sends what is no file to @app."""
    server = "location /ui/ { try_files $uri @app; } location @app { proxy_pass http://app; }"

    assert template(tmp_path, server, "app").request.uri.startswith("/ui/")


def test_a_named_location_is_reached_by_an_if_that_returns_its_code(tmp_path: Path) -> None:
    """The usual way to a canary without a variable in proxy_pass."""
    server = """location / { error_page 418 = @canary;
        if ($http_x_canary = "1") { return 418; } proxy_pass http://a; }
        location @canary { proxy_pass http://b; }"""

    canary, usual = (template(tmp_path, server, name).request for name in "ba")

    assert canary.headers["X-Canary"] == "1"
    assert "X-Canary" not in usual.headers


def test_a_named_location_is_reached_by_another_one(tmp_path: Path) -> None:
    """Where they lead in a circle, the search ends."""
    server = (
        "location /ui/ { try_files $uri @a; } location @a { error_page 404 = @b; return 404; }"
        " location @b { error_page 404 = @a; proxy_pass http://app; }"
    )

    assert template(tmp_path, server, "app").request.uri.startswith("/ui/")


def test_no_way_leads_through_a_regex_that_nothing_matches(tmp_path: Path) -> None:
    """A location that no request can reach has no candidates, and says nothing wrong."""
    conf, (route,) = read(tmp_path, "location ~ ^[a-z]$ { proxy_pass http://a; }")

    assert templates.candidates(route, variables.read(conf, "a")) == ()


@pytest.mark.parametrize(
    ("names", "host"),
    [
        ("llm.example.com other.example.com", "llm.example.com"),
        ("*.example.com", "lab.example.com"),
        (".example.com", "example.com"),
        ("_", entrances.NOBODY),
        ("~^api[0-9]+\\.example\\.com$", "api1.example.com"),
    ],
)
def test_the_host_chooses_the_server(tmp_path: Path, names: str, host: str) -> None:
    """A name of `server_name`, made concrete; for a default server one that nothing matches."""
    server = f"server_name {names}; location / {{ proxy_pass http://a; }}"

    assert template(tmp_path, server, "a").request.headers["Host"] == host


def test_a_map_is_given_the_header_that_chooses_the_upstream(tmp_path: Path) -> None:
    """`proxy_pass http://$pool` leads to large only for a model that begins with llama-."""
    pools = "upstream small { server a; } upstream large { server b; }"
    choice = 'map $http_x_model $pool { default small; "~^llama-" large; }'
    server = "location / { proxy_pass http://$pool; }"

    request = template(tmp_path, server, "large", f"{pools} {choice}")

    assert request.request.headers["X-Model"].startswith("llama-")


def test_clients_are_split_by_trying_addresses(tmp_path: Path) -> None:
    """A tenth of the addresses goes to the canary; one of them is found."""
    pools = "upstream old { server a; } upstream new { server b; }"
    split = "split_clients $remote_addr $pool { 10% new; * old; }"

    request = template(
        tmp_path, "location / { proxy_pass http://$pool; }", "new", f"{pools} {split}"
    )

    assert request.request.client_ip != "127.0.0.1"


def test_clients_are_split_by_trying_values(tmp_path: Path) -> None:
    """`split_clients` reads a header, which a tenth of the values give the new version."""
    http = (
        "split_clients ${http_x_user}salt $to { 10% canary; * stable; }"
        " upstream stable { server a; } upstream canary { server b; }"
    )
    server = "location / { proxy_pass http://$to; }"

    assert template(tmp_path, server, "canary", http).request.headers["X-User"]
    assert template(tmp_path, server, "stable", http)


def test_a_cookie_that_decides_in_place_of_chance_is_sent(tmp_path: Path) -> None:
    """Without the cookie $request_id decides, and a tenth of the requests arrive."""
    http = """map $cookie_canary $forced { default ""; always canary; }
        split_clients $request_id $drawn { 10% canary; * stable; }
        map $forced $to { "" $drawn; default $forced; }
        upstream stable { server a; } upstream canary { server b; }"""
    server = "location / { proxy_pass http://$to; }"

    assert template(tmp_path, server, "canary", http).request.headers["Cookie"] == "canary=always"
    assert "Cookie" not in template(tmp_path, server, "stable", http).request.headers


@pytest.mark.parametrize("name", ["arg_token", "cookie_token"])
def test_a_key_that_two_conditions_ask_for_is_sent_once(tmp_path: Path, name: str) -> None:
    """The first condition is met by any text; nginx reads the first argument of a name."""
    server = f"""location / {{ if (${name} = "") {{ return 401; }}
        if (${name} != "abc") {{ return 403; }} proxy_pass http://u; }}"""

    request = template(tmp_path, server, "u", "upstream u { server a; }").request

    assert [request.uri, request.headers.get("Cookie", "")] in (
        ["/?token=abc", ""],
        ["/", "token=abc"],
    )


@pytest.mark.parametrize(
    "check",
    [
        'if ($http_authorization != "Bearer s3cret") { return 401; }',
        "if ($known = 0) { return 401; }",
    ],
)
def test_a_key_that_is_asked_for_is_given(tmp_path: Path, check: str) -> None:
    """An API key in an `if`, or in a map behind one, is sent."""
    keys = 'map $http_authorization $known { default 0; "Bearer s3cret" 1; }'
    server = f"{check} location / {{ proxy_pass http://a; }}"

    request = template(tmp_path, server, "a", keys)

    assert request.request.headers["Authorization"] == "Bearer s3cret"


def test_a_key_that_auth_request_checks_is_given(tmp_path: Path) -> None:
    """The location that it asks refuses by `if`s, as API gateways do."""
    server = """location / { auth_request /_check; proxy_pass http://u; }
        location = /_check { internal; if ($http_x_api_key = "") { return 401; }
        if ($client = "") { return 403; } return 204; }"""
    http = 'upstream u { server a; } map $http_x_api_key $client { default ""; s3cret one; }'

    assert template(tmp_path, server, "u", http).request.headers["X-Api-Key"] == "s3cret"


def test_an_if_around_proxy_pass_is_made_to_hold(tmp_path: Path) -> None:
    """`if ($request_method = POST)` is entered by a POST."""
    server = "location / { if ($request_method = POST) { proxy_pass http://a; } return 404; }"

    assert template(tmp_path, server, "a").request.method == "POST"


def test_an_if_of_a_variable_that_other_ifs_set_is_made_to_hold(tmp_path: Path) -> None:
    """Two conditions set the parts of one text, as configs without `and` do."""
    server = """location / { set $a "";
        if ($http_x_one = yes) { set $a "${a}x"; }
        if ($arg_two = yes) { set $a "${a}y"; }
        if ($a = xy) { proxy_pass http://a; } proxy_pass http://b; }"""

    both, neither = (template(tmp_path, server, name).request for name in "ab")

    assert (both.headers["X-One"], both.uri) == ("yes", "/?two=yes")
    assert ("X-One" in neither.headers, neither.uri) == (False, "/")


def test_a_password_is_shown_where_one_is_asked_for(tmp_path: Path) -> None:
    """The lab lays a password file of its own, and its clients know what is in it."""
    asking = 'auth_basic "fleet"; location / { proxy_pass http://a; }'
    silent = 'auth_basic "fleet"; location / { auth_basic off; proxy_pass http://a; }'

    assert template(tmp_path, asking, "a").request.headers["Authorization"] == "Basic bGFiOmxhYg=="
    assert "Authorization" not in template(tmp_path, silent, "a").request.headers


@pytest.mark.parametrize(
    ("condition", "tls"),
    [
        ("$scheme = http", True),
        ('$scheme != "https"', True),
        ("$https = ''", True),
        ("$server_port = 80", True),
        ("$scheme = https", False),
        ("$http_x_forwarded_proto != https", False),
    ],
)
def test_a_server_that_sends_plain_requests_to_tls_is_asked_by_tls(
    tmp_path: Path, condition: str, tls: bool
) -> None:
    """As certbot and ingress controllers write it: both ports in one server, an `if`, a 301."""
    server = (
        f"listen 80; listen 443 ssl; if ({condition}) {{ return 301 https://$host$request_uri; }}"
        " location / { proxy_pass http://u; }"
    )

    assert template(tmp_path, server, "u").entry.tls is tls


def test_a_space_in_a_path_is_escaped(tmp_path: Path) -> None:
    """A request line ends at a space."""
    server = 'location "/a b/" { proxy_pass http://u; }'

    assert template(tmp_path, server, "u").request.uri == "/a%20b/"


@pytest.mark.parametrize(
    ("name", "upstream", "port", "tls"),
    [
        ("http://u_$server_port", "u_80", 80, False),
        ("$scheme://u_$scheme", "u_https", 443, True),
        ("$scheme://u_$scheme", "u_http", 80, False),
    ],
)
def test_the_listener_that_names_the_upstream_is_used(
    tmp_path: Path, name: str, upstream: str, port: int, tls: bool
) -> None:
    """$server_port and $scheme are those of the listener that requests are sent to."""
    server = f"listen 443 ssl; listen 80; location / {{ proxy_pass {name}; }}"

    made = template(tmp_path, server, upstream, f"upstream {upstream} {{ server a; }}")

    assert (made.entry.port, made.entry.tls) == (port, tls)


def test_variables_of_the_listener_are_those_of_the_one_that_is_used(tmp_path: Path) -> None:
    """The first `listen` has TLS, and requests are sent to the other one."""
    server = "listen 443 ssl; listen 80; location / { proxy_pass http://u; }"

    made = template(tmp_path, server, "u", "upstream u { server a; }")
    conf = variables.read(tmp_path / "nginx.conf", "u")
    value = variables.evaluate("$scheme$server_port", made.request, replace(conf, route=made.route))

    assert (value, made.entry.port) == (b"http80", 80)


def test_a_client_names_the_upstream_by_an_argument(tmp_path: Path) -> None:
    """`proxy_pass http://$arg_pool`: the request has the argument."""
    server = "location / { proxy_pass http://$arg_pool; }"

    assert template(tmp_path, server, "u", "upstream u { server a; }").request.uri == "/?pool=u"


NAMED = "upstream eu-llm {{ server a; }} upstream us-llm {{ server b; }} {}"


@pytest.mark.parametrize(
    ("server", "more", "expected"),
    [
        ("location / { proxy_pass http://$arg_x-llm; }", "", "/?x=us"),
        (r"location ~ ^/m/(\w+)/ { set $m $1; proxy_pass http://$m-llm; }", "", "/m/us/"),
        (
            "location / { if ($uri ~ ^/m/([^/]+)/) { set $m $1; } proxy_pass http://$m-llm; }",
            "",
            "/m/us/",
        ),
        (
            "location / { proxy_pass http://$pool; }",
            r'map $uri $pool { "~^/m/(?<m>\w+)/" $m-llm; default eu-llm; }',
            "/m/us/",
        ),
        (
            "location / { proxy_pass http://$pool; }",
            'map "$arg_a:$arg_b" $pool { "gold:big" us-llm; default eu-llm; }',
            "/?a=gold&b=big",
        ),
        (
            "location / { proxy_pass http://$pool; }",
            "map $arg_a $pool { default $arg_b-llm; }",
            "/?b=us",
        ),
    ],
)
def test_a_part_of_the_upstream_s_name_is_sent(
    tmp_path: Path, server: str, more: str, expected: str
) -> None:
    """In an argument or a path, through `set`, the regex of an `if`, a map of one or two values."""
    assert template(tmp_path, server, "us-llm", NAMED.format(more)).request.uri == expected


@pytest.mark.parametrize(
    ("rewrites", "expected"),
    [
        ("location /api/ { rewrite ^/api/(.*)$ /inner/$1 last; }", "/api/"),
        ("rewrite ^/([a-z]+)/chat /inner/$1?model=$1;", "/a/chat"),
        ("location /other { rewrite ^/api/ /inner/; } rewrite ^/v1$ /inner/;", "/v1"),
    ],
)
def test_a_rewrite_leads_to_an_internal_location(
    tmp_path: Path, rewrites: str, expected: str
) -> None:
    """Of the server, or of the location that its own regex leads to."""
    server = f"{rewrites} location /inner/ {{ internal; proxy_pass http://u; }}"

    assert template(tmp_path, server, "u", "upstream u { server a; }").request.uri == expected


def test_a_named_location_behind_405_is_reached_by_put(tmp_path: Path) -> None:
    """A file that nginx serves itself takes GET, HEAD and POST."""
    server = "location / { error_page 405 = @u; } location @u { proxy_pass http://u; }"
    conf, (route,) = read(tmp_path, server, "upstream u { server a; }")

    made = templates.candidates(route, variables.read(conf, "u"))

    assert "PUT" in {candidate.request.method for candidate in made}


def test_a_client_has_an_address_of_a_geo_network(tmp_path: Path) -> None:
    """If it is one that the lab's clients can have."""
    http = "geo $to { default other; 127.9.9.0/30 u; } upstream u { server a; }"

    made = template(tmp_path, "location / { proxy_pass http://$to; }", "u", http)

    assert made.request.client_ip == "127.9.9.1"
