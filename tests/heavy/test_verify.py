"""lab verify on a hundred configurations, each beside `nginx -t` on a machine like the user's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.models.containers import Container

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.nginxconf import tree
from nginx_llm_lab.stack.compose import image
from nginx_llm_lab.stack.sdk import engine
from nginx_llm_lab.verify import files, verification
from nginx_llm_lab.verify.result import Verification
from nginx_llm_lab.verify.sandbox.nginx_container import packed
from nginx_llm_lab.verify.survey import survey

from .shapes import HOSTS, PASS, REFUSED, SPECIAL, UNSURE, Shape, shapes

SHAPES = shapes()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The user's machine: root, the hosts, a certificate and a password file; no template out."""
    folder = tmp_path_factory.mktemp("machine")
    conf = folder / "nginx.conf"
    conf.write_text(SPECIAL["TLS"].text)
    pem = files.certificate(survey(tree.read(conf)))
    container = engine().containers.run(
        image("nginx"),
        entrypoint=["sleep", "3600"],
        command=[],
        detach=True,
        auto_remove=True,
        user="0:0",
        network_mode="none",
        extra_hosts=dict.fromkeys(HOSTS, "10.1.1.1"),
    )
    try:
        container.exec_run(["sh", "-c", "rm -rf /etc/nginx/conf.d; echo > /etc/resolv.conf"])
        own = {"/etc/ssl/fleet.pem": pem.encode(), "/etc/nginx/htpasswd": b"a:{PLAIN}b\n"}
        container.put_archive("/", packed(own, (), {}))
        yield container
    finally:
        container.remove(force=True)


def written(shape: Shape, folder: Path) -> Path:
    """The shape as a repository's folder."""
    conf = folder / "nginx.conf"
    conf.write_text(shape.text)
    for name, text in shape.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return conf


def refusal(machine: Container, shape: Shape) -> str:
    """What `nginx -t` says against a shape on the user's machine; empty where nginx starts."""
    main = shape.text if "events" in shape.text else f"events {{}} http {{ {shape.text} }}"
    texts = {"nginx.conf": main, **shape.files}
    laid = {f"/etc/nginx/{name}": text.encode() for name, text in texts.items()}
    machine.put_archive("/", packed(laid, (), {}))
    try:
        code, output = machine.exec_run(["nginx", "-t", "-p", "/etc/nginx/", "-c", "nginx.conf"])
        return bytes(output).decode(errors="replace") if code else ""  # type: ignore[arg-type]  # not a stream
    finally:
        machine.exec_run(
            ["sh", "-c", "rm -rf /etc/nginx/conf.d /etc/nginx/upstreams /etc/nginx/njs"]
        )


def verified(conf: Path) -> Verification | LabError:
    """What `lab verify` comes to: verdicts, or a refusal."""
    try:
        return verification.verify(conf)
    except LabError as error:
        return error


@pytest.mark.parametrize("name", SHAPES)
def test_the_exit_code_says_whether_nginx_would_start(
    name: str, machine: Container, tmp_path: Path
) -> None:
    """Never 0 for a config that nginx would refuse, never 3 for one that it would accept."""
    shape = SHAPES[name]
    conf = written(shape, tmp_path)
    complaint = refusal(machine, shape)

    assert bool(complaint) == (shape.word == REFUSED), complaint
    result = verified(conf)
    if isinstance(result, LabError):
        assert complaint, f"refused, and nginx would start: {result}"
        return
    assert not (result.holds and complaint), f"green, and nginx says: {complaint}\n{result}"
    doubtful = [
        (judged.verdict.why, judged.hint)
        for judged in result.upstreams
        if judged.verdict.word == UNSURE
    ]
    assert all(why and hint for why, hint in doubtful), str(result)
    assert shape.word == REFUSED or result.holds == (shape.word == PASS), str(result)
    assert "FAIL" not in result.words, str(result)
