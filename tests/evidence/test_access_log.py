"""Read nginx's log lines into hits, from a log that a real nginx 1.31 wrote."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.evidence import access_log
from nginx_llm_lab.evidence.access_log import Hit, Malformed, Unproxied

RECORDED = Path(__file__).parents[1] / "data/logs/lab.jsonl"


def line(**values: object) -> bytes:
    """One line of the lab's log; `upstream_addr` is 10.0.0.1:80 unless given."""
    return json.dumps({"upstream_addr": "10.0.0.1:80", **values}).encode() + b"\n"


def hit(**values: object) -> Hit:
    """The hit that such a line holds."""
    parsed = access_log.record(line(**values))
    assert isinstance(parsed, Hit)
    return parsed


def recorded() -> access_log.Log:
    """Nginx's own log of retries, internal redirects, refusals and odd bytes."""
    return access_log.read(RECORDED.read_bytes().splitlines(keepends=True))


def test_every_line_that_nginx_wrote_is_read() -> None:
    """21 requests: 17 reached the upstream, 4 did not, none is malformed."""
    log = recorded()

    assert (len(log.hits), len(log.unproxied), log.malformed) == (17, 4, ())


def test_a_plain_request_keeps_all_that_nginx_wrote() -> None:
    """Each field has nginx's value, times in seconds."""
    assert recorded().hits[0] == Hit(
        upstream_addr=("127.0.0.1:18101",),
        status=200,
        msec=1795348298.488,
        request_time=0.0,
        request_id="465ac725fa6ae7c78b1592ea8b1e2c83",
        remote_addr="127.0.0.1",
        request_method="GET",
        request_uri="/",
        hash_key="/",
        http_cookie="",
        bytes_sent=150,
        pid=11673,
        upstream_status=(200,),
        upstream_connect_time=(0.0,),
        upstream_header_time=(0.0,),
        upstream_response_time=(0.0,),
    )


def test_a_retry_names_both_servers_in_order() -> None:
    """Nginx writes `A, B` and `502, 200`; a time it does not have is `-`."""
    retried = recorded().hits[2]

    assert retried.upstream_addr == ("127.0.0.1:18103", "127.0.0.1:18101")
    assert retried.upstream_status == (502, 200)
    assert retried.upstream_connect_time == (None, 0.0)


def test_an_internal_redirect_adds_the_second_groups_server() -> None:
    """Nginx writes ` : ` between two groups."""
    assert recorded().hits[9].upstream_addr == ("127.0.0.1:18101", "[::1]:18104")
    assert recorded().hits[9].upstream_status == (503, 200)


def test_no_live_upstreams_shows_as_the_upstreams_name() -> None:
    """Nginx writes the name of the upstream where it asked no server."""
    assert recorded().hits[7].upstream_addr == ("gone",)


def test_a_client_that_hung_up_is_a_hit_without_a_status() -> None:
    """The server was asked and had not answered."""
    gone = next(hit for hit in recorded().hits if hit.status == 499)

    assert (gone.upstream_addr, gone.upstream_status) == (("127.0.0.1:18105",), (None,))


def test_bytes_that_are_not_utf8_come_back_as_they_were() -> None:
    """The client sent a byte E9 and the log holds it raw."""
    odd = next(hit for hit in recorded().hits if "caf" in hit.request_uri)

    assert odd.request_uri.encode("utf-8", "surrogateescape") == b'/caf\xe9?q="\\'


def test_requests_that_never_reached_the_upstream_are_counted_by_kind() -> None:
    """A return 204, a deny and two bad requests."""
    assert Counter(request.kind for request in recorded().unproxied) == {
        "answered by nginx (204)": 1,
        "refused by nginx (403)": 1,
        "bad request (400)": 2,
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("499", "client gave up (499)"),
        ("502", "failed in nginx (502)"),
        ("", "answered by nginx (0)"),
    ],
)
def test_a_kind_follows_from_the_status(status: str, kind: str) -> None:
    """A 499 is caused by the client, a 5xx without an upstream by nginx."""
    parsed = access_log.record(line(upstream_addr="-", status=status))

    assert isinstance(parsed, Unproxied)
    assert parsed.kind == kind


def test_unquoted_numbers_are_read_too() -> None:
    """A format may leave the quotes of a number away; null is nothing."""
    parsed = hit(status=200, msec=1.5, upstream_status=200, http_cookie=None, mine=[1])

    assert (parsed.status, parsed.msec, parsed.upstream_status, parsed.http_cookie) == (
        200,
        1.5,
        (200,),
        "",
    )


