"""Figures match their definitions, on runs small enough to compute by hand."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.accounts.figures import (
    Figures,
    Spread,
    as_dict,
    figures,
    is_good,
    jain,
    latency,
    picture,
    spread,
    throughput,
    union,
)
from nginx_llm_lab.accounts.join import join
from nginx_llm_lab.evidence.journal import Entry
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.traffic.scenario import Targets


def record(number: int = 0, **changes: Any) -> Record:
    """Due at 0 s, sent at 0.001 s, tokens at 0.1, 0.2 and 0.4 s, ended at 0.501 s."""
    fields: dict[str, Any] = {
        "due": 0.0,
        "sent": 0.001,
        "first_token": 0.101,
        "token_times": (0.101, 0.201, 0.401),
        "end": 0.501,
        "tokens": 3,
        "prompt_tokens": 100,
        "cached_tokens": 25,
        "status": 200,
        "backend": "backend-1",
        **changes,
    }
    return Record(number, f"id-{number}", **fields)


def entry(number: int, backend: str, start: float, end: float, tokens: int = 3) -> Entry:
    """A backend's line: `tokens` produced from `start` to `end`."""
    return Entry(
        f"id-{number}",
        backend,
        start=start,
        t=end,
        duration=end - start,
        fate="ok",
        prompt_tokens=100,
        cached_tokens=50,
        completion_tokens=tokens,
        tokens_sent=tokens,
    )


def two_backends() -> Figures:
    """Two overlapping requests at backend-1, one at backend-2, none at backend-3."""
    records = [record(0), record(1), record(2, backend="backend-2", tokens=6)]
    entries = [
        entry(0, "backend-1", 0.0, 2.0),
        entry(1, "backend-1", 1.0, 4.0),
        entry(2, "backend-2", 0.0, 1.0, tokens=6),
    ]
    names = ["backend-1", "backend-2", "backend-3"]
    return figures(join(records, None, entries), label="least_conn", backends=names)


def test_times_are_measured_from_the_send_time() -> None:
    """TTFT 100 ms, gaps of 100 and 200 ms, E2E 500 ms, 1 ms late."""
    made = figures(join([record()]))

    assert made.overall.ttft_ms.p50 == pytest.approx(100)
    assert made.overall.itl_ms.p50 == pytest.approx(150)
    assert made.overall.itl_ms.n == 2
    assert made.overall.itl_ms.max == pytest.approx(200)
    assert made.overall.e2e_ms.p50 == pytest.approx(500)
    assert made.lateness_ms.max == pytest.approx(1)


def test_percentiles_are_interpolated() -> None:
    """Of 1, 2, 3, 4, 5 the 95th percentile lies four fifths of the way from 4 to 5."""
    percentiles = spread([5, 3, 1, 2, 4])

    assert (percentiles.n, percentiles.p50, percentiles.p95, percentiles.max) == (5, 3.0, 4.8, 5.0)
    assert percentiles.p99 == pytest.approx(4.96)


def test_no_values_have_no_percentile() -> None:
    """Unknown is not zero."""
    assert spread([]) == Spread(0, None, None, None, None)


def test_a_failed_request_has_no_end_to_end_time_but_its_first_token_counts() -> None:
    """The first token before the failure counts; the whole request has no duration."""
    made = figures(join([record(error="truncated")]))

    assert (made.overall.ttft_ms.n, made.overall.e2e_ms.n) == (1, 0)
    assert (made.overall.failed, made.overall.errors) == (1, {"truncated": 1})


def test_an_answer_that_is_not_streamed_has_no_first_token() -> None:
    """Without a stream its time is unknown."""
    made = figures(join([record(first_token=None, token_times=(), stream=False)]))

    assert (made.overall.ttft_ms.p50, made.overall.itl_ms.p50) == (None, None)


@pytest.mark.parametrize(
    ("targets", "good"),
    [
        (Targets(), True),
        (Targets(ttft_ms=101), True),
        (Targets(ttft_ms=99), False),
        (Targets(itl_ms=151), True),
        (Targets(itl_ms=149), False),
        (Targets(e2e_ms=501, ttft_ms=101), True),
        (Targets(e2e_ms=499, ttft_ms=101), False),
    ],
)
def test_a_good_request_meets_every_target(targets: Targets, good: bool) -> None:
    """First token after 100 ms, 150 ms between tokens on average, 500 ms in all."""
    assert is_good(record(), targets) is good


def test_a_failed_request_is_never_good() -> None:
    """Not even without targets."""
    assert not is_good(record(error="http_5xx"), Targets())


def test_goodput_is_good_requests_by_the_seconds_in_which_load_was_offered() -> None:
    """Two of four are good: one a second of two, however long the last answer takes."""
    records = [record(n, end=20.0, error="" if n < 2 else "timeout") for n in range(4)]

    overall = figures(join(records), offered=2.0).overall
    assert (overall.good, overall.goodput, overall.good_share) == (2, 1.0, 0.5)


