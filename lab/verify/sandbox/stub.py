"""Stub backends: listen on many addresses; each response names its address.

Runs inside a container, from this text alone: the standard library, nothing of the lab.
"""

import asyncio
import functools
import json
import re
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FREEBIND = {socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}
LASTS = re.compile(
    rb"[?&]lab_lasts=([0-9.]{1,9}|own)|\r\nx-lab-duration: *([0-9.]{1,9}|own)", re.IGNORECASE
)
LONGEST = 5.0  # seconds that a request may ask an answer to last
CONTROL = "\0nginx-llm-lab.stub"  # an abstract socket: it belongs to the container's network


class StubServer:
    """One stub backend: `close` makes it refuse connections, `open` makes it accept them again."""

    def __init__(
        self,
        name: str,
        pace: float,
        listen: Callable[[], socket.socket],
        context: ssl.SSLContext | None,
    ) -> None:
        self.name = name
        self.pace = pace
        self.listen = listen
        self.context = context
        self.server: asyncio.Server | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Start listening, unless it already is."""
        if self.server is None:
            self.server = await asyncio.start_server(
                self._serve, sock=self.listen(), ssl=self.context, backlog=4096
            )

    def close(self) -> None:
        """Stop listening, and abort open connections."""
        if self.server is not None:
            self.server.close()
            self.server = None
        for writer in self.writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            await answer(self.name, self.pace, reader, writer)
        finally:
            self.writers.discard(writer)


async def control(
    servers: Mapping[str, StubServer], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Read a JSON list of names; close these servers, open all others, reply when done."""
    closed = json.loads(await reader.readline())
    for name, stub_server in servers.items():
        if name in closed:
            stub_server.close()
        else:
            await stub_server.open()
    writer.write(b"done\n")
    await writer.drain()
    writer.close()


def tell(closed: Sequence[str]) -> None:
    """Close exactly these stub backends of this network, open the others; return when done."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(CONTROL)
        line.sendall(json.dumps(closed).encode() + b"\n")
        line.recv(16)


async def answer(
    name: str, pace: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve one connection; responses carry the stub's name and the times."""
    try:
        while await _exchange(reader, writer, name, pace):
            pass
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
        pass  # the client disconnected, or did not speak HTTP
    finally:
        writer.close()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, pace: float
) -> bool:
    """Serve one request; return whether the connection stays open."""
    head = await reader.readuntil(b"\r\n\r\n")
    received = time.time()
    await _body(head.lower(), reader)
    await asyncio.sleep(lasts(head, pace))
    stays = b" HTTP/1.1\r\n" in head and b"connection: close" not in head.lower()
    text = f"Response from: {name}\n".encode()
    lines = [
        "HTTP/1.1 200 OK",
        "Content-Type: text/plain",
        f"Content-Length: {len(text)}",
        f"Connection: {'keep-alive' if stays else 'close'}",
        "Cache-Control: no-store",
        f"X-Lab-Server: {name}",
        f"X-Lab-Received: {received:.6f}",
        f"X-Lab-Answered: {time.time():.6f}",
    ]
    bodiless = head.startswith(b"HEAD ")
    writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if bodiless else text))
    await writer.drain()
    return stays


def lasts(head: bytes, pace: float) -> float:
    """The duration that a request asks for, in seconds; "own" is the stub backend's default."""
    match = LASTS.search(head)
    if match is None:
        return 0.0
    try:
        asked = match[1] or match[2]
        return pace if asked == b"own" else min(float(asked), LONGEST)
    except ValueError:
        return 0.0


async def _body(head: bytes, reader: asyncio.StreamReader) -> None:
    """Read and discard a request's body."""
    if re.search(rb"\r\ntransfer-encoding:[^\r]*chunked", head):
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
        return
    if match := re.search(rb"\r\ncontent-length: *(\d+)", head):
        await reader.readexactly(int(match[1]))


def listener(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A bound socket, even if the address is not assigned yet; `host` may be a file's path."""
    if host.startswith("/"):
        return unix_listener(Path(host))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, kind)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(*FREEBIND[family], 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    bound.bind((host, port))
    bound.setblocking(False)
    return bound


def unix_listener(path: Path) -> socket.socket:
    """A socket bound to a file that every user may connect to."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(path))
    path.chmod(0o666)
    bound.setblocking(False)
    return bound


class Names(asyncio.DatagramProtocol):
    """A DNS server that resolves only the stub backends."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = {name.lower(): address for name, address in names.items()}
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the answers."""
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer one query."""
        if self.transport and (answer := reply(data, self.names)):
            self.transport.sendto(answer, addr)


def reply(question: bytes, names: Mapping[str, str]) -> bytes:
    """The answer to a DNS question (RFC 1035): an address, none of that family, or no such name."""
    labels, at = [], 12
    while at < len(question) and (length := question[at]):
        labels.append(question[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += length + 1
    asked = question[12 : at + 5]
    if len(asked) < 5:
        return b""
    address = names.get(".".join(labels).lower())
    kind = int.from_bytes(asked[-4:-2], "big")
    family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
    fits = address is not None and family == (socket.AF_INET6 if ":" in address else socket.AF_INET)
    data = socket.inet_pton(family, address) if fits and family and address else b""
    code = 3 if address is None else 0
    head = question[:2] + bytes([0x81, 0x80 | code]) + bytes([0, 1, 0, bool(data), 0, 0, 0, 0])
    record = b"\xc0\x0c" + asked[-4:] + (60).to_bytes(4, "big")
    return head + asked + (record + len(data).to_bytes(2, "big") + data if data else b"")


def secured(pem: str) -> ssl.SSLContext:
    """TLS with the certificate and key of one text."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def main(
    servers: Sequence[Any], names: Mapping[str, str], dns: Sequence[Any], pem: str
) -> None:
    """Listen as stubs [name, host, port, tls, pace], as name servers [host, port]; print ready."""
    context = secured(pem) if pem else None
    stub_servers: dict[str, StubServer] = {}
    for name, host, port, tls, pace in servers:
        listen = functools.partial(listener, host, port, socket.SOCK_STREAM)
        stub_servers[name] = StubServer(name, pace, listen, context if tls else None)
        await stub_servers[name].open()
    await asyncio.start_unix_server(functools.partial(control, stub_servers), path=CONTROL)
    for host, port in dns:
        await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Names(names), sock=listener(host, port, socket.SOCK_DGRAM)
        )
    sys.stdout.write("ready\n")  # the parent process waits for it
    sys.stdout.flush()
    await asyncio.Event().wait()


def run(plan: Mapping[str, Any]) -> None:
    """Serve the plan for its number of seconds, then exit."""
    serving = main(plan["endpoints"], plan["names"], plan["dns"], plan["pem"])
    try:
        asyncio.run(asyncio.wait_for(serving, plan["seconds"]))
    except TimeoutError:
        pass
    except OSError as error:
        sys.exit(f"cannot listen: {error}")


if __name__ == "__main__" and sys.argv[1:2] == ["close"]:
    tell(sys.argv[2:])
elif __name__ == "__main__":
    run(json.loads(sys.argv[1] if len(sys.argv) > 1 else Path("/dev/stdin").read_text()))
