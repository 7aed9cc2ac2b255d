"""A chat on picows and uvloop, one `send` for each listener: `python picows_chat.py PORT`."""

from __future__ import annotations

import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

listeners: set[WSTransport] = set()


class Member(WSListener):
    """One connection."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Join, or send what one says to all."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            said = frame.get_payload_as_bytes()
            if said == b"listen":
                listeners.add(transport)
                return
            for listener in listeners:
                listener.send(WSMsgType.TEXT, said)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Forget the connection."""
        listeners.discard(transport)


async def main(port: int) -> None:
    """Serve until terminated."""

    def accept(request: WSUpgradeRequest) -> WSListener:
        return Member()

    server = await ws_create_server(accept, "127.0.0.1", port)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
