"""The three logs are joined by request, and disagreements are findings."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.accounts.join import Finding, Joined, join
from nginx_llm_lab.evidence.access_log import Hit, Unproxied
from nginx_llm_lab.evidence.journal import Entry
from nginx_llm_lab.evidence.record import Record


def record(request_id: str = "a", **changes: Any) -> Record:
    """A successful request: four tokens from backend-1."""
    fields: dict[str, Any] = {"number": 0, "due": 0.0, "status": 200, "backend": "backend-1"}
    fields |= {"tokens": 4, "completion_tokens": 4, **changes}
    return Record(id=request_id, **fields)


def hit(request_id: str = "a", *addresses: str, status: int = 200) -> Hit:
    """nginx's line of it."""
    return Hit(addresses or ("10.0.0.1:8000",), request_id=request_id, status=status)


def entry(request_id: str = "a", backend: str = "backend-1", **changes: Any) -> Entry:
    """The backend's line of it."""
    fields: dict[str, Any] = {"fate": "ok", "completion_tokens": 4, "tokens_sent": 4, **changes}
    return Entry(request_id, backend, **fields)


def told(joined: Joined) -> list[str]:
    """The findings, as text."""
    return [str(finding) for finding in joined.findings]


def test_three_logs_that_agree_give_no_finding() -> None:
    """One row, no finding."""
    joined = join([record()], [hit()], [entry()])

    assert [(row.id, len(row.hits), len(row.entries)) for row in joined.rows] == [("a", 1, 1)]
    assert joined.findings == ()


def test_a_log_that_is_not_available_gives_no_finding() -> None:
    """Without logs there is nothing to compare with; an empty log is another matter."""
    assert join([record()]).findings == ()
    assert told(join([record()], [], None)) == ["client only: a: client: 200"]


@pytest.mark.parametrize(
    ("records", "hits", "entries", "says"),
    [
        ([record(error="connect")], [], [], "client only: a: client: connect (client: connect)"),
        ([], [hit()], [], "nginx only: a: nginx: 200"),
        ([], [], [entry()], "backend only: a: backend-1: ok"),
        ([], [hit()], [entry()], "not at the client: a: nginx: 200, backend-1: ok"),
        ([record()], [], [entry()], "not at nginx: a: client: 200, backend-1: ok"),
        ([record()], [hit()], [], "not at a backend: a: client: 200, nginx: 200"),
        (
            [record(error="http_5xx", status=502, tokens=0)],
            [hit("a", "llm", status=502)],
            [],
            "not at a backend: a: client: http_5xx, nginx: 502 (nginx answered 502)",
        ),
        (
            [record(error="http_4xx", status=413, tokens=0)],
            [Unproxied(status=413, request_id="a")],
            [],
            "not at a backend: a: client: http_4xx, nginx: 413 (nginx answered 413)",
        ),
    ],
)
def test_a_request_missing_in_a_log_is_named_with_its_explanation(
    records: list[Record], hits: list[Hit], entries: list[Entry], says: str
) -> None:
    """Every way in which one or two of three sides can be missing."""
    assert told(join(records, hits, entries)) == [says]


def test_lines_without_an_id_are_counted() -> None:
    """Foreign requests, which have no row."""
    joined = join([], [hit("-"), hit("")], [entry("", method="GET", path="/")])

    assert joined.counts() == {"no id at nginx": 2, "no id at a backend": 1}
    assert joined.rows == ()


def test_a_request_that_ran_at_two_backends_is_named_with_nginxs_retry() -> None:
    """nginx gave up on backend-1 and asked backend-2: executed twice, explained."""
    twice = [
        entry("a", "backend-1", fate="client_gone", completion_tokens=0, tokens_sent=0),
        entry("a", "backend-2"),
    ]

    joined = join(
        [record(backend="backend-2")], [hit("a", "10.0.0.1:8000", "10.0.0.2:8000")], twice
    )

    assert told(joined) == [
        "twice at backends: a: client: 200, nginx: 200, backend-1: client_gone, backend-2: ok "
        "(nginx tried 10.0.0.1:8000, 10.0.0.2:8000)"
    ]


