"""The ways from a listen port through a location to an upstream."""

from pathlib import Path

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf import routes, tree
from nginx_llm_lab.nginxconf.routes import Listen

DATA = Path(__file__).parents[1] / "data/conf"


def of(folder: Path, text: str) -> tuple[routes.Route, ...]:
    """The routes of a config."""
    path = folder / "nginx.conf"
    path.write_text(text)
    return routes.routes(tree.read(path))


def test_each_proxy_pass_is_a_route() -> None:
    """Nested locations, several upstreams and a variable's values are all followed."""
    listed = routes.routes(tree.read(DATA / "several/nginx.conf"))

    assert [(route.location, route.upstream) for route in listed] == [
        ("/v1/chat/", "chat"),
        ("/v1/chat/batch", "embed"),
        ("= /direct", "127.0.0.1:9000"),
        ("~ ^/any/", "chat"),
        ("~ ^/any/", "embed"),
    ]
    assert listed[0].listen == (Listen("*", 8080), Listen("127.0.0.1", 8443, ("ssl",)))
    assert listed[0].server_name == "llm.example.com"


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("", Listen("*", 80)),
        ("listen 8080;", Listen("*", 8080)),
        ("listen [::1]:81 ssl;", Listen("[::1]", 81, ("ssl",))),
        ("listen localhost;", Listen("localhost", 80)),
        ("listen unix:/tmp/a.sock;", Listen("unix:/tmp/a.sock", 0)),
    ],
)
def test_a_listen_line_is_an_address_and_a_port(tmp_path: Path, text: str, listen: Listen) -> None:
    """Every form of `listen` is read; without one nginx listens on port 80."""
    (route,) = of(tmp_path, f"http {{ server {{ {text} location / {{ proxy_pass http://a; }} }} }}")

    assert route.listen == (listen,)


def test_a_listen_line_may_have_a_range_of_ports(tmp_path: Path) -> None:
    """nginx listens on each of them, at that address."""
    text = "listen 127.0.0.1:8080-8083 ssl;"

    (route,) = of(tmp_path, f"http {{ server {{ {text} location / {{ proxy_pass http://a; }} }} }}")

    ports = range(8080, 8084)
    assert route.listen == tuple(Listen("127.0.0.1", port, ("ssl",)) for port in ports)


def test_set_may_name_the_upstream(tmp_path: Path) -> None:
    """`set $to llm; proxy_pass http://$to` leads to llm; an `if` around it changes nothing."""
    (route,) = of(
        tmp_path,
        """http { upstream llm { server a:1; } server { set $to llm;
           location /x { if ($args) { proxy_pass http://$to; } } } }""",
    )

    assert (route.location, route.upstream, route.scheme) == ("/x", "llm", "http")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://llm:8080", 'upstream "llm" may not have port 8080 in'),
        ("llm", "invalid URL prefix in"),
        ("ftp://llm", "invalid URL prefix in"),
    ],
)
def test_a_wrong_proxy_pass_is_refused(tmp_path: Path, url: str, message: str) -> None:
    """What nginx refuses of a proxy_pass is refused in its words, with the line."""
    with pytest.raises(UsageError, match=message) as error:
        of(
            tmp_path,
            f"http {{ upstream llm {{ server a:1; }}\nserver {{ location / {{\n"
            f"proxy_pass {url}; }} }} }}",
        )

    assert error.value.message.endswith("nginx.conf:3")


def test_variables_that_name_each_other_end(tmp_path: Path) -> None:
    """A circle of variables leads to no upstream, and to no endless search."""
    (route,) = of(
        tmp_path,
        """http { server { set $a $b$b; set $b $a$a;
           location / { proxy_pass http://$a; } } }""",
    )

    assert route.upstream == "$a"


@pytest.mark.parametrize(
    "url",
    ["http://llm$request_uri", "$scheme://llm", "http://llm$uri$is_args$args", "http://llm/$1"],
)
def test_nginx_s_own_variables_leave_the_upstream_known(tmp_path: Path, url: str) -> None:
    """A path begins with "/", and a scheme is http or https."""
    (route,) = of(
        tmp_path,
        f"http {{ upstream llm {{ server a:1; }} server {{ proxy_pass {url}; }} }}",
    )

    assert route.upstream == "llm"


@pytest.mark.parametrize(
    "name",
    [
        *("$arg_pool", "$cookie_pool", "$http_x_pool", "$1", "$region", "$host", "$server_name"),
        *("$request_method", "$ssl_client_s_dn"),
    ],
)
def test_what_a_client_chooses_may_be_any_upstream(tmp_path: Path, name: str) -> None:
    """An argument, a cookie, a header, a capture, and other variables that no directive sets."""
    possible = of(
        tmp_path,
        f"""http {{ upstream eu {{ server a:1; }} upstream us {{ server b:1; }}
            server {{ server_name ~^(?<region>eu|us); location / {{ proxy_pass http://{name}; }}
            }} }}""",
    )

    assert [route.upstream for route in possible] == ["eu", "us"]


def test_a_name_without_a_block_ends_where_the_path_begins(tmp_path: Path) -> None:
    """`http://typo$request_uri` asks for the host typo."""
    (route,) = of(
        tmp_path, "http { server { location / { proxy_pass http://typo$request_uri; } } }"
    )

    assert route.upstream == "typo"


@pytest.mark.parametrize(
    ("url", "upstreams"),
    [
        ("http://$arg_kind-pool", ["gpu-pool", "CPU-pool"]),
        ("http://gpu-$arg_kind", ["gpu-pool"]),
        ("http://${region}_chat", ["eu_chat"]),
        ("http://$picked", ["gpu-pool"]),
        ("http://${tenant}_chat/v1", ["eu_chat"]),
        ("http://$arg_kind.internal", ["$arg_kind.internal"]),
    ],
)
def test_variables_may_be_a_part_of_the_upstream_s_name(
    tmp_path: Path, url: str, upstreams: list[str]
) -> None:
    """What a client chooses may be any text; a map or a set only those that it has."""
    possible = of(
        tmp_path,
        f"""http {{ upstream gpu-pool {{ server a; }} upstream CPU-pool {{ server a; }}
            upstream eu_chat {{ server a; }}
            map $arg_x $kind {{ default none; "~^(?<Tenant>[a-z]+)$" $tenant-pool; big gpu; }}
            map $kind $picked {{ default $kind-pool; "" other; gpu gpu-pool; }}
            server {{ set $region $http_x_region; location / {{ proxy_pass {url}; }} }} }}""",
    )

    assert [route.upstream for route in possible] == upstreams


@pytest.mark.parametrize(
    "lines",
    [
        "location / { proxy_pass http://$arg_pool-llm; }",
        "location / { proxy_pass http://${http_x_pool}-llm/v1/; }",
        "location / { set $pool $1-llm; proxy_pass http://$pool; }",
        "location ~ ^/(?<pool>[^/]+)/ { proxy_pass http://$pool-llm$request_uri; }",
        "location / { proxy_pass http://$mapped-llm; }",
    ],
)
def test_what_a_client_chooses_may_be_a_part_of_the_name(tmp_path: Path, lines: str) -> None:
    """`$arg_pool-llm` may be eu-llm or us-llm, and not eu-chat."""
    possible = of(
        tmp_path,
        f"""http {{ upstream eu-llm {{ server a:1; }} upstream US-llm {{ server b:1; }}
            upstream eu-chat {{ server c:1; }}
            map $uri $mapped {{ "~^/(?<part>[a-z]+)/" $part; default eu; }}
            server {{ {lines} }} }}""",
    )

    assert {route.upstream for route in possible} == {"eu-llm", "US-llm"}
