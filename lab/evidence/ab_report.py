"""Parse ApacheBench's output into named figures, and explain each."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

from ..errors import LabError

_T = TypeVar("_T")
_INT = r"(-?\d{1,18})"  # ab counts in 64 bits
_IDLE = re.compile(
    r"This is ApacheBench|Copyright 1996|Licensed to The Apache|Completed \d+ requests|Finished \d+"
)
_BENCHMARKING = re.compile(r"Benchmarking .*\(be patient\)[. ]*(?:done)?")


@dataclass(frozen=True, slots=True)
class Failures:
    """The number of failures by ab's categories; one request may count in two of them."""

    connect: int = 0
    receive: int = 0
    length: int = 0
    exceptions: int = 0


@dataclass(frozen=True, slots=True)
class Rate:
    """Kbytes a second; `sent` and `total` only where ab sent a body."""

    received: float
    sent: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """One row of the connection times, in milliseconds; no `sd` and `median` under `ab -S`."""

    min: float
    mean: float
    max: float
    sd: float | None = None
    median: float | None = None


@dataclass(frozen=True, slots=True)
class ConnectionTimes:
    """ab's connection times of the requests, by phase."""

    connect: Times
    processing: Times
    waiting: Times
    total: Times


@dataclass(frozen=True, slots=True)
class Tls:
    """ab's figures of an https connection."""

    protocol: str
    temp_key: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class AbReport:
    """Every figure of one run of ab, under ab's own name.

    Lengths are bytes, `document_length` None where it may vary (`-l`). What ab leaves out is
    None: the rates and times of a run that completed nothing, the keep-alive requests without
    `-k`, the body sent without `-p`. `percentiles` maps 50 to the milliseconds within which half
    of the requests were served, 100 to the longest; ab omits it for a single request.
    """

    server_software: str
    hostname: str
    port: int
    document_path: str
    document_length: int | None
    concurrency_level: int
    time_taken_s: float
    complete_requests: int
    failed_requests: int
    total_transferred: int
    html_transferred: int
    failures: Failures = Failures()
    write_errors: int = 0
    non_2xx_responses: int = 0
    keep_alive_requests: int | None = None
    total_body_sent: int | None = None
    requests_per_second: float | None = None
    time_per_request_ms: float | None = None
    time_per_request_across_ms: float | None = None
    transfer_rate_kbytes: Rate | None = None
    connection_times: ConnectionTimes | None = None
    percentiles: Mapping[int, int] | None = None
    tls: Tls | None = None
    warnings: tuple[str, ...] = ()


class Figure(NamedTuple):
    """One figure of a report: ab's name for it, its value with its unit, and its explanation."""

    name: str
    value: str
    meaning: str


def parse(output: str | bytes) -> AbReport:
    """Parse the output of one run of ab; stderr's progress lines may be mixed in.

    Raises LabError with ab's own message if ab gave up or its output ends early.
    """
    text = output.decode("utf-8", "replace") if isinstance(output, bytes) else output
    reports = len(re.findall(r"^[ \t]*Server Software:", text, re.MULTILINE))
    if not reports:
        raise _no_report(text)
    if reports > 1:
        raise LabError(f"{reports} reports of ab in one output", "read one run at a time")
    try:
        return _report(_Page(text))
    except _MissingError as missing:
        raise LabError(
            f'ab\'s output ends early: no "{missing}"', "run ab again, to its end"
        ) from None


def as_dict(report: AbReport) -> dict[str, Any]:
    """Give a report as plain values, for JSON."""
    return asdict(report)


def explain(report: AbReport) -> list[Figure]:
    """Explain each figure of a report, in the order in which ab prints them."""
    return [*_on_requests(report), *_on_rates(report), *_on_times(report), *_on_percents(report)]


class _MissingError(Exception):
    """A figure is missing in the output."""


class _Page:
    """ab's output, read by label."""

    def __init__(self, text: str) -> None:
        self.text = text

    def find(self, pattern: str) -> re.Match[str] | None:
        return re.search(rf"^[ \t]*{pattern}", self.text, re.MULTILINE | re.ASCII)

    def optional_text(self, label: str) -> str | None:
        match = self.find(rf"{re.escape(label)}:[ \t]*(.*)\n")
        return match[1].strip() if match else None

    def required_text(self, label: str) -> str:
        return _needed(label, self.optional_text(label))

    def optional_integer(self, label: str, unit: str = "") -> int | None:
        match = self.find(rf"{re.escape(label)}:[ \t]*{_INT}{re.escape(unit)}\s")
        return int(match[1]) if match else None

    def integer(self, label: str, unit: str = "") -> int:
        return _needed(label, self.optional_integer(label, unit))

    def optional_decimal(self, label: str, unit: str) -> float | None:
        match = self.find(rf"{re.escape(label)}[ \t]*(\d{{1,18}}\.\d{{1,9}}) {re.escape(unit)}")
        return float(match[1]) if match else None

    def decimal(self, label: str, unit: str) -> float:
        return _needed(f"{label} … {unit}", self.optional_decimal(label, unit))


