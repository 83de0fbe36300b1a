"""A simulated scenario: its figures, its keys, what it refuses."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from nginx_llm_lab.accounts import figures
from nginx_llm_lab.accounts.join import join
from nginx_llm_lab.accounts.judging import judge
from nginx_llm_lab.backends.llm.profiles import PROFILES
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.experiment import simulating
from nginx_llm_lab.nginxconf import sources
from nginx_llm_lab.oracle import Arrival
from nginx_llm_lab.report import sections
from nginx_llm_lab.signals import INTERRUPTIONS
from nginx_llm_lab.simulate import fast, simulation
from nginx_llm_lab.simulate.jobs import workload_of
from nginx_llm_lab.simulate.picks import picks
from nginx_llm_lab.traffic import scenario_choice, workload
from nginx_llm_lab.traffic.scenario import Lengths, Machine, Scenario, Sessions, Tenants
from tests.simulate import reference

CHATS = Scenario(
    "chats",
    requests=90,
    arrivals="poisson",
    rate=20,
    prompt=Lengths(tokens=40),
    output=Lengths(tokens=20),
    tenants=Tenants(3, 100),
    sessions=Sessions(3, 0.2),
)
DATA = Path(__file__).parents[1] / "data/traces"


@pytest.mark.parametrize("arrivals", ["poisson", "closed"])
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_the_requests_are_those_of_a_live_load(arrivals, api):
    """Same numbers of tokens, clients, tenants and turns, in the same places."""
    scenario = replace(CHATS, arrivals=arrivals, users=7, api=api)

    work = workload_of(scenario)

    planned = {one.number: one for user in workload.users(scenario) for one in user.requests}
    assert len(work) == len(planned)
    live = sorted(
        (p.session, p.turn, p.tenant, p.max_tokens, p.client_ip) for p in planned.values()
    )
    assert live == sorted(
        (s, t, tenant, out, workload.client_address(client))
        for s, t, tenant, out, client in zip(
            work.session, work.turn, work.tenant, work.output, work.client, strict=True
        )
    )


def test_a_prompt_has_as_many_tokens_as_the_backend_counts():
    """Roles and history included, by the backend's own tokeniser."""
    from nginx_llm_lab.backends.llm.openai.call import parse_chat

    work = workload_of(CHATS)

    for user in workload.users(CHATS):
        for one in user.requests:
            content = {"model": one.model, "messages": list(one.messages), "max_tokens": 5}
            (prompt,) = parse_chat(content, one.model, 10**6).prompts
            assert work.prompt[one.number] == len(prompt)


@pytest.mark.parametrize("method", ["ip_hash", "hash", "hash_consistent", "prompt_prefix"])
def test_hashed_requests_go_where_the_oracle_says(method, monkeypatch):
    """The keys are nginx's own; engine and times agree with the reference."""
    names, machines = simulation.fleet_of(CHATS)
    group, scope = sources.from_method(
        method, [f"{name}:8000" for name in names], "", "", "header", zone=True
    )
    work = workload_of(CHATS)
    chosen = picks(work, CHATS, group, scope)
    assert chosen is not None

    simulated = simulation.simulate(CHATS, method)

    forced = [Arrival(key=b"%d" % chosen[number]) for number in range(len(work))]
    loop = reference.Loop(work, machines, group, forced.__getitem__)
    by_key = {b"%d" % place: peer for place, peer in enumerate(loop.nginx.group.peers)}
    monkeypatch.setattr(loop.nginx.method, "get", lambda request: by_key[request.arrival.key])
    expected = reference.arrays(loop.run())
    for name in ("backend", "first", "last", "cached"):
        np.testing.assert_array_equal(getattr(simulated.run.result, name), expected[name])


def test_a_trace_shares_the_blocks_of_equal_hash_ids():
    """Two of the four requests begin with the same two blocks of 512 tokens as another."""
    scenario = scenario_choice.requested("", trace=str(DATA / "mooncake.jsonl"))

    simulated = simulation.simulate(scenario, "round_robin", backends=1)

    assert simulated.figures.overall.cached_tokens == 2 * 1024


