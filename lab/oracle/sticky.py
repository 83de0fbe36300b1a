"""The server that a request is bound to, by the id in the request or by its session."""

from ..nginxconf.model import Sticky
from .base import Peer, Request

TIMEOUT = 600_000  # milliseconds that a session lasts unused; nginx's default


class Sessions:
    """The sessions of `sticky`; only `learn` keeps any."""

    def __init__(self, sticky: Sticky) -> None:
        self.learns = sticky.kind == "learn"
        self.at_header = self.learns and sticky.header
        self.known: dict[str, tuple[str, int]] = {}

    def hint(self, request: Request) -> str:
        """The id of the server that a request is bound to, empty for none."""
        value = request.arrival.sticky
        return self._lookup(value, request.now) if self.learns else value

    def learn(self, request: Request, peer: Peer) -> None:
        """After a response, record the server of a new session or of one that moved."""
        if not self.learns:
            return
        session = request.arrival.learnt
        if not session and self._lookup(request.arrival.sticky, request.now):
            session = request.arrival.sticky
        if session:
            self.known[session] = peer.sid, request.now

    def _lookup(self, session: str, now: int) -> str:
        sid, last = self.known.get(session, ("", 0))
        return sid if now - last < TIMEOUT else ""
