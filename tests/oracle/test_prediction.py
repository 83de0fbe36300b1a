"""Requests as JSON lines in, picks as JSON lines out, one for one."""

import io
import json
import re
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import LabError, UsageError
from nginx_llm_lab.nginxconf import upstream, variables
from nginx_llm_lab.nginxconf.model import Upstream
from nginx_llm_lab.nginxconf.tree import Directive
from nginx_llm_lab.nginxconf.variables import Variables
from nginx_llm_lab.oracle import Arrival, prediction

CONF = Path(__file__).parents[1] / "data/conf/variables.conf"
TWO = upstream.from_options("round_robin", ["a:1", "b:1"])
HASHED = upstream.from_options("hash", ["a:1", "b:1"], "$http_x_a")


def read(line: str | bytes, group: Upstream = TWO) -> Arrival:
    """The arrival of one line."""
    (arrival,) = prediction.arrivals([line if isinstance(line, bytes) else line.encode()], group)
    return arrival


def predicted(group: Upstream, *lines: str) -> list[dict[str, Any]]:
    """The output lines, one for each input line."""
    out = io.BytesIO()
    count = prediction.predict_lines(group, [line.encode() for line in lines], out)
    picks = [json.loads(line) for line in out.getvalue().splitlines()]
    assert count == len(picks)
    return picks


def test_a_line_in_is_a_line_out() -> None:
    """Round robin over two servers, whatever the requests hold."""
    lines = predicted(TWO, "{}", '{"uri": "/a"}', '{"client_ip": "::1"}')

    assert lines == [{"server": name, "attempts": [name]} for name in ("a:1", "b:1", "a:1")]


def test_a_failure_shows_in_the_attempts() -> None:
    """A refused request is retried on the next server; without one the server is null."""
    refused = '{"fail": {"a:1": "refused", "b:1": "refused"}}'

    first, second, third = predicted(TWO, '{"fail": {"a:1": "refused"}}', refused, "{}")

    assert first == {"server": "b:1", "attempts": ["a:1", "b:1"]}
    assert second["attempts"] == ["b:1"]
    assert third == {"server": None, "attempts": []}


def test_candidates_show_where_nginx_draws() -> None:
    """Random names every server that it may pick, with its share of the weight."""
    group = upstream.from_options("random", ["a:1 weight=3", "b:1"])

    (lines,) = predicted(group, "{}")

    assert lines["candidates"] == {"a:1": 0.75, "b:1": 0.25}


def test_every_field_reaches_the_oracle() -> None:
    """Each field of a line becomes a field of the Arrival; `start` means the same as `t`."""
    arrival = read(
        '{"uri": "/", "client_ip": "10.0.0.1", "method": "POST", "headers": {}, "body": "b",'
        ' "key": "ü", "start": 1.5, "duration": 2, "fail": {"a:1": "http_503"}}'
    )

    assert arrival == Arrival(
        key="ü".encode(),
        client_ip="10.0.0.1",
        method="POST",
        t=1.5,
        duration=2,
        fail={"a:1": "http_503"},
    )


def test_the_key_is_evaluated_where_it_is_not_given() -> None:
    """`key` goes before the headers; without both the key is empty."""
    assert read('{"headers": {"x-a": "v"}}', HASHED).key == b"v"
    assert read('{"headers": {"x-a": "v"}, "key": "k"}', HASHED).key == b"k"
    assert read("{}", HASHED).key == b""


def test_the_key_is_evaluated_by_the_config() -> None:
    """`hash $key` takes what set and if leave in $key at the location."""
    group = upstream.read(CONF)
    conf = variables.read(CONF, "llm")
    line = b'{"uri": "/t/x/?a=1"}'

    (arrival,) = prediction.arrivals([line], group, conf)

    assert arrival.key == b"none-door-1"


def test_an_unknown_variable_matters_only_without_a_key() -> None:
    """A key that the lab cannot evaluate may be given on each line."""
    group = upstream.from_options("hash", ["a:1", "b:1"], "$mystery")

    assert read('{"key": "k"}', group).key == b"k"
    with pytest.raises(UsageError, match=r'unknown "mystery" variable in --key in requests:1'):
        read("{}", group)


def test_the_sticky_value_is_the_first_that_is_not_empty() -> None:
    """Lookups are tried in their order; the backend's own cookie cannot be looked up here."""
    cookie = upstream.from_options("sticky", ["a:1", "b:1"])

    assert read('{"headers": {"Cookie": "lab_route=id"}}', cookie).sticky == "id"
    assert read("{}", cookie).sticky == ""


