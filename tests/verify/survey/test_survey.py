"""What a config needs: stub backends, names, addresses."""

from pathlib import Path

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf import tree
from nginx_llm_lab.verify.survey import (
    Survey,
    listen_hosts,
    resolver_hosts,
    split_address,
    survey,
)
from nginx_llm_lab.verify.survey.environment import Endpoint


def surveyed(tmp_path: Path, text: str) -> Survey:
    """The survey of a config."""
    file = tmp_path / "nginx.conf"
    file.write_text(text)
    return survey(tree.read(file))


def servers(tmp_path: Path, *names: str, listen: str = "80") -> Survey:
    """The survey of one upstream with these servers."""
    lines = " ".join(f"server {name};" for name in names)
    serve = f"server {{ listen {listen}; location / {{ proxy_pass http://u; }} }}"
    return surveyed(tmp_path, f"events {{}} http {{ upstream u {{ {lines} }} {serve} }}")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.5:8000", ("10.0.0.5", 8000)),
        ("vllm", ("vllm", 80)),
        ("[::1]:9000", ("[::1]", 9000)),
        ("[::1]", ("[::1]", 80)),
        ("unix:/run/a.sock", ("", 0)),
    ],
)
def test_an_address_is_read_as_nginx_writes_it(text: str, address: tuple[str, int]) -> None:
    """A port that is left out is 80; a socket file has none."""
    assert split_address(text) == address


@pytest.mark.parametrize(
    ("server", "listen"),
    [("${GPU_1}:8000", "80"), ("$gpu", "80"), ("a", "${PORT}"), ("gpu\0-1", "80")],
)
def test_a_template_that_was_not_filled_in_is_refused(
    tmp_path: Path, server: str, listen: str
) -> None:
    """nginx takes the text for a host's name, which nobody resolves; with the file and the line.

    So it does with control characters.
    """
    with pytest.raises(UsageError, match=r"host not found in .* in .*nginx\.conf:1\n") as refused:
        servers(tmp_path, server, listen=listen)

    assert ("fill in the template" in refused.value.hint) == ("$" in server + listen)


def test_a_name_resolved_as_nginx_runs_may_be_any_text(tmp_path: Path) -> None:
    """nginx starts, and asks its resolver later; a socket file may have any name."""
    survey_result = surveyed(
        tmp_path,
        "events {} http { upstream u { zone u 64k; server $gpu:8000 resolve; server unix:/run/$x; }"
        " resolver 10.0.0.2; server { location / { proxy_pass http://u; } } }",
    )

    assert "$gpu" in survey_result.names


def test_every_server_gets_a_stand_in_under_its_own_address(tmp_path: Path) -> None:
    """Loopback ones stand beside nginx, all others at a distance; names get an address each."""
    stubs_result = servers(tmp_path, "127.0.0.1:8001", "10.0.0.5:8000", "vllm-1:8000", "[::1]:9000")

    assert [(str(endpoint), endpoint.near) for endpoint in stubs_result.endpoints] == [
        ("127.0.0.1:8001", True),
        ("10.0.0.5:8000", False),
        (f"{stubs_result.names['vllm-1']}:8000", False),
        ("[::1]:9000", True),
    ]
    assert stubs_result.ipv6


def test_two_names_with_one_port_are_two_stand_ins(tmp_path: Path) -> None:
    """vllm-1:8000 and vllm-2:8000 must not share an address, even where nginx listens on 8000."""
    stubs_result = servers(tmp_path, "vllm-1:8000", "vllm-2:8000", listen="8000")

    assert len({endpoint.host for endpoint in stubs_result.endpoints}) == 2
    assert stubs_result.unmet == ()


def test_an_address_that_is_named_twice_is_one_stand_in(tmp_path: Path) -> None:
    """Two upstreams may share a server."""
    text = (
        "events {} http { upstream a { server gpu:1; } upstream b { server gpu:1; }"
        " server { location /a { proxy_pass http://a; } location /b { proxy_pass http://b; } } }"
    )

    assert len(surveyed(tmp_path, text).endpoints) == 1


