"""A listener of nginx gives way to the stub backend of a server with the same address."""

from pathlib import Path

import pytest

from nginx_llm_lab.nginxconf import tree
from nginx_llm_lab.verify.survey import relocation, survey

TEXT = """events {{}}
http {{
    upstream u {{ server {server}; server 10.0.0.1:20000; }}
    server {{ listen 10.0.0.9:8081; location / {{ proxy_pass http://u; }} }}
    # listen 127.0.0.1:8081;
    server {{ listen
        {listen} default_server; listen 8082;
        return 204;
    }}
}}
"""


def relocated(tmp_path: Path, server: str, listen: str) -> tuple[list[relocation.Move], str]:
    """The moves for a config, and its text after them."""
    file = tmp_path / "nginx.conf"
    file.write_text(TEXT.format(server=server, listen=listen))
    config = tree.read(file)
    moves = list(relocation.moves(config, survey(config)))
    text = relocation.rewritten(file.read_bytes(), moves).decode()
    file.write_text(text)
    # the tree and the file agree
    assert relocation.moved(config, moves) == tree.read(file)
    return moves, text


@pytest.mark.parametrize(
    ("server", "listen", "new"),
    [
        ("127.0.0.1:8081", "127.0.0.1:8081", "127.0.0.1:20001"),
        ("127.0.0.1:8081", "8081", "20001"),
        ("127.0.0.1:8081", "*:8081", "20001"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1:20001"),
        ("[::1]:8081", "[::]:8081", "[::]:20001"),
        ("localhost:8081", "localhost:8081", "localhost:20001"),
        ("unix:/run/a.sock", "unix:/run/a.sock", "unix:/run/a.sock.nginx"),
    ],
)
def test_a_listener_moves_to_a_free_place(
    tmp_path: Path, server: str, listen: str, new: str
) -> None:
    """No server's port and no listener's; nothing else of the file changes, no line moves."""
    moves, text = relocated(tmp_path, server, listen)

    assert [move.new for move in moves] == [new]
    assert text == TEXT.format(server=server, listen=new)
    assert str(moves[0]).endswith(f":6): moved to {new}, as a stub backend listens there")


@pytest.mark.parametrize(
    ("server", "listen"),
    [
        ("127.0.0.1:8083", "8081"),  # nobody's address
        ("127.0.0.1:8081 down", "8081"),  # never asked
        ("127.0.0.1:8085", "8084-8086"),  # a range has no single port
    ],
)
def test_other_listeners_stay(tmp_path: Path, server: str, listen: str) -> None:
    """Without a move the file is as it was."""
    moves, text = relocated(tmp_path, server, listen)

    assert moves == []
    assert text == TEXT.format(server=server, listen=listen)


def test_listeners_that_share_a_port_still_share_it(tmp_path: Path) -> None:
    """Server blocks are told apart by the host's name."""
    file = tmp_path / "nginx.conf"
    file.write_text(
        "events {} http { upstream u { server 127.0.0.1:8081; server 127.0.0.1:80; }"
        " server { listen 80; location / { proxy_pass http://u; } } server { listen 8081; }"
        " server { listen 80; server_name b; return 204; } }"
    )
    config = tree.read(file)

    moves = list(relocation.moves(config, survey(config)))

    assert [move.new for move in moves] == ["20000", "20001", "20000"]
