"""random and random_two: random draws within a band."""


def test_draws_stay_within_their_band(lab):
    """The shares are those of the weights."""
    lab.use("random", weights=(3, 2, 1))

    outcome = lab.send()

    assert outcome.holds, outcome


def test_two_draws_on_an_idle_upstream_favour_the_light_server(lab):
    """Ties go to the second draw: weights 3 and 1 give the light one 75 %."""
    lab.use("random_two", weights=(3, 1, 1), server_params=["backend-3: down"])

    outcome = lab.send(6000, concurrency=1)

    assert outcome.split.counts["backend-2"] > 2 * outcome.split.counts["backend-1"]
    assert outcome.holds, outcome
