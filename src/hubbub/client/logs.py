"""The rooms a client is in and where each one's log stands: delivers every entry once and in order, and fills gaps.

Like the session it belongs to, it does no I/O: it says what is to be done, and which history it wants to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from hubbub.client.actions import Action, CancelTimer, Deliver, ResetRoom, RoomsChanged, SetTimer
from hubbub.client.frames import read_entry
from hubbub.model import Entry, MemberUpdated, MessageCreated, Role, RoomId, RoomKind, RoomState, RoomUpdated

PAGE = 200
"""Entries asked for at once when a hole is filled."""

LAST_PAGE = 50
"""Entries asked for when a room starts anew."""

AGAIN_MS = 1000
"""How long to wait before asking again for history that the server did not have yet, or could not read."""

PATIENCE_MS = 20_000
"""How long the answer to a question of the client's own may take before it is asked again: a function may have died."""


class AskHistory(Protocol):
    """Asks the server for a page of a room's log; the answer comes to `Logs.page` or `Logs.page_failed`."""

    def __call__(self, room: RoomId, **where: int) -> None:
        """Ask."""
        ...


class _Log:
    """Where one room's log stands on this side."""

    __slots__ = ("begun", "counted", "held", "last", "repairing", "restarting", "wanted")

    def __init__(self) -> None:
        self.last: int | None = None  # delivered up to here; None while a start is awaited
        self.begun: int | None = None  # where `last` was at first
        self.wanted = 0  # the highest seq heard of
        self.counted = 0  # messages up to here are in the room's `unread` already
        self.held: dict[int, Entry] = {}  # came before those that they follow
        self.repairing = False  # a history request or the timer of one is under way
        self.restarting = False  # its last page is awaited, to begin with

    def begin(self, last: int) -> int:
        """Deliver what comes after `last`; returns it."""
        self.begun = self.last = last
        return last

    def start_with_held(self) -> None:
        """Begin with the first entry that is held, if it has not begun."""
        if self.last is None and not self.restarting:
            self.begin(min(self.held) - 1)


