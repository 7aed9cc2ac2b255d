"""A chat without sockets: the real functions, an in-memory SQLite store, the local fan-out, a clock that tests move."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from doubles import FakeClock, FakeSink, settle
from hubbub.apigateway import Event, Identity, Refused, RequestContext, Response, new_id
from hubbub.chat import Chat, ChatLimits
from hubbub.errors import TokenExpired
from hubbub.errors import Unauthorized as BadToken
from hubbub.fanout import open_fanout
from hubbub.model import Principal, Role
from hubbub.store import open_store
from hubbub.stream import read_after


class FakeTokens:
    """A verifier whose tokens are the JSON of their claims."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    async def verify(self, token: str) -> Principal:
        try:
            claims = json.loads(token)
        except ValueError:
            raise BadToken("not a token of these tests") from None
        rooms = {room: Role(role) for room, role in claims.pop("rooms", {}).items()}
        principal = Principal(rooms=rooms, **claims)
        if principal.expires_at <= self.clock.now_ms() // 1000:
            raise TokenExpired
        return principal


class Tab:
    """One connection of one user."""

    def __init__(self, lab: Lab, user: str, connection: str, authorizer: dict[str, Any]) -> None:
        self.lab = lab
        self.user = user
        self.connection = connection
        self.authorizer = authorizer
        self.raw = lab.sink.frames[connection]

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Everything it was told without asking."""
        return [json.loads(frame) for frame in self.raw]

    def of(self, *types: str) -> list[dict[str, Any]]:
        """The frames of those types."""
        return [frame for frame in self.frames if frame["type"] in types]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The log entries it got live."""
        return [frame for frame in self.frames if "seq" in frame and frame["type"] != "read"]

    async def say(self, body: str | bytes, *, binary: bool = False) -> Response:
        """Send a frame as it is."""
        event = self.lab.event("MESSAGE", self.connection, self.authorizer, body=body, is_base64_encoded=binary)
        response = await self.lab.chat.handle(event)
        await settle()
        return response

    async def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        """Send an action with a ref and return the reply."""
        response = await self.say(json.dumps({"action": action, "ref": "r1", **fields}))
        assert response.body is not None
        reply = json.loads(response.body)
        assert reply.pop("ref") == "r1", reply
        return reply

    async def ok(self, action: str, **fields: Any) -> dict[str, Any]:
        """`ask`, for what must succeed."""
        reply = await self.ask(action, **fields)
        assert reply.pop("type") == "ok", reply
        return reply

    async def refused(self, action: str, **fields: Any) -> str:
        """`ask`, for what must be refused: the error's code."""
        reply = await self.ask(action, **fields)
        assert reply["type"] == "error", reply
        return reply["code"]

    async def leave(self) -> None:
        """The connection is cut."""
        self.lab.sink.gone(self.connection)
        await self.lab.chat.handle(self.lab.event("DISCONNECT", self.connection, self.authorizer))
        await settle()


class Lab:
    """The assembled chat."""

    def __init__(self, chat: Chat, clock: FakeClock, sink: FakeSink) -> None:
        self.chat = chat
        self.clock = clock
        self.sink = sink

    def event(self, kind: Any, connection: str, authorizer: Any, **fields: Any) -> Event:
        request = new_id()
        context = RequestContext(
            route_key="$default",
            event_type=kind,
            extended_request_id=request,
            request_time="",
            stage="local",
            connected_at=self.clock.now_ms(),
            request_time_epoch=self.clock.now_ms(),
            identity=Identity("127.0.0.1"),
            request_id=request,
            domain_name="localhost",
            connection_id=connection,
            api_id="x",
            authorizer=authorizer,
        )
        return Event(request_context=context, **fields)

    def token(self, user: str, *, ttl_s: int = 3600, **claims: Any) -> str:
        now = self.clock.now_ms() // 1000
        return json.dumps({"user": user, "expires_at": now + ttl_s, "issued_at": now, **claims})

    async def handshake(self, token: str | None, **fields: Any) -> tuple[int, Any, str, dict[str, Any]]:
        """Connect with a token: the status, the body or header, the connection's id and the authorizer's context."""
        connection = new_id()
        query = None if token is None else {"token": token}
        event = self.event("CONNECT", connection, None, headers={}, query_string_parameters=query, **fields)
        try:
            authorizer = await self.chat.authorize(event)
        except Refused as error:
            return error.status, json.loads(error.body), connection, {}
        event.request_context.authorizer = authorizer
        response = await self.chat.handle(event)
        return response.status_code, response.body and json.loads(response.body), connection, authorizer

    async def tab(self, user: str, *, sync: bool = True, **claims: Any) -> Tab:
        """A connected tab of the user's."""
        ttl_s = claims.pop("ttl_s", 3600)
        status, body, connection, authorizer = await self.handshake(self.token(user, ttl_s=ttl_s, **claims))
        assert status == 200, body
        self.sink.open(connection)
        tab = Tab(self, user, connection, authorizer)
        if sync:
            await tab.ok("sync")
        return tab

    async def tick(self, seconds: int = 1) -> None:
        """Let time pass as the background work sees it."""
        for _ in range(seconds):
            await self.clock.advance(1)
            await self.chat.tick()


@asynccontextmanager
async def lab(chat: Chat | None = None, **limits: Any):
    """A running chat; `limits` are those of `ChatLimits`, without rates unless given."""
    chat = chat or Chat()
    clock, sink = FakeClock(), FakeSink()
    async with (
        open_store("sqlite://:memory:") as store,
        open_fanout("local", sink=sink, read=partial(read_after, store), clock=clock) as fanout,
    ):
        chosen = ChatLimits(**{"rate": 0, "user_rate": 0, **limits})
        chat.bind(store=store, fanout=fanout, directory=fanout, tokens=FakeTokens(clock), clock=clock, limits=chosen)
        yield Lab(chat, clock, sink)
        await chat.aclose()
