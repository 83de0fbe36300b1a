"""How far counts may deviate from their probabilities."""

from nginx_llm_lab.verdict.chance.odds import ALARM, band, draws_to_tell, far, improbable

HALVES = {"a": 0.5, "b": 0.5}


def test_a_fair_coin_has_a_plausible_range():
    """Of 1,000 throws 590 are possible, 610 are not."""
    assert improbable({"a": 590, "b": 410}, HALVES) is None
    assert improbable({"a": 610, "b": 390}, HALVES) == "a"


def test_a_band_holds_what_is_not_improbable():
    """Its ends are allowed, one more is not."""
    low, high = band(0.5, 1000, 2)

    assert improbable({"a": high, "b": 1000 - high}, HALVES) is None
    assert improbable({"a": high + 2, "b": 998 - high}, HALVES) is not None
    assert low + high == 1000


def test_a_band_is_left_once_in_a_thousand_million():
    """About six standard deviations: 98 of 1,000 throws."""
    low, high = band(0.5, 1000, 2)

    assert ALARM == 1e-9
    assert (low, high) == (402, 598)


def test_rare_servers_take_more_draws_to_tell():
    """The lighter a server, the longer until a double weight shows."""
    assert draws_to_tell({"a": 0.9, "b": 0.1}) > draws_to_tell(HALVES)
    assert draws_to_tell({"a": 1.0}) == 0


def test_a_sum_between_its_bounds_is_never_far():
    """Chance widens them by six standard deviations."""
    assert not far(15, 10, 20, 4, 1)
    assert not far(25, 10, 20, 4, 1)
    assert far(40, 10, 20, 4, 1)


def test_few_draws_may_be_many_times_what_is_expected() -> None:
    """With 3 expected 15 may come, which a normal distribution would never give; 30 may not."""
    assert not far(15, 3, 3, 3, 10)
    assert far(30, 3, 3, 3, 10)


def test_certain_picks_allow_only_rounding() -> None:
    """Certain picks leave no room for two more."""
    assert not far(11, 10, 10, 0, 1)
    assert far(12, 10, 10, 0, 1)


def test_a_server_that_may_get_nothing_has_a_band_from_nothing():
    """No hit at all is more probable than the alarm, so the band begins at 0."""
    assert band(0.001, 200, 5)[0] == 0
    assert band(0.999, 200, 5)[1] == 200
