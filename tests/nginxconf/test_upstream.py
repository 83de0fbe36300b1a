"""The reader makes of a config what nginx makes of it, or refuses it in nginx's words."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_llm_lab.errors import LabError, UsageError
from nginx_llm_lab.nginxconf import methods, tree, upstream
from nginx_llm_lab.nginxconf.model import NextUpstream, Server, Sticky, Upstream

DATA = Path(__file__).parents[1] / "data/conf"
LINES = [
    "server a:1;",
    "server a:1 weight=0;",
    "server 10.0.0.1 backup;",
    "server unix:/a down;",
    "least_conn;",
    "ip_hash;",
    "hash $uri consistent;",
    "random two;",
    "sticky cookie a;",
    "zone z 64k;",
    "location / { proxy_pass http://u; }",
    "}",
    "server {",
    "upstream u {",
    "http {",
    "include x;",
]


def block(folder: Path, body: str) -> Upstream:
    """Read an upstream of these lines."""
    path = folder / "nginx.conf"
    path.write_text(f"upstream u {{\n{body}\n}}\n")
    return upstream.read(path)


def refusal(folder: Path, body: str) -> str:
    """Why these lines are refused, and where."""
    with pytest.raises(UsageError) as error:
        block(folder, body)
    return error.value.message.replace(f"{folder}/", "")


def test_the_article_s_config_is_two_servers_under_least_conn() -> None:
    """The article's whole nginx.conf: method, servers, no zone, the place of the block."""
    group = upstream.read(DATA / "article.conf")

    assert (group.name, group.method, group.zone) == ("backend", "least_conn", False)
    assert group.servers == (Server("127.0.0.1:8001"), Server("127.0.0.1:8002"))
    assert (group.file, group.line) == (str(DATA / "article.conf"), 21)
    assert group.next_upstream == NextUpstream(frozenset({"error", "timeout"}))


def test_a_snippet_without_http_is_read() -> None:
    """A bare upstream block, as the lab's own active/upstream.conf, with every parameter."""
    group = upstream.read(DATA / "snippet.conf", "llm")

    assert (group.method, group.key, group.zone) == ("hash_consistent", "$request_uri", True)
    assert group.servers == (
        Server("backend-1:8000", weight=3, max_fails=2, fail_timeout=90),
        Server("backend-2:8000", max_conns=10),
        Server("backend-3:8000", down=True),
    )


def test_all_upstreams_of_a_config_are_read() -> None:
    """Blocks from includes, a group of a bare proxy_pass, and stream's, marked as such."""
    groups = upstream.read_all(DATA / "several/nginx.conf")

    assert [(group.name, group.method, group.stream, bool(group.line)) for group in groups] == [
        ("chat", "ip_hash", False, True),
        ("embed", "round_robin", False, True),
        ("127.0.0.1:9000", "round_robin", False, False),
        ("tcp", "least_time", True, True),
    ]
    assert groups[1].sticky == Sticky("cookie", ("$cookie_node",))
    assert groups[1].servers[1] == Server("10.0.1.2:80", route="b", drain=True)
    assert groups[2].servers == (Server("127.0.0.1:9000"),)


def test_the_rules_of_retry_are_those_of_the_location() -> None:
    """proxy_next_upstream is inherited from http, its tries from server; the last route counts."""
    read = tree.read(DATA / "several/nginx.conf")

    direct = upstream.read(read, "127.0.0.1:9000").next_upstream

    assert direct == NextUpstream(frozenset({"error", "timeout", "http_502"}), tries=2)


def test_a_location_s_own_rules_hide_the_inherited(tmp_path: Path) -> None:
    """`off` is no condition at all; several lines of one block add up; 500ms is half a second."""
    path = tmp_path / "nginx.conf"
    path.write_text(
        """http { proxy_next_upstream http_500;
        server { location /a { proxy_next_upstream error off; proxy_pass http://a; }
                 location /b { proxy_next_upstream ERROR; proxy_next_upstream http_429;
                               proxy_next_upstream_timeout 1m500ms; proxy_pass http://b; } } }"""
    )

    off, added = (group.next_upstream for group in upstream.read_all(path))

    assert off == NextUpstream(frozenset())
    assert added == NextUpstream(frozenset({"error", "http_429"}), timeout=60.5)


