"""A client that is nothing but the wire: it writes down what comes as it comes, and mends nothing.

What Hubbub's own client library would put in order or leave out, the checker sees here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from history.asking import InDoubtError, RefusedError, write_page
from history.record import Lost, Recorder, Saw, Standing, Synced
from live import token

OPEN_S = 4.0
"""How long the opening of a connection and the reply to its `sync` may each take: less than a paused node's pause."""

SILENCE_S = 2.5
"""How long a connection may say nothing until it is asked whether it is there, and how long that answer may take."""

ANSWER_S = 15.0
"""How long an answer may take, on a connection that is there."""

BACK_S = 0.8
"""The longest wait before the next connection, of most clients."""

PAGE = 200


class WireClient:
    """A connection, made again when it ends; see `history.asking.Client`.

    Args:
        name: so.
        user: whose token it has.
        rooms: of which it is a member.
        url: of the balancer.
        recorder: the history.
        chance: what is left to it.
        back_s: the longest wait before the next connection.

    Attributes:
        connection: the number of the present connection, or the last one.

    """

    def __init__(
        self,
        name: str,
        user: str,
        *,
        rooms: list[str],
        url: str,
        recorder: Recorder,
        chance: random.Random,
        back_s: float = BACK_S,
    ) -> None:
        self.name = name
        self.user = user
        self.connection = 0
        self._rooms = rooms
        self._url = url
        self._recorder = recorder
        self._chance = chance
        self._back_s = back_s
        self._position = dict.fromkeys(rooms, 0)
        self._ahead: dict[str, set[int]] = {room: set() for room in rooms}
        self._socket: ClientConnection | None = None
        self._live = asyncio.Event()
        self._awake = asyncio.Event()  # set to be back sooner
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._refs = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<WireClient {self.name}, connection {self.connection}>"

    def position(self, room: str) -> int:
        return self._position[room]

    def wake(self) -> None:
        """Stay away no more."""
        self._back_s = BACK_S
        self._awake.set()

    def break_off(self) -> None:
        """End the connection without a word, as a phone does that has lost its network."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def run(self) -> None:
        """Be connected, until cancelled."""
        try:
            while True:
                self.connection += 1
                why = "closed"
                try:
                    await self._connect()
                except (OSError, TimeoutError, WebSocketException, InDoubtError, RefusedError) as error:
                    why = f"{type(error).__name__}: {error}"
                self._recorder.write(
                    Lost(t=self._recorder.now(), client=self.name, connection=self.connection, why=why)
                )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._chance.random() * self._back_s):
                        await self._awake.wait()
                self._awake.clear()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def attempt(self, action: str, room: str, fields: dict[str, Any]) -> dict[str, Any]:
        await self._live.wait()
        began = self._recorder.now()
        reply = await self._ask(action, room=room, **fields)
        if action == "history":
            said = {name: reply[name] for name in ("head", "has_more")}
            write_page(self._recorder, self.name, room, fields["after"], began, reply["entries"], **said)
            self._take(room, [entry["seq"] for entry in reply["entries"]])
        return reply

    async def _connect(self) -> None:
        """One connection's life."""
        subprotocols = ["hubbub.v1", f"jwt.{token(self.user)}"]
        options: dict[str, Any] = {"proxy": None, "ping_interval": None, "open_timeout": OPEN_S, "close_timeout": 0.5}
        socket = await connect(self._url, subprotocols=subprotocols, **options)  # type: ignore[arg-type]
        self._socket = socket
        reading = asyncio.create_task(self._read(socket))
        self._tasks.add(reading)
        reading.add_done_callback(self._tasks.discard)
        try:
            await self._sync()
            self._live.set()
            await reading
        finally:
            self._live.clear()
            self._socket = None
            socket.transport.abort()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(InDoubtError("the connection ended"))
                    future.exception()  # nobody may wait for it any more
            self._asked.clear()

    async def _sync(self) -> None:
        """Begin to listen, from where this client's view ends; the reply is taken in `_read`, in its place."""
        await self._ask("sync", within_s=OPEN_S, rooms=dict(self._position))

    async def _ask(self, action: str, *, within_s: float = ANSWER_S, **fields: Any) -> dict[str, Any]:
        socket = self._socket
        if socket is None:
            raise InDoubtError("there is no connection")
        self._refs += 1
        ref = f"{action}-{self._refs}"
        reply = self._asked[ref] = asyncio.get_running_loop().create_future()
        if action == "sync":
            self._syncing = (ref, self._recorder.now(), dict(self._position))
        try:
            await socket.send(json.dumps({"action": action, "ref": ref, **fields}))
            async with asyncio.timeout(within_s):
                frame = await reply
        except TimeoutError:
            raise InDoubtError(f"{action} was not answered in {within_s} s") from None
        except WebSocketException as error:
            raise InDoubtError(str(error)) from None
        finally:
            self._asked.pop(ref, None)
        if frame["type"] == "error":
            raise RefusedError(frame["code"], frame["retry"])
        return frame

    async def _read(self, socket: ClientConnection) -> None:
        """Take what comes, until the connection ends or says nothing."""
        asked_for_life = False
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    frame = json.loads(await socket.recv())
            except TimeoutError:
                if asked_for_life:
                    raise InDoubtError("it says nothing") from None
                asked_for_life = True
                self._refs += 1
                await socket.send(json.dumps({"action": "ping", "ref": f"ping-{self._refs}"}))
                continue
            asked_for_life = False
            ref = frame.get("ref")
            if ref is None and "seq" in frame and frame["type"] != "read":
                self._saw(frame, "live")
            elif ref is not None:
                if ref == self._syncing[0] and frame["type"] == "ok":
                    self._synced(frame)
                future = self._asked.get(ref)
                if future is not None and not future.done():
                    future.set_result(frame)

    def _synced(self, reply: dict[str, Any]) -> None:
        _, began, after = self._syncing
        rooms = {
            state["room"]: Standing(
                after=after[state["room"]],
                head=state["head"],
                read=state["read"],
                has_more=state["room"] in reply["more"],
                is_reset=state["room"] in reply["reset"],
            )
            for state in reply["rooms"]
            if state["room"] in after
        }
        now = self._recorder.now()
        event = Synced(t=now, client=self.name, user=self.user, connection=self.connection, began=began, rooms=rooms)
        self._recorder.write(event)
        for entry in reply["entries"]:
            self._saw(entry, "sync")
        for room, standing in rooms.items():
            if standing.has_more:
                task = asyncio.create_task(self._fill(room, standing.head))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _fill(self, room: str, head: int) -> None:
        """Read from history what a reply to `sync` had no place for."""
        with contextlib.suppress(InDoubtError, RefusedError):  # then the next connection's sync begins there
            while self._position[room] < head:
                await self.attempt("history", room, {"after": self._position[room], "limit": PAGE})

    def _saw(self, entry: dict[str, Any], how: str) -> None:
        room, seq = entry["room"], entry["seq"]
        number = self._recorder.number(entry)
        event = Saw(
            t=self._recorder.now(),
            client=self.name,
            connection=self.connection,
            room=room,
            seq=seq,
            how=how,
            content=number,
        )
        self._recorder.write(event)
        self._take(room, [seq])

    def _take(self, room: str, seqs: list[int]) -> None:
        ahead = self._ahead[room]
        ahead.update(seq for seq in seqs if seq > self._position[room])
        while self._position[room] + 1 in ahead:
            self._position[room] += 1
            ahead.discard(self._position[room])
