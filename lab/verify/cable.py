"""Lay a cable between two network namespaces and give its ends addresses, by netlink.

Runs inside a container that may do that and nothing else, from this text alone: the standard
library, nothing of the lab. Numbers are those of linux/rtnetlink.h, if_link.h and veth.h.
"""

import json
import os
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

NAME = "lab0"  # of either end
REQUEST, ACK, EXCLUSIVE, CREATE = 1, 4, 0x200, 0x400
ERROR = 2  # the kind of message that acknowledges, too
NEW_LINK, NEW_ADDRESS = 16, 20
UP = 1
NO_DUPLICATE_CHECK = 0x02  # an IPv6 address is usable at once
IF_NAME, LINK_INFO, NAMESPACE_OF = 3, 18, 19
INFO_KIND, INFO_DATA, PEER = 1, 2, 1
ADDRESS, LOCAL = 1, 2


def attribute(kind: int, data: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def message(kind: int, flags: int, body: bytes) -> bytes:
    """One netlink request that wants an answer."""
    return struct.pack("=IHHII", 16 + len(body), kind, REQUEST | ACK | flags, 1, 0) + body


def link(index: int = 0, flags: int = 0) -> bytes:
    """The fixed part of a message about a link."""
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def cable(process: int) -> bytes:
    """Make a pair of ends, the other one in the namespace of a process; neither is up yet."""
    name = attribute(IF_NAME, NAME.encode() + b"\0")
    peer = link() + name + attribute(NAMESPACE_OF, struct.pack("=I", process))
    info = attribute(INFO_KIND, b"veth\0") + attribute(INFO_DATA, attribute(PEER, peer))
    return message(NEW_LINK, CREATE | EXCLUSIVE, link() + name + attribute(LINK_INFO, info))


def up(name: str) -> bytes:
    """Bring a link up."""
    return message(NEW_LINK, 0, link(socket.if_nametoindex(name), UP))


def address(index: int, local: str, peer: str) -> bytes:
    """Give a link an address, with the one address that is reached through it."""
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    mine, other = (socket.inet_pton(family, text) for text in (local, peer or local))
    fixed = struct.pack("=BBBBI", family, len(mine) * 8, NO_DUPLICATE_CHECK, 0, index)
    body = fixed + attribute(LOCAL, mine) + attribute(ADDRESS, other)
    return message(NEW_ADDRESS, CREATE | EXCLUSIVE, body)


def tell(kernel: socket.socket, request: bytes) -> None:
    """Have the kernel carry out a request; OSError where it refuses."""
    kernel.send(request)
    said = kernel.recv(65536)
    kind = struct.unpack_from("=H", said, 4)[0]
    code = struct.unpack_from("=i", said, 16)[0] if kind == ERROR else 0
    if code:
        raise OSError(-code, os.strerror(-code))


def run(plan: Mapping[str, Any]) -> None:
    """Lay the cable if the plan says so, bring links up, add addresses [link, local, peer]."""
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    if plan["lay"]:
        tell(kernel, cable(1))
    for name in sorted({name for name, *_ in plan["addresses"]}):
        tell(kernel, up(name))
    for name, local, peer in plan["addresses"]:
        try:
            tell(kernel, address(socket.if_nametoindex(name), local, peer))
        except FileExistsError:
            pass
        except OSError as error:
            sys.exit(f"address {local}: {error.strerror}")


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
