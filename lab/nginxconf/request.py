"""What nginx reads from one request: its request line, headers and client address."""

import base64
import binascii
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import msgspec

from ..errors import UsageError

ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
# a space or a control character (since 1.21.1), and neither a path nor an absolute target
_HOST = r"(?:\[[\w.~!$&'()*+,;=:-]*\]|\.?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.?)(?::[0-9]*)?"
_MALFORMED = re.compile(
    rf"[\x00-\x20\x7f]|\A(?!/|[A-Za-z][A-Za-z0-9+.-]*://{_HOST}(?:[/?]|\Z))", re.ASCII
)
# nginx drops a header whose name has other characters; underscores are allowed by
# `underscores_in_headers on`
HEADER_NAME = re.compile(r"[A-Za-z0-9_-]+")
# variables of headers that frame a request: another value of one makes it another request
FRAMING = frozenset(
    f"http_{name}" for name in ("connection", "content_length", "expect", "transfer_encoding")
)


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request as nginx receives it.

    `uri` is the target as sent (path and query, not decoded); `client_ip` is $remote_addr after
    realip; the names of `headers` are case-insensitive.
    """

    uri: str = "/"
    client_ip: str = "127.0.0.1"
    method: str = "GET"
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""


Evaluator = Callable[[Request], bytes]


def raw(text: str) -> bytes:
    """The original bytes of a text, including those that were not valid UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def target(request: Request) -> bytes:
    """The path and query as sent, without the scheme and host of an absolute target."""
    sent = raw(request.uri)
    if sent[:1] == b"/":
        return sent
    match = ABSOLUTE.match(sent)
    if match is None:
        return sent
    return sent[match.end() :] or b"/"


def check_uri(uri: str, *, merge_slashes: bool = True) -> None:
    """UsageError for a target that nginx answers with 400, without picking a server."""
    # the pattern takes twice as long as this test, which most targets pass
    plain = uri.startswith("/") and uri.isprintable() and " " not in uri
    if not plain and _MALFORMED.search(uri):
        raise _refused(raw(uri))
    if "%" in uri or "/.." in uri:
        path(Request(uri), merge_slashes=merge_slashes)


def args(request: Request) -> bytes:
    """The query, raw, without the fragment."""
    return target(request).partition(b"#")[0].partition(b"?")[2]


def path(request: Request, *, merge_slashes: bool = True) -> bytes:
    """The path decoded, its dots resolved and its double slashes merged."""
    sent = re.split(rb"[?#]", target(request), maxsplit=1)[0]
    return normal(sent or b"/", merge_slashes)


@lru_cache(maxsize=65_536)
def normal(sent: bytes, merge_slashes: bool) -> bytes:
    """Decode and resolve a path as nginx's ngx_http_parse_complex_uri does.

    UsageError for a path that nginx refuses without picking a server: a broken escape, a NUL, `..`
    above the root.
    """
    if re.search(rb"%(?![0-9A-Fa-f]{2})|%00|\A(?!/)", sent):
        raise _refused(sent)
    decoded = re.sub(rb"%(..)", lambda code: bytes([int(code[1], 16)]), sent, flags=re.DOTALL)
    *folders, last = decoded.split(b"/")[1:]
    if last in (b".", b".."):
        folders, last = [*folders, last], b""
    kept: list[bytes] = []
    for folder in folders:
        if folder == b"..":
            if not kept:
                raise _refused(sent)
            kept.pop()
        elif folder != b"." and (folder or not merge_slashes):
            kept.append(folder)
    return b"/".join([b"", *kept, last])


def _refused(sent: bytes) -> UsageError:
    return UsageError(f'nginx answers 400 to the uri "{sent.decode(errors="replace")}"')


def argument(name: str) -> Callable[[bytes], bytes]:
    """$arg_NAME of a query: the first argument of that name, ignoring case, not decoded."""
    pattern = re.compile(rb"(?:\A|&)" + re.escape(raw(name)) + rb"=([^&]*)", re.IGNORECASE)

    def find(query: bytes) -> bytes:
        match = pattern.search(query)
        return match[1] if match else b""

    return find


