"""The history of a run: one line of JSON per event, written as it happens, so that a run that fails can be looked into.

All times are seconds since the run began, of one clock: an event that is later was later.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

Content = dict[str, Any]
"""An entry as it came over the wire."""


class Event(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="event"):
    """Something that happened at `t`."""

    t: float


class Known(Event, tag="known"):
    """Contents are written once: `number` stands for `entry` from here on."""

    number: int
    entry: Content


class Asked(Event, tag="asked"):
    """A client began to ask for a write: the first of perhaps several attempts.

    Attributes:
        op: a number of its own.
        fields: as in the frame, without `action`, `ref` and `room`.

    """

    client: str
    user: str
    op: int
    action: str
    room: str
    fields: dict[str, Any]


class Answered(Event, tag="answered"):
    """It was acknowledged (`ok`), refused for good (`refused`), or nobody knows (`in doubt`)."""

    client: str
    op: int
    outcome: str
    result: dict[str, Any] = {}
    tries: int = 1


class Standing(msgspec.Struct, omit_defaults=True):
    """What a `sync` said of a room.

    Attributes:
        after: the last seq that the client had named.
        head, read: as in the reply.
        has_more, is_reset: whether the reply said so.

    """

    after: int
    head: int
    read: int = 0
    has_more: bool = False
    is_reset: bool = False


class Synced(Event, tag="synced"):
    """A connection was made, and its `sync`, asked at `began`, was answered."""

    client: str
    user: str
    connection: int
    began: float
    rooms: dict[str, Standing]


class Followed(Event, tag="followed"):
    """A client of the library began to follow these rooms from their first entry on, over all its connections."""

    client: str
    rooms: list[str]


class Saw(Event, tag="saw"):
    """A client got an entry.

    Attributes:
        how: `sync`, `live` or `page` on a connection's wire; `stream` from the client library's loop.
        content: the number of what it was.

    """

    client: str
    room: str
    seq: int
    how: str
    content: int
    connection: int = 0


class Paged(Event, tag="paged"):
    """A page of history, asked at `began`; its entries were seen just before."""

    client: str
    room: str
    after: int
    began: float
    head: int
    seqs: list[int]
    has_more: bool


class Lost(Event, tag="lost"):
    """A client's connection ended, or could not be made."""

    client: str
    connection: int
    why: str


class Reset(Event, tag="reset"):
    """The client library said that a room begins anew: nothing here should make it."""

    client: str
    room: str


class Fault(Event, tag="fault"):
    """The nemesis did something, or undid it."""

    name: str
    target: str
    does: str
    details: dict[str, Any] = {}


class Quiet(Event, tag="quiet"):
    """Everything is healed, and nobody writes any more.

    Attributes:
        unanswered: how much was asked again and again, and not answered within the time that it had after healing.

    """

    unanswered: int = 0


class Present(Event, tag="present"):
    """Who is online in a room, as a client was told at last, and who is."""

    client: str
    room: str
    told: list[str]
    online: list[str]


class Heard(Event, tag="heard"):
    """Whether a client was given an entry of a private room in the end, and whether its user is a member."""

    client: str
    room: str
    seq: int
    may: bool
    does: bool


class Log(Event, tag="log"):
    """A room's log as the store had it in the end, as the numbers of its entries; and its members' read marks."""

    room: str
    contents: list[int]
    marks: dict[str, int] = {}


AnyEvent = (
    Known | Asked | Answered | Synced | Followed | Saw | Paged | Lost | Reset | Fault | Quiet | Present | Heard | Log
)

_decoder = msgspec.json.Decoder(AnyEvent)
_canonical = msgspec.json.Encoder(order="deterministic")


class Recorder:
    """Writes a history.

    Args:
        path: the file.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb", buffering=1 << 16)
        self._began = time.monotonic()
        self._numbers: dict[bytes, int] = {}
        self._ops = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def now(self) -> float:
        """Seconds since the run began."""
        return round(time.monotonic() - self._began, 6)

    def op(self) -> int:
        """A number for a write."""
        self._ops += 1
        return self._ops

    def write(self, event: Event) -> None:
        """Keep an event."""
        self._file.write(msgspec.json.encode(event) + b"\n")

    def flush(self) -> None:
        """Have it in the file."""
        self._file.flush()

    def number(self, entry: Content) -> int:
        """What stands for this content."""
        key = _canonical.encode(entry)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers)
            self.write(Known(t=self.now(), number=number, entry=entry))
        return number


class History:
    """A whole history, sorted by kind, with contents in place of their numbers.

    Args:
        events: all of it, in the order of happening.

    """

    def __init__(self, events: Iterable[AnyEvent]) -> None:
        self.contents: dict[int, Content] = {}
        self.asked: list[Asked] = []
        self.answered: dict[int, Answered] = {}
        self.synced: list[Synced] = []
        self.saw: list[Saw] = []
        self.paged: list[Paged] = []
        self.lost: list[Lost] = []
        self.resets: list[Reset] = []
        self.faults: list[Fault] = []
        self.quiet: float | None = None
        self.unanswered = 0
        self.present: list[Present] = []
        self.heard: list[Heard] = []
        self.logs: dict[str, list[Content]] = {}
        self.marks: dict[tuple[str, str], int] = {}
        self.order: list[Synced | Followed | Saw | Paged] = []  # what clients saw, as it came
        for event in events:
            self._take(event)

    @classmethod
    def read(cls, path: Path) -> History:
        """The history in a file; of a run that was broken off, as far as it got."""
        return cls(_lines(path))

    def _take(self, event: AnyEvent) -> None:
        match event:
            case Known():
                self.contents[event.number] = event.entry
            case Asked():
                self.asked.append(event)
            case Answered():
                self.answered[event.op] = event
            case Synced():
                self.synced.append(event)
                self.order.append(event)
            case Followed():
                self.order.append(event)
            case Saw():
                self.saw.append(event)
                self.order.append(event)
            case Paged():
                self.paged.append(event)
                self.order.append(event)
            case Lost():
                self.lost.append(event)
            case Reset():
                self.resets.append(event)
            case Fault():
                self.faults.append(event)
            case Quiet():
                self.quiet, self.unanswered = event.t, event.unanswered
            case Present():
                self.present.append(event)
            case Heard():
                self.heard.append(event)
            case Log():
                self.logs[event.room] = [self.contents[number] for number in event.contents]
                self.marks |= {(event.room, user): mark for user, mark in event.marks.items()}


def _lines(path: Path) -> Iterator[AnyEvent]:
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield _decoder.decode(line)
