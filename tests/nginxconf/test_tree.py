"""The config reader follows nginx's grammar, its includes and its places."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_llm_lab.errors import LabError, UsageError
from nginx_llm_lab.nginxconf import tree

TOKENS = ["{", "}", ";", " ", "\n", '"', "'", "\\", "#", "$", "upstream", "u", "include", "x"]


def conf(folder: Path, text: str, name: str = "nginx.conf") -> Path:
    """Write a config file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def test_every_directive_knows_its_place(tmp_path: Path) -> None:
    """A directive's place is the file and line on which it begins."""
    path = conf(tmp_path, "http {\n\n  map $a\n $b { x y; }\n}\n")

    (block,) = tree.read(path).block("http").all("map")

    assert block.where == f"{path}:3"
    assert block.args == ("$a", "$b")


def test_quotes_escapes_and_comments_are_nginx_own(tmp_path: Path) -> None:
    r"""Quotes vanish, \" \' \\ \t are undone, other backslashes stay, # opens a comment."""
    path = conf(tmp_path, 'a "b c" d\\"e \'f"g\' \\d+ "h\\\\i" j#k "" ü # l\n m;\r\n')

    (directive,) = tree.read(path).directives

    assert directive.args == ("b c", 'd"e', 'f"g', "\\d+", "h\\i", "j#k", "", "ü", "m")


def test_a_word_ends_where_nginx_ends_it(tmp_path: Path) -> None:
    """A "}" inside a word is a part of it, and so is a space that ASCII does not have."""
    path = conf(tmp_path, "hash a}b${c}d#e$f consistent;\nserver\u00a0a:1;\v x;")

    hashed, server, tab = tree.read(path).directives

    assert hashed.args == ("a}b${c}d#e$f", "consistent")
    assert server.name == "server\u00a0a:1"
    assert tab.name == "\v"


def test_bytes_that_are_not_utf_8_are_kept(tmp_path: Path) -> None:
    """A key of Latin-1 hashes as nginx hashes it; the bytes come back as they were."""
    path = tmp_path / "nginx.conf"
    path.write_bytes(b"# caf\xe9\nhash \xe9$uri;")

    (directive,) = tree.read(path).directives

    assert directive.args[0].encode("utf-8", "surrogateescape") == b"\xe9$uri"


def test_includes_start_at_the_main_file_s_folder(tmp_path: Path) -> None:
    """An include inside conf.d/ is relative to nginx.conf, as in nginx, and globs are sorted."""
    path = conf(tmp_path, "http { include conf.d/*.conf; z 3; }")
    conf(tmp_path, "b 2;", "conf.d/2.conf")
    conf(tmp_path, "include deep/a.inc;", "conf.d/1.conf")
    conf(tmp_path, "a 1;", "deep/a.inc")

    http = tree.read(path).block("http")

    assert [line.name for line in http.block or ()] == ["a", "b", "z"]
    assert [Path(line.file).name for line in http.block or ()] == ["a.inc", "2.conf", "nginx.conf"]


def test_what_etc_nginx_holds_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    """A repository keeps conf.d/ beside nginx.conf and mounts both at /etc/nginx."""
    path = conf(tmp_path, "include /etc/nginx/conf.d/*.conf;")
    conf(tmp_path, "a 1;", "conf.d/1.conf")

    assert [line.name for line in tree.read(path).directives] == ["a"]


