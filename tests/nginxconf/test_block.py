"""An upstream that is written and read again is the same upstream."""

from dataclasses import replace
from pathlib import Path

import pytest

from nginx_llm_lab.nginxconf import upstream
from nginx_llm_lab.nginxconf.block import block

BLOCKS = [
    "server a:1; server b:2 weight=3 max_fails=0 fail_timeout=7s;",
    "zone z 64k; least_conn; server a:1 max_conns=2; server b:2 backup; server c:3 down;",
    "ip_hash; server [::1]:80; server unix:/run/llm.sock weight=2;",
    'hash "$request_uri a\\"b"; server a:1; server b:2;',
    "hash $arg_user consistent; server a:1; server b:2;",
    "random; server a:1; server b:2;",
    "zone z 64k; random two; server a:1; server b:2;",
    "zone z 64k; least_time last_byte inflight; server a:1; server b:2;",
    "zone z 64k; least_conn; sticky cookie who expires=1h; server a:1 route=x; server b:2 drain;",
    "zone z 64k; sticky route $arg_r $cookie_r; server a:1 route=x; server b:2;",
    "zone z 64k; sticky learn create=$upstream_cookie_s lookup=$cookie_s zone=s:1m header;"
    " server a:1; server b:2;",
    "ip_hash; server a:1; server b:2; } proxy_next_upstream off; upstream other { server z:1;",
    "server a:1; server b:2; } proxy_next_upstream http_500 non_idempotent;"
    " proxy_next_upstream_tries 2; proxy_next_upstream_timeout 1500ms;"
    " upstream other { server z:1;",
]


@pytest.mark.parametrize("body", BLOCKS)
def test_a_written_upstream_is_read_back(tmp_path: Path, body: str) -> None:
    """Servers with their parameters, method, key, stickiness, zone, rules of retry."""
    file, again = tmp_path / "nginx.conf", tmp_path / "upstream.conf"
    file.write_text(f"http {{ upstream llm {{ {body} }} }}")
    before = upstream.read(file, "llm")

    again.write_text(block(before))

    here = replace(upstream.read(again, "llm"), file=before.file, line=before.line)
    assert here == before
