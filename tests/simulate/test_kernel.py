"""The compiled event loop against the reference: the same picks, times and cache hits, exactly."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nginx_llm_lab.backends.llm.profiles import PROFILES, Profile
from nginx_llm_lab.nginxconf import upstream
from nginx_llm_lab.nginxconf.methods import METHODS
from nginx_llm_lab.oracle import Arrival
from nginx_llm_lab.simulate import fast
from nginx_llm_lab.simulate.jobs import workload_of
from nginx_llm_lab.traffic.scenario import Lengths, Scenario, Sessions, Tenants
from tests.simulate import reference

# the methods that look at the servers or draw: the loop picks by these itself
BY_STATE = [name for name, method in METHODS.items() if not method.by_request]
FIGURES = ("backend", "sent", "first", "last", "cached")


@pytest.fixture(scope="module", autouse=True)
def small_pools():
    """Pools that small workloads make grow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "_ROOM", 128)
        yield


def lengths(largest: int) -> st.SearchStrategy[Lengths]:
    """Fixed, uniform and heavy-tailed lengths."""
    tokens = st.integers(1, largest)
    return st.one_of(
        st.builds(Lengths, tokens=tokens),
        st.builds(Lengths, dist=st.just("uniform"), min=st.just(1), max=tokens),
        st.builds(
            Lengths,
            dist=st.just("lognormal"),
            median=st.just(1.0),
            sigma=st.floats(0.1, 2),
            max=tokens,
        ),
    )


# requests need 240 + 40 * 3 + 4 * 60 tokens at most: every one fits into 48 blocks
SCENARIOS = st.builds(
    Scenario,
    name=st.just("random"),
    seed=st.integers(0, 10**6),
    requests=st.integers(1, 120),
    duration=st.one_of(st.none(), st.floats(0.5, 4)),
    arrivals=st.sampled_from(["poisson", "constant", "bursts", "closed"]),
    rate=st.floats(1, 300),
    burst=st.integers(1, 20),
    users=st.integers(1, 20),
    prompt=lengths(60),
    output=lengths(60),
    tenants=st.builds(
        Tenants, n=st.integers(1, 4), system_tokens=st.integers(0, 200), skew=st.just(1.0)
    ),
    sessions=st.builds(Sessions, turns=st.integers(1, 3), think=st.floats(0, 0.2)),
    stream=st.booleans(),
    api=st.sampled_from(["chat", "completions"]),
)
MACHINES = st.lists(
    st.tuples(
        st.builds(
            Profile,
            name=st.just("random"),
            step_base=st.floats(0, 0.02),
            per_token=st.floats(0, 1e-4),
            per_context=st.floats(0, 1e-5),
            per_pair=st.floats(0, 1e-7),
            max_num_seqs=st.integers(1, 24),
            max_num_batched_tokens=st.integers(8, 300),
            kv_blocks=st.integers(48, 120),
        ),
        st.floats(0.5, 4),
    ),
    min_size=1,
    max_size=4,
)


def simulate_both(
    scenario: Scenario, machines: list[tuple[Profile, float]], method: str, weights: list[int]
) -> tuple[fast.Run, dict[str, np.ndarray]]:
    """The compiled loop's result, and the reference's figures."""
    work = workload_of(scenario, 100)
    weights = [weights[b % len(weights)] for b in range(len(machines))]
    servers = [f"backend-{b}:8000 weight={weight}" for b, weight in enumerate(weights)]
    draw = reference.Splitmix(3).draw if method.startswith("random") else None
    loop = reference.Loop(
        work, machines, upstream.from_options(method, servers), lambda _: Arrival(), draw
    )
    outcomes = loop.run()
    run = fast.run(work, machines, method, weights=weights, seed=3)
    gaps = [np.diff(one.tokens).max() for one in outcomes if len(one.tokens) > 1]
    assert int(run.gaps[-1]) == max(gaps, default=0)
    assert run.gaps[:-1].sum() == sum(max(0, len(one.tokens) - 1) for one in outcomes)
    expected = reference.arrays(outcomes)
    np.testing.assert_allclose(run.result.queued, expected["queued"], rtol=1e-5, atol=1e-3)
    return run, expected


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    SCENARIOS,
    MACHINES,
    st.sampled_from(BY_STATE),
    st.lists(st.integers(1, 3), min_size=1),
)
def test_the_compiled_loop_equals_oracle_and_engine(scenario, machines, method, weights):
    """On any workload, any fleet, any method, with queues, evictions and preemptions."""
    run, expected = simulate_both(scenario, machines, method, weights)

    for name in FIGURES:
        np.testing.assert_array_equal(getattr(run.result, name), expected[name], err_msg=name)


@pytest.mark.parametrize("method", ["round_robin", "least_conn", "sticky"])
def test_forty_servers_of_three_weights_are_picked_as_nginx_picks_them(method):
    """The tournaments of three weights, ties within and between them included."""
    scenario = Scenario("wide", requests=1500, arrivals="poisson", rate=400,
                        prompt=Lengths(tokens=20), output=Lengths("uniform", min=1, max=60),
                        sessions=Sessions(3, 0.05))  # fmt: skip
    machine = Profile("small", 0.01, 1e-5, 1e-7, 1e-8, 16, 64, 48)

    run, expected = simulate_both(scenario, [(machine, 1.0)] * 40, method, [1, 3, 1, 2, 2])

    np.testing.assert_array_equal(run.result.backend, expected["backend"])


def test_of_requests_due_at_once_the_one_with_the_lower_number_comes_first():
    """A user who does not think asks again before the next user's first request."""
    scenario = Scenario("hasty", requests=12, arrivals="closed", users=3,
                        prompt=Lengths(tokens=5), output=Lengths(tokens=1))  # fmt: skip
    machine = Profile("instant", 0, 0, 0, 0, 1, 64, 48)

    run, expected = simulate_both(scenario, [(machine, 1.0)] * 2, "least_conn", [1])

    np.testing.assert_array_equal(run.result.backend, expected["backend"])


@pytest.mark.parametrize("method", BY_STATE)
def test_a_crowded_fleet_preempts_and_agrees(method):
    """Long answers in few blocks: sequences are preempted and computed again."""
    scenario = Scenario(
        "crowded", requests=60, arrivals="bursts", rate=100, burst=20,
        prompt=Lengths(tokens=40), output=Lengths("uniform", min=1, max=200),
        tenants=Tenants(3, 64),
    )  # fmt: skip
    machine = Profile("small", 0.01, 1e-5, 1e-7, 1e-8, 16, 64, 48)

    run, expected = simulate_both(scenario, [(machine, 1.0)] * 2, method, [1])

    assert run.servers["preemptions"].sum() > 0
    for name in FIGURES:
        np.testing.assert_array_equal(getattr(run.result, name), expected[name], err_msg=name)


def test_a_waiting_request_takes_no_slot(monkeypatch: pytest.MonkeyPatch):
    """One server with ten thousand waiting requests takes no more memory than an idle fleet."""
    monkeypatch.setattr(fast, "_doubled", None)  # a pool that grows is an error
    scenario = Scenario("hot", requests=10_000, arrivals="constant", rate=10**6,
                        prompt=Lengths(tokens=5), output=Lengths(tokens=2))  # fmt: skip
    machine = Profile("small", 0.01, 1e-5, 1e-7, 1e-8, 16, 64, 48)

    run = fast.run(workload_of(scenario), [(machine, 1.0)], "round_robin")

    assert (run.result.last > 0).all()


def test_profiles_of_the_lab_are_without_jitter():
    """The compiled loop has none."""
    assert not any(profile.jitter for profile in PROFILES.values())
