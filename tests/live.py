"""A real server for tests, in this process or as `hubbub serve`, and the smallest client that speaks to it.

The client knows the wire protocol and nothing else: what Hubbub's own client library mends, a test must see.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hubbub import auth

SECRET = "a-secret-for-tests-only-0123456789abcdef"
BOUND_S = 20.0
"""How long anything here may take before the test fails."""


def token(user: str, *, ttl_s: int = 3600, scopes: tuple[str, ...] = (), **claims: Any) -> str:
    """A token of the tests' secret."""
    return auth.issue(SECRET, user=user, ttl_s=ttl_s, now_s=int(time.time()), scope=" ".join(scopes), **claims)


async def until(condition: Callable[[], bool], what: str, *, bound_s: float = BOUND_S) -> None:
    """Return once `condition` holds; fail after `bound_s`."""
    deadline = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {bound_s} s"
        await asyncio.sleep(0.005)


class Wire:
    """One WebSocket connection to a chat.

    Attributes:
        frames: everything that came and was no reply to `ask`, in order.

    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self._refs = 0

    @classmethod
    async def open(cls, ws_url: str, bearer: str, **options: Any) -> Wire:
        """Connect as a browser would: the token in the subprotocol, and no pings of one's own.

        A test that reads one connection leaves others unread; their pongs would wait behind what was not read, and the
        library would close them for that.
        """
        subprotocols = ["hubbub.v1", f"jwt.{bearer}"]
        return cls(await connect(ws_url, subprotocols=subprotocols, proxy=None, ping_interval=None, **options))  # type: ignore[arg-type]

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.socket.close()

    async def receive(self, within_s: float = BOUND_S) -> dict[str, Any]:
        """The next frame."""
        async with asyncio.timeout(within_s):
            frame: dict[str, Any] = json.loads(await self.socket.recv())
        return frame

    async def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        """Send an action and return its reply; what comes before goes to `frames`."""
        self._refs += 1
        ref = f"r{self._refs}"
        await self.socket.send(json.dumps({"action": action, "ref": ref, **fields}))
        while True:
            frame = await self.receive()
            if frame.get("ref") == ref:
                return frame
            self.frames.append(frame)

    async def ok(self, action: str, **fields: Any) -> dict[str, Any]:
        """`ask`, for what must succeed."""
        reply = await self.ask(action, **fields)
        assert reply["type"] == "ok", reply
        return reply

    async def wait_for(self, kind: str) -> dict[str, Any]:
        """The first frame of a type, of those that came or will."""
        while True:
            for frame in self.frames:
                if frame["type"] == kind:
                    self.frames.remove(frame)
                    return frame
            self.frames.append(await self.receive())

    async def closed(self, within_s: float = BOUND_S) -> int:
        """Take all frames that still come, each `within_s`, until the connection ends; returns the close code."""
        try:
            while True:
                self.frames.append(await self.receive(within_s))
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd else 1006


def backend(url: str, **claims: Any) -> httpx.AsyncClient:
    """An HTTP client with a token of scope `server`."""
    headers = {"Authorization": f"Bearer {token('backend', scopes=('server',), **claims)}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=BOUND_S, trust_env=False)


class ServerProcess:
    """`hubbub serve` as a process of its own, on a data folder that outlives it.

    Attributes:
        url, ws_url: where it is; set by `start`.
        started_in_s: from the process's start to its announcement, seconds.
        output: the file with everything it said.

    """

    url: str
    ws_url: str

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.output = folder / "server.log"
        self._arguments = arguments
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self.started_in_s = 0.0

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The running, or last, process."""
        assert self._process is not None, "not started"
        return self._process

    async def start(self) -> None:
        """Start it and wait for its announcement."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HUBBUB_")}
        environment = {**kept, "HUBBUB_SECRET": SECRET, "HUBBUB_DATA": str(self.folder), **self._environment}
        began = time.monotonic()
        with self.output.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hubbub", "serve", "--port", "0", *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
            )
        found: list[str] = []

        def announced() -> bool:
            words = self.output.read_text(errors="replace")
            assert self.process.returncode is None, f"the server ended:\n{words}"
            found[:] = re.findall(r"https?://127\.0\.0\.1:\d+", words)
            return bool(found)

        await until(announced, "the server's announcement")
        self.started_in_s = time.monotonic() - began
        self.url = found[0]
        self.ws_url = f"ws{found[0].removeprefix('http')}/ws"

    @property
    def port(self) -> int:
        """Where it listens."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; returns the exit status, negative for a signal."""
        async with asyncio.timeout(BOUND_S):
            return await self.process.wait()

    async def stop(self) -> None:
        """Kill it if it still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        if self._process is not None:
            await self.ended()
