"""Hash and its consistent form: the key decides."""

import pytest


@pytest.mark.parametrize("method", ["hash", "hash_consistent"])
@pytest.mark.parametrize("key", ["$request_uri", "$arg_user", "$http_x_session_id$remote_addr"])
def test_every_key_goes_where_it_was_predicted(lab, method, key):
    """Keys of the URI, an argument, a header and the address are tried."""
    lab.use(method, weights=(5, 1, 3), key=key)

    outcome = lab.send(300)

    assert outcome.holds, outcome


def test_a_down_server_keeps_its_place_on_the_ring(lab):
    """Its keys go to the owner of the next point; the others stay."""
    lab.use("hash_consistent", server_params=["backend-2: down"])

    outcome = lab.send(300)

    assert "backend-2" not in outcome.split.counts
    assert outcome.holds, outcome
