"""How many clients wait in front of a node, before it has even accepted them.

Under a rush the loop accepts one connection a turn, so those who wait are in the kernel's queue and not in ours; once
that is full, the kernel drops what comes, and clients try again so late that they give up.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Sequence

_LISTEN = 10  # TCP_LISTEN of Linux' net/tcp_states.h
_INFO_BYTES = 32  # of its struct tcp_info, up to tcpi_sacked
_UNACKED_AT = 24  # tcpi_unacked in it: of a listening socket, the length of its queue


def unaccepted(listeners: Sequence[socket.socket]) -> int:
    """How many connections wait to be accepted; 0 where the kernel does not say, which is anywhere but on Linux."""
    if sys.platform != "linux":
        return 0
    count = 0
    for listener in listeners:
        if listener.fileno() != -1:
            info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
            if info[0] == _LISTEN:
                count += struct.unpack_from("=I", info, _UNACKED_AT)[0]
    return count
