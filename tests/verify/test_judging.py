"""Verdicts on a user's config, in a sandbox where the oracle takes the place of nginx."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from nginx_llm_lab import oracle
from nginx_llm_lab.accounts import outcome
from nginx_llm_lab.accounts.judging import judge
from nginx_llm_lab.experiment import collect
from nginx_llm_lab.nginxconf import tree, variables
from nginx_llm_lab.nginxconf.model import Upstream
from nginx_llm_lab.nginxconf.upstream import read
from nginx_llm_lab.oracle import Arrival
from nginx_llm_lab.verdict import Verdict
from nginx_llm_lab.verify import failover, judging
from nginx_llm_lab.verify.judging import Run
from nginx_llm_lab.verify.result import UpstreamVerdict
from nginx_llm_lab.verify.survey import survey
from nginx_llm_lab.verify.traffic import templates
from nginx_llm_lab.word import Word
from tests.verify.configs import ROUND_ROBIN, written

if TYPE_CHECKING:
    from nginx_llm_lab.verify.sandbox import Sandbox


PASS = UpstreamVerdict("u", "nginx.conf:3", Verdict(Word.PASS, "least_conn", "a: 1, b: 1", "exact"))
FAIL = UpstreamVerdict("u", "nginx.conf:3", Verdict(Word.FAIL, "least_conn", "a: 2", "not even"))


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run folders go to a place of the test's own."""
    monkeypatch.setattr(collect, "runs_folder", lambda: tmp_path / "runs")


