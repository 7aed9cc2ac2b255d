"""Who waits in front of a node before it has accepted him: how many there are, who is sent away, and until when.

Under a rush the loop accepts few connections a turn, so those who wait are in the kernel's queue and not in ours; once
that is full, the kernel drops what comes, and clients try again so late that they give up. So a long queue is worked
off past the loop, by an answer that costs next to nothing. It names a time at which the client is likely to be taken,
or those who are sent away would be as many again when they come back.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

RETRY_AFTER_S = range(2, 7)
"""Who is sent away comes back after one of these at the earliest, so that those of a moment do not come back in one."""

LONGEST_RETRY_AFTER_S = 60
"""No one is told to wait for longer; those whose turn would be later come at any time in the half before."""

FIRST_PACE = 1_000.0
"""So many connections a second are expected to be taken, before it is known how many are.

Many: who comes too soon is sent away once more, at little cost, and who is told to wait too long waits for nothing.
"""

SLOWEST_PACE = 5.0
"""At least so many are, however few were taken."""

SENT_AWAY_A_TURN = 64
"""So many are sent away in a turn of the loop at most, from each socket."""

_REQUEST_BYTES = 64 * 1024  # as much of what a client has sent is read
_LISTEN = 10  # TCP_LISTEN of Linux' net/tcp_states.h
_INFO_BYTES = 32  # of its struct tcp_info, up to tcpi_sacked
_UNACKED_AT = 24  # tcpi_unacked in it, before tcpi_sacked: of a listening socket, its queue and how long that may be


class Queue(NamedTuple):
    """The kernel's queue of connections.

    Attributes:
        waiting: how many are in it.
        room: how many there may be.

    """

    waiting: int
    room: int

    @property
    def is_long(self) -> bool:
        """Whether it is full soon."""
        return self.waiting * 2 >= self.room > 0

    @property
    def is_short(self) -> bool:
        """Whether it is far from full."""
        return self.waiting * 4 < self.room or self.room == 0


def unaccepted(listeners: Sequence[socket.socket]) -> Queue:
    """The queues of sockets, together; empty where the kernel does not say, which is anywhere but on Linux."""
    waiting = room = 0
    if sys.platform == "linux":
        for listener in listeners:
            if listener.fileno() != -1:
                info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
                if info[0] == _LISTEN:
                    here, most = struct.unpack_from("=II", info, _UNACKED_AT)
                    waiting += here
                    room += most
    return Queue(waiting, room)


class Rush:
    """Sends away who waits in a long queue: no transport is made for him, so it takes a fraction of the time.

    The loop goes on to accept beside it, and whoever it gets is asked in and sent away as at any time.

    Args:
        listeners: where clients wait.
        answer: what a client is sent away with who has asked this; None for one who is not to be.
        take: takes the socket of one who has not asked yet, or is not to be sent away.

    Attributes:
        goes_on: whether it is a rush.

    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        answer: Callable[[bytes], bytes | None],
        take: Callable[[socket.socket], None],
    ) -> None:
        self._listeners = listeners
        self._answer = answer
        self._take = take
        self.goes_on = False

    def begin(self) -> None:
        """Do so from the next turn of the loop on, until the queue is short."""
        if not self.goes_on:
            for listener in self._listeners:
                if listener.fileno() != -1:
                    listener.setblocking(False)
            self._go_on()

    def _go_on(self) -> None:
        self.goes_on = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.goes_on = False
        accepted = 0
        for listener in self._listeners:
            for _ in range(SENT_AWAY_A_TURN):
                if not self._send_away_one(listener):
                    break
                accepted += 1
        # Where nobody could be, as without open files left, the next one that the loop accepts begins it again.
        if accepted and not unaccepted(self._listeners).is_short:
            self._go_on()

    def _send_away_one(self, listener: socket.socket) -> bool:
        """Accept one and send him away; False when nobody is there, or none can be accepted, as the loop will tell."""
        try:
            client, _ = listener.accept()
        except ConnectionError:
            return True  # he is gone already
        except OSError:
            return False
        try:
            request = client.recv(_REQUEST_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._take(client)  # who has just come
            return True
        except OSError:
            client.close()
            return True
        answer = self._answer(request) if request else b""
        if answer is None:
            self._take(client)
            return True
        try:
            client.recv(_REQUEST_BYTES, socket.MSG_DONTWAIT)  # with something unread, the end would be a reset
            client.send(answer, socket.MSG_DONTWAIT)
        except OSError:
            pass  # he has gone meanwhile
        finally:
            client.close()
        return True


class Turns:
    """Turns for those who are sent away: as many a second as are taken while others are sent away.

    Of another second it only says that at least so many can be taken as were.
    """

    def __init__(self) -> None:
        self._pace = FIRST_PACE
        self._next = 0.0  # the next turn that is free; monotonic seconds
        self._second = 0.0  # when the second began that is counted
        self._taken = 0  # connections, in it
        self._sent_away = False  # whether anybody was, in it

    def __repr__(self) -> str:
        return f"<Turns, {self._pace:.0f} a second>"

    def took(self, now: float) -> None:
        """A connection was taken at `now`, in monotonic seconds."""
        self._count(now)
        self._taken += 1

    def wait_s(self, now: float) -> int:
        """In how many seconds one who is sent away at `now` may come back."""
        self._count(now)
        self._sent_away = True
        soonest = random.choice(RETRY_AFTER_S)  # noqa: S311  no secret
        turn = max(self._next, now + RETRY_AFTER_S.start)
        if turn > now + LONGEST_RETRY_AFTER_S:
            return random.randint(LONGEST_RETRY_AFTER_S // 2, LONGEST_RETRY_AFTER_S)  # noqa: S311  no secret
        self._next = turn + 1 / self._pace
        return max(soonest, int(turn - now))

    def _count(self, now: float) -> None:
        passed = now - self._second
        if passed < 1.0:
            return
        taken = self._taken / passed
        if self._sent_away and passed < 2.0:
            self._pace = max(SLOWEST_PACE, (self._pace + taken) / 2)
        else:
            self._pace = max(self._pace, taken)
        self._second, self._taken, self._sent_away = now, 0, False