def test_sticky_binds_the_sessions_of_a_trace(tmp_path):
    """As browsers do, the client of a session returns its cookie; the others have none yet."""
    header = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens"
    rows = [f"{n},{n % 4 or ''},1,GPT-4,8,2,10" for n in range(40)]
    trace = tmp_path / "sessions.csv"
    trace.write_text(
        "\n".join([f"{header},Log Type", *(f"{row},Conversation log" for row in rows)])
    )
    scenario = scenario_choice.requested("", trace=str(trace))

    result = simulation.simulate(scenario, "sticky", backends=3).run.result

    by_session = [set(result.backend[session::4]) for session in range(4)]
    assert [len(servers) for servers in by_session] == [3, 1, 1, 1]
    sent = workload.requests(workload.plan(scenario).users)
    assert [planned.visitor for planned in sent] == ["", "1", "2", "3"] * 10


def test_a_trace_of_months_is_refused(tmp_path):
    """Requests after 54 days were left out without a word; after 106 days TTFT was negative."""
    trace = tmp_path / "months.csv"
    trace.write_text(f"Timestamp,Request tokens,Response tokens\n0,9,9\n{60 * 86_400},9,9\n")

    with pytest.raises(UsageError, match=r"begins after 60\.0 days; at most 26 are simulated"):
        simulation.simulate(scenario_choice.requested("", trace=str(trace)), "round_robin")
    short = simulation.simulate(
        scenario_choice.requested("", trace=str(trace), speed=10.0), "round_robin"
    )
    assert short.figures.overall.requests == 2


HOUR_LONG_PAUSES = replace(
    CHATS,
    requests=800,
    prompt=Lengths(tokens=1),
    output=Lengths(tokens=1),
    sessions=Sessions(800, 3600),
)
OVERLOADED = replace(
    CHATS,
    requests=64,
    fleet={"backend-1": Machine("slow-8b", slow=1000)},
    output=Lengths(tokens=60_000),
    sessions=Sessions(),
)


@pytest.mark.parametrize(
    ("scenario", "requests"),
    [(HOUR_LONG_PAUSES, r"1\d\d of 800"), (OVERLOADED, "64 of 64")],
    ids=["pauses", "overloaded"],
)
def test_requests_after_the_simulated_days_are_an_error(scenario, requests):
    """They were left out without a word, and the figures were those of the others."""
    with pytest.raises(UsageError, match=rf"{requests} requests begin or end too late; at most 26"):
        simulation.simulate(scenario, "round_robin", backends=1)


def test_a_long_trace_is_hashed_by_the_first_block(tmp_path, monkeypatch):
    """The first 512 tokens contain what prompt_prefix hashes; ids may have 64 bits."""
    ids = [2**63 + 5, 7, 7, 2**63 + 5, 9]
    rows = [
        {"timestamp": n, "input_length": 512, "output_length": 1, "hash_ids": [block]}
        for n, block in enumerate(ids * 20)
    ]
    trace = tmp_path / "long.jsonl"
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("nginx_llm_lab.simulate.picks.MOST_TEXTS", 10)
    scenario = scenario_choice.requested("", trace=str(trace))

    result = simulation.simulate(scenario, "prompt_prefix", backends=40).run.result

    servers = {block: set(result.backend[place::5]) for place, block in enumerate(ids)}
    assert [len(one) for one in servers.values()] == [1, 1, 1]
    assert set(result.backend[0::5]) == set(result.backend[3::5])
    assert result.cached.sum() == 97 * 512  # each first block is computed once


