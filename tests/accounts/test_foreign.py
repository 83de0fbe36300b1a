"""Foreign requests are counted, and never make nginx look wrong."""

from dataclasses import replace

import pytest

from nginx_llm_lab.accounts import foreign
from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.folder import Evidence
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.verdict import Verdict
from nginx_llm_lab.word import Word

EVIDENCE = Evidence("hash", "ab", True, 2, {}, "", "", b"", b"")
HITS = (
    Hit(("a",), 200, request_id="1", server_port=8081),
    Hit(("a",), 200, request_id="2", server_port=8080),
    Hit(("b",), 200, request_id="3", server_port=8081),
)
OWN = frozenset("13")


def upstream(method: str, max_conns: int = 0) -> Upstream:
    """Two servers."""
    return Upstream((Server("a", max_conns=max_conns), Server("b")), method, key="$uri")


def test_own_requests_are_the_client_s_else_those_at_the_lab_door() -> None:
    """ab's requests have no ids."""
    named = replace(EVIDENCE, records=(Record(0, "2", 1.0),))

    assert foreign.own_ids(EVIDENCE, HITS) == OWN
    assert foreign.own_ids(named, HITS) == {"2"}


@pytest.mark.parametrize(
    ("claim", "word", "expected", "judged"),
    [
        (upstream("hash"), "FAIL", "FAIL", [2]),
        (upstream("hash_consistent"), "PASS", "PASS", [2]),
        (upstream("hash", max_conns=1), "FAIL", "UNSURE", [3]),
        (upstream("round_robin"), "FAIL", "UNSURE", [3]),
        (upstream("round_robin"), "PASS", "PASS", [3]),
        (upstream("least_conn"), "FAIL", "UNSURE", [3]),
    ],
)
def test_a_method_with_state_never_fails_beside_foreign_requests(
    claim: Upstream, word: Word, expected: str, judged: list[int]
) -> None:
    """A method without state is judged by the run's own requests alone."""
    seen: list[int] = []

    def judge(hits, sequential):
        seen.append(len(hits))
        return Verdict(word, claim.method, "", "why")

    verdict = foreign.judge_own_requests(claim, HITS, OWN, sequential=True, judge=judge)

    assert (verdict.word, seen) == (expected, judged)
    assert ("1 foreign request " in verdict.why) == (judged == [3])


def test_without_foreign_requests_nothing_changes() -> None:
    """FAIL stays FAIL, and requests one after the other stay so."""
    asked: list[bool] = []

    def judge(_hits, sequential):
        asked.append(sequential)
        return Verdict(Word.FAIL, "round_robin", "", "why")

    own_ids = frozenset("123")
    verdict = foreign.judge_own_requests(
        upstream("round_robin"), HITS, own_ids, sequential=True, judge=judge
    )

    assert (verdict.word, asked) == ("FAIL", [True])
