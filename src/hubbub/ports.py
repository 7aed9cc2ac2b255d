"""What the chat needs from the world, as few promises as will do; each sentence under "Promises" is a contract test.

Adapters are async context managers: entering opens them (and raises `Unavailable` or a clear `ValueError` when that
cannot work), leaving closes them after what was accepted is done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from msgspec import UNSET, UnsetType

from hubbub.model import (
    ConnectionId,
    Entry,
    Member,
    Page,
    Principal,
    Room,
    RoomId,
    RoomKind,
    RoomState,
    User,
    UserId,
)


class TokenVerifier(Protocol):
    """Turns a token into a principal."""

    async def verify(self, token: str) -> Principal:
        """The verified claims of `token`.

        Raises:
            TokenExpired: it was good and has run out.
            Unavailable: what it is to be verified with cannot be had just now.
            Unauthorized: anything else is wrong with it; the message says what, without the token.

        """
        ...


class Store(Protocol):
    """The truth: rooms, members, the log, read marks.

    Every call raises `Unavailable` when it cannot be answered just now, and after closing.

    Promises:
        - Entries of a room get seq 1, 2, 3, … without gaps and without reuse, also with many writers at once.
        - An append returns after it is durable.
        - An append with a client_id that the same user has used in the same room returns the first entry, as long as
          that one is kept. A store may forget after some days that it was used, and says so.
        - Appends of one caller that are started in order get their seq in that order.
        - A write that is refused has changed nothing.
        - A caller who is cancelled takes nothing from others: his write is done or not, theirs notice nothing.
        - What an entry says takes effect in the same commit: a member.joined entry makes a member, a room.updated entry
          changes the room, a message.deleted entry removes the words of its message and of that message's edits.
        - A message moves its author's read mark to its own seq.
        - Read marks only move forward.
        - Pages are in seq order and without holes.
        - What retention has removed is below the room's first seq; it is no hole, and nothing unread.
        - A store that cannot write raises Unavailable, keeps what it had, and works again when the cause is gone.
    """

    @property
    def epoch(self) -> str:
        """A word made when the data was created: seqs of another epoch mean nothing here."""
        ...

    async def ping(self) -> None:
        """Return if the store can write.

        Raises:
            Unavailable: it cannot.

        """
        ...

    async def create_room(
        self,
        room: RoomId,
        kind: RoomKind,
        *,
        name: str,
        by: UserId,
        at: int,
        members: Sequence[Member],
        exist_ok: bool = False,
    ) -> Room:
        """Make a room: one room.updated entry, then one member.joined entry for each of `members`, all in one commit.

        With `exist_ok` an existing room is returned as it is.

        Raises:
            Conflict: the room exists, or a member would exceed the store's limits.

        """
        ...

    async def delete_room(self, room: RoomId) -> bool:
        """Remove a room and everything in it; False when there was none.

        A room made later under the same id goes on at the next `seq`, so that no `seq` is ever used twice.
        """
        ...

    async def room(self, room: RoomId) -> Room | None:
        """The room as it is now."""
        ...

    async def heads(self, rooms: Sequence[RoomId]) -> dict[RoomId, int]:
        """Where the logs of these rooms end, with one question for all; rooms that do not exist are missing."""
        ...

    async def rooms(
        self, *, after: str = "", limit: int = 100, kind: RoomKind | None = None
    ) -> tuple[list[Room], bool]:
        """Rooms by id, those greater than `after`; and whether there are more."""
        ...

    async def rooms_of(self, user: UserId, also: Sequence[RoomId] = ()) -> list[RoomState]:
        """The rooms `user` is a member of, and those of `also` that exist (with role READER where he is no member).

        `unread` is the number of message.created entries after his read mark. By room id.
        """
        ...

    async def append(self, entry: Entry) -> Entry:
        """Write `entry` at the end of its room's log and return it with its `seq`.

        `entry` has everything but `seq`. With a `client_id` already used by `entry.by` in the room, the stored entry is
        returned instead and nothing is written. A reaction that is already there (or one to remove that is not), a
        member.left of somebody who is no member and a member.joined or member.updated of somebody who has that role
        write nothing and are returned with `seq` 0.

        Raises:
            NotFound: no such room, a `target`, `reply_to` or `thread` that is not a message in it, or a member.updated
                of somebody who is no member.
            Conflict: member.joined would exceed the store's limits, or the message at `target` is deleted.
            Unavailable: it could not be written; it is not there, unless the answer of a server got lost and none came
                in time: then only sending it again tells, and with a `client_id` it is there once whatever happened.

        """
        ...

    async def entry(self, room: RoomId, seq: int) -> Entry | None:
        """One entry as it is now (a deleted message without its words); None where there is none."""
        ...

    async def page(
        self,
        room: RoomId,
        *,
        before: int | None = None,
        after: int | None = None,
        around: int | None = None,
        limit: int = 50,
        thread: int | None = None,
        changes: bool = True,
    ) -> Page:
        """At most `limit` entries: the last ones, or those next to a seq; see `Page`.

        `before` and `after` exclude the seq itself, `around` has it in the middle. `thread` keeps that root and the
        messages whose `thread` it is. `changes=False` leaves `Page.changes` empty and saves the query.

        Raises:
            NotFound: no such room.

        """
        ...

    async def member(self, room: RoomId, user: UserId, *, recent: bool = False) -> Member | None:
        """The user's membership as it is now.

        With `recent` it may be what it was at some time within the last second, if another process has changed it; that
        is fast enough to ask at every message. What this process has changed is seen at once.
        """
        ...

    async def members(self, room: RoomId, *, after: str = "", limit: int = 100) -> tuple[list[Member], int, bool]:
        """Members by user id, those greater than `after`; how many in all; whether there are more.

        A room that does not exist has none.
        """
        ...

    async def mark_read(self, room: RoomId, user: UserId, seq: int) -> int:
        """Move the user's read mark forward to `seq`, at most to the head; returns where it then is.

        Raises:
            NotFound: no such room.

        """
        ...

    async def user(self, user: UserId, *, recent: bool = False) -> User | None:
        """What is remembered of the user; `recent` as with `member`."""
        ...

    async def change_user(
        self,
        user: UserId,
        *,
        name: str | UnsetType | None = UNSET,
        avatar: str | UnsetType | None = UNSET,
        revoked_before: int | UnsetType = UNSET,
        banned_until: int | UnsetType = UNSET,
    ) -> User:
        """Remember what is given of the user, and return all that is remembered of him then.

        What is not given stays, also when somebody else changes it at the same time.
        """
        ...


Appended = Callable[[tuple[Entry, bytes | None] | None, Exception | None], None]
"""Told of an append: the entry that is stored, with its frame if that is at hand; or why there is none."""


@runtime_checkable
class ReadyStore(Protocol):
    """What a store offers beside its port that can answer of some things at once: a short way for most messages.

    All of it is called on the event loop, returns at once, and agrees with what the port's own calls would say.

    Promises:
        - What was remembered for a short way is what the store would say.
        - Appends by the short way and by the long one get their seq in the order in which they were started.
    """

    def may_know(self, room: RoomId, user: UserId) -> tuple[Member | None, User | None] | None:
        """The user's membership of the room and what is remembered of him; None where that is to be asked for.

        That is so where it is not known that there is such a room, too.
        """
        ...

    def append_ready(self, entry: Entry, appended: Appended) -> bool:
        """As `Store.append`, but that `appended` is told what came of it, later; False when nothing was begun."""
        ...


@runtime_checkable
class ReadyFanout(Protocol):
    """What a fan-out and directory offer beside their ports when all connections are here: each as the port's call.

    There is nobody to ask, so none of them is ever `Unavailable`.
    """

    def principal_ready(self, connection: ConnectionId) -> Principal | None:
        """As `Directory.principal`."""
        ...

    def publish_ready(self, room: RoomId, seq: int, frame: bytes) -> None:
        """As `Fanout.publish`."""
        ...

    def look_after_ready(self, room: RoomId, at_ms: int) -> None:
        """As `Directory.look_after`."""
        ...


class Sink(Protocol):
    """What a node lends a fan-out: groups of its live connections. All calls return at once and never wait on a socket.

    Promises:
        - Frames reach a connection in the order of the calls.
        - A connection that joins gets exactly the frames published after, one that leaves gets none published after.
        - A connection that does not read loses signals first and is then closed with 4408; others notice nothing.
        - A connection that is closed gets what was for it before, and nothing after.
        - Unknown connections are ignored, and so are those that are being closed.
    """

    def join(self, group: str, connection: str) -> bool:
        """Add the connection to the group; False when there is no such open connection."""
        ...

    def leave(self, group: str, connection: str) -> None:
        """Take it out."""
        ...

    def publish(self, group: str, frame: bytes, *, droppable: bool = False, exclude: str | None = None) -> None:
        """Send the text `frame` to all members of the group but `exclude`; a droppable one may be shed."""
        ...

    def send(self, connection: str, frame: bytes) -> bool:
        """Send it to one connection; False when there is no such open connection."""
        ...

    def close(self, connection: str, code: int, reason: str) -> bool:
        """Begin the closing handshake, if it has not begun; False when there is no such connection."""
        ...


class Listening(Protocol):
    """A connection about to listen to rooms: from its making on, nothing published in them is forgotten.

    Used as `async with`; leaving it gives up what was not started. Who may listen is to be asked after its making: it
    remembers whom the fan-out has taken out of a room since (`unlisten`, `unfollow`), so that nobody slips in.
    """

    async def followed(self) -> set[RoomId]:
        """Rooms that the connection has begun to listen to since, because its user follows them (`follow`)."""
        ...

    async def start(self, known: Mapping[RoomId, int]) -> dict[RoomId, list[bytes]]:
        """Let the connection listen to these rooms, whose logs it knows up to the given seqs.

        Returns for each the frames with a higher seq that have been published meanwhile, in order, as far as they are
        not delivered live, as everything later is. A room is missing when the connection does not listen to it: it is
        gone, or was taken out of the room meanwhile. What this returns must be told to the client before anything
        else is awaited.

        Raises:
            Unavailable: more was published meanwhile than was kept; read the store again and start over.

        """
        ...

    async def __aenter__(self) -> Listening:
        """Begin."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Forget what was kept."""
        ...


