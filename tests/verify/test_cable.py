"""Netlink messages as the kernel reads them."""

import socket
import struct

from nginx_llm_lab.verify import cable


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by kind."""
    found = {}
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def test_a_message_says_how_long_it_is() -> None:
    """Header, then body; the kernel answers what wants an acknowledgement."""
    said = cable.message(cable.NEW_LINK, cable.CREATE, b"body")

    length, kind, flags = struct.unpack_from("=IHH", said)
    assert (length, kind) == (len(said), cable.NEW_LINK)
    assert flags == cable.REQUEST | cable.ACK | cable.CREATE


def test_attributes_are_padded_to_four_bytes() -> None:
    """The padding is not part of the length."""
    assert cable.attribute(3, b"lab0\0") == b"\x09\x00\x03\x00lab0\0\0\0\0"


def test_the_other_end_goes_to_another_process() -> None:
    """Both ends are called alike, in two namespaces."""
    body = cable.cable(1)[16 + 16 :]

    outer = attributes(body)
    info = attributes(outer[cable.LINK_INFO])
    peer = attributes(attributes(info[cable.INFO_DATA])[cable.PEER][16:])
    assert info[cable.INFO_KIND] == b"veth\0"
    assert outer[cable.IF_NAME] == peer[cable.IF_NAME] == b"lab0\0"
    assert peer[cable.NAMESPACE_OF] == struct.pack("=I", 1)


def test_an_address_has_its_one_peer() -> None:
    """A link from 198.19.0.1 to 10.0.0.5 alone is a route to 10.0.0.5 alone."""
    body = cable.address(7, "198.19.0.1", "10.0.0.5")[16:]

    family, bits, _, _, index = struct.unpack_from("=BBBBI", body)
    found = attributes(body[8:])
    assert (family, bits, index) == (socket.AF_INET, 32, 7)
    assert found[cable.LOCAL] == bytes([198, 19, 0, 1])
    assert found[cable.ADDRESS] == bytes([10, 0, 0, 5])


def test_an_ipv6_address_is_usable_at_once() -> None:
    """Without the second that the kernel would spend on looking for a duplicate."""
    body = cable.address(7, "fd00::1", "")[16:]

    family, bits, flags, _, _ = struct.unpack_from("=BBBBI", body)
    assert (family, bits) == (socket.AF_INET6, 128)
    assert flags & cable.NO_DUPLICATE_CHECK
