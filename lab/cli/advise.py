"""`lab advise`: rank the methods for a fleet."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ..errors import UsageError
from ..report import scores
from ..simulate import log_advice
from ..simulate.advice import CANDIDATES
from ..simulate.advice import advise as advise_on
from ..whatif import replay, spread
from .compiling import announce_compiling
from .options import Json, check_writable
from .terminal import exit_unless, note, say, show, steps
from .whatif import name_of, read


def advise(
    fleet: Annotated[str, typer.Option(help="A YAML file: servers, rate, prompt, output …")] = "",
    log: Annotated[
        str, typer.Option(help="An access log, instead of --fleet; formats as in `lab whatif`.")
    ] = "",
    log_format: Annotated[
        str, typer.Option("--format", help="The log_format of the --log file.")
    ] = "",
    servers: Annotated[
        int | None, typer.Option(min=1, max=32, help="Number of servers for --log; default: 3.")
    ] = None,
    service_time: Annotated[
        float,
        typer.Option(help="Seconds that a request of --log takes if the log has no durations."),
    ] = 0.0,
    config: Annotated[Path | None, typer.Option(help="Write the nginx.conf to this file.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Run `lab verify` on the config; needs Docker.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Rank the methods for your fleet; print the nginx.conf to use.

    The file has `servers` (profiles, or {profile: h100-8b, slow: 2, count: 3, weight: 2}), `nginx`
    (its version), `nat` and the keys of a scenario: rate, prompt, output, tenants, sessions,
    clients. With --log, an access log is replayed instead, and the methods are ranked by the most
    requests that any server has in flight.
    """
    if bool(fleet) == bool(log):
        raise UsageError("give either --fleet or --log", "lab advise --fleet FILE.yaml")
    if fleet and (log_format or servers is not None or service_time):
        raise UsageError(
            "--format, --servers and --service-time are for --log",
            "leave them out: the fleet file lists its servers",
        )
    if config:
        check_writable("--config", config)
    if fleet:
        announce_compiling()
        with steps("simulated") as on_run:
            advice = advise_on(fleet, on_run)
        data, text, conf = advice.as_dict(), scores.advice(advice), advice.config
    else:
        from_log = _of_log(log, log_format, servers or 3, service_time)
        data, text, conf = from_log.as_dict(), scores.log_advice(from_log), from_log.config
    if config:
        config.write_text(conf)
    show(data) if as_json else say(text)
    if verify:
        exit_unless(_verified(conf, config, fleet or log))


def _of_log(log: str, log_format: str, servers: int, service_time: float) -> log_advice.LogAdvice:
    """Replay a log by the methods whose input it contains, and rank them."""
    with read(log) as stream:
        traffic = spread.traffic(
            stream, log_format=log_format, seconds=service_time, source=name_of(log)
        )
    if not (traffic.timed or service_time):
        raise UsageError(
            f"log {name_of(log)} has no durations, so no request overlaps another",
            "log $request_time, or give --service-time 5",
        )
    names = [f"backend-{number}" for number in range(1, servers + 1)]
    replayed = replay.whatif(traffic, list(CANDIDATES), names, service_time=service_time)
    return log_advice.advise(replayed, names)


def _verified(text: str, kept: Path | None, source: str) -> bool:
    """Whether nginx balances as the config says; the verdict is printed on stderr.

    A config that is not saved is named after the file that it was made for.
    """
    # needs Docker, as only --verify does
    from ..verify.verification import renamed
    from ..verify.verification import verify as judge_conf

    with TemporaryDirectory() as folder:
        conf = kept or Path(folder) / "nginx.conf"
        conf.write_text(text)
        verification = judge_conf(conf, seed=1, assumed=["backend-*"], only=(), on_progress=note)
    if not kept:
        named = renamed(verification, str(conf), "nginx.conf")
        verification = replace(named, conf=f"nginx.conf for {source}")
    note(str(verification))
    return verification.accepted(allow_unsure=False)
