"""The result of a verification, for people and for programs."""

import pytest

from nginx_llm_lab.verdict import Verdict
from nginx_llm_lab.verify.result import UpstreamVerdict, Verification
from nginx_llm_lab.verify.survey import NAMES_NONE
from nginx_llm_lab.verify.survey.prerequisites import Prerequisite, absent_file
from nginx_llm_lab.word import Word

PASS = UpstreamVerdict(
    "llm", "nginx.conf:3", Verdict(Word.PASS, "round_robin", "a: 1, b: 1", "exact")
)
UNSURE = UpstreamVerdict(
    "idle", "nginx.conf:9", Verdict(Word.UNSURE, "hash", "", "no template"), "401: 2", "fix_for it"
)
FAIL = UpstreamVerdict("llm", "nginx.conf:3", Verdict(Word.FAIL, "round_robin", "a: 2", "not even"))
DOUBT = absent_file("/etc/nginx/gpu.conf", "nginx.conf:2")


def test_a_verification_holds_where_all_upstreams_pass() -> None:
    """One that could not be told is not one that holds; nor is a config without any."""
    assert Verification("nginx.conf", "1.31.3", (PASS,)).holds
    assert not Verification("nginx.conf", "1.31.3", (PASS, UNSURE)).holds
    assert not Verification("nginx.conf", "1.31.3", ()).holds


@pytest.mark.parametrize(
    ("upstreams", "prerequisites", "accepted"),
    [
        ((PASS,), (), [True, True]),
        ((PASS,), (DOUBT,), [False, True]),
        ((PASS, UNSURE), (), [False, True]),
        ((UNSURE, FAIL), (), [False, False]),
        ((), (), [False, True]),
    ],
)
def test_unsure_fails_unless_it_is_allowed(
    upstreams: tuple[UpstreamVerdict, ...],
    prerequisites: tuple[Prerequisite, ...],
    accepted: list[bool],
) -> None:
    """A missing include never ends in 0 by itself; FAIL never does."""
    result = Verification("nginx.conf", "1.31.3", upstreams, prerequisites=prerequisites)

    assert [result.accepted(allow_unsure=allowed) for allowed in (False, True)] == accepted


def test_a_verification_is_printed_as_text() -> None:
    """Verdicts first, each with its place; then what was not honoured, then notes."""
    result = Verification(
        "nginx.conf", "1.31.3", (PASS, UNSURE), ("resolver x",), ("no zone",), 4.2
    )

    assert str(result).splitlines() == [
        "nginx.conf on nginx 1.31.3, 4.2 s",
        "PASS   round_robin  a: 1, b: 1  (exact)",
        "       upstream llm, nginx.conf:3",
        "UNSURE hash         no template",
        "       upstream idle, nginx.conf:9; other responses: 401: 2",
        "try:   fix_for it",
        "not honoured:",
        "  resolver x",
        "notes:",
        "  no zone",
    ]


def test_upstreams_of_other_protocols_come_with_a_way_to_judge_them() -> None:
    """nginx picks servers alike for grpc_pass and proxy_pass, which a copy may have instead."""
    lines = ("upstream g (nginx.conf:1): no proxy_pass leads to it", "grpc_pass grpc://g (…): …")

    text = str(Verification("nginx.conf", "1.31.3", (), lines))

    assert "UNSURE no upstream to judge: only grpc_pass leads to one\n" in text
    assert "try:   in a copy of the file, write proxy_pass http://NAME in its place" in text


def test_a_host_that_nginx_resolves_per_request_comes_with_a_way_to_judge_it() -> None:
    """`set $backend http://host; proxy_pass $backend;` makes no upstream."""
    lines = (f"proxy_pass $backend (nginx.conf:1): {NAMES_NONE}",)

    text = str(Verification("nginx.conf", "1.31.3", (), lines))

    assert "UNSURE no upstream to judge: only a proxy_pass with variables leads to one\n" in text
    assert "write an upstream with zone and server NAME:PORT resolve" in text


def test_a_verification_is_data_for_ci() -> None:
    """JSON says what the text says; JUnit has a case an upstream."""
    result = Verification("nginx.conf", "1.31.3", (PASS, UNSURE), ("resolver x",))

    data = result.as_dict()

    assert not data["holds"]
    assert [judged["verdict"] for judged in data["upstreams"]] == ["PASS", "UNSURE"]
    assert data["not_honoured"] == ["resolver x"]
    assert [case["name"] for case in result.cases()] == ["nginx.conf llm", "nginx.conf idle"]
    assert [case["word"] for case in result.cases()] == ["PASS", "UNSURE"]