@pytest.mark.parametrize("limits", [{"requests": 90}, {"requests": None, "duration": 4.0}])
def test_the_figures_are_those_of_a_live_load(limits):
    """The code for live runs computes the same from records of the same moments."""
    scenario = replace(CHATS, **limits)

    simulated = simulation.simulate(scenario, "round_robin", backends=2)

    work, result = workload_of(scenario), simulated.run.result
    moments = (result.sent / 1e12, result.first / 1e12, result.last / 1e12)
    live = figures.figures(
        join(
            Record(number, str(number), sent, sent, first, tuple(np.linspace(first, last, output)),
                   last, tokens=output, backend=f"backend-{backend + 1}")
            for number, (output, backend, sent, first, last) in enumerate(
                zip(work.output, result.backend, *moments, strict=True)
            )
            if sent >= 0  # a turn that would follow after the end is not sent
        ),
        scenario.targets,
        offered=scenario.duration,
    )  # fmt: skip
    assert simulated.figures.seconds == pytest.approx(live.seconds)
    assert simulated.figures.offered_s == pytest.approx(live.offered_s)
    for mine, theirs in zip(
        (*simulated.figures.backends, simulated.figures.overall),
        (*live.backends, live.overall),
        strict=True,
    ):
        for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
            assert asdict(getattr(mine, name)) == pytest.approx(asdict(getattr(theirs, name)))
        for name in ("requests", "tokens", "good", "goodput", "tokens_per_s", "requests_per_s"):
            assert getattr(mine, name) == pytest.approx(getattr(theirs, name)), name


def test_a_larger_fleet_gets_more_load():
    """Ten times the backends, ten times the rate, the same machines in turn."""
    scenario = scenario_choice.load("mixed_fleet")

    names, machines = simulation.fleet_of(scenario, 40)

    assert len(names) == 40
    kinds = " ".join(profile.name[:4] for profile, _ in machines[:5])
    assert kinds == "h100 h100 l40s l40s h100"
    assert simulation.scaled_to(scenario, 40, None).rate == 80


def test_a_timeline_is_refused():
    """Faults are for the live lab."""
    with pytest.raises(UsageError, match="timeline"):
        simulation.simulate(scenario_choice.load("outages"), "round_robin")


def test_a_request_that_no_backend_can_hold_is_refused():
    """It would wait forever."""
    long = replace(CHATS, prompt=Lengths(tokens=20_000), profile="cpu-small", sessions=Sessions())

    with pytest.raises(UsageError, match="KV cache"):
        simulation.simulate(long, "round_robin")


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_an_interrupted_simulation_keeps_what_was_answered(tmp_path, monkeypatch, interruption):
    """Interrupted after 20 requests: their figures are written; run.json says that more was due."""
    monkeypatch.setattr(fast, "_SLICE", 20)
    monkeypatch.setattr(simulating, "fresh_folder", lambda name: tmp_path / name)

    def interrupt(_sent: int) -> None:
        raise interruption

    with pytest.raises(simulation.Stopped) as stopped:
        simulating.simulated(CHATS, "round_robin", on_sent=interrupt)

    assert isinstance(stopped.value.__cause__, interruption)

    kept = stopped.value.simulated
    assert kept.folder is not None
    written = json.loads((kept.folder / "figures.json").read_text())
    assert not written["complete"]
    assert 0 < written["figures"]["overall"]["requests"] <= 20
    assert json.loads((kept.folder / "run.json").read_text())["notes"] == {"complete": False}


def test_judge_and_report_say_why_they_take_no_simulated_run(tmp_path, monkeypatch):
    """It has no logs; in a folder of runs a report leaves it out."""
    monkeypatch.setattr(simulating, "fresh_folder", lambda name: tmp_path / name)
    place = simulating.simulated(CHATS, "least_conn").folder
    assert place is not None

    with pytest.raises(UsageError, match="simulated run: it has no logs"):
        judge(place)
    with pytest.raises(UsageError, match="no run folder"):
        sections.runs_in(tmp_path)


def test_a_queue_limit_is_refused_by_its_name():
    """The compiled loop queues without a bound."""
    limited = replace(PROFILES["h100-8b"], name="limited", max_queued=4)
    monkey = {**PROFILES, "limited": limited}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "PROFILES", monkey)
        with pytest.raises(UsageError, match="queue_limit for backend-1"):
            simulation.simulate(replace(CHATS, profile="limited"), "round_robin")


def test_what_has_run_is_compiled():
    """By the files that this numba keeps, which `lab simulate` looks for."""
    simulation.simulate(CHATS, "round_robin")

    assert fast.is_compiled()
