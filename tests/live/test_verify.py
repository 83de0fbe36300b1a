"""lab verify with real nginx: configs as people write them, and what is left behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.stack.sdk import engine
from nginx_llm_lab.stack.shell import poll
from nginx_llm_lab.verify import verification
from nginx_llm_lab.verify.result import Verification
from nginx_llm_lab.verify.sandbox.containers import LABEL
from nginx_llm_lab.verify.survey import Survey, survey

END_SECONDS = 20
CONFIGS = Path(__file__).resolve().parents[1] / "data/verify"


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    """No container is left after a verification, whatever its result."""
    before = sandboxes()
    yield
    # the engine may still be removing one
    assert not poll(lambda: sandboxes() - before, lambda left: not left, END_SECONDS)


def sandboxes() -> set[str]:
    """The containers of all verifications."""
    listed = engine().containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
    return {str(container.id) for container in listed}


def verified(tmp_path: Path, upstream: str, server: str = "listen 8080;") -> Verification:
    """The verification of a small config."""
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        "worker_processes 2;\nevents {}\nhttp {\n"
        f"upstream u {{ {upstream} }}\n"
        f"server {{ {server} location / {{ proxy_pass http://u; }} }}\n}}\n"
    )
    return verification.verify(conf)


def words(found: Verification) -> dict[str, str]:
    """The word on each upstream."""
    return {judged.upstream: judged.verdict.word for judged in found.upstreams}


def test_the_article_s_complete_config_passes() -> None:
    """least_conn on two loopback ports, no zone, folders that only its author has."""
    result = verification.verify(CONFIGS / "article.conf")

    assert words(result) == {"backend": "PASS"}, str(result)
    assert result.upstreams[0].verdict.method == "least_conn"
    assert len(result.not_honoured) == 3
    assert "has no zone" in result.notes[0]


def test_a_primary_with_a_backup_passes_at_the_first_try(tmp_path: Path) -> None:
    """The backup gets nothing while the primary answers, and everything when it does not."""
    result = verified(tmp_path, "server 10.0.0.1:8000; server 10.0.0.2:8000 backup;")

    assert words(result) == {"u": "PASS"}, str(result)
    assert "10.0.0.2:8000 20 of 20" in result.upstreams[0].failover


def test_no_connection_waits_for_a_stopped_worker(tmp_path: Path) -> None:
    """With reuseport each worker has a socket; without a zone all workers but one are stopped."""
    servers = "ip_hash; server 10.0.0.1:8000; server 10.0.0.2:8000;"
    result = verified(tmp_path, servers, "listen 8080 reuseport;")

    assert words(result) == {"u": "PASS"}, str(result)
    assert not result.upstreams[0].besides
    assert "reuseport is left out" in " ".join(result.not_honoured)


@pytest.mark.parametrize("name", ["vllm-compose.conf", "vllm-fleet.conf"])
def test_typical_configs_for_vllm_pass(name: str) -> None:
    """A snippet with names and nginx's own port; a fleet behind TLS, by literal addresses."""
    result = verification.verify(CONFIGS / name)

    assert result.holds, str(result)


def test_several_upstreams_are_judged_each_by_its_method() -> None:
    """By path, header, session and method; ports below 1024, IPv6, passwords, a second module."""
    result = verification.verify(CONFIGS / "models.conf")

    assert [(judged.upstream, judged.verdict.method) for judged in result.upstreams] == [
        ("chat", "least_conn"),
        ("embed", "round_robin"),
        ("sessions", "hash_consistent"),
        ("by_client", "ip_hash"),
        ("small", "random_two"),
        ("large", "round_robin"),
    ]
    assert result.holds, str(result)
    assert any("a stream upstream" in line for line in result.not_honoured)


def test_backends_may_have_the_port_that_nginx_listens_on(tmp_path: Path) -> None:
    """As containers do: every name has an address of its own, away from nginx's."""
    result = verified(tmp_path, "zone u 64k; server a:8080; server b:8080 weight=3;")

    assert result.upstreams[0].verdict.split_text == "a: 100, b: 301"
    assert result.holds


def test_servers_may_be_unix_sockets_and_nginx_itself(tmp_path: Path) -> None:
    """Stub backends stand there too, and requests still reach what nginx itself serves."""
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        "events {} http {"
        " upstream u { zone u 64k; server 127.0.0.1:8081; server unix:/run/app/b.sock weight=2; }"
        " upstream inner { zone i 64k; server unix:/srv/c.sock; server unix:/tmp/d.sock backup; }"
        " server { listen 8080; location / { proxy_pass http://u; } }"
        " server { listen 127.0.0.1:8081; location / { proxy_pass http://inner; } } }"
    )

    result = verification.verify(conf)

    assert result.holds, str(result)
    outer, inner = result.upstreams
    assert outer.verdict.split_text == "127.0.0.1:8081: 100, unix:/run/app/b.sock: 201"
    assert "without unix:/srv/c.sock: unix:/tmp/d.sock 20 of 20" in inner.failover
    assert any("moved to 127.0.0.1:20000" in line for line in result.not_honoured)


def test_names_that_nginx_resolves_as_it_runs_are_told_to_it(tmp_path: Path) -> None:
    """`resolve` asks the config's resolver, in whose place the lab's own answers."""
    result = verified(
        tmp_path,
        "zone u 64k; resolver kube-dns.kube-system valid=5s;"
        " server vllm-1:8000 resolve; server vllm-2:8000 resolve;",
    )

    assert result.holds, str(result)


def test_an_nginx_that_deviates_from_the_config_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim is changed behind nginx's back: two to one, where it serves one to one."""

    def wrong(config: Any) -> Survey:
        survey_result = survey(config)
        (upstream,) = survey_result.upstreams
        first, *rest = upstream.servers
        claim = replace(upstream, servers=(replace(first, weight=2), *rest))
        return replace(survey_result, upstreams=(claim,))

    monkeypatch.setattr(verification, "survey", wrong)

    assert words(verified(tmp_path, "zone u 64k; server a:1; server b:1;")) == {"u": "FAIL"}


def test_a_refused_config_shows_nginx_s_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With file and line, as the user named the file."""
    monkeypatch.chdir(tmp_path)
    Path("nginx.conf").write_text("events {}\nhttp {\n    servr { }\n}\n")

    with pytest.raises(LabError) as refused:
        verification.verify(Path("nginx.conf"))

    assert 'unknown directive "servr" in nginx.conf:3' in refused.value.message


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C between any two steps takes the sandbox down."""

    def interrupt(_: str) -> None:
        if interrupted:
            raise KeyboardInterrupt
        interrupted.append(True)

    interrupted: list[bool] = []
    conf = tmp_path / "nginx.conf"
    conf.write_text("upstream u { server a; } server { location / { proxy_pass http://u; } }")

    with pytest.raises(KeyboardInterrupt):
        verification.verify(conf, on_progress=interrupt)
