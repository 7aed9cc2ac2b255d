"""What nodes tell each other: things in packets, MessagePack arrays; each packet fits into one NATS message.

What comes from NATS is not trusted to be well-formed: decoding raises `ValueError` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec

from hubbub.model import ConnectionId, Principal, RoomId, Seq, UserId

VERSION = 1
"""Of this format; a packet of another is not read."""

OVERHEAD = 96
"""About how many bytes a packet, or a thing in it, is longer than what it carries."""

Number = Annotated[int, msgspec.Meta(ge=0)]


class Thing(msgspec.Struct, frozen=True, array_like=True):
    """One thing that a node tells."""


# On a room's subject


class Entry(Thing, frozen=True, tag="e"):
    """An entry was written; `frame` is None when it is too long for NATS: then it is read from the store."""

    seq: Seq
    frame: bytes | None = None


class Signal(Thing, frozen=True, tag="s"):
    """For all listeners but one."""

    frame: bytes
    exclude: ConnectionId | None = None


class Presence(Thing, frozen=True, tag="p"):
    """A user's presence at the telling node changed.

    Attributes:
        user, online: whose, and to what.
        before: the number of the node's last change in the room; 0 when nobody of it was there before.
        number: of this one; they grow, over all rooms of the node.
        count: how many of its connections listen now.

    """

    user: UserId
    online: bool
    before: Number
    number: Number
    count: Number


# On a user's subject


class Tell(Thing, frozen=True, tag="t"):
    """For all the user's connections but one."""

    frame: bytes
    exclude: ConnectionId | None = None


# To all nodes


class Alive(Thing, frozen=True, tag="a"):
    """The node lives; the number of its last order.

    Attributes:
        order: the number of its last order.
        is_new: whether it wants to hear from the others at once, for it has just come or come back.
        age_ms: since when it is there.

    """

    order: Number
    is_new: bool = False
    age_ms: Number = 0


class Leaving(Thing, frozen=True, tag="b"):
    """The node ends, with all its connections."""


class Follow(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """Let the user's connections listen to the room from the entry after `after` on."""

    user: UserId
    room: RoomId
    after: Seq


class Unfollow(msgspec.Struct, frozen=True, array_like=True, tag="u"):
    """Stop that, as was decided when the log ended at `after`; None for whatever was decided."""

    user: UserId
    room: RoomId
    after: Seq | None = None


class Unlisten(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """Stop one connection's listening."""

    connection: ConnectionId
    room: RoomId


class Send(msgspec.Struct, frozen=True, array_like=True, tag="n"):
    """A signal for one connection."""

    connection: ConnectionId
    frame: bytes


class Close(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """Close one connection."""

    connection: ConnectionId
    code: int
    reason: str


class Disconnect(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """Close all of a user's connections."""

    user: UserId
    code: int
    reason: str


AnyOrder = Follow | Unfollow | Unlisten | Send | Close | Disconnect


class Order(Thing, frozen=True, tag="o"):
    """What every node is to do with its connections; numbered 1, 2, 3, …, so that a missing one is noticed."""

    number: Number
    what: AnyOrder


class Again(Thing, frozen=True, tag="g"):
    """To one node: the orders from `first` to `last` were missed; tell them again."""

    first: Number
    last: Number


class Forgotten(Thing, frozen=True, tag="x"):
    """The answer: those up to `last` are not kept any more."""

    last: Number


# Presence as a whole


class Digest(Thing, frozen=True, tag="h"):
    """In which rooms of a group the node has anybody, and the number of its last change in each.

    Attributes:
        group: which; rooms of it that are not named have nobody.
        at: the number of the node's last change in any room.
        rooms: they.

    """

    group: Number
    at: Number
    rooms: dict[RoomId, Number]


class WantDigests(Thing, frozen=True, tag="j"):
    """To one node: tell me all digests."""


class AskPresence(Thing, frozen=True, tag="q"):
    """A question: whom you have in these rooms. The answer is a `Told` for each with anybody, and an `Answered`."""

    ask: Number
    rooms: list[RoomId]


class Told(Thing, frozen=True, tag="r"):
    """Who is in a room at the telling node, or a part of them.

    Attributes:
        room: which.
        number: of the node's last change in it; 0 when nobody is there.
        count: how many connections listen.
        users: they.
        is_first, is_last: of the parts.
        begin: how many users there are in the parts before.

    """

    room: RoomId
    number: Number
    count: Number
    users: list[UserId]
    is_first: bool
    is_last: bool
    begin: Number = 0


class Answered(Thing, frozen=True, tag="y"):
    """All that was to be told for an `AskPresence` has been: of so many rooms, for in the others there is nobody."""

    ask: Number
    rooms: Number


class AskAudience(Thing, frozen=True, tag="k"):
    """A question: which connections listen to the room at your node."""

    ask: Number
    room: RoomId


class Audience(Thing, frozen=True, tag="m"):
    """The answer, or a part of it."""

    ask: Number
    connections: list[tuple[ConnectionId, Principal]]
    is_last: bool


AnyThing = (
    Entry
    | Signal
    | Presence
    | Tell
    | Alive
    | Leaving
    | Order
    | Again
    | Forgotten
    | Digest
    | WantDigests
    | AskPresence
    | Told
    | Answered
    | AskAudience
    | Audience
)


class Packet(msgspec.Struct, frozen=True, array_like=True):
    """What one NATS message carries.

    Attributes:
        version: of the format.
        node: who tells.
        number: of the packet, at this node: no two have the same.
        things: in the order in which they were told.

    """

    version: int
    node: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    number: Number
    things: list[AnyThing]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Packet)


def encode(packet: Packet) -> bytes:
    """The packet as NATS carries it."""
    return _encoder.encode(packet)


def decode(data: bytes) -> Packet:
    """The packet in a NATS message.

    Raises:
        ValueError: there is none.

    """
    try:
        packet = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"expected a packet, got {len(data)} bytes: {error}") from None
    if packet.version != VERSION:
        raise ValueError(f"expected a packet of version {VERSION}, got {packet.version}")
    return packet


def size_of(thing: AnyThing) -> int:
    """How many bytes it takes in a packet."""
    if isinstance(thing, Entry):
        return OVERHEAD + len(thing.frame or b"")
    if isinstance(thing, Signal | Tell):
        return OVERHEAD + len(thing.frame)
    return OVERHEAD + len(_encoder.encode(thing))


def fitting(things: Iterable[tuple[AnyThing, int]], most: int) -> Iterator[list[AnyThing]]:
    """The things, which have these sizes, in lists of which each fits into a packet of at most `most` bytes.

    One that fits into none is left out.
    """
    batch: list[AnyThing] = []
    left = most - OVERHEAD
    for thing, size in things:
        if size > most - OVERHEAD:
            continue
        if size > left:
            yield batch
            batch, left = [], most - OVERHEAD
        batch.append(thing)
        left -= size
    if batch:
        yield batch


def told(room: RoomId, number: int, count: int, users: Sequence[UserId], most: int) -> Iterator[Told]:
    """Who is in a room, in parts of about `most` bytes."""
    begin = 0
    while True:
        end, size = begin, 0
        while end < len(users) and size < most:
            size += 4 * len(users[end]) + 5
            end += 1
        yield Told(room, number, count, list(users[begin:end]), begin == 0, end == len(users), begin)
        if end == len(users):
            return
        begin = end
