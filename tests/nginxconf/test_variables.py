"""Texts with variables are what nginx makes of them for one request."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import UndecidedError, UsageError
from nginx_llm_lab.nginxconf import variables
from nginx_llm_lab.nginxconf.request import Request
from nginx_llm_lab.nginxconf.tree import Directive
from nginx_llm_lab.nginxconf.variables import Variables

CONF = Path(__file__).parents[1] / "data/conf/variables.conf"
READ = variables.read(CONF, "llm")
TENANT = "/t/acme/chat"


def value(text: str, sent: Request | None = None, conf: Variables = READ) -> str:
    """Evaluate a text, by the sample config unless told."""
    return variables.evaluate(text, sent or Request(TENANT), conf).decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$request_uri", "/a%20b?x=1&Y=2"),
        ("$scheme$proxy_host$request_uri", "httpllm/a%20b?x=1&Y=2"),
        ("${arg_y}-x", "2-x"),
        ("$uri$is_args$args", "/a b?x=1&Y=2"),
        ("$Document_URI|$query_string", "/a b|x=1&Y=2"),
        ("$http_x_session_id", "s1"),
        ("$cookie_lab", "c"),
        ("$remote_addr", "10.0.0.1"),
        ("$request_method $server_protocol", "POST HTTP/1.1"),
        ("$request", "POST /a%20b?x=1&Y=2 HTTP/1.1"),
        ("$content_type:$content_length:$request_body", "text/plain:5:hello"),
        ("$host $http_host", "llm.local LLM.local:80"),
        ("$proxy_port", "80"),
        ("no variables", "no variables"),
        ("", ""),
        ("$1", ""),
    ],
)
def test_nginx_s_own_variables_need_no_config(text: str, expected: str) -> None:
    """What the request alone decides, for an upstream that came from options."""
    sent = Request(
        "/a%20b?x=1&Y=2",
        "10.0.0.1",
        "POST",
        {
            "X-Session-Id": "s1",
            "cookie": "lab=c",
            "Host": "LLM.local:80",
            "content-type": "text/plain",
        },
        b"hello",
    )

    assert value(text, sent, Variables()) == expected


def test_a_config_may_allow_underscores_in_header_names() -> None:
    """With `underscores_in_headers on` nginx reads X_A as X-A; by default it drops the header."""
    sent = Request(headers={"x_a": "1"})
    allowed = Directive("underscores_in_headers", ("on",), "nginx.conf")

    assert value("$http_x_a", sent, Variables()) == ""
    assert value("$http_x_a", sent, Variables(around=(allowed,))) == "1"


def test_the_packed_address_is_raw_bytes() -> None:
    """$binary_remote_addr is a key of four bytes, not of text."""
    sent = Request(client_ip="10.0.0.255")

    assert variables.evaluate("$binary_remote_addr", sent, Variables()) == b"\n\0\0\xff"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$nope", 'unknown "nope" variable in conf:3'),
        ("a$", "invalid variable name in conf:3"),
        ("$-", "invalid variable name in conf:3"),
        ("${uri", 'the closing bracket in "uri" variable is missing in conf:3'),
        ("$request_id", 'variable "$request_id" cannot be told from the request in conf:3'),
        ("$upstream_addr", 'variable "$upstream_addr" cannot be told from the request in conf:3'),
        (
            "$ssl_session_id",
            'variable "$ssl_session_id" cannot be told from the request in conf:3',
        ),
    ],
)
def test_a_text_that_cannot_be_evaluated_is_refused(text: str, message: str) -> None:
    """The error names the variable and the place of the text, before any request."""
    with pytest.raises(UsageError) as error:
        variables.compile_text(text, Variables(), "conf:3")

    assert error.value.message == message


def test_the_route_says_what_the_request_does_not() -> None:
    """Scheme, port and name come from the server through which the requests go."""
    assert value("$scheme:$server_port:$server_name:$https") == "https:8443:llm.example.com:on"
    assert value("$host") == "llm.example.com"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://llm/v1", "llm 80"),
        ("http://127.0.0.1:80", "127.0.0.1 80"),
        ("http://127.0.0.1:8001/", "127.0.0.1:8001 8001"),
        ("https://[::1]:443", "[::1] 443"),
        ("http://$arg_to", "there:81 81"),
    ],
)
def test_the_proxied_host_leaves_out_the_scheme_s_own_port(
    tmp_path: Path, url: str, expected: str
) -> None:
    """$proxy_host and $proxy_port are those of the proxy_pass, with its variables."""
    path = tmp_path / "nginx.conf"
    path.write_text(f"http {{ server {{ location / {{ proxy_pass {url}; }} }} }}")
    conf = next(
        variables.read(path, name)
        for name in (url.split("/")[2], url)
        if variables.read(path, name).route
    )

    assert value("$proxy_host $proxy_port", Request("/?to=there:81"), conf) == expected


@pytest.mark.parametrize(
    ("text", "sent", "expected"),
    [
        ("$key", Request(TENANT, headers={"X-Session-Id": "s1"}), "s1"),
        ("$key", Request(f"{TENANT}?a=1"), "none-door-1"),
        ("$id", Request(TENANT, headers={"Cookie": "x=1; ID=abc; y=2"}), "abc"),
        ("$id", Request(TENANT), ""),
        ("$kind", Request(TENANT, method="POST"), "not get"),
        ("$kind", Request(TENANT), ""),
        ("$tenant", Request(TENANT), "acme"),
        ("$1", Request(TENANT), "acme"),
    ],
)
def test_set_if_and_captures_run_before_the_pick(text: str, sent: Request, expected: str) -> None:
    """The rewrite lines of server and location leave their values, as does a location's regex."""
    assert value(text, sent) == expected


