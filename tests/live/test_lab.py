"""The lab as it stands: hardened containers behind two doors on loopback."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import requests
import yaml

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.experiment import fleet
from nginx_llm_lab.paths import ROOT
from nginx_llm_lab.stack import compose, nginx, sdk, shell

SERVICES = ("nginx", "backend-1", "backend-2", "backend-3", "load")


def inspected(lab, service):
    """What the engine says of a service's container."""
    return compose.container(lab.lab, service).attrs


def test_nginx_runs_without_root(lab, inside):
    """Master and workers belong to user 101."""
    workers = inside("nginx").check_output("cat /proc/1/status")

    assert re.search(r"^Uid:\s+101\s+101\s+101\s+101$", workers, re.MULTILINE)


def test_the_configuration_holds(lab, inside):
    """`nginx -t` in the running container."""
    done = inside("nginx").run("nginx -t -e stderr -c /etc/nginx/lab/nginx.conf")

    assert done.rc == 0
    assert "test is successful" in done.stderr


def test_both_doors_listen_on_loopback_only(lab):
    """No port of any container is published to the world."""
    published = [
        binding["HostIp"]
        for service in SERVICES
        for bindings in inspected(lab, service)["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]

    assert published == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_is_hardened(lab, service):
    """No root, nothing writable, no capability, no new privileges; memory, pids, CPU bounded."""
    container = inspected(lab, service)
    host = container["HostConfig"]

    assert container["Config"]["User"] not in ("", "0", "root", "0:0")
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] is None
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert 0 < host["CpuQuota"] <= 2 * host["CpuPeriod"]
    assert not host["Privileged"]


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_can_write_its_file_system(lab, inside, service):
    """Not even where the image's own user could."""
    assert inside(service).run("touch /srv/x /etc/x /x").rc != 0


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_reaches_out(lab, inside, service):
    """No address outside the lab answers: not one that is certain to be there for the engine."""
    gateway = inspected(lab, "nginx")["NetworkSettings"]["Networks"]
    assert all(net["IPAddress"] for net in gateway.values())
    attempt = inside(service).run("timeout 3 bash -c 'exec 3<>/dev/tcp/192.0.2.1/80' 2>&1")

    assert attempt.rc != 0


def test_backends_answer_through_the_front_door(lab):
    """Each says who it is, in the header and in the text."""
    lab.use("round_robin")

    answers = [requests.get(f"{lab.lab.front}/any/path", timeout=10) for _ in range(3)]

    assert sorted(answer.text for answer in answers) == [
        "Response from: backend-1",
        "Response from: backend-2",
        "Response from: backend-3",
    ]
    assert all(answer.text.endswith(answer.headers["X-Backend"]) for answer in answers)
    assert all(answer.headers["X-Upstream"].endswith(":8000") for answer in answers)


def test_a_request_is_found_in_every_log_by_its_id(lab):
    """The client's header, nginx's line and the backend's line carry the same id."""
    answer = requests.get(f"{lab.lab.front}/find-me", timeout=10)
    name, request_id = answer.headers["X-Backend"], answer.headers["X-Request-ID"]

    def journal():
        log = sdk.handle(compose.container(lab.lab, name)).logs(tail=50).decode()
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["id"] == request_id]

    shell.wait_for(lambda: len(journal()) == 1, 10, "the backend's line")
    assert journal()[0]["path"] == "/find-me"
    assert request_id in nginx.log_since(lab.lab, 0).decode()


def test_the_article_log_line_ends_in_the_address(lab):
    """So that awk '{print $NF}' | sort | uniq -c works on docker compose logs nginx."""
    requests.get(f"{lab.lab.front}/article-line", timeout=10)

    def lines():
        log = sdk.handle(compose.container(lab.lab, "nginx")).logs(stderr=False, tail=20).decode()
        return [line for line in log.splitlines() if "/article-line" in line]

    shell.wait_for(lambda: len(lines()) == 1, 10, "nginx's line")
    assert re.search(r" to: \d+\.\d+\.\d+\.\d+:8000$", lines()[0])


def test_health_checks_use_up_no_turns(lab):
    """Between two requests far enough apart for several probes, the next server still follows."""
    lab.use("round_robin")
    log_before = nginx.log_size(lab.lab)
    first = requests.get(lab.lab.front, timeout=10).headers["X-Backend"]
    probes = compose.container(lab.lab, "nginx").attrs["State"]["Health"]["Log"][-1]["Start"]

    def probed_again():
        state = compose.container(lab.lab, "nginx").attrs["State"]
        return state["Health"]["Log"][-1]["Start"] != probes

    shell.wait_for(probed_again, 20, "another health check")
    second = requests.get(lab.lab.front, timeout=10).headers["X-Backend"]

    assert [first, second] == ["backend-1", "backend-2"]
    assert len(nginx.log_with(lab.lab, log_before, 2).splitlines()) == 2


