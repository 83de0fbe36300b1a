"""What the user can do where an upstream has no verdict."""

from ..nginxconf.tree import Directive
from .survey.prerequisites import ALLOW
from .traffic import obstacles

NO_STUB = f"give it an address and port of its own in a copy of the file; {ALLOW}"
SAME_ADDRESS = f"give each server an address or a port of its own; {ALLOW}"
NAMESAKE = f"give one of the two another server_name or port; {ALLOW}"
ALL_DOWN = f'remove "down" from a server in a copy of the file; {ALLOW}'
RESOLVED = (
    "nginx resolves that host for each request and picks any of its addresses; to have it balanced"
    f" and judged, write an upstream with zone and server NAME:PORT resolve; {ALLOW}"
)
PROXY_PASS = (
    "in a copy of the file, write proxy_pass http://NAME in its place: nginx picks servers alike"
    f" for both; {ALLOW}"
)
NO_REQUEST = f"judge the other upstreams with --upstream NAME; {ALLOW}"
REFUSED = f"in a copy of the file, relax the rule that answers instead; {ALLOW}"
RARE = f"in a copy of the file, give it a larger share, or choose it by a header; {ALLOW}"
SRV = f"in a copy of the file, write server NAME:PORT resolve without service=; {ALLOW}"
BODY_UNREAD = (
    "nginx evaluates if and proxy_pass before it reads the body, so $request_body is empty there:"
    f" choose the upstream by a header or the path; {ALLOW}"
)
UNDECIDED = (
    f"in a copy of the file, hash something that requests contain ($request_uri, a header); {ALLOW}"
)
SUBREQUESTS = f"in a copy of the file, switch that directive off; {ALLOW}"
CACHED = f"in a copy of the file, switch proxy_cache off; {ALLOW}"
BINDING = f"in a copy of the file, bind by a cookie or an argument: sticky cookie NAME; {ALLOW}"
AGAIN = f"run it again on a quieter machine, or with --seed 2; {ALLOW}"
ACCESS = (
    "in a copy of the file, write allow 127.0.0.0/8; before that line: the lab's clients have such"
    f" addresses; {ALLOW}"
)
UNBOUND = f"in a copy of the file, leave proxy_bind out; {ALLOW}"
BROKEN = f"in a copy of the file, raise worker_connections if nginx has too few; {ALLOW}"


def by_address(geo: Directive) -> str:
    """What to do where a `geo` decides by addresses that the lab's clients do not have."""
    return (
        f"in a copy of the file, give the lab's clients the value in {obstacles.shown(geo)}, as"
        f" 127.0.0.0/8 VALUE; {ALLOW}"
    )


def limited(directive: str) -> str:
    """What to do where `limit_req` or `limit_conn` takes requests away."""
    return f"in a copy of the file, remove {directive}, which delays or refuses requests; {ALLOW}"