class Fanout(Protocol):
    """The hint: hands frames to listeners, fast, at most once. The store is the truth and repairs what this loses.

    Promises:
        - A connection gets a room's entries in seq order, each at most once, whatever the order of publishing.
        - An entry that is published never, or late, is read from the store and delivered in its place.
        - An announced head finds an entry that was lost at the end of the log; listeners are told each head once.
        - A slow or dead listener never delays the others.
        - A connection that stopped listening gets nothing more of the room.
        - A connection that is taken out of a room while it is about to listen does not listen.
    """

    async def publish(self, room: RoomId, seq: int, frame: bytes) -> None:
        """Hand an entry to the room's listeners; returns when handed over."""
        ...

    async def announce(self, room: RoomId, head: int, frame: bytes) -> None:
        """Say that the room's log ends at `head`, after entries were written.

        Whoever delivered less has lost something, and reads it from the store; where nothing is lacking, listeners get
        the signal `frame` unless they were told of that head before.
        """
        ...

    async def signal(self, room: RoomId, frame: bytes, *, exclude: ConnectionId | None = None) -> None:
        """Hand a signal to the room's listeners; it may be lost."""
        ...

    async def signal_here(self, room: RoomId, frame: bytes) -> None:
        """Hand a signal to those of the room's listeners whom no other process tells the same.

        Where each of several nodes learns of something by itself and tells its own connections, these; elsewhere all.
        """
        await self.signal(room, frame)

    async def tell(self, user: UserId, frame: bytes, *, exclude: ConnectionId | None = None) -> None:
        """Hand a signal to all of a user's connections."""
        ...

    async def send(self, connection: ConnectionId, frame: bytes) -> None:
        """Hand a signal to one connection."""
        ...

    async def listen(self, connection: ConnectionId, rooms: Sequence[RoomId]) -> Listening:
        """Prepare the connection to listen to `rooms`; see `Listening`."""
        ...

    async def unlisten(self, connection: ConnectionId, room: RoomId) -> None:
        """Stop the connection's listening to `room`."""
        ...

    async def follow(self, user: UserId, room: RoomId, after: int) -> None:
        """Let all of the user's connections listen to `room`, from the entry after `after` on."""
        ...

    async def unfollow(self, user: UserId, room: RoomId, after: int | None = None) -> None:
        """Stop all of the user's connections' listening to `room`.

        `after` is the end of the log for which that was decided, as for `follow`: of both, the one with the higher seq
        holds, in whatever order they are heard of. None holds at once and is not compared.
        """
        ...

    async def close(self, connection: ConnectionId, code: int, reason: str) -> None:
        """Close one connection."""
        ...

    async def disconnect(self, user: UserId, code: int, reason: str) -> None:
        """Close all of a user's connections."""
        ...


