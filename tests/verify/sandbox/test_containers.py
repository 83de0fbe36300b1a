"""The addresses of the containers."""

from nginx_llm_lab.verify.sandbox.containers import near_end


def test_near_ends_of_veth_pairs_differ() -> None:
    """One for each far stub backend, of its own family."""
    ends = {near_end(number, "10.0.0.1") for number in range(1, 1000)}

    assert len(ends) == 999
    assert near_end(300, "10.0.0.1") == "198.19.1.44"
    assert near_end(300, "fd00::7") == "fd00:6c61:62::12c"
