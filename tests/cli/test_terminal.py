"""What verbs print."""

from nginx_llm_lab.cli import terminal


def test_what_a_client_sent_cannot_drive_the_terminal() -> None:
    """Escape sequences in a log are shown, not obeyed; lines and tabs stay."""
    assert terminal.visible("a\x1b[2Jb\x9bc\r\n\td") == r"a\x1b[2Jb\x9bc\x0d" + "\n\td"


def test_the_lab_s_own_colours_stay() -> None:
    """A verdict that opens a line is coloured after that."""
    assert terminal.coloured("PASS   hash").startswith("\x1b[32m")
