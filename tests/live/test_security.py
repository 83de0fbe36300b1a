"""The guarantees of SECURITY.md, and malformed requests at the front door."""

import json
import secrets
import select
import socket

import pytest
import requests

from nginx_llm_lab.accounts import outcome
from nginx_llm_lab.experiment import soak
from nginx_llm_lab.stack import compose, nginx, sbom, sdk, shell
from nginx_llm_lab.stack.shell import poll

SERVICES = ("nginx", "backend-1", "backend-2", "backend-3", "load")
SECONDS = 15
LARGE_BODIES = 128  # that nginx buffers at a time
HEAD = b"Host: lab\r\nConnection: close\r\n"
POST = b"POST /MARK HTTP/1.1\r\n" + HEAD
SMUGGLED = b"GET /MARK-smuggled HTTP/1.1\r\nHost: lab\r\n\r\n"

REFUSED = {
    "a header of 64 kB": b"GET /MARK HTTP/1.1\r\n" + HEAD + b"X: " + b"x" * 65536 + b"\r\n\r\n",
    "a thousand kB of small headers": b"GET /MARK HTTP/1.1\r\n" + HEAD + b"X: y\r\n" * 200_000,
    "a URI of 64 kB": b"GET /MARK" + b"x" * 65536 + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a length and chunks": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "chunks twice": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and something else": POST
    + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "chunks in disguise": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks in HTTP/1.0": b"POST /MARK HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + SMUGGLED,
    "two lengths in one": POST + b"Content-Length: 0, 44\r\n\r\n" + SMUGGLED,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    "a length with a sign": POST + b"Content-Length: +4\r\n\r\nabcd",
    "a hexadecimal length": POST + b"Content-Length: 0x4\r\n\r\nabcd",
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "a body over the limit": POST + b"Content-Length: 2000000\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 44\r\n\r\n" + SMUGGLED,
    "a folded header": POST + b"X: a\r\n b: c\r\nContent-Length: 0\r\n\r\n",
    "a NUL in a header": POST + b"X: a\0b\r\n\r\n",
    "a NUL in the path": b"GET /MARK\0 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "an escaped NUL in the path": b"GET /MARK%00 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a path out of the root": b"GET /../MARK HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a chunk size beyond 64 bits": POST
    + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
    "a chunk of a gigabyte": POST + b"Transfer-Encoding: chunked\r\n\r\n40000000\r\n",
    "a chunk size of words": POST + b"Transfer-Encoding: chunked\r\n\r\nfour\r\nabcd\r\n",
    "a negative chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n-4\r\nabcd\r\n",
    "no host": b"GET /MARK HTTP/1.1\r\nConnection: close\r\n\r\n",
    "two hosts": b"GET /MARK HTTP/1.1\r\n" + HEAD + b"Host: other\r\n\r\n",
    "a host with a slash": b"GET /MARK HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "HTTP/0.9": b"GET /MARK\r\n",
    "HTTP/3.0 on TCP": b"GET /MARK HTTP/3.0\r\n" + HEAD + b"\r\n",
    "a method in small letters": b"get /MARK HTTP/1.1\r\n" + HEAD + b"\r\n",
    "CONNECT": b"CONNECT MARK:9000 HTTP/1.1\r\nHost: MARK:9000\r\n\r\n",
    "TRACE": b"TRACE /MARK HTTP/1.1\r\n" + HEAD + b"\r\n",
    "the start of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "the start of TLS": bytes.fromhex("1603010200010001fc0303") + b"MARK" * 20,
    "nothing but noise": bytes(range(256)) * 8,
}
HALF = {
    "half a request line": b"GET /MARK",
    "half a header": b"GET /MARK HTTP/1.1\r\nHost: la",
    "headers without an end": b"GET /MARK HTTP/1.1\r\n" + HEAD,
    "half a body": POST + b"Content-Length: 100\r\n\r\nhalf",
    "half a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n10\r\nhalf",
    "chunks without an end": POST + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
}


@pytest.fixture
def mark():
    """A word that only this test's requests carry."""
    return f"mark{secrets.token_hex(8)}"