def test_the_front_door_believes_no_forwarded_address(lab):
    """A spoofed X-Forwarded-For changes nothing; the lab door takes it."""
    mark = nginx.log_size(lab.lab)
    spoofed = {"X-Forwarded-For": "203.0.113.9"}

    requests.get(f"{lab.lab.front}/front", headers=spoofed, timeout=10)
    requests.get(f"{lab.lab.door}/door", headers=spoofed, timeout=10)

    lines = [json.loads(line) for line in nginx.log_with(lab.lab, mark, 2).splitlines()]
    seen = {line["request_uri"]: line["remote_addr"] for line in lines}
    assert seen["/front"] != "203.0.113.9"
    assert seen["/door"] == "203.0.113.9"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"message": ', {}, 400),
        (b"[1]", {}, 400),
        (b"{}", {}, 400),
        (b'{"message": "\xff"}', {}, 400),
        (b"x" * 2_000_000, {}, 413),
    ],
)
def test_a_wrong_chat_gets_a_json_error(lab, body, headers, status):
    """The service is unharmed and answers the next one."""
    answer = requests.post(f"{lab.lab.front}/chat", data=body, headers=headers, timeout=10)

    assert answer.status_code == status
    assert {"error", "server", "timestamp"} <= set(answer.json())
    good = requests.post(f"{lab.lab.front}/chat", json={"message": "still here"}, timeout=10)
    assert good.json()["response"].endswith("STILL HERE")


def test_an_unknown_path_to_post_to_is_404_in_json(lab):
    """GET takes any path, POST only those that are there."""
    answer = requests.post(f"{lab.lab.front}/nowhere", data=b"x", timeout=10)

    assert answer.status_code == 404
    assert answer.json()["error"]


def test_a_refused_configuration_leaves_the_old_one_serving(lab):
    """Nginx's own words with file and line; the next answer comes by the old method."""
    lab.use("round_robin")

    with pytest.raises(LabError) as caught:
        lab.use("ip_hash", server_params=["backend-2: backup"])

    assert 'balancing method does not support parameter "backup"' in caught.value.message
    assert re.search(r"upstream\.conf\.refused:\d+", caught.value.message)
    assert "ip_hash;" not in (lab.lab.active / "upstream.conf").read_text()
    answers = {requests.get(lab.lab.front, timeout=10).headers["X-Backend"] for _ in range(3)}
    assert answers == {"backend-1", "backend-2", "backend-3"}


def test_status_says_where_nginx_does_not_run_what_the_lab_wrote(lab):
    """A file edited by hand is named, before nginx loads it and after, until the next switch."""
    lab.use("round_robin")
    file = lab.lab.active / "upstream.conf"
    edited = "active/upstream.conf is not what `lab use round_robin` wrote"
    not_loaded = (
        "active/upstream.conf changed after nginx loaded it: nginx runs the earlier version"
    )
    assert fleet.status(lab.lab)["differs"] == []

    file.write_text(file.read_text().replace("backend-1:8000", "backend-1:8000 weight=5"))
    later = file.stat().st_mtime + 60
    os.utime(file, (later, later))
    assert fleet.status(lab.lab)["differs"] == [edited, not_loaded]

    os.utime(file, (0, 0))
    assert fleet.status(lab.lab)["differs"] == [edited]

    lab.use("round_robin")
    assert fleet.status(lab.lab)["differs"] == []


def test_no_request_is_lost_by_switching_under_load(lab):
    """Every method in turn under a running `ab -k`: nothing fails."""
    names = [name for name in available(lab) if name != "sticky"]
    load = compose.container_id(lab.lab, "load")
    words = ["ab", "-q", "-l", "-k", "-n", "1000000", "-t", "8", "-c", "10", "http://nginx:8081/"]
    start = [str(shutil.which("docker")), "exec", load, *words]
    with subprocess.Popen(start, stdout=subprocess.PIPE, text=True) as ab:
        for name in names:
            lab.use(name)
        output, _ = ab.communicate(timeout=60)

    if nginx.version(lab.lab) >= (1, 27, 4):
        assert re.search(r"Failed requests:\s+0\n", output), output
        assert "Non-2xx" not in output
    else:
        pytest.skip("a lossless switch needs nginx 1.27.4: keepalive_min_timeout")


def available(lab):
    """The methods that this nginx has."""
    from nginx_llm_lab.nginxconf import methods

    running = nginx.version(lab.lab)
    return [name for name, method in methods.methods().items() if method.needs <= running]


@pytest.mark.parametrize(
    "words",
    ["ab", "run random", "use hash", "soak", "split", "logs", "fault all kill", "heal", "sbom"],
)
def test_a_command_that_needs_a_lab_says_that_it_is_not_up(words):
    """And how to start it; it leaves nothing behind."""
    environment = {**os.environ, "LAB_PROJECT": f"lab-never-up-{os.getpid()}"}

    command = [sys.executable, "-m", "nginx_llm_lab.cli", *words.split()]
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )

    assert done.returncode == 3
    assert done.stderr.endswith(
        f'error: lab "{environment["LAB_PROJECT"]}" is not up\ntry:   lab up\n'
    )


def test_the_compose_file_asks_for_nothing_dangerous():
    """No socket of the engine in any container, no privileged one, no host network."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    text = json.dumps(services)

    assert "docker.sock" not in text
    assert "privileged" not in text
    assert "network_mode" not in text