class Logs:
    """All rooms of a session.

    Args:
        do: takes what is to be done.
        ask: asks for history.
        max_held: how many entries of one room are held while a hole is filled.

    Attributes:
        rooms: the rooms one is in or subscribed to.
        user: whose they are; None before the first sync.

    """

    def __init__(self, do: Callable[[Action], None], ask: AskHistory, max_held: int) -> None:
        self.rooms: dict[RoomId, RoomState] = {}
        self.user: str | None = None
        self._do = do
        self._ask = ask
        self._max_held = max_held
        self._logs: dict[RoomId, _Log] = {}
        self._live = False  # there is a connection, and its sync has been answered
        # What was said of rooms since a sync was asked for, None of those that one left; None while there is no such.
        self._newer: dict[RoomId, RoomState | None] | None = None

    def __contains__(self, room: object) -> bool:
        return room in self._logs

    def position(self, room: RoomId) -> int | None:
        """The `seq` up to which the room has been delivered; None when it is not listened to."""
        log = self._logs.get(room)
        return log.last if log else None

    def begun(self, room: RoomId) -> int | None:
        """The `seq` after which the room began to be delivered; None when it is not listened to."""
        log = self._logs.get(room)
        return log.begun if log else None

    def positions(self, first: Iterable[RoomId], most: int) -> dict[RoomId, int]:
        """Where up to `most` logs stand, those of the rooms `first` before others."""
        order = dict.fromkeys((*(room for room in first if room in self._logs), *self._logs))
        known = {room: last for room in order if (last := self._logs[room].last) is not None}
        return dict(list(known.items())[:most])

    # What happens to all of them

    def syncing(self) -> None:
        """A sync is asked for: what is said of one's rooms from now on may be newer than its reply."""
        self._newer = {}

    def lost(self) -> None:
        """The connection is gone: what was held is asked for again on the next."""
        self._live = False
        self._newer = None
        for room, log in list(self._logs.items()):
            if log.repairing:
                self._do(CancelTimer(f"repair:{room}"))
            log.repairing = False
            log.held.clear()
            log.wanted = log.last or 0
            if log.last is None and not log.restarting:
                del self._logs[room]

    def synced(
        self, states: Sequence[RoomState], reset: Sequence[RoomId], entries: Sequence[msgspec.Raw], *, other_data: bool
    ) -> bool:
        """Take the reply to a sync; False when one's rooms have changed meanwhile, and it is to be asked again.

        Where functions answer, the reply may come after frames that were caused later: rooms of which those tell stay
        until the next reply, and so do their entries.

        Args:
            states: one's rooms.
            reset: rooms whose seqs no longer hold.
            entries: what was missed.
            other_data: the server has another log than before, so that no seq holds.

        """
        told = {state.room for state in states}
        newer = {room: state for room, state in (self._newer or {}).items() if (state is not None) != (room in told)}
        self._newer = None
        unknown = [room for room, log in self._logs.items() if log.held and room not in told and not self._live]
        self._live = True
        known = dict(self.rooms)
        self.rooms.clear()
        anew = list(reset)
        for state in (*states, *(state for state in newer.values() if state is not None)):
            if other_data and state.room not in anew and self.position(state.room) is not None:
                anew.append(state.room)
            self.rooms[state.room] = self._newest(state, known.get(state.room), anew=state.room in anew)
            self._resume(state, anew=state.room in anew)
        for room in [room for room in self._logs if room not in self.rooms and room not in unknown]:
            self.forget(room)
        for room in unknown:
            self._logs[room].start_with_held()
        self._do(RoomsChanged())
        for room in anew:
            if room in self._logs:
                self._do(ResetRoom(room))
        for raw in entries:
            self._place(read_entry(raw))
        for room in list(self._logs):
            self._drain(room)
        return not newer and not unknown

    def _newest(self, state: RoomState, known: RoomState | None, *, anew: bool) -> RoomState:
        """A room's state as told, but for what one has heard since it was told."""
        last = self.position(state.room)
        if known is None or anew or last is None or last <= state.head:
            return state
        read = max(state.read, known.read)
        unread = min(known.unread, max(0, known.head - read))
        return msgspec.structs.replace(state, head=known.head, read=read, unread=unread)

    def _resume(self, state: RoomState, *, anew: bool) -> None:
        log = self._log(state.room)
        log.counted = max(log.counted, state.head)
        if anew:
            log.counted = state.head
            log.held.clear()
            log.last, log.wanted, log.restarting = None, 0, True
            log.repairing = False
        elif log.last is None and not log.restarting:
            log.begin(state.head)
        log.wanted = max(log.wanted, state.head)

    # What happens to one

    def joined(self, state: RoomState) -> None:
        """The server says what one's room is like, on joining it in whatever way."""
        self._note(state.room, state)
        self.rooms[state.room] = self._newest(state, self.rooms.get(state.room), anew=False)
        self._do(RoomsChanged())
        log = self._log(state.room)
        log.counted = max(log.counted, state.head)
        self.heard_of(state.room, state.head)

    def left(self, room: RoomId) -> None:
        """One is no longer in the room, or no longer hears it, says the server."""
        self._note(room, None)
        self.forget(room)

    def _note(self, room: RoomId, state: RoomState | None) -> None:
        if self._newer is not None:
            self._newer[room] = state

    def entered(self, room: RoomId, kind: RoomKind, name: str, role: Role, head: int) -> None:
        """One has joined the room by one's own request."""
        known = self.rooms.get(room)
        fresh = RoomState(room, kind, name, role, head, head, 0)
        state = fresh if known is None else msgspec.structs.replace(known, kind=kind, name=name, role=role)
        self._note(room, state)
        if state != known:
            self.rooms[room] = state
            self._do(RoomsChanged())
        self.heard_of(room, head)

    def listening(self, room: RoomId, head: int) -> None:
        """One hears this room without being in it; what more there is to know of it comes with the next sync."""
        if room not in self.rooms:
            self.rooms[room] = RoomState(room, RoomKind.PUBLIC, "", Role.READER, head, head, 0)
            self._do(RoomsChanged())
        self.heard_of(room, head)

    def forget(self, room: RoomId) -> None:
        """Know nothing of the room any more."""
        if self._logs.pop(room, None) is not None:
            self._do(CancelTimer(f"repair:{room}"))
        if self.rooms.pop(room, None) is not None:
            self._do(RoomsChanged())

    def heard_of(self, room: RoomId, head: int) -> None:
        """The room's log ends at `head`: begin there if it is new here, else get what is lacking."""
        log = self._log(room)
        if log.last is None and not log.restarting:
            log.begin(head)
        log.wanted = max(log.wanted, head)
        if self._live:
            self._drain(room)

    def take(self, entry: Entry) -> None:
        """An entry came."""
        self._place(entry)
        if self._live:
            self._drain(entry.room)

    def mark_read(self, room: RoomId, seq: int) -> None:
        """One has read the room up to `seq`."""
        state = self.rooms.get(room)
        if state is None or seq <= state.read:
            return
        unread = min(state.unread, max(0, state.head - seq))
        self.rooms[room] = msgspec.structs.replace(state, read=seq, unread=unread)
        self._do(RoomsChanged())

    def page(self, room: RoomId, raw: Sequence[msgspec.Raw], head: int) -> None:
        """The page of history that was asked for."""
        log = self._logs.get(room)
        if log is None:
            return
        log.repairing = False
        self._do(CancelTimer(f"repair:{room}"))
        entries = [read_entry(one) for one in raw]
        last = log.last
        if last is None:
            last = log.begin(entries[0].seq - 1 if entries else head)
            log.restarting = False
            self._raise_head(room, last)
        elif (entries[0].seq > last + 1) if entries else head > last:
            # Retention has taken what is lacking.
            log.last, log.restarting = None, True
            self._do(ResetRoom(room))
            self.repair(room)
            return
        progress = False
        for entry in entries:
            if entry.seq == last + 1:
                self._deliver(log, entry)
                last, progress = entry.seq, True
        log.wanted = max(log.wanted, head)
        if not progress and last < log.wanted and last + 1 not in log.held:
            # The server knows no more just now than what was heard of before: ask again, but not at once.
            self._repair_later(room, AGAIN_MS)
        else:
            self._drain(room)

    def page_failed(self, room: RoomId, *, retry: bool, after_ms: int | None) -> None:
        """History could not be read, just now or at all."""
        if room not in self._logs:
            return
        if retry:
            self._repair_later(room, AGAIN_MS if after_ms is None else after_ms)
        else:
            self.forget(room)

    def repair(self, room: RoomId) -> None:
        """Ask for what is lacking, now; also when the time for it has come."""
        log = self._logs.get(room)
        if log is None or not self._live:
            return
        if log.last is None:
            self._ask(room, limit=LAST_PAGE)
        else:
            self._ask(room, after=log.last, limit=PAGE)
        self._repair_later(room, PATIENCE_MS)

    def _repair_later(self, room: RoomId, ms: int) -> None:
        self._logs[room].repairing = True
        self._do(SetTimer(f"repair:{room}", ms))

    def _log(self, room: RoomId) -> _Log:
        log = self._logs.get(room)
        if log is None:
            log = self._logs[room] = _Log()
        return log

    def _place(self, entry: Entry) -> None:
        """Deliver the entry if it follows, hold it if it is early, drop it if it is known."""
        known = entry.room in self._logs
        log = self._log(entry.room)
        if not known and self._live:
            log.begin(entry.seq - 1)
        log.wanted = max(log.wanted, entry.seq)
        if log.last is not None and entry.seq <= log.last:
            return
        if log.last is not None and entry.seq == log.last + 1:
            self._deliver(log, entry)
        elif len(log.held) < self._max_held:
            log.held[entry.seq] = entry
        # What does not fit is read again later: `wanted` remembers that it is there.

    def _drain(self, room: RoomId) -> None:
        """Deliver what follows now; if something is still missing then, ask for it."""
        log = self._logs[room]
        while log.last is not None and (entry := log.held.pop(log.last + 1, None)) is not None:
            self._deliver(log, entry)
        if log.last is not None and log.held and min(log.held) <= log.last:
            log.held = {seq: early for seq, early in log.held.items() if seq > log.last}
        if (log.last is None or log.last < log.wanted) and not log.repairing:
            self.repair(room)

    def _deliver(self, log: _Log, entry: Entry) -> None:
        log.last = entry.seq
        self._update(log, entry)
        self._do(Deliver(entry))

    def _raise_head(self, room: RoomId, head: int) -> None:
        """The log has got so far without an entry that could be delivered: nothing of it is kept any more."""
        state = self.rooms.get(room)
        if state is not None and state.head < head:
            self.rooms[room] = msgspec.structs.replace(state, head=head)
            self._do(RoomsChanged())

    def _update(self, log: _Log, entry: Entry) -> None:
        """Keep the room's state at what the entry says."""
        state = self.rooms.get(entry.room)
        if state is None:
            return
        changes: dict[str, Any] = {"head": max(state.head, entry.seq)}  # Any: a field of RoomState each
        match entry:
            case MessageCreated() if entry.by == self.user and entry.seq > log.counted:
                changes |= {"read": max(state.read, entry.seq), "unread": 0}
            case MessageCreated() if entry.seq > max(log.counted, state.read):
                changes["unread"] = state.unread + 1
            case RoomUpdated():
                changes["name"] = state.name if entry.room_name is None else entry.room_name
                changes["kind"] = entry.kind or state.kind
            case MemberUpdated() if entry.user == self.user:
                changes["role"] = entry.role
            case _:
                pass
        self.rooms[entry.room] = msgspec.structs.replace(state, **changes)
        self._do(RoomsChanged())
