"""The run folders that the bench of `lab judge` judges."""

import pytest

from nginx_llm_lab.accounts.judging.run import judge_run
from nginx_llm_lab.bench import judging
from nginx_llm_lab.bench.predicting import NAMES
from nginx_llm_lab.evidence import folder


@pytest.mark.parametrize("method", NAMES)
def test_a_simulated_run_is_judged_like_a_real_one(method, tmp_path):
    """No log line is malformed, all three counts agree, and a right nginx never fails."""
    place = tmp_path / method
    folder.write(judging.evidence(method, 600), place)

    judged = judge_run(place)

    assert str(judged.counts) == "nginx, backends and client all count 600"
    assert judged.verdict.word != "FAIL"