@pytest.mark.parametrize("listen", ["8001", "127.0.0.1:8001", "localhost:8001"])
def test_a_server_that_is_nginx_itself_gets_none(tmp_path: Path, listen: str) -> None:
    """nginx may proxy to another server block of the same file, whose listener has to move."""
    stubs_result = servers(tmp_path, "127.0.0.1:8001", listen=listen)

    assert stubs_result.endpoints == ()
    assert stubs_result.occupied == {*stubs_result.listens}
    assert "nginx itself listens there" in stubs_result.unmet[0]


def test_a_unix_socket_gets_one_unless_nginx_listens_on_it(tmp_path: Path) -> None:
    """It is named as the config names it."""
    apart = servers(tmp_path, "unix:/run/a.sock", listen="unix:/run/b.sock")
    itself = servers(tmp_path, "unix:/run/a.sock", listen="unix:/run/a.sock")

    assert list(map(str, apart.endpoints)) == ["unix:/run/a.sock"]
    assert apart.endpoints[0].socket == "/run/a.sock"
    assert itself.endpoints == ()


def test_a_server_on_an_address_that_nginx_listens_on_stands_beside_it(tmp_path: Path) -> None:
    """10.1.1.1 is nginx's own machine once a `listen` says so."""
    stubs_result = servers(tmp_path, "10.1.1.1:8001", listen="10.1.1.1:80")

    assert stubs_result.endpoints == (Endpoint("10.1.1.1", 8001, near=True),)
    assert stubs_result.own == ("10.1.1.1",)


def test_localhost_is_both_of_its_addresses(tmp_path: Path) -> None:
    """Which of them nginx asks is its C library's choice."""
    stubs_result = servers(tmp_path, "localhost:8001")

    assert [str(endpoint) for endpoint in stubs_result.endpoints] == [
        "127.0.0.1:8001",
        "[::1]:8001",
    ]


def test_a_group_without_a_block_takes_its_port_from_the_scheme(tmp_path: Path) -> None:
    """`proxy_pass https://secure` asks port 443."""
    survey_result = surveyed(
        tmp_path, "events {} http { server { location / { proxy_pass https://secure; } } }"
    )

    assert [(endpoint.port, endpoint.tls) for endpoint in survey_result.endpoints] == [(443, True)]


WORKERS = [("", "1"), ("worker_processes auto;", "auto"), ("worker_processes 4;", "4")]


@pytest.mark.parametrize(
    ("text", "workers"), [*WORKERS, ("worker_processes 4; master_process off;", "1")]
)
def test_the_number_of_workers_is_read(tmp_path: Path, text: str, workers: str) -> None:
    """nginx's default is one; without a master there are none but itself."""
    assert surveyed(tmp_path, f"{text} events {{}} http {{ }}").workers == workers


def test_a_snippet_of_conf_d_has_the_workers_of_the_packages(tmp_path: Path) -> None:
    """A file without http and events is included by one that says auto."""
    survey_result = surveyed(tmp_path, "upstream u { server a; } server { proxy_pass_header a; }")

    assert survey_result.workers == "auto"


def test_deviations_from_the_config_are_listed(tmp_path: Path) -> None:
    """Certificates, passwords, resolvers, stream, other protocols, upstreams that nothing uses."""
    survey_result = surveyed(
        tmp_path,
        """events {}
        stream { upstream s { server db:5432; } server { listen 5432; proxy_pass s; } }
        http {
            resolver 10.96.0.10 valid=5s;
            upstream used { server unix:/run/a.sock; }
            upstream idle { server a; }
            server {
                listen 443 ssl;
                ssl_certificate /etc/a.pem;
                ssl_certificate_key $key;
                ssl_verify_client on;
                auth_basic_user_file users;
                location / { proxy_pass https://used; }
                location /g { grpc_pass grpc://triton:8001; }
                location /v { set $somewhere x; proxy_pass http://$somewhere; }
            }
        }""",
    )

    unmet = "\n".join(survey_result.unmet)
    expected = [
        "upstream s (",
        "upstream idle (",
        "proxy_pass http://$somewhere (",
        "proxy_pass https://used (",
        "resolver 10.96.0.10 valid=5s (",
        "ssl_certificate /etc/a.pem (",
        "ssl_verify_client on (",
        "auth_basic_user_file users (",
        "grpc_pass grpc://triton:8001 (",
    ]
    assert [text for text in expected if text not in unmet] == []
    assert len(survey_result.unmet) == len(expected)
    assert survey_result.dns == (("10.96.0.10", 53),)
    assert survey_result.own == ("10.96.0.10",)


