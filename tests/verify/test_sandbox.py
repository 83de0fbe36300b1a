"""What the lab lays where nginx misses something, and how it packs it."""

import io
import tarfile

import pytest

from nginx_llm_lab.verify import sandbox
from nginx_llm_lab.verify.prerequisites import absent_file, unresolved
from nginx_llm_lab.verify.sandbox import Fix, warnings

EMPTY: dict[str, bytes] = {}


def fixes(said: str, files: dict[str, bytes] = EMPTY, own: bytes | None = None) -> Fix | None:
    """What one complaint leads to, with a certificate at hand."""
    return sandbox.fix_for(said, files, lambda _: own, "PEM")


def test_a_missing_include_becomes_an_empty_file_and_is_told() -> None:
    """nginx's own words, as 1.31 and 1.26 say them."""
    said = 'open() "/etc/nginx/ssl.conf" failed (2: No such file or directory) in /a/nginx.conf:4'

    assert fixes(said) == Fix(
        files={"/etc/nginx/ssl.conf": b""},
        folders=["/etc/nginx"],
        note="/etc/nginx/ssl.conf (asked for in /a/nginx.conf:4): not there, an empty file instead",
        prerequisite=absent_file("/etc/nginx/ssl.conf", "/a/nginx.conf:4"),
    )


def test_an_own_file_is_laid_without_a_word() -> None:
    """What the user has is as the config says."""
    said = 'open() "/a/types" failed (2: No such file or directory) in /a/nginx.conf:4'

    assert fixes(said, own=b"types {}") == Fix(files={"/a/types": b"types {}"}, folders=["/a"])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            'open() "/data/logs/a.log" failed (2: No such file or directory)',
            Fix(files={"/data/logs/a.log": b""}, folders=["/data/logs"]),
        ),
        (
            'mkdir() "/srv/cache/body" failed (13: Permission denied)',
            Fix(folders=["/srv/cache/body"]),
        ),
        (
            'host not found in upstream "php" in /a/nginx.conf:7',
            Fix(
                names=["php"],
                note='host "php" (/a/nginx.conf:7): no stub backend for it',
                prerequisite=unresolved("php", "/a/nginx.conf:7", ()),
            ),
        ),
        (
            'host not found in "web:80" of the "listen" directive in /a/nginx.conf:7',
            Fix(
                names=["web"],
                note='host "web" (/a/nginx.conf:7): no stub backend for it',
                prerequisite=unresolved("web", "/a/nginx.conf:7", ()),
            ),
        ),
        ("bind() to 10.1.1.1:80 failed (99: Cannot assign requested address)", ["10.1.1.1"]),
        ("bind() to [fd00::7]:80 failed (99: Address not available)", ["fd00::7"]),
        (
            'cannot load certificate "/etc/a.pem": BIO_new_file() failed',
            Fix(files={"/etc/a.pem": b"PEM"}, note="certificate /etc/a.pem: the lab's own instead"),
        ),
        ('unknown directive "proxy_pas" in /a/nginx.conf:7', None),
        ('invalid number of arguments in "listen" directive in /a/nginx.conf:7', None),
    ],
)
def test_a_complaint_is_stilled_or_stands(said: str, expected: Fix | list[str] | None) -> None:
    """What nginx misses is supplied; what is wrong stays wrong."""
    wanted = Fix(own=expected) if isinstance(expected, list) else expected

    assert fixes(said) == wanted


def test_a_module_that_nginx_lacks_is_left_out_and_every_line_keeps_its_place() -> None:
    """The lines after it are the ones that nginx's words name."""
    said = 'dlopen() "/m/geo.so" failed (No such file or directory) in /a/nginx.conf:2'
    text = b"user x;\nload_module modules/geo.so; pid p;\nevents {}\n"

    found = fixes(said, {"/a/nginx.conf": text})

    assert found is not None
    assert found.files == {"/a/nginx.conf": b"user x;\n pid p;\nevents {}\n"}
    assert found.note.startswith("load_module /m/geo.so (/a/nginx.conf:2)")


def test_files_are_packed_as_they_are_for_nginx_to_read() -> None:
    """Byte for byte, owned by nginx's user, whatever the user's own file allows."""
    content = "größe\r\n".encode("latin-1")

    packed = sandbox.packed({"/home/u/nginx.conf": content}, ["run"])

    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        entries = {it.name: it for it in archive}
        file = archive.extractfile("home/u/nginx.conf")
        assert file is not None
        assert file.read() == content
    assert entries["run"].isdir()
    assert {entry.uid for entry in entries.values()} == {sandbox.NGINX_USER}
    assert entries["home/u/nginx.conf"].mode == 0o644


def test_near_ends_of_the_cable_are_all_different() -> None:
    """One for each far stub backend, of its own family."""
    ends = {sandbox.near_end(number, "10.0.0.1") for number in range(1, 1000)}

    assert len(ends) == 999
    assert sandbox.near_end(300, "10.0.0.1") == "198.19.1.44"
    assert sandbox.near_end(300, "fd00::7") == "fd00:6c61:62::12c"


def test_a_warning_of_nginx_is_told() -> None:
    """All but the one on `user`, which only says that nginx is not root on the sandbox."""
    lines = [
        "nginx: [warn] load balancing method redefined in /a/nginx.conf:5",
        '2026/01/01 00:00:00 [warn] 7#7: the "user" directive makes sense only if the master'
        " process runs with super-user privileges, ignored in /a/nginx.conf:1",
        'nginx: [warn] conflicting server name "a" on 0.0.0.0:80, ignored',
    ]

    assert list(warnings(lines)) == [
        "nginx warns: load balancing method redefined in /a/nginx.conf:5",
        'nginx warns: conflicting server name "a" on 0.0.0.0:80, ignored',
    ]
