"""What nginx reads out of one request; every expectation was seen on nginx 1.31.3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf import request
from nginx_llm_lab.nginxconf.request import Request


@pytest.mark.parametrize(
    ("uri", "target", "args", "path"),
    [
        ("/", "/", "", "/"),
        ("/a/b?a=1", "/a/b?a=1", "a=1", "/a/b"),
        ("/a?", "/a?", "", "/a"),
        ("/a%20b?a=%20", "/a%20b?a=%20", "a=%20", "/a b"),
        ("/a//b///c", "/a//b///c", "", "/a/b/c"),
        ("/a/./b/.", "/a/./b/.", "", "/a/b/"),
        ("/a/b/..", "/a/b/..", "", "/a/"),
        ("/a/%2E%2E/b", "/a/%2E%2E/b", "", "/b"),
        ("/a%2fb%2F%2Fc", "/a%2fb%2F%2Fc", "", "/a/b/c"),
        ("/a%3fb%23?c", "/a%3fb%23?c", "c", "/a?b#"),
        ("/a?x=1#frag", "/a?x=1#frag", "x=1", "/a"),
        ("/...", "/...", "", "/..."),
        ("http://Foo.COM:99/x/../y?a=1", "/x/../y?a=1", "a=1", "/y"),
        ("http://foo.com", "/", "", "/"),
        ("http://foo.com?a=1", "?a=1", "a=1", "/"),
    ],
)
def test_a_target_has_a_raw_and_a_normal_form(uri: str, target: str, args: str, path: str) -> None:
    """$request_uri and $args stay as sent; $uri is decoded, its dots and slashes resolved."""
    sent = Request(uri)

    assert request.target(sent).decode() == target
    assert request.args(sent).decode() == args
    assert request.path(sent).decode() == path


@pytest.mark.parametrize("uri", ["/a%zz", "/a%0", "/a%00", "/../x", "/a/../..", "/%2e%2e/x"])
def test_a_path_that_nginx_refuses_is_an_error(uri: str) -> None:
    """A broken escape, a NUL and dots above the root get 400, so that no server is picked."""
    with pytest.raises(UsageError, match="nginx answers 400"):
        request.path(Request(uri))


def test_double_slashes_may_be_kept() -> None:
    """With merge_slashes off they stay, and dots go up by one empty folder."""
    assert request.path(Request("/a//b"), merge_slashes=False) == b"/a//b"
    assert request.path(Request("/a//../b"), merge_slashes=False) == b"/a/b"


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("a=1", "1"),
        ("b=2&A=3&a=4", "3"),
        ("xa=1", ""),
        ("a", ""),
        ("a=b=c&", "b=c"),
        ("a=&a=1", ""),
        ("&&a=9", "9"),
        ("a=%20", "%20"),
    ],
)
def test_an_argument_is_the_first_of_its_name(query: str, value: str) -> None:
    """$arg_a is found without case and stays encoded."""
    assert request.argument("a")(query.encode()).decode() == value


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("lab=1; my=2", "1"),
        ("LAB=x;my=y", "x"),
        ("xlab=1; lab =3", "3"),
        ("lab=; my=1", ""),
        ("a=1,lab=2", ""),
        ("  lab=5  ", "5"),
        ("my=lab=3; lab=a=b", "a=b"),
        ("lab=1 ; my=2", "1 "),
        ("lab; lab=7", ""),
        ("lab ;my=1; lab=8", "8"),
        ("lab, lab=9", ""),
        ("label; lab=7", "7"),
    ],
)
def test_a_cookie_is_found_as_nginx_finds_it(sent: str, value: str) -> None:
    """$cookie_lab: without case, parted by semicolons, up to the next one.

    A name without "=" also hides the cookie behind it, as seen on nginx 1.31.3.
    """
    assert request.cookie("lab")(Request(headers={"Cookie": sent})).decode() == value


def test_headers_count_without_case_and_without_underscores() -> None:
    """X-A and x-a are one header; nginx drops X_A, whose name has an underscore."""
    value = request.header("x_a")

    assert value(Request(headers={"x-A": " pad "})) == b"pad"
    assert value(Request(headers={"X-A": "\ttab\t"})) == b"\ttab\t"
    assert value(Request(headers={"X_A": "dropped"})) == b""
    assert value(Request(headers={"X-A": "1", "x-a": "2"})) == b"1, 2"


@pytest.mark.parametrize(
    ("sent", "host"),
    [("Foo.Bar:80", "foo.bar"), ("[::1]:80", "[::1]"), ("foo.:80", "foo"), ("a", "a")],
)
def test_the_host_is_lower_case_without_its_port(sent: str, host: str) -> None:
    """$host of a Host header; the host of an absolute target comes first."""
    assert request.host(Request(headers={"Host": sent})).decode() == host
    assert request.host(Request("http://Other/", headers={"Host": sent})) == b"other"


@pytest.mark.parametrize(
    ("address", "text", "packed"),
    [
        ("10.0.0.1", "10.0.0.1", b"\n\0\0\x01"),
        ("2001:DB8::0:1", "2001:db8::1", b" \x01\r\xb8" + b"\0" * 11 + b"\x01"),
        ("::ffff:a00:1", "::ffff:10.0.0.1", b"\0" * 10 + b"\xff\xff\n\0\0\x01"),
        ("::506:708", "::5.6.7.8", b"\0" * 12 + b"\5\6\7\10"),
        ("unix:", "unix:", b"unix:"),
    ],
)
def test_the_client_has_a_text_and_a_packed_address(address: str, text: str, packed: bytes) -> None:
    """$remote_addr is printed as nginx does; $binary_remote_addr is 4 or 16 bytes."""
    assert request.remote_addr(Request(client_ip=address)).decode() == text
    assert request.binary_remote_addr(Request(client_ip=address)) == packed


def test_forwarded_for_ends_with_the_client() -> None:
    """$proxy_add_x_forwarded_for appends $remote_addr to what came."""
    sent = Request(client_ip="10.0.0.1", headers={"X-Forwarded-For": "1.2.3.4"})

    assert request.forwarded_for(sent) == b"1.2.3.4, 10.0.0.1"


@pytest.mark.parametrize(
    ("sent", "user"),
    [
        ("Basic dTpw", "u"),
        ("Basic  dTpwIA", "u"),
        ("Basic dQ==", ""),
        ("Basic xx!", ""),
        ("Bearer dTpw", ""),
        ("", ""),
    ],
)
def test_the_user_is_that_of_basic_authorization(sent: str, user: str) -> None:
    """$remote_user: anything else is nobody."""
    assert request.remote_user(Request(headers={"Authorization": sent})).decode() == user


@given(st.text(max_size=30))
def test_any_target_has_a_path_or_is_refused(uri: str) -> None:
    """A path that is not refused begins with a slash and holds no dots to resolve."""
    try:
        path = request.path(Request("/" + uri.encode("utf-8", "replace").decode()))
    except UsageError:
        return

    assert path.startswith(b"/")
    assert not {b".", b".."} & set(path.split(b"/"))
