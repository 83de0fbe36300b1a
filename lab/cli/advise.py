"""`lab advise`: rank the methods for a fleet."""

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
from .options import Json
from .terminal import exit_unless, say, show, warn
from .whatif import read


def advise(
    fleet: Annotated[str, typer.Option(help="A YAML file: servers, rate, prompt, output …")] = "",
    log: Annotated[
        str, typer.Option(help="An access log in place of a fleet, as `lab whatif` reads it.")
    ] = "",
    log_format: Annotated[str, typer.Option("--format", help="nginx's log_format of --log.")] = "",
    servers: Annotated[int, typer.Option(min=1, max=32, help="Servers for --log.")] = 3,
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
    if fleet:
        advice = advise_on(fleet)
        data, text, conf = advice.as_dict(), scores.advice(advice), advice.config
    else:
        from_log = _of_log(log, log_format, servers)
        data, text, conf = from_log.as_dict(), scores.log_advice(from_log), from_log.config
    if config:
        config.write_text(conf)
    show(data) if as_json else say(text)
    if verify:
        exit_unless(_verified(conf, config))


def _of_log(log: str, log_format: str, servers: int) -> log_advice.LogAdvice:
    """Replay a log by the methods that it shows, and rank them."""
    with read(log) as stream:
        traffic = spread.traffic(stream, "$request_uri", log_format)
    names = [f"backend-{number}" for number in range(1, servers + 1)]
    return log_advice.advise(replay.whatif(traffic, CANDIDATES, names), names)


def _verified(text: str, kept: Path | None) -> bool:
    """Whether nginx balances as the config says; the verdict is printed on stderr."""
    from ..verify.verification import verify as judge_conf  # needs Docker, as only --verify does

    with TemporaryDirectory() as folder:
        conf = kept or Path(folder) / "nginx.conf"
        conf.write_text(text)
        verification = judge_conf(conf, seed=1, assumed=["backend-*"], only=(), on_progress=warn)
    warn(str(verification))
    return verification.accepted(allow_unsure=False)
