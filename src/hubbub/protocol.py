"""The wire protocol, version 1: what clients ask (`Ask`), what they are answered (`Result`), and what they are told.

One struct per action and per frame. `ACTIONS` lists the built-in ones in the order the documents show them; the
AsyncAPI document is generated from these structs, so a field's limits stand here and nowhere else.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from hubbub.errors import BadRequest, HubbubError
from hubbub.model import (
    MAX_PAGE,
    MAX_REF_CHARS,
    ROOM_ID_PATTERN,
    AnyEntry,
    ClientId,
    ConnectionId,
    Member,
    Name,
    Reaction,
    Role,
    Room,
    RoomId,
    RoomKind,
    RoomState,
    Seq,
    UserId,
)

SUBPROTOCOL = "hubbub.v1"
"""The WebSocket subprotocol the server selects (RFC 6455, section 1.9)."""

TOKEN_SUBPROTOCOL_PREFIX = "jwt."  # noqa: S105  a prefix, not a secret
"""A browser offers its token as the subprotocol `jwt.<token>` beside `hubbub.v1`, since it can set no header."""

MAX_MESSAGE_BYTES = 32 * 1024
"""The default limit of one message from a client: API Gateway's frame limit."""

CLOSE_TOKEN_EXPIRED = 4401
CLOSE_REMOVED = 4403
CLOSE_SLOW = 4408
CLOSE_BAD_CLIENT = 4400


class CloseAdvice(enum.StrEnum):
    """What a client does when its connection was closed."""

    RECONNECT = "reconnect"
    NEW_TOKEN = "new token"  # noqa: S105  a word, not a secret
    STOP = "stop"


class CloseCode(msgspec.Struct, frozen=True):
    """A close code that a client can meet, what it means, and what to do then."""

    code: int
    meaning: str
    advice: CloseAdvice


CLOSE_CODES: tuple[CloseCode, ...] = (
    CloseCode(1000, "closed by the server, which did not say why", CloseAdvice.RECONNECT),
    CloseCode(1001, "idle for too long, or at the end of a connection's lifetime", CloseAdvice.RECONNECT),
    CloseCode(1002, "the client broke RFC 6455", CloseAdvice.STOP),
    CloseCode(1003, "the client sent a binary frame", CloseAdvice.STOP),
    CloseCode(1006, "cut off without a closing handshake (never sent, only seen)", CloseAdvice.RECONNECT),
    CloseCode(1007, "the client sent a text frame that is not UTF-8", CloseAdvice.STOP),
    CloseCode(1009, "the client sent a message over the limit", CloseAdvice.STOP),
    CloseCode(1011, "the server failed", CloseAdvice.RECONNECT),
    CloseCode(1012, "the server restarts", CloseAdvice.RECONNECT),
    CloseCode(1013, "the server is too busy just now", CloseAdvice.RECONNECT),
    CloseCode(CLOSE_BAD_CLIENT, "the client is at fault in a way no other code names", CloseAdvice.STOP),
    CloseCode(CLOSE_TOKEN_EXPIRED, "the token has expired or was revoked", CloseAdvice.NEW_TOKEN),
    CloseCode(CLOSE_REMOVED, "removed or banned", CloseAdvice.STOP),
    CloseCode(CLOSE_SLOW, "the client read too slowly", CloseAdvice.RECONNECT),
)
"""The table of close codes; any other code is met with a reconnection."""

Room_ = Annotated[RoomId, msgspec.Meta(pattern=ROOM_ID_PATTERN, description="1 to 64 of A-Z a-z 0-9 . _ : -")]
User_ = Annotated[UserId, msgspec.Meta(min_length=1, max_length=128)]
Target = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1, description="the seq of a message")]
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)]
Ref = Annotated[str, msgspec.Meta(max_length=MAX_REF_CHARS)]


# What clients ask


class Ask(msgspec.Struct, kw_only=True):
    """Base of every action's fields; `action` and `ref` are read before them (`Envelope`)."""


class Envelope(msgspec.Struct):
    """The part of a client's frame that says what it is."""

    action: str
    ref: Ref | None = None


class Sync(Ask):
    """Start or resume: listen to one's rooms and get what was missed since `rooms[room]`, a `seq` of this `epoch`."""

    rooms: dict[Room_, Seq] = {}
    epoch: str | None = None


class Send(Ask):
    """Say something in a room; the same `client_id` again returns the first result."""

    room: Room_
    text: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    client_id: ClientId | None = None
    reply_to: Target | None = None
    thread: Target | None = None


class Edit(Ask):
    """Change one's own message."""

    room: Room_
    target: Target
    text: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Delete(Ask):
    """Remove one's own message, or anybody's as a moderator."""

    room: Room_
    target: Target


class React(Ask):
    """Add a reaction to a message."""

    room: Room_
    target: Target
    reaction: Reaction


