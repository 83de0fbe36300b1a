"""The command `lab`: parse the command line, call the lab once, print a table or JSON.

VERBS names the module of each verb. A verb is the function of that name in it. Its module, and the
libraries that the module needs, are imported when the verb is called: `lab --help` imports none.
"""

import ast
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import cache, wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from ..errors import LabError, UsageError
from ..signals import INTERRUPTIONS, Terminated, signals_held, terminate
from ..word import Word
from .words import convert_lazily

if TYPE_CHECKING:
    from typer._click import Context

VERBS = {
    "up": "fleet",
    "down": "fleet",
    "status": "fleet",
    "methods": "methods",
    "use": "use",
    "ab": "measure",
    "split": "split",
    "run": "measure",
    "judge": "judge",
    "power": "power",
    "demo": "measure",
    "chat": "clients",
    "complete": "clients",
    "stress": "clients",
    "predict": "predict",
    "whatif": "whatif",
    "report": "report",
    "verify": "verify",
    "scenarios": "load",
    "load": "load",
    "compare": "compare",
    "simulate": "simulate",
    "advise": "advise",
    "fault": "faults",
    "heal": "faults",
    "soak": "soak",
    "bench": "bench",
    "sbom": "fleet",
    "setup": "setup",
    "logs": "runs",
    "runs": "runs",
}
# only one of these may run on a lab at a time; faults and read-only verbs may run meanwhile
EXCLUSIVE = frozenset(
    {"up", "down", "use", "ab", "run", "demo", "stress", "load", "compare", "soak"}
)
HELP = """A lab for nginx load balancing of LLM services: it predicts nginx's picks, sends real
traffic, and reports PASS, FAIL or UNSURE.

Start with: lab up; lab run round_robin.

Exit codes: 0 the claim holds, 1 it does not (or cannot be decided), 2 wrong usage, 3 the lab could
not run or nginx refuses the configuration.
"""


def main() -> None:
    """Run the command; a LabError becomes two lines and an exit code, never a traceback."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        command()()
    except UsageError as error:
        fail(error, 2)
    except LabError as error:
        fail(error, 3)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a full disk, a folder that cannot be written
        where = f"{error.filename}: " if error.filename else ""
        fail(
            LabError(f"{where}{error.strerror or error}", "fix this, then run the command again"), 3
        )
    except Terminated:
        sys.exit(143)
    except KeyboardInterrupt:
        sys.exit(130)


def fail(error: LabError, code: int) -> None:
    """Print the error on stderr, report it to CI if asked to, and exit with `code`."""
    typer.echo(str(error), err=True)
    report_to_ci(error, sys.argv[1:])
    sys.exit(code)


def report_to_ci(error: LabError, words: list[str]) -> None:
    """Write the JUnit file and the annotation that the command line asks for."""
    from ..report import github, junit  # only where something went wrong

    text = " ".join(words).replace("--junit=", "--junit ")
    if match := re.search(r"--junit (\S+)", text):
        case = {"name": f"lab {text}", "word": Word.UNSURE, "text": str(error)}
        with suppress(OSError):
            junit.write_junit([case], Path(match[1]))
    if "--github" in words:
        typer.echo(github.annotation("error", error.message, error.message))


def command() -> TyperGroup:
    """The command with every verb in it; no verb's module is imported yet."""
    convert_lazily()
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=HELP,
    )
    app.callback()(global_options)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)  # an app with a callback is a group
    for name in VERBS:
        group.add_command(Verb(name))
    return group


class Verb(TyperCommand):
    """A verb whose module is imported when the verb is called, not when it is listed."""

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first line of the verb's docstring, read from the source."""
        self.help = docstrings(VERBS[str(self.name)])[str(self.name)]
        return super().get_short_help_str(limit)

    def make_context(
        self, info_name: str | None, args: list[str], parent: "Context | None" = None, **extra: Any
    ) -> "Context":
        """The context of the verb's command for these arguments."""
        words = ["lab", str(self.name), *args]
        with signals_held():
            module = import_module(f".{VERBS[str(self.name)]}", __name__)
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(str(self.name))(
            prints_interruption_notes(getattr(module, str(self.name)), words)
        )
        context = typer.main.get_command(single).make_context(info_name, args, parent, **extra)
        if self.name in EXCLUSIVE and not context.resilient_parsing:
            context.with_resource(lock_of_lab(words))
        return context


def prints_interruption_notes(verb: Callable[..., None], words: list[str]) -> Callable[..., None]:
    """The verb; if it is interrupted, it prints the notes of the interruption on stderr."""

    @wraps(verb)
    def verb_with_notes(**options: Any) -> None:
        try:
            verb(**options)
        except INTERRUPTIONS as stopped:
            notes = getattr(stopped, "__notes__", [])
            for line in [*notes, *([f"to start over: {shlex.join(words)}"] if notes else [])]:
                typer.echo(line, err=True)
            if isinstance(stopped.__cause__, Terminated):  # typer ends a KeyboardInterrupt with 130
                raise Terminated from None
            raise

    return verb_with_notes


def lock_of_lab(words: list[str]) -> AbstractContextManager[None]:
    """The lock on the lab that the options name; it records the command line."""
    from ..stack import compose, lock  # needed by every verb that works on a lab, by no other

    return lock.held(compose.from_environment(), words)


@cache
def docstrings(module: str) -> dict[str, str]:
    """The docstring of each function of a module of this package, without importing it."""
    source = Path(__file__).with_name(f"{module}.py").read_text()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {function.name: ast.get_docstring(function) or "" for function in functions}


def print_version(wanted: bool) -> None:
    """Print the version of the installed package and exit."""
    if not wanted:
        return
    from importlib.metadata import version  # slow to import, and only --version needs it

    typer.echo(f"lab {version('nginx-llm-lab')}")
    raise typer.Exit


def global_options(
    project: Annotated[
        str,
        typer.Option(envvar="LAB_PROJECT", help="Compose project; each lab needs a different one."),
    ] = "",
    port: Annotated[str, typer.Option(envvar="LAB_PORT", help="Port of the front door.")] = "",
    door_port: Annotated[
        str, typer.Option(envvar="LAB_DOOR_PORT", help="Port of the lab door.")
    ] = "",
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options before the verb; they select one of several labs."""
    for name, value in (("PROJECT", project), ("PORT", port), ("DOOR_PORT", door_port)):
        if value:
            os.environ[f"LAB_{name}"] = value
