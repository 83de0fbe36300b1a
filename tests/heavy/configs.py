"""Random upstreams for real nginx, each from its seed, and what was seen of them."""

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nginx_llm_lab import verdict
from nginx_llm_lab.evidence import access_log
from nginx_llm_lab.evidence import folder as evidence
from nginx_llm_lab.evidence import journal as journals
from nginx_llm_lab.nginxconf import upstream
from nginx_llm_lab.nginxconf.request import Request
from nginx_llm_lab.stack import behaviour, compose, nginx
from nginx_llm_lab.stack.compose import Lab
from nginx_llm_lab.traffic import probes, sender, workload

EXACT = ("round_robin", "ip_hash", "hash", "hash_consistent", "least_conn", "sticky")
KEYS = ("$request_uri", "$remote_addr", "$arg_user", "$http_x_session$request_method")
DIRECTIVES = {
    "round_robin": "",
    "ip_hash": "ip_hash;",
    "hash": "hash {key};",
    "hash_consistent": "hash {key} consistent;",
    "least_conn": "least_conn;",
    "sticky": "sticky cookie lab_route path=/;",
    "random": "random;",
    "random_two": "random two least_conn;",
    "least_time": "least_time header;",
}
BEHAVIOURS: tuple[Mapping[str, object], ...] = (
    {"error_rate": 1.0, "error_status": 500},
    {"error_rate": 1.0, "error_status": 503},
    {"drop_rate": 1.0, "drop_after_tokens": 0},
)


@dataclass(frozen=True)
class Config:
    """One random upstream.conf; `faulty` is the faulty backend, and its fault."""

    seed: int
    method: str
    key: str
    text: str
    faulty: str = ""
    behaviour: Mapping[str, object] | None = None


def config(seed: int, methods: tuple[str, ...] = EXACT, failing: bool = False) -> Config:
    """The upstream of a seed: method, key, 1 to 5 servers, weights, down, backup, failures."""
    rng = random.Random(seed)
    method, key = rng.choice(methods), rng.choice(KEYS)
    names = [f"backend-{number}" for number in rng.sample(range(1, 6), rng.choice((1, 2, 3, 5, 5)))]
    if failing and len(names) == 1:
        names.append("backend-1" if names[0] != "backend-1" else "backend-2")
    ports = ["8000"] * len(names)
    faulty, behaviour = "", None
    if failing and rng.random() < 0.5:
        ports[rng.randrange(len(ports))] = "9"  # nothing listens there: refused
    elif failing:
        faulty, behaviour = rng.choice(names), rng.choice(BEHAVIOURS)
    lines = [
        f"server {name}:{port}{_parameters(rng, failing)};"
        for name, port in zip(names, ports, strict=True)
    ]
    lines = _out_of_line(lines, method, rng)
    retried = rng.choice(("error timeout", "error timeout http_500 http_503", "error"))
    text = f"""upstream llm {{
    zone llm 256k;
    {DIRECTIVES[method].format(key=key)}
    {chr(10).join(lines)}
    keepalive 8;
}}
proxy_http_version 1.1;
proxy_next_upstream {retried};
map "" $hash_key {{ default {key if method.startswith("hash") else '""'}; }}
"""
    return Config(seed, method, key if method.startswith("hash") else "", text, faulty, behaviour)


def _parameters(rng: random.Random, failing: bool) -> str:
    """Random weight and rules of failure."""
    words = [f" weight={weight}"] if (weight := rng.choice((1, 1, 2, 3, 5, 7))) > 1 else []
    if failing:
        words.append(f" max_fails={rng.randrange(4)} fail_timeout={rng.randrange(1, 4)}")
    return "".join(words)


def _out_of_line(lines: list[str], method: str, rng: random.Random) -> list[str]:
    """Perhaps one server down, perhaps one a backup where the method takes one."""
    drawn = list(lines)
    if len(drawn) > 1 and rng.random() < 0.3:
        place = rng.randrange(len(drawn))
        drawn[place] = drawn[place].replace(";", " down;")
    if len(drawn) > 2 and method in ("round_robin", "least_conn") and rng.random() < 0.3:
        drawn[-1] = drawn[-1].replace(" down;", ";").replace(";", " backup;")
    return drawn


def requests(drawn: Config, count: int) -> probes.Plan:
    """Sequential requests of many clients and keys; a few last, so that seconds pass."""
    rng = random.Random(-drawn.seed - 1)
    plan = probes.plan(drawn.method, drawn.key, count, drawn.seed, concurrency=1)
    slow = set(rng.sample(range(count), 3)) if "fail_timeout" in drawn.text else set()
    lasting = tuple(
        _lasting(request) if number in slow else request
        for number, request in enumerate(plan.requests)
    )
    return probes.Plan(lasting, 1, plan.sessions)


def _lasting(request: Request) -> Request:
    headers = {**request.headers, "X-Lab-Duration": "0.7"}
    return Request(request.uri, request.client_ip, request.method, headers, request.body)


def observe(lab: Lab, drawn: Config, plan: probes.Plan, folder: Path) -> verdict.Verdict:
    """Serve a config by real nginx, send the plan, and judge what its log says."""
    nginx.switch(lab, drawn.text)
    if drawn.faulty:
        behaviour.request(lab, drawn.faulty, "PUT", "/behaviour", drawn.behaviour)
    try:
        mark, began = nginx.log_size(lab), time.time()
        requests = workload.fixed(plan.requests, plan.concurrency, plan.sessions)
        sent = sender.run(requests, lab.door, timeout=120)
        log = nginx.log_with(lab, mark, len(sent))
    finally:
        if drawn.faulty:
            behaviour.request(lab, drawn.faulty, "DELETE", "/behaviour")
    clock = doubt(lab, log, began) if plan.concurrency > 1 else 0.0
    return judged(lab, drawn.text, log, plan.concurrency == 1, folder, clock)


def doubt(lab: Lab, log: bytes, began: float) -> float:
    """How far nginx's clock was behind, by what the backends noted."""
    hits = access_log.read(log.splitlines(keepends=True)).hits
    lines = compose.journals(lab, began, len(hits)).splitlines()
    return evidence.clock_lag(hits, journals.read(lines).entries)


def judged(
    lab: Lab, claim: str, log: bytes, sequential: bool, folder: Path, clock: float = 0.0
) -> verdict.Verdict:
    """Compare a log with a claim alone: whether each request went where it was predicted.

    What else the log would agree with is another question, for which these logs are too short.
    """
    file = folder / "upstream.conf"
    file.write_text(claim)
    group = upstream.read(file)
    ips = {name.split(":")[0]: ip.split(":")[0] for ip, name in compose.addresses(lab).items()}
    behind = {server.name: server.name.split(":") for server in group.servers}
    addresses = {name: f"{ips[host]}:{port}" for name, (host, port) in behind.items()}
    names = {address: name for name, address in addresses.items()}
    hits = tuple(access_log.named(access_log.read(log.splitlines(keepends=True)).hits, names))
    resolved = {name: (address,) for name, address in addresses.items()}
    return verdict.judge(
        group, hits, sequential=sequential, addresses=resolved, clock=clock, alone=True
    )


def weights_changed(text: str) -> str:
    """The same upstream with the first server's weight changed behind the lab's back."""
    return re.sub(r"server ([^;\s]+)[^;]*;", r"server \1 weight=4;", text, count=1)