def _report(page: _Page) -> AbReport:
    complete = page.integer("Complete requests")
    return AbReport(
        server_software=page.required_text("Server Software"),
        hostname=page.required_text("Server Hostname"),
        port=page.integer("Server Port"),
        document_path=page.required_text("Document Path"),
        document_length=_document_length(page),
        concurrency_level=page.integer("Concurrency Level"),
        time_taken_s=page.decimal("Time taken for tests:", "seconds"),
        complete_requests=complete,
        failed_requests=page.integer("Failed requests"),
        total_transferred=page.integer("Total transferred", " bytes"),
        html_transferred=page.integer("HTML transferred", " bytes"),
        failures=_failures(page),
        write_errors=page.optional_integer("Write errors") or 0,
        non_2xx_responses=page.optional_integer("Non-2xx responses") or 0,
        keep_alive_requests=page.optional_integer("Keep-Alive requests"),
        total_body_sent=page.optional_integer("Total body sent"),
        **(_rates(page) if complete else {}),
        tls=_tls(page),
        warnings=_warnings(page),
    )


def _document_length(page: _Page) -> int | None:
    if page.optional_text("Document Length") == "Variable":
        return None
    return page.integer("Document Length", " bytes")


def _failures(page: _Page) -> Failures:
    """Read the four counts, which ab prints only if something failed."""
    reasons = page.find(
        r"\(Connect: (\d{1,18}), Receive: (\d{1,18}), Length: (\d{1,18}), Exceptions: (\d{1,18})\)"
    )
    if reasons:
        return Failures(*map(int, reasons.groups()))
    if page.integer("Failed requests"):
        raise _MissingError("Connect, Receive, Length, Exceptions")
    return Failures()


def _rates(page: _Page) -> dict[str, Any]:
    """Read the figures that ab prints only if a request was completed."""
    return {
        "requests_per_second": page.decimal("Requests per second:", "[#/sec] (mean)"),
        "time_per_request_ms": page.decimal("Time per request:", "[ms] (mean)"),
        "time_per_request_across_ms": page.decimal(
            "Time per request:", "[ms] (mean, across all concurrent requests)"
        ),
        "transfer_rate_kbytes": Rate(
            page.decimal("Transfer rate:", "[Kbytes/sec] received"),
            page.optional_decimal("", "kb/s sent"),
            page.optional_decimal("", "kb/s total"),
        ),
        "connection_times": ConnectionTimes(
            *(_times(page, row) for row in ("Connect", "Processing", "Waiting", "Total"))
        ),
        "percentiles": _percentiles(page),
    }


def _times(page: _Page, row: str) -> Times:
    """Read `min mean sd median max`, or `min avg max` under -S."""
    long = page.find(rf"{row}:\s+{_INT}\s+{_INT}\s+(\d{{1,18}}\.\d)\s+{_INT}\s+{_INT}\s")
    if long:
        least, mean, sd, median, most = map(float, long.groups())
        return Times(min=least, mean=mean, max=most, sd=sd, median=median)
    short = page.find(rf"{row}:\s+{_INT}\s+{_INT}\s+{_INT}[ \t]*\n")
    if short:
        least, mean, most = map(float, short.groups())
        return Times(min=least, mean=mean, max=most)
    raise _MissingError(f"Connection Times, {row}")


def _percentiles(page: _Page) -> dict[int, int] | None:
    """Read the table that ends with the longest request; none under -d and for one request."""
    if not page.find("Percentage of the requests") and page.text.endswith("\n"):
        return None
    if not page.find(r"100%\s+\d{1,18} \(longest request\)"):
        raise _MissingError("100% (longest request)")
    rows = re.findall(r"^[ \t]*(\d{1,3})%\s+(\d{1,18})", page.text, re.MULTILINE | re.ASCII)
    return {int(share): int(within) for share, within in rows}


def _tls(page: _Page) -> Tls | None:
    protocol = page.optional_text("SSL/TLS Protocol")
    if protocol is None:
        return None
    return Tls(
        protocol,
        page.optional_text("Server Temp Key") or "",
        page.optional_text("TLS Server Name") or "",
    )


def _warnings(page: _Page) -> tuple[str, ...]:
    """Collect ab's warnings about its own figures, one per line."""
    warnings = re.findall(r"^((?:WARNING|ERROR): .*\n.*)$", page.text, re.MULTILINE)
    return tuple(" ".join(warning.split()) for warning in warnings)


def _needed(label: str, value: _T | None) -> _T:
    if value is None:
        raise _MissingError(label)
    return value


def _message(text: str) -> str:
    """ab's messages without its banner, progress and usage."""
    text = _BENCHMARKING.sub("", text.partition("Usage: ")[0])
    lines = (line.strip() for line in text.splitlines())
    return "; ".join(line for line in lines if line and not _IDLE.match(line))[-300:]


