"""Series, their ratios by turns, and the bars."""

from nginx_llm_lab.bench import tables
from nginx_llm_lab.bench.bars import BARS
from nginx_llm_lab.bench.figures import Bar, Series, as_dict, checked, ratio


def rates(subject: str, *values: float) -> Series:
    """Requests a second."""
    return Series("services", "requests/s", subject, "1/s", values)


def test_a_ratio_is_computed_per_repeat():
    """The machine was slow in the second repeat for both: 0.5 and 0.8, not 0.4 of the medians."""
    series = ratio("of the ceiling", "GET /", rates("lab", 50, 8), rates("ceiling", 100, 10))

    assert series.values == (0.5, 0.8)


def test_a_bar_holds_for_the_median():
    """One outlier of three does not matter, for upper and lower bounds."""
    series = Series("s", "ratio", "a", "", (0.9, 0.86, 0.1))

    (least,) = checked([series], [Bar("ratio", "a", 0.85, most=False)])
    (most,) = checked([series], [Bar("ratio", "a", 0.85)])

    assert (least.holds, most.holds) == (True, False)


def test_what_was_not_measured_is_not_checked():
    """A bar for a section that was left out says nothing."""
    assert checked([rates("lab", 1)], BARS) == []


def test_missed_targets_are_named():
    """The table has the result, the target, the median and the bound; the last line the missed."""
    compared = checked(
        [rates("lab", 1, 2, 1000), rates("ceiling", 5)],
        [Bar("requests/s", "lab", 2000, most=False), Bar("requests/s", "ceiling", 7.5)],
    )

    shown = tables.targets(compared).splitlines()

    assert [line.split() for line in shown[1:3]] == [
        ["missed", "requests/s", "lab", "2", "at", "least", "2,000"],
        ["met", "requests/s", "ceiling", "5", "at", "most", "7.5"],
    ]
    assert shown[-1] == "1 of 2 targets missed: requests/s: lab"


def test_programs_get_every_value():
    """Each series with its values and median, each bar with whether it holds."""
    series = rates("lab", 3, 1, 2)

    data = as_dict([series], checked([series], [Bar("requests/s", "lab", 5)]))

    assert data["series"][0]["values"] == (3, 1, 2)
    assert (data["bars"][0]["median"], data["bars"][0]["holds"]) == (2, True)
