"""Send requests to nginx as clients would, sequentially or concurrently; print the responses.

Runs inside a container, from this text alone: the standard library, nothing of the lab.
"""

import asyncio
import functools
import json
import re
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CALL_SECONDS = 10.0
CLOSED = "nginx closed the connection without a response"
HEADER = re.compile(rb"^([^:\r\n]+):[ \t]*([^\r\n]*)", re.MULTILINE)


class Connection:
    """A client connection, kept open while requests have the same source address."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.source = ""
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.sent = 0.0

    async def exchange(self, source: str, request: bytes, bodiless: bool) -> tuple[bytes, bytes]:
        """Send a request; return the head and the body of its response.

        nginx may have closed an idle connection. It did not read such a request, which is sent
        again on a new connection.
        """
        if self.writer and source == self.source:
            try:
                return await self._ask(request, bodiless)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                if getattr(error, "partial", b""):
                    raise
        self.close()
        await self._open(source)
        return await self._ask(request, bodiless)

    async def _open(self, source: str) -> None:
        plan = self.plan
        host, port = plan["host"], plan["port"]
        local = (source, 0) if source else None
        at_once: dict[str, Any] = {}
        if plan["tls"] and not plan["proxy_protocol"]:
            at_once = {"ssl": context(plan["pem"]), "server_hostname": plan["name"] or host}
        self.reader, self.writer = await asyncio.open_connection(
            host, port, local_addr=local, **at_once
        )
        self.source = source
        if plan["proxy_protocol"]:
            await self._introduce(host, port)

    async def _introduce(self, host: str, port: int) -> None:
        """Send the PROXY protocol header before anything else, TLS included."""
        assert self.writer is not None
        mine = self.writer.get_extra_info("sockname")
        family = "TCP6" if ":" in host else "TCP4"
        self.writer.write(f"PROXY {family} {mine[0]} {host} {mine[1]} {port}\r\n".encode())
        await self.writer.drain()
        if self.plan["tls"]:
            tls = context(self.plan["pem"])
            await self.writer.start_tls(tls, server_hostname=self.plan["name"] or host)

    async def _ask(self, request: bytes, bodiless: bool) -> tuple[bytes, bytes]:
        assert self.reader is not None
        assert self.writer is not None
        self.sent = time.time()
        self.writer.write(request)
        await self.writer.drain()
        head = await self.reader.readuntil(b"\r\n\r\n")
        while re.match(rb"HTTP/1\.\d 1\d\d", head):
            head = await self.reader.readuntil(b"\r\n\r\n")
        body, stays = await read_body(head, self.reader, bodiless)
        if not stays:
            self.close()
        return head, body

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None


async def read_body(
    head: bytes, reader: asyncio.StreamReader, bodiless: bool
) -> tuple[bytes, bool]:
    """A response's body, and whether the connection stays open."""
    headers = {name.lower(): value.lower() for name, value in HEADER.findall(head)}
    stays = head.startswith(b"HTTP/1.1") and headers.get(b"connection", b"") != b"close"
    if bodiless or re.match(rb"HTTP/1\.\d (204|304)", head):
        return b"", stays
    if b"chunked" in headers.get(b"transfer-encoding", b""):
        chunks = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            chunks.append((await reader.readexactly(size + 2))[:-2])
        await reader.readuntil(b"\r\n")
        return b"".join(chunks), stays
    if b"content-length" in headers:
        return await reader.readexactly(int(headers[b"content-length"])), stays
    return await reader.read(), False


@functools.cache
def context(pem: str) -> ssl.SSLContext:
    """A TLS context with the lab's own certificate, which accepts any from the server."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pem)
        file.flush()
        trusting.load_cert_chain(file.name)
    return trusting


def written(planned: Mapping[str, Any], cookies: Mapping[str, str]) -> tuple[bytes, str]:
    """A request as bytes, and its Cookie header."""
    headers = dict(planned["headers"])
    carried = "; ".join(
        [*filter(None, [headers.pop("Cookie", "")]), *(f"{k}={v}" for k, v in cookies.items())]
    )
    if carried:
        headers["Cookie"] = carried
    body = planned["body"].encode("latin-1")
    if body or planned["method"] in ("POST", "PUT", "PATCH"):
        headers["Content-Length"] = str(len(body))
    lines = [f"{planned['method']} {planned['target']} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
    return head + body, carried


def record(planned: Mapping[str, Any], carried: str, sent: float, head: bytes) -> dict[str, Any]:
    """The record of a request and its response."""
    headers = {
        name.lower().decode(): value.decode("latin-1") for name, value in HEADER.findall(head)
    }
    done = time.time()
    return {
        "id": planned["id"],
        "status": int(head.split(b" ", 2)[1]),
        "server": headers.get("x-lab-server", ""),
        "location": headers.get("location", ""),
        "cookie": carried,
        "sent": sent,
        "received": float(headers.get("x-lab-received", sent)),
        "answered": float(headers.get("x-lab-answered", done)),
        "done": done,
    }


async def send(
    connection: Connection, planned: Mapping[str, Any], jar: dict[str, str]
) -> dict[str, Any]:
    """Send one request and return its record; an error is part of the record."""
    request, carried = written(planned, jar)
    try:
        head, _ = await asyncio.wait_for(
            connection.exchange(planned["source"], request, planned["method"] == "HEAD"),
            CALL_SECONDS,
        )
        jar.update(re.findall(r"(?im)^set-cookie: *([^=;\s]+)=([^;\r\n]*)", head.decode("latin-1")))
        return record(planned, carried, connection.sent, head)
    except TimeoutError:
        error = f"no response in {CALL_SECONDS:g} s"
    except (asyncio.IncompleteReadError, OSError, ValueError, IndexError) as failure:
        closed = isinstance(failure, asyncio.IncompleteReadError) and not failure.partial
        error = CLOSED if closed else f"{type(failure).__name__}: {failure}"
    connection.close()
    return {"id": planned["id"], "status": 0, "error": error}


async def send_all(plan: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Send the plan's requests in order and concurrently, until they or the seconds run out.

    With `until_served`, the first response of a stub backend ends the run.
    """
    waiting: Iterator[Mapping[str, Any]] = iter(plan["requests"])
    end = time.monotonic() + plan["seconds"]
    jars: dict[str, dict[str, str]] = {}
    records: list[dict[str, Any]] = []

    async def work() -> None:
        connection = Connection(plan)
        for planned in waiting:
            session = planned["session"]
            jar = jars.setdefault(session, {}) if session else {}
            records.append(await send(connection, planned, jar))
            if time.monotonic() > end or (plan["until_served"] and records[-1].get("server")):
                break
        connection.close()

    await asyncio.gather(*(work() for _ in range(plan["concurrency"])))
    return records


async def listening(host: str, port: int, seconds: float) -> bool:
    """Whether the address accepts a connection before the timeout."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.02)  # the interval of a poll with a deadline
            continue
        writer.close()
        return True
    return False


def run(plan: Mapping[str, Any]) -> None:
    """Carry out a plan and print its records as JSON."""
    if "requests" in plan:
        output: Any = asyncio.run(send_all(plan))
    else:
        output = asyncio.run(listening(plan["host"], plan["port"], plan["seconds"]))
    sys.stdout.write(json.dumps(output))


if __name__ == "__main__":
    run(json.load(sys.stdin))
