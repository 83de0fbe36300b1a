"""NVIDIA's AIPerf and `lab load` measure the same on the same backends.

AIPerf needs 840 MB of packages, so that it is installed by hand: `uv venv FOLDER`, `uv pip install
--python FOLDER/bin/python aiperf`, then `LAB_AIPERF=FOLDER pytest tests/heavy/test_aiperf.py`.
"""

import json
import os
from pathlib import Path

import pytest

from nginx_llm_lab.experiment import load
from nginx_llm_lab.stack.shell import run
from nginx_llm_lab.traffic.scenario import Lengths, Scenario

VENV = os.environ.get("LAB_AIPERF", "")
pytestmark = pytest.mark.skipif(not VENV, reason="LAB_AIPERF names no folder with AIPerf")

REQUESTS, RATE, OUTPUT = 120, 4, 40


@pytest.fixture
def report(lab, tmp_path):
    """What AIPerf reports about 120 streams on three backends of 60 ms a token."""
    load.load(
        lab.lab, scenario(66, requests=1), load.choice_without_backends("round_robin")
    )  # sets the profile
    programs = Path(VENV) / "bin"
    script = Path(__file__).parent / "clients/make_tokenizer.py"
    run([str(programs / "python"), str(script), str(tmp_path / "tokenizer")])
    words = ["profile", "-m", "lab-llm", "-u", lab.lab.front, "--endpoint-type", "chat"]
    words += ["--streaming", "--tokenizer", "./tokenizer", "--use-server-token-count"]
    words += ["--request-rate", str(RATE), "--request-rate-mode", "constant"]
    words += ["--request-count", str(REQUESTS), "--isl", "100", "--osl", str(OUTPUT)]
    words += ["--extra-inputs", "ignore_eos:true", "--ui", "none", "--artifact-dir", "out"]
    run([str(programs / "aiperf"), *words], cwd=tmp_path)
    return json.loads((tmp_path / "out/profile_export_aiperf.json").read_text())


def scenario(prompt: int, requests: int = REQUESTS) -> Scenario:
    """The same load as `lab load` sends it."""
    return Scenario(
        "aiperf",
        requests=requests,
        arrivals="constant",
        rate=float(RATE),
        prompt=Lengths(tokens=prompt),
        output=Lengths(tokens=OUTPUT),
        profile="slow-8b",
    )


def test_aiperf_and_lab_load_agree(lab, report, say):
    """No request fails; the medians of latency and time between tokens differ by 4 % at most."""
    prompt = round(report["input_sequence_length"]["avg"])

    measured = load.load(
        lab.lab, scenario(prompt), load.choice_without_backends("round_robin")
    ).figures.overall

    pairs = {
        "request latency": (report["request_latency"]["p50"], measured.e2e_ms.p50),
        "time per token": (report["inter_token_latency"]["p50"], measured.tpot_ms.p50),
        "TTFT": (report["time_to_first_token"]["p50"], measured.ttft_ms.p50),
    }
    say("".join(f"  {name}: AIPerf {a:.1f} ms, lab {b:.1f} ms" for name, (a, b) in pairs.items()))
    # a first token waits up to a step of 60 ms, at random: its medians differ by more than 4 %
    del pairs["TTFT"]
    assert report["request_count"]["avg"] == REQUESTS
    assert not report.get("error_request_count")
    for aiperf, ours in pairs.values():
        assert ours == pytest.approx(aiperf, rel=0.04)
