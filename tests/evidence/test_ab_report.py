"""Read ApacheBench's output, as a real ab 2.3 printed it."""

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.evidence import ab_report
from nginx_llm_lab.evidence.ab_report import AbReport, ConnectionTimes, Failures, Rate, Times, Tls

RECORDED = Path(__file__).parents[1] / "data/ab"

ARTICLE = """
Server Software: nginx/1.18.0
Server Hostname: localhost
Server Port: 80

Document Path: /
Document Length: 18 bytes

Concurrency Level: 10
Time taken for tests: 1.201 seconds
Complete requests: 1000
Failed requests: 0
Total transferred: 178000 bytes
HTML transferred: 18000 bytes
Requests per second: 832.30 [#/sec] (mean)
Time per request: 12.015 [ms] (mean)
Time per request: 1.201 [ms] (mean, across all concurrent requests)
Transfer rate: 144.68 [Kbytes/sec] received

Connection Times (ms)
              min mean[+/-sd] median max
Connect: 0 0 0.0 0 1
Processing: 2 12 1.9 12 26
Waiting: 1 12 1.9 12 25
Total: 2 12 1.9 12 26

Percentage of the requests served within a certain time (ms)
  50% 12
  66% 12
  75% 13
  80% 13
  90% 14
  95% 15
  98% 16
  99% 18
 100% 26 (longest request)
"""


def text(name: str) -> str:
    """What ab printed in that run."""
    return (RECORDED / f"{name}.txt").read_text()


def report(name: str) -> AbReport:
    """The report that it holds."""
    return ab_report.parse(text(name))


def meaning(name: str, parsed: AbReport) -> str:
    """What is said of one figure."""
    return next(figure.meaning for figure in ab_report.explain(parsed) if figure.name == name)


def test_every_figure_has_its_field() -> None:
    """A GET of 1,000 requests, 10 at a time."""
    assert report("get") == AbReport(
        server_software="uvicorn",
        hostname="127.0.0.1",
        port=18200,
        document_path="/",
        document_length=24,
        concurrency_level=10,
        time_taken_s=0.383,
        complete_requests=1000,
        failed_requests=0,
        total_transferred=158000,
        html_transferred=24000,
        requests_per_second=2611.60,
        time_per_request_ms=3.829,
        time_per_request_across_ms=0.383,
        transfer_rate_kbytes=Rate(402.96),
        connection_times=ConnectionTimes(
            connect=Times(min=0, mean=0, sd=0.2, median=0, max=2),
            processing=Times(min=1, mean=4, sd=1.3, median=4, max=10),
            waiting=Times(min=0, mean=3, sd=1.3, median=3, max=10),
            total=Times(min=1, mean=4, sd=1.2, median=4, max=11),
        ),
        percentiles={50: 4, 66: 4, 75: 4, 80: 5, 90: 5, 95: 6, 98: 7, 99: 7, 100: 11},
    )


def test_the_articles_own_figures_are_read() -> None:
    """832.30 requests a second, 12.015 ms, 90 % within 14 ms, however the page spaces them."""
    figures = ab_report.parse(ARTICLE)

    assert (figures.requests_per_second, figures.time_per_request_ms) == (832.30, 12.015)
    assert figures.connection_times is not None
    assert figures.connection_times.total == Times(min=2, mean=12, sd=1.9, median=12, max=26)
    assert figures.percentiles is not None
    assert (figures.percentiles[90], figures.percentiles[100]) == (14, 26)


def test_a_post_tells_what_it_sent() -> None:
    """The body sent, and the rates of sending and of both ways."""
    figures = report("post")

    assert figures.total_body_sent == 37000
    assert figures.transfer_rate_kbytes == Rate(received=495.35, sent=434.31, total=929.67)


def test_a_run_that_keeps_connections_counts_them() -> None:
    """`-k`: all 200 answers left the connection open; without -k the figure is not there."""
    assert report("keepalive").keep_alive_requests == 200
    assert report("get").keep_alive_requests is None


def test_failures_are_read_by_category() -> None:
    """Answers of another length than the first are ab's commonest `failure`."""
    assert report("length").failed_requests == 133
    assert report("length").failures == Failures(length=133)
    assert report("broken").failures == Failures(receive=20, exceptions=10)


def test_a_varying_document_has_no_length() -> None:
    """`-l` prints `Variable`, and nothing fails."""
    assert report("variable").document_length is None
    assert report("variable").failed_requests == 0


def test_answers_outside_2xx_are_counted() -> None:
    """A quarter of the 200 answers were 503; ab calls none of them failed."""
    assert report("non2xx").non_2xx_responses == 50
    assert report("non2xx").failed_requests == 0


def test_tls_is_read() -> None:
    """An https run names protocol, key and server."""
    assert report("tls").tls == Tls(
        "TLSv1.3,TLS_AES_256_GCM_SHA384,2048,256", "X25519 253 bits", "localhost"
    )


def test_a_run_without_spread_has_least_mean_and_most() -> None:
    """`-S -d` prints a shorter table and no percentiles."""
    figures = report("bare")

    assert figures.connection_times is not None
    assert figures.connection_times.total == Times(min=0, mean=1, max=6)
    assert figures.percentiles is None


def test_a_run_that_completed_nothing_has_no_rates() -> None:
    """ab stops printing before it would divide by zero."""
    figures = report("zero")

    assert (figures.complete_requests, figures.requests_per_second) == (0, None)
    assert figures.connection_times is None