def test_an_unknown_value_is_an_error_only_when_it_is_used() -> None:
    """`if (-f …)` depends on files: the variable it sets is refused, the others are not."""
    assert value("$kind$door") == "door-"
    with pytest.raises(UsageError, match=r'cannot evaluate "if \(-f \$request_filename\)" in'):
        value("$file")


@pytest.mark.parametrize(
    "lines",
    [
        "rewrite ^/v1/(.*) /$1;",
        "rewrite ^/v1/(.*) /$1 break; set $a b;",
        "rewrite ^/v1/(.*) /$1 break; rewrite ^/v2/(.*) /$1 break;",
        "rewrite ^/v1/(.*) http://b/$1 break;",
        "if ($kind) { set $a b; } rewrite ^/v1/(.*) /$1 break;",
        "if ($arg_x) { break; } rewrite ^/v1/(.*) /$1 break;",
    ],
)
def test_a_rewrite_hides_the_uri_but_not_the_request(tmp_path: Path, lines: str) -> None:
    """$uri and the arguments are not known after a rewrite; $request_uri stays what was sent."""
    path = tmp_path / "nginx.conf"
    path.write_text(
        f"""upstream llm {{ server a:1; }} map $uri $kind {{ default 1; }}
        server {{ location / {{ {lines} proxy_pass http://llm; }} }}"""
    )
    conf = variables.read(path, "llm")

    assert value("$request_uri", Request("/v1/a"), conf) == "/v1/a"
    for text in ("$uri", "$args", "$arg_a", "$is_args"):
        with pytest.raises(UsageError, match=r'does not follow "rewrite" in .*nginx.conf:2'):
            value(text, Request("/v1/a"), conf)


@pytest.mark.parametrize(
    ("replacement", "sent", "expected"),
    [
        ("/$2", "/acme/chat?a=1", "/chat a=1"),
        ("/$2", "/?a=1", "/ a=1"),
        ("/x/$2?tenant=$1", "/acme/chat?a=1", "/x/chat tenant=acme&a=1"),
        ("/x/$2?tenant=$1?", "/acme/chat?a=1", "/x/chat tenant=acme"),
        ("/$2?", "/acme/chat?a=1", "/chat "),
        ("/${tenant}s", "/acme/c%20t", "/acmes "),
    ],
)
def test_a_location_s_last_rewrite_with_break_is_followed(
    tmp_path: Path, replacement: str, sent: str, expected: str
) -> None:
    """The path and the arguments are the new ones where the regex matches, else the old ones."""
    path = tmp_path / "nginx.conf"
    path.write_text(
        f"""upstream llm {{ server a:1; }}
        server {{ location / {{ set $a b; rewrite ^/(?<tenant>[a-z]+)/(.*)$ {replacement} break;
        proxy_pass http://llm; }} }}"""
    )

    assert value("$uri $args", Request(sent), variables.read(path, "llm")) == expected


@pytest.mark.parametrize(
    ("lines", "sent", "expected"),
    [
        ("if ($arg_x) { set $a one; break; set $a two; } set $a three;", "/?x=1", "one"),
        ("if ($arg_x) { set $a one; break; } set $a three;", "/", "three"),
        (
            "if ($arg_x) { break; } if ($arg_y) { set $a two; break; } set $a three;",
            "/?y=1",
            "two",
        ),
        ("if ($arg_x) { break; } if ($arg_y) { set $a two; }", "/?x=1&y=1", "zero"),
        ("if ($arg_x) { rewrite ^ /x break; } set $a three;", "/?x=1", "zero"),
        ("if ($arg_x) { rewrite ^/y /x break; } set $a three;", "/?x=1", "three"),
        ("rewrite ^/y /x break; set $a three;", "/y", "zero"),
        ("rewrite ^/y /x break; set $a three;", "/", "three"),
        ("break; set $a three;", "/", "zero"),
    ],
)
def test_nothing_is_set_after_a_break(tmp_path: Path, lines: str, sent: str, expected: str) -> None:
    """For the requests for which its `if` holds, nginx runs no later line of the location."""
    path = tmp_path / "nginx.conf"
    path.write_text(
        f"""upstream llm {{ server a:1; }}
        server {{ location / {{ set $a zero; {lines} proxy_pass http://llm; }} }}"""
    )

    assert value("$a", Request(sent), variables.read(path, "llm")) == expected


