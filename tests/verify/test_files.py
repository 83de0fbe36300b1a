"""The files that nginx reads: the user's own, at the paths where it looks for them."""

from pathlib import Path

import pytest

from nginx_llm_lab.nginxconf import tree
from nginx_llm_lab.verify import files


def written(folder: Path, **texts: str) -> tree.Config:
    """Files of a folder, and the config that begins with its nginx.conf."""
    for name, text in texts.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "nginx_conf").rename(folder / "nginx.conf")
    return tree.read(folder / "nginx.conf")


def test_files_are_laid_at_their_own_paths_and_where_an_installed_nginx_has_them(
    tmp_path: Path,
) -> None:
    """A repository keeps beside nginx.conf what the image has under /etc/nginx."""
    main = "events {} http { include /etc/nginx/conf.d/*; }"
    laid_out = written(
        tmp_path, nginx_conf=main, conf_d="", **{"conf.d__llm": "upstream u { server a; }"}
    )

    laid = files.files_by_path(laid_out, tmp_path / "nginx.conf")

    assert laid[f"{tmp_path}/nginx.conf"] == laid["/etc/nginx/nginx.conf"] == main.encode()
    assert laid[f"{tmp_path}/conf.d/llm"] == laid["/etc/nginx/conf.d/llm"]


def test_a_file_that_only_includes_others_is_laid_too(tmp_path: Path) -> None:
    """Without it nginx would not find what it includes, and not say so."""
    main = "events {} http { include conf.d/*.conf; }"
    extra = {"conf.d__a.conf": "include up/*;", "up__llm": "upstream u { server a; }"}
    laid_out = written(tmp_path, nginx_conf=main, **extra)

    laid = files.files_by_path(laid_out, tmp_path / "nginx.conf")

    assert laid[f"{tmp_path}/conf.d/a.conf"] == b"include up/*;"


def test_a_whole_config_is_its_own_entrance(tmp_path: Path) -> None:
    """nginx starts with that very file."""
    laid_out = written(tmp_path, nginx_conf="events {} http {}")

    assert files.main_file(laid_out, tmp_path / "nginx.conf") == (f"{tmp_path}/nginx.conf", {})


def test_a_snippet_of_conf_d_gets_an_entrance_beside_it(tmp_path: Path) -> None:
    """So that its relative includes start where they would."""
    laid_out = written(tmp_path, nginx_conf="upstream u { server a; }")

    main, laid = files.main_file(laid_out, tmp_path / "nginx.conf")

    assert main == f"{tmp_path}/nginx.conf.main"
    assert f'include "{tmp_path}/nginx.conf";' in laid[main].decode()


def test_an_include_that_fits_nothing_is_told_with_its_line(tmp_path: Path) -> None:
    """nginx passes over it without a word; a comment is no include."""
    text = "events {}\n# include gone/*;\nhttp {\n    include sites/*;\n    include own*;\n}\n"
    laid_out = written(tmp_path, nginx_conf=text, own="")
    conf = tmp_path / "nginx.conf"

    assert list(files.unmatched_includes(laid_out, conf)) == [
        f"include sites/* ({conf}:4): no such file here"
    ]


@pytest.mark.parametrize("path", ["{folder}/types", "/etc/nginx/types"])
def test_what_nginx_asks_for_later_is_found_beside_the_config(tmp_path: Path, path: str) -> None:
    """A file without any directive, say, which no reader of directives saw."""
    (tmp_path / "types").write_text("# nothing")

    content = files.own_file(path.format(folder=tmp_path), tmp_path / "nginx.conf")

    assert content == b"# nothing"


def test_what_is_not_there_is_not_there(tmp_path: Path) -> None:
    """A folder does not count as a file."""
    assert files.own_file(f"{tmp_path}/none", tmp_path / "nginx.conf") is None
    assert files.own_file(str(tmp_path), tmp_path / "nginx.conf") is None


def test_a_server_without_listen_gets_the_port_that_root_takes(tmp_path: Path) -> None:
    """nginx listens on 8000 where it is not root; the other servers and all lines stay."""
    text = (
        "events {}\nhttp {\n  upstream u { server a; }\n  # server {\n"
        "  server { listen 81; } server { return 204; }\n  server # mine\n  {\n  }\n}\n"
    )
    laid_out = written(tmp_path, nginx_conf=text)

    laid = files.files_by_path(laid_out, tmp_path / "nginx.conf")["/etc/nginx/nginx.conf"].decode()

    wanted = text.replace("server { return", "server { listen 80; return")
    assert laid == wanted.replace("# mine\n  {", "# mine\n  { listen 80;")


def test_njs_modules_are_laid_with_what_they_import(tmp_path: Path) -> None:
    """nginx looks beside its config, and in the folders of js_path."""
    (tmp_path / "njs").mkdir()
    (tmp_path / "njs/keys.js").write_text("import text from 'text.js';\nexport default {text};\n")
    (tmp_path / "njs/text.js").write_text("export default {};\n")
    conf = tmp_path / "nginx.conf"
    conf.write_text("events {} http { js_path njs; js_import keys from keys.js; js_import no.js; }")

    laid = files.njs_modules(tree.read(conf), conf)

    assert sorted(laid) == [str(tmp_path / "njs/keys.js"), str(tmp_path / "njs/text.js")]