def test_a_host_without_a_block_is_a_prerequisite(tmp_path: Path) -> None:
    """nginx starts only where it resolves; an address and localhost always do."""
    routes_to = "".join(
        f"location /{number} {{ proxy_pass http://{name}; }}"
        for number, name in enumerate(["gpu", "10.0.0.1:80", "localhost:8000", "vllm:8000"])
    )
    survey_result = surveyed(tmp_path, f"events {{}} http {{ server {{ {routes_to} }} }}")

    assert [
        (name, prerequisite.name) for name, prerequisite in survey_result.prerequisites.items()
    ] == [
        ("gpu", "gpu"),
        ("vllm:8000", "vllm"),
    ]


def test_the_certificate_is_valid_for_the_name_that_nginx_expects(tmp_path: Path) -> None:
    """`proxy_ssl_verify` compares it with `proxy_ssl_name`, if that is known before a request."""
    survey_result = surveyed(
        tmp_path,
        "events {} http { proxy_ssl_name gpu.internal; server { location / {"
        " proxy_ssl_name $host; proxy_pass https://gpu; } } }",
    )

    assert survey_result.tls_names == ("gpu.internal",)


def test_many_certificates_are_one_line(tmp_path: Path) -> None:
    """Two servers with TLS have four lines, which say the same."""
    server = "server {{ listen 443 ssl; ssl_certificate /{0}.pem; ssl_certificate_key /{0}.key; }}"
    text = "".join(server.format(name) for name in "ab")

    survey_result = surveyed(tmp_path, f"events {{}} http {{ {text} }}")

    (line,) = survey_result.unmet
    assert line.endswith(
        "nginx.conf:1) and 3 more lines: the lab's own certificate is used instead"
    )


def test_a_down_server_that_is_nginx_itself_needs_no_stand_in(tmp_path: Path) -> None:
    """No request is sent there."""
    stubs_result = servers(tmp_path, "127.0.0.1:80 down", "127.0.0.1:8001")

    assert [place.reason for place in stubs_result.places["u"]] == ["", ""]


@pytest.mark.parametrize(
    ("listen", "tls"),
    [("listen 443 ssl;", True), ("listen 80;", False), ("listen 443 ssl; listen 80;", False)],
)
def test_a_server_behind_its_client_s_scheme_speaks_tls_with_it(
    tmp_path: Path, listen: str, tls: bool
) -> None:
    """`proxy_pass $scheme://u`: the lab's clients use TLS only where nothing else is served."""
    location = "location / { proxy_pass $scheme://u; }"

    found = surveyed(
        tmp_path, f"http {{ upstream u {{ server a; }} server {{ {listen} {location} }} }}"
    )

    assert [endpoint.tls for endpoint in found.endpoints] == [tls]


def test_the_names_of_listen_and_resolver_are_told(tmp_path: Path) -> None:
    """nginx resolves them at start: a typo in a port is a name, too."""
    file = tmp_path / "nginx.conf"
    file.write_text(
        "http { resolver kube-dns.kube-system:53 10.0.0.2 valid=5s; server { listen 80a80;"
        " listen 80; listen [::1]:81; listen localhost:82; listen unix:/run/n.sock; } }"
    )
    config = tree.read(file)

    assert [missing.name for missing in listen_hosts(config)] == ["80a80"]
    assert list(resolver_hosts(config)) == ["kube-dns.kube-system"]
