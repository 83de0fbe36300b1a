"""When nginx counts a response as a server's failure, and when it tries the next server."""

from ..errors import UsageError
from ..nginxconf.model import NextUpstream
from ..nginxconf.upstream import STATUSES
from .base import Group, Request

# how a server can fail before it answers, and nginx's word for the reason
TRANSPORT = {
    "refused": "error",
    "connect_timeout": "timeout",
    "error": "error",
    "timeout": "timeout",
    "invalid_header": "invalid_header",
}
UNSENT = {"refused", "connect_timeout"}  # the request never reached the server
HARMLESS = {"http_403", "http_404"}  # a reason to retry, not a failure
ONCE = {"POST", "LOCK", "PATCH"}  # methods that are not repeated once they were sent


def checked(fail: str, server: str) -> str:
    """The kind of failure, checked against those that nginx knows."""
    if fail in TRANSPORT or (fail.startswith("http_") and fail[5:].isdigit()):
        return fail
    known = ", ".join([*TRANSPORT, "http_500"])
    raise UsageError(f'unknown failure "{fail}" of server "{server}"', f"one of {known} and so on")


def allowed(fail: str, request: Request, rules: NextUpstream) -> bool:
    """Whether proxy_next_upstream allows a retry after this failure, and time is left."""
    reasons = {TRANSPORT.get(fail, fail)}
    if fail not in UNSENT and request.arrival.method in ONCE:
        reasons.add("non_idempotent")
    out_of_time = rules.timeout and request.now - request.start >= rules.timeout * 1000
    return reasons <= rules.conditions and not out_of_time


def passed_on(fail: str, request: Request, rules: NextUpstream) -> bool:
    """Whether the client gets this response, so that nginx counts the attempt as a success.

    That is true for every status that is not listed, and for the last attempt.
    """
    if fail in TRANSPORT:
        return False
    return fail not in STATUSES or request.tries <= 1 or not allowed(fail, request, rules)


def is_retried(fail: str, request: Request, rules: NextUpstream) -> bool:
    """Whether nginx tries another server after a failed attempt was released."""
    return request.tries > 0 and allowed(fail, request, rules)


def budget(group: Group, rules: NextUpstream) -> int:
    """The number of attempts: servers that are not down, backups included, or the limit."""
    number = sum(not peer.out for peer in group.everyone)
    return min(number, rules.tries) if rules.tries else number
