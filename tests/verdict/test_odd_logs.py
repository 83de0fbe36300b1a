"""Logs that no nginx writes, and logs of an nginx in trouble: judged, never a traceback."""

from dataclasses import replace

import pytest
from msgspec import structs

from nginx_llm_lab.evidence import access_log
from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import Server, Sticky, Upstream
from nginx_llm_lab.oracle import ORACLES
from nginx_llm_lab.verdict import judge
from nginx_llm_lab.word import Word

SERVERS = Server("a"), Server("b", max_conns=2), Server("c", backup=True)
ANSWER = Hit(
    ("a",),
    200,
    100.0,
    0.1,
    upstream_status=(200,),
    upstream_connect_time=(0.0,),
    upstream_header_time=(0.1,),
    upstream_response_time=(0.1,),
)
NOBODY = Hit(("llm",), 502, 100.0, 0.0, upstream_status=(502,))
ODD = {
    "a broken URI": [structs.replace(ANSWER, request_uri="http://[")] * 3,
    "no live upstreams": [NOBODY] * 5,
    "no times": [Hit(("a",)), Hit(("b",))],
}


@pytest.mark.parametrize("method", ORACLES)
@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("log", ODD)
def test_every_log_is_judged(method: str, sequential: bool, log: str) -> None:
    """One of the three words, whatever the log holds."""
    upstream = Upstream(SERVERS, method, "$arg_x" if "hash" in method else "", "header")
    bound = replace(upstream, sticky=Sticky("route", ("$arg_x",)))

    words = {judge(claim, ODD[log], sequential=sequential).word for claim in (upstream, bound)}

    assert words <= set(Word)


@pytest.mark.parametrize("field", ["msec", "request_time", "upstream_response_time"])
def test_a_time_that_no_clock_shows_is_a_malformed_line(field: str) -> None:
    """So is one that is no number; neither reaches the verdict."""
    line = f'{{"upstream_addr":"10.0.0.1:80","status":"200","{field}":"1e308"}}'

    log = access_log.read([line.encode()])

    assert (len(log.hits), len(log.malformed)) == (0, 1)
