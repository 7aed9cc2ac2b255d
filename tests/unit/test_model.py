"""Roles, ids and entries: what the rest of the chat takes for granted."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubbub.model import (
    ENTRY_TYPES,
    ROOM_ID_PATTERN,
    AnyEntry,
    Entry,
    Permission,
    Principal,
    Role,
    direct_room_id,
    may,
    new_ulid,
    type_of,
)

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TIMES = st.integers(0, 2**48 - 1)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (Role.READER, "read"),
        (Role.MEMBER, "read send react invite"),
        (Role.MODERATOR, "read send react invite moderate"),
        (Role.OWNER, "read send react invite moderate manage"),
    ],
)
def test_a_role_allows_exactly_its_permissions(role, allowed):
    """Each role what the one below allows, and something more."""
    assert {permission.value for permission in Permission if may(role, permission)} == set(allowed.split())


def test_roles_are_ranked():
    """Readers, members, moderators, owners; every role has a rank of its own."""
    assert sorted(Role, key=lambda role: role.rank) == [Role.READER, Role.MEMBER, Role.MODERATOR, Role.OWNER]
    assert len({role.rank for role in Role}) == len(Role)


def test_a_higher_role_allows_all_that_a_lower_one_does():
    """Nobody loses a permission by being promoted."""
    for permission in Permission:
        allowed = [may(role, permission) for role in sorted(Role, key=lambda role: role.rank)]
        assert allowed == sorted(allowed)


def test_only_the_scope_server_makes_a_backend():
    """Among other scopes, and spelled so."""
    assert Principal("x", 1, scopes=("read", "server")).is_server
    assert not Principal("x", 1, scopes=("servers", "Server")).is_server
    assert not Principal("server", 1).is_server


# Room ids


@pytest.mark.parametrize("room", ["a", "general", "A-z.0_9:x", "-", "r" * 64, "direct:0f"])
def test_good_room_ids_are_taken(room):
    """1 to 64 of letters, digits and four more."""
    assert re.search(ROOM_ID_PATTERN, room)


@pytest.mark.parametrize(
    "room", ["", "r" * 65, "a b", "a\n", "\na", "a\n\n", "ä", "٣", "a/b", "a%20b", "a\0", "…", "a,b"]
)
def test_bad_room_ids_are_not(room):
    """Not even with a newline at the end, where a regular expression's `$` would not see it."""
    assert not re.search(ROOM_ID_PATTERN, room)


# ULIDs


@given(at_ms=TIMES)
@example(at_ms=0)
@example(at_ms=2**48 - 1)
def test_a_ulid_is_26_characters_that_tell_its_time(at_ms: int):
    """Of Crockford's alphabet; the first ten are the time in milliseconds, as the specification has it."""
    ulid = new_ulid(at_ms)
    assert re.fullmatch(f"[0-7][{CROCKFORD}]{{25}}", ulid)
    told = 0
    for character in ulid[:10]:
        told = told * 32 + CROCKFORD.index(character)
    assert told == at_ms


@given(times=st.lists(TIMES, max_size=20, unique=True))
def test_ulids_sort_by_time(times: list[int]):
    """As strings."""
    ulids = [new_ulid(at_ms) for at_ms in times]
    assert [ulid[:10] for ulid in sorted(ulids)] == [new_ulid(at_ms)[:10] for at_ms in sorted(times)]


def test_ulids_are_unique():
    """Also within a millisecond."""
    assert len({new_ulid(1_700_000_000_000) for _ in range(10_000)}) == 10_000


# Direct rooms

USERS = st.text(min_size=1, max_size=12) | st.text("ab\0:1", min_size=1, max_size=6)


@given(one=USERS, other=USERS)
def test_a_direct_room_is_the_same_from_both_sides(one: str, other: str):
    """Its id is a room id, and says nothing of who they are."""
    room = direct_room_id(one, other)
    assert room == direct_room_id(other, one)
    assert re.search(ROOM_ID_PATTERN, room)
    assert room.startswith("direct:")


@given(one=st.tuples(USERS, USERS).map(sorted), other=st.tuples(USERS, USERS).map(sorted))
@example(one=["a", "b\0c"], other=["a\0b", "c"])
@example(one=["a", "ab"], other=["aa", "b"])
def test_no_two_pairs_share_a_direct_room(one: list[str], other: list[str]):
    """Whatever characters their ids contain."""
    assert (direct_room_id(*one) == direct_room_id(*other)) == (one == other)


# Entries


def test_every_kind_of_entry_is_told_apart_by_its_type():
    """Its wire name, of an entry and of its class."""
    names = [type_of(kind) for kind in ENTRY_TYPES]
    assert len(set(names)) == len(names)
    assert set(AnyEntry.__args__) == set(ENTRY_TYPES)
    for kind in ENTRY_TYPES:
        required = {"target": 1, "reaction": "x", "user": "bob", "role": Role.MEMBER}
        fields = {name: value for name, value in required.items() if name in kind.__struct_fields__}
        entry: Entry = kind(room="r", by="bob", **fields)
        assert type_of(entry) == type_of(kind)
        decoded = msgspec.json.decode(msgspec.json.encode(entry), type=AnyEntry)
        assert type(decoded) is kind
        assert msgspec.json.encode(decoded) == msgspec.json.encode(entry)
