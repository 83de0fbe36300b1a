"""Tables of simulated runs and of scorecards."""

from typing import TYPE_CHECKING

from ..accounts import figures
from ..accounts.scorecard import trade_offs
from .tables import rows, table, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..accounts.scorecard import Contest, Difference, Run, Scorecard
    from ..experiment.validating import Validation
    from ..simulate.advice import Advice
    from ..simulate.log_advice import LogAdvice
    from ..simulate.simulation import Simulated

OVERLOAD = (
    "overloaded: requests arrive faster than the servers answer, so that the times grow as long as"
    " the load lasts; add servers"
)
MOST_ROWS = 32  # backends that a table shows one by one


def simulated(run: "Simulated") -> str:
    """A simulated run's figures as a table and a picture."""
    few = len(run.figures.backends) < MOST_ROWS
    tables = [figures.throughput(run.figures), figures.latency(run.figures)]
    drawn = [rows(lines if few else [lines[0], lines[-1]]) for lines in tables]
    shown = [figures.picture(run.figures), ""] if few else []
    fair = run.figures.fairness
    size = f"{run.scenario} by {run.method}, simulated: {run.backends:,} backends, seed {run.seed}"
    shares = (fair.requests, fair.tokens, fair.busy)
    jain = ", ".join(
        f"{name} {share:.3f}"
        for name, share in zip(("requests", "tokens", "busy time"), shares, strict=True)
        if share is not None
    )
    return "\n".join(
        [size, "", drawn[0], "", drawn[1], "", *shown, f"fairness: {jain}", f"{run.folder}", ""]
    )


def scorecard(card: "Scorecard") -> str:
    """A table per scenario with a column per method, then an overview of all scenarios."""
    contests = list(card.contests())
    parts = [_scenario(card, name, contests) for name in card.scenarios]
    offs = list(trade_offs(contests))
    legend = (
        "* the best. = as good as the best: the 95 % interval of the paired difference includes\n"
        "zero, or the difference is under 1 %. keys moved: the share of requests that go to\n"
        "another server when the last one is taken out."
    )
    return "\n".join(
        [*parts, *_overview(card, contests), legend, *(["", "trade-offs:", *offs] if offs else [])]
    )


def _overview(card: "Scorecard", contests: "Sequence[Contest]") -> "list[str]":
    """One measure of all scenarios: a row for each method."""
    drawn = table("TTFT p99, ms", *card.scenarios)
    by_scenario = {
        contest.scenario: contest for contest in contests if contest.measure == "ttft_p99_ms"
    }
    for method in card.methods:
        drawn.add_row(
            method,
            *(
                _mark(by_scenario[name], method) if name in by_scenario else "-"
                for name in card.scenarios
            ),
        )
    return [f"{text(drawn)}\n"]


def _scenario(card: "Scorecard", name: str, contests: "Sequence[Contest]") -> str:
    drawn = table(name, *card.methods)
    for contest in contests:
        if contest.scenario == name:
            drawn.add_row(contest.measure, *(_mark(contest, method) for method in card.methods))
    moved = card.moved.get(name, {})
    shares = [moved.get(method) for method in card.methods]
    drawn.add_row("keys moved", *("-" if s is None else f"{s:.0%}" for s in shares))
    runs = {
        method: [run for run in card.runs if (run.scenario, run.method) == (name, method)]
        for method in card.methods
    }
    drawn.add_row("runs", *(f"{len(group)}" for group in runs.values()))
    drawn.add_row("verdict", *(_verdict(group) for group in runs.values()))
    return f"{text(drawn)}\n\n{_differences(name, contests)}\n"


def _differences(name: str, contests: "Sequence[Contest]") -> str:
    """How much worse each method is than the best: the mean difference and its 95 % interval.

    A row for each difference, so that any number of methods fits a terminal.
    """
    drawn = table("behind the best", "method", "difference", "95 % interval", "")
    equal = []
    for contest in contests:
        if contest.scenario != name:
            continue
        gaps = [(method, gap) for method, gap in contest.behind.items() if not gap.is_zero]
        for place, (method, gap) in enumerate(gaps):
            tie = "as good" if method in contest.best else ""
            drawn.add_row("" if place else contest.measure, method, *_behind(contest, gap), tie)
        if not gaps:
            equal.append(contest.measure)
    same = [f"the same in all runs: {', '.join(equal)}"] if equal else []
    return "\n".join([*([text(drawn)] if drawn.row_count else []), *same])


def _behind(contest: "Contest", gap: "Difference") -> tuple[str, str]:
    digits = 3 if max(abs(value) for value in contest.means.values()) <= 1 else 1
    mean = f"{gap.mean:+,.{digits}f}"
    if gap.low is None or gap.high is None:
        return mean, "one pair"
    return mean, f"{gap.low:+,.{digits}f} to {gap.high:+,.{digits}f}"


