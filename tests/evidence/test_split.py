"""Count which server answered how often, in any log."""

import gzip
import io
import subprocess
import sys
from functools import reduce
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence import access_log
from nginx_llm_lab.evidence import split as counting
from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.split import Count, Split, count, count_file, split

RECORDED = Path(__file__).parents[1] / "data/logs"
REQUEST = (
    b'127.0.0.1:48878 / - - [02/Mar/2025:21:10:11 +0800] "GET / HTTP/1.0" 200 18 "-" "ab" "-" to: '
)


def counted(*lines: bytes) -> Count:
    """The count of a log of these lines."""
    return count(io.BytesIO(b"".join(line + b"\n" for line in lines)))


def test_a_split_is_printed_in_natural_order() -> None:
    """Servers in natural order: 2 before 10."""
    counts = split([Hit(("backend-10",)), Hit(("backend-2",)), Hit(("backend-2",))])

    assert str(counts) == "backend-2: 2, backend-10: 1"
    assert counts.total == 3


def test_a_hit_counts_for_the_server_that_answered() -> None:
    """It counts for the last server tried, not for the failed attempt."""
    assert str(split([Hit(("a", "b")), Hit(("a",))])) == "a: 1, b: 1"


def test_addresses_with_one_name_count_together() -> None:
    """Two addresses of one backend are one backend."""
    counts = Split({"10.0.0.1:80": 2, "10.0.0.2:80": 3}).named(
        {"10.0.0.1:80": "one", "10.0.0.2:80": "one"}
    )

    assert str(counts) == "one: 5"


@pytest.mark.parametrize("name", ["article.log", "lab.jsonl"])
def test_both_logs_of_one_run_give_one_count(name: str) -> None:
    """Nginx wrote the same 21 requests in both formats."""
    assert str(count_file(str(RECORDED / name))) == (
        "127.0.0.1:18101: 5, 127.0.0.1:18102: 4, 127.0.0.1:18105: 1, 127.0.0.1:18199: 1, "
        "[::1]:18104: 3, gone: 2, unix:/run/llm.sock: 1\n"
        "failed attempts: "
        "127.0.0.1:18101: 1, 127.0.0.1:18102: 1, 127.0.0.1:18103: 4, 127.0.0.1:18198: 1\n"
        "not proxied: 4"
    )


def test_formats_may_be_mixed_and_carry_compose_prefixes() -> None:
    """What `docker compose logs` prints of both is counted line by line."""
    both = [line for name in ("article.log", "lab.jsonl") for line in lines_of(name)]
    alone = counted(*lines_of("article.log"))

    count = counted(*(b"nginx-1  | " + line for line in both))

    assert count.split.total == 2 * alone.split.total
    assert count.attempts.total == 2 * alone.attempts.total
    assert (count.not_proxied, count.malformed) == (8, 0)


def lines_of(name: str) -> list[bytes]:
    """The lines of a recorded log."""
    return (RECORDED / name).read_bytes().splitlines()


def test_lines_of_dockers_own_file_and_of_rfc_5424_are_counted() -> None:
    """The json-file driver writes each line as JSON; the third one's text names no server."""
    docker = b'{"log":"%b\\n","stream":"stdout","time":"2026-11-27T10:00:00.1Z"}'
    syslog = b"<190>1 2026-11-27T10:00:00.123Z gw nginx 12 - - "

    result = counted(
        docker % b"x to: 10.0.0.1:80, 10.0.0.2:80",
        docker % rb"{\"upstream_addr\":\"10.0.0.2:80\"}",
        docker % b"x",
        syslog + b'{"upstream_addr":"10.0.0.1:80"}',
        syslog + b"x to: 10.0.0.1:80",
    )

    assert str(result.split) == "10.0.0.1:80: 2, 10.0.0.2:80: 2"
    assert (result.attempts.total, result.malformed_lines) == (1, (3,))


def test_lines_of_journalctl_as_json_are_counted() -> None:
    """A message that is not plain text is a list of bytes; the third one is neither."""
    entry = '{"__REALTIME_TIMESTAMP":"1","_PID":"7","MESSAGE":%s}'
    messages = ('"x to: 10.0.0.1:80"', [*b"\xff to: 10.0.0.2:80"], 7)

    counts = counted(*((entry % message).encode() for message in messages))

    assert str(counts) == "10.0.0.1:80: 1, 10.0.0.2:80: 1\nmalformed: 1 (line 3)"


def test_a_malformed_line_is_counted_and_its_number_named() -> None:
    """Lines of another format, cut short or blank do not vanish."""
    count = counted(
        REQUEST + b"10.0.0.1:80",
        b'127.0.0.1 - - [02/Mar/2025:21:10:11 +0800] "GET / HTTP/1.0" 200 18 "-" "ab"',
        REQUEST + b"10.0.0.",
        b"",
        REQUEST + b"10.0.0.1:80",
    )

    assert str(count) == "10.0.0.1:80: 2\nmalformed: 3 (lines 2, 3, 4)"
    assert count.lines == 5


