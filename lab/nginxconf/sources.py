"""An upstream with the variables of its hash key: from a config, or from a method's own file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile

from . import methods, tree, upstream, variables
from .model import Upstream
from .prompt import Prefix
from .variables import Variables

NGINX_CONF = methods.FOLDER.parent / "nginx.conf"


def from_conf(conf: Path, name: str = "") -> tuple[Upstream, Variables]:
    """The upstream of that name, as the config defines it; without a name, the only one."""
    group = upstream.read(conf, name or None)
    return group, variables.read(conf, group.name)


def from_method(
    method: str,
    servers: Sequence[str],
    weights: str,
    key: str,
    measure: str,
    zone: bool,
    prefix: Prefix | None = None,
) -> tuple[Upstream, Variables]:
    """The upstream of a method with these servers, with the variables of its key.

    The variables have the values of the lab's nginx, which keeps bodies up to 1 MB in memory.
    """
    texts = methods.weighted(servers, methods.parse_weights(weights))
    group = upstream.from_options(method, texts, key or None, measure=measure, zone=zone)
    http = methods.http_of(methods.method(method), prefix or Prefix())
    if not http:
        return group, Variables(upstream=group.name)
    around = tree.read(NGINX_CONF).block("http").all("client_body_buffer_size")
    with NamedTemporaryFile("w", suffix=f"-{method}.conf") as file:
        file.write(http)
        file.flush()
        scope = variables.read(Path(file.name), group.name)
    return group, replace(scope, around=around)
