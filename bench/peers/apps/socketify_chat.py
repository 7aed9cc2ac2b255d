"""A chat on socketify, by its topics: `python socketify_chat.py PORT`."""

from __future__ import annotations

import sys

from socketify import App, AppListenOptions, CompressOptions, OpCode


def message(socket: object, said: str | bytes, opcode: OpCode) -> None:
    """Join, or send what one says to the topic."""
    if said == "listen":
        socket.subscribe("bench")  # type: ignore[attr-defined]  # the library has no types
    else:
        application.publish("bench", said, opcode)


application = App()
application.ws("/*", {"compression": CompressOptions.DISABLED, "message": message})
application.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"))
application.run()