def test_only_the_first_malformed_lines_are_named() -> None:
    """A log of another format gives ten numbers, not a million."""
    count = counted(*[b"nonsense"] * 25)

    assert (count.malformed, count.malformed_lines) == (25, tuple(range(1, 11)))
    assert str(count) == "no hits\nmalformed: 25 (lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …)"


def test_numbers_go_on_from_block_to_block() -> None:
    """The log is read in blocks; a line's number is its place in the log."""
    good = [REQUEST + b"10.0.0.1:80"] * 10_000

    count = counted(*good, b"bad", *good, b"bad")

    assert (count.split.total, count.malformed_lines) == (20_000, (10_001, 20_002))


@pytest.mark.parametrize(
    "line",
    [
        REQUEST + b"10.0.0.1:80",
        REQUEST + b"10.0.0.1:80  ",
        REQUEST + b"10.0.0.1:80\r",
        b"to: 10.0.0.1:80",
        b'x "curl to: 9.9.9.9:80" to: 10.0.0.1:80',
        b"x\tto:\t10.0.0.1:80",
        b'{"request_uri":"/ to: 9.9.9.9:80","upstream_addr":"10.0.0.1:80"}',
        b'{"upstream_addr":"10.0.0.1:80","request_uri":"/ to: 9.9.9.9:80"}',
        b'{"upstream_addr":"10.0.0.1:80","http_cookie":" to: -"}',
    ],
)
def test_the_address_is_what_the_line_ends_in(line: bytes) -> None:
    """Clients may write `to:` elsewhere; spaces and a CR at the end are no part of it."""
    assert str(counted(line, line)) == "10.0.0.1:80: 2"


@pytest.mark.parametrize(
    "line", [b"goto: 10.0.0.1:80", b"10.0.0.1:80", b"-", b'x "a to: 10.0.0.1:80"']
)
def test_what_only_looks_like_an_address_is_malformed(line: bytes) -> None:
    """An address alone, or inside a word or quotes, is not nginx's."""
    assert counted(REQUEST + b"10.0.0.1:80", REQUEST + b"-", line).malformed_lines == (3,)


def test_a_line_is_not_confused_with_one_that_ends_alike() -> None:
    """A line that is `to: ADDRESS` alone teaches nothing about lines of the next block."""
    assert counted(b"to: 10.0.0.1:80", *[b"to: a"] * 50_000, b"nonsense 0").malformed_lines == (
        50_002,
    )


def test_json_lines_that_end_alike_keep_their_own_servers() -> None:
    """A client's `to:` in a URI makes two lines end alike that went to two servers."""
    end = b'","request_uri":"/ to: x"}'

    count = counted(b'{"upstream_addr":"a:1' + end, b'{"upstream_addr":"b:1' + end)

    assert str(count) == "a:1: 1, b:1: 1"


def test_a_log_may_stop_without_a_newline() -> None:
    """The last line counts, as awk would count it."""
    assert str(count(io.BytesIO(REQUEST + b"a\n" + REQUEST + b"b"))) == "a: 1, b: 1"


def test_of_an_endless_line_only_the_end_is_kept() -> None:
    """Five megabytes without a newline are read in blocks and their address still found."""
    assert str(counted(b"x" * 5_000_000 + b" to: 10.0.0.1:80", REQUEST + b"b")) == (
        "10.0.0.1:80: 1, b: 1"
    )


def test_a_gzipped_log_is_unpacked_whatever_its_name(tmp_path: Path) -> None:
    """Rotated logs end in .gz; the first bytes decide."""
    path = tmp_path / "access.log.1"
    path.write_bytes(gzip.compress(REQUEST + b"10.0.0.1:80\n"))

    assert str(count_file(str(path))) == "10.0.0.1:80: 1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: nothing to count"),
        (gzip.compress(b"x" * 1000, mtime=0)[:20], "cannot be read: "),
        (b"\x1f\x8bnonsense", "cannot be read: "),
    ],
)
def test_a_log_that_cannot_be_counted_is_an_error(
    tmp_path: Path, content: bytes, message: str
) -> None:
    """Empty, cut short or broken: the error names the file."""
    path = tmp_path / "access.log"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=message) as error:
        count_file(str(path))
    assert str(path) in error.value.message


def test_a_missing_log_is_an_error(tmp_path: Path) -> None:
    """A wrong name or a folder is named, without a traceback."""
    with pytest.raises(UsageError, match="no such log"):
        count_file(str(tmp_path / "access.log"))
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        count_file(str(tmp_path))


def test_a_log_without_any_server_is_an_error(tmp_path: Path) -> None:
    """It names the lines, and says what a line may be."""
    log = tmp_path / "combined.log"
    log.write_bytes(b'::1 - - [26/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "-"\n')

    with pytest.raises(
        UsageError, match=r'combined.log" names a server: malformed line 1'
    ) as error:
        count_file(str(log))

    assert error.value.hint == "lines that end in to: ADDRESS, or JSON lines with upstream_addr"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_stdin_is_counted_where_no_file_is_named(pack: type[bytes]) -> None:
    """`docker compose logs nginx | …`, plain or gzipped."""
    command = "from nginx_llm_lab.evidence.split import count_file; print(count_file())"

    done = subprocess.run(
        [sys.executable, "-c", command],
        input=pack(REQUEST + b"10.0.0.1:80\n"),
        capture_output=True,
        check=True,
    )

    assert done.stdout == b"10.0.0.1:80: 1\n"


