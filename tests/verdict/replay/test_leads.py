"""Bounds of the scores from observed turns."""

import pytest

from nginx_llm_lab.nginxconf.model import Server
from nginx_llm_lab.oracle.base import Peer
from nginx_llm_lab.verdict.replay.leads import Leads, Turn


def peers(*weights: int) -> list[Peer]:
    """Servers a, b and so on, by their weights."""
    return [Peer(Server("abc"[n], weight), "") for n, weight in enumerate(weights)]


def turns(among: list[Peer]) -> list[Turn]:
    """The turn that each server wins if all take part."""
    total = sum(peer.weight for peer in among)
    return [
        Turn({winner.name: 1.0}, tuple(p.weight - total * (p is winner) for p in among))
        for winner in among
    ]


def allowed(among: list[Peer], seen: str) -> str:
    """The servers that may win the turn after those seen."""
    leads = Leads.unknown(among)
    for name in seen:
        leads = leads.after(turns(among), among["abc".index(name)])
    possible = [turn for turn in turns(among) if leads.allow(turn)]
    return "".join(name for turn in possible for name in turn.odds if name)


@pytest.mark.parametrize(
    ("weights", "seen", "then"),
    [
        ((1, 1, 1), "", "abc"),
        ((1, 1, 1), "b", "abc"),
        ((1, 1, 1), "bca", "b"),
        ((1, 1, 1), "bcab", "c"),
        ((5, 1, 1), "aabacaa", "a"),
        ((5, 1, 1), "aabacaaaa", "b"),
    ],
)
def test_turns_narrow_down_who_is_next(weights: tuple[int, ...], seen: str, then: str) -> None:
    """Three equal servers are known after a cycle; 5:1:1 goes a a b a c a a."""
    assert allowed(peers(*weights), seen) == then


def test_a_turn_that_cannot_be_tells_nothing() -> None:
    """After b came twice in a row among equals, everything is possible again."""
    assert allowed(peers(1, 1, 1), "bcabb") == "abc"


def test_what_holds_of_either_of_two_pasts() -> None:
    """After a cycle from a or a cycle from b, c is not next."""
    among = peers(1, 1, 1)
    leads = []
    for seen in ("abc", "bca"):
        past = Leads.unknown(among)
        for name in seen:
            past = past.after(turns(among), among["abc".index(name)])
        leads.append(past)

    both = leads[0].either(leads[1])

    assert [both.allow(turn) for turn in turns(among)] == [True, True, False]
