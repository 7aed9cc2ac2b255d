"""What the coordinator and the load test's processes tell each other: one JSON object a line, over pipes."""

from __future__ import annotations

import math
import time

import msgspec

# From the coordinator; the first line is the plan.


class Begin(msgspec.Struct, frozen=True, tag="begin", tag_field="do"):
    """Which of the plan's processes this is, and what to do: connect."""

    plan: msgspec.Raw
    process: int


class Go(msgspec.Struct, frozen=True, tag="go", tag_field="do"):
    """Send from `start` on, in nanoseconds of the machine's monotonic clock."""

    start: int


class Stop(msgspec.Struct, frozen=True, tag="stop", tag_field="do"):
    """Connect and send no more, wait only briefly for what is under way."""


class Finish(msgspec.Struct, frozen=True, tag="finish", tag_field="do"):
    """All have sent: wait for what is still to come, up to these `seq` by room, and tell the end."""

    heads: dict[str, int]


Order = Begin | Go | Stop | Finish


# From a process

Buckets = dict[int, int]
"""What `Histogram.take` gives."""


_MOST_KINDS = 50
_OTHERS = "something else"


class Counts(msgspec.Struct):
    """What was counted, by this process since its last report or by all since the beginning.

    Attributes:
        sent, acked: messages that were due (and sent, or waited for a connection that was away), and acknowledged.
        refused: messages that the server answered with an error, by its code.
        delivered: entries that connections got.
        pages, page_errors: pages of history that came, and that were refused.
        gateway_errors: API Gateway's words about messages that it did not hand over; it does not say which.
        signals, received_bytes: other frames; bytes of all.
        opened, failed: connections that came to be, and attempts that failed, by what was wrong.
        deflated: of those that came to be, with whom permessage-deflate was agreed.
        closed: connections that the server closed or lost, by close code; those cut in a storm are not among them.
        slow_closed: those of connections that do not read.

    """

    sent: int = 0
    acked: int = 0
    refused: dict[str, int] = {}
    delivered: int = 0
    pages: int = 0
    page_errors: dict[str, int] = {}
    gateway_errors: dict[str, int] = {}
    signals: int = 0
    received_bytes: int = 0
    opened: int = 0
    deflated: int = 0
    failed: dict[str, int] = {}
    closed: dict[str, int] = {}
    slow_closed: dict[str, int] = {}

    def fail(self, why: str) -> None:
        """Count an attempt to connect that failed; beyond some kinds all are one, since words may differ each time."""
        if why not in self.failed and len(self.failed) >= _MOST_KINDS:
            why = _OTHERS
        self.failed[why] = self.failed.get(why, 0) + 1

    def add(self, other: Counts) -> None:
        """Count what another has."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                for key, count in theirs.items():
                    mine[key] = mine.get(key, 0) + count
            else:
                setattr(self, name, mine + theirs)


class Tick(msgspec.Struct, tag="tick"):
    """What happened since the last one.

    Attributes:
        process, at: whose, and when, on the machine's monotonic clock in nanoseconds.
        live: connections that stand and are in step, just now.
        counts: what was counted.
        ack, delivery, resumed, history, connect, lateness, loop: durations: of answers, live deliveries, those that
            came by resuming, and pages, from when each was due; of connecting; how late messages were sent; how late
            the event loop was.
        cpu: the share of a core that the process used; None where the time was too short to say.
        waits: what is waited for at the end.

    """

    process: int
    at: int
    live: int
    counts: Counts
    ack: Buckets
    delivery: Buckets
    resumed: Buckets
    history: Buckets
    connect: Buckets
    lateness: Buckets
    loop: Buckets
    cpu: float | None
    waits: int = 0


class Ready(msgspec.Struct, tag="ready"):
    """All connections stand, or as many as can be had."""

    process: int


class Sent(msgspec.Struct, tag="sent"):
    """All is sent and answered, or will not be: where rooms end as far as this process knows, and when it was answered.

    Attributes:
        process: whose.
        heads: the last known `seq` of each room.
        answered_at: when the last answer came, on the machine's monotonic clock in nanoseconds; 0 for never.

    """

    process: int
    heads: dict[str, int]
    answered_at: int


class RoomEnd(msgspec.Struct):
    """What went wrong in a room.

    Attributes:
        room: which.
        lost, doubled, disordered: as in `faults`, of this room.

    """

    room: str
    lost: int = 0
    doubled: int = 0
    disordered: int = 0


class End(msgspec.Struct, tag="end"):
    """The last word of a process.

    Attributes:
        process: whose.
        live: connections that stood in the end.
        resumed: deliveries that came as an answer, after a reconnect.
        unanswered: messages that were sent and got no answer.
        unsent: messages that were to be sent and found no connection.
        unread: pages of history that were to be read and did not come.
        unseen: acknowledged messages that their sender did not get to see, or saw at another place in the log.
        stored_twice: messages that stand in the log twice.
        resets: rooms that the server said begin anew.
        strayed: entries that came to connections that are not in their room.
        rooms: those in which something went wrong.
        cut, back: connections that were cut in the storm, and that came back.
        storm_back: how long that took, each.

    """

    process: int
    live: int = 0
    resumed: int = 0
    unanswered: int = 0
    unsent: int = 0
    unread: int = 0
    unseen: int = 0
    stored_twice: int = 0
    resets: int = 0
    strayed: int = 0
    rooms: list[RoomEnd] = []
    cut: int = 0
    back: int = 0
    storm_back: Buckets = {}


class Broken(msgspec.Struct, tag="broken"):
    """The process cannot go on; says why."""

    process: int
    why: str


Report = Tick | Ready | Sent | End | Broken

_orders = msgspec.json.Decoder(Order)
_reports = msgspec.json.Decoder(Report)
_encode = msgspec.json.Encoder().encode

read_begin = msgspec.json.Decoder(Begin).decode
read_order = _orders.decode
read_report = _reports.decode


_EARLY_S = 0.05
"""How early one may wake up: then it is the next second that is waited for."""


def until_second(behind_s: float = 0.0) -> float:
    """How long until the machine's monotonic clock is at a whole second, or so much behind one.

    All processes tell what happened in the same seconds: one's second would else have two of another's now and then.
    """
    now = time.monotonic() - behind_s
    return math.floor(now + _EARLY_S) + 1 - now


def line(said: Order | Report) -> bytes:
    """The line that says it."""
    return _encode(said) + b"\n"
