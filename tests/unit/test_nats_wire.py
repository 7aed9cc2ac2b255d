"""What nodes tell each other, as bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.fanout.nats import wire

THINGS = [
    wire.Entry(7, b"frame"),
    wire.Entry(7),
    wire.Signal(b"s", "c"),
    wire.Presence("u", True, 0, 1, 1),
    wire.Alive(3, is_new=True),
    wire.Leaving(),
    wire.Order(1, wire.Follow("u", "r", 3)),
    wire.Order(2, wire.Close("c", 4401, "x")),
    wire.Digest(3, 9, {"r": 4}),
    wire.WantDigests(),
    wire.Audience(1, [("c", wire.Principal("u", 5))], is_last=True),
]


def test_a_packet_is_what_it_was():
    """Every thing in it, in order."""
    packet = wire.Packet(wire.VERSION, "node", 5, THINGS)
    assert wire.decode(wire.encode(packet)) == packet


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_a_value_error(data):
    """Nothing else comes of them."""
    with contextlib.suppress(ValueError):
        wire.decode(data)


@given(st.data())
def test_a_broken_packet_is_a_packet_or_a_value_error(data):
    """A good one with a byte changed, or cut off."""
    whole = bytearray(wire.encode(wire.Packet(wire.VERSION, "node", 5, THINGS)))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        wire.decode(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


def test_another_version_is_not_read():
    """The error says which was expected."""
    with pytest.raises(ValueError, match="version 1, got 2"):
        wire.decode(wire.encode(wire.Packet(2, "node", 5, [])))


@given(st.lists(st.integers(0, 3_000)))
def test_what_is_packed_fits_and_is_in_order(sizes):
    """Only what fits into no packet is left out."""
    things = [wire.Entry(n, b"x" * size) for n, size in enumerate(sizes)]
    packed = list(wire.fitting([(thing, wire.size_of(thing)) for thing in things], 2_048))
    assert [thing for batch in packed for thing in batch] == [
        thing for thing in things if wire.size_of(thing) <= 2_048 - wire.OVERHEAD
    ]
    assert all(batch and len(wire.encode(wire.Packet(1, "n" * 16, 2**40, batch))) <= 2_048 for batch in packed)


@given(st.lists(st.text(min_size=1, max_size=20)), st.integers(1, 200))
def test_a_rooms_users_come_in_parts_that_make_a_whole(users, most):
    """With a first and a last one, also when there is nobody."""
    parts = list(wire.told("r", 3, 9, users, most))
    assert [user for part in parts for user in part.users] == users
    assert [part.is_first for part in parts] == [n == 0 for n in range(len(parts))]
    assert [part.is_last for part in parts] == [n == len(parts) - 1 for n in range(len(parts))]