def test_counting_loads_no_heavy_library() -> None:
    """`lab split` competes with awk: it cannot wait for numpy, typer or gzip."""
    command = (
        "import sys, nginx_llm_lab.evidence.split;"
        "print({'numpy', 'typer', 'rich', 'gzip'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)

    assert done.stdout == b"set()\n"


def test_a_count_is_plain_values_for_json() -> None:
    """The same numbers as the text, by name."""
    assert counted(REQUEST + b"a, b", REQUEST + b"-", b"?").as_dict() == {
        "split": {"b": 1},
        "total": 1,
        "attempts": {"a": 1},
        "not_proxied": 1,
        "malformed": 1,
        "malformed_lines": [3],
    }


tails = st.sampled_from([b"a:1", b"b:1", b"a:1, b:1", b"-", b"", b"a b", b'"'])
text_lines = st.builds(lambda head, tail: head + b" to: " + tail, st.binary(max_size=5), tails)
json_lines = tails.map(lambda tail: b'{"upstream_addr":"' + tail.replace(b'"', b"") + b'"}')


@given(st.lists(text_lines | json_lines | st.binary()))
def test_every_line_of_any_log_is_counted_once(lines: list[bytes]) -> None:
    """Whatever the bytes: the parts sum up to the lines that awk sees."""
    text = b"".join(line + b"\n" for line in lines)

    assert count(io.BytesIO(text)).lines == text.count(b"\n")


@given(st.lists(text_lines | json_lines | st.binary(), min_size=1))
def test_a_line_counts_the_same_alone_and_among_others(lines: list[bytes]) -> None:
    """Counting by tails is a shortcut: it gives what reading each line by itself gives."""
    lines = [line.replace(b"\n", b"") for line in lines]
    alone = [counted(line) for line in lines]

    together = counted(*lines)

    assert together.split.total == sum(one.split.total for one in alone)
    assert together.attempts.total == sum(one.attempts.total for one in alone)
    assert together.malformed == sum(one.malformed for one in alone)


PLAIN = access_log.line(Hit(("a:1",), 200, 1.5, 0.1, "id", upstream_response_time=(0.1,)))
# what makes a line no plain one, an escaped one, or none at all; and what leaves it plain
EDITS = (
    (b"a:1", b"b:1"),
    (b"a:1", b"a:1, b:1"),
    (b"a:1", b"a:1 : b:1"),
    (b"a:1", b"-"),
    (b"a:1", b""),
    (b"a:1", b"127.0.0."),
    (b'"id"', b'"i\\"d"'),
    (b'"id"', b'"i\xff to: x"'),
    (b'"200"', b"200"),
    (b'"200"', b'"2x0"'),
    (b'"1.5"', b'"1.5.1"'),
    (b'"1.5"', b'"99999999999999999999"'),
    (b'"0.1"', b'"0.1, 0.2"'),
    (b'"0.1"', b'"-"'),
    (b"{", b"nginx-1  | {"),
    (b"{", b"<190>Nov 26 10:00:00 gw nginx: {"),
    (b"{", b"{{"),
    (b"}", b"} to: a:1"),
    (b'"status"', b'"msec"'),
)
plain_lines = st.lists(st.sampled_from(EDITS), max_size=2).map(
    lambda edits: reduce(lambda line, edit: line.replace(*edit), edits, PLAIN.rstrip())
)


@given(st.lists(plain_lines, min_size=1))
def test_a_plain_json_line_counts_as_if_it_were_read(lines: list[bytes]) -> None:
    """From the second block on a pattern matches most lines; the count is the same."""
    with mock.patch.object(counting, "_BLOCK", len(PLAIN)):
        together = counted(PLAIN.rstrip(), *lines)

    alone = [counted(line) for line in (PLAIN.rstrip(), *lines)]
    assert together.malformed == sum(one.malformed for one in alone)
    assert together.not_proxied == sum(one.not_proxied for one in alone)
    for server in ("a:1", "b:1"):
        for part in ("split", "attempts"):
            expected = sum(getattr(one, part).counts.get(server, 0) for one in alone)
            assert getattr(together, part).counts.get(server, 0) == expected


def test_the_pattern_of_plain_lines_is_used() -> None:
    """It matches the lab's own line and none with several servers."""
    pattern = access_log.plain(PLAIN.rstrip())

    assert pattern is not None
    assert pattern.fullmatch(PLAIN.rstrip())
    assert not pattern.fullmatch(PLAIN.rstrip().replace(b"a:1", b"a:1, b:1"))
    assert access_log.plain(PLAIN.replace(b'"200"', b"200")) is None
