"""A plan follows its scenario to the letter, and its seed alone."""

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.traffic.scenario import Lengths, Scenario, Sessions, Tenants
from nginx_llm_lab.traffic.workload import Planned, plan, requests


def planned(scenario: Scenario, most: int = 10_000) -> list[Planned]:
    """The scenario's requests, by number, `most` of them at most."""
    return sorted(islice(requests(plan(scenario).users), most), key=lambda one: one.number)


def small(**changes: object) -> Scenario:
    """Six requests, two a second, one every half second, unless `changes` say otherwise."""
    fields: dict[str, object] = {"requests": 6, "arrivals": "constant", "rate": 2.0, **changes}
    return Scenario("small", **fields)  # type: ignore[arg-type]  # the fields differ in type


def test_the_same_seed_makes_the_same_plan() -> None:
    """A run can be repeated word for word."""
    scenario = small(arrivals="poisson", prompt=Lengths("uniform", min=1, max=50))

    assert planned(scenario) == planned(scenario)


def test_another_seed_makes_another_plan() -> None:
    """The seed reaches the moments and the texts."""
    one, two = (planned(small(arrivals="poisson", seed=seed))[0] for seed in (1, 2))

    assert one.due != two.due
    assert one.messages != two.messages


def test_constant_arrivals_keep_their_distance() -> None:
    """Two a second: one every half second."""
    dues = [one.due for one in planned(small())]

    assert dues == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


def test_bursts_come_together_at_the_same_rate() -> None:
    """Three at once every 3/2 seconds are two a second."""
    dues = [one.due for one in planned(small(arrivals="bursts", burst=3))]

    assert dues == [0.0, 0.0, 0.0, 1.5, 1.5, 1.5]


def test_poisson_arrivals_have_their_rate_and_their_spread() -> None:
    """10,000 gaps of 1/50 s on average, their deviation as large as their mean."""
    dues = [one.due for one in planned(small(requests=10_000, arrivals="poisson", rate=50.0))]

    gaps = [later - earlier for earlier, later in pairwise(dues)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(0.02, rel=0.05)
    assert spread == pytest.approx(0.02, rel=0.05)


def test_the_duration_ends_the_arrivals() -> None:
    """Nothing is due at the end or after it."""
    dues = [one.due for one in planned(small(requests=None, duration=1.5))]

    assert dues == [0.0, 0.5, 1.0]


def test_the_number_of_requests_may_end_them_earlier() -> None:
    """Of the two bounds the first to be reached counts."""
    assert len(planned(small(requests=2, duration=1.5))) == 2


def test_a_turn_follows_the_answer_before_it() -> None:
    """Of three turns the first is due at its time, the others a while after an answer."""
    turns = planned(small(requests=None, duration=0.5, sessions=Sessions(3, think=2.0)))

    assert [(one.number, one.after, one.turn) for one in turns] == [
        (0, None, 0),
        (1, 0, 1),
        (2, 1, 2),
    ]
    assert turns[0].due == 0.0
    assert 0 < turns[1].due != turns[2].due > 0


def test_a_turn_carries_all_that_was_said() -> None:
    """Each prompt begins with the one before it, and adds an answer and a question."""
    first, second = planned(small(requests=2, sessions=Sessions(2)))

    assert second.messages[:1] == first.messages
    assert [message["role"] for message in second.messages] == ["user", "assistant", "user"]
    assert len(second.messages[1]["content"].split()) == first.max_tokens


def test_the_last_conversation_is_cut_at_the_number_of_requests() -> None:
    """Six requests in conversations of four turns: four and two."""
    turns = [(one.session, one.turn) for one in planned(small(sessions=Sessions(4)))]

    assert turns == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]


def test_closed_users_each_wait_for_their_own_answer() -> None:
    """Two users share five requests: 0, 2, 4 and 1, 3, each after that user's last."""
    scenario = Scenario("closed", arrivals="closed", users=2, requests=5)

    assert [(one.number, one.after) for one in planned(scenario)] == [
        (0, None),
        (1, None),
        (2, 0),
        (3, 1),
        (4, 2),
    ]


def test_closed_users_without_a_number_of_requests_never_leave() -> None:
    """Only time ends their run, so the total is unknown."""
    scenario = Scenario("closed", arrivals="closed", users=1, duration=1.0)

    assert plan(scenario).total is None
    assert len(planned(scenario, 500)) == 500


def test_a_closed_user_keeps_the_address() -> None:
    """It is the same in all conversations of a user."""
    scenario = Scenario("closed", arrivals="closed", users=1, requests=50, clients=1000)

    assert len({one.client_ip for one in planned(scenario)}) == 1


def test_one_client_is_everybody_behind_one_nat() -> None:
    """`clients: 1` leaves one address."""
    assert {one.client_ip for one in planned(small(clients=1))} == {"10.0.0.1"}


def test_clients_differ_in_the_octets_that_ip_hash_sees() -> None:
    """No two addresses share their first three octets."""
    addresses = {one.client_ip for one in planned(small(requests=5000, clients=300))}

    assert len(addresses) == len({address.rpartition(".")[0] for address in addresses}) == 300


def test_a_tenant_has_one_system_prompt() -> None:
    """As many system prompts as tenants, each of the stated length."""
    tenants = planned(small(requests=200, tenants=Tenants(3, system_tokens=40)))

    prompts = {(one.tenant, one.messages[0]["content"]) for one in tenants}
    assert [tenant for tenant, _ in sorted(prompts)] == [0, 1, 2]
    assert {len(text.split()) for _, text in prompts} == {40}


def test_skew_makes_the_first_tenant_the_largest() -> None:
    """With Zipf's exponent 1 tenants 0, 1, 2 have shares of 6, 3 and 2 elevenths."""
    tenants = [one.tenant for one in planned(small(requests=5500, tenants=Tenants(3, 1, 1.0)))]

    counts = [tenants.count(tenant) for tenant in range(3)]
    assert counts == [pytest.approx(n, abs=150) for n in (3000, 1500, 1000)]


def test_completions_are_sent_one_text() -> None:
    """System prompt, history and question in one string, and no messages."""
    scenario = small(api="completions", prompt=Lengths(tokens=5), tenants=Tenants(1, 7))

    one = planned(scenario)[0]
    assert (one.messages, len(one.prompt.split())) == ((), 12)


def test_a_heavy_tail_has_its_median_and_its_limit() -> None:
    """Half are above the median, a few reach the maximum, none is beyond it."""
    output = Lengths("lognormal", median=50, sigma=1.5, max=1000)

    lengths = sorted(one.max_tokens for one in planned(small(requests=4001, output=output)))
    assert lengths[2000] == pytest.approx(50, rel=0.1)
    assert lengths[-1] == 1000
    assert lengths[0] >= 1


@given(
    arrivals=st.sampled_from(["poisson", "constant", "bursts", "closed"]),
    wanted=st.integers(1, 40),
    turns=st.integers(1, 5),
    users=st.integers(1, 9),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_plan_has_each_number_once(
    arrivals: str, wanted: int, turns: int, users: int, seed: int
) -> None:
    """Numbers run from 0 without a gap, and a request follows an earlier one."""
    scenario = small(
        arrivals=arrivals,
        requests=wanted,
        sessions=Sessions(turns, 0.1),
        users=users,
        burst=users,
        seed=seed,
    )

    made = planned(scenario)

    assert [one.number for one in made] == list(range(wanted))
    assert plan(scenario).total == wanted
    assert all(one.after is None or one.after < one.number for one in made)