@pytest.mark.parametrize("ends", ["break;", "rewrite ^ /x break;"])
def test_what_is_set_after_a_break_that_may_happen_is_unknown(tmp_path: Path, ends: str) -> None:
    """Whether nginx finds that file, the lab cannot tell."""
    path = tmp_path / "nginx.conf"
    path.write_text(
        f"""upstream llm {{ server a:1; }} server {{ location / {{ set $a zero;
        if (-f $request_filename) {{ {ends} }} set $a three; proxy_pass http://llm; }} }}"""
    )

    with pytest.raises(UsageError, match="cannot evaluate"):
        value("$a", Request("/"), variables.read(path, "llm"))


def test_set_of_args_changes_the_arguments(tmp_path: Path) -> None:
    """$arg_a is looked up in $args as `set` left it."""
    path = tmp_path / "nginx.conf"
    path.write_text(
        """upstream llm { server a:1; }
        server { location / { set $args "a=new&b=$arg_a"; proxy_pass http://llm; } }"""
    )

    key = value("$arg_a $arg_b", Request("/?a=old"), variables.read(path, "llm"))

    assert key == "new old"


@pytest.mark.parametrize(("length", "whole"), [(1279, True), (1280, False)])
def test_a_long_body_is_an_empty_key(length: int, whole: bool) -> None:
    """Beyond 5/4 of client_body_buffer_size (1k here) nginx writes the body to a file."""
    key = value("$request_body", Request(TENANT, method="POST", body=b"x" * length))

    assert key == ("x" * length if whole else "")


def test_a_whole_variable_may_have_any_name() -> None:
    """`sticky cookie my-id` looks up a cookie that no text could name."""
    key = variables.compile_variable("$cookie_my-id", Variables())

    assert key(Request(headers={"Cookie": "my-id=7"})) == b"7"


@given(
    st.text(alphabet="$ab{}()~*1_", max_size=20),
    st.text(max_size=20),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8)),
)
def test_any_text_and_request_give_bytes_or_a_refusal(
    text: str, uri: str, headers: dict[str, str]
) -> None:
    """No text and no request make another error than the lab's own."""
    try:
        key = variables.evaluate(
            text + "$host$cookie_a$arg_b$uri", Request(uri, "::1", "GET", headers), READ
        )
    except UsageError:
        return

    assert isinstance(key, bytes)


def test_what_no_request_decides_is_an_error_only_where_a_map_chooses_it(tmp_path: Path) -> None:
    """A hash of the session that falls back to $request_id can be told for whoever has one."""
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        "http { map $http_x_session $who { default $http_x_session; '' $request_id; }"
        " upstream llm { hash $who; server a; } }"
    )
    find = variables.compile_text("$who", variables.read(conf, "llm"))

    assert find(Request("/", headers={"X-Session": "ann"})) == b"ann"
    with pytest.raises(UsageError, match="request_id"):
        find(Request("/"))


LOCATIONS = """http { server { listen 80;
    location ~ ^/docs/(?<doc>[^/]+)/ { location ~ (?<leaf>x)$ { proxy_pass http://nested; } }
    location /plain { proxy_pass http://plain; }
    location /asked { auth_request /auth; auth_request_set $user $upstream_http_x_user;
                      rewrite ^/asked/(?<tail>.*) /$tail; proxy_pass http://asked; }
    } }"""


@pytest.mark.parametrize(
    ("upstream", "text", "uri", "expected"),
    [
        ("nested", "$doc-$leaf", "/docs/a/x", "a-x"),
        ("plain", "$doc", "/plain", ""),
    ],
)
def test_a_capture_lasts_in_nested_locations_and_is_empty_elsewhere(
    tmp_path: Path, upstream: str, text: str, uri: str, expected: str
) -> None:
    """The regex of an outer location matched as well."""
    path = tmp_path / "nginx.conf"
    path.write_text(LOCATIONS)

    assert value(text, Request(uri), variables.read(path, upstream)) == expected


@pytest.mark.parametrize("name", ["$user", "$tail"])
def test_what_other_directives_set_cannot_be_told(tmp_path: Path, name: str) -> None:
    """auth_request_set and the groups of a rewrite define variables, so they are not unknown."""
    path = tmp_path / "nginx.conf"
    path.write_text(LOCATIONS)

    with pytest.raises(UndecidedError, match="cannot be told from the request"):
        value(name, Request("/asked"), variables.read(path, "asked"))


@pytest.mark.parametrize(
    ("listen", "expected"),
    [("listen 80 proxy_protocol;", "203.0.113.7"), ("listen 80;", "")],
)
def test_the_proxy_protocol_tells_the_client_s_address(
    tmp_path: Path, listen: str, expected: str
) -> None:
    """Without it, $proxy_protocol_addr is empty; with both kinds of `listen`, it is unknown."""
    path = tmp_path / "nginx.conf"
    server = "http {{ server {{ {} location / {{ proxy_pass http://llm; }} }} }}"
    sent = Request("/", "203.0.113.7")

    path.write_text(server.format(listen))
    assert value("$proxy_protocol_addr", sent, variables.read(path, "llm")) == expected

    path.write_text(server.format("listen 80; listen 81 proxy_protocol;"))
    with pytest.raises(UndecidedError, match="cannot be told"):
        value("$proxy_protocol_addr", sent, variables.read(path, "llm"))
