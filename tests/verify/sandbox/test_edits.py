"""Edits of a config that change no pick and no line number."""

from nginx_llm_lab.verify.sandbox.edits import (
    without_accept_mutex,
    without_http2,
    without_reuseport,
    without_revocation_list,
)


def test_reuseport_is_left_out_and_every_line_keeps_its_place() -> None:
    """Only in `listen`, as a word of its own."""
    conf = b"""
        server { listen 80 reuseport backlog=9; listen [::]:80
            reuseport; server_name reuseport; root /srv/reuseport; }
    """

    assert b" ".join(without_reuseport(conf).split()) == (
        b"server { listen 80 backlog=9; listen [::]:80 ;"
        b" server_name reuseport; root /srv/reuseport; }"
    )
    assert without_reuseport(conf).count(b"\n") == conf.count(b"\n")


def test_accept_mutex_is_switched_off() -> None:
    """A worker that was stopped might keep it, and then no other one accepts a connection."""
    conf = b"events { accept_mutex on; accept_mutex_delay 9ms; multi_accept on; }"

    assert without_accept_mutex(conf) == (
        b"events { accept_mutex off; accept_mutex_delay 9ms; multi_accept on; }"
    )


def test_a_revocation_list_is_left_out() -> None:
    """The lab's own certificate, which takes the place of the user's, has none."""
    conf = b"ssl_crl /a.pem;\nproxy_ssl_crl b.pem; ssl_crl_x y; ssl_crl;"

    assert without_revocation_list(conf) == b"\n ssl_crl_x y; ssl_crl;"


def test_stub_backends_are_asked_by_http_1() -> None:
    """They do not speak HTTP/2; clients may."""
    assert without_http2(b"http2 on; proxy_http_version 2;") == b"http2 on; proxy_http_version 1.1;"
    assert without_http2(b"proxy_http_version 1.1;") == b"proxy_http_version 1.1;"