def test_the_offered_time_is_from_the_first_moment_due_to_the_last() -> None:
    """By default, without a duration."""
    records = [record(n, due=float(n), end=30.0) for n in range(5)]

    assert figures(join(records)).offered_s == 4.0


def test_throughput_counts_answers_within_the_whole_run() -> None:
    """Two answers of four tokens in four seconds."""
    records = [record(n, end=4.0, tokens=4) for n in range(2)]

    overall = figures(join(records)).overall
    assert (overall.requests_per_s, overall.tokens_per_s) == (0.5, 2.0)


def test_queueing_and_lateness_come_from_the_journals() -> None:
    """By the journal: 30 ms in the queue, 250 ms behind the model."""
    entry = Entry("id-0", "backend-1", queued=0.03, late=0.25)

    [group] = figures(join([record()], None, [entry])).backends
    assert (group.queued_ms.p50, group.late_ms.max) == (30.0, 250.0)


def test_each_backend_has_its_own_requests_tokens_and_busy_seconds() -> None:
    """backend-1: 2 s and 3 s, one of them shared: 5 s of work within 4 s."""
    groups = two_backends().backends

    assert [
        (group.name, group.requests, group.tokens, group.busy_s, group.busy_union_s)
        for group in groups
    ] == [
        ("backend-1", 2, 6, 5.0, 4.0),
        ("backend-2", 1, 6, 1.0, 1.0),
        ("backend-3", 0, 0, 0, 0.0),
    ]


def test_all_backends_together_count_each_request_once() -> None:
    """Three requests, twelve tokens, six seconds of work, five busy ones."""
    overall = two_backends().overall

    assert (overall.requests, overall.tokens, overall.busy_s, overall.busy_union_s) == (
        3,
        12,
        6.0,
        5.0,
    )


def test_cache_figures_come_from_the_journals_before_the_clients() -> None:
    """A quarter by the clients' usage, half by the journals."""
    assert figures(join([record()])).overall.cache_hit_rate == 0.25
    assert two_backends().overall.cache_hit_rate == 0.5


def test_without_journals_the_busy_seconds_are_unknown() -> None:
    """Not zero."""
    made = figures(join([record()]))

    assert (made.overall.busy_s, made.fairness.busy) == (None, None)


def test_fairness_counts_an_idle_backend() -> None:
    """Requests 2, 1, 0: (3)² / (3 · 5)."""
    assert two_backends().fairness.requests == pytest.approx(9 / 15)


def test_fairness_is_1_for_equal_shares_and_1_over_n_for_one_busy_backend() -> None:
    """Jain's index is 1 and 1/n."""
    assert jain([7, 7, 7]) == pytest.approx(1.0)
    assert jain([5, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([]) is None
    assert jain([0, 0]) is None


def test_overlapping_spans_are_covered_once() -> None:
    """From 0 to 3 and from 5 to 6, whatever lies within."""
    assert union([(5, 6), (0, 2), (1, 3), (1, 1.5)]) == 4


def test_the_table_has_a_row_for_each_backend_and_one_for_all() -> None:
    """The last row is the method's."""
    names = ("backend-1", "backend-2", "backend-3")
    for table in (throughput(two_backends()), latency(two_backends())):
        assert [row[0] for row in table] == ["", *names, "least_conn"]
        assert len({len(row) for row in table}) == 1
    assert throughput(two_backends())[1][:4] == ("backend-1", "2", "0", "6")
    assert latency(two_backends())[1][2] == "100 100 100"


def test_the_picture_shows_the_shares_and_the_first_tokens() -> None:
    """Equal tokens have equal bars; every request is in the skyline."""
    assert picture(two_backends()).splitlines()[:3] == [
        "tokens per backend   fairness 0.667",
        "  backend-1 " + "█" * 40 + "  6",
        "  backend-2 " + "█" * 40 + "  6",
    ]
    assert "p50 100 ms" in picture(two_backends())


def test_an_empty_run_has_figures() -> None:
    """An empty run is no error, and has nothing to show."""
    made = figures(join([]))

    assert (made.seconds, made.overall.goodput, picture(made)) == (None, None, "")


def test_the_figures_are_json() -> None:
    """For `--json`."""
    assert json.loads(json.dumps(as_dict(two_backends())))["fairness"]["requests"] == 0.6


@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=60))
def test_every_first_token_is_in_one_bin(times: list[float]) -> None:
    """For any distance between them."""
    records = [record(n, sent=0.0, first_token=time) for n, time in enumerate(times)]

    made = figures(join(records))

    assert sum(one.count for one in made.ttft_bins) == len(times)
    assert "time to first token" in picture(made)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=12))
def test_the_union_agrees_with_counting_seconds(spans: list[tuple[int, int]]) -> None:
    """A slow model: the set of whole seconds that some span covers."""
    covered = {second for start, length in spans for second in range(start, start + length)}

    assert union((start, start + length) for start, length in spans) == len(covered)
