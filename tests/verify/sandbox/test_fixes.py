"""What the lab supplies where nginx lacks something."""

import pytest

from nginx_llm_lab.verify.sandbox.fixes import Fix, fix_for, hint_on
from nginx_llm_lab.verify.survey.prerequisites import absent_file, unresolved

EMPTY: dict[str, bytes] = {}


def fixes(message: str, files: dict[str, bytes] = EMPTY, own: bytes | None = None) -> Fix | None:
    """What one complaint leads to, with a certificate at hand."""
    return fix_for(message, files, lambda _: own, "PEM")


def test_a_missing_include_becomes_an_empty_file_and_is_listed() -> None:
    """The messages of nginx 1.31 and 1.26."""
    message = (
        'open() "/etc/nginx/ssl.conf" failed (2: No such file or directory) in /a/nginx.conf:4'
    )

    assert fixes(message) == Fix(
        files={"/etc/nginx/ssl.conf": b""},
        folders=["/etc/nginx"],
        note="/etc/nginx/ssl.conf (needed by /a/nginx.conf:4): missing, replaced by an empty file",
        prerequisite=absent_file("/etc/nginx/ssl.conf", "/a/nginx.conf:4"),
    )


def test_the_user_s_own_file_is_supplied_without_a_note() -> None:
    """Its own content is used, so nothing deviates from the config."""
    message = 'open() "/a/types" failed (2: No such file or directory) in /a/nginx.conf:4'

    assert fixes(message, own=b"types {}") == Fix(files={"/a/types": b"types {}"}, folders=["/a"])


@pytest.mark.parametrize(
    ("message", "expected"),
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
            Fix(
                files={"/etc/a.pem": b"PEM"},
                note="certificate /etc/a.pem: the lab's own is used instead",
            ),
        ),
        ('unknown directive "proxy_pas" in /a/nginx.conf:7', None),
        ('invalid number of arguments in "listen" directive in /a/nginx.conf:7', None),
    ],
)
def test_an_error_of_nginx_is_fixed_or_reported(
    message: str, expected: Fix | list[str] | None
) -> None:
    """A missing item is supplied; an error in the config is reported."""
    wanted = Fix(own=expected) if isinstance(expected, list) else expected

    assert fixes(message) == wanted


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ('unknown directive "health_check" in /a/nginx.conf:7', "only NGINX Plus has health_check"),
        ('unknown directive "vhost_traffic_status" in /a/nginx.conf:7', "with other modules"),
        ('unknown "backend_host" variable', "define $backend_host by set or map"),
        ('ReferenceError: Cannot load module "js/main.js" (ENOENT…)', "put js/main.js beside"),
    ],
)
def test_a_refusal_of_nginx_has_a_next_step(message: str, hint: str) -> None:
    """A directive of the commercial nginx is no mistyped one."""
    assert hint in hint_on(message)


def test_a_module_that_nginx_lacks_is_left_out_and_every_line_keeps_its_place() -> None:
    """The lines after it are the ones that nginx's words name."""
    message = 'dlopen() "/m/geo.so" failed (No such file or directory) in /a/nginx.conf:2'
    text = b"user x;\nload_module modules/geo.so; pid p;\nevents {}\n"

    fix = fixes(message, {"/a/nginx.conf": text})

    assert fix is not None
    assert fix.files == {"/a/nginx.conf": b"user x;\n pid p;\nevents {}\n"}
    assert fix.note.startswith("load_module /m/geo.so (/a/nginx.conf:2)")
    assert fix.prerequisite is not None
    assert fix.prerequisite.name == "/m/geo.so"


@pytest.mark.parametrize(
    ("message", "name", "before", "after"),
    [
        (
            'unknown directive "stub_status" in /a/n.conf:1',
            "stub_status",
            b"location /s { stub_status; } location /t {\n stub_status on; }",
            b"location /s {  } location /t {\n  }",
        ),
        (
            'unknown directive "sub_filter" in /a/n.conf:2',
            "sub_filter",
            b"sub_filter 'a;'\n \"b}\";\nsub_filter_once off;",
            b"\n\nsub_filter_once off;",
        ),
        (
            'the "quic" parameter requires ngx_http_v3_module in /a/n.conf:1',
            "listen",
            b"listen 443 quic reuseport; listen 443 ssl;",
            b" listen 443 ssl;",
        ),
    ],
)
def test_directives_of_modules_that_only_the_official_image_has_are_left_out(
    message: str, name: str, before: bytes, after: bytes
) -> None:
    """The stand-in's nginx lacks them, and no pick depends on them."""
    where = message.rpartition(" in ")[2]

    assert fixes(message, {"/a/n.conf": before}) == Fix(
        files={"/a/n.conf": after}, note=f"{name} ({where}): not in the lab's nginx, left out"
    )


def test_an_unknown_directive_stays_an_error() -> None:
    """Neither a typo nor a parameter that the official nginx refuses is left out."""
    files = {"/a/n.conf": b"proxy_pas http://u; gunzip maybe;"}

    assert fixes('unknown directive "proxy_pas" in /a/n.conf:1', files) is None
    assert fixes('unknown directive "gunzip" in /a/n.conf:1', files) is None
