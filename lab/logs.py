"""nginx's log lines, one Hit each."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """One request that nginx passed to the upstream, in nginx's own names.

    `upstream_addr` holds every address tried, in order (the upstream's own name where nginx said
    "no live upstreams"); the three time tuples and `upstream_status` run beside it, None where
    nginx wrote "-". Times are seconds; `msec` is the end of the request.
    """

    upstream_addr: tuple[str, ...]
    status: int = 0
    msec: float = 0.0
    request_time: float = 0.0
    request_id: str = ""
    remote_addr: str = ""
    request_method: str = "GET"
    request_uri: str = "/"
    hash_key: str = ""
    http_cookie: str = ""
    bytes_sent: int = 0
    pid: int = 0
    upstream_status: tuple[int | None, ...] = ()
    upstream_connect_time: tuple[float | None, ...] = ()
    upstream_header_time: tuple[float | None, ...] = ()
    upstream_response_time: tuple[float | None, ...] = ()
