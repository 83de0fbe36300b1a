"""least_conn: the fewest open requests for the weight."""


def test_one_at_a_time_it_is_round_robin(lab):
    """All counts are zero, and ties go by turns."""
    lab.use("least_conn", weights=(3, 2, 1))

    found = lab.send(60, concurrency=1)

    assert str(found.split) == "backend-1: 30, backend-2: 20, backend-3: 10"
    assert found.holds, found


def test_many_at_a_time_each_pick_had_the_fewest(lab):
    """As far as the log's milliseconds can tell."""
    lab.use("least_conn")

    found = lab.send(400)

    assert found.verdict.word != "FAIL", found
    assert found.counts.agree
