"""What verbs print."""

from nginx_llm_lab.cli import terminal


def test_escape_sequences_of_clients_are_shown_not_executed() -> None:
    """Escape sequences in a log are printed escaped; lines and tabs stay."""
    assert terminal.visible("a\x1b[2Jb\x9bc\r\n\td") == r"a\x1b[2Jb\x9bc\x0d" + "\n\td"


def test_the_lab_s_own_colours_stay() -> None:
    """A verdict that opens a line is coloured after that."""
    assert terminal.coloured("PASS   hash").startswith("\x1b[32m")
