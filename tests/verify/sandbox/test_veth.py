"""The `ip` commands for a veth pair."""

from nginx_llm_lab.verify.sandbox.veth import Address, commands


def test_a_new_veth_pair_has_its_other_end_in_another_namespace() -> None:
    """Both ends are called alike, in two namespaces; each address has its one peer."""
    here = [Address("lo", "192.0.2.1"), Address("lab0", "198.19.0.1", "10.0.0.5")]

    assert list(commands(here, new=True)) == [
        "link add lab0 type veth peer name lab0 netns 1",
        "link set lab0 up",
        "link set lo up",
        "address replace 192.0.2.1 dev lo",
        "address replace 198.19.0.1 peer 10.0.0.5 dev lab0",
    ]


def test_an_ipv6_address_is_usable_at_once() -> None:
    """Without the second that the kernel would spend on looking for a duplicate."""
    there = [Address("lab0", "fd00::5", "fd00::1")]

    assert list(commands(there, new=False)) == [
        "link set lab0 up",
        "address replace fd00::5 peer fd00::1 dev lab0 nodad",
    ]
