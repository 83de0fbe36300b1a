"""Set-up names the failed step and the next step."""

import shutil

import pytest

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.setup import apt, steps


def test_a_failing_step_is_named():
    """With the hint of what failed."""

    def fail() -> str:
        raise LabError("it broke", "repair it")

    with pytest.raises(LabError) as caught:
        steps.step("engine", fail)

    assert str(caught.value) == "error: set-up step engine: it broke\ntry:   repair it"


def test_no_engine_and_no_way_to_install_one_is_an_error(monkeypatch):
    """It says what to install."""
    monkeypatch.setattr(steps, "engine_version", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(apt, "available", lambda: False)

    with pytest.raises(LabError, match="neither apt nor root") as caught:
        steps.engine()

    assert "Compose v2" in caught.value.hint


def test_an_engine_may_be_forbidden(monkeypatch):
    """LAB_ENGINE=never."""
    monkeypatch.setattr(steps, "engine_version", lambda: None)
    monkeypatch.setenv("LAB_ENGINE", "never")

    with pytest.raises(LabError, match="LAB_ENGINE=never"):
        steps.engine()


def test_an_engine_that_is_too_old_is_refused(monkeypatch):
    """20.10 or newer."""
    monkeypatch.setattr(steps, "engine_version", lambda: "19.03.5")

    with pytest.raises(LabError, match=r"19\.03\.5 is too old"):
        steps.engine()


def test_compose_v1_alone_is_refused(monkeypatch):
    """It says so, and what to install."""
    monkeypatch.setattr(steps, "compose_version", lambda: None)
    monkeypatch.setattr(steps, "install_compose", lambda: None)
    monkeypatch.setattr(steps, "works", lambda command: command[0] == "docker-compose")

    with pytest.raises(LabError, match="Compose v1"):
        steps.compose()


def test_a_full_disk_is_seen_before_anything_is_begun(monkeypatch, tmp_path):
    """How much there is, how much it takes."""
    monkeypatch.setattr(steps, "VENV", tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))

    with pytest.raises(LabError, match="2 GiB needed"):
        steps.disk()


def test_an_unknown_flavour_of_nginx_is_refused(monkeypatch):
    """mainline or debian."""
    monkeypatch.setenv("NGINX", "plus")

    with pytest.raises(LabError, match='NGINX="plus"'):
        steps.images()


def test_the_image_sources_are_all_there():
    """A file that the digest misses would never be rebuilt."""
    names = {file.name for file in steps.source_files()}

    assert {"Dockerfile", "features.sh", "engine.py", "requirements.lock"} <= names


def test_the_digest_changes_with_a_file(tmp_path):
    """And only then."""
    file = tmp_path / "a"
    file.write_text("1")
    before = steps.digest([file])

    assert steps.digest([file]) == before
    file.write_text("2")
    assert steps.digest([file]) != before


def test_modules_are_compiled_without_the_packages_tests(tmp_path):
    """A file that this Python cannot compile stops nothing."""
    package = tmp_path / "site-packages/package"
    (package / "tests").mkdir(parents=True)
    for name in ("good.py", "tests/test_good.py"):
        (package / name).write_text("number = 1\n")
    (package / "bad.py").write_text("print 1\n")

    steps.compile_modules([tmp_path])

    compiled = {file.name.split(".")[0] for file in tmp_path.rglob("*.pyc")}
    assert compiled == {"good"}
