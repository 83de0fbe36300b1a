"""Backends to talk to."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nginx_llm_lab.backends.llm.settings import Settings
from tests.backends.serving import Running, serve


def settings(**given: Any) -> Settings:
    """Settings for a backend on loopback ports of its own."""
    usual = {"host": "127.0.0.1", "port": 0, "behaviour_port": 0, "journal_pause": 0.0}
    return Settings("backend-1", **{**usual, **given})


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """A function that starts a backend with the given settings; all stop at the end."""
    running: list[Iterator[Running]] = []

    def begin(**given: Any) -> Running:
        iterator = serve(settings(**given))
        running.append(iterator)
        return next(iterator)

    yield begin
    for iterator in running:
        assert next(iterator, None) is None


@pytest.fixture(scope="session")
def shared() -> Iterator[Running]:
    """One backend for all tests that can do with the defaults."""
    yield from serve(settings())


@pytest.fixture
def lab(shared: Running) -> Iterator[Running]:
    """A backend as it is by default: instant, healthy, nothing written yet."""
    shared.reset()
    yield shared
    shared.reset()