def headers(request: Request, name: str, *, underscores: bool = False) -> Iterable[bytes]:
    """The values of a header, by its name in lower case with underscores."""
    for key, value in request.headers.items():
        if _variable(key, underscores) == name:
            yield raw(value).strip(b" ")  # nginx keeps tabs


@lru_cache(maxsize=1_024)
def _variable(key: str, underscores: bool) -> str:
    """A header's name as in a variable; empty for a header that nginx drops."""
    kept = HEADER_NAME.fullmatch(key) and (underscores or "_" not in key)
    return key.lower().replace("-", "_") if kept else ""


def header(name: str, *, underscores: bool = False) -> Evaluator:
    """$http_NAME: all values of the header, joined as nginx joins them."""
    if name == "content_length":
        return content_length
    separator = b"; " if name == "cookie" else b", "
    return lambda request: separator.join(headers(request, name, underscores=underscores))


def content_length(request: Request) -> bytes:
    """$content_length: as sent, else the length of the body."""
    sent = b", ".join(headers(request, "content_length"))
    return sent or (str(len(request.body)).encode() if request.body else b"")


def cookie(name: str) -> Evaluator:
    """$cookie_NAME, ignoring case, up to the next semicolon.

    After the name without "=", nginx also skips the cookie behind it.
    """
    named = rb"(?:\A|;) *" + re.escape(raw(name))
    pattern = re.compile(named + rb" *(?:= *([^;]*)|;[^;]*)", re.IGNORECASE)

    def find(request: Request) -> bytes:
        for value in headers(request, "cookie"):
            for match in pattern.finditer(value):
                if match[1] is not None:
                    return match[1]
        return b""

    return find


def host(request: Request) -> bytes:
    """The host of the request line, else of the Host header: lower case, without the port."""
    absolute = ABSOLUTE.match(raw(request.uri))
    given = absolute[1] if absolute else b"".join(headers(request, "host"))
    return re.sub(rb":[^\]]*\Z", b"", given.lower()).removesuffix(b".")


def remote_user(request: Request) -> bytes:
    """$remote_user: the name before the colon in Basic authorization, padded or not."""
    scheme, _, secret = b"".join(headers(request, "authorization")).partition(b" ")
    if scheme.lower() != b"basic":
        return b""
    digits = secret.lstrip(b" ").partition(b"=")[0]
    try:
        decoded = base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error:
        return b""
    user, colon, _ = decoded.partition(b":")
    return user if colon else b""


def remote_addr(request: Request) -> bytes:
    """$remote_addr as nginx prints it: 2001:DB8::0:1 is 2001:db8::1."""
    if ":" not in request.client_ip or request.client_ip.startswith("unix:"):
        return raw(request.client_ip)
    return printable(ipaddress.IPv6Address(request.client_ip)).encode()


def printable(address: ipaddress.IPv6Address) -> str:
    """An IPv6 address as nginx's ngx_inet6_ntop prints it: an embedded IPv4 one with dots."""
    start, third, last = address.packed[:12], address.packed[14], address.packed[15]
    ipv4 = ipaddress.IPv4Address(address.packed[12:])
    if address.ipv4_mapped:
        return f"::ffff:{ipv4}"
    if not any(start) and (address.packed[12:14] != b"\0\0" or (third != 0 and last != 1)):
        return f"::{ipv4}"
    return address.compressed


def binary_remote_addr(request: Request) -> bytes:
    """$binary_remote_addr: 4 or 16 bytes."""
    if request.client_ip.startswith("unix:"):
        return b"unix:"
    family = socket.AF_INET6 if ":" in request.client_ip else socket.AF_INET
    return socket.inet_pton(family, request.client_ip)


def forwarded_for(request: Request) -> bytes:
    """$proxy_add_x_forwarded_for: X-Forwarded-For with the client's address appended."""
    return b", ".join([*headers(request, "x_forwarded_for"), remote_addr(request)])