@pytest.mark.parametrize(
    ("line", "method", "key", "measure"),
    [
        ("", "round_robin", "", ""),
        ("least_conn;", "least_conn", "", ""),
        ("ip_hash;", "ip_hash", "", ""),
        ("hash $arg_a;", "hash", "$arg_a", ""),
        ('hash "$arg_a b" consistent;', "hash_consistent", "$arg_a b", ""),
        ("random;", "random", "", ""),
        ("random two;", "random_two", "", ""),
        ("random two least_conn;", "random_two", "", ""),
        ("least_time header;", "least_time", "", "header"),
        ("least_time last_byte inflight;", "least_time", "", "last_byte inflight"),
        ("least_conn; hash $uri; ip_hash;", "ip_hash", "", ""),
    ],
)
def test_every_method_is_read_and_the_last_one_wins(
    tmp_path: Path, line: str, method: str, key: str, measure: str
) -> None:
    """The balancing directive, its key and its measure, under the lab's words."""
    group = block(tmp_path, f"{line} server a:1;")

    assert (group.method, group.key, group.measure) == (method, key, measure)


@pytest.mark.parametrize(
    ("line", "sticky"),
    [
        ("sticky cookie id expires=1h path=/;", Sticky("cookie", ("$cookie_id",))),
        ("sticky route $cookie_a $arg_b;", Sticky("route", ("$cookie_a", "$arg_b"))),
        (
            "sticky learn create=$upstream_cookie_a lookup=$cookie_a zone=s:1m header;",
            Sticky("learn", ("$cookie_a",), ("$upstream_cookie_a",), header=True),
        ),
        ("sticky cookie id; least_conn;", None),
        ("least_conn; sticky cookie id;", Sticky("cookie", ("$cookie_id",))),
    ],
)
def test_sticky_is_lost_before_a_method(tmp_path: Path, line: str, sticky: Sticky | None) -> None:
    """All kinds of `sticky` are read; a method on a later line undoes it, as in nginx."""
    assert block(tmp_path, f"server a:1; {line}").sticky == sticky


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10", 10), ("10s", 10), ("1m30s", 90), ("1m30", 90), ("1h", 3600), ("1d 2h", 93600)],
)
def test_times_are_in_nginx_syntax(tmp_path: Path, text: str, expected: int) -> None:
    """fail_timeout takes units from years to seconds, a bare number being seconds."""
    group = block(tmp_path, f'server a:1 "fail_timeout={text}";')

    assert group.servers[0].fail_timeout == expected


@pytest.mark.parametrize(
    "parameter",
    [
        "weight=0",
        "weight=x",
        "weight=99999999999999999999",
        "max_fails=-1",
        "max_conns=a",
        "fail_timeout=500ms",
        "fail_timeout=",
        "fail_timeout=30s1m",
        "slow_start=10s",
        "Down",
    ],
)
def test_a_wrong_parameter_is_refused_as_nginx_does(tmp_path: Path, parameter: str) -> None:
    """The message is nginx's own, with the line of the server."""
    assert refusal(tmp_path, f"server a:1;\nserver b:1 {parameter};") == (
        f'invalid parameter "{parameter}" in nginx.conf:3'
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", 'no servers in upstream "u" in nginx.conf:1'),
        ("server a:1 backup;", 'no servers in upstream "u" in nginx.conf:1'),
        ("server;", 'invalid number of arguments in "server" directive in nginx.conf:2'),
        ("server a:1\n;server b", 'unexpected "}" in nginx.conf:4'),
        ("server http://a:1;", 'invalid host in upstream "http://a:1" in nginx.conf:2'),
        ("server a:0;", 'invalid port in upstream "a:0" in nginx.conf:2'),
        ("server a:;", 'invalid port in upstream "a:" in nginx.conf:2'),
        ("server :80;", 'no host in upstream ":80" in nginx.conf:2'),
        ("server [::z]:80;", 'invalid IPv6 address in upstream "[::z]:80" in nginx.conf:2'),
        ("server unix:;", 'no path in the unix domain socket in upstream "unix:" in nginx.conf:2'),
        ("hash $uri consistant;", 'invalid parameter "consistant" in nginx.conf:2'),
        ("hash;", 'invalid number of arguments in "hash" directive in nginx.conf:2'),
        ("random two least_time=header;", 'invalid parameter "least_time=header" in nginx.conf:2'),
        ("least_time body;", 'invalid value "body" in nginx.conf:2'),
        ("least_conn x;", 'invalid number of arguments in "least_conn" directive in nginx.conf:2'),
        ("sticky route a;", 'invalid variable name "a" in nginx.conf:2'),
        ("sticky cookie a x;", 'unknown parameter "x" in nginx.conf:2'),
        (
            "sticky learn create=$a zone=z:1m;",
            '"sticky" directive "lookup" parameter is not specified in nginx.conf:2',
        ),
        ("sticky cookie a; sticky cookie b;", '"sticky" directive is duplicate in nginx.conf:2'),
        ("queue 10;", 'unknown directive "queue" in nginx.conf:2'),
        ("zone z 16k;", 'zone "z" is too small in nginx.conf:2'),
        ("zone z;", 'zero size shared memory zone "z" in nginx.conf:2'),
        ("server a:1 route=;", "route is empty in nginx.conf:2"),
        (
            "server a resolve;",
            'resolving names at run time requires upstream "u" in nginx.conf:1'
            " to be in shared memory",
        ),
    ],
)
def test_a_wrong_block_is_refused_as_nginx_does(tmp_path: Path, body: str, message: str) -> None:
    """Each message was seen on nginx 1.31.3, but for the name and line that some of its lack."""
    assert refusal(tmp_path, body) == message


