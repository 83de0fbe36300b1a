"""The table of fault kinds, and the page that shows it."""

from pathlib import Path

import pytest

from nginx_llm_lab import fault_kinds
from nginx_llm_lab.fault_kinds import KINDS, By, FaultKind
from nginx_llm_lab.traffic.scenario_timeline import FAULTS

PAGE = (Path(__file__).parents[1] / "docs/faults.md").read_text()
NGINX_TOO = {By.ENGINE: "yes", By.BACKEND: "", By.NGINX: "only nginx"}


def value_of(kind: FaultKind) -> str:
    """A kind's value as the page writes it."""
    if kind.value is None:
        return ""
    numbers = f"{kind.value.usual:g}, {kind.value.least:g} to {kind.value.most:,g}"
    return f"{kind.value.meaning}: {numbers}"


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_the_page_on_faults_has_the_kind_and_what_it_does(kind):
    """docs/faults.md has both rows of each record."""
    row = f"| {kind.name} | {kind.what} | {value_of(kind)} | {NGINX_TOO[kind.by]} |"
    effects = [kind.get, kind.post or "the same", kind.stream or "the same"]

    assert row in PAGE
    assert f"| {kind.name} | {' | '.join(effects)} |" in PAGE


def test_a_timeline_names_every_fault_but_the_reload_which_is_a_verb_of_its_own():
    """`do: reload` reloads nginx."""
    assert set(FAULTS) == set(KINDS) - {"reload"}


def test_the_help_names_every_kind():
    """`lab fault --help` shows it."""
    words = fault_kinds.help_text()

    assert [name for name in KINDS if f"\n  {name} " not in words] == []


def test_a_fault_that_fails_no_request_explains_none():
    """A request that failed beside a reload has another reason."""
    assert fault_kinds.failures("reload") == frozenset()
    assert fault_kinds.failures("refuse_health") == frozenset()
