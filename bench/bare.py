"""The bare picows broadcaster that deliveries are compared with: `python -m bench.bare PORT`.

It sends every text frame it gets to all who have said `listen`, one `send` each, and stores nothing.
"""

from __future__ import annotations

import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

listeners: list[WSTransport] = []


class Broadcaster(WSListener):
    """One connection."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Broadcast a frame."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            payload = frame.get_payload_as_bytes()
            if payload == b"listen":
                listeners.append(transport)
                return
            for listener in listeners:
                listener.send(WSMsgType.TEXT, payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Forget the connection."""
        if transport in listeners:
            listeners.remove(transport)


async def main(port: int) -> None:
    """Serve until terminated."""

    def accept(request: WSUpgradeRequest) -> WSListener:
        return Broadcaster()

    server = await ws_create_server(accept, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
