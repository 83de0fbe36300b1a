"""Variables that a config makes from others; the map's cases were seen on nginx 1.31.3."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf import maps, variables
from nginx_llm_lab.nginxconf.request import Request
from nginx_llm_lab.nginxconf.variables import Variables

CONF = Path(__file__).parents[1] / "data/conf/variables.conf"
READ = variables.read(CONF, "llm")


def snippet(folder: Path, text: str) -> Variables:
    """Write a config and read its variables."""
    path = folder / "nginx.conf"
    path.write_text(text)
    return variables.read(path, "llm")


def value(name: str, header: str = "", uri: str = "/") -> str:
    """Evaluate one variable of the sample config."""
    sent = Request(uri, headers={"X-A": header})
    return variables.compile_text(f"${name}", READ)(sent).decode()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "empty"),
        ("a", "A"),
        ("A", "A"),
        ("b", "bee"),
        ("re12", "number 12"),
        ("RE12", "otherwise"),
        ("rifle", "tail fle"),
        ("default", "literal"),
        ("wxxv", "two x"),
        ("other", "otherwise"),
    ],
)
def test_a_map_looks_up_texts_then_regexes(header: str, expected: str) -> None:
    """Texts are compared without case and before regexes; ~ is case-sensitive, ~* is not."""
    assert value("plain", header) == expected


def test_regexes_are_tried_in_order_but_on_no_empty_value() -> None:
    """The first regex that matches counts; "~^$" never does, as nginx skips empty values."""
    assert [value("order", header) for header in ("ab", "b", "")] == ["first", "second", "none"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("example.com", "example"),
        ("www.Example.com", "example"),
        ("example.com.", "example"),
        ("a.b.ex.org", "star"),
        ("ex.org", "none"),
        ("www.ex.org", "www"),
        ("mail.x.y", "mail"),
        ("mail", "none"),
    ],
)
def test_a_map_of_hostnames_knows_wildcards(host: str, expected: str) -> None:
    """.example.com is the name and all below it, *.ex.org all below, mail.* all that begin so."""
    assert value("name", host) == expected


def test_maps_may_be_made_of_maps() -> None:
    """The source and the values of a map may hold variables of other maps."""
    assert value("nested", "a") == "first"
    assert value("nested", "b") == "<bee>"


def test_a_map_of_itself_is_refused() -> None:
    """A circular definition is an error, not an endless loop."""
    with pytest.raises(UsageError, match='cycle while evaluating variable "circle"'):
        value("circle")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("a 1; A 2;", 'conflicting parameter "A" in'),
        ("a;", "invalid number of the map parameters in"),
        ("~( 1;", r'cannot evaluate the regex "\(" in'),
    ],
)
def test_a_wrong_map_is_refused_with_its_line(tmp_path: Path, entries: str, message: str) -> None:
    """The error is raised only if the map's variable is used."""
    conf = snippet(tmp_path, f"map $args $m {{\n{entries}\n}}")

    assert variables.evaluate("$args", Request("/?a"), conf) == b"a"
    with pytest.raises(UsageError, match=f"{message} .*nginx.conf:2"):
        variables.evaluate("$m", Request(), conf)


@pytest.mark.parametrize(
    ("pcre", "text", "matches"),
    [
        (r"^(?<id>\d+)\k<id>$", "1212", True),
        (r"^[[:alpha:]]+\z", "abc", True),
        (r"^[[:alpha:]]+\z", "abc\n", False),
        (r"a\hb", "a\tb", True),
        (r"(?<!x)y", "xy", False),
        (r"(?i)ABC", "abc", True),
        (r"\(\?<a>", "(?<a>", True),
    ],
)
def test_regexes_are_pcre(pcre: str, text: str, matches: bool) -> None:
    """What PCRE writes otherwise than Python is translated."""
    regex = maps.pattern(pcre, ignore_case=False, where="here")

    assert (regex.search(text.encode()) is not None) == matches


@pytest.mark.parametrize(
    ("text", "number"),
    [("", 0), ("a", 0x92685F5E), ("abcd", 0x26873021), ("hello, world", 0x4B4C9D80)],
)
def test_murmur_is_the_known_hash(text: str, number: int) -> None:
    """Values of MurmurHash2 with seed 0, from the reference implementation."""
    assert maps.murmur(text.encode()) == number


def test_clients_are_split_as_nginx_splits_them() -> None:
    """Shares of 10 %, 20.5 %, 33.33 % and the rest, as nginx gave them to k0 up to k11."""
    given = " ".join(value("split", f"k{number}") for number in range(12))

    assert given == "three rest rest rest two rest two rest rest rest three rest"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", "me"),
        ("127.0.0.2", "loop"),
        ("10.2.3.4", "ten"),
        ("::ffff:10.2.3.4", "ten"),
        ("2001:db8::1", "doc"),
        ("192.0.2.1", "world"),
        ("x", "world"),
        ("", "world"),
    ],
)
def test_geo_takes_the_narrowest_network(address: str, expected: str) -> None:
    """The default is for what no network holds and for what is no address."""
    assert value("place", uri=f"/?ip={address}") == expected


def test_a_share_may_lack_digits_on_one_side_of_its_dot(tmp_path: Path) -> None:
    """nginx takes .5% and 99.% and leading zeros."""
    conf = snippet(tmp_path, "split_clients $arg_k $half { .5% a; 0099.% b; * c; }")
    given = [variables.evaluate("$half", Request(f"/?k={n}"), conf) for n in range(1_000)]

    assert 0 < given.count(b"a") < 20
    assert 0 < given.count(b"c") < 20


def test_geo_may_be_of_ranges(tmp_path: Path) -> None:
    """A range is inclusive at both ends; `delete` takes a network out again."""
    conf = snippet(
        tmp_path,
        """geo $arg_ip $in { ranges; default no; 10.0.0.1-10.0.0.9 yes; }
           geo $arg_ip $cut { default no; 10.0.0.0/8 yes; 10.0.0.0/8 yes; delete 10.0.0.0/8; }""",
    )

    assert variables.evaluate("$in", Request("/?ip=10.0.0.9"), conf) == b"yes"
    assert variables.evaluate("$in", Request("/?ip=10.0.0.10"), conf) == b"no"
    assert variables.evaluate("$cut", Request("/?ip=10.0.0.9"), conf) == b"no"


@given(st.text(alphabet="()[]{}?<>:*+\\akPz^$'=!|.", max_size=12))
def test_any_regex_is_compiled_or_refused(text: str) -> None:
    """Python knows less than PCRE; what it does not know is an error with the place."""
    try:
        maps.pattern(text, ignore_case=True, where="nginx.conf:3")
    except UsageError as error:
        assert "nginx.conf:3" in error.message  # noqa: PT017 - either outcome is right
