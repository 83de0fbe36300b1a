"""Edit the user's config files so that the sandbox can serve them; line numbers stay."""

import re

# the lab's certificate has no revocation list
REVOKED = re.compile(rb"\b(?:\w+_)?ssl_crl[ \t]+[^\s;{}#]+[ \t]*;")
HTTP_2 = re.compile(rb"\b(proxy_http_version[ \t]+)2(?=[ \t]*;)")
ACCEPT_MUTEX = re.compile(rb"\b(accept_mutex[ \t]+)on(?=[ \t]*;)")
LISTEN = re.compile(rb"\blisten\s+[^;{}#]+;")


def adapted(content: bytes) -> bytes:
    """A config file that the sandbox can serve; none of the edits changes a pick."""
    return without_accept_mutex(without_http2(without_revocation_list(without_reuseport(content))))


def without_reuseport(content: bytes) -> bytes:
    """A config file in which workers share their sockets.

    With `reuseport` each worker has its own, and the kernel would still give connections to the
    workers that `hold_workers` has stopped. Line numbers stay.
    """
    return LISTEN.sub(lambda match: re.sub(rb"(?<=\s)reuseport\b", b"", match[0]), content)


def without_revocation_list(content: bytes) -> bytes:
    """A config file without the revocation lists of the user's certificates."""
    return REVOKED.sub(b"", content)


def without_http2(content: bytes) -> bytes:
    """A config file that speaks HTTP/1.1 to the stub backends; this changes no pick."""
    return HTTP_2.sub(rb"\g<1>1.1", content)


def without_accept_mutex(content: bytes) -> bytes:
    """A config file in which no worker that `hold_workers` has stopped keeps the others waiting."""
    return ACCEPT_MUTEX.sub(rb"\g<1>off", content)