class Unreact(Ask):
    """Take one's reaction back."""

    room: Room_
    target: Target
    reaction: Reaction


class History(Ask):
    """A page of a room's log: the last `limit` entries, or those `before`, `after` or `around` a `seq`."""

    room: Room_
    before: Seq | None = None
    after: Seq | None = None
    around: Seq | None = None
    limit: Limit = 50
    thread: Target | None = None


class Create(Ask):
    """Make a room and become its owner; a direct room has exactly one other member, and gets its id here."""

    kind: RoomKind
    room: Room_ | None = None
    name: Name = ""
    members: Annotated[list[User_], msgspec.Meta(max_length=200)] = []


class Join(Ask):
    """Become a member of a public room, or of one that the token grants."""

    room: Room_


class Leave(Ask):
    """Stop being a member; leaving a room one is not in succeeds."""

    room: Room_


class Invite(Ask):
    """Make a user a member."""

    room: Room_
    user: User_
    role: Role = Role.MEMBER


class Kick(Ask):
    """End a user's membership."""

    room: Room_
    user: User_


class SetRole(Ask):
    """Change a member's role."""

    room: Room_
    user: User_
    role: Role


class Members(Ask):
    """A page of a room's members, by user id."""

    room: Room_
    after: str | None = None
    limit: Limit = 100


class Rooms(Ask):
    """A page of the public rooms, by id."""

    after: str | None = None
    limit: Limit = 100


class Subscribe(Ask):
    """Listen to a public room on this connection without becoming a member."""

    room: Room_


class Unsubscribe(Ask):
    """Stop listening to a room on this connection."""

    room: Room_


class Typing(Ask):
    """Tell the room that one is typing, or stopped."""

    room: Room_
    on: bool = True


class Read(Ask):
    """Mark a room as read up to `seq`; marks only move forward."""

    room: Room_
    seq: Seq


class Presence(Ask):
    """Who is online in a room."""

    room: Room_


class Auth(Ask):
    """Go on with a newer token of the same user."""

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]


class Ping(Ask):
    """Ask for the server's time; also keeps API Gateway's idle time-out away."""


ACTIONS: dict[str, type[Ask]] = {
    "sync": Sync,
    "send": Send,
    "edit": Edit,
    "delete": Delete,
    "react": React,
    "unreact": Unreact,
    "history": History,
    "create": Create,
    "join": Join,
    "leave": Leave,
    "invite": Invite,
    "kick": Kick,
    "role": SetRole,
    "members": Members,
    "rooms": Rooms,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "typing": Typing,
    "read": Read,
    "presence": Presence,
    "auth": Auth,
    "ping": Ping,
}


# What they are answered


class Result(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="type", tag="ok"):
    """Base of every success: `{"type":"ok","ref":…}` and the action's result fields."""

    ref: str | None = None


class Synced(Result):
    """Everything a client needs to go on; see `Sync`. No `ping` is wanted before a silence of `heartbeat_ms`."""

    epoch: str
    user: UserId
    connection_id: ConnectionId
    rooms: list[RoomState]
    entries: list[AnyEntry]
    more: list[RoomId]
    reset: list[RoomId]
    heartbeat_ms: int | None = None


class Sent(Result, gc=False):
    """Where the message stands in the log."""

    room: RoomId
    seq: int
    id: str
    at: int
    client_id: str | None = None


class Appended(Result):
    """The `seq` of the entry that an edit, deletion or reaction made; 0 if it changed nothing."""

    room: RoomId
    seq: int


class HistoryPage(Result):
    """A page of the log; see `hubbub.model.Page`."""

    room: RoomId
    entries: list[AnyEntry]
    head: int
    has_more: bool
    changes: list[AnyEntry]


class Joined(Result):
    """The room that was made, joined or left, and one's role in it (none after leaving)."""

    room: RoomId
    kind: RoomKind
    name: str
    head: int
    role: Role | None = None


class MemberPage(Result):
    """A page of members, and how many there are in all."""

    room: RoomId
    members: list[Member]
    count: int
    has_more: bool


class RoomPage(Result):
    """A page of public rooms."""

    rooms: list[Room]
    has_more: bool


class Subscribed(Result):
    """Live entries follow from `head` on."""

    room: RoomId
    head: int


class Online(Result):
    """Who is online: the first 200 user ids, and how many users in all."""

    room: RoomId
    online: list[UserId]
    count: int


class Renewed(Result):
    """Until when the connection now lives, epoch seconds."""

    expires_at: int


class Pong(Result):
    """The server's time, epoch milliseconds."""

    at: int


class Done(Result):
    """It is done; there is nothing more to say."""


