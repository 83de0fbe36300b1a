"""The alternatives to a claim."""

from dataclasses import replace

from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.verdict.alternatives.hypotheses import alternatives, compound

CLAIM = Upstream((Server("a", 2), Server("b", 1)), "least_conn")


def names(claim: Upstream, workers: int = 1) -> list[str]:
    """What the alternatives are called."""
    return [other.name for other in alternatives(claim, workers)]


def test_every_other_method_is_an_alternative() -> None:
    """On the same servers; the claim itself is none."""
    assert {"round_robin", "least_time", "random", "random_two", "ip_hash", "hash"} <= set(
        names(CLAIM)
    )
    assert "least_conn" not in names(CLAIM)


def test_weights_may_be_ignored_swapped_or_off_by_one() -> None:
    """A weight of 0 is none."""
    weights = [name for name in names(CLAIM) if "weight" in name]

    assert weights == [
        "weights ignored",
        "weights of a and b swapped",
        "weight 3 instead of 2 at a",
        "weight 1 instead of 2 at a",
        "weight 2 instead of 1 at b",
    ]


def test_each_live_server_may_be_down() -> None:
    """One that the claim has down already is no alternative, nor is the only live one."""
    out = replace(CLAIM, servers=(*CLAIM.servers, Server("c", down=True)))

    assert [name for name in names(out) if name.endswith(" down")] == ["a down", "b down"]
    assert not any(name.endswith(" down") for name in names(replace(out, servers=out.servers[1:])))


def test_a_missing_zone_needs_two_workers_to_show() -> None:
    """One worker alone has the same state with and without it."""
    assert "least_conn without zone, 2 workers" in names(CLAIM, workers=2)
    assert not any("zone" in name for name in names(CLAIM))
    assert "round_robin without zone, 2 workers" in [
        hypothesis.name for hypothesis in compound(CLAIM, 2)
    ]


def test_limits_may_be_ignored_and_of_draws_lower() -> None:
    """No single draw shows a limit that is lower; a FAIL may look like a higher one, too."""
    limited = replace(
        CLAIM, servers=tuple(replace(server, max_conns=3) for server in CLAIM.servers)
    )
    draws = replace(limited, method="random")

    assert [name for name in names(limited) if "max_conns" in name] == ["max_conns ignored"]
    assert "max_conns one lower" in names(draws)
    assert not any("max_conns" in name for name in names(CLAIM))
    assert [other.name for other in compound(limited, 1) if "max_conns" in other.name] == [
        "max_conns one higher",
        "max_conns one lower",
    ]


def test_a_hash_may_have_another_key_and_the_other_hash_too() -> None:
    """The path alone is $uri; ip_hash may be a hash of the address, which only explains a FAIL."""
    by_uri = replace(CLAIM, method="hash", key="$request_uri")
    further = [other.name for other in compound(replace(CLAIM, method="ip_hash"), 1)]

    assert {"hash of the path of $request_uri", "hash of $remote_addr"} <= set(names(by_uri))
    assert "hash of the path of $request_uri" not in names(replace(by_uri, key="$uri"))
    assert {"hash of $remote_addr", "hash_consistent of $remote_addr"} <= set(further)


def test_draws_have_no_order() -> None:
    """Turns have; two servers have one other order."""
    draws = Upstream(CLAIM.servers, "random")

    assert "servers in the order b, a" in names(CLAIM)
    assert not any("order" in name for name in names(draws))
