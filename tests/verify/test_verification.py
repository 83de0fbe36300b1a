"""What is told of a config beside the verdicts on its upstreams."""

from pathlib import Path
from typing import Any

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf import tree
from nginx_llm_lab.verdict import Verdict
from nginx_llm_lab.verify import verification
from nginx_llm_lab.verify.result import UpstreamVerdict, Verification
from nginx_llm_lab.verify.survey import survey
from nginx_llm_lab.word import Word
from tests.verify.configs import ROUND_ROBIN, written

PASS = UpstreamVerdict(
    "llm", "nginx.conf:3", Verdict(Word.PASS, "round_robin", "a: 1, b: 1", "exact")
)


def test_an_upstream_that_the_config_lacks_is_wrong_usage(tmp_path: Path) -> None:
    """And the error names those that it has."""
    survey_result = survey(tree.read(written(tmp_path, ROUND_ROBIN)))

    with pytest.raises(UsageError, match='no upstream "v"') as error:
        verification.refuse_unknown(["v"], survey_result)
    assert error.value.hint == "name one of u"


def test_an_upstream_that_only_nginx_reaches_is_listed(tmp_path: Path) -> None:
    """It has no verdict and does not change the exit code."""
    location = "internal; proxy_pass http://u;"
    survey_result = survey(tree.read(written(tmp_path, ROUND_ROBIN, location)))

    (upstream,) = verification.unreachable(survey_result)

    line = verification.unjudged(upstream, survey_result)
    assert line.startswith("upstream u (")
    assert "only requests that nginx makes itself" in line


def test_a_host_that_only_nginx_s_own_requests_ask_has_to_resolve_too(tmp_path: Path) -> None:
    """Where the host of a `mirror` or `auth_request` does not resolve, nginx does not start."""
    conf = written(tmp_path, "", "internal; proxy_pass http://collector:8080/ingest;")
    survey_result = survey(tree.read(conf))

    unreached = list(verification.unreachable(survey_result))
    (missing,) = verification.unresolved_hosts(unreached, survey_result)

    assert missing.name == "collector"


def test_names_that_nginx_resolves_as_it_runs_need_not_resolve_at_start(tmp_path: Path) -> None:
    """A `server` line with `resolve` starts without an address."""
    servers = "resolver 10.0.0.1; upstream u { zone u 64k; server a:1; server b:1 resolve; }"
    survey_result = survey(tree.read(written(tmp_path, servers)))

    assert list(verification.named_servers(survey_result)) == ["a"]


def test_a_config_from_a_pipe_keeps_the_name_that_the_user_gave() -> None:
    """It is read from a temporary file, whose path is not shown."""
    result = Verification("/copy/nginx.conf", "1.31.3", (PASS,), ("y (/copy/nginx.conf:2)",))

    shown = verification.renamed(result, "/copy/nginx.conf", "-")

    assert (shown.conf, shown.not_honoured) == ("-", ("y (-:2)",))
    assert shown.upstreams == (PASS,)


def test_paths_are_shown_as_the_user_wrote_them(tmp_path: Path, monkeypatch: Any) -> None:
    """nginx gets absolute paths, but the output has the user's paths."""
    monkeypatch.chdir(tmp_path)
    message = f'unknown directive "x" in {tmp_path}/conf/nginx.conf:3'

    assert verification.shown(message, Path("conf/nginx.conf")).endswith(" in conf/nginx.conf:3")
