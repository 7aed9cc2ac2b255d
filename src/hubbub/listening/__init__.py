"""The ports of a node: how they are had, the HTTP servers on them, and TLS where it ends in this process.

`servers` binds and serves, `listener` accepts what is to speak TLS, `certificates` is what TLS is spoken with.
"""

from hubbub.listening.servers import (
    ACCEPTED_A_TURN,
    HTTP_SHUTDOWN_S,
    CannotStart,
    Ports,
    Server,
    Servers,
    bind,
    bind_ports,
    close_all,
    close_server,
    http_only,
    is_loopback,
    reachable,
)

__all__ = [
    "ACCEPTED_A_TURN",
    "HTTP_SHUTDOWN_S",
    "CannotStart",
    "Ports",
    "Server",
    "Servers",
    "bind",
    "bind_ports",
    "close_all",
    "close_server",
    "http_only",
    "is_loopback",
    "reachable",
]