@pytest.mark.parametrize("method", ["ip_hash", "hash $uri", "random", "random two"])
def test_a_backup_is_refused_after_these_methods_and_taken_before(
    tmp_path: Path, method: str
) -> None:
    """The directive decides what the server lines after it may say, and only those."""
    backup = "server a:1;\nserver b:1 backup;"

    assert refusal(tmp_path, f"{method};\n{backup}") == (
        'balancing method does not support parameter "backup" in nginx.conf:4'
    )
    assert block(tmp_path, f"{backup}\n{method};").servers[1].backup


def test_a_name_declared_twice_is_refused(tmp_path: Path) -> None:
    """Names count without case, as in nginx."""
    path = tmp_path / "nginx.conf"
    path.write_text("upstream llm { server a:1; }\nupstream LLM { server b:1; }\n")

    with pytest.raises(UsageError, match=r'duplicate upstream "llm" in .*nginx.conf:2'):
        upstream.read_all(path)


def test_an_upstream_outside_of_http_is_refused(tmp_path: Path) -> None:
    """Beside an http block a bare upstream is nginx's error, not a snippet."""
    path = tmp_path / "nginx.conf"
    path.write_text("http { }\nupstream llm { server a:1; }\n")

    with pytest.raises(UsageError, match=r'"upstream" directive is not allowed here in .*:2'):
        upstream.read_all(path)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("\nserver ${X};", 'host not found in "server ${X}" in nginx.conf:2', "fill in the"),
        ("listen ${PORT};", 'host not found in "listen ${PORT}" in nginx.conf:1', "fill in the"),
        (
            "http {\nupstreams x {\nserver a:1;\n}\n}",
            'unknown directive "upstreams" in nginx.conf:2',
            'is "upstream" meant?',
        ),
        (
            "htp {\nserver { listen 80; }\n}",
            'unknown directive "htp" in nginx.conf:1',
            'is "http" meant?',
        ),
        (
            "pool x { server a:1; }",
            'unknown directive "pool" in nginx.conf:1',
            "remove the block",
        ),
        (
            "upstream u { server a:1 slow_start=30s; }",
            'invalid parameter "slow_start=30s" in nginx.conf:1',
            "only NGINX Plus has slow_start",
        ),
        (
            "upstream u { queue 10; server a:1; }",
            'unknown directive "queue" in nginx.conf:1',
            "only NGINX Plus has queue",
        ),
        (
            "upstream u { server a:1; }\nupstream u { server b:1; }",
            'duplicate upstream "u" in nginx.conf:2',
            "give one of the two another name",
        ),
        (
            "upstream u { sticky learn create=$a lookup=$b zone=c:1m sync; server a:1; }",
            'unknown parameter "sync" in nginx.conf:1',
            "only NGINX Plus has sync",
        ),
        (
            "location / { proxy_pass http://right; }",
            '"location" directive is not allowed here in nginx.conf:1',
            "move it into a server block",
        ),
        (
            "server {\nproxy_pass http://right; }",
            '"proxy_pass" directive is not allowed here in nginx.conf:2',
            "move it into a location",
        ),
        (
            "server {\nif ($arg_x) {\nproxy_pass http://right; } }",
            '"proxy_pass" directive is not allowed here in nginx.conf:3',
            "move it into a location",
        ),
        (
            "server { location / {\nupstream u { server a:1; } } }",
            '"upstream" directive is not allowed here in nginx.conf:2',
            "move it into http",
        ),
        (
            "upstream u { server a:1\nserver b:1; }",
            'invalid parameter "server" in nginx.conf:1',
            'end the server before it with ";"',
        ),
        (
            "upstream u { server http://a:1; }",
            'invalid host in upstream "http://a:1" in nginx.conf:1',
            "leave the scheme out",
        ),
    ],
)
def test_what_nginx_surely_refuses_has_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str, hint: str
) -> None:
    """Templates, misspelt blocks, and what only the commercial nginx has, beside a right block."""
    monkeypatch.chdir(tmp_path)
    Path("nginx.conf").write_text(f"{text}\nupstream right {{ server a:1; }}\n")

    with pytest.raises(UsageError) as error:
        upstream.read_all(Path("nginx.conf"))

    assert error.value.message == message
    assert hint in error.value.hint


