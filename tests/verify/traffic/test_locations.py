"""The location that a path leads to."""

from pathlib import Path

import pytest

from nginx_llm_lab.nginxconf import variables
from nginx_llm_lab.verify.traffic import locations, templates
from tests.verify.traffic.configs import read

SERVER = """
location = /exact {{ proxy_pass http://exact; }}
location /v1/ {{
    proxy_pass http://prefix;
    location ~ \\.bin$ {{ proxy_pass http://nested; }}
}}
location ^~ /static/ {{ proxy_pass http://static; }}
location ~ ^/v1/(chat|completions)$ {{ proxy_pass http://regex; }}
location ~* \\.(png|jpe?g)$ {{ proxy_pass http://image; }}
location / {{ {root} }}
"""


@pytest.mark.parametrize(
    ("path", "upstream"),
    [
        ("/exact", "exact"),
        ("/exactly", "root"),
        ("/v1/models", "prefix"),
        ("/v1/model.bin", "nested"),
        ("/v1/chat", "regex"),
        ("/static/a.png", "static"),
        ("/other/a.JPEG", "image"),
        ("/", "root"),
    ],
)
def test_a_path_lands_where_nginx_would_take_it(tmp_path: Path, path: str, upstream: str) -> None:
    """Exact first, then the longest prefix, unless a regex matches and no ^~ forbids it."""
    conf, _ = read(tmp_path, SERVER.format(root="proxy_pass http://root;"))
    server = conf.block("http").all("server")[0]

    location = locations.location_of(server, path.encode())

    assert location is not None
    assert location.all("proxy_pass")[0].args == (f"http://{upstream}",)


def test_every_location_gets_a_request_of_its_own(tmp_path: Path) -> None:
    """A request made for a location lands in it, whatever kind of location it is."""
    conf, every = read(tmp_path, SERVER.format(root="proxy_pass http://root;"))

    for route in every:
        path = templates.candidates(route, variables.read(conf, route.upstream))[0].request.uri
        landed = locations.location_of(route.scopes[1], path.encode())
        assert landed is locations.innermost(route), route.location