def say(lab, text, *, hang_up=False):
    """Send bytes to the front door as they are; all that comes back until it closes."""
    with socket.create_connection(("127.0.0.1", lab.lab.port), SECONDS) as door:
        try:
            door.sendall(text)
            if hang_up:
                door.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: door.recv(65536), b""))
        except ConnectionError:  # it closed before it had read all
            return b""


def status(answer):
    """The status of a raw answer; 0 where nothing came or only a body, as of HTTP/0.9."""
    head = answer.split(b"\r\n", 1)[0].split(b" ")
    return int(head[1]) if head[0].startswith(b"HTTP/") else 0


def journals(lab, mark):
    """The backends' lines with this word, once a request that was sent last is among them."""
    last = f"/last-{secrets.token_hex(8)}"
    assert requests.get(f"{lab.lab.front}{last}", timeout=10).ok

    def text():
        names = [n for n in SERVICES if n.startswith("backend")]
        logs = (
            sdk.handle(compose.container(lab.lab, name)).logs(tail=2000).decode() for name in names
        )
        return "\n".join(logs)

    shell.wait_for(lambda: last in text(), 10, "the last request's line")
    return [json.loads(line) for line in text().splitlines() if mark in line]


@pytest.mark.parametrize("what", REFUSED)
def test_bytes_that_no_client_sends_are_refused_at_the_door(lab, mark, what):
    """A 4xx (501 for an unknown coding, 505 for a version) or a closed connection."""
    answer = say(lab, REFUSED[what].replace(b"MARK", mark.encode()))

    assert status(answer) == 0 or 400 <= status(answer) < 500 or status(answer) in (501, 505)
    assert b"Response from" not in answer
    assert journals(lab, mark) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1", 414),
        (b"GET / HTTP/2.0", 505),
        (b"OPTIONS * HTTP/1.1", 400),
    ],
)
def test_a_request_line_that_nginx_refuses_gets_its_reason_as_json(lab, line, expected):
    """The front door does not take it for HTTP/0.9, although its protocol is unknown."""
    answer = say(lab, line + b"\r\n" + HEAD + b"\r\n")

    assert status(answer) == expected
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == f"nginx answered {expected}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET /v1/models?" + b"x" * 9000 + b" HTTP/1.1", 414),
        (b"GET http://front/v1/models?" + b"x" * 9000 + b" HTTP/1.1", 414),
        (b"GET /v1/models\x01 HTTP/1.1", 400),
        (b"GET /v1/models HTTP/2.0", 505),
    ],
)
def test_a_request_line_to_openais_api_is_refused_in_openais_shape(lab, line, expected):
    """nginx does not get as far as the URI of such a line."""
    answer = say(lab, line + b"\r\n" + HEAD + b"\r\n")

    assert status(answer) == expected
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["message"] == f"nginx answered {expected}"


@pytest.mark.parametrize("what", HALF)
def test_half_a_request_never_reaches_a_backend(lab, mark, what):
    """The client hangs up in the middle."""
    say(lab, HALF[what].replace(b"MARK", mark.encode()), hang_up=True)

    assert journals(lab, mark) == []


def test_a_request_inside_a_body_stays_a_body(lab, mark):
    """One request with a length is one request, whatever its body looks like."""
    inner = SMUGGLED.replace(b"MARK", mark.encode())
    text = POST.replace(b"MARK", mark.encode()) + b"Content-Length: %d\r\n\r\n" % len(inner)

    say(lab, text + inner)

    assert [line["path"] for line in journals(lab, mark)] == [f"/{mark}"]


def test_pipelined_requests_are_answered_one_by_one_in_order(lab, mark):
    """Three in one packet, the last of which closes; bare line feeds are put right."""
    name = mark.encode()
    text = b"GET /%s/1 HTTP/1.1\r\nHost: lab\r\n\r\n" % name
    text += b"GET /%s/2 HTTP/1.1\nHost: lab\n\n" % name
    text += b"GET http://lab/%s/3 HTTP/1.1\r\n" % name + HEAD + b"\r\n"

    answer = say(lab, text)

    assert answer.count(b"HTTP/1.1 200") == 3
    paths = [line["path"] for line in sorted(journals(lab, mark), key=lambda line: line["start"])]
    assert paths == [f"/{mark}/1", f"/{mark}/2", f"/{mark}/3"]


