"""Keys as the client sent them are compared with those that nginx logged."""

import pytest
from msgspec import structs

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.nginxconf.upstream import from_options
from nginx_llm_lab.oracle import Arrival, predict
from nginx_llm_lab.verdict import Verdict, judge
from tests.verdict.hits import hit

CLAIM = from_options("prompt_prefix", ["a:1", "b:1", "c:1"], None)
KEYS = {f"id{number}": f"prompt {number} {'x' * 200}é".encode()[:200] for number in range(400)}


def judged(keys: dict[str, bytes] | None, *, logged: dict[str, bytes] = KEYS) -> Verdict:
    """The verdict on an nginx that hashes and logs the `logged` keys."""
    return judge(CLAIM, list(hits(CLAIM, logged)), sequential=True, keys=keys)


def hits(claim: Upstream, keys: dict[str, bytes]) -> list[Hit]:
    """The log of requests with these keys, one each 10 ms."""
    picks = predict(claim, [Arrival(key=key) for key in keys.values()])
    return [
        hit(
            pick.server or "",
            10 * number,
            10 * number + 1,
            request_id=name,
            hash_key=keys[name].decode("utf-8", "surrogateescape"),
        )
        for number, (name, pick) in enumerate(zip(keys, picks, strict=True))
    ]


def test_keys_as_sent_pass() -> None:
    """One of them is cut within a character."""
    verdict = judged(KEYS)

    assert verdict.word == "PASS", verdict
    assert "nginx itself" not in verdict.why


def test_an_nginx_that_cuts_the_prompt_elsewhere_fails() -> None:
    """Its picks fit its own key, which is not that of the claim."""
    cut = KEYS | {name: KEYS[name][:100] for name in list(KEYS)[7:]}

    verdict = judged(KEYS, logged=cut)

    assert verdict.word == "FAIL"
    shown = f'"prompt 7 {"x" * 31}…"'
    assert verdict.why == (
        f"request 8 (id id7) has the key {shown} (100 bytes) in nginx's log,"
        f" expected {shown} (200 bytes)"
    )


@pytest.mark.parametrize("keys", [{}, {"id0": KEYS["id0"]}])
def test_a_pass_by_keys_of_nginx_alone_says_so(keys: dict[str, bytes]) -> None:
    """As of ab, which keeps no records: whether nginx hashed the claimed key is unknown."""
    verdict = judged(keys)

    assert verdict.word == "PASS", verdict
    assert verdict.why.endswith("; by the keys that nginx itself logged")


def test_a_key_that_every_log_has_needs_no_client() -> None:
    """$request_uri stands in the log by itself."""
    claim = Upstream((Server("a:1"), Server("b:1")), CLAIM.method, "$request_uri", zone=True)
    log = [
        structs.replace(one, request_uri=one.hash_key)
        for one in hits(claim, {f"id{n}": f"/{n}".encode() for n in range(400)})
    ]

    verdict = judge(claim, log, sequential=True, keys={})

    assert verdict.word == "PASS", verdict
    assert "nginx itself" not in verdict.why
