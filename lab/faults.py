"""Break a lab and mend it: kill, pause, cut off, slow down, answer wrongly."""

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import docker.errors
from docker.models.containers import Container

from lab import compose
from lab.compose import Lab
from lab.errors import LabError, UsageError
from lab.shell import run

CONTROL = """
import sys, urllib.error, urllib.request
method, path, body = sys.argv[1:4]
asked = urllib.request.Request("http://127.0.0.1:9000" + path, body.encode() or None, method=method)
try:
    print(urllib.request.urlopen(asked, timeout=5).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
    sys.exit(1)
"""


def tell(lab: Lab, backend: str, method: str, path: str, content: Any = None) -> dict[str, Any]:
    """Speak to a backend's behaviour port, which only its own container can reach."""
    body = "" if content is None else json.dumps(content)
    said = compose.execute(lab, backend, ["python3", "-c", CONTROL, method, path, body])
    found: dict[str, Any] = json.loads(said)
    return found


def _behave(name: str) -> Callable[[Lab, str, float | None], None]:
    """A fault that the backend itself plays, on top of what it already plays."""
    defaults: Mapping[str, Any] = {
        "slow": 4.0,
        "error_rate": 1.0,
        "hang": True,
        "malformed_json": True,
        "refuse_health": True,
    }

    def act(lab: Lab, service: str, value: float | None) -> None:
        behaviour = tell(lab, service, "GET", "/behaviour")
        behaviour[name] = defaults[name] if value is None else value
        tell(lab, service, "PUT", "/behaviour", behaviour)

    return act


def _drop(lab: Lab, service: str, value: float | None) -> None:
    """Every answer is cut off, a stream after `value` tokens."""
    behaviour = tell(lab, service, "GET", "/behaviour")
    behaviour |= {"drop_rate": 1.0, "drop_after_tokens": int(1 if value is None else value)}
    tell(lab, service, "PUT", "/behaviour", behaviour)


def _kill(lab: Lab, service: str, _value: float | None) -> None:
    """End it with SIGKILL: nothing in it can say goodbye."""
    compose.container(lab, service).kill()


def _stop(lab: Lab, service: str, _value: float | None) -> None:
    """End it as an operator does; it finishes what it has."""
    compose.container(lab, service).stop(timeout=25)


def _restart(lab: Lab, service: str, _value: float | None) -> None:
    """End it and start it again, a backend under another address."""
    container = compose.container(lab, service)
    container.stop(timeout=25)
    if service != "nginx":
        before = compose.address(container)
        _leave(container)
        _join(lab, container, avoiding=before)
    container.start()


def _pause(lab: Lab, service: str, _value: float | None) -> None:
    """Freeze it: connections are taken, nothing answers."""
    compose.container(lab, service).pause()


def _cut(lab: Lab, service: str, _value: float | None) -> None:
    """Pull its cable: it runs on, and nobody reaches it."""
    _leave(compose.container(lab, service))


KINDS: Mapping[str, Callable[[Lab, str, float | None], None]] = {
    "kill": _kill,
    "stop": _stop,
    "restart": _restart,
    "pause": _pause,
    "cut": _cut,
    "slow": _behave("slow"),
    "error_rate": _behave("error_rate"),
    "hang": _behave("hang"),
    "drop": _drop,
    "malformed_json": _behave("malformed_json"),
    "refuse_health": _behave("refuse_health"),
}
OF_NGINX = ("kill", "stop", "restart", "pause", "cut", "reload")


def fault(lab: Lab, service: str, kind: str, value: float | None = None) -> None:
    """Break a backend, nginx, or "all" backends; UsageError for a kind that there is not."""
    if kind == "reload" and service == "nginx":
        reload(lab)
        return
    if kind not in KINDS or (service == "nginx" and kind not in OF_NGINX):
        known = OF_NGINX if service == "nginx" else KINDS
        raise UsageError(f'no fault "{kind}" for {service}', f"one of {', '.join(known)}")
    for name in services(lab, service):
        try:
            KINDS[kind](lab, name, value)
        except docker.errors.APIError as error:
            raise LabError(f"{name} cannot {kind}: {error.explanation}", "lab heal") from None


