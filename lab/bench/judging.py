"""CPU seconds of `lab judge` for every method, on run folders with simulated traffic."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ..accounts.judging import judge
from ..evidence import folder
from ..evidence.access_log import Hit
from ..evidence.folder import Evidence
from ..evidence.timeline import FIRST_CLAIM
from ..nginxconf import methods
from ..nginxconf.methods import Choice
from ..stack.compose import BACKEND_PORT
from ..verdict.power import truth_of
from ..verdict.simulated import Traffic, address_of, serve, server_name
from .figures import Series
from .predicting import NAMES

USERS = 20  # requests in flight where the load decides
SERVERS = {server_name(number): address_of(number) for number in range(3)}


def measure(quick: bool, repeats: int, note: Callable[[str], None]) -> Iterator[Series]:
    """CPU seconds to read and judge a run folder, for each method.

    A folder of a million requests is judged once; `quick` leaves it out, and the repeats.
    """
    sizes = {100_000: 1} if quick else {100_000: repeats, 1_000_000: 1}
    for hits, turns in sizes.items():
        for method in NAMES:
            note(f"judging: {method}, {hits:,} hits")
            with TemporaryDirectory() as parent:
                place = Path(parent) / method
                folder.write(evidence(method, hits), place)
                seconds = tuple(cpu_of_judge(place) for _ in range(turns))
            yield Series("judging", f"CPU to judge {hits:,} hits", method, "s", seconds)


def cpu_of_judge(place: Path) -> float:
    """The CPU seconds of one `lab judge` without the start of Python."""
    start = time.process_time()
    judge(place)
    return time.process_time() - start


def evidence(method: str, hits: int) -> Evidence:
    """The evidence of a run of a method on three servers, with a simulated nginx."""
    users = USERS if methods.method(method).by_load else 1
    logged = serve(truth_of(method, (1,) * len(SERVERS)), Traffic(hits, users), seed=1).hits
    config = methods.render(Choice(method, tuple(SERVERS)))
    # the simulated ring hashes names without a port; the simulated cookie is "srv"
    config = config.replace(f":{BACKEND_PORT}", "").replace(
        "sticky cookie lab_route", "sticky cookie srv"
    )
    return Evidence(
        method=method,
        traffic=f"{hits} simulated requests",
        sequential=users == 1,
        sent=hits,
        addresses={address: name for name, address in SERVERS.items()},
        claim=config,
        configuration=f"# file {FIRST_CLAIM}\n{config}",
        access=b"".join(map(access_line, logged)),
        journal=b"".join(map(journal_line, logged)),
    )


def access_line(hit: Hit) -> bytes:
    """One line of nginx's JSON log."""
    (server,) = hit.upstream_addr
    (response,) = hit.upstream_response_time
    line = {
        "msec": f"{hit.msec:.3f}",
        "request_time": f"{hit.request_time:.3f}",
        "request_id": hit.request_id,
        "remote_addr": hit.remote_addr,
        "request_method": hit.request_method,
        "request_uri": hit.request_uri,
        "hash_key": hit.request_uri,
        "http_cookie": hit.http_cookie,
        "status": "200",
        "bytes_sent": "391",
        "pid": str(hit.pid),
        "server_port": "8081",
        "upstream_addr": SERVERS[server],
        "upstream_status": "200",
        "upstream_connect_time": "0.000",
        "upstream_header_time": f"{response:.3f}",
        "upstream_response_time": f"{response:.3f}",
    }
    return json.dumps(line).encode() + b"\n"


def journal_line(hit: Hit) -> bytes:
    """One line of a backend's journal."""
    line = {
        "t": hit.msec,
        "id": hit.request_id,
        "backend": hit.upstream_addr[0],
        "start": hit.msec - hit.request_time,
        "duration": hit.request_time,
        "status": 200,
        "fate": "ok",
    }
    return json.dumps(line).encode() + b"\n"