PresenceListener = Callable[[RoomId, UserId, bool], None]
"""Told that a user began (True) or ceased (False) to have a listening connection in a room."""


class Directory(Protocol):
    """Who is connected and where: presence, token lifetimes, and which rooms' listeners are to be looked after.

    Promises:
        - A user is online in a room while at least one of his connections listens to it.
        - Beginnings and ends are told once each, however many connections a user has.
        - A room that is to be looked after is told once when its time has come, however often that was asked.
    """

    async def connect(self, connection: ConnectionId, principal: Principal) -> None:
        """A connection exists and is `principal`'s; a second call renews it with a newer token's."""
        ...

    async def disconnect_connection(self, connection: ConnectionId) -> Principal | None:
        """It is no more; it listens to nothing. None when it was not known."""
        ...

    async def principal(self, connection: ConnectionId, *, fresh: bool = False) -> Principal | None:
        """Whose it is; None when not known here (then the event's authorizer context tells).

        A newer token that another process has taken may be known here a moment later, unless it is to be `fresh`.
        """
        ...

    async def lapsing(self, now_s: int, lead_s: int) -> tuple[list[ConnectionId], list[ConnectionId]]:
        """Whose tokens run out within `lead_s`, and whose have run out; each connection once per token and list.

        `now_s` is epoch seconds.
        """
        ...

    async def online(self, room: RoomId, limit: int) -> tuple[list[UserId], int]:
        """The first `limit` users online in the room, by id, and how many there are."""
        ...

    async def is_online(self, room: RoomId, user: UserId) -> bool:
        """Whether the user is online in the room."""
        ...

    async def audience(self, room: RoomId) -> list[tuple[ConnectionId, Principal]]:
        """The connections that listen to the room or are about to, and whose they are."""
        ...

    async def listeners(self, room: RoomId) -> int:
        """About how many connections listen to the room; fast enough to ask at every signal."""
        ...

    async def look_after(self, room: RoomId, at_ms: int) -> None:
        """Remember to tell of the room once it is `at_ms`, epoch milliseconds, or a while later.

        It returns when that is as durable as the connections themselves: whoever dies after it, the room is told.
        """
        ...

    async def due(self, now_ms: int) -> list[RoomId]:
        """The rooms to look after whose time has come; each is told once and then forgotten."""
        ...

    def watch(self, listener: PresenceListener) -> None:
        """Tell `listener` of beginnings and ends from now on."""
        ...


ReadAfter = Callable[[RoomId, int], Awaitable[list[tuple[int, bytes]]]]
"""Reads a room's entries after a seq from the store, as (seq, frame): how a fan-out fills a hole."""

ReadHeads = Callable[[Sequence[RoomId]], Awaitable[dict[RoomId, int]]]
"""Reads where the logs of rooms end (`Store.heads`): how a fan-out of many nodes finds that it was told nothing."""
