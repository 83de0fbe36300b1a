"""Connect two network namespaces by a veth pair with addresses, as `ip` commands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NAME = "lab0"  # of either end


@dataclass(frozen=True, slots=True)
class Address:
    """An address for a link, with the one address that is reached through it, if any."""

    link: str
    local: str
    peer: str = ""


def commands(addresses: Sequence[Address], *, new: bool) -> Iterator[str]:
    """Lines for `ip -batch` that bring the links up with their addresses.

    If `new`, create the veth pair; its other end goes into the namespace of process 1.
    """
    if new:
        yield f"link add {NAME} type veth peer name {NAME} netns 1"
    for link in sorted({address.link for address in addresses}):
        yield f"link set {link} up"
    for address in addresses:
        peer = f" peer {address.peer}" if address.peer else ""
        usable = " nodad" if ":" in address.local else ""  # at once, without a look for duplicates
        yield f"address replace {address.local}{peer} dev {address.link}{usable}"
