"""What has to exist where nginx runs: named, with a template out, and taken on the user's word."""

from pathlib import Path

import pytest

from nginx_llm_lab.nginxconf.upstream import read_all
from nginx_llm_lab.verify.survey.prerequisites import (
    absent_file,
    names_to_resolve,
    remaining,
    unresolved,
)


def test_a_near_miss_of_an_upstream_is_suggested(tmp_path: Path) -> None:
    """`vllm_backends` for `vllm_backend` is a typing error that nginx takes for a host."""
    conf = tmp_path / "nginx.conf"
    conf.write_text("http { upstream vllm_backend { server a:1; } }")

    prerequisite = unresolved("vllm_backends", "nginx.conf:9", read_all(conf))

    assert prerequisite.cause.startswith(
        'host "vllm_backends" (nginx.conf:9): no upstream block has'
    )
    assert prerequisite.hint.startswith('is upstream "vllm_backend" meant? ')
    assert prerequisite.hint.endswith("--assume vllm_backends")


@pytest.mark.parametrize(
    ("assumed", "left"),
    [([], 2), (["grafana"], 1), (["GRAFANA", "/etc/letsencrypt/*"], 0), (["graf"], 2)],
)
def test_what_the_user_assumes_is_no_doubt(assumed: list[str], left: int) -> None:
    """By whole name or by pattern; host names have no case."""
    prerequisites = [
        unresolved("grafana", "nginx.conf:3", ()),
        absent_file("/etc/letsencrypt/options.conf", "nginx.conf:4"),
        unresolved("grafana", "nginx.conf:3", ()),
    ]

    assert len(remaining(prerequisites, assumed)) == left


def test_names_of_servers_are_one_line() -> None:
    """However many there are."""
    (line,) = names_to_resolve(f"gpu-{number}" for number in range(1, 11))

    assert line.endswith(": gpu-1, gpu-10, gpu-2, gpu-3, gpu-4, gpu-5, gpu-6, gpu-7 and 2 more")
    assert not list(names_to_resolve(()))
