"""A chat on aiohttp and uvloop: `python aiohttp_chat.py PORT`."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import WSMsgType, web

listeners: set[web.WebSocketResponse] = set()


async def chat(request: web.Request) -> web.WebSocketResponse:
    """One connection."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    try:
        async for message in socket:
            if message.type != WSMsgType.TEXT:
                continue
            if message.data == "listen":
                listeners.add(socket)
            else:
                for listener in list(listeners):
                    await listener.send_str(message.data)
    finally:
        listeners.discard(socket)
    return socket


application = web.Application()
application.add_routes([web.get("/", chat)])
web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), print=None, loop=uvloop.new_event_loop())
