"""An upstream with the variables of its hash key: from a config, or from a method's own file."""

from collections.abc import Sequence
from pathlib import Path

from . import methods, upstream, variables
from .model import Upstream
from .variables import Variables


def from_conf(conf: Path, name: str = "") -> tuple[Upstream, Variables]:
    """The upstream of that name (the only one without a name), as the config defines it."""
    group = upstream.read(conf, name or None)
    return group, variables.read(conf, group.name)


def from_method(
    method: str, servers: Sequence[str], weights: str, key: str, measure: str, zone: bool
) -> tuple[Upstream, Variables]:
    """The upstream that a method makes of these servers, with the maps of the method's file."""
    texts = methods.weighted(servers, methods.parse_weights(weights))
    group = upstream.from_options(method, texts, key or None, measure=measure, zone=zone)
    if methods.method(method).http:
        return group, variables.read(methods.FOLDER / f"{method}.conf", group.name)
    return group, Variables(upstream=group.name)
