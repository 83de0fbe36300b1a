"""The listener and the host by which a client reaches a server block."""

from pathlib import Path

import pytest

from nginx_llm_lab.verify.traffic import entrances
from nginx_llm_lab.verify.traffic.template import Entry
from tests.verify.traffic.configs import read


@pytest.mark.parametrize(
    ("listen", "entry"),
    [
        ("", Entry("127.0.0.1", 80)),
        ("listen 8000;", Entry("127.0.0.1", 8000)),
        ("listen 443 ssl; listen 80;", Entry("127.0.0.1", 80)),
        ("listen 443 ssl;", Entry("127.0.0.1", 443, tls=True)),
        ("listen [::]:80 ipv6only=off;", Entry("127.0.0.1", 80, mapped=True)),
        ("listen [::]:80;", Entry("::1", 80)),
        ("listen 10.0.0.1:81 proxy_protocol;", Entry("10.0.0.1", 81, proxy_protocol=True)),
        ("listen unix:/run/x.sock; listen 443 quic;", None),
    ],
)
def test_the_simplest_listener_is_used(tmp_path: Path, listen: str, entry: Entry | None) -> None:
    """Without TLS before with it, IPv4 before IPv6; none through a socket file or QUIC."""
    _, (route,) = read(tmp_path, f"{listen} location / {{ proxy_pass http://a; }}")

    assert entrances.entry(route) == entry


@pytest.mark.parametrize(
    ("first", "later", "ignored"),
    [
        ("listen 80; server_name a b;", "listen 80; server_name B;", True),
        ("listen 80;", "listen 0.0.0.0:80;", True),
        ("listen 80; server_name a;", "listen 80; server_name a b;", False),
        ("listen 80; server_name a;", "listen 81; server_name a;", False),
        ("listen 80; server_name a;", "listen 80 default_server; server_name a;", False),
    ],
)
def test_a_server_whose_names_are_taken_is_told(
    tmp_path: Path, first: str, later: str, ignored: bool
) -> None:
    """nginx gives requests to the first server with a name, or to the default server."""
    pass_on = "location / { proxy_pass http://u; } }"
    blocks = f"{first} {pass_on} server {{ {later} {pass_on[:-1]}"
    conf, routes_to = read(tmp_path, blocks, "upstream u { server a; }")
    servers = conf.block("http").all("server")

    earlier = [entrances.earlier_namesake(route, servers) for route in routes_to]

    assert earlier == [None, servers[0] if ignored else None]


def test_a_later_default_server_is_reached_by_a_host_that_no_server_names(tmp_path: Path) -> None:
    """Its name belongs to the server before."""
    pass_on = "location / { proxy_pass http://u; }"
    default = "listen 80 default_server; server_name x;"
    server = f"server_name x; {pass_on} }} server {{ {default} {pass_on}"
    _, (_, route) = read(tmp_path, server, "upstream u { server a; }")

    assert list(entrances.hosts(route)) == ["x", entrances.NOBODY]
