"""An HTTP endpoint for webhooks that answers as a test tells it, over real connections that are kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from live import BOUND_S


class Call(NamedTuple):
    """A request: its first line, its headers by name in small letters, its body."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The body as JSON."""
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def kind(self) -> str:
        """The event's type."""
        return str(self.event["requestContext"]["eventType"])


def response(status: int = 200, body: bytes | str = b"", **headers: str) -> bytes:
    """A whole response; underscores in names of headers are hyphens."""
    body = body.encode() if isinstance(body, str) else body
    fields = {"Content-Length": str(len(body))}
    fields |= {name.replace("_", "-").title(): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + body


class Endpoint:
    """The endpoint.

    Attributes:
        answer: makes the response to a call; nothing for a connection that ends without one.
        calls: what came, in order.
        connections: how many connections there were.
        at_once, most_at_once: calls that are not answered, now and at most so far.
        gate: closed, it holds its answers back.

    """

    def __init__(self) -> None:
        self.answer: Callable[[Call], bytes] = lambda call: response()
        self.calls: list[Call] = []
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.port = 0
        self._news = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    async def __aenter__(self) -> Endpoint:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.gate.set()
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()
        async with asyncio.timeout(BOUND_S):
            while self._writers:
                await asyncio.sleep(0.001)

    async def wait_for(self, kind: str, count: int = 1) -> Call:
        """The call for the `count`th event of a type."""

        def found() -> list[Call]:
            return [call for call in self.calls if call.kind == kind]

        async with asyncio.timeout(BOUND_S), self._news:
            await self._news.wait_for(lambda: len(found()) >= count)
        return found()[count - 1]

    def hang_up(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *fields = head.rstrip("\r\n").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
                call = Call(line, headers, await reader.readexactly(int(headers.get("content-length", 0))))
                self.at_once += 1
                self.most_at_once = max(self.at_once, self.most_at_once)
                async with self._news:
                    self.calls.append(call)
                    self._news.notify_all()
                await self.gate.wait()
                self.at_once -= 1
                answer = self.answer(call)
                if not answer:
                    break
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side went away
        finally:
            self._writers.discard(writer)
            writer.close()