def test_times_stand_until_a_line_moves_them() -> None:
    """A line without `t` comes with the one before; equal lines at other times differ."""
    lines = [b"{}", b'{"t": 2}', b"{}", b"{}", b'{"start": 3.5}', b"{}"]

    times = [arrival.t for arrival in prediction.arrivals(lines, TWO)]

    assert times == [0.0, 2.0, 2.0, 2.0, 3.5, 3.5]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON (Expecting property name enclosed in double quotes at column 2)"),
        ("[]", "not a JSON object"),
        ("{} {}", "more than one JSON value (at column 3)"),
        (b"\xff", "not JSON ('utf-8' codec can't decode byte 0xff in position 0: "),
        ("[" * 100_000, "not JSON (maximum recursion depth exceeded"),
        ('{"t": NaN}', "NaN is not a JSON number"),
        ('{"t": 1e999}', '"t" is Infinity'),
        ('{"t": -1}', '"t" is -1'),
        ('{"t": true}', '"t" is true'),
        ('{"t": "1"}', '"t" is "1"'),
        (f'{{"t": 1{"0" * 400}}}', '"t" is 1000'),
        ('{"t": 1, "start": 2}', '"t" 1 and "start" 2 differ'),
        ('{"duration": null}', '"duration" is null'),
        ('{"url": "/"}', 'unknown field "url"'),
        ('{"uri": 1}', '"uri" is 1'),
        ('{"body": []}', '"body" is []'),
        ('{"key": null}', '"key" is null'),
        ('{"method": "get"}', '"method" is "get"'),
        ('{"client_ip": "10.0.0.256"}', '"client_ip" is "10.0.0.256"'),
        ('{"client_ip": "10.1"}', '"client_ip" is "10.1"'),
        ('{"headers": {"a": 1}}', '"headers" is {"a": 1}'),
        ('{"fail": "a:1"}', '"fail" is "a:1"'),
        ('{"fail": {"c:1": "refused"}}', 'unknown server "c:1" in fail'),
        ('{"fail": {"a:1": "broken"}}', 'unknown failure "broken" of server "a:1"'),
        ('{"key": "\\ud800"}', "text with half a surrogate pair"),
    ],
)
def test_a_malformed_line_is_an_error_with_its_number(line: str | bytes, message: str) -> None:
    """What is wrong, in which line; nothing is skipped and nothing guessed."""
    text = line if isinstance(line, bytes) else line.encode()

    with pytest.raises(UsageError) as error:
        list(prediction.arrivals([b"{}", text], TWO, source="r.jsonl"))

    assert error.value.message.startswith(message)
    assert error.value.message.endswith(" in r.jsonl:2")


def test_dots_go_up_to_an_empty_folder_if_slashes_are_not_merged() -> None:
    """`//../x` is above the root only where nginx merges the slashes first."""
    apart = Variables(around=(Directive("merge_slashes", ("off",), "nginx.conf"),))

    [arrival] = prediction.arrivals([b'{"uri": "//../x"}'], TWO, apart)

    assert arrival.t == 0
    with pytest.raises(UsageError, match="nginx answers 400"):
        read('{"uri": "//../x"}', TWO)


def test_time_never_goes_back() -> None:
    """The lines come in the order in which nginx picks."""
    with pytest.raises(UsageError, match=r"t goes back from 2 to 1\.5 in requests:2"):
        list(prediction.arrivals([b'{"t": 2}', b'{"t": 1.5}'], TWO))


@pytest.mark.parametrize(
    "uri",
    [
        *("/%zz", "/%00", "/../x", "/a/%2e%2e/..", "", "a", "/a b", "/a?b c", "/\x01"),
        *("http:///x", "http://me@a/", "http://a_b/", "http://a..b/", "http://a:8x/", "http://a#b"),
    ],
)
def test_an_uri_that_nginx_refuses_is_an_error_with_its_number(uri: str) -> None:
    """No server is picked for a 400, whatever the method: a line for it would shift the turns."""
    message = f'nginx answers 400 to the uri "{uri}" in requests:1'

    with pytest.raises(UsageError, match=re.escape(message)):
        read(json.dumps({"uri": uri}), TWO)


@pytest.mark.parametrize(
    "uri", ["/a/..", "/..a", "/a?%zz", "/a#/../..", "http://h", "ftp://h?", "/é"]
)
def test_an_uri_that_nginx_takes_is_a_request(uri: str) -> None:
    """Dots and escapes matter only in the path, and above its root."""
    assert read(json.dumps({"uri": uri}), TWO) == Arrival()


def test_what_was_predicted_before_an_error_is_written() -> None:
    """The reader of a pipe sees how far it went."""
    out = io.BytesIO()

    with pytest.raises(UsageError):
        prediction.predict_lines(TWO, [b"{}", b"{}", b"nonsense"], out)

    assert len(out.getvalue().splitlines()) == 2


def test_requests_are_read_no_faster_than_they_are_predicted() -> None:
    """Endless requests are a stream, not a list."""

    def endless() -> Iterator[bytes]:
        yield from cycle([b'{"uri": "/a"}'])

    assert len(list(islice(prediction.arrivals(endless(), HASHED), 10_000))) == 10_000


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_a_repeated_line_means_what_it_meant(numbers: list[int]) -> None:
    """Remembered lines change nothing: each arrival is that of its line read alone."""
    lines = [json.dumps({"headers": {"X-A": str(number)}}).encode() for number in numbers]

    arrivals = list(prediction.arrivals(lines, HASHED))

    assert arrivals == [read(line, HASHED) for line in lines]


@given(
    st.binary(max_size=30)
    | st.dictionaries(
        st.sampled_from(prediction.FIELDS),
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.just({"a:1": "refused"}),
    ).map(lambda request: json.dumps(request).encode())
)
def test_any_bytes_are_a_request_or_a_refusal(line: bytes) -> None:
    """No line makes the prediction fail in another way than with its own error."""
    out = io.BytesIO()

    try:
        prediction.predict_lines(HASHED, [line], out)
    except LabError as error:
        assert "requests:1" in error.message  # noqa: PT017 - either outcome is right
    else:
        assert set(json.loads(out.getvalue())) == {"server", "attempts"}
