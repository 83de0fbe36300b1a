"""An upstream with the variables of its hash key: from a config, or from a method's own file."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile

from ..errors import UsageError
from . import methods, tree, upstream, variables
from .model import Upstream
from .prompt import Prefix
from .request import Evaluator
from .variables import Variables, compile_text

NGINX_CONF = methods.FOLDER.parent / "nginx.conf"
# what a client knows of its own request, whatever nginx does with it
SENT = re.compile(r"prompt_prefix|request_body|request_uri|arg_\w+|http_\w+|cookie_\w+")


def key_as_sent(conf: Path) -> Evaluator | None:
    """Compile the hash key of the lab's upstream.conf, to compute it from a request as sent.

    None without a key, or if the key depends on more than the request line, headers and body.
    """
    group, scope = from_conf(conf)
    names = [braced or plain for braced, plain in re.findall(r"\$(?:\{(\w+)\}|(\w+))", group.key)]
    if not names or not all(SENT.fullmatch(name) for name in names):
        return None
    try:
        return compile_text(group.key, replace(scope, around=_body_buffer()))
    except UsageError:
        return None


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
    with NamedTemporaryFile("w", suffix=f"-{method}.conf") as file:
        file.write(http)
        file.flush()
        scope = variables.read(Path(file.name), group.name)
    return group, replace(scope, around=_body_buffer())


def _body_buffer() -> tuple[tree.Directive, ...]:
    """The directive of the lab's nginx that keeps bodies up to 1 MB in memory."""
    return tree.read(NGINX_CONF).block("http").all("client_body_buffer_size")
