"""A chat server for client libraries that says what a test tells it, over real WebSockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from hubbub import errors
from hubbub.client import Client, connect

BOUND_S = 10.0
"""How long anything may take before a test fails."""

Answer = dict[str, Any] | Callable[[dict[str, Any]], Any] | errors.HubbubError | None
"""What the server answers; see `Scripted.answers`."""


class Scripted:
    """A server that answers as a test tells it.

    Attributes:
        statuses: what the next handshakes are answered with; 101 when empty.
        bodies: the bodies of such answers.
        retry_after: what such answers say in that header; None for nothing.
        answers: by action, what its reply has beside `type` and `ref`, a function that makes it of the frame, an
            exception for an error, or None for silence.
        frames: what came, in order.
        handshakes: the subprotocols that each handshake offered.

    """

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.bodies: list[str] = []
        self.retry_after: str | None = None
        self.answers: dict[str, Answer] = {}
        self.frames: list[dict[str, Any]] = []
        self.handshakes: list[str] = []
        self.sockets: list[ServerConnection] = []
        self.rooms = [
            {"room": "general", "kind": "public", "name": "", "role": "member", "head": 0, "read": 0, "unread": 0}
        ]
        self._server: Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/ws"

    async def __aenter__(self) -> Scripted:
        self._server = await serve(
            self._talk,
            "127.0.0.1",
            0,
            select_subprotocol=lambda connection, offered: next(one for one in offered if one == "hubbub.v1"),
            process_request=self._answer_handshake,
            close_timeout=1,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def _answer_handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(request.headers["Sec-WebSocket-Protocol"])
        status = self.statuses.pop(0) if self.statuses else 101
        if status == 101:
            return None
        response = connection.respond(status, self.bodies.pop(0) if self.bodies else "no\n")
        if self.retry_after is not None:
            response.headers["Retry-After"] = self.retry_after
        return response

    async def _talk(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        async for text in socket:
            frame = json.loads(text)
            self.frames.append(frame)
            synced = {"epoch": "e", "user": "alice", "connection_id": "c", "rooms": self.rooms}
            known = {"sync": {**synced, "entries": [], "more": [], "reset": []}, "ping": {"at": 1}, **self.answers}
            await self.answer(frame, known.get(frame["action"]), socket)

    async def answer(self, frame: dict[str, Any], answer: Answer, socket: ServerConnection | None = None) -> None:
        """Answer a frame."""
        if isinstance(answer, errors.HubbubError):
            body = {"code": answer.code, "message": answer.message, "retry": answer.retry}
            if answer.retry_after_ms is not None:
                body["retry_after_ms"] = answer.retry_after_ms
            await self.say({"type": "error", "ref": frame["ref"], **body}, socket)
        elif callable(answer):
            await self.answer(frame, answer(frame), socket)
        elif answer is not None:
            await self.say({"type": "ok", "ref": frame["ref"], **answer}, socket)

    def asked(self, action: str) -> list[dict[str, Any]]:
        """The frames of this action that came."""
        return [frame for frame in self.frames if frame["action"] == action]

    async def say(self, frame: dict[str, Any], socket: ServerConnection | None = None) -> None:
        """Send a frame on the newest connection."""
        await (socket or self.sockets[-1]).send(json.dumps(frame))


def quick(server: Scripted, token: Any = lambda: "T", **options: Any) -> Client:
    """A client that does not wait long."""
    return connect(server.url, token=token, backoff_base_s=0.01, backoff_cap_s=0.02, **options)


async def within(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds."""
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.002)
    assert condition(), what


def message(seq: int, **more: Any) -> dict[str, Any]:
    """A message's frame."""
    return {"type": "message.created", "room": "general", "seq": seq, "id": f"E{seq}", "at": 1, "by": "bob", **more}


def page(*seqs: int, head: int | None = None, more: bool = False, room: str = "general") -> dict[str, Any]:
    """The reply to `history` with these messages."""
    entries = [{**message(seq), "room": room} for seq in seqs]
    reached = seqs[-1] if head is None else head
    return {"room": room, "entries": entries, "head": reached, "has_more": more, "changes": []}