def _verdict(runs: "Sequence[Run]") -> str:
    """The verdicts on a method's runs: their words, the worst first."""
    words = {run.verdict for run in runs if run.verdict}
    return " ".join(sorted(words)) or "simulated"


def _mark(contest: "Contest", method: str) -> str:
    if method not in contest.means:
        return "-"
    value = contest.means[method]
    shown = f"{value:.3f}" if abs(value) <= 1 else f"{value:,.1f}"
    if contest.best == (method,):
        return f"{shown} *"
    return f"{shown} =" if method in contest.best else shown


def validation(result: "Validation") -> str:
    """Live and simulated figures side by side."""
    drawn = table(
        *("scenario", "method", "TTFT", "live ms", "spread", "late"),
        *("simulated ms", "spread", "difference"),
    )
    for cell in result.cells:
        drawn.add_row(
            cell.scenario,
            cell.method,
            cell.percentile,
            f"{cell.live:,.1f}",
            f"{cell.spread:,.1f}",
            f"{cell.late_ms:,.1f}",
            f"{cell.simulated:,.1f}",
            f"{cell.simulated_spread:,.1f}",
            f"{cell.difference:+.1%}",
        )
    p50, p99 = result.overhead_ms
    close = sum(cell.is_close for cell in result.cells)
    orders = list(result.orders())
    wrong = [
        f"  {order.scenario} {order.percentile}: {order.lower} is below {order.higher} only live"
        for order in orders
        if not order.agrees
    ]
    return "\n".join(
        [
            text(drawn),
            "",
            f"within 15 %: {close} of {len(result.cells)}",
            f"same order: {len(orders) - len(wrong)} of the {len(orders)} pairs of methods whose"
            " live difference is larger than the noise",
            *wrong,
            "spread: largest minus smallest of the runs with the same seed; the noise of a scenario"
            " is its largest live spread",
            "late: how far tokens were behind the backends' model, p99 of the worst run",
            "nginx, client and network, measured with backends that need no time:"
            f" p50 {p50:.1f} ms, p99 {p99:.1f} ms; the simulated figures contain the median, and"
            " their arrivals vary as much",
            result.folder,
        ]
    )


def advice(result: "Advice") -> str:
    """The ranking of methods for a fleet, their drawbacks, and the config to use."""
    drawn = table("", "method", "TTFT p50", "p99 ms", "E2E p99", "ITL p99", "cached", "fair", "why")
    for row in result.ranking:
        shown = ("ttft_p50_ms", "ttft_p99_ms", "e2e_p99_ms", "itl_p99_ms")
        numbers = [_or_dash(row.values.get(name), ",.1f") for name in shown]
        cached = _or_dash(row.values.get("cache_hits"), ".0%")
        fair = _or_dash(row.values.get("fair_tokens"), ".2f")
        drawn.add_row(str(row.place), row.method, *numbers, cached, fair, row.why)
    first = result.best[0]
    servers = f"{result.servers} server{'s' if result.servers > 1 else ''}"
    choice = f"use {first}"
    if len(result.best) > 1:
        choice += f": a tie with {', '.join(result.best[1:])}; it is the simplest"
    return "\n".join(
        [
            f"{result.fleet}: {servers}, simulated with 8 seeds, the same for all",
            "",
            text(drawn),
            "",
            choice,
            *(f"trade-off of {first}: {loss}" for loss in result.trade_offs),
            *([OVERLOAD] if result.overloaded else []),
            *(f"cost of {row.method}: {row.costs}" for row in result.ranking if row.place == 1),
            *(f"{method} {reason}" for method, reason in result.refused.items()),
            "",
            result.config,
        ]
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def log_advice(result: "LogAdvice") -> str:
    """The ranking of methods for a log, and the config to use."""
    drawn = table("", "method", "most in flight", "without the busiest server", "why")
    for row in result.ranking:
        cells = (f"{row.place}", row.method, f"{row.peak:,}", f"{row.peak_without:,}", row.why)
        drawn.add_row(*cells)
    first, *others = result.best
    malformed = f"; malformed lines: {result.malformed:,}" if result.malformed else ""
    tie = f": a tie with {', '.join(others)}; it is the simplest" if others else ""
    return "\n".join(
        [
            f"{result.requests:,} requests of the log, replayed{malformed}",
            "",
            text(drawn),
            "",
            f"use {first}{tie}",
            *(f"cost of {row.method}: {row.costs}" for row in result.ranking if row.place == 1),
            *(f"left out: {method}, {reason}" for method, reason in result.left_out.items()),
            *(f"assumed: {assumption}" for assumption in result.assumptions),
            "",
            result.config,
        ]
    )
