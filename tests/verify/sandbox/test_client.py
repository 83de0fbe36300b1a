"""The client keeps order and connections, follows cookies, and reports what went wrong."""

import asyncio
import functools
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nginx_llm_lab.nginxconf import tree
from nginx_llm_lab.verify import files
from nginx_llm_lab.verify.sandbox import client, stub
from nginx_llm_lab.verify.survey import survey

CALL = {
    "id": "1",
    "source": "127.0.0.1",
    "method": "GET",
    "target": "/",
    "headers": [["Host", "llm"]],
    "body": "",
    "session": "",
}


def called(server: Any, wanted: Sequence[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """What requests to a server of this process come to."""

    async def talk() -> list[dict[str, Any]]:
        async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
            host, port = listening.sockets[0].getsockname()
            plan = {"host": host, "port": port, "tls": False, "proxy_protocol": False, "name": "x"}
            plan |= {
                "concurrency": 1,
                "seconds": 10,
                "until_served": False,
                "requests": wanted,
                **more,
            }
            return list(await client.send_all(plan))

    return asyncio.run(talk())


def said(text: bytes) -> Any:
    """A server that gives the same answer to every request on a connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(text.replace(b"{cookie}", str(b"Cookie" in head).encode()))
        except asyncio.IncompleteReadError:
            writer.close()

    return serve


STANDIN = functools.partial(stub.answer, "gpu:8000", 0.0)


def test_calls_are_answered_in_order_with_who_and_when() -> None:
    """Sent, received, answered, done: each not before the one before it."""
    records = called(STANDIN, [{**CALL, "id": str(number)} for number in range(5)])

    assert [record["id"] for record in records] == ["0", "1", "2", "3", "4"]
    for record in records:
        assert record["server"] == "gpu:8000"
        times = [record[name] for name in ("sent", "received", "answered", "done")]
        assert times == sorted(times)


def test_calls_of_one_client_share_a_connection() -> None:
    """So one worker of nginx's serves them all; another address is another connection."""
    peers: list[tuple[str, int]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername"))
        await STANDIN(reader, writer)

    addresses = ["127.0.0.1", "127.0.0.1", "127.7.7.7", "127.7.7.7"]
    called(serve, [{**CALL, "source": address} for address in addresses])

    assert [host for host, _ in peers] == ["127.0.0.1", "127.7.7.7"]


def test_a_session_follows_its_own_cookies() -> None:
    """What one visitor was given, another does not send."""
    serve = said(b"HTTP/1.1 200 OK\r\nSet-Cookie: s=1; Path=/\r\nContent-Length: 0\r\n\r\n")

    records = called(serve, [{**CALL, "session": name} for name in ("a", "a", "b", "")])

    assert [record["cookie"] for record in records] == ["", "s=1", "", ""]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_every_kind_of_answer_is_read_to_its_end(answer: bytes) -> None:
    """The next answer on the connection begins where this one ended."""
    records = called(said(answer), [CALL, CALL])

    assert {record["status"] for record in records} <= {200, 204, 401}
    assert len({record["status"] for record in records}) == 1


def test_a_connection_that_was_closed_while_idle_is_opened_anew() -> None:
    """nginx closes after keepalive_requests; the request that met it was read by nobody."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    assert [record["status"] for record in called(once, [CALL, CALL, CALL])] == [200, 200, 200]


def test_what_goes_wrong_is_part_of_the_record() -> None:
    """A request that got no answer has no status, and says why."""

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    (record,) = called(silent, [CALL])

    assert record["status"] == 0
    assert record["error"]


def test_a_request_without_a_response_is_told_in_words() -> None:
    """As after `return 444`."""

    async def reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    (record,) = called(reading, [CALL])

    assert record["error"] == "nginx closed the connection without a response"


def test_probing_ends_with_the_first_answer_of_a_stand_in() -> None:
    """The first call that a stub backend answers ends the probing, if the plan asks for it."""
    records = called(STANDIN, [CALL, CALL, CALL], until_served=True)

    assert len(records) == 1


def test_calls_may_overlap() -> None:
    """Six at a time are all answered, each once."""
    wanted = [{**CALL, "id": str(number)} for number in range(60)]

    records = called(STANDIN, wanted, concurrency=6)

    assert sorted(int(record["id"]) for record in records) == list(range(60))


def test_the_proxy_protocol_introduces_the_client() -> None:
    """One line before anything else, with the client's own address."""
    lines: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(await reader.readline())
        await STANDIN(reader, writer)

    called(serve, [{**CALL, "source": "127.3.2.1"}], proxy_protocol=True)

    assert lines[0].startswith(b"PROXY TCP4 127.3.2.1 127.0.0.1 ")


def test_the_client_s_certificate_is_the_lab_s_own(tmp_path: Path) -> None:
    """nginx's `ssl_verify_client on` trusts it, as the lab supplies `ssl_client_certificate`."""
    conf = tmp_path / "nginx.conf"
    conf.write_text("events {} http { server { listen 443 ssl; ssl_certificate a.pem; } }")
    pem = tmp_path / "lab.pem"
    pem.write_text(files.certificate(survey(tree.read(conf))))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pem))
    server.load_cert_chain(pem)
    server.verify_mode = ssl.CERT_REQUIRED
    near, far = socket.socketpair()
    far.settimeout(10)  # a client without a certificate says nothing more

    with ThreadPoolExecutor() as pool:
        accepted = pool.submit(server.wrap_socket, far, server_side=True)
        with client.context(pem.read_text()).wrap_socket(near), accepted.result() as encrypted:
            assert "subject" in (encrypted.getpeercert() or {})
