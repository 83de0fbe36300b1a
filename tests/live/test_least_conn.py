"""least_conn: the fewest open requests for the weight."""


def test_one_at_a_time_it_is_round_robin(lab):
    """All counts are zero, and ties go by turns."""
    lab.use("least_conn", weights=(3, 2, 1))

    outcome = lab.send(600, concurrency=1)

    assert str(outcome.split) == "backend-1: 300, backend-2: 200, backend-3: 100"
    assert outcome.holds, outcome


def test_many_at_a_time_each_pick_had_the_fewest(lab):
    """In nginx's own order, where it was built to log it."""
    lab.use("least_conn")

    outcome = lab.send()

    assert outcome.holds, outcome
