"""Inject faults into a lab and repair them: kill, pause, cut off, slow down, wrong responses."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from itertools import takewhile
from typing import Any

import docker.errors
from docker.models.containers import Container

from .. import fault_kinds
from ..errors import LabError, UsageError
from ..fault_kinds import KINDS, By
from . import behaviour, compose, nginx, sdk
from .compose import Lab
from .shell import CommandError, in_parallel, wait_for

GRACE = 25  # seconds that a container has to finish what it does
FREEZING = 20.0  # seconds in which a pause is tried again
NGINX = "nginx"
CLIENT = "load"  # the container in which ab runs
ALL = "all"
ENDED = ("exited", "created", "dead")  # the engine's words for what does not run
HOLDERS = 8  # containers that may hold an address while a backend gets another

# --- break --------------------------------------------------------------------------------


def fault(lab: Lab, service: str, kind: str, value: float | None = None) -> None:
    """Break a backend, nginx, or "all" backends at once; return when it is broken.

    `value` is the factor of slow, the share of error_rate, the tokens before a drop. Raises
    UsageError for an unknown kind or value, LabError for a service that does not run or already
    has the fault.
    """
    _check(service, kind, value)
    if kind == "reload":
        reload(lab)
        return
    targets = _targets(lab, service)
    for target in targets:
        _refuse_broken(target, kind)
    _record_addresses(lab)
    in_parallel(lambda target: _break(lab, target, kind, value), targets)


def _check(service: str, kind: str, value: float | None) -> None:
    """Raise UsageError for a fault that this service cannot have."""
    allowed = kinds(service)
    if kind not in allowed:
        raise UsageError(f'no fault "{kind}" for {service}', f"one of {', '.join(allowed)}")
    if value is not None and KINDS[kind].value is None:
        raise UsageError(f"{kind} takes no value, got {value:g}", f"lab fault {service} {kind}")


def kinds(service: str) -> tuple[str, ...]:
    """The faults that a service can have."""
    possible = By.NGINX if service == NGINX else By.BACKEND
    return fault_kinds.names(By.ENGINE, possible)


def _targets(lab: Lab, service: str) -> list[Container]:
    """The containers of a service, or of every backend for "all"."""
    backends = [sdk.handle(container) for container in compose.backend_containers(lab)]
    if service == ALL:
        return backends
    nginx_container = sdk.handle(compose.container(lab, NGINX))
    by_name = {compose.service(container): container for container in (*backends, nginx_container)}
    if service not in by_name:
        raise UsageError(f'no backend "{service}"', f"one of {', '.join((*by_name, ALL))}")
    return [by_name[service]]


def _refuse_broken(target: Container, kind: str) -> None:
    """Raise LabError if a container's state does not allow this fault."""
    name, state = compose.service(target), target.status
    if state != "running":
        raise LabError(f"{name} is {state} already, so {kind} has no effect", "lab heal")
    if KINDS[kind].by is By.ENGINE and not compose.address(target):
        raise LabError(f"{name} is cut off already", "lab heal")


def _break(lab: Lab, target: Container, kind: str, value: float | None) -> None:
    """Inject one fault into one container."""
    if KINDS[kind].by is By.BACKEND:
        _set_behaviour(lab, compose.service(target), kind, value)
        return
    try:
        ACTIONS[kind](lab, target)
    except docker.errors.APIError as error:
        message = f"{compose.service(target)}: no {kind}: {error.explanation}"
        raise LabError(message, "lab heal") from None


def _kill(_lab: Lab, target: Container) -> None:
    """Kill the container with SIGKILL: its processes cannot finish anything."""
    target.kill()
    target.wait()


def _stop(_lab: Lab, target: Container) -> None:
    """Stop the container gracefully: requests in flight are finished."""
    target.stop(timeout=GRACE)


def _restart(lab: Lab, target: Container) -> None:
    """Restart the container; a backend gets another address, while nginx keeps the old one."""
    before = compose.address(target)
    target.stop(timeout=GRACE)
    occupied = _free_addresses_below(lab, before) + 1 if compose.service(target) != NGINX else 0
    with _occupied_addresses(lab, target, occupied):
        target.start()
    compose.wait_healthy(lab, [compose.service(target)])


def _pause(_lab: Lab, target: Container) -> None:
    """Freeze the container: the kernel accepts connections, but nothing answers."""
    name = compose.service(target)
    wait_for(lambda: _is_frozen(target), FREEZING, f"the kernel to freeze {name}")


def _is_frozen(target: Container) -> bool:
    """Pause a container; False if a process of it, such as a health check, began meanwhile."""
    try:
        target.pause()
    except docker.errors.APIError as error:
        if "unable to freeze" in str(error.explanation):
            return False
        raise
    return True


