"""A client that trusts Hubbub's own client library, as an application does."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from history.asking import InDoubtError, RefusedError, write_page
from history.record import Content, Followed, Recorder, Reset, Saw
from hubbub import client as library
from hubbub.errors import HubbubError
from hubbub.model import Entry, RoomId
from hubbub.protocol import encode
from live import token


class LibraryClient:
    """An application with one client of the library's; see `history.asking.Client`.

    Args:
        name: so.
        user: whose token it has.
        rooms: of which it is a member.
        url: of the balancer.
        recorder: the history.

    """

    def __init__(self, name: str, user: str, *, rooms: list[str], url: str, recorder: Recorder) -> None:
        self.name = name
        self.user = user
        self._rooms = rooms
        self._recorder = recorder
        self._position = dict.fromkeys(rooms, 0)
        self._live = asyncio.Event()
        self._client = library.connect(
            url,
            token=token(user),
            open_timeout_s=None,
            backoff_cap_s=1.0,
            heartbeat_s=2.5,
            answer_s=2.5,
            deadline_s=20.0,
        )

    def __repr__(self) -> str:
        return f"<LibraryClient {self.name}>"

    def position(self, room: str) -> int:
        return self._position[room]

    async def run(self) -> None:
        """Follow the rooms from their first entry on, until cancelled."""
        self._recorder.write(Followed(t=self._recorder.now(), client=self.name, rooms=self._rooms))
        async with self._client, asyncio.TaskGroup() as loops:
            self._live.set()
            loops.create_task(self._listen())
            for room in self._rooms:
                loops.create_task(self._follow(room))

    async def attempt(self, action: str, room: str, fields: dict[str, Any]) -> dict[str, Any]:
        await self._live.wait()
        began = self._recorder.now()
        try:
            if action == "history":
                page = await self._client.history(room, after=fields["after"], limit=fields["limit"])
                entries = [_content(entry) for entry in page.entries]
                said = {"head": page.head, "has_more": page.has_more}
                write_page(self._recorder, self.name, room, fields["after"], began, entries, **said)
                return said
            result = await getattr(self._client, action)(room, **fields)
        except (library.TimedOut, library.Disconnected) as error:
            raise InDoubtError(str(error)) from error
        except HubbubError as error:
            raise RefusedError(error.code, error.retry) from error
        return {} if result is None else dict(msgspec.to_builtins(result))

    async def _follow(self, room: str) -> None:
        async for entry in self._client.room(room, after=0):
            number = self._recorder.number(_content(entry))
            now = self._recorder.now()
            self._recorder.write(Saw(t=now, client=self.name, room=room, seq=entry.seq, how="stream", content=number))
            self._position[room] = max(self._position[room], entry.seq)

    async def _listen(self) -> None:
        async for signal in self._client.signals():
            if isinstance(signal, library.Reset):
                room = RoomId(signal.room)
                self._recorder.write(Reset(t=self._recorder.now(), client=self.name, room=room))


def _content(entry: Entry) -> Content:
    return dict(msgspec.json.decode(encode(entry)))
