"""Run folders of a correct round robin, for tests to change."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from nginx_llm_lab.accounts.judging import judge
from nginx_llm_lab.evidence import folder
from nginx_llm_lab.evidence.folder import Evidence
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.evidence.timeline import Tenure, Timeline, Window

BACKENDS = ("backend-1", "backend-2")
ADDRESS = {"backend-1": "10.0.0.1:8000", "backend-2": "10.0.0.2:8000"}
CLAIM = "upstream llm { zone llm 64k; server backend-1:8000; server backend-2:8000; }\n"
BEGAN = 1000.0


def took(number: int) -> str:
    """The server that must answer a request by round robin."""
    return BACKENDS[number % 2]


def line(number: int, backend: str, **changes: str) -> str:
    """nginx's line of a request that took 10 ms, one after the other."""
    fields = {
        "request_id": f"id-{number}",
        "msec": f"{BEGAN + number + 0.01:.3f}",
        "request_time": "0.010",
        "status": "200",
        "request_method": "POST",
        "request_uri": "/v1/chat/completions",
        "pid": "7",
        "upstream_addr": ADDRESS[backend],
        "upstream_status": "200",
        "upstream_connect_time": "0.000",
        "upstream_header_time": "0.010",
        "upstream_response_time": "0.010",
    }
    return json.dumps(fields | changes) + "\n"


def entry(number: int, backend: str) -> str:
    """The backend's line of the same."""
    fields = {"id": f"id-{number}", "backend": backend, "start": BEGAN + number, "status": 200}
    fields |= {"t": BEGAN + number + 0.01, "fate": "ok", "method": "POST"}
    return json.dumps(fields) + "\n"


def record(number: int, backend: str, **changes: Any) -> Record:
    """The client's record of the same."""
    moment = BEGAN + number
    made = Record(number, f"id-{number}", moment, moment, end=moment + 0.01, status=200)
    return replace(made, backend=backend, stream=False, **changes)


def evidence(requests: int = 40, **changes: Any) -> Evidence:
    """A correct round robin in all three logs."""
    numbers = range(requests)
    made = Evidence(
        method="round_robin",
        traffic="some requests",
        sequential=True,
        sent=requests,
        addresses={address: f"{name}:8000" for name, address in ADDRESS.items()},
        claim=CLAIM,
        configuration=CLAIM,
        access="".join(line(number, took(number)) for number in numbers).encode(),
        journal="".join(entry(number, took(number)) for number in numbers).encode(),
        records=tuple(record(number, took(number)) for number in numbers),
        timeline=timeline(),
    )
    return replace(made, **changes)


def timeline(**changes: Any) -> Timeline:
    """A run without events."""
    homes = [Tenure(address, name, BEGAN - 5) for name, address in ADDRESS.items()]
    made = Timeline(BEGAN, BACKENDS, homes, windows=[Window(BEGAN)])
    return replace(made, **changes)


def outcome(tmp_path: Path, kept: Evidence) -> Any:
    """What is computed from the folder."""
    folder.write(kept, tmp_path / "run")
    return judge(tmp_path / "run")
