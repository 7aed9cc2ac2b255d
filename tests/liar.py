"""A chat server that breaks its promises on purpose, for load tests to find out; and load tests as tests run them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.typing import ExtensionParameter, Subprotocol

from hubbub.loadtest.coordinating import Coordinator
from hubbub.loadtest.plan import plan
from hubbub.loadtest.result import Result, Second
from live import SECRET

Json = dict[str, Any]


class Liar:
    """A chat of one process, in memory, honest unless told otherwise. Every user is in every room that is named.

    Attributes:
        drop, double, swap: which `seq` each listener does not get, gets twice, gets after the next one.
        store_twice: which `seq` is stored a second time.
        deaf: which `seq` is acknowledged and then stored as somebody else's words.
        mute: which `seq` is never acknowledged.
        error: which `seq` is refused, with this code instead of being stored.
        cut: at which `seq` all connections are closed, with 1012.
        stall: at which `seq` the server stops for `stall_s`.
        in_gateway: which message, of all that are sent, API Gateway does not hand over, in its own words.
        lock_out: at which `seq` one listener is closed, and from which on handshakes are taken again.
        more_after: how many missed entries a `sync` brings; the others are for `history`.
        refuse: the response to handshakes: a status and a message.
        in_parts: send each entry as three frames, with a ping between.
        stray: which `seq` goes to the listeners of all rooms.
        nowhere: which `seq` is acknowledged without saying that it is that.
        unread: which question for history, of all, is never answered.
        repeats: how many entries a resuming `sync` brings that were not missed.
        too_often: how many times `subscribe` is refused with `rate_limited`.
        greets: how many entries of others come when somebody joins.
        hang_up: at which `subscribe`, of all, the connection is closed.
        creators: the tokens of those who made rooms.
        deflates: compress what is sent, for those who offer it.
        forgets: begin all logs anew when somebody resumes.

    """

    def __init__(self) -> None:
        self.drop: set[int] = set()
        self.double: set[int] = set()
        self.swap: set[int] = set()
        self.store_twice: set[int] = set()
        self.deaf: set[int] = set()
        self.mute: set[int] = set()
        self.error: dict[int, str] = {}
        self.cut: set[int] = set()
        self.stall: set[int] = set()
        self.stall_s = 0.0
        self.in_gateway: set[int] = set()
        self.lock_out: tuple[int, int] | None = None
        self.more_after: int | None = None
        self.refuse: tuple[int, str] | None = None
        self.in_parts = False
        self.stray: set[int] = set()
        self.nowhere: set[int] = set()
        self.unread: set[int] = set()
        self.repeats = 0
        self.too_often = 0
        self.greets = 0
        self.hang_up: set[int] = set()
        self.deflates = False
        self.forgets = False
        self.url = ""
        self.actions: list[Json] = []
        self.creators: set[str] = set()
        self._logs: dict[str, list[Json]] = {}
        self._asked = 0  # messages that somebody wanted stored
        self._listeners: dict[str, dict[ServerConnection, list[str]]] = {}
        self._is_locked = False
        self._busy = asyncio.Lock()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Liar]:
        """Serve on a free port."""
        async with serve(
            self._talk,
            *("127.0.0.1", 0),
            subprotocols=[Subprotocol("hubbub.v1")],
            process_request=self._admit,
            compression=None,
            extensions=[_Deflating(self)],
        ) as server:
            self.url = f"ws://127.0.0.1:{_port(server)}/ws"
            yield self

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        refuse = (503, "later") if self._is_locked else self.refuse
        if refuse is None:
            return None
        status, message = refuse
        headers = Headers({"Content-Type": "application/json", "Retry-After": "0"})
        return Response(status, HTTPStatus(status).phrase, headers, json.dumps({"message": message}).encode())

    async def _talk(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for said in connection:
                ask = json.loads(said)
                self.actions.append(ask)
                async with self._busy:
                    await getattr(self, f"_{ask['action']}")(connection, ask)
        for listeners in self._listeners.values():
            listeners.pop(connection, None)

    async def _ok(self, connection: ServerConnection, ask: Json, **fields: Any) -> None:
        await connection.send(json.dumps({"type": "ok", "ref": ask.get("ref"), **fields}))

    async def _sync(self, connection: ServerConnection, ask: Json) -> None:
        named = ask.get("rooms", {})
        reset = list(named) if self.forgets else []
        missed = {
            room: self._log(room)[max(0, last - self.repeats) :] for room, last in named.items() if room not in reset
        }
        entries = [entry for each in missed.values() for entry in each[: self.more_after]]
        more = [room for room, each in missed.items() if len(each) > len(each[: self.more_after])]
        for room in named:
            self._listeners.setdefault(room, {})[connection] = []
        heads = [{"room": room, "head": len(self._log(room))} for room in named]
        await self._ok(connection, ask, epoch="e", rooms=heads, entries=entries, more=more, reset=reset)

    async def _subscribe(self, connection: ServerConnection, ask: Json) -> None:
        if sum(said["action"] == "subscribe" for said in self.actions) in self.hang_up:
            await connection.close(1012, "going")
            return
        if self.too_often:
            self.too_often -= 1
            refusal = {"type": "error", "ref": ask["ref"], "code": "rate_limited", "message": "no", "retry": True}
            await connection.send(json.dumps({**refusal, "retry_after_ms": 1}))
            return
        self._listeners.setdefault(ask["room"], {})[connection] = []
        await self._ok(connection, ask, room=ask["room"], head=len(self._log(ask["room"])))

    async def _join(self, connection: ServerConnection, ask: Json) -> None:
        room, head = ask["room"], len(self._log(ask["room"]))
        self._listeners.setdefault(room, {})[connection] = []
        for seq in range(head + 1, head + 1 + self.greets):
            said = {"room": room, "text": "hello", "data": None, "client_id": f"hello-{seq}"}
            await self._publish(room, self._store(said, seq))
        await self._ok(connection, ask, room=room, head=head)

    async def _ping(self, connection: ServerConnection, ask: Json) -> None:
        await self._ok(connection, ask, at=0)

    async def _history(self, connection: ServerConnection, ask: Json) -> None:
        if sum(said["action"] == "history" for said in self.actions) in self.unread:
            return
        log = self._log(ask["room"])
        entries = log[ask["after"] :][:3] if "after" in ask else log[: ask["before"] - 1][-50:]
        has_more = "after" in ask and ask["after"] + 3 < len(log)
        await self._ok(connection, ask, entries=entries, changes=[], head=len(log), has_more=has_more)

    async def _send(self, connection: ServerConnection, ask: Json) -> None:
        self._asked += 1
        room, seq = ask["room"], len(self._log(ask["room"])) + 1
        if self._asked in self.error:
            code = self.error.pop(self._asked)
            refusal = {"type": "error", "ref": ask["ref"], "code": code, "message": "no", "retry": True}
            await connection.send(json.dumps(refusal))
            return
        if self._asked in self.in_gateway:
            await connection.send(json.dumps({"message": "Too Many Requests", "connectionId": "c", "requestId": "r"}))
            return
        if seq in self.stall:
            await asyncio.sleep(self.stall_s)
        if seq in self.cut:
            self.cut.discard(seq)
            for each in list(self._listeners.get(room, {})):
                await each.close(1012, "going")
            return
        if self.lock_out is not None and self.lock_out[0] <= seq:
            self._is_locked = seq < self.lock_out[1]
            if seq == self.lock_out[0]:
                await next(iter(self._listeners[room])).close(1012, "going")
        known = [entry for entry in self._log(room) if entry["client_id"] == ask["client_id"]]
        entry = known[0] if known else self._store(ask, seq)
        if seq not in self.mute:
            place = {} if seq in self.nowhere else {"seq": entry["seq"], "id": entry["id"]}
            await self._ok(connection, ask, room=room, **place)
        if not known:
            await self._publish(room, entry)
            if seq in self.store_twice:
                await self._publish(room, self._store(ask, seq + 1))

    def keep(self, room: str, count: int) -> None:
        """Have so many entries of others in a room."""
        for seq in range(1, count + 1):
            self._store({"room": room, "text": "old", "data": None, "client_id": f"old-{seq}"}, seq)

    def _log(self, room: str) -> list[Json]:
        return self._logs.setdefault(room, [])

    def _store(self, ask: Json, seq: int) -> Json:
        entry = {
            "type": "message.created",
            "room": ask["room"],
            "seq": seq,
            "id": f"id{seq}",
            "at": int(time.time() * 1_000),
            "by": "somebody",
            "text": ask["text"],
            "data": {"words": "of somebody else"} if seq in self.deaf else ask["data"],
            "client_id": ask["client_id"],
        }
        self._log(ask["room"]).append(entry)
        return entry

    async def _publish(self, room: str, entry: Json) -> None:
        frame, seq = json.dumps(entry), entry["seq"]
        if seq in self.stray:
            for other, listeners in self._listeners.items():
                for listener in listeners if other != room else ():
                    await self._write(listener, frame)
        for listener, held in list(self._listeners.get(room, {}).items()):
            frames = [] if seq in self.drop else [frame, frame] if seq in self.double else [frame]
            if seq in self.swap:
                held += frames
                continue
            for each in [*frames, *held]:
                await self._write(listener, each)
            held.clear()

    async def _write(self, listener: ServerConnection, frame: str) -> None:
        with contextlib.suppress(ConnectionClosed):
            if self.in_parts:
                await listener.send([frame[:10], frame[10:20], frame[20:]])
                await listener.ping()
            else:
                await listener.send(frame)


class _Deflating(ServerPerMessageDeflateFactory):
    """The extension, agreed to where the liar is told to."""

    def __init__(self, liar: Liar) -> None:
        super().__init__()
        self._liar = liar

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        if not self._liar.deflates:
            raise NegotiationError("not now")
        return super().process_request_params(params, accepted_extensions)


def _port(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])


async def load(url: str, *, seconds: list[Second] | None = None, **flags: object) -> Result:
    """A small and quick load test: by default four connections in one room, and twenty messages in a second."""
    given = {"connections": 4, "rate": 20, "duration": "1", "settle": "2", **flags}
    return await coordinator(url, given, seconds if seconds is not None else []).run()


def coordinator(url: str, given: dict[str, object], seconds: list[Second]) -> Coordinator:
    """A load test that is yet to run; its seconds go to the list."""
    return Coordinator(plan(url, given, secret=SECRET), lambda second, where: seconds.append(second), "0.0.0")


def failures(result: Result) -> Sequence[str]:
    """Why it failed, in short."""
    return [reason.partition(":")[0] for reason in result.reasons]
