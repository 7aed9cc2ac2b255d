"""Writing at the end of rooms' logs: a line for each room, in which writes wait their turn and share transactions.

An entry's key is the lock. A transaction writes entries at the seqs that follow the log's end, if nothing is there; who
comes second learns so from the refusal, waits a little, looks where the log ends now, and tries there. No counter is
kept anywhere, so no failure can leave a hole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any

from hubbub.aws.credentials import NoCredentials
from hubbub.aws.marshalling import Key
from hubbub.aws.service import AwsError
from hubbub.aws.table import Cancelled, Put, Reason, Table
from hubbub.clock import Clock
from hubbub.errors import HubbubError, Unavailable
from hubbub.model import Entry, MessageCreated, RoomId
from hubbub.store.dynamodb import keys
from hubbub.store.dynamodb.drafts import Draft, read_facts, sent_key
from hubbub.store.dynamodb.effects import Facts, Limits, footprint
from hubbub.store.dynamodb.failures import Patience, translated
from hubbub.store.dynamodb.items import Tail, number, read_entry
from hubbub.store.dynamodb.lines import MOST_ENTRIES, Append, Deed, Line, Turn, fail, settle_all
from hubbub.store.dynamodb.redaction import finish
from hubbub.store.dynamodb.tails import read_on, read_tail

logger = logging.getLogger("hubbub.store")

FRESH_S = 1.0
"""For how long a log is taken to end where this process has last written, if nobody was in its way there."""

SEEN_S = 0.1
"""For how long it is taken to end where it was last read."""

MOST_TAILS = 10_000
"""How many ends of logs are remembered."""


class Logs:
    """The logs of all rooms, as this process writes them.

    Args:
        table: where they are.
        limits: see `Limits`.
        clock: time.
        patience_s: how long a write is tried again when others are in its way.
        max_pending: writes that may wait at once.
        wrote: told of each room in which entries have been written.

    """

    def __init__(
        self,
        table: Table,
        limits: Limits,
        clock: Clock,
        *,
        patience_s: float,
        max_pending: int,
        wrote: Callable[[RoomId], None],
    ) -> None:
        self._wrote = wrote
        self._table = table
        self._limits = limits
        self._clock = clock
        self._patience_s = patience_s
        self._max_pending = max_pending
        self._pending = 0
        self._lines: dict[RoomId, Line] = {}  # rooms in which something waits or is being done
        # Where this process has left logs, and when by both clocks: one stands still while a process is frozen.
        self._tails: dict[RoomId, tuple[Tail, float, int]] = {}

    def append(self, entry: Entry) -> asyncio.Future[Entry]:
        """Have the entry written after those that were given before; the future has the entry as it is then.

        Raises:
            Unavailable: too many writes wait.

        """
        entry.seq = 0
        future: asyncio.Future[Entry] = self._future()
        self._join(entry.room, Append(entry, future))
        return future

    def do(self, room: RoomId, deed: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:  # Any: as `Deed`
        """Have something else done in the room after what was given before; the future has what it returns.

        Raises:
            Unavailable: too many writes wait.

        """
        future: asyncio.Future[Any] = self._future()
        self._join(room, (deed, future))
        return future

    def forget(self, room: RoomId) -> None:
        """The room or its log's end is another now."""
        self._tails.pop(room, None)

    def saw(self, tail: Tail) -> None:
        """Somebody has just read where a log ends; who asks for a room often does so to write in it."""
        room = tail.room.id
        if room not in self._lines and room not in self._tails:
            self._remember(room, tail, FRESH_S - SEEN_S)

    async def finish(self) -> None:
        """Return when all that was given is done; nothing is to be given after."""
        while tasks := [line.task for line in self._lines.values() if line.task is not None]:
            await asyncio.wait(tasks)

    def _future(self) -> asyncio.Future[Any]:
        if self._pending >= self._max_pending:
            raise Unavailable("Too many writes are waiting; try again.", retry_after_ms=500)
        return asyncio.get_running_loop().create_future()

    def _join(self, room: RoomId, work: Append | Deed) -> None:
        line = self._lines.get(room)
        if line is None:
            line = self._lines[room] = Line()
            line.task = asyncio.create_task(self._serve(room, line), name=f"hubbub-log-{room}")
        line.waiting.append(work)
        self._pending += 1

    async def _serve(self, room: RoomId, line: Line) -> None:
        """Do what waits in the line, in order, until nothing does."""
        try:
            while line.waiting:
                first = line.waiting[0]
                if isinstance(first, Append):
                    await self._write(room, line)
                else:
                    await self._do(first)
                    line.waiting.popleft()
                    self._pending -= 1
        finally:
            del self._lines[room]

    async def _do(self, deed: Deed) -> None:
        work, future = deed
        try:
            result = await work()
        except (AwsError, NoCredentials) as error:
            fail(future, translated(error))
        except Exception as error:
            fail(future, error)
        else:
            if not future.done():
                future.set_result(result)

    # Appends

    async def _write(self, room: RoomId, line: Line) -> None:
        """Write the appends at the front of the line, as many as belong together, and take them out of it."""
        turn = Turn(Patience(self._clock, self._patience_s))
        while batch := line.front(turn.most):
            try:
                await self._attempt(room, batch, turn)
            except HubbubError as error:
                settle_all(batch, error)
            except (AwsError, NoCredentials) as error:
                self.forget(room)
                settle_all(batch, translated(error))
            except Exception as error:
                logger.exception("a write in %s failed", room)
                settle_all(batch, error)
            done = line.take_settled()
            self._pending -= done
            if done:
                return

    async def _attempt(self, room: RoomId, batch: Sequence[Append], turn: Turn) -> None:
        """Try to write once; what is not settled then is to be tried again."""
        must_look = any(append.reads or append.is_suspected for append in batch)
        tail, is_known = await self._tail(room, turn, look=must_look)
        suspected = [
            append.entry for append in batch if append.is_suspected and isinstance(append.entry, MessageCreated)
        ]
        facts = Facts()
        if must_look:
            facts = await read_facts(self._table, tail, [append.entry for append in batch], suspected, self._limits)
        draft = Draft(tail, facts, self._limits, self._clock.now_ms())
        written = _put_together(draft, facts, batch)
        if not written:
            return
        reasons = await self._commit(draft, turn.patience)
        if reasons is None:
            await self._written(draft, written, turn)
            return
        self.forget(room)
        turn.has_lost = True
        before = _repeated(draft, reasons, written)
        if before is not None:  # who was before those who have sent already is written without them
            turn.tail, turn.most = None, max(1, before)
            return
        turn.tail, turn.most = tail, MOST_ENTRIES
        if not is_known or reasons[0].code != "ConditionalCheckFailed":
            await turn.patience.wait()

    async def _written(self, draft: Draft, written: Sequence[Append], turn: Turn) -> None:
        if not turn.has_lost:  # who has lost once will find others there again
            self._remember(draft.room, draft.tail)
        self._wrote(draft.room)
        for append in written:
            append.settle(append.entry)
        await self._finish(draft)

    async def _finish(self, draft: Draft) -> None:
        """Do what its transaction had no place for; where that fails, the sweep does it."""
        for target in draft.unfinished:
            try:
                await finish(self._table, draft.room, target)
            except AwsError as error:
                logger.warning("edits of message %d in %s keep their words for now: %s", target, draft.room, error)

    async def _tail(self, room: RoomId, turn: Turn, *, look: bool) -> tuple[Tail, bool]:
        """Where the log ends, and whether that was known rather than read."""
        if turn.tail is not None:
            return await read_on(self._table, turn.tail), False
        known = self._tails.get(room)
        if known is not None and not look and self._is_fresh(known[1], known[2]):
            return known[0], True
        return await read_tail(self._table, room), False

    def _is_fresh(self, since: float, since_ms: int) -> bool:
        now_ms = self._clock.now_ms()
        return self._clock.monotonic() - since < FRESH_S and abs(now_ms - since_ms) < FRESH_S * 1_000

    def _remember(self, room: RoomId, tail: Tail, age_s: float = 0.0) -> None:
        self._tails.pop(room, None)
        self._tails[room] = tail, self._clock.monotonic() - age_s, self._clock.now_ms() - round(age_s * 1_000)
        if len(self._tails) > MOST_TAILS:
            for old in list(islice(self._tails, MOST_TAILS // 8)):
                del self._tails[old]

    async def _commit(self, draft: Draft, patience: Patience) -> list[Reason] | None:
        """Write the draft; None if it is written, else why not.

        Where it is not known whether it was, the log is asked. If it has nothing there, the very same is tried again:
        whichever of the two arrives first, the other will find its place taken.
        """
        place = keys.entry_key(draft.room, draft.entries[0].seq)
        while True:
            try:
                await self._table.transact(*draft.actions)
            except Cancelled as cancelled:
                there = cancelled.reasons[0].item
                return None if _is_ours(there, draft) else cancelled.reasons
            except AwsError as error:
                if not error.is_in_doubt:
                    raise
                there = await self._table.get(place)
                if there is not None:
                    return None if _is_ours(there, draft) else [Reason("ConditionalCheckFailed", there)]
                await patience.wait()
            else:
                return None


def _put_together(draft: Draft, facts: Facts, batch: Sequence[Append]) -> list[Append]:
    """Add to the draft what can be written with it, in order, and settle what needs no writing; returns the former."""
    written: list[Append] = []
    for append in batch:
        asks = footprint(append.entry).asks
        answer = _answer(draft, facts, append)
        if answer is not None and answer.seq:
            asks = {keys.entry_key(draft.room, answer.seq)}
        if draft.clashes(asks):
            _suspect_all(batch, written, append)
            break
        if answer is not None:
            append.settle(answer)
            continue
        try:
            added = draft.add(append.entry)
        except HubbubError as refusal:
            append.settle(refusal)
            continue
        if added is None:
            break
        if added:
            written.append(append)
        else:
            append.settle(append.entry)
    return written


def _answer(draft: Draft, facts: Facts, append: Append) -> Entry | None:
    """The entry that the same user has written with the same client_id, if it was looked for and is kept."""
    if not append.is_suspected or not isinstance(append.entry, MessageCreated):
        return None
    record = facts.items.get(sent_key(append.entry))
    if record is None or number(record, "seq") < draft.tail.room.first:
        return None
    if number(record, "ttl") < draft.now_ms // 1_000:
        return None
    item = facts.items.get(keys.entry_key(draft.room, number(record, "seq")))
    return None if item is None else read_entry(item)


def _suspect_all(batch: Sequence[Append], written: Sequence[Append], clashing: Append) -> None:
    """Those of the batch that share their client_id with one that is being written are looked for next time."""
    being_sent = {_sent(append) for append in written} - {None}
    for append in batch:
        if append is clashing or not append.is_settled:
            append.is_suspected = append.is_suspected or _sent(append) in being_sent


def _sent(append: Append) -> Key | None:
    entry = append.entry
    return sent_key(entry) if isinstance(entry, MessageCreated) and entry.client_id is not None else None


def _is_ours(item: dict[str, Any] | None, draft: Draft) -> bool:  # Any: values of an item
    """Whether this is what the draft has written there, after all."""
    entry = None if item is None else read_entry(item)
    return entry is not None and entry.id == draft.entries[0].id


def _repeated(draft: Draft, reasons: Sequence[Reason], written: Sequence[Append]) -> int | None:
    """How many entries come before the first whose client_id is there already; None if none is."""
    taken = {
        (action.item["pk"], action.item["sk"])
        for action, reason in zip(draft.actions, reasons, strict=False)
        if isinstance(action, Put)
        and str(action.item["pk"]).startswith("sent#")
        and reason.code == "ConditionalCheckFailed"
    }
    before = None
    for n, append in enumerate(written):
        if _sent(append) in taken:
            append.is_suspected = True
            before = n if before is None else before
    return before
