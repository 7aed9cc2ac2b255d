"""A chat on python-socketio, for an ASGI server: `listen` enters the room, `message` goes to it."""

from __future__ import annotations

import socketio

server = socketio.AsyncServer(async_mode="asgi")
application = socketio.ASGIApp(server)


@server.event
async def listen(sid: str) -> None:
    """Enter the room, and say that it is done."""
    await server.enter_room(sid, "bench")
    await server.emit("listening", to=sid)


@server.event
async def message(sid: str, said: str) -> None:
    """Send what one says to the room."""
    await server.emit("message", said, room="bench")
