"""One WebSocket of a client, from its handshake to its end, which it tells in the words of the session."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Protocol

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from hubbub.protocol import CLOSE_BAD_CLIENT, SUBPROTOCOL, TOKEN_SUBPROTOCOL_PREFIX

CLOSING_S = 2.0
"""How long the closing handshake of a connection that is given up may take."""

_LARGEST_FRAME = 16 * 1024 * 1024
"""The most a server's frame may have, in bytes; a page of history is far below."""


class Listener(Protocol):
    """Who is told what happens to a connection."""

    def opened(self, connection: Connection) -> None:
        """It stands."""
        ...

    def received(self, connection: Connection, text: str | bytes) -> None:
        """A frame came."""
        ...

    def closed(
        self, connection: Connection, code: int, reason: str, status: int | None, retry_after_ms: int | None
    ) -> None:
        """It ended, or did not come to be: then with the HTTP status and when to retry, if a response said so."""
        ...


class _Refusal(msgspec.Struct):
    message: str


class Connection:
    """One connection: reads in one task, writes in another, in the order of `send`."""

    def __init__(self, listener: Listener, url: str, token: str) -> None:
        self._listener = listener
        self._url = url
        self._token = token
        # As long as what is pending at the session: it hands over no more frames than it has calls and rooms.
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._given_up = asyncio.Event()

    def send(self, frame: bytes) -> None:
        """Send a frame after those before it."""
        self._outbox.put_nowait(frame)

    def give_up(self) -> None:
        """Close it; its end is not told."""
        self._given_up.set()

    async def run(self) -> None:
        """Open, talk until the end, and tell the listener of each."""
        code, reason, status, retry_after_ms = 1006, "", None, None
        opening = asyncio.create_task(self._open())
        giving_up = asyncio.create_task(self._given_up.wait())
        try:
            await asyncio.wait({opening, giving_up}, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                return
            socket = opening.result()
            self._listener.opened(self)
            code, reason = await self._talk(socket, giving_up)
        except InvalidStatus as error:
            status = error.response.status_code
            retry_after_ms = _milliseconds(error.response.headers.get_all("Retry-After"))
            reason = f"the handshake was answered with HTTP {status}{_words(error.response.body)}"
        except InvalidURI as error:  # no later attempt can succeed either
            code, reason = CLOSE_BAD_CLIENT, str(error)
        except (OSError, InvalidHandshake, ConnectionClosed) as error:
            reason = f"{type(error).__name__}: {error}"
        finally:
            for task in (opening, giving_up):
                task.cancel()
            await asyncio.gather(opening, giving_up, return_exceptions=True)
        self._listener.closed(self, code, reason, status, retry_after_ms)

    async def _open(self) -> ClientConnection:
        protocols = [Subprotocol(SUBPROTOCOL), Subprotocol(TOKEN_SUBPROTOCOL_PREFIX + self._token)]
        return await open_websocket(
            self._url,
            subprotocols=protocols,
            compression=None,
            max_size=_LARGEST_FRAME,
            open_timeout=None,  # the session's timer bounds it
            ping_interval=None,  # the session's heartbeat does that
            close_timeout=CLOSING_S,
        )

    async def _talk(self, socket: ClientConnection, giving_up: asyncio.Task[bool]) -> tuple[int, str]:
        reading = asyncio.create_task(self._read(socket))
        writing = asyncio.create_task(self._write(socket))
        try:
            await asyncio.wait({reading, giving_up}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else (1006, "")
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            await socket.close()

    async def _read(self, socket: ClientConnection) -> tuple[int, str]:
        """Read until the end; returns what the server's close frame said, and 1006 when the end was not its word."""
        try:
            while True:
                self._listener.received(self, await socket.recv())
        except ConnectionClosed as end:
            if end.rcvd is not None and end.rcvd_then_sent is not False:
                return end.rcvd.code, end.rcvd.reason
            return 1006, "" if end.sent is None else f"what the server sent could not be read: {end.sent.reason}"

    async def _write(self, socket: ClientConnection) -> None:
        try:
            while True:
                await socket.send((await self._outbox.get()).decode())
        except ConnectionClosed:
            return  # the reader learns the same, and says it


def _milliseconds(retry_after: Sequence[str]) -> int | None:
    """What a header `Retry-After` says in seconds; None for none, and for a date, which clocks may disagree on."""
    seconds = retry_after[0].strip() if retry_after else ""
    return int(seconds) * 1_000 if re.fullmatch(r"[0-9]{1,9}", seconds) else None


def _words(body: bytes | bytearray) -> str:
    """What a refused handshake's body says, after a colon; nothing if it says nothing that is meant for this."""
    try:
        return f": {msgspec.json.decode(body, type=_Refusal).message}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