def test_a_missing_include_is_listed(tmp_path: Path) -> None:
    """A plain include of nothing is named with its place; a pattern without files is no fault."""
    path = conf(tmp_path, "a 1;\ninclude nope.conf;\ninclude no/*.conf;\n")

    read = tree.read(path)

    assert [line.name for line in read.directives] == ["a"]
    assert [(include.pattern, include.where) for include in read.missing] == [
        (str(tmp_path / "nope.conf"), f"{path}:2")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1;\nb {\n", 'unexpected end of file, expecting "}" in nginx.conf:2'),
        ("a 1;\nb 2", 'unexpected end of file, expecting ";" or "}" in nginx.conf:2'),
        ("a {\n b 1\n}", 'unexpected "}" in nginx.conf:3'),
        ("a 1;\n}", 'unexpected "}" in nginx.conf:2'),
        ("a 1;\n;", 'unexpected ";" in nginx.conf:2'),
        ("{ a; }", 'unexpected "{" in nginx.conf:1'),
        ('a "b"c;', 'unexpected "c" in nginx.conf:1'),
        ("a 1; b", 'unexpected end of file, expecting ";" or "}" in nginx.conf:1'),
        ('a 1;\nb "2;', 'unexpected end of file, expecting ";" or "}" in nginx.conf:2'),
        ("a 1; \\", 'unexpected end of file, expecting ";" or "}" in nginx.conf:1'),
        ("\ufeffa 1;", "byte order mark in nginx.conf:1"),
        ("include nginx.conf;", 'include of "nginx.conf" inside itself in nginx.conf'),
        ("a {" * 101 + "}" * 101, "blocks nested deeper than 100 in nginx.conf:1"),
        (
            "\nset_by_lua_block $a { if x then return {} end }",
            'unknown directive "set_by_lua_block" in nginx.conf:2',
        ),
    ],
)
def test_a_broken_config_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    """What breaks nginx's grammar is an error in nginx's words, with file and line."""
    path = conf(tmp_path, text + ("\n" if text.endswith("2") else ""))

    with pytest.raises(UsageError) as error:
        tree.read(path)

    assert error.value.message.replace(f"{tmp_path}/", "") == message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """No file, or a folder in place of one, is an error that names it."""
    for path in (tmp_path / "no.conf", tmp_path):
        with pytest.raises(UsageError, match=f'cannot read "{path}"'):
            tree.read(path)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=80)
    | st.lists(st.sampled_from(TOKENS), max_size=40).map(lambda tokens: "".join(tokens).encode())
)
def test_any_bytes_are_a_config_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    """No bytes make the reader fail in another way than with its own error."""
    path = tmp_path_factory.getbasetemp() / "any.conf"
    path.write_bytes(text)

    try:
        tree.read(path)
    except LabError as error:
        assert error.message  # noqa: PT017 - either outcome is right, but never another exception


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (b"http {\n{% for gpu in gpus %}\n", "fill in the template first"),
        (b"a {\n{{- range .Values.gpus }}\n", "fill in the template first"),
        (b"http {\n upstream u {\n", 'close "upstream u" (nginx.conf:2), or a block inside it'),
        (b"http {}\n}", 'find the block above that has a "}" too many'),
        ("events {}".encode("utf-16"), "save the file as UTF-8"),
        (b"server {\n location ~ ^/v[0-9]{8}$ {\n }\n}", '"{": "^/v[0-9]{8}$"'),
        (b"server {\n rewrite ^/v[0-9]{1,3}/(.*) /$1 break;\n}", '"{": "^/v[0-9]{1,3}/(.*)"'),
        (b'http {\n add_header X "a;\n}', 'close the quote " of that line'),
        (b"map $uri $x { ~^/v[0-9]{8}$ a; }", '"{": "~^/v[0-9]{8}$"'),
    ],
)
def test_a_broken_file_comes_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, hint: str
) -> None:
    """A template that was not filled in, a brace too many or too few, UTF-16, a bare regex."""
    monkeypatch.chdir(tmp_path)
    Path("nginx.conf").write_bytes(text)

    with pytest.raises(UsageError) as caught:
        tree.read(Path("nginx.conf"))

    assert hint in caught.value.hint


def test_an_include_of_a_folder_is_refused(tmp_path: Path) -> None:
    """As nginx does, which cannot read it."""
    (tmp_path / "conf.d").mkdir()
    path = conf(tmp_path, "include conf.d;\n")

    with pytest.raises(UsageError, match=f'folder "{tmp_path}/conf.d" in {path}:1') as caught:
        tree.read(path)

    assert caught.value.hint == "include conf.d/*.conf;"
