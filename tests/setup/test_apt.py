"""The machine's own mirror is found in its apt sources, in either format."""

import pytest

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.setup import apt

DEB822 = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/some.gpg

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main
"""


def test_a_deb822_stanza_gives_its_address():
    """Source packages are of no use here."""
    stanzas = apt.deb822(DEB822)

    assert [entry["URIs"] for entry in stanzas] == ["http://mirror.example/debian"]


def test_a_one_line_source_keeps_its_key():
    """The signed-by option travels on."""
    text = "# no\ndeb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main\n"

    assert apt.one_line(text) == [
        {
            "URIs": "http://m.example/debian",
            "Suites": "bookworm",
            "Components": "main",
            "Signed-By": "/k.gpg",
        }
    ]


def test_another_suite_comes_through_the_same_mirror(monkeypatch):
    """Debian 13's packages by the address that serves Debian 12's."""
    monkeypatch.setattr(apt, "entries", lambda: apt.deb822(DEB822))
    monkeypatch.setattr(apt, "release", lambda: {"VERSION_CODENAME": "bookworm"})

    assert apt.source_line("trixie").endswith("http://mirror.example/debian trixie main")


def test_a_machine_without_such_a_source_is_an_error(monkeypatch):
    """Not a Debian, or no main archive."""
    monkeypatch.setattr(apt, "entries", list)
    monkeypatch.setattr(apt, "release", lambda: {"VERSION_CODENAME": "noble"})

    with pytest.raises(LabError, match="noble"):
        apt.source_line("trixie")
