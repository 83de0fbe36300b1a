"""Round robin, by turns and by weight."""


def test_a_thousand_hits_split_evenly(lab):
    """1,000 hits on three equal servers are 334, 333 and 333, however many come at a time."""
    lab.use("round_robin")

    outcome = lab.send(1000, concurrency=10)

    assert str(outcome.split) == "backend-1: 334, backend-2: 333, backend-3: 333"
    assert outcome.holds, outcome


def test_weights_are_exact(lab):
    """Weights 3 and 2 give 600 and 400 of 1,000."""
    lab.use("round_robin", weights=(3, 2, 1), server_params=["backend-3: down"])

    outcome = lab.send(1000, concurrency=10)

    assert str(outcome.split) == "backend-1: 600, backend-2: 400"
    assert outcome.holds, outcome


def test_turns_are_predicted_one_by_one(lab):
    """Weight 5 beside 1 and 1 gives a a b a c a a, never five in a row."""
    lab.use("round_robin", weights=(5, 1, 1))

    outcome = lab.send(700)

    assert str(outcome.split) == "backend-1: 500, backend-2: 100, backend-3: 100"
    assert outcome.holds, outcome


def test_a_backup_waits_for_the_others_to_be_gone(lab):
    """With both primaries down, the backup gets every request."""
    lab.use(
        "round_robin", server_params=["backend-1: down", "backend-2: down", "backend-3: backup"]
    )

    outcome = lab.send(400)

    assert str(outcome.split) == "backend-3: 400"
    assert outcome.holds, outcome
