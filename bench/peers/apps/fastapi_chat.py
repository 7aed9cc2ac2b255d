"""A chat on FastAPI with broadcaster; `BROADCAST_URL` is broadcaster's: `redis://…` or `memory://`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from broadcaster import Broadcast

broadcast = Broadcast(os.environ["BROADCAST_URL"])


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep the connection to what carries messages.

    First subscribers that come at the same time displace each other and then hear nothing. So one is there before all.
    """
    await broadcast.connect()
    first = asyncio.create_task(_drain())
    yield
    first.cancel()
    await broadcast.disconnect()


application = FastAPI(lifespan=lifespan)


@application.websocket("/")
async def chat(websocket: WebSocket) -> None:
    """One connection, with a task for each way."""
    await websocket.accept()
    sending = asyncio.create_task(_send(websocket))
    try:
        while True:
            await broadcast.publish("bench", await websocket.receive_text())
    except WebSocketDisconnect:
        pass
    finally:
        sending.cancel()


async def _drain() -> None:
    async with broadcast.subscribe("bench") as events:
        async for _ in events:
            pass


async def _send(websocket: WebSocket) -> None:
    async with broadcast.subscribe("bench") as events:
        async for event in events:
            await websocket.send_text(event.message)
