"""Options that several verbs share, each described once."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError
from ..nginxconf.prompt import MAP

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Junit = Annotated[Path | None, typer.Option(help="Write the verdicts as JUnit XML.")]
Seed = Annotated[int, typer.Option(help="Seed; the same seed sends the same requests.")]
Weights = Annotated[str, typer.Option(help="One weight for each backend: 3,2,1.")]
Key = Annotated[str, typer.Option(help="Hash key of the hash methods: '$arg_user'.")]
Measure = Annotated[str, typer.Option(help="What least_time measures: header or last_byte.")]
NextUpstream = Annotated[
    str,
    typer.Option(help="When nginx tries the next server: 'error timeout http_500 non_idempotent'."),
]
Characters = Annotated[
    int, typer.Option(help="Number of prompt characters that prompt_prefix hashes.")
]
Skip = Annotated[
    int, typer.Option(help="Characters at the start of each prompt that prompt_prefix skips.")
]
PromptReader = Annotated[
    str, typer.Option(help="How nginx reads the prompt: map (any nginx) or njs (needs the module).")
]
Zone = Annotated[
    bool, typer.Option(help="Use a zone, which shares the balancing state between workers.")
]
ScenarioName = Annotated[
    str, typer.Argument(help="A name from `lab scenarios`, or the path of a YAML file.")
]
Duration = Annotated[
    float, typer.Option(help="Duration in seconds; default: the scenario's.", show_default=False)
]
TraceFile = Annotated[
    str,
    typer.Option(
        "--trace",
        help="Send a recorded trace: Mooncake JSONL, BurstGPT CSV or Azure LLM inference CSV.",
    ),
]
Speed = Annotated[
    float, typer.Option(help="Speed factor of the trace; 2 is twice as fast as recorded.")
]
Limit = Annotated[int | None, typer.Option(help="Send at most this many requests of a trace.")]


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """The balancing method, with every option that changes its configuration."""

    method: Annotated[str, typer.Argument(help="A method; `lab methods` lists them.")]
    weights: Weights = ""
    key: Key = ""
    measure: Measure = ""
    server_params: Annotated[
        list[str] | None,
        typer.Option(
            help="Server parameters for all ('max_fails=3') or one ('backend-2: down'); repeatable."
        ),
    ] = None
    next_upstream: NextUpstream = ""
    zone: Zone = True
    keepalive: Annotated[bool, typer.Option(help="Use keep-alive connections to the backends.")] = (
        True
    )
    characters: Characters = 200
    skip: Skip = 0
    reader: PromptReader = MAP


def check_writable(option: str, file: Path) -> None:
    """Raise UsageError if the file of an option is a folder, or in one that does not exist."""
    if file.is_dir():
        raise UsageError(f"{option} {file} is a folder", f"{option} {file / 'FILE'}")
    if not file.parent.is_dir():
        raise UsageError(f"{option} {file}: no folder {file.parent}", f"mkdir {file.parent}")


def names_in(text: str) -> tuple[str, ...]:
    """The names of an option that takes several, separated by commas."""
    return tuple(name.strip() for name in text.split(","))


def takes_method(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of MethodOptions; its first argument is the filled record."""
    shared = inspect.signature(MethodOptions).parameters
    others = list(inspect.signature(verb).parameters.values())[1:]

    @wraps(verb)
    def with_options(**words: Any) -> None:
        verb(MethodOptions(**{name: words.pop(name) for name in shared}), **words)

    with_options.__signature__ = inspect.Signature([*shared.values(), *others])  # type: ignore[attr-defined]  # inspect documents it
    return with_options
