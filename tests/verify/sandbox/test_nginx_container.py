"""Files that nginx's container gets, and the warnings in its output."""

import io
import tarfile

from nginx_llm_lab.verify.sandbox.nginx_container import NGINX_USER, packed, warnings


def test_files_are_packed_as_they_are_for_nginx_to_read() -> None:
    """Byte for byte, owned by nginx's user, whatever the user's own file allows."""
    content = "größe\r\n".encode("latin-1")

    links = {"/srv/a.sock": "/sockets/0.sock"}
    archived = packed({"/home/u/nginx.conf": content}, ["run"], links)

    with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
        entries = {member.name: member for member in archive}
        file = archive.extractfile("home/u/nginx.conf")
        assert file is not None
        assert file.read() == content
    assert entries["run"].isdir()
    assert entries["srv/a.sock"].linkname == "/sockets/0.sock"
    assert {entry.uid for entry in entries.values()} == {NGINX_USER}
    assert entries["home/u/nginx.conf"].mode == 0o644


def test_a_warning_of_nginx_is_listed() -> None:
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
