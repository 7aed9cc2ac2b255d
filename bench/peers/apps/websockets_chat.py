"""A chat on `websockets` and uvloop, by its `broadcast`: `python websockets_chat.py PORT`."""

from __future__ import annotations

import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

listeners: set[ServerConnection] = set()


async def chat(connection: ServerConnection) -> None:
    """One connection."""
    try:
        async for said in connection:
            if said == "listen":
                listeners.add(connection)
            else:
                broadcast(listeners, said)
    finally:
        listeners.discard(connection)


async def main(port: int) -> None:
    """Serve until terminated."""
    async with serve(chat, "127.0.0.1", port, compression=None) as server:
        await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
