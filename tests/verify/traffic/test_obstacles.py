"""Why no request reaches an upstream."""

from pathlib import Path

import pytest

from nginx_llm_lab.nginxconf import variables
from nginx_llm_lab.verify.traffic import obstacles
from tests.verify.traffic.configs import read


@pytest.mark.parametrize(
    ("location", "outside"),
    [
        ("location / { proxy_pass http://u; }", True),
        ("location = /auth { internal; proxy_pass http://u; }", False),
        ("location / { try_files $uri @u; } location @u { proxy_pass http://u; }", True),
        ("location / { error_page 502 = @u; } location @u { proxy_pass http://u; }", False),
        ("location / { error_page 404 = @u; } location @u { proxy_pass http://u; }", True),
        (
            "location / { error_page 418 = @u; return 418; } location @u { proxy_pass http://u; }",
            True,
        ),
        (
            "location / { error_page 404 = @u; proxy_pass http://o; }"
            " location @u { proxy_pass http://u; }",
            False,
        ),
        ("location / { error_page 405 = @u; } location @u { proxy_pass http://u; }", True),
        ("rewrite ^/a/ /b/ last; location /b/ { internal; proxy_pass http://u; }", True),
        ("rewrite ^/a/ /b/ break; location /b/ { internal; proxy_pass http://u; }", False),
    ],
)
def test_what_only_nginx_asks_for_is_told_apart(
    tmp_path: Path, location: str, outside: bool
) -> None:
    """`internal`, and a named location that only a failure leads to."""
    _, every = read(tmp_path, location, "upstream u { server a; }")

    assert obstacles.from_outside(every[-1]) is outside


@pytest.mark.parametrize(
    ("server", "http", "why"),
    [
        ("listen unix:/run/n.sock; location / { proxy_pass http://u; }", "", "only on unix"),
        (
            "location ~ ^/(?!.*) { proxy_pass http://u; }",
            "",
            "no request path was found that nginx sends there",
        ),
        (
            "location / { proxy_pass http://$to; }",
            "map $http_x $to { ~(?!) u; }",
            "map $http_x $to (",
        ),
        ("location ~ ^/(?<to>[a-z]+)/ { proxy_pass http://$to; }", "", "which $to leads to it"),
    ],
)
def test_an_obstacle_is_named(tmp_path: Path, server: str, http: str, why: str) -> None:
    """The socket, the location or the variable for which no request could be made."""
    conf, (route,) = read(tmp_path, server, f"upstream u {{ server a; }} {http}")

    assert why in obstacles.obstacle(route, variables.read(conf, "u"))