@pytest.mark.parametrize(
    "around",
    [
        "map $http_x $y { server $http_y; default a; }",
        "types { server/x server; }",
        "stream { server { listen 1; proxy_pass a:1; } }",
        "mail { server { listen 1; protocol smtp; } }",
        "server { location / { if ($arg_x) { proxy_pass http://u; } location /a { } } }",
        "server { location / { limit_except GET { proxy_pass http://u; } } }",
    ],
)
def test_a_block_with_entries_of_that_name_is_read(tmp_path: Path, around: str) -> None:
    """The entry of a map may be called `server`, and a location has more than one place."""
    path = tmp_path / "nginx.conf"
    path.write_text(f"{around}\nupstream u {{ server a:1; }}\n")

    assert [group.name for group in upstream.read_all(path)] == ["u"]


def test_an_unclear_choice_lists_the_names() -> None:
    """Several upstreams and no name: the file, the names, and what could not be read."""
    path = DATA / "several/nginx.conf"

    with pytest.raises(UsageError) as error:
        upstream.read(path)

    assert error.value.message == f"3 upstreams in {path}"
    assert error.value.hint.startswith("name one of chat, embed, 127.0.0.1:9000; not readable: ")
    assert "mime.types" in error.value.hint


def test_an_unknown_or_a_stream_upstream_is_refused() -> None:
    """The name that was asked for, the file, and the names that there are."""
    path = DATA / "several/nginx.conf"

    with pytest.raises(UsageError, match=f'no upstream "nope" in {path}'):
        upstream.read(path, "nope")
    with pytest.raises(UsageError, match=f'upstream "tcp" in {path} belongs to stream, not http'):
        upstream.read(path, "tcp")


def test_a_thousand_servers_behind_windows_line_ends_are_read(tmp_path: Path) -> None:
    """Size, CRLF and names beyond ASCII are no matter."""
    lines = "".join(f"server höst-{number}:80;  # {number}\r\n" for number in range(1000))

    group = block(tmp_path, lines)

    assert len(group.servers) == 1000
    assert group.servers[999].name == "höst-999:80"


def test_options_are_read_as_the_lines_of_a_config() -> None:
    """--servers takes the text of server lines, under nginx's own rules."""
    group = upstream.from_options("hash", ["10.0.0.1:80 weight=3", "10.0.0.2:80 down"], "$arg_a")

    assert (group.method, group.key, group.zone) == ("hash", "$arg_a", True)
    assert group.servers == (Server("10.0.0.1:80", weight=3), Server("10.0.0.2:80", down=True))


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_has_its_options(method: str) -> None:
    """Each of the lab's words for a method makes an upstream, the hashes by the request's URI."""
    group = upstream.from_options(method, ["a:1", "b:1"])

    assert group.method == methods.METHODS[method].runs
    assert (group.sticky is not None) == (method == methods.STICKY.name)


@pytest.mark.parametrize(
    ("method", "server", "message"),
    [
        ("nope", "a:1", 'unknown method "nope"'),
        ("round_robin", "a:1 weight=0", 'invalid parameter "weight=0" in --servers "a:1 weight=0"'),
        (
            "ip_hash",
            "a:1 backup",
            'balancing method does not support parameter "backup" in --servers "a:1 backup"',
        ),
        ("round_robin", "", 'invalid number of arguments in "server" directive in --servers ""'),
    ],
)
def test_wrong_options_are_refused_as_nginx_does(method: str, server: str, message: str) -> None:
    """The place of the error is the option that holds it."""
    with pytest.raises(UsageError) as error:
        upstream.from_options(method, [server])

    assert error.value.message == message


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=12).map("\n".join))
def test_any_lines_are_upstreams_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """Whatever the lines, each upstream read has a server that is not a backup."""
    path = tmp_path_factory.getbasetemp() / "lines.conf"
    path.write_text(text)

    try:
        groups = upstream.read_all(path)
    except LabError:
        return

    assert all(any(not server.backup for server in group.servers) for group in groups)
