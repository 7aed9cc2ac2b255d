"""The short way of a message that is like most: taken, checked, stored, handed out and acknowledged without a task.

It takes only what it can do at once and what will succeed as far as can be known, and leaves everything else as it came
to the long way: other actions, hooks, what is malformed or refused, what is not remembered. So there is one place for
errors and rights, and a message is treated alike on both ways.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from hubbub.apigateway import new_id
from hubbub.chat.registry import BUILT_IN
from hubbub.errors import HubbubError
from hubbub.model import (
    SYSTEM,
    ClientId,
    ConnectionId,
    Entry,
    MessageCreated,
    Permission,
    Role,
    RoomId,
    may,
    new_ulid,
    type_of,
)
from hubbub.ports import ReadyFanout, ReadyStore
from hubbub.protocol import Ref, Sent, Target, encode

if TYPE_CHECKING:
    from hubbub.chat.core import Chat

logger = logging.getLogger("hubbub.chat")

SEND = "send"
_KIND = type_of(MessageCreated)
_SENDERS = tuple(role for role in Role if may(role, Permission.SEND))

Answer = Callable[[bytes | None], None]
"""Called once with what the client is to be told; None for nothing."""


class Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message as nearly all are: `hubbub.protocol.Send` and its envelope at once, without `data`.

    A field of any other name, or of another kind than here, is the long way's affair.
    """

    action: str
    room: RoomId
    text: str
    ref: Ref | None = None
    client_id: ClientId | None = None
    reply_to: Target | None = None
    thread: Target | None = None


_decode = msgspec.json.Decoder(Plain).decode


class Held:
    """A message on the long way that the store has not been given yet: nothing of its connection is to overtake it.

    Tasks that its function has started may give the store messages of their own; the first of all counts.

    Args:
        waiting: how many there are, by connection.
        connection: whose it is.

    """

    __slots__ = ("_connection", "_waiting")

    def __init__(self, waiting: dict[str, int], connection: str) -> None:
        waiting[connection] = waiting.get(connection, 0) + 1
        self._waiting: dict[str, int] | None = waiting
        self._connection = connection

    def release(self) -> None:
        """The store has it, or will not get it; once is as good as twice."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        left = waiting.pop(self._connection) - 1
        if left:
            waiting[self._connection] = left


class Shortcut:
    """The short way of one chat.

    Args:
        chat: bound, and with nothing of its own in place of what this does.
        store, fanout: the chat's.

    """

    def __init__(self, chat: Chat, store: ReadyStore, fanout: ReadyFanout) -> None:
        self._chat = chat
        self._store = store
        self._fanout = fanout
        self.waiting: dict[str, int] = {}  # messages that are `Held`, by connection

    def take(self, connection_id: str, body: str, answer: Answer) -> bool:
        """Begin to send the message that `body` is; False, with nothing done, where that is for the long way.

        Args:
            connection_id: whose message it is.
            body: the frame.
            answer: called in a later step, when all is done.

        """
        try:
            ask = _decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return False
        if ask.action != SEND or connection_id in self.waiting:
            return False
        chat = self._chat
        if (
            chat.actions.get(SEND) is not BUILT_IN.actions[SEND]
            or SEND in chat.befores
            or _KIND in chat.listeners
            or chat.limits.max_entry_bytes is not None
        ):
            return False
        connection = ConnectionId(connection_id)
        principal = self._fanout.principal_ready(connection)
        if principal is None:
            return False
        text, room, user = ask.text, ask.room, principal.user
        known = self._store.may_know(room, user)
        if known is None or len(text) > chat.limits.max_text_chars or not text.strip():
            return False
        member, remembered = known
        # The higher of the two may, if one of them may: roles allow ever more.
        if not ((member is not None and member.role in _SENDERS) or principal.rooms.get(room) in _SENDERS):
            return False
        now_ms, now = chat.clock.now_ms(), chat.clock.monotonic()
        if principal.expires_at <= now_ms // 1_000:
            return False
        # Of most nothing is remembered, and they are welcome.
        if (remembered is not None or user == SYSTEM) and not chat.is_welcome(principal, remembered):
            return False
        if not chat.take_tokens(connection, user, now):
            return False
        entry = MessageCreated(
            room=room,
            id=new_ulid(now_ms),
            at=now_ms,
            by=user,
            name=principal.name,
            text=text,
            client_id=ask.client_id,
            reply_to=ask.reply_to,
            thread=ask.thread,
        )
        if not self._store.append_ready(entry, _Message(self, ask, entry, connection, answer, now).appended):
            chat.give_tokens_back(connection, user)
            return False
        if not chat.heads.covers(room, now):
            chat.heads.cover(room, self._fanout.look_after_ready)
        return True

    def _finished(self, message: _Message, stored: Entry, frame: bytes | None) -> None:
        """Hand out what is stored, and acknowledge it."""
        chat, ask = self._chat, message.ask
        try:
            if chat.heads.took_long(message.began):
                chat.heads.cover(ask.room, self._fanout.look_after_ready)
            self._fanout.publish_ready(ask.room, stored.seq, encode(stored) if frame is None else frame)
        except HubbubError as error:  # it is stored, and will be missed
            words = "cannot hand out room %s seq %d just now: %s"
            logger.warning(words, ask.room, stored.seq, error, extra=message.ids())
        if stored is message.entry:  # else it is the first result of the same client_id, and was handed out then
            chat.stats.entries[_KIND] += 1
        chat.stats.actions[SEND] += 1
        if ask.ref is None:
            message.answer(None)
            return
        sent = Sent(ref=ask.ref, room=stored.room, seq=stored.seq, id=stored.id, at=stored.at, client_id=ask.client_id)
        message.answer(encode(sent))

    def _failed(self, message: _Message, error: Exception) -> None:
        ids = message.ids()
        if not isinstance(error, HubbubError):
            logger.error("action %s failed", SEND, exc_info=error, extra=ids)
        message.answer(self._chat.refusal(error, message.ask.ref, SEND, ids))


class _Message(msgspec.Struct, eq=False, gc=False):
    """A message that the store has been given."""

    shortcut: Shortcut
    ask: Plain
    entry: MessageCreated
    connection: ConnectionId
    answer: Answer
    began: float  # monotonic seconds

    def ids(self) -> dict[str, str]:
        """By which a line of the log is found again."""
        return {"connection_id": self.connection, "request_id": new_id()}

    def appended(self, written: tuple[Entry, bytes | None] | None, error: Exception | None) -> None:
        """The store has it, or not; whatever goes wrong here, the client is answered."""
        if error is None and written is not None:
            try:
                self.shortcut._finished(self, *written)
            except Exception as failure:
                error = failure
        if error is not None:
            self.shortcut._failed(self, error)
