"""Send requests to nginx as clients would, sequentially or concurrently; print the responses.

Runs inside a container, from this text alone: the standard library, nothing of the lab.
"""

import asyncio
import json
import re
import ssl
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CALL_SECONDS = 10.0
HEADER = re.compile(rb"^([^:\r\n]+):[ \t]*([^\r\n]*)", re.MULTILINE)


class Line:
    """One client connection after another: kept open while calls come from the same address."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.source = ""
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.sent = 0.0

    async def exchange(self, source: str, request: bytes, bodiless: bool) -> tuple[bytes, bytes]:
        """Send a request, return the head and the body of its answer.

        A connection that was idle may have been closed: such a request was not read by anybody,
        and goes out once more on a new one.
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
            at_once = {"ssl": trusting(), "server_hostname": plan["name"] or host}
        self.reader, self.writer = await asyncio.open_connection(
            host, port, local_addr=local, **at_once
        )
        self.source = source
        if plan["proxy_protocol"]:
            await self._introduce(host, port)

    async def _introduce(self, host: str, port: int) -> None:
        """The PROXY protocol's line before anything else, TLS included."""
        assert self.writer is not None
        mine = self.writer.get_extra_info("sockname")
        family = "TCP6" if ":" in host else "TCP4"
        self.writer.write(f"PROXY {family} {mine[0]} {host} {mine[1]} {port}\r\n".encode())
        await self.writer.drain()
        if self.plan["tls"]:
            await self.writer.start_tls(trusting(), server_hostname=self.plan["name"] or host)

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
        """End the connection, if there is one."""
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None


async def read_body(
    head: bytes, reader: asyncio.StreamReader, bodiless: bool
) -> tuple[bytes, bool]:
    """A response's body, and whether the connection stays open behind it."""
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


def trusting() -> ssl.SSLContext:
    """TLS that takes any certificate: it is the lab's own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def written(call: Mapping[str, Any], cookies: Mapping[str, str]) -> tuple[bytes, str]:
    """A call as bytes on the line, and the Cookie header that it carries."""
    headers = dict(call["headers"])
    carried = "; ".join(
        [*filter(None, [headers.pop("Cookie", "")]), *(f"{k}={v}" for k, v in cookies.items())]
    )
    if carried:
        headers["Cookie"] = carried
    body = call["body"].encode("latin-1")
    if body or call["method"] in ("POST", "PUT", "PATCH"):
        headers["Content-Length"] = str(len(body))
    lines = [f"{call['method']} {call['target']} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
    return head + body, carried


def record(call: Mapping[str, Any], carried: str, sent: float, head: bytes) -> dict[str, Any]:
    """What a call and its answer come to."""
    headers = {
        name.lower().decode(): value.decode("latin-1") for name, value in HEADER.findall(head)
    }
    done = time.time()
    return {
        "id": call["id"],
        "status": int(head.split(b" ", 2)[1]),
        "server": headers.get("x-lab-server", ""),
        "location": headers.get("location", ""),
        "cookie": carried,
        "sent": sent,
        "received": float(headers.get("x-lab-received", sent)),
        "answered": float(headers.get("x-lab-answered", done)),
        "done": done,
    }


async def one(line: Line, call: Mapping[str, Any], jar: dict[str, str]) -> dict[str, Any]:
    """Make one call; what goes wrong is part of its record."""
    request, carried = written(call, jar)
    try:
        head, _ = await asyncio.wait_for(
            line.exchange(call["source"], request, call["method"] == "HEAD"), CALL_SECONDS
        )
        jar.update(re.findall(r"(?im)^set-cookie: *([^=;\s]+)=([^;\r\n]*)", head.decode("latin-1")))
        return record(call, carried, line.sent, head)
    except (asyncio.IncompleteReadError, OSError, TimeoutError, ValueError, IndexError) as error:
        line.close()
        return {"id": call["id"], "status": 0, "error": f"{type(error).__name__}: {error}"}


async def calls(plan: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Make the plan's calls in order, so many at a time, until they or the seconds are over.

    Where the plan says so, the first answer of a stand-in ends them.
    """
    waiting: Iterator[Mapping[str, Any]] = iter(plan["calls"])
    end = time.monotonic() + plan["seconds"]
    jars: dict[str, dict[str, str]] = {}
    records: list[dict[str, Any]] = []

    async def work() -> None:
        line = Line(plan)
        for call in waiting:
            session = call["session"]
            jar = jars.setdefault(session, {}) if session else {}
            records.append(await one(line, call, jar))
            if time.monotonic() > end or (plan["until_served"] and records[-1].get("server")):
                break
        line.close()

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
    if "calls" in plan:
        said: Any = asyncio.run(calls(plan))
    else:
        said = asyncio.run(listening(plan["host"], plan["port"], plan["seconds"]))
    print(json.dumps(said))  # noqa: T201 - its output is what it is started for


if __name__ == "__main__":
    run(json.load(sys.stdin))