class ErrorReply(msgspec.Struct, kw_only=True, tag_field="type", tag="error", omit_defaults=True):
    """A failure: `code` for programs, `message` for people; the connection stays open."""

    ref: str | None = None
    code: str
    message: str
    retry: bool
    retry_after_ms: int | None = None
    request_id: str | None = None


# What they are told without asking, beside entries


class Signal(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="type"):
    """Base of frames that are not stored and may be lost or merged."""


class TypingSignal(Signal, kw_only=True, tag="typing"):
    """`by` is typing, or stopped; in crowded rooms at most one such frame every few seconds."""

    room: RoomId
    by: UserId
    name: str | None = None
    on: bool


class PresenceSignal(Signal, kw_only=True, tag="presence"):
    """`user` came online or went offline; in crowded rooms only the `count` of users is told, now and then."""

    room: RoomId
    user: UserId | None = None
    online: bool | None = None
    count: int


class ReadSignal(Signal, tag="read"):
    """`user` has read `room` up to `seq`."""

    room: RoomId
    user: UserId
    seq: int


class HeadSignal(Signal, tag="head"):
    """The room's log ends at `head`: who has less has lost something and asks for it."""

    room: RoomId
    head: int


class RoomSignal(Signal, kw_only=True, tag="room"):
    """One's own rooms changed on another connection or by somebody else: `joined` says in which direction.

    Sent to every connection of the user. After `joined` live entries of the room follow by themselves.
    """

    room: RoomId
    joined: bool
    state: RoomState | None = None


class Notice(Signal, kw_only=True, tag="notice"):
    """The server's word to a client.

    `going_away`: reconnect soon, elsewhere. `token_expires`: send `auth`. `closing`: the connection ends now, and
    `close` is the close code that counts, whatever code it ends with (API Gateway can close with 1000 alone).
    """

    code: str
    message: str
    in_ms: int | None = None
    close: int | None = None


SIGNALS: tuple[type[Signal], ...] = (TypingSignal, PresenceSignal, ReadSignal, HeadSignal, RoomSignal, Notice)


# Decode and encode

_encoder = msgspec.json.Encoder()
encode = _encoder.encode
"""Encode a frame (a `Result`, `ErrorReply`, `Signal` or `Entry`) as the UTF-8 bytes of one JSON object."""

_envelope = msgspec.json.Decoder(Envelope)
entry_decoder = msgspec.json.Decoder(AnyEntry)
"""Decodes the JSON of one entry."""

AskT = TypeVar("AskT", bound=Ask)


def decode_envelope(body: str | bytes) -> Envelope:
    """Read a frame's action and ref.

    Raises:
        BadRequest: not JSON, not an object, no `action`, or a `ref` that is not a short string.

    """
    try:
        return _envelope.decode(_text(body))
    except msgspec.ValidationError as error:
        raise BadRequest(f"A frame is a JSON object with a string `action`: {error}") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadRequest(f"The frame is not JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("The frame is nested too deeply.") from error


def decode_ask(decoder: msgspec.json.Decoder[AskT], body: str | bytes) -> AskT:
    """Read an action's fields.

    Raises:
        BadRequest: a field is missing, of the wrong type or outside its limits; the message names it.

    """
    try:
        return decoder.decode(_text(body))
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadRequest(str(error)) from error
    except RecursionError as error:
        raise BadRequest("The frame is nested too deeply.") from error


def _text(body: str | bytes) -> str:
    """The frame as text, if it is one: the decoder does not look at the UTF-8 of what it passes over.

    Raises:
        UnicodeDecodeError: it is not UTF-8.

    """
    return body if isinstance(body, str) else body.decode()


def error_reply(error: HubbubError, ref: str | None = None, request_id: str | None = None) -> ErrorReply:
    """The frame that tells a client of `error`."""
    return ErrorReply(
        ref=ref,
        code=error.code,
        message=error.message,
        retry=error.retry,
        retry_after_ms=error.retry_after_ms,
        request_id=request_id,
    )


def with_ref(result: Result, ref: str | None) -> bytes:
    """Encode `result` as the answer to the frame that had `ref`."""
    result.ref = ref
    return encode(result)


def find_token(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """The token of a handshake: from the subprotocol `jwt.<token>`, else `Authorization: Bearer`, else `?token=`.

    Args:
        headers: by name, in any case.
        query: the URL's query parameters.

    """
    lowered = {name.lower(): value for name, value in headers.items()}
    for offered in lowered.get("sec-websocket-protocol", "").split(","):
        if offered.strip().startswith(TOKEN_SUBPROTOCOL_PREFIX):
            return offered.strip()[len(TOKEN_SUBPROTOCOL_PREFIX) :]
    scheme, _, credentials = lowered.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return query.get("token") or None


def schema(kind: Any) -> dict[str, Any]:
    """The JSON schema of a struct of this module, for generated documents."""
    return msgspec.json.schema(kind)
