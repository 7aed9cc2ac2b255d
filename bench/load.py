"""The load side of the benches: cheap WebSocket clients, and what the server's process has used.

The generator shares the machine with the server, so both are pinned to a core each, and what is compared is the
server's CPU time: these machines are too noisy for wall time to mean much.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from hubbub.auth import issue

SECRET = "a secret that only these benches know"
ROOM = "bench"
PAGE = os.sysconf("SC_PAGE_SIZE")


class Server:
    """A server under test, in a process of its own.

    Attributes:
        process, port, url: what they are called.
        tls: what clients speak TLS with; None for none. It is set by who has made the certificate.
        client: what its clients are made of.
        offers: further headers of their handshakes.

    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, url: str) -> None:
        self.process = process
        self.port = port
        self.url = url
        self.tls: ssl.SSLContext | None = None
        self.client: type[Client] = Client
        self.offers: dict[str, str] = {}

    def cpu_s(self) -> float:
        """Processor time used so far by all its threads, in seconds."""
        return processor_s(self.process.pid)

    def rss(self) -> int:
        """Resident memory in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE


def processor_s(pid: int) -> float:
    """Processor time of a process in seconds, of all its threads, also of those that ended, to the nanosecond.

    Raises:
        OSError: there is no such process.

    """
    return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) has for it; Python has only that of threads


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def hubbub_server(*, pinned: bool = True, **settings: str) -> AsyncIterator[Server]:
    """`hubbub serve` on a SQLite file of its own, without rate limits; `pinned` as with `running`."""
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
        port = free_port()
        environ = {
            "HUBBUB_SECRET": SECRET,
            "HUBBUB_DATA": folder,
            "HUBBUB_STORE": f"sqlite:///{folder}/bench.db",
            "HUBBUB_RATE": "0",
            "HUBBUB_USER_RATE": "0",
            "HUBBUB_DRAIN_S": "0",
            **{f"HUBBUB_{name.upper()}": value for name, value in settings.items()},
        }
        command = [sys.executable, "-m", "hubbub", "serve", "--port", str(port)]
        scheme = "wss" if "tls_cert" in settings else "ws"
        async with running(command, port, f"{scheme}://127.0.0.1:{port}/ws", environ, pinned=pinned) as server:
            yield server


@asynccontextmanager
async def running(
    command: list[str], port: int, url: str, environ: dict[str, str], *, pinned: bool = True
) -> AsyncIterator[Server]:
    """A server's process, once it accepts; it and this process get a core each, unless it has processes of its own."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryFile() as said:  # not a pipe, which nobody would read: some servers log every message
        process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=subprocess.DEVNULL, stderr=said)
        if pinned:
            os.sched_setaffinity(process.pid, {cores[0]})
            os.sched_setaffinity(0, {cores[-1]})
        try:
            await _accepting(process, port, said)
            yield Server(process, port, url)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(process.wait, 20)
            except subprocess.TimeoutExpired:
                process.kill()
            os.sched_setaffinity(0, set(cores))


async def _accepting(process: subprocess.Popen[bytes], port: int, said: IO[bytes], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said.seek(0)
            raise RuntimeError(f"the server ended with {process.returncode}: {said.read().decode()}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise RuntimeError(f"the server did not listen on {port} within {within_s} s")


def token(user: str, rooms: Sequence[str] = (ROOM,)) -> str:
    """A token for `user` that makes him a member of the rooms."""
    return issue(SECRET, user=user, ttl_s=3_600, now_s=int(time.time()), rooms=dict.fromkeys(rooms, "member"))


class Client(WSListener):
    """A client that counts text frames of at least `least` bytes, and hands all to `on_frame` if there is one."""

    def __init__(self) -> None:
        self.frames = 0
        self.least = 0
        self.on_frame: Callable[[bytes], None] | None = None
        self.transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Count a text frame, answer a ping."""
        if frame.msg_type == WSMsgType.TEXT:
            self.frames += frame.payload_size >= self.least
            if self.on_frame is not None:
                self.on_frame(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())

    def send(self, text: bytes) -> None:
        """Send a text frame."""
        assert self.transport is not None
        self.transport.send(WSMsgType.TEXT, text)

    async def ask(self, **fields: object) -> dict[str, object]:
        """Send an action and return its reply; only while nothing else arrives that matters."""
        future: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
        before = self.on_frame

        def take(frame: bytes) -> None:
            reply = msgspec.json.decode(frame)
            if reply.get("ref") == "ask" and not future.done():
                future.set_result(reply)

        self.on_frame = take
        self.send(msgspec.json.encode({**fields, "ref": "ask"}))
        reply = await asyncio.wait_for(future, 30)
        self.on_frame = before
        assert reply["type"] == "ok", reply
        return reply


async def connect(server: Server, user: str | None = None, rooms: Sequence[str] = (ROOM,)) -> Client:
    """A connected client; with `user`, with a token of his for the rooms."""
    headers = {**server.offers, **({"Authorization": f"Bearer {token(user, rooms)}"} if user else {})}
    _, client = await ws_connect(
        server.client, server.url, ssl_context=server.tls, extra_headers=headers, enable_auto_ping=False
    )
    return client  # type: ignore[return-value]  # the factory's own type is the base class


async def connect_many(server: Server, users: list[str | None], at_once: int = 64) -> list[Client]:
    """Connected clients, some at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(user: str | None) -> Client:
        async with gate:
            return await connect(server, user)

    return list(await asyncio.gather(*(one(user) for user in users)))


async def until(condition: Callable[[], bool], within_s: float = 60) -> None:
    """Wait until `condition()` holds.

    Raises:
        TimeoutError: it did not within `within_s`.

    """
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s} s")
        await asyncio.sleep(0.002)