def test_a_line_that_is_no_header_is_left_out(lab, mark):
    """nginx drops it, so no backend has to make sense of it."""
    text = b"GET /%s HTTP/1.1\r\n" % mark.encode() + HEAD + b"nonsense\r\n\r\n"

    answer = say(lab, text)

    assert status(answer) == 200
    assert len(journals(lab, mark)) == 1


def closed_while_dripping(connections):
    """How many connections nginx closes while each sends a byte every 5 s, three times."""
    for _ in range(3):
        closed = poll(
            lambda: select.select(connections, [], [], 0)[0],
            lambda ends: len(ends) == len(connections),
            5,
        )
        for each in set(connections) - set(closed):
            each.sendall(b"x")
    return len(closed)


def test_slow_senders_are_sent_away_and_hold_nobody_up(lab, mark):
    """200 connections that never finish a header are closed; others are answered meanwhile.

    So are 20 that send a byte of their body every 5 s.
    """
    before = soak.memory(lab.lab)
    head = POST.replace(b"MARK", mark.encode()) + b"Content-Length: 990000\r\n\r\n{"
    slow = [socket.create_connection(("127.0.0.1", lab.lab.port), 30) for _ in range(220)]
    dripping = slow[200:]
    try:
        for connection in slow[:200]:
            connection.sendall(b"GET /%s HTTP/1.1\r\nX: " % mark.encode())
        for connection in dripping:
            connection.sendall(head)
        closed = closed_while_dripping(dripping)
        answers = [requests.get(lab.lab.front, timeout=5).status_code for _ in range(20)]
        ends = [connection.recv(4096) for connection in slow]
    finally:
        for connection in slow:
            connection.close()

    assert closed == len(dripping)
    assert answers == [200] * 20
    assert {status(end) for end in ends} <= {0, 408}
    assert journals(lab, mark) == []
    after = soak.memory(lab.lab)
    assert all(after[name] <= before[name] + outcome.SLACK_BYTES for name in before)


def test_the_sum_of_buffered_bodies_is_bounded(lab, mark):
    """Of 200 unfinished bodies of 990 kB 128 are held; the rest is refused, and others served.

    The refusal, an error of OpenAI's shape, names the limit and when to come back.
    """
    head = b"POST /v1/%s HTTP/1.1\r\nHost: lab\r\nContent-Length: 990000\r\n\r\n" % mark.encode()
    slow = [socket.create_connection(("127.0.0.1", lab.lab.port), 30) for _ in range(200)]
    try:
        for connection in slow:
            connection.sendall(head)
        most = len(slow) - LARGE_BODIES
        refused = poll(
            lambda: select.select(slow, [], [], 0)[0], lambda readable: len(readable) >= most, 20
        )
        answers = [requests.get(lab.lab.front, timeout=5).status_code for _ in range(20)]
        small = requests.post(f"{lab.lab.front}/chat", json={"message": "hi"}, timeout=5)
        ends = [connection.recv(4096) for connection in refused]
    finally:
        for connection in slow:
            connection.close()

    assert answers == [200] * 20
    assert small.status_code == 200
    assert [status(end) for end in ends] == [503] * most
    assert all(b"Retry-After: 1\r\n" in end for end in ends)
    errors = [json.loads(end.partition(b"\r\n\r\n")[2])["error"] for end in ends]
    assert {error["code"] for error in errors} == {"too_many_large_bodies"}
    assert {error["type"] for error in errors} == {"server_error"}
    assert all("at most 128 requests with a body of 100 kB" in e["message"] for e in errors)
    assert journals(lab, mark) == []