def test_an_entry_without_an_address_goes_with_its_status() -> None:
    """A group that found no server leaves an empty address: the tuples still run side by side."""
    parsed = hit(upstream_addr="10.0.0.1:80 : ", upstream_status="503 : ")

    assert (parsed.upstream_addr, parsed.upstream_status) == (("10.0.0.1:80",), (503,))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"not json",
        b'{"upstream_addr":"10.0.0.1:80"',
        b"[]",
        b"{}",
        b"[" * 100_000,
        line(upstream_addr=["10.0.0.1:80"]),
        line(upstream_addr="10.0.0."),
        line(upstream_addr="10.0.0.1:80, two words"),
        line(status="abc"),
        line(status="-5"),
        line(status=True),
        line(msec="nan"),
        line(msec="1e999"),
        line(upstream_status="502, 200"),
        b'{"upstream_addr":"u","pid":' + b"9" * 5000 + b"}",
    ],
)
def test_a_line_that_holds_no_request_is_malformed(text: bytes) -> None:
    """It is reported with its number and the start of its text, and the next line is read."""
    bad, good = access_log.records([text, line()])

    assert bad == Malformed(1, text.decode().rstrip("\n")[:200])
    assert good == Hit(("10.0.0.1:80",))


@pytest.mark.parametrize(
    "prefix",
    [
        b"nginx-1  | ",
        b"nginx-1  | 2026-11-26T10:00:00.000000000Z ",
        b"<190>Nov 26 10:00:00 gw nginx: ",
        b"2026-11-26T10:00:00.123456+00:00 gw nginx[12]: ",
        b"2026-11-26T10:00:00.123456789Z stdout F ",
        b"\xef\xbb\xbf",
    ],
)
def test_what_a_collector_puts_before_a_line_is_skipped(prefix: bytes) -> None:
    """`docker compose logs` puts the service's name there, syslog a time, the host and a tag.

    A file of the kubelet has a time, the stream and F for a full line.
    """
    assert access_log.record(prefix + line()) == Hit(("10.0.0.1:80",))


def test_a_format_without_escape_json_is_read() -> None:
    """nginx then writes a quote as JSON does not; a byte that is not ASCII comes back."""
    entry = access_log.record(rb'{"upstream_addr":"a:1","request_uri":"/\x22\x5C\x0A\xFF"}')

    assert entry == Hit(("a:1",), request_uri='/"\\\n\udcff')


def test_names_replace_addresses_where_known() -> None:
    """Every address of a retry is looked up; one without a name stays."""
    hits = [Hit(("10.0.0.1:80", "10.0.0.2:80")), Hit(("llm",))]

    named = access_log.named(hits, {"10.0.0.2:80": "backend-2"})

    assert [hit.upstream_addr for hit in named] == [("10.0.0.1:80", "backend-2"), ("llm",)]


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("-", ()),
        ("", ()),
        ("10.0.0.1:80", ("10.0.0.1:80",)),
        ("[::1]:80, unix:/run/a b.sock", ("[::1]:80", "unix:/run/a b.sock")),
        ("10.0.0.1:80 : [fe80::1]:80", ("10.0.0.1:80", "[fe80::1]:80")),
        (", 10.0.0.1:80", ("10.0.0.1:80",)),
        ("10.0.0.1:80, my-upstream_2", ("10.0.0.1:80", "my-upstream_2")),
    ],
)
def test_addresses_are_nginx_s_forms(text: str, servers: tuple[str, ...]) -> None:
    """An address, a socket, an upstream's name, alone or in a list."""
    assert access_log.addresses(text) == servers


@pytest.mark.parametrize(
    "text", ["10.0.0.", "10.0.0.1:", "[::1", "300.0.0.1:80", 'a"', "a b", "a,b"]
)
def test_a_piece_of_an_address_is_none(text: str) -> None:
    """What a line cut short leaves is not counted as a server."""
    with pytest.raises(ValueError, match="not an upstream address"):
        access_log.addresses(text)


@given(st.lists(st.binary() | st.binary().map(lambda text: b'{"upstream_addr":"' + text + b'"}')))
def test_any_bytes_are_read_one_for_one(lines: list[bytes]) -> None:
    """No input raises, and every line is somewhere."""
    log = access_log.read(lines)

    assert len(log.hits) + len(log.unproxied) + len(log.malformed) == len(lines)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(access_log.Hit.__struct_fields__)), json_values))
def test_any_json_is_read_or_refused(values: dict[str, object]) -> None:
    """Values of the wrong type never raise."""
    assert isinstance(access_log.record(line(**values)), Hit | Unproxied | None)


def test_a_hit_that_is_written_is_read_back() -> None:
    """Every field; lists, missing values, and bytes that are not UTF-8."""
    hit = Hit(
        ("a:1", "[::1]:80"),
        status=200,
        msec=1700000000.125,
        request_time=0.25,
        request_id="llm-3",
        remote_addr="::1",
        request_method="PUT",
        request_uri="/\udcff",
        hash_key="key",
        http_cookie="a=b",
        bytes_sent=2,
        pid=1,
        server_port=8081,
        connection=3,
        connection_requests=4,
        upstream_status=(None, 200),
        upstream_connect_time=(None, 0.0),
        upstream_header_time=(None, 0.125),
        upstream_response_time=(0.1, 0.15),
    )

    assert access_log.record(access_log.line(hit)) == hit


def test_a_hit_has_the_port_that_received_it() -> None:
    """0 where the log does not say: logs of earlier versions."""
    line = b'{"upstream_addr":"10.0.0.1:80","status":"200","upstream_status":"200"%s}'
    named, silent = access_log.read([line % b',"server_port":"8081"', line % b""]).hits

    assert (named.server_port, silent.server_port) == (8081, 0)
