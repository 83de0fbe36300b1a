"""A stub backend names itself and its times; its name server resolves only stub backends."""

import asyncio
import functools
import socket
from pathlib import Path

import pytest

from nginx_llm_lab.verify.sandbox import stub


def spoken(*requests: bytes) -> bytes:
    """Everything that a stub backend says on one connection."""

    async def talk() -> bytes:
        answer = functools.partial(stub.answer, "gpu:8000", 0.0)
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"".join(requests))
            writer.write_eof()
            response = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            await writer.wait_closed()
            return response

    return asyncio.run(talk())


def test_it_says_who_it_is() -> None:
    """In a header, so that it does not matter what nginx does to the body."""
    response = spoken(b"GET / HTTP/1.0\r\n\r\n")

    assert b"\r\nX-Lab-Server: gpu:8000\r\n" in response
    assert response.endswith(b"Response from: gpu:8000\n")


def test_it_keeps_an_http_1_1_connection_open() -> None:
    """Bodies of any length are read to their end: by length, and in chunks."""
    response = spoken(
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    )

    assert response.count(b"HTTP/1.1 200 OK") == 3


def test_what_is_no_http_ends_the_connection() -> None:
    """Without an error: a stub backend must survive any input."""
    assert spoken(b"\x16\x03\x01 hello") == b""


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        (b"GET /?a=1&lab_lasts=0.25 HTTP/1.1\r\n\r\n", 0.25),
        (b"GET / HTTP/1.1\r\nX-Lab-Duration: 0.5\r\n\r\n", 0.5),
        (b"GET /?lab_lasts=own HTTP/1.1\r\n\r\n", 0.07),
        (b"GET /?lab_lasts=900 HTTP/1.1\r\n\r\n", stub.LONGEST),
        (b"GET /?lab_lasts=1.2.3 HTTP/1.1\r\n\r\n", 0.0),
        (b"GET / HTTP/1.1\r\n\r\n", 0.0),
    ],
)
def test_an_answer_lasts_as_long_as_it_is_asked_to(head: bytes, seconds: float) -> None:
    """By the query, which most configs pass on, or by a header; never for long."""
    assert stub.lasts(head, 0.07) == seconds


def question(name: str, kind: int) -> bytes:
    """A DNS question."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    head = b"\x12\x34\x01\x00" + bytes([0, 1, 0, 0, 0, 0, 0, 0])
    return head + labels + b"\0" + kind.to_bytes(2, "big") + b"\0\1"


def test_a_known_name_has_its_address() -> None:
    """Whatever its case; the answer carries the question's number."""
    response = stub.reply(question("VLLM.svc", 1), {"vllm.svc": "198.18.0.1"})

    assert response[:2] == b"\x12\x34"
    assert response[7] == 1
    assert response.endswith(bytes([198, 18, 0, 1]))


def test_a_name_has_no_address_of_the_other_family() -> None:
    """No such record is not the same as no such name."""
    response = stub.reply(question("vllm", 28), {"vllm": "198.18.0.1"})

    assert (response[3] & 15, response[7]) == (0, 0)


def test_an_unknown_name_does_not_exist() -> None:
    """The name server does not forward queries."""
    assert stub.reply(question("example", 1), {})[3] & 15 == 3


@pytest.mark.parametrize("data", [b"", b"\0" * 12, b"\xff" * 40])
def test_a_broken_question_breaks_nothing(data: bytes) -> None:
    """At worst there is no answer."""
    stub.reply(data, {})


def test_a_closed_stub_refuses_and_accepts_again() -> None:
    """Like a server that is down: new connections are refused, open ones are closed."""

    async def try_door() -> list[bool]:
        bound = stub.listener("127.0.0.1", 0, socket.SOCK_STREAM)
        port = bound.getsockname()[1]
        bound.close()
        listen = functools.partial(stub.listener, "127.0.0.1", port, socket.SOCK_STREAM)
        stub_server = stub.StubServer("gpu:8000", 0.0, listen, None)
        await stub_server.open()
        reader, kept = await asyncio.open_connection("127.0.0.1", port)
        answered = []
        for action in ("keep", "close", "open"):
            if action == "close":
                stub_server.close()
                answered.append(await cut(reader))
            elif action == "open":
                await stub_server.open()
            answered.append(await accepts(port))
        stub_server.close()
        kept.close()
        return answered

    async def cut(reader: asyncio.StreamReader) -> bool:
        try:
            return await asyncio.wait_for(reader.read(1), 10) == b""
        except ConnectionResetError:
            return True

    async def accepts(port: int) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True

    assert asyncio.run(try_door()) == [True, True, False, True]


def test_a_stub_on_a_unix_socket_opens_again_after_it_closed(tmp_path: Path) -> None:
    """Its file stays while it is closed, as a crashed server leaves it; any user may connect."""
    path = tmp_path / "a.sock"

    async def try_door() -> list[bool]:
        listen = functools.partial(stub.listener, str(path), 0, socket.SOCK_STREAM)
        stub_server = stub.StubServer("unix:/run/a.sock", 0.0, listen, None)
        answered = []
        for action in (stub_server.open, stub_server.close, stub_server.open):
            if (opening := action()) is not None:
                await opening
            answered.append(await accepts())
        stub_server.close()
        return answered

    async def accepts() -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except ConnectionRefusedError:
            return False
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer.endswith(b"Response from: unix:/run/a.sock\n")

    assert asyncio.run(try_door()) == [True, False, True]
    assert path.stat().st_mode & 0o777 == 0o666