class Play:
    """A sandbox without nginx: the oracle picks, by the claim that it is given."""

    def __init__(self, claim: Upstream, refuse: int = 0) -> None:
        self.picks = oracle.predict(claim, (Arrival() for _ in itertools.count()))
        self.refuse = refuse
        self.refusal = 401
        self.held: list[str] = []
        self.closed: list[list[str]] = []
        self.targets: list[str] = []
        self.stubborn = False
        self.losing = False
        self.clock = 0.0
        self.files: dict[str, bytes] = {}
        self.traced = False

    def await_nginx(self, host: str, port: int) -> None:
        """It is always there."""

    def hold_workers(self, count: str) -> None:
        """Remember that it was asked for."""
        self.held.append(count)

    def refuse_connections(self, endpoints: Sequence[str]) -> None:
        """Remember which stub backends were closed."""
        self.closed.append(list(endpoints))

    def send(self, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Answer every planned, the first ones with a refusal."""
        self.targets += [planned["target"] for planned in plan["requests"]]
        return [self.answer(planned) for planned in plan["requests"]]

    def answer(self, planned: Mapping[str, Any]) -> dict[str, Any]:
        """One record."""
        self.clock += 1
        if self.refuse:
            self.refuse -= 1
            return {"id": planned["id"], "status": self.refusal, "server": "", "location": ""}
        times = dict.fromkeys(("sent", "received", "answered", "done"), self.clock)
        if self.losing and self.closed:
            return {"id": planned["id"], "status": 502, "server": "", "location": ""}
        server = next(self.picks).server
        while self.closed and server in self.closed[-1] and not self.stubborn:
            server = next(self.picks).server
        return {"id": planned["id"], "status": 200, "server": server, "cookie": "", **times}


class AnswersOnce(Play):
    """A sandbox whose servers get the first request only."""

    def answer(self, planned: Mapping[str, Any]) -> dict[str, Any]:
        """One record."""
        record = super().answer(planned)
        self.refuse = 10_000
        return record


def played(conf: Path, play: Play) -> tuple[UpstreamVerdict, ...]:
    """The verdicts on a config with this simulated nginx."""
    config = tree.read(conf)
    run = Run(cast("Sandbox", play), config, survey(config), seed=1)
    return tuple(judging.judge_all(run, lambda _: None))


def test_a_right_nginx_passes(tmp_path: Path) -> None:
    """Probing takes turns, and they are counted in."""
    conf = written(tmp_path, ROUND_ROBIN)

    (judged,) = played(conf, Play(read(conf), refuse=1))

    assert str(judged.verdict).startswith(
        "PASS   round_robin  127.0.0.1:8001: 201, 127.0.0.1:8002: 100  (exact over 301 hits; "
        "excludes: ip_hash, "
    ), judged.verdict
    assert judged.where == f"{conf}:1"
    assert judged.besides == "answered by nginx with 401: 1"


def test_turns_that_another_upstream_s_probes_took_are_not_counted(tmp_path: Path) -> None:
    """A rewrite that the lab does not follow leads them astray, so the first turn is unknown."""
    conf = written(
        tmp_path,
        "upstream a { server 10.0.0.1:80; server 10.0.0.2:80; }"
        " upstream b { server 10.0.1.1:80; server 10.0.1.2:80; server 10.0.1.3:80; }",
        "proxy_pass http://b; } rewrite ^/old/ /new last; location /old/ { proxy_pass http://a;",
    )

    a, b = played(conf, Play(read(conf, "b")))

    assert a.verdict.why.startswith("no request reached it: answered by 10.0.1.1:80: 3")
    assert b.verdict.word == "PASS", b.verdict
    assert b.verdict.why == "exact over 301 hits from turn 3"


def test_turns_that_auth_request_takes_of_another_upstream_are_not_counted(tmp_path: Path) -> None:
    """Its server also answers clients: which turn is their first cannot be known."""
    conf = written(
        tmp_path,
        "upstream u { server a:1; } upstream auth { server a:2; server a:3; }",
        "auth_request /auth; proxy_pass http://u; } location /auth { proxy_pass http://auth;",
    )
    config = tree.read(conf)
    run = Run(cast("Sandbox", Play(read(conf, "u"))), config, survey(config), seed=1)

    assert [run.fresh(upstream, ()) for upstream in run.upstreams] == [True, False]


def test_an_upstream_whose_turns_auth_request_takes_too_is_unsure(tmp_path: Path) -> None:
    """The client sees the server of its own request only."""
    servers = "upstream auth { server 10.0.1.1:80; server 10.0.1.2:80; }"
    conf = written(
        tmp_path,
        servers,
        "auth_request /auth; proxy_pass http://auth; }"
        " location = /auth { internal; proxy_pass http://auth;",
    )

    (judged,) = played(conf, Play(read(conf)))

    why = f"its turns are also taken by auth_request /auth ({conf}:1)"
    assert (judged.verdict.word, judged.verdict.why) == ("UNSURE", why)


def test_the_run_folder_of_an_upstream_is_judged_again(tmp_path: Path) -> None:
    """The same verdict, without Docker and without the config."""
    conf = written(tmp_path, ROUND_ROBIN)
    (judged,) = played(conf, Play(read(conf)))

    again = judge(Path(judged.folder))

    assert isinstance(again, outcome.Outcome)
    assert str(again.verdict) == str(judged.verdict)
    assert again.counts.agree


def test_fail_over_is_part_of_the_verdict(tmp_path: Path) -> None:
    """With the first server closed the second answers all."""
    conf = written(tmp_path, ROUND_ROBIN)
    play = Play(read(conf))

    (judged,) = played(conf, play)

    assert judged.failover == "without 127.0.0.1:8001: 127.0.0.1:8002 20 of 20"
    assert play.closed == [["127.0.0.1:8001"]]


def test_fail_over_follows_the_rules_of_the_location_that_requests_take(tmp_path: Path) -> None:
    """Two locations lead to one upstream, and only the other one retries."""
    conf = written(
        tmp_path,
        ROUND_ROBIN,
        "proxy_next_upstream off; proxy_pass http://u; } location /retried { proxy_pass http://u;",
    )
    play = Play(read(conf))
    play.losing = True

    (judged,) = played(conf, play)

    assert judged.verdict.word == "PASS", judged.verdict
    assert judged.failover.endswith("20 lost (proxy_next_upstream has no error)")


@pytest.mark.parametrize(
    ("block", "location", "needed", "hint"),
    [
        (
            "sticky learn create=$upstream_cookie_s lookup=$cookie_s zone=s:1m;",
            "proxy_pass http://u;",
            0,
            "bind by a cookie",
        ),
        ("", "limit_req zone=z; proxy_pass http://u;", 0, "remove limit_req"),
        ("", "proxy_pass http://u;", 0, "run it again"),
        ("", "proxy_pass http://u;", 81_200, "only about 81,200 requests would decide it"),
    ],
)
def test_the_hint_says_what_lets_the_evidence_decide(
    tmp_path: Path, block: str, location: str, needed: int, hint: str
) -> None:
    """Another run helps neither against a limit nor where the log lacks what decides."""
    conf = written(tmp_path, f"upstream u {{ server a; server b; {block} }}", location)
    config = tree.read(conf)
    run = Run(cast("Sandbox", Play(read(conf))), config, survey(config), seed=1)
    attempt = judging.UpstreamRun(run, read(conf), variables.read(config, "u"), {})
    (template, *_) = templates.candidates(run.survey.routes["u"][0], attempt.conf)

    unsure = Verdict(Word.UNSURE, "round_robin", "", "", needed=needed)

    assert hint in attempt.hint(template, unsure)


@pytest.mark.parametrize(
    ("location", "hint"),
    [
        ("proxy_pass http://u;", "relax the rule"),
        ("limit_req zone=z; proxy_pass http://u;", "remove limit_req"),
        ("limit_conn z 1; proxy_pass http://u;", "remove limit_conn"),
        ("proxy_cache c; proxy_pass http://u;", "switch proxy_cache off"),
        ("proxy_pass http://$drawn;", "give it a larger share"),
    ],
)
def test_the_hint_where_few_requests_arrive_names_what_answers_the_others(
    tmp_path: Path, location: str, hint: str
) -> None:
    """A limit, a cache, or chance."""
    drawn = "split_clients $request_id $drawn { 10% u; * v; }"
    conf = written(tmp_path, f"upstream u {{ server a; server b; }} {drawn}", location)
    config = tree.read(conf)
    run = Run(cast("Sandbox", Play(read(conf, "u"))), config, survey(config), seed=1)
    attempt = judging.UpstreamRun(run, read(conf, "u"), variables.read(config, "u"), {})
    (template, *_) = templates.candidates(run.survey.routes["u"][0], attempt.conf)

    assert hint in attempt.few_hint(template)


@pytest.mark.parametrize(("ordered", "word", "trials"), [(True, "FAIL", 1), (False, "PASS", 2)])
def test_a_fail_by_nginx_s_own_order_is_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ordered: bool, word: str, trials: int
) -> None:
    """Times that decide only some picks cannot outweigh an order in which all are known."""
    conf = written(tmp_path, "upstream u { least_conn; server a:1; server b:1; }")
    weighed = iter([(FAIL, ordered), (PASS, False)])
    asked: list[object] = []

    def weigh(*arguments: object) -> tuple[UpstreamVerdict, bool]:
        asked.append(arguments)
        return next(weighed)

    monkeypatch.setattr(judging.UpstreamRun, "weigh", weigh)
    monkeypatch.setattr(judging.UpstreamRun, "fail_over", lambda *arguments: arguments[-1])
    monkeypatch.setattr(judging.UpstreamRun, "reached", lambda *_: True)
    (judged,) = played(conf, Play(read(conf)))

    assert (judged.verdict.word, len(asked)) == (word, trials)


def test_traffic_that_does_not_fail_over_fails(tmp_path: Path) -> None:
    """A nginx that still asks the server that is down does not do what the config says."""
    conf = written(tmp_path, ROUND_ROBIN)
    play = Play(read(conf))
    play.stubborn = True

    (judged,) = played(conf, play)

    assert judged.verdict.word == "FAIL"
    assert judged.verdict.why == "fail-over: 127.0.0.1:8001 answered while it refused connections"


def test_a_wrong_nginx_fails(tmp_path: Path) -> None:
    """It uses equal weights although the config has two to one."""
    conf = written(tmp_path, ROUND_ROBIN)
    other = tmp_path / "other"
    other.mkdir()

    (judged,) = played(conf, Play(read(written(other, ROUND_ROBIN.replace("weight=2", "")))))

    assert judged.verdict.word == "FAIL"


@pytest.mark.parametrize(("refusal", "word"), [(401, "FAIL"), (500, "UNSURE")])
def test_requests_that_end_inside_nginx_leave_the_picks_unknown(
    tmp_path: Path, refusal: int, word: str
) -> None:
    """With too few worker_connections nginx picks a server and then answers 500."""
    conf = written(tmp_path, ROUND_ROBIN)
    other = tmp_path / "other"
    other.mkdir()
    play = Play(read(written(other, ROUND_ROBIN.replace("weight=2", ""))), refuse=2)
    play.refusal = refusal

    (judged,) = played(conf, play)

    assert judged.verdict.word == word
    assert ("worker_connections" in judged.hint) == (refusal == 500)


@pytest.mark.parametrize(("zone", "held"), [("", ["2"]), ("zone u 64k;", [])])
def test_only_workers_without_a_zone_are_held(tmp_path: Path, zone: str, held: list[str]) -> None:
    """With a zone all of them are one; without it one of them is judged."""
    conf = written(tmp_path, ROUND_ROBIN.replace("{", f"{{ {zone}"))
    play = Play(read(conf))

    played(conf, play)

    assert play.held == held


def test_upstreams_with_a_zone_are_judged_before_workers_are_held(tmp_path: Path) -> None:
    """They are to be seen with all workers at work, and are told in the order of the config."""
    upstreams = ROUND_ROBIN + "upstream z { zone z 64k; server 127.0.0.1:8001; }"
    maps = "map $arg_to $to { default u; z z; }"
    conf = written(tmp_path, upstreams + maps, "proxy_pass http://$to;")
    play = Play(read(conf, "u"))
    progress: list[tuple[str, int]] = []
    config = tree.read(conf)
    run = Run(cast("Sandbox", play), config, survey(config), seed=1)

    told = list(judging.judge_all(run, lambda text: progress.append((text, len(play.held)))))

    assert progress == [("upstream z: round_robin", 0), ("upstream u: round_robin", 0)]
    assert [judged.upstream for judged in told] == ["u", "z"]
    assert play.held == ["2"]


def test_an_upstream_that_no_request_reaches_is_unsure(tmp_path: Path) -> None:
    """The reason lists the responses that came back instead."""
    conf = written(tmp_path, ROUND_ROBIN)

    (judged,) = played(conf, Play(read(conf), refuse=10_000))

    assert judged.verdict.word == "UNSURE"
    assert judged.verdict.why.startswith("no request reached it: answered by nginx with 401: ")


@pytest.mark.parametrize(
    ("location", "why", "hint"),
    [
        (
            "allow 10.8.0.0/16; deny all; proxy_pass http://u;",
            "; deny all ({0}:1) is in effect there",
            "write allow 127.0.0.0/8; before that line",
        ),
        (
            "if ($far) { return 403; } proxy_pass http://u;",
            "; if ($far) ({0}:1) is in effect there",
            "give the lab's clients the value in geo $far ({0}:1), as 127.0.0.0/8 VALUE",
        ),
        (
            "if ($uri ~ ^/) { return 403; } proxy_pass http://u;",
            "; if ($uri ~ ^/) ({0}:1) is in effect there",
            "relax the rule that answers instead",
        ),
        (
            "if ($near) { proxy_pass http://u; }",
            "",
            "give the lab's clients the value in geo $near ({0}:1)",
        ),
        (
            "if ($invalid_referer) { return 403; } proxy_pass http://u;",
            "; if ($invalid_referer) ({0}:1) is in effect there",
            "relax the rule that answers instead",
        ),
        (
            "proxy_bind $remote_addr transparent; proxy_pass http://u;",
            "; proxy_bind needs an address that the lab's nginx lacks",
            "leave proxy_bind out",
        ),
        ("proxy_pass http://$to;", "map $near $to ({0}:1) leads to it", "in geo $near ({0}:1)"),
        (
            "proxy_pass http://$by_name;",
            '; variable "$ssl_client_s_dn" cannot be told from the request',
            "choose it by a header",
        ),
    ],
)
def test_what_keeps_the_lab_s_requests_out_is_named_with_a_way_out(
    tmp_path: Path, location: str, why: str, hint: str
) -> None:
    """`deny`, a `geo` that decides directly, by an `if` or by a map, a certificate's name."""
    geo = "geo $far { default 1; 10.0.0.0/8 0; } geo $near { default 0; 10.0.0.0/8 1; }"
    maps = "map $near $to { 1 u; 0 v; } map $ssl_client_s_dn $by_name { ~CN u; }"
    conf = written(tmp_path, f"{ROUND_ROBIN} {geo} {maps}", location)
    play = Play(read(conf, "u"), refuse=10_000)
    play.refusal = 500 if "proxy_bind" in location else 403

    (judged,) = played(conf, play)

    assert judged.verdict.word == "UNSURE"
    assert judged.verdict.why.endswith(why.format(conf))
    assert hint.format(conf) in judged.hint


@pytest.mark.parametrize(
    ("location", "hint"),
    [
        ("proxy_pass http://u;", "relax the rule"),
        ("proxy_pass http://$to;", "$request_body is empty there"),
        ("if ($request_body ~ llama) { proxy_pass http://u; }", "$request_body is empty there"),
    ],
)
def test_a_body_that_is_to_choose_the_upstream_is_the_reason(
    tmp_path: Path, location: str, hint: str
) -> None:
    """nginx evaluates `if` and `proxy_pass` before it reads the body."""
    conf = written(tmp_path, f"{ROUND_ROBIN} map $request_body $to {{ ~llama u; }}", location)

    (judged,) = played(conf, Play(read(conf, "u"), refuse=10_000))

    assert hint in judged.hint


@pytest.mark.parametrize(
    ("upstreams", "location", "why"),
    [
        (
            "upstream u { server 127.0.0.1; }",
            "proxy_pass http://u;",
            "server 127.0.0.1: nginx itself listens there (listen *:80)",
        ),
        (
            "upstream u { server 10.0.0.1 down; server 10.0.0.2 down; }",
            "proxy_pass http://u;",
            "every server is marked down, so nginx answers 502",
        ),
        (
            "upstream u { server 10.0.0.1; server 10.0.0.1; }",
            "proxy_pass http://u;",
            "two servers have the same address and cannot be distinguished",
        ),
        (
            "upstream u { server 10.0.0.1; server 10.0.0.1:80; }",
            "proxy_pass http://u;",
            "two servers have the same address and cannot be distinguished",
        ),
        (
            "upstream u { zone u 64k; resolver 127.0.0.1; server a service=http resolve; }",
            "proxy_pass http://u;",
            "server a service=http resolve: the lab's name server has no SRV records",
        ),
        (
            "upstream u { hash $msec; server a; server b; }",
            "proxy_pass http://u;",
            'variable "$msec" cannot be told from the request',
        ),
    ],
)
def test_what_cannot_be_judged_says_why(
    tmp_path: Path, upstreams: str, location: str, why: str
) -> None:
    """The verdict is UNSURE and names the reason."""
    conf = written(tmp_path, upstreams, location)
    play = Play(read(written(tmp_path, upstreams, location)))
    play.picks = iter(cast("Any", [oracle.Pick("198.18.0.1:80", ())] * 1_000))

    (judged,) = played(conf, play)

    assert (judged.verdict.word, judged.verdict.why) == ("UNSURE", why)


def test_nearly_everything_answered_by_others_is_unsure(tmp_path: Path) -> None:
    """A single hit agrees with the prediction, but proves nothing."""
    conf = written(tmp_path, ROUND_ROBIN)

    (judged,) = played(conf, AnswersOnce(read(conf)))

    assert (judged.verdict.word, judged.verdict.why) == ("UNSURE", "1 of 301 requests reached it")


def test_a_host_without_a_block_has_no_verdict_unless_it_is_assumed(tmp_path: Path) -> None:
    """PASS for a typo would exit with 0 although nginx does not start."""
    conf = written(tmp_path, "upstream llm { server 127.0.0.1:8001; }", "proxy_pass http://llms;")
    config = tree.read(conf)
    address = survey(config).names["llms"]
    verdicts: list[UpstreamVerdict] = []
    for assumed in ((), ("llms",)):
        play = Play(read(conf, "llms"))
        play.picks = iter(cast("Any", [oracle.Pick(f"{address}:80", ())] * 1_000))
        run = Run(cast("Sandbox", play), config, survey(config), 1, assumed)
        verdicts += judging.judge_all(run, lambda _: None)

    assert [judged.verdict.word for judged in verdicts] == ["UNSURE", "PASS"]
    assert 'is upstream "llm" meant?' in verdicts[0].hint


def test_only_the_named_upstreams_are_judged(tmp_path: Path) -> None:
    """The others get no request."""
    conf = written(tmp_path, ROUND_ROBIN)
    survey_result = survey(tree.read(conf))
    run = Run(cast("Sandbox", Play(read(conf))), tree.read(conf), survey_result, 1, only=("v",))

    assert not list(judging.judge_all(run, lambda _: None))


def test_more_requests_are_sent_where_they_decide(tmp_path: Path) -> None:
    """At 1000:1, 300 requests give the second server one turn at most, as random_two may."""
    conf = written(tmp_path, "upstream u { server 10.0.0.1:80 weight=1000; server 10.0.0.2:80; }")
    play = Play(read(conf))

    (judged,) = played(conf, play)

    assert judged.verdict.word == "PASS", judged
    assert judged.verdict.hits > 1_000


def test_an_upstream_of_http_and_https_is_judged_by_the_requests_of_https(tmp_path: Path) -> None:
    """Its stub backends speak TLS only, so the other requests would be 502."""
    conf = written(
        tmp_path,
        ROUND_ROBIN,
        "proxy_pass http://u; } location /secure/ { proxy_pass https://u;",
    )
    play = Play(read(conf))

    (judged,) = played(conf, play)

    assert judged.verdict.word == Word.PASS
    assert len(play.targets) > failover.REQUESTS
    assert all(target.startswith("/secure/") for target in play.targets)


@pytest.mark.parametrize(
    ("http", "location", "why"),
    [
        (
            "server { return 204; }",
            "proxy_pass http://u;",
            "nginx ignores its server ({0}:1): another with the same names on the same port comes"
            " before ({0}:1)",
        ),
        (
            "",
            "set $who $arg_user; try_files /none @u; } location @u { proxy_pass http://u;",
            'the lab does not follow "set" in {0}:1',
        ),
    ],
)
def test_what_another_block_decides_is_named_with_its_place(
    tmp_path: Path, http: str, location: str, why: str
) -> None:
    """A server of the same name, a `set` in the location before."""
    conf = written(tmp_path, f"upstream u {{ hash $who; server a; server b; }} {http}", location)
    play = Play(read(conf))
    play.picks = iter(cast("Any", [oracle.Pick("198.18.0.1:80", ())] * 1_000))

    (judged,) = played(conf, play)

    assert (judged.verdict.word, judged.verdict.why) == ("UNSURE", why.format(conf))


def test_no_request_of_the_fail_over_has_been_sent_before(tmp_path: Path) -> None:
    """A cache may have the response of one that was, from the server that refuses now."""
    servers = "upstream u { server 127.0.0.1:8001; server 127.0.0.1:8002; }"
    conf = written(tmp_path, servers)
    play = Play(read(conf))

    played(conf, play)

    assert len(play.targets) > failover.REQUESTS
    assert len(play.targets) == len(set(play.targets))
