"""How far a shard of a room was served, and who serves it: one item, on which all writes are conditional.

The item says up to which `seq` its listeners were served (`delivered`), what somebody else asked for meanwhile
(`wanted`), whether somebody has come since who is behind the others (`anew`), who serves it and until when he is
believed to (`owner`, `until`), and where a pass that was broken off goes on (`passing`, `page`). A holder releases only
if nothing more is wanted, and whoever wants something says so only while there is a holder: so no wish falls between
the two.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any, Self

import msgspec

from hubbub.aws.marshalling import Key
from hubbub.aws.service import AwsError
from hubbub.aws.table import ConditionFailed, Table
from hubbub.clock import Clock
from hubbub.entropy import random_bytes
from hubbub.fanout.apigateway.keys import delivery_key
from hubbub.model import RoomId

logger = logging.getLogger(__name__)

LEASE_S = 10.0
"""For how long a holder is believed to be alive after his last sign of life: what a killed one costs his listeners."""

OFF = 6
"""A lease that seems to last for so many times its length was taken by a clock that is off, and counts for nothing."""

TRIES = 20
"""How often a lease that changes hands all the time is tried for before the queue is left to."""


class Contended(Exception):
    """The lease could be neither had nor waited for; the job is to be tried again."""


class Lost(Exception):
    """Somebody else has the lease: he took its holder for dead."""


class State(msgspec.Struct, frozen=True):
    """What the item says.

    Attributes:
        delivered: all listeners were served up to this `seq`; None when the shard was never served.
        wanted: the highest `seq` that was asked for while somebody served the shard; 0 for none.
        anew: whether the listeners are to be gone through once more, whatever was delivered.
        owner, until: who serves it, and until when he is believed to (epoch milliseconds); empty and 0 when nobody.
        passing, page: up to which `seq` the pass goes that was broken off, and the listener whom it reached last;
            None when none was.
        told: the highest head that listeners were told of.
        shards: over how many shards the room's listeners are spread; in the item of shard 0.
        listeners: about how many there are, in this shard, or in all for that of shard 0.
        counted: when all shards were counted last, epoch milliseconds; in that of shard 0.

    """

    delivered: int | None = None
    wanted: int = 0
    anew: bool = False
    owner: str = ""
    until: int = 0
    passing: int | None = None
    page: str | None = None
    told: int = 0
    shards: int = 1
    listeners: int = 0
    counted: int = 0

    def is_served(self, seq: int) -> bool:
        """Whether all listeners were served up to `seq`, and nothing else is left to do."""
        is_idle = self.passing is None and not self.anew
        return is_idle and self.delivered is not None and max(seq, self.wanted) <= self.delivered


class Lease:
    """The right to serve one shard of a room. `async with` keeps it alive, and gives it up if it is still held.

    Attributes:
        state: what the item said when it was last seen.
        is_held: whether it is held, as far as one knows.

    Args:
        table: where the item is.
        clock: time.
        room, shard: whose.
        lease_s: for how long its holder is believed to be alive.

    """

    def __init__(self, table: Table, *, clock: Clock, room: RoomId, shard: int, lease_s: float = LEASE_S) -> None:
        self._table = table
        self._clock = clock
        self._key: Key = delivery_key(room, shard)
        self._lease_s = lease_s
        self._me = random_bytes(9).hex()
        self._keeping: asyncio.Task[None] | None = None  # writes signs of life while it is held
        self._writing = asyncio.Lock()
        self.state = State()
        self.is_held = False

    def __repr__(self) -> str:
        return f"<Lease on {self._key}, {'held' if self.is_held else 'not held'}: {self.state}>"

    async def acquire(self, seq: int) -> bool:
        """Hold it, so that the shard is served up to `seq`; False when that is done, or left to its holder.

        Raises:
            Contended: neither came about.
            AwsError: the table cannot be reached.

        """
        for _ in range(TRIES):
            if await self._take(seq):
                return True
            if self.state.is_served(seq) or (not self._is_free(self.state) and await self._want(seq)):
                return False
        raise Contended(f"{self._key}: neither free nor held for long enough to say what is wanted")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self.is_held and not isinstance(error, asyncio.CancelledError):
            try:
                await self._change("REMOVE #owner, #until", {})
            except (AwsError, Lost) as failed:
                logger.warning("the lease on %s is left to run out: %s", self._key, failed)
            self.is_held = False

    async def release(self, delivered: int | None, wanted: int, *, listeners: int) -> bool:
        """Say up to what was delivered, and give the lease up; False when more is wanted by now.

        Raises:
            Lost: it was not held any more.
            AwsError: the table cannot be reached.

        """
        set_delivered = "" if delivered is None else "#delivered = :delivered, "
        values: dict[str, Any] = {"wanted": wanted, "listeners": listeners}  # Any: an item's values
        if delivered is not None:
            values["delivered"] = delivered
        try:
            await self._change(
                f"SET {set_delivered}#listeners = :listeners REMOVE #owner, #until, #wanted, #passing, #page",
                values,
                "(attribute_not_exists(#wanted) OR #wanted <= :wanted) AND attribute_not_exists(#anew)",
            )
        except ConditionFailed:
            return False
        self.is_held = False
        return True

    async def turn(self, delivered: int | None) -> None:
        """Say up to what was delivered, and go on holding it for the next pass, which is begun after this.

        Raises:
            Lost, AwsError: as `release`.

        """
        set_delivered = "" if delivered is None else "#delivered = :delivered, "
        values: dict[str, Any] = {"until": self._until()}  # Any: an item's values
        if delivered is not None:
            values["delivered"] = delivered
        await self._change(f"SET {set_delivered}#until = :until REMOVE #passing, #page, #anew", values)

    async def save(self, passing: int, page: str) -> None:
        """Say how far a pass up to `passing` has come, and go on holding it.

        Raises:
            Lost, AwsError: as `release`.

        """
        values = {"passing": passing, "page": page, "until": self._until()}
        await self._change("SET #passing = :passing, #page = :page, #until = :until", values)

    async def leave(self, delivered: int | None, passing: int | None = None, page: str = "") -> None:
        """Say how far it has come, and give it up whatever else is wanted: a successor sees to that.

        Raises:
            Lost, AwsError: as `release`.

        """
        said = {"delivered": delivered, "passing": passing, "page": page if passing is not None else None}
        values = {name: value for name, value in said.items() if value is not None}
        change = ", ".join(f"#{name} = :{name}" for name in values)
        await self._change(f"{f'SET {change} ' if change else ''}REMOVE #owner, #until", values)
        self.is_held = False

    async def tell(self, head: int) -> bool:
        """Take note that listeners were told of `head`; False when that was known. It need not be held.

        Raises:
            AwsError: the table cannot be reached.

        """
        try:
            await self._table.update(
                self._key,
                "SET #told = :head",
                condition="attribute_not_exists(#told) OR #told < :head",
                values={"head": head},
                repeat=True,
            )
        except ConditionFailed as failed:
            return failed.is_in_doubt and _state(failed.item).told == head
        return True

    async def ask_anew(self) -> None:
        """Have the listeners gone through once more, by whoever takes it or holds it. It need not be held.

        Raises:
            AwsError: the table cannot be reached.

        """
        await self._table.update(self._key, "SET #anew = :anew", values={"anew": True}, repeat=True)

    async def spread(self, shards: int, listeners: int) -> None:
        """Say over how many shards those who come from now on are spread, and how many listeners there are.

        Raises:
            Lost, AwsError: as `release`.

        """
        values = {"shards": shards, "listeners": listeners, "now": self._clock.now_ms(), "until": self._until()}
        await self._change("SET #shards = :shards, #listeners = :listeners, #counted = :now, #until = :until", values)

    # The item

    async def _take(self, seq: int) -> bool:
        """Take the lease if it is free and something is left to do up to `seq`."""
        now = self._clock.now_ms()
        try:
            item = await self._table.update(
                self._key,
                "SET #owner = :me, #until = :until",
                condition=(
                    "(attribute_not_exists(#owner) OR #until < :now OR #until > :off) AND "
                    "(attribute_not_exists(#delivered) OR #delivered < :seq OR #delivered < #wanted"
                    " OR attribute_exists(#passing) OR attribute_exists(#anew))"
                ),
                values={"me": self._me, "until": self._until(), "now": now, "off": self._off(), "seq": seq},
                returns="ALL_NEW",
                repeat=True,
            )
        except ConditionFailed as failed:
            self.state = _state(failed.item)
            if self.state.owner != self._me:
                return False
        else:
            self.state = _state(item)
        self._hold()
        return True

    async def _want(self, seq: int) -> bool:
        """Tell the holder what is wanted; False when there is none any more."""
        now = self._clock.now_ms()
        try:
            await self._table.update(
                self._key,
                "SET #wanted = :seq",
                condition="#until >= :now AND #until <= :off AND (attribute_not_exists(#wanted) OR #wanted < :seq)",
                values={"seq": seq, "now": now, "off": self._off()},
                repeat=True,
            )
        except ConditionFailed as failed:
            self.state = _state(failed.item)
            return not self._is_free(self.state) and self.state.wanted >= seq
        return True

    async def _change(
        self,
        expression: str,
        values: dict[str, Any],  # Any: an item's values
        condition: str | None = None,
    ) -> None:
        """Change the item while it is ours.

        Raises:
            Lost: it is not.
            ConditionFailed: it is, and what else must hold does not.

        """
        async with self._writing:
            if not self.is_held:
                raise Lost(f"{self._key}: somebody else serves it")
            try:
                item = await self._table.update(
                    self._key,
                    expression,
                    condition="#owner = :me" + (f" AND {condition}" if condition else ""),
                    values={**values, "me": self._me},
                    returns="ALL_NEW",
                    repeat=True,
                )
                self.state = _state(item)
            except ConditionFailed as failed:
                self.state = _state(failed.item)
                if self.state.owner == self._me:
                    raise
                if failed.is_in_doubt and not self.state.owner and "REMOVE #owner" in expression:
                    return  # the first try had done it
                self.is_held = False
                raise Lost(f"{self._key}: somebody else serves it") from failed

    def _hold(self) -> None:
        self.is_held = True
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        """Write signs of life as long as it is held."""
        while self.is_held:
            await self._clock.sleep(self._lease_s / 3)
            try:
                if self.is_held:
                    await self._change("SET #until = :until", {"until": self._until()})
            except Lost:
                return
            except AwsError as error:
                logger.warning("no sign of life on %s: %s", self._key, error)

    def _until(self) -> int:
        return self._clock.now_ms() + round(self._lease_s * 1_000)

    def _off(self) -> int:
        return self._clock.now_ms() + round(OFF * self._lease_s * 1_000)

    def _is_free(self, state: State) -> bool:
        return not state.owner or not self._clock.now_ms() <= state.until <= self._off()


def _state(item: object) -> State:
    return msgspec.convert(item or {}, State)
