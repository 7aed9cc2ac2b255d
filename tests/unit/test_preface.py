"""The PROXY protocol's header: read as its specification has it, whole or in pieces, and refused when it is none."""

from __future__ import annotations

import contextlib
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.gateway.preface import MAX_PREFACE_BYTES, BadPreface, Preface, read_preface

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
REST = b"GET /ws HTTP/1.1\r\n"

ports = st.integers(0, 65_535)


def v2(body: bytes, *, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    """A header of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


def part(kind: int, value: bytes) -> bytes:
    """One of the parts behind the addresses."""
    return struct.pack("!BH", kind, len(value)) + value


TCP4 = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack("!HH", 56_324, 443)
TCP6 = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("::1").packed + struct.pack("!HH", 5, 443)
MAPPED = ipaddress.ip_address("::ffff:192.0.2.1").packed + ipaddress.ip_address("::1").packed + TCP4[-4:]
OVER_TLS, WITHOUT_TLS = part(0x20, b"\x01\x00\x00\x00\x00"), part(0x20, b"\x00\x00\x00\x00\x00")

GOOD = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", ("192.0.2.1", 56_324), False),
    "v1 TCP6": (b"PROXY TCP6 2001:DB8:0::1 ::1 1 65535\r\n", ("2001:db8::1", 1), False),
    "v1 longest": (
        b"PROXY TCP6 " + b" ".join([b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] * 2) + b" 65535 65535\r\n",
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65_535),
        False,
    ),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None, False),
    "v1 UNKNOWN with words": (b"PROXY UNKNOWN ffff:: 4 what \xff ever\r\n", None, False),
    "v2 TCP4": (v2(TCP4), ("192.0.2.1", 56_324), False),
    "v2 TCP6": (v2(TCP6, family=0x21), ("2001:db8::1", 5), False),
    "v2 TCP6 of a mapped address": (v2(MAPPED, family=0x21), ("192.0.2.1", 56_324), False),
    "v2 LOCAL": (v2(b"", command=0x20, family=0), None, False),
    "v2 LOCAL with an address": (v2(TCP4, command=0x20), None, False),
    "v2 unspecified": (v2(b"whatever", family=0), None, False),
    "v2 UNIX": (v2(bytes(216), family=0x31), None, False),
    "v2 over TLS": (v2(TCP4 + part(0xEE, b"x" * 300) + OVER_TLS + part(0x04, b"")), ("192.0.2.1", 56_324), True),
    "v2 without TLS": (v2(TCP4 + WITHOUT_TLS), ("192.0.2.1", 56_324), False),
    "v2 longest": (v2(TCP4 + part(0x04, bytes(MAX_PREFACE_BYTES - 16 - 12 - 3))), ("192.0.2.1", 56_324), False),
}

BAD = {
    "HTTP": REST,
    "TLS": b"\x16\x03\x01\x02\x00",
    "almost a signature": b"\r\n\r\n\x00\r\nQUIZ\n",
    "v1 in small letters": b"proxy TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
    "v1 of no family": b"PROXY UDP4 192.0.2.1 198.51.100.7 56324 443\r\n",
    "v1 of the wrong family": b"PROXY TCP6 192.0.2.1 198.51.100.7 56324 443\r\n",
    "v1 of two families": b"PROXY TCP4 192.0.2.1 ::1 56324 443\r\n",
    "v1 with a name": b"PROXY TCP4 localhost 198.51.100.7 56324 443\r\n",
    "v1 with a wrong address": b"PROXY TCP4 192.0.2.256 198.51.100.7 56324 443\r\n",
    "v1 with a leading zero": b"PROXY TCP4 192.0.2.1 198.51.100.7 056324 443\r\n",
    "v1 with too high a port": b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n",
    "v1 with no port": b"PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
    "v1 with two spaces": b"PROXY TCP4  192.0.2.1 198.51.100.7 56324 443\r\n",
    "v1 with more": b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 1\r\n",
    "v1 with a line feed alone": b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\nGET / HTTP/1.1\r\n",
    "v1 without end": b"PROXY UNKNOWN " + b"x" * 200,
    "v1 too long": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v2 of another version": v2(TCP4, command=0x11),
    "v2 of another command": v2(TCP4, command=0x22),
    "v2 over UDP": v2(TCP4, family=0x12),
    "v2 of no family": v2(TCP4, family=0x41),
    "v2 too short": v2(TCP4[:-1]),
    "v2 too long": v2(b"", length=MAX_PREFACE_BYTES - 15),
    "v2 with a part cut short": v2(TCP4 + OVER_TLS[:-1]),
    "v2 with half a part's head": v2(TCP4 + b"\x20\x00"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_header_is_read_and_what_follows_is_left(name: str) -> None:
    """The client's address, whether it came over TLS, and how long the header is."""
    header, client, is_secure = GOOD[name]
    assert read_preface(header) == read_preface(header + REST) == Preface(client, is_secure, len(header))


@pytest.mark.parametrize("name", GOOD)
def test_a_part_of_a_header_is_waited_for(name: str) -> None:
    """Whatever the first part of a header is, it is neither taken nor refused."""
    header, _, _ = GOOD[name]
    assert [read_preface(header[:end]) for end in range(len(header))] == [None] * len(header)


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_refused(name: str) -> None:
    """It is refused with words that do not repeat what came."""
    with pytest.raises(BadPreface, match=r"^expected "):
        read_preface(BAD[name])


def test_no_wait_is_without_bound() -> None:
    """Who is still waited for has sent less than the longest header."""
    assert read_preface(v2(b"", length=MAX_PREFACE_BYTES - 16)) is None
    for start in (v2(b"", length=MAX_PREFACE_BYTES - 16), b"PROXY UNKNOWN "):
        with contextlib.suppress(BadPreface):
            assert read_preface(start + b"x" * MAX_PREFACE_BYTES) is not None


@given(st.ip_addresses(v=4), ports)
def test_every_address_comes_through_version_1(address: ipaddress.IPv4Address, port: int) -> None:
    """It is the address and port that the proxy wrote."""
    found = read_preface(f"PROXY TCP4 {address} 127.0.0.1 {port} 1\r\n".encode())
    assert found is not None
    assert found.client == (str(address), port)


@given(st.ip_addresses(v=6), ports)
def test_every_address_comes_through_version_2(address: ipaddress.IPv6Address, port: int) -> None:
    """It is the address and port that the proxy packed, as addresses are usually written."""
    found = read_preface(v2(address.packed + bytes(16) + struct.pack("!HH", port, 1), family=0x21))
    assert found is not None
    assert found.client == (str(address.ipv4_mapped or address), port)


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]), st.binary(max_size=300))
def test_nothing_else_comes_of_any_bytes(start: bytes, rest: bytes) -> None:
    """Whatever comes is a header, the beginning of one, or refused."""
    with contextlib.suppress(BadPreface):
        found = read_preface(start + rest)
        assert found is None or 0 < found.size <= len(start + rest)
