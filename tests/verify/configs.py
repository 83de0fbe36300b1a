"""Configs of one upstream for the tests of verify."""

from pathlib import Path

ROUND_ROBIN = "upstream u { server 127.0.0.1:8001 weight=2; server 127.0.0.1:8002; }"


def written(tmp_path: Path, upstreams: str, location: str = "proxy_pass http://u;") -> Path:
    """A config with one location."""
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"worker_processes 2; events {{}} http {{ {upstreams}"
        f" server {{ location / {{ {location} }} }} }}"
    )
    return conf