def _cut(lab: Lab, target: Container) -> None:
    """Disconnect the container from the network; its processes keep running."""
    _inside(lab).disconnect(target, force=True)


ACTIONS: Mapping[str, Callable[[Lab, Container], None]] = {
    "kill": _kill,
    "stop": _stop,
    "restart": _restart,
    "pause": _pause,
    "cut": _cut,
}


# --- behaviour of a backend ---------------------------------------------------------------


def _set_behaviour(lab: Lab, backend: str, kind: str, value: float | None) -> None:
    """Set a fault of a backend's behaviour; existing faults stay."""
    current = behaviour.request(lab, backend, "GET", "/behaviour")
    wanted = {**current, **behaviour_of(kind, value)}
    if wanted == current:
        raise LabError(f"{backend} has {kind} already", "lab heal")
    behaviour.request(lab, backend, "PUT", "/behaviour", wanted)


def behaviour_of(kind: str, value: float | None = None) -> dict[str, Any]:
    """The body of the request to the behaviour port for a fault."""
    usual = KINDS[kind].value
    given = usual.usual if usual and value is None else value
    if kind == "drop":
        return {"drop_rate": 1.0, "drop_after_tokens": int(given or 0)}
    return {kind: True if given is None else given}


# --- repair -------------------------------------------------------------------------------


def heal(lab: Lab, service: str = ALL) -> list[str]:
    """Repair one service, or all; return the actions, for example `backend-2: started`.

    Returns when what was repaired is healthy. nginx is reloaded only if a backend's address differs
    from the one that nginx resolved, because a reload would also end its bans.
    """
    backends = [backend for backend in _targets(lab, service) if compose.service(backend) != NGINX]
    clients = _start_client(lab) if service == ALL else []
    homes = _known_addresses(lab)
    home_of = {backend: homes.get(compose.service(backend), "") for backend in backends}
    detached = [
        backend
        for backend in backends
        if backend.status in ENDED or not _on_inside_network(backend)
    ]
    detached.sort(key=lambda backend: ip_address(home_of[backend] or "255.255.255.255"))
    actions = [
        # one after the other: the engine assigns the lowest free address
        *(_repair(lab, backend, home_of[backend]) for backend in detached),
        *in_parallel(
            lambda backend: _repair(lab, backend),
            [backend for backend in backends if backend not in detached],
        ),
    ]
    entries = (entry for entries in actions for entry in entries)
    done = clients + sorted(entries, key=lambda entry: compose.natural(entry.partition(":")[0]))
    compose.wait_healthy(lab, [compose.service(backend) for backend in backends])
    if service in (ALL, NGINX):
        done += (of_nginx := _repair(lab, sdk.handle(compose.container(lab, NGINX))))
        compose.wait_healthy(lab, [NGINX])
        if "nginx: started" in of_nginx:  # it has just resolved every name
            _forget_addresses(lab)
            return done
    if _is_stale(lab, done):
        reload(lab)
        done.append("nginx: reloaded, because a backend has another address")
        _forget_addresses(lab)
    return done


def _start_client(lab: Lab) -> list[str]:
    """Start the container in which ab runs if it was stopped."""
    client = sdk.handle(compose.container(lab, CLIENT))
    if client.status not in ENDED:
        return []
    client.start()
    return [f"{CLIENT}: started"]


def _known_addresses(lab: Lab) -> dict[str, str]:
    """The address under which nginx knows each backend, if it was recorded."""
    recorded = _recorded_addresses(lab)
    known: dict[str, str] = recorded.get("addresses", {})
    return known if recorded.get("workers") == _workers(lab) else {}


def _repair(lab: Lab, target: Container, home: str = "") -> list[str]:
    """Repair one container; one that was disconnected gets its address `home` back."""
    name, done = compose.service(target), []
    if target.status == "paused":
        target.unpause()
        done.append("unpaused")
    with _occupied_addresses(lab, target, _free_addresses_below(lab, home)):
        if not _on_inside_network(target):
            _inside(lab).connect(target, aliases=[name])
            done.append("reconnected to the network")
        if ended := target.status in ENDED:
            target.start()
            done.append("started")
    if not ended and name != NGINX and _reset_behaviour(lab, name):
        done.append("behaviour reset")
    return [f"{name}: {repair}" for repair in done]


def _reset_behaviour(lab: Lab, backend: str) -> bool:
    """Reset a backend's behaviour; return whether this changed it."""
    before = behaviour.request(lab, backend, "GET", "/behaviour")
    return before != behaviour.request(lab, backend, "DELETE", "/behaviour")


