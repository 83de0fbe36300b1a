"""Tables of simulated runs and of scorecards."""

from typing import TYPE_CHECKING

from ..accounts import figures
from ..accounts.scorecard import trade_offs
from .tables import rows, table, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..accounts.scorecard import Contest, Run, Scorecard
    from ..experiment.validating import Validation
    from ..simulate.advice import Advice
    from ..simulate.log_advice import LogAdvice
    from ..simulate.simulation import Simulated

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
    """A table for each scenario with a column for each method, then one of them all."""
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
    own = {one.scenario: one for one in contests if one.measure == "ttft_p99_ms"}
    for method in card.methods:
        drawn.add_row(
            method, *(_mark(own[name], method) if name in own else "-" for name in card.scenarios)
        )
    return [f"{text(drawn)}\n"]


def _scenario(card: "Scorecard", name: str, contests: "Sequence[Contest]") -> str:
    drawn = table(name, *card.methods)
    for one in contests:
        if one.scenario == name:
            drawn.add_row(one.measure, *(_mark(one, method) for method in card.methods))
    moved = card.moved.get(name, {})
    shares = [moved.get(method) for method in card.methods]
    drawn.add_row("keys moved", *("-" if s is None else f"{s:.0%}" for s in shares))
    runs = {
        method: [run for run in card.runs if (run.scenario, run.method) == (name, method)]
        for method in card.methods
    }
    drawn.add_row("runs", *(f"{len(group)}" for group in runs.values()))
    drawn.add_row("verdict", *(_verdict(group) for group in runs.values()))
    return f"{text(drawn)}\n\n{_differences(card, name, contests)}\n"


def _differences(card: "Scorecard", name: str, contests: "Sequence[Contest]") -> str:
    """How much worse each method is than the best: the mean difference and its 95 % interval."""
    drawn = table("behind the best", *card.methods)
    for one in contests:
        if one.scenario == name and one.behind:
            drawn.add_row(one.measure, *(_behind(one, method) for method in card.methods))
    return text(drawn)


def _behind(one: "Contest", method: str) -> str:
    if (gap := one.behind.get(method)) is None:
        return "-"
    digits = 3 if max(abs(value) for value in one.means.values()) <= 1 else 1
    if gap.low is None or gap.high is None:
        return f"{gap.mean:+,.{digits}f} (one pair)"
    return f"{gap.mean:+,.{digits}f} ({gap.low:+,.{digits}f} to {gap.high:+,.{digits}f})"


def _verdict(runs: "Sequence[Run]") -> str:
    """What was judged of a method's runs: the words, the worst first."""
    words = {run.verdict for run in runs if run.verdict}
    return " ".join(sorted(words)) or "simulated"


def _mark(one: "Contest", method: str) -> str:
    if method not in one.means:
        return "-"
    value = one.means[method]
    shown = f"{value:.3f}" if abs(value) <= 1 else f"{value:,.1f}"
    if one.best == (method,):
        return f"{shown} *"
    return f"{shown} =" if method in one.best else shown


def validation(result: "Validation") -> str:
    """Live and simulated figures side by side."""
    drawn = table(
        "scenario", "method", "TTFT", "live ms", "spread", "late", "simulated ms", "difference"
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
            "spread: largest minus smallest of the live runs with the same seed; the noise of a"
            " scenario is its largest spread",
            "late: how far tokens were behind the backends' model, p99 of the worst run",
            "nginx, client and network, measured with backends that need no time:"
            f" p50 {p50:.1f} ms, p99 {p99:.1f} ms; the simulated figures contain the median",
            result.folder,
        ]
    )


def advice(result: "Advice") -> str:
    """The ranking of methods for a fleet, what each costs, and the config to use."""
    drawn = table("", "method", "TTFT p50", "p99 ms", "E2E p99", "ITL p99", "cached", "fair", "why")
    for row in result.ranking:
        shown = ("ttft_p50_ms", "ttft_p99_ms", "e2e_p99_ms", "itl_p99_ms")
        numbers = [f"{row.values.get(name, 0.0):,.1f}" for name in shown]
        cached = f"{row.values.get('cache_hits', 0.0):.0%}"
        fair = f"{row.values.get('fair_tokens', 0.0):.2f}"
        drawn.add_row(str(row.place), row.method, *numbers, cached, fair, row.why)
    first = result.best[0]
    choice = f"use {first}"
    if len(result.best) > 1:
        choice += f": a tie with {', '.join(result.best[1:])}; it is the simplest"
    return "\n".join(
        [
            f"{result.fleet}: {result.servers} servers, simulated with 8 seeds, the same for all",
            "",
            text(drawn),
            "",
            choice,
            *(f"cost of {row.method}: {row.costs}" for row in result.ranking if row.place == 1),
            *(f"{method} {reason}" for method, reason in result.refused.items()),
            "",
            result.config,
        ]
    )


def log_advice(result: "LogAdvice") -> str:
    """The ranking of the methods that a log shows, and the config to use."""
    drawn = table("", "method", "most in flight", "without the busiest server", "why")
    for row in result.ranking:
        cells = (f"{row.place}", row.method, f"{row.peak:,}", f"{row.peak_without:,}", row.why)
        drawn.add_row(*cells)
    first, *others = result.best
    tie = f": a tie with {', '.join(others)}; it is the simplest" if others else ""
    return "\n".join(
        [
            f"{result.requests:,} requests of the log, replayed",
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