def test_a_request_that_ran_twice_without_a_retry_is_not_explained() -> None:
    """Neither the client nor nginx sent it twice."""
    joined = join([record()], [hit()], [entry(), entry()])

    assert [finding.kind for finding in joined.unexplained] == ["twice at backends"]


def test_two_lines_of_nginx_and_two_requests_of_the_client_are_named() -> None:
    """One id is one request, on every side; the second record keeps a row."""
    joined = join([record(), record(number=7)], [hit(), hit()], [entry()])

    assert joined.counts() == {
        "twice at the client": 1,
        "twice at nginx": 1,
        "client only": 1,
    }
    assert len(joined.rows) == 2


def test_lost_tokens_are_counted_with_the_clients_failure() -> None:
    """The client received three of four tokens before the stream broke."""
    joined = join([record(tokens=3, error="truncated")], [hit()], [entry()])

    assert told(joined) == [
        "tokens lost: a: backend-1 sent 4 tokens, the client received 3 (client: truncated)"
    ]
    assert [finding.tokens for finding in joined.findings] == [1]


def test_lost_tokens_that_nothing_explains_stay_unexplained() -> None:
    """Tokens are missing although the stream ended without an error on both sides."""
    joined = join([record(tokens=3)], [hit()], [entry()])

    assert [finding.tokens for finding in joined.unexplained] == [1]


def test_more_tokens_than_were_sent_are_a_finding() -> None:
    """So is usage that differs from the backend's count."""
    joined = join([record(tokens=5, completion_tokens=5)], [hit()], [entry()])

    assert told(joined) == [
        "tokens gained: a: backend-1 sent 4 tokens, the client received 5",
        "usage disagrees: a: usage says 5, backend-1 4",
    ]


def test_tokens_generated_but_not_sent_are_named_with_their_fate() -> None:
    """After a client disconnects, generated tokens are not sent."""
    cut = entry(completion_tokens=9, fate="client_gone")

    joined = join([record(error="cut", completion_tokens=None)], [hit(status=499)], [cut])

    assert told(joined) == [
        "tokens unsent: a: backend-1 generated 9 tokens, sent 4 (backend-1: client_gone)"
    ]


def test_tokens_of_an_abandoned_attempt_are_lost() -> None:
    """One backend sent them, but another one answered."""
    first = entry("a", "backend-1", fate="client_gone", tokens_sent=2, completion_tokens=2)

    joined = join(
        [record(backend="backend-2")],
        [hit("a", "one:1", "two:2")],
        [first, entry("a", "backend-2")],
    )

    assert joined.counts() == {"twice at backends": 1, "tokens lost": 1}
    assert sum(f.tokens for f in joined.findings if f.kind == "tokens lost") == 2
    assert joined.unexplained == ()


def test_an_answer_without_usage_has_unknown_tokens() -> None:
    """Unknown is not lost."""
    joined = join([record(tokens=None, completion_tokens=None)], [hit()], [entry()])

    assert told(joined) == ["tokens unknown: a: 4 sent (no usage)"]


def test_a_status_and_a_backend_that_differ_are_named() -> None:
    """The client saw another answer than nginx logged."""
    joined = join([record(backend="backend-9")], [hit(status=404)], [entry()])

    assert joined.counts() == {"status disagrees": 1, "backend disagrees": 1}


@given(*[st.lists(st.sampled_from(["", "-", "a", "b", "c"]), max_size=6)] * 3)
def test_nothing_is_lost_by_the_join(clients: list[str], nginx: list[str], ends: list[str]) -> None:
    """Every record, hit and entry is in a row, or in a finding of its own."""
    joined = join(
        [record(name, number=n) for n, name in enumerate(clients)],
        [hit(name) for name in nginx],
        [entry(name) for name in ends],
    )

    nameless = joined.counts()
    assert sum(row.record is not None for row in joined.rows) == len(clients)
    assert sum(len(row.hits) for row in joined.rows) + nameless.get("no id at nginx", 0) == len(
        nginx
    )
    assert sum(len(row.entries) for row in joined.rows) + nameless.get(
        "no id at a backend", 0
    ) == len(ends)
    assert all(isinstance(finding, Finding) for finding in joined.findings)