def test_ab_s_warnings_are_kept() -> None:
    """Its warnings about mean and median, each on one line."""
    assert report("nopercent").warnings == (
        "ERROR: The median and mean for the processing time are more than twice the standard "
        "deviation apart. These results are NOT reliable.",
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("refused", "ab: apr_socket_recv: Connection refused (111)"),
        ("timeout", "ab: apr_pollset_poll: The timeout specified has expired (70007)"),
        ("host", "ab: apr_sockaddr_info_get() for nosuchhost.invalid: Name or service not known"),
        ("badurl", "ab: invalid URL"),
        ("nofile", "ab: Could not open POST data file (/nonexistent): No such file or directory"),
        ("html", "ab's report is in HTML"),
    ],
)
def test_where_ab_gave_up_its_own_words_are_the_error(name: str, words: str) -> None:
    """No usage text, no banner: the one line that says why."""
    with pytest.raises(LabError, match=re.escape(words)) as error:
        report(name)
    assert "\n" not in error.value.message


def test_progress_before_the_error_is_not_the_error() -> None:
    """A server that dies in the middle: what ab says last is kept, with the count it reached."""
    output = (
        "Benchmarking 127.0.0.1 (be patient)\nCompleted 100 requests\n"
        "apr_socket_recv: Connection reset by peer (104)\nTotal of 157 requests completed\n"
    )

    with pytest.raises(LabError) as error:
        ab_report.parse(output)
    assert error.value.message == (
        "ab: apr_socket_recv: Connection reset by peer (104); Total of 157 requests completed"
    )


@pytest.mark.parametrize("output", ["", "hello\n", b"\xff\xfe"])
def test_text_that_is_not_ab_s_output_is_refused(output: str | bytes) -> None:
    """Another file by mistake."""
    with pytest.raises(LabError, match="not the output of ab"):
        ab_report.parse(output)


def test_two_reports_at_once_are_refused() -> None:
    """Figures of two runs must not mix."""
    with pytest.raises(LabError, match="2 reports of ab in one output"):
        ab_report.parse(text("get") + text("post"))


@pytest.mark.parametrize("name", ["get", "post", "length", "zero"])
def test_output_cut_short_never_gives_wrong_figures(name: str) -> None:
    """Cut anywhere it is an error, or it is the same report but for the last table left out."""
    whole, full = text(name), report(name)

    for end in range(len(whole)):
        try:
            figures = ab_report.parse(whole[:end])
        except LabError:
            continue
        assert figures == full or whole[:end].endswith("\n")
        assert figures in (full, replace(full, percentiles=None))


def test_each_figure_is_explained_in_the_order_of_ab() -> None:
    """Name, value with unit, and what it says."""
    figures = ab_report.explain(ab_report.parse(ARTICLE))

    assert [figure.name for figure in figures][:4] == [
        "Document Length",
        "Concurrency Level",
        "Time taken for tests",
        "Complete requests",
    ]
    assert ("90%", "14 ms") in [figure[:2] for figure in figures]
    assert ("Connection Times, Total", "12 ± 1.9 ms, median 12, 2 to 26") in [
        figure[:2] for figure in figures
    ]


def test_the_mean_across_all_is_not_a_servers_time() -> None:
    """1.201 ms is the pace of answers: ten clients wait 12.015 ms each."""
    figures = ab_report.parse(ARTICLE)

    assert "pace" in meaning("Time per request (mean, across all concurrent requests)", figures)
    assert "one client waits" in meaning("Time per request (mean)", figures)


def test_failures_of_length_are_explained() -> None:
    """The reader learns of -l; other failures are only named."""
    assert meaning("Failed requests", report("length")).startswith(
        "length: 133; another length is no fault"
    )
    assert meaning("Failed requests", report("broken")) == "receive: 20, exceptions: 10"


def test_closed_connections_that_ab_calls_complete_are_pointed_out() -> None:
    """Nginx closed all 20 connections without an answer, and ab reports 0 failed."""
    assert report("closed").failed_requests == 0
    assert "without a byte" in meaning("Complete requests", report("closed"))


@pytest.mark.parametrize("name", ["zero", "one", "bare", "tls", "variable", "non2xx", "keepalive"])
def test_any_report_can_be_explained_and_written_as_json(name: str) -> None:
    """Whatever ab left out."""
    assert ab_report.explain(report(name))
    assert (
        json.loads(json.dumps(ab_report.as_dict(report(name))))["hostname"] == report(name).hostname
    )


@given(st.text() | st.binary())
def test_any_text_is_read_or_refused(output: str | bytes) -> None:
    """The only error is a LabError."""
    with pytest.raises(LabError):
        ab_report.parse(output)


pieces = st.lists(st.sampled_from(text("get").splitlines(keepends=True)) | st.text(max_size=20))


@given(pieces.map("".join))
def test_any_mixture_of_lines_is_read_or_refused(output: str) -> None:
    """Real lines in any order, torn and mixed with others."""
    with suppress(LabError):
        assert ab_report.explain(ab_report.parse(output))


@given(st.from_regex(r"[0-9.:-]{1,40}", fullmatch=True), st.integers(0, 40))
def test_odd_numbers_are_read_or_refused(number: str, line: int) -> None:
    """Numbers of any length and shape in place of ab's."""
    lines = text("post").splitlines(keepends=True)
    lines[line % len(lines)] = re.sub(r"\d[\d.]*", lambda _: number, lines[line % len(lines)])
    with suppress(LabError):
        assert ab_report.explain(ab_report.parse("".join(lines)))
