"""`lab advise`: rank the methods for a fleet."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ..report import scores
from ..simulate.advice import advise as advise_on
from .options import Json
from .terminal import exit_unless, say, show, warn


def advise(
    fleet: Annotated[str, typer.Option(help="A YAML file: servers, rate, prompt, output …")],
    config: Annotated[Path | None, typer.Option(help="Write the nginx.conf to this file.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Run `lab verify` on the config; needs Docker.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Rank the methods for your fleet; print the nginx.conf to use.

    Every method is simulated on the fleet with its load. The fleet file has `servers` (profiles, or
    {profile: h100-8b, slow: 2, count: 3}), `nginx` (its version), `nat` and the keys of a scenario:
    rate, prompt, output, tenants, sessions, clients.
    """
    advice = advise_on(fleet)
    if config:
        config.write_text(advice.config)
    show(advice.as_dict()) if as_json else say(scores.advice(advice))
    if verify:
        exit_unless(_verified(advice.config, config))


def _verified(text: str, kept: Path | None) -> bool:
    """Whether nginx balances as the config says; the verdict is printed on stderr."""
    from ..verify.verification import verify as judge_conf  # needs Docker, as only --verify does

    with TemporaryDirectory() as folder:
        conf = kept or Path(folder) / "nginx.conf"
        conf.write_text(text)
        verification = judge_conf(conf, seed=1, assumed=["backend-*"], only=(), on_progress=warn)
    warn(str(verification))
    return verification.accepted(allow_unsure=False)