def services(lab: Lab, service: str) -> list[str]:
    """The services that a word names: itself, or every backend for "all"."""
    if service == "all":
        return [compose.service(each) for each in compose.backend_containers(lab)]
    compose.container(lab, service)
    return [service]


def reload(lab: Lab) -> None:
    """Have nginx read its configuration again; names are looked up anew."""
    compose.execute(lab, "nginx", ["sh", "/etc/nginx/lab/reload.sh"], timeout=60)


def heal(lab: Lab, service: str = "all") -> list[str]:
    """Mend one service, or everything, and return what was mended, each with what was done.

    Whatever runs again under another address is looked up anew by a reload of nginx.
    """
    names = [*services(lab, "all"), "nginx"] if service == "all" else services(lab, service)
    before = compose.addresses(lab)
    done = [f"{name}: {what}" for name in names for what in _mend(lab, name)]
    compose.wait_healthy(lab, names)
    if "nginx" in {compose.service(each) for each in compose.containers(lab)} and (
        compose.addresses(lab) != before or any(not entry.startswith("nginx") for entry in done)
    ):
        reload(lab)
    return done


def _mend(lab: Lab, name: str) -> list[str]:
    """Undo whatever is wrong with one container."""
    container = compose.container(lab, name)
    done = []
    if container.status == "paused":
        container.unpause()
        done.append("runs on")
    if not compose.address(container):
        networks = container.attrs["NetworkSettings"]["Networks"]
        if not any(each.endswith("_inside") for each in networks):
            _join(lab, container)
            done.append("has its network back")
    if container.status in ("exited", "created"):
        container.start()
        done.append("started")
    elif name != "nginx" and any(_misbehaves(tell(lab, name, "GET", "/behaviour"))):
        tell(lab, name, "DELETE", "/behaviour")
        done.append("behaves")
    return done


def _misbehaves(behaviour: Mapping[str, Any]) -> list[str]:
    """What is out of the ordinary in a backend's behaviour."""
    usual = {"slow": 1.0, "error_status": 500, "drop_after_tokens": 1, "seed": 0}
    return [name for name, value in behaviour.items() if value != usual.get(name, value and None)]


def _network(lab: Lab) -> Any:
    """The network on which nginx reaches the backends."""
    return compose.engine().networks.get(f"{lab.project}_inside")


def _leave(container: Container) -> None:
    """Take a container off the inside network."""
    names = container.attrs["NetworkSettings"]["Networks"]
    inside = next((name for name in names if name.endswith("_inside")), None)
    if inside is None:
        raise LabError(f"{compose.service(container)} is cut off already", "lab heal")
    run(["docker", "network", "disconnect", "-f", inside, str(container.id)])


def _join(lab: Lab, container: Container, avoiding: str = "") -> None:
    """Put a container on the inside network under its service's name, at a new address if asked."""
    network = _network(lab)
    name = compose.service(container)
    if avoiding:
        with contextlib.suppress(docker.errors.APIError, StopIteration):
            network.connect(container, aliases=[name], ipv4_address=_unused(network, avoiding))
            return
    network.connect(container, aliases=[name])


def _unused(network: Any, avoiding: str) -> str:
    """An address of the network that nobody has, above those in use."""
    from ipaddress import IPv4Address, IPv4Network

    network.reload()
    subnet = IPv4Network(network.attrs["IPAM"]["Config"][0]["Subnet"])
    taken = {each["IPv4Address"].split("/")[0] for each in network.attrs["Containers"].values()}
    highest = max(IPv4Address(address) for address in {*taken, avoiding})
    return next(str(highest + n) for n in range(1, 200) if highest + n in subnet)
