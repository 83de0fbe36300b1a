"""Format an upstream as the text of its block, so that parsing it gives the same upstream."""

from collections.abc import Iterator

from .methods import method
from .model import Server, Sticky, Upstream

_DEFAULT = Server("")


def block(upstream: Upstream) -> str:
    """The `upstream` block, followed by the retry directives.

    The servers come before the method: nginx then accepts `backup` with every method, as it may
    have done in the original config.
    """
    option = upstream.measure or _quoted(upstream.key)
    directive = " ".join(method(upstream.method).with_option(option))
    lines = [
        *(["zone shared 256k;"] if upstream.zone else []),
        *map(_server, upstream.servers),
        *([f"{directive};"] if directive else []),
        *([_sticky(upstream.sticky)] if upstream.sticky else []),
    ]
    inside = "".join(f"    {line}\n" for line in lines)
    return f"upstream {upstream.name} {{\n{inside}}}\n" + "".join(
        f"{line}\n" for line in _retries(upstream)
    )


def _server(server: Server) -> str:
    words = [
        server.name,
        *(
            f"{name}={value}"
            for name in ("weight", "max_fails", "max_conns", "route")
            if (value := getattr(server, name)) != getattr(_DEFAULT, name)
        ),
    ]
    if server.fail_timeout != _DEFAULT.fail_timeout:
        words.append(f"fail_timeout={server.fail_timeout}s")
    words += [name for name in ("backup", "down", "drain", "resolve") if getattr(server, name)]
    return f"server {' '.join(words)};"


def _sticky(sticky: Sticky) -> str:
    if sticky.kind == "cookie":
        return f"sticky cookie {sticky.lookups[0].removeprefix('$cookie_')};"
    if sticky.kind == "route":
        return f"sticky route {' '.join(sticky.lookups)};"
    words = [f"create={text}" for text in sticky.create]
    words += [f"lookup={text}" for text in sticky.lookups]
    words += ["zone=sessions:1m", *(["header"] if sticky.header else [])]
    return f"sticky learn {' '.join(words)};"


def _retries(upstream: Upstream) -> Iterator[str]:
    rules = upstream.next_upstream
    yield f"proxy_next_upstream {' '.join(sorted(rules.conditions)) or 'off'};"
    if rules.tries:
        yield f"proxy_next_upstream_tries {rules.tries};"
    if rules.timeout:
        yield f"proxy_next_upstream_timeout {rules.timeout * 1000:.0f}ms;"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
