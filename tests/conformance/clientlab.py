"""Three WebSocket clients that know nothing of each other, and of us: `websockets`, `aiohttp` and Node.js's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, NamedTuple

import aiohttp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from live import BOUND_S
from nodejs import NODE

VISITOR = Path(__file__).parent / "visitor.mjs"


class End(NamedTuple):
    """How a client ends its connection: `bye` says so to the server and waits until that has closed it."""

    how: Literal["close", "close without a code", "cut", "bye"] = "close"
    code: int = 1000
    reason: str = ""


class Plan(NamedTuple):
    """What a client does: it connects, says one thing after the other, each once it has heard the answer, and ends."""

    url: str
    says: tuple[str, ...] = ()
    end: End = End()
    subprotocols: tuple[str, ...] = ()
    headers: dict[str, str] = {}  # noqa: RUF012  nobody changes it
    has_agent: bool = True


class Visit(NamedTuple):
    """How it went: what was agreed on, what was heard, and the CLOSE, as the client sees it; None for none."""

    subprotocol: str
    heard: list[str]
    closed: tuple[int, str] | None


async def with_websockets(plan: Plan) -> Visit:
    """The plan, done by `websockets`."""
    agent = {} if plan.has_agent else {"user_agent_header": None}
    offers = [Subprotocol(each) for each in plan.subprotocols] or None
    async with connect(plan.url, subprotocols=offers, additional_headers=plan.headers, proxy=None, **agent) as socket:
        heard = []
        for words in plan.says:
            await socket.send(words)
            heard.append(str(await socket.recv()))
        how, code, reason = plan.end
        if how == "close":
            await socket.close(code, reason)
        elif how == "close without a code":
            async with socket.send_context():
                socket.protocol.send_close()
        elif how == "cut":
            socket.transport.abort()
        else:
            await socket.send(how)
        try:
            words = str(await socket.recv())
            raise AssertionError(f"nothing more was to come, and there came {words!r}")
        except ConnectionClosed as end:
            closed = (end.rcvd.code, end.rcvd.reason) if end.rcvd and how != "cut" else None
        return Visit(socket.subprotocol or "", heard, closed)


async def with_aiohttp(plan: Plan) -> Visit:
    """The plan, done by `aiohttp`."""
    skipped = () if plan.has_agent else ("User-Agent",)
    async with aiohttp.ClientSession(skip_auto_headers=skipped) as session:
        socket = await session.ws_connect(plan.url, protocols=plan.subprotocols, headers=plan.headers)
        heard = []
        for words in plan.says:
            await socket.send_str(words)
            heard.append(await socket.receive_str())
        how, code, reason = plan.end
        closed: tuple[int, str] | None = None
        if how == "close":
            await socket.close(code=code, message=reason.encode())
            closed = (socket.close_code or 0, "")
        elif how == "bye":
            await socket.send_str(how)
            last = await socket.receive()
            assert last.type is aiohttp.WSMsgType.CLOSE, last
            closed = (last.data, last.extra or "")
        return Visit(socket.protocol or "", heard, closed)  # an end of the session cuts what is still open


async def with_node(plan: Plan) -> Visit:
    """The plan, done by Node.js in a process of its own."""
    told = json.dumps({**plan._asdict(), "end": plan.end._asdict()})
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(NODE, str(VISITOR), told, stdout=pipe, stderr=pipe)
    try:
        said, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert not complaints, complaints.decode()
    visit = json.loads(said)
    return Visit(visit["subprotocol"], visit["heard"], visit["closed"] and tuple(visit["closed"]))


CLIENTS: dict[str, Callable[[Plan], Awaitable[Visit]]] = {
    "websockets": with_websockets,
    "aiohttp": with_aiohttp,
    "node": with_node,
}


async def visit(client: str, plan: Plan) -> Visit:
    """What becomes of a plan with one of the clients."""
    async with asyncio.timeout(BOUND_S):
        return await CLIENTS[client](plan)