def _no_report(text: str) -> LabError:
    message = _message(text)
    if "<table" in text and "Server Software:" in text:
        return LabError("ab's report is in HTML", "run ab without -w")
    if not re.search(r"^ab: |apr_|ApacheBench|^SSL|^Test aborted", text, re.MULTILINE):
        return LabError(f'not the output of ab: "{message[:80]}"', "ab -n 1000 -c 10 URL")
    message = message.removeprefix("ab: ") or "stopped before its report"
    return LabError(f"ab: {message}", "lab status" if "refused" in message else "")


def _on_requests(report: AbReport) -> Iterator[Figure]:
    yield Figure(
        "Document Length",
        "Variable" if report.document_length is None else f"{report.document_length} bytes",
        "the length of the first response body; without -l ab counts any other length as a failure",
    )
    yield Figure(
        "Concurrency Level",
        str(report.concurrency_level),
        "how many requests ab keeps in flight: each response starts the next request",
    )
    yield Figure(
        "Time taken for tests", f"{report.time_taken_s:.3f} s", "from the first request to the end"
    )
    yield Figure("Complete requests", str(report.complete_requests), _completion(report))
    yield Figure("Failed requests", str(report.failed_requests), _failure(report))
    if report.write_errors:
        yield Figure(
            "Write errors", str(report.write_errors), "requests that failed while being sent"
        )
    if report.non_2xx_responses:
        yield Figure(
            "Non-2xx responses",
            str(report.non_2xx_responses),
            "responses with another status, such as 502; ab counts them as complete, not as failed",
        )
    if report.keep_alive_requests is not None:
        yield Figure(
            "Keep-Alive requests",
            str(report.keep_alive_requests),
            "responses that left the connection open for the next request (-k)",
        )
    yield Figure("Total transferred", f"{report.total_transferred} bytes", "received, with headers")
    if report.total_body_sent is not None:
        yield Figure(
            "Total body sent", f"{report.total_body_sent} bytes", "requests sent, with headers"
        )
    yield Figure("HTML transferred", f"{report.html_transferred} bytes", "received bodies alone")


def _completion(report: AbReport) -> str:
    if report.complete_requests and not report.total_transferred:
        return "ended, all without a byte of response: ab counts a closed connection as complete"
    return "ended, whatever their status"


def _failure(report: AbReport) -> str:
    if not report.failed_requests:
        return "every response was complete and as long as the first"
    reasons = ", ".join(
        f"{why}: {times}" for why, times in asdict(report.failures).items() if times
    )
    if report.failures.length:
        return f"{reasons}; another length is no fault if responses vary: -l accepts it"
    return reasons


def _on_rates(report: AbReport) -> Iterator[Figure]:
    """Explain the three means; each follows from time taken, requests and concurrency."""
    if report.requests_per_second is None:
        return
    yield Figure(
        "Requests per second",
        f"{report.requests_per_second:.2f}",
        "complete requests / time taken: the throughput at this concurrency, not the most "
        "that the servers can do",
    )
    yield Figure(
        "Time per request (mean)",
        f"{report.time_per_request_ms:.3f} ms",
        "concurrency * time taken / requests: how long one client waits for its response",
    )
    yield Figure(
        "Time per request (mean, across all concurrent requests)",
        f"{report.time_per_request_across_ms:.3f} ms",
        "time taken / requests: the pace at which answers arrive, all clients together; "
        "not how long a server works on one",
    )
    if report.transfer_rate_kbytes is not None:
        yield Figure(
            "Transfer rate",
            f"{report.transfer_rate_kbytes.received:.2f} Kbytes/s received",
            "total transferred / time taken",
        )


def _on_times(report: AbReport) -> Iterator[Figure]:
    if report.connection_times is None:
        return
    for name, times, meaning in (
        ("Connect", report.connection_times.connect, "opening the connection"),
        (
            "Processing",
            report.connection_times.processing,
            "from the open connection to the end of the response",
        ),
        (
            "Waiting",
            report.connection_times.waiting,
            "from the request sent to the first byte of the response: part of Processing",
        ),
        ("Total", report.connection_times.total, "Connect and Processing together"),
    ):
        yield Figure(f"Connection Times, {name}", _row(times), meaning)


def _row(times: Times) -> str:
    spread = "" if times.sd is None else f" ± {times.sd:.1f}"
    median = "" if times.median is None else f", median {times.median:.0f}"
    return f"{times.mean:.0f}{spread} ms{median}, {times.min:.0f} to {times.max:.0f}"


def _on_percents(report: AbReport) -> Iterator[Figure]:
    for share, within in (report.percentiles or {}).items():
        meaning = (
            "the longest request"
            if share == 100
            else f"{share} % of the requests were served within {within} ms, to the millisecond"
        )
        yield Figure(f"{share}%", f"{within} ms", meaning)
