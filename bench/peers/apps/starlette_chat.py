"""A chat on Starlette: a set of WebSockets, to each of which what one says is sent in turn."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

listeners: set[WebSocket] = set()


async def chat(websocket: WebSocket) -> None:
    """One connection."""
    await websocket.accept()
    try:
        while True:
            said = await websocket.receive_text()
            if said == "listen":
                listeners.add(websocket)
            else:
                for listener in list(listeners):
                    await listener.send_text(said)
    except WebSocketDisconnect:
        pass
    finally:
        listeners.discard(websocket)


application = Starlette(routes=[WebSocketRoute("/", chat)])
