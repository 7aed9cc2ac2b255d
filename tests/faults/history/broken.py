"""`hubbub` with its code broken on purpose: `python broken.py WAY serve …`, to see that the checker finds it."""

from __future__ import annotations

import random
import sys

import msgspec

from hubbub.cli import main
from hubbub.model import Entry, MessageCreated, RoomId, new_ulid
from hubbub.store.postgres import PostgresStore
from hubbub.store.postgres.messages import Message
from hubbub.stream import Streams

SHARE = 0.1
"""How many of the messages are forgotten by the first of these ways."""


def acknowledge_what_is_not_stored() -> None:
    """Now and then a message is acknowledged and handed out, and never written."""
    append = PostgresStore.append

    async def forgetful(self: PostgresStore, entry: Entry) -> Entry:
        if isinstance(entry, MessageCreated) and random.random() < SHARE:
            room = await self.room(entry.room)
            if room is not None:
                return msgspec.structs.replace(entry, seq=room.head + 1)
        return await append(self, entry)

    PostgresStore.append = forgetful  # type: ignore[method-assign]


def deliver_as_it_comes() -> None:
    """Streams hand on what NATS brings: what comes early is early, what is lost is lost."""

    def publish(self: Streams, room: RoomId, seq: int, frame: bytes) -> None:
        stream = self._streams.get(room)
        if stream is not None and stream.cursor is not None:
            stream.remember(seq, frame)
            stream.cursor = max(stream.cursor, seq)
            self._sink.publish(room, frame)
        elif stream is not None:
            stream.remember(seq, frame)

    Streams.publish = publish  # type: ignore[method-assign]
    Streams.announce = lambda self, room, head: False  # type: ignore[method-assign]


def forget_client_ids() -> None:
    """A message that is sent again is another message."""
    init = Message.__init__

    def forgetful(self: Message, entry: MessageCreated, once: str) -> None:
        init(self, entry, new_ulid(entry.at))

    Message.__init__ = forgetful  # type: ignore[method-assign]


WAYS = {each.__name__: each for each in (acknowledge_what_is_not_stored, deliver_as_it_comes, forget_client_ids)}

if __name__ == "__main__":
    WAYS[sys.argv.pop(1)]()
    main()
