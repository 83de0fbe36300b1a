"""Configs, and the requests that are made for them."""

from pathlib import Path

from nginx_llm_lab.nginxconf import tree, variables
from nginx_llm_lab.nginxconf.routes import Route, routes
from nginx_llm_lab.verify.traffic import templates
from nginx_llm_lab.verify.traffic.template import Template


def read(tmp_path: Path, server: str, http: str = "") -> tuple[tree.Config, tuple[Route, ...]]:
    """The config of one server block, with its routes."""
    file = tmp_path / "nginx.conf"
    file.write_text(f"events {{}} http {{ {http}\nserver {{ {server} }} }}")
    config = tree.read(file)
    return config, routes(config)


def template(tmp_path: Path, server: str, upstream: str, http: str = "") -> Template:
    """The plainest template to an upstream."""
    conf, every = read(tmp_path, server, http)
    route = next(candidate for candidate in every if candidate.upstream == upstream)
    return templates.candidates(route, variables.read(conf, upstream))[0]