def test_a_spoofed_address_changes_nothing_at_the_front_door(lab):
    """By ip_hash 30 forged addresses are still one client, whatever header they are in."""
    lab.use("ip_hash")
    mark = nginx.log_size(lab.lab)
    names = ("X-Forwarded-For", "X-Real-IP", "Forwarded")

    answers = [
        requests.get(lab.lab.front, headers={name: f"203.0.{n}.9"}, timeout=10)
        for n in range(10)
        for name in names
    ]

    assert len({answer.headers["X-Backend"] for answer in answers}) == 1
    lines = [json.loads(line) for line in nginx.log_with(lab.lab, mark, 30).splitlines()]
    assert not [line for line in lines if line["remote_addr"].startswith("203.0.")]


def test_the_front_door_lets_nobody_name_their_request_or_its_length(lab):
    """X-Request-ID and X-Lab-… are for the lab door's load generator."""
    lab.use("round_robin")
    headers = {"X-Request-ID": "mine", "X-Lab-Duration": "30", "X-Lab-Output-Tokens": "5"}

    answer = requests.get(lab.lab.front, headers=headers, timeout=10)

    assert answer.ok
    assert answer.headers["X-Request-ID"] != "mine"


def test_the_behaviour_port_is_the_backends_own(lab, inside):
    """It answers inside the container, and to nobody who shares a network with it."""
    own = inside("backend-1").run("bash -c 'exec 3<>/dev/tcp/127.0.0.1/9000'")
    others = [
        inside(name).run("timeout 3 bash -c 'exec 3<>/dev/tcp/backend-1/9000'")
        for name in ("nginx", "load", "backend-2")
    ]

    assert own.rc == 0
    assert [other.rc for other in others] == [1, 1, 1]
    assert (
        "9000/tcp" not in compose.container(lab.lab, "backend-1").attrs["NetworkSettings"]["Ports"]
    )


@pytest.mark.parametrize("door", ["front", "door"])
def test_the_behaviour_port_is_not_behind_nginx(lab, door):
    """Its path is a path like any other, and its port in a Host header is a word."""
    base = getattr(lab.lab, door)

    read = requests.get(f"{base}/behaviour", headers={"Host": "backend-1:9000"}, timeout=10)
    write = requests.put(f"{base}/behaviour", json={"hang": True}, timeout=10)

    assert read.text.startswith("Response from: backend-")
    assert write.status_code in (404, 405)
    assert requests.get(base, timeout=10).ok


@pytest.mark.parametrize("service", SERVICES)
def test_no_process_has_or_can_gain_privileges(lab, inside, service):
    """No capability in any set, no root, and no way to get them by a set-uid file."""
    status = inside(service).check_output("cat /proc/1/status")
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    assert lines["NoNewPrivs"] == "1"
    assert lines["CapPrm"] == lines["CapEff"] == lines["CapBnd"] == "0" * 16
    assert "0" not in lines["Uid"].split()


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_has_the_engine_or_a_folder_to_write(lab, inside, service):
    """No socket of Docker's; what is mounted from the host is read-only."""
    mounts = compose.container(lab.lab, service).attrs["Mounts"]

    assert not [mount for mount in mounts if "docker.sock" in mount.get("Source", "")]
    assert not [mount for mount in mounts if mount["Type"] == "bind" and mount["RW"]]
    assert inside(service).run("test -S /var/run/docker.sock -o -S /run/docker.sock").rc == 1


@pytest.mark.parametrize("service", ["nginx", "backend-1", "load"])
def test_no_container_can_ask_for_a_name_outside(lab, inside, service):
    """Questions that the lab's own names do not answer are sent to an address of nobody's."""
    asked = compose.container(lab.lab, service).attrs["HostConfig"]["Dns"]

    known = inside(service).run("getent hosts backend-1")
    unknown = inside(service).run(f"getent hosts {secrets.token_hex(16)}.example.com")

    assert asked == ["192.0.2.1"]
    assert (known.rc, unknown.rc) == (0, 2)


def test_every_image_has_a_package_list(lab):
    """CycloneDX: what runs in each image is in it."""
    documents = sbom.sbom(lab.lab)

    named = {
        image.rpartition("/")[2].split(":")[0]: {part["name"] for part in document["components"]}
        for image, document in documents.items()
    }
    assert set(named) == {"nginx", "backend", "load"}
    assert "nginx" in named["nginx"]
    assert "python3-uvicorn" in named["backend"]
    assert "apache2-utils" in named["load"]
