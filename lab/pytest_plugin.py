"""A `lab` fixture for acceptance tests: use a method, send traffic, assert the split."""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .accounts.outcome import Outcome
    from .nginxconf.methods import Choice
    from .nginxconf.prompt import Prefix
    from .stack.compose import Lab
    from .stack.nginx import Switch


class LiveLab:
    """A running lab for tests; `lab` is its project and doors."""

    def __init__(self, lab: "Lab") -> None:
        self.lab = lab
        self._choice: Choice | None = None
        self._fresh = False

    def use(
        self,
        method: str,
        weights: Sequence[int] = (),
        key: str = "",
        measure: str = "",
        server_params: Sequence[str] = (),
        next_upstream: str = "",
        zone: bool = True,
        keepalive: bool = True,
        prefix: "Prefix | None" = None,
    ) -> "Switch":
        """Switch the method, as `lab use` does; nginx counts from zero afterwards."""
        from .experiment import fleet
        from .nginxconf import methods
        from .nginxconf.prompt import Prefix

        choice = fleet.choose(
            self.lab,
            method,
            weights=tuple(weights),
            key=key,
            measure=measure,
            parameters=methods.parse_parameters(server_params),
            next_upstream=next_upstream,
            zone=zone,
            keepalive=keepalive,
            prefix=prefix or Prefix(),
        )
        switch = fleet.use(self.lab, choice)
        self._choice, self._fresh = choice, True
        return switch

    def send(self, requests: int = 0, concurrency: int = 0, seed: int = 1) -> "Outcome":
        """Send the traffic that the method needs and judge it against the prediction.

        Without a number, as many requests as a PASS needs. nginx is reloaded first, so turns start
        from zero, and logs its own picks if it was built with a debug log.
        """
        from .experiment import run
        from .nginxconf import methods
        from .traffic import probes

        choice = self._choice
        if choice is None:
            self.use(methods.DEFAULT.name)
            choice = self._choice
        assert choice is not None
        key = choice.key or methods.method(choice.method).key
        count = requests or run.requests_needed(choice)
        plan = probes.plan(choice.method, key, count, seed, concurrency)
        fresh, self._fresh = self._fresh, False
        if fresh and plan.concurrency == 1:  # needs neither a reload nor nginx's own order
            return run.observe_plan(self.lab, choice, plan)
        return run.run_plan(self.lab, choice, plan)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the number of backends."""
    group = parser.getgroup("lab", "nginx-llm-lab")
    group.addoption("--lab-backends", type=int, default=3, help="backends of the `lab` fixture")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[LiveLab]:
    """A healthy lab with a separate project name and ports, taken down afterwards."""
    from .experiment import fleet
    from .stack import compose

    here = compose.Lab(f"lab-test-{os.getpid()}", compose.free_port(), compose.free_port())
    fleet.up(here, request.config.getoption("--lab-backends"))
    try:
        yield LiveLab(here)
    finally:
        compose.down(here)