def reload(lab: Lab) -> None:
    """Reload nginx's configuration; it resolves the servers' names again.

    Raises LabError with nginx's message, for example if a backend that is down has no address.
    """
    try:
        compose.execute(lab, NGINX, ["sh", "/etc/nginx/lab/reload.sh"], timeout=60)
    except CommandError as error:
        reason = nginx.refusal(error, lab.active / "upstream.conf") or "no answer"
        raise LabError(f"nginx did not reload: {reason}", "lab heal") from None


# --- the network, and what nginx knows of it ----------------------------------------------


def _inside(lab: Lab) -> Any:
    """The network on which nginx reaches the backends."""
    return sdk.engine().networks.get(f"{lab.project}_inside")


def _on_inside_network(target: Container) -> bool:
    """Whether a container is on the inside network, or will be when it runs."""
    return any(name.endswith("_inside") for name in target.attrs["NetworkSettings"]["Networks"])


def _free_addresses_below(lab: Lab, address: str) -> int:
    """How many addresses of the inside network below this one are free; 0 without an address."""
    if not address:
        return 0
    network: Mapping[str, Any] = _inside(lab).attrs
    (pool,) = network["IPAM"]["Config"]
    joined = {member["IPv4Address"].partition("/")[0] for member in network["Containers"].values()}
    below = takewhile(lambda host: host < ip_address(address), ip_network(pool["Subnet"]).hosts())
    return sum(str(host) not in (pool["Gateway"], *joined) for host in below)


@contextmanager
def _occupied_addresses(lab: Lab, target: Container, number: int) -> Iterator[None]:
    """Occupy the lowest free addresses, which the engine would give out next.

    At most HOLDERS addresses are occupied; otherwise the container gets another address.
    """
    holders: list[Container] = []
    try:
        if number <= HOLDERS:
            in_parallel(lambda twin: holders.append(_address_holder(lab, twin)), [target] * number)
        yield
    finally:
        in_parallel(lambda holder: holder.remove(force=True), holders)


def _address_holder(lab: Lab, target: Container) -> Container:
    """Start a container of a target's image that only occupies an address of the inside network."""
    return sdk.engine().containers.run(
        target.attrs["Image"],
        entrypoint="sleep",
        command=["120"],
        detach=True,
        network=f"{lab.project}_inside",
        read_only=True,
        cap_drop=["ALL"],
        mem_limit="32m",
    )


def _record_addresses(lab: Lab) -> None:
    """Record each backend's address while nginx knows the same addresses."""
    generation = _workers(lab)
    if generation and _recorded_addresses(lab).get("workers") != generation:
        lab.state.mkdir(parents=True, exist_ok=True)
        recorded = {"workers": generation, "addresses": _addresses(lab)}
        (lab.state / "addresses.json").write_text(json.dumps(recorded) + "\n")


def _recorded_addresses(lab: Lab) -> dict[str, Any]:
    """The addresses that `_record_addresses` recorded; empty if there are none."""
    try:
        addresses: dict[str, Any] = json.loads((lab.state / "addresses.json").read_text())
    except (OSError, ValueError):
        return {}
    return addresses


def _forget_addresses(lab: Lab) -> None:
    (lab.state / "addresses.json").unlink(missing_ok=True)


def _is_stale(lab: Lab, done: Sequence[str]) -> bool:
    """Whether nginx may know a backend by an address that it no longer has.

    Without a record for the current workers, any backend that was started or reconnected may have
    moved.
    """
    recorded, workers = _recorded_addresses(lab), _workers(lab)
    if not workers:
        return False
    if recorded.get("workers") != workers:
        return any(not entry.endswith(("behaviour reset", "unpaused")) for entry in done)
    known, now = recorded["addresses"], _addresses(lab)
    return any(now[name] != known.get(name, now[name]) for name in now)


def known_addresses(lab: Lab) -> dict[str, str]:
    """Every address that nginx may log, with its `server` text, also of backends that are down."""
    port = compose.BACKEND_PORT
    recorded: dict[str, str] = _recorded_addresses(lab).get("addresses", {})
    down = {f"{address}:{port}": f"{name}:{port}" for name, address in recorded.items()}
    return {**down, **compose.addresses(lab)}


def _addresses(lab: Lab) -> dict[str, str]:
    """The address of each backend that has one."""
    addresses = {
        compose.service(container): compose.address(container)
        for container in compose.backend_containers(lab)
    }
    return {name: address for name, address in addresses.items() if address}


def _workers(lab: Lab) -> list[str]:
    """The ids of nginx's workers, which a reload replaces; empty where nginx does not run."""
    serving = compose.container(lab, NGINX)
    if serving.status != "running":
        return []
    top = sdk.handle(serving).top()
    where = top["Titles"].index("PID")
    return sorted(row[where] for row in top["Processes"] if row[-1].endswith("worker process"))
