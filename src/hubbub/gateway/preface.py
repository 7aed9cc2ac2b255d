"""The PROXY protocol, versions 1 and 2: what a proxy says of its client in front of the bytes that it passes on.

Source: HAProxy's "The PROXY protocol", sections 2.1 and 2.2. Nothing here touches a socket.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import NamedTuple

MAX_PREFACE_BYTES = 2_048
"""The longest preface that is taken; senders keep theirs below a TCP segment's 536 bytes."""

_V1 = b"PROXY "
_V1_MAX_BYTES = 107  # with its CRLF
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD_BYTES = 16
_SSL = 0x20  # the kind of the part that tells of TLS
_OVER_TLS = 0x01  # its bit for "the client connected over TLS"

_V1_LINE = re.compile(
    r"PROXY (?:TCP4|TCP6) ([0-9A-Fa-f.:]{2,39}) ([0-9A-Fa-f.:]{2,39}) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})"
)
_V2_FAMILIES = {0x11: (4, 12), 0x21: (16, 36)}  # TCP over IPv4 and IPv6: bytes of an address, and of all of them
_V2_OWN_FAMILIES = {0x00, 0x31}  # unspecified, and a socket of the proxy's own machine: no address to be had


class BadPreface(ValueError):
    """What came is no header of the PROXY protocol; the message says what was expected."""


class Preface(NamedTuple):
    """What a proxy said.

    Attributes:
        client: the address and port of who connected to the proxy; None when the proxy speaks for itself.
        is_secure: whether the client connected over TLS; version 1 never says so.
        size: how many bytes the header has.

    """

    client: tuple[str, int] | None
    is_secure: bool
    size: int


def read_preface(data: bytes) -> Preface | None:
    """The header that `data` begins with; None while more of it has to come.

    Raises:
        BadPreface: it begins with none, or with one that is wrong or too long.

    """
    if data[: len(_V2)] == _V2[: len(data)]:
        return _read_v2(data) if len(data) >= _V2_HEAD_BYTES else None
    if data[: len(_V1)] == _V1[: len(data)]:
        return _read_v1(data)
    raise BadPreface("expected a header of the PROXY protocol, got something else")


def _read_v1(data: bytes) -> Preface | None:
    line, ended, _ = data[:_V1_MAX_BYTES].partition(b"\r\n")
    if not ended:
        if len(data) >= _V1_MAX_BYTES:
            raise BadPreface(f"expected a line of at most {_V1_MAX_BYTES} bytes, got a longer one")
        return None
    size = len(line) + 2
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Preface(None, False, size)  # what else it says is to be ignored
    found = _V1_LINE.fullmatch(line.decode("latin-1"))
    if found is None:
        raise BadPreface("expected PROXY, TCP4 or TCP6, two addresses and two ports, got another line")
    try:
        addresses = [ipaddress.ip_address(found[1]), ipaddress.ip_address(found[2])]
    except ValueError:
        raise BadPreface("expected two addresses, got something else") from None
    version = 4 if line.startswith(b"PROXY TCP4 ") else 6
    port = int(found[3])
    if any(address.version != version for address in addresses) or max(port, int(found[4])) > 65_535:
        raise BadPreface(f"expected addresses of IPv{version} and ports up to 65535, got others")
    return Preface((_written(addresses[0]), port), False, size)


def _read_v2(data: bytes) -> Preface | None:
    command, family, length = struct.unpack_from("!BBH", data, len(_V2))
    size = _V2_HEAD_BYTES + length
    if command not in (0x20, 0x21):
        raise BadPreface(f"expected version 2 with LOCAL or PROXY, got 0x{command:02x}")
    if size > MAX_PREFACE_BYTES:
        raise BadPreface(f"expected at most {MAX_PREFACE_BYTES} bytes, got {size}")
    if len(data) < size:
        return None
    if command == 0x20 or family in _V2_OWN_FAMILIES:
        return Preface(None, False, size)
    if family not in _V2_FAMILIES:
        raise BadPreface(f"expected TCP over IPv4 or IPv6, got the family 0x{family:02x}")
    width, addresses = _V2_FAMILIES[family]
    body = data[_V2_HEAD_BYTES:size]
    if length < addresses:
        raise BadPreface(f"expected {addresses} bytes of addresses, got {length}")
    (port,) = struct.unpack_from("!H", body, 2 * width)
    return Preface((_written(ipaddress.ip_address(body[:width])), port), _is_secure(body[addresses:]), size)


def _written(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An address as everything else writes it, also where the proxy's socket is one for both versions of IP."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _is_secure(parts: bytes) -> bool:
    """Whether one of the parts behind the addresses says that the client came over TLS."""
    at = 0
    secure = False
    while at < len(parts):
        if at + 3 > len(parts):
            raise BadPreface("expected a part's kind and length, got the end of the header")
        kind, length = struct.unpack_from("!BH", parts, at)
        value = parts[at + 3 : at + 3 + length]
        if len(value) < length:
            raise BadPreface(f"expected a part of {length} bytes, got {len(value)}")
        if kind == _SSL and value:
            secure = bool(value[0] & _OVER_TLS)
        at += 3 + length
    return secure
