"""The items of connections: whose each is and what it listens to, changed by many functions at once.

Every change is made on the condition that the item is still as it was read (`version`), in one transaction with the
items of the rooms' listeners that it concerns. So a connection's item and its listeners never contradict each other,
and of two that come at the same time one sees what the other did.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from hubbub.aws.marshalling import Item
from hubbub.aws.table import Action, Cancelled, ConditionFailed, Put, Table
from hubbub.clock import Clock
from hubbub.errors import Unavailable
from hubbub.fanout.apigateway.connected import Connected, Link, connected_of, link_of
from hubbub.fanout.apigateway.keys import LINK_PREFIX, connection_key, look_key, user_pk
from hubbub.model import ConnectionId, UserId

ARRIVING_MS = 60_000
"""How long a connection may be known here before a post reaches it: API Gateway says 410 until `$connect` is done."""

FRESH_S = 1.0
"""For how long a process goes by what it knows of a connection, where a newer token may wait so long."""

MAX_TRIES = 12
"""How often a change is tried again because others were quicker."""

MAX_CACHED = 2_000

CONFLICT_WAIT_S = 0.05
"""The longest wait after a conflict; it grows by as much with each."""


class Change(NamedTuple):
    """What becomes of a connection's item, and what is done to its listeners in the same transaction."""

    to: Connected
    actions: Sequence[Action] = ()


class Connections:
    """The connections in a table.

    Args:
        table: where they are.
        clock: time.

    """

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._known: dict[ConnectionId, tuple[float, Connected]] = {}  # and when that was so (monotonic)

    async def get(self, connection: ConnectionId, *, within_s: float = 0.0) -> Connected | None:
        """The connection as it is, or was at most `within_s` ago; None for none, or one that has outlived its time."""
        known = self._known.get(connection)
        if known is not None and self._clock.monotonic() - known[0] < within_s:
            return known[1]
        if not within_s:
            self._table.ahead.forget([connection_key(connection)])
        item = await self._table.get(connection_key(connection))
        return self._learn(connection, item)

    async def many(self, connections: Iterable[ConnectionId]) -> dict[ConnectionId, Connected]:
        """Those of them that are there."""
        items = await self._table.get_many([connection_key(each) for each in connections])
        found = [connected_of(item) for item in items.values()]
        return {each.connection: each for each in found if not (each.is_ended or self.is_void(each.ttl))}

    async def links(self, user: UserId) -> list[Link]:
        """A user's connections, those whose end is yet to be told included."""
        found: list[Link] = []
        start: str | None = None
        while True:
            page = await self._table.query(user_pk(user), prefix=LINK_PREFIX, start=start)
            found += [link_of(item) for item in page.items]
            if page.next is None:
                return [link for link in found if not self.is_void(link.ttl)]
            start = page.next

    @staticmethod
    def link(connected: Connected) -> dict[str, Any]:  # Any: the values of an item
        """The item by which the connection is found from its user."""
        return Link(connected.connection, connected.ttl).item(connected.user)

    @staticmethod
    def watched(connected: Connected) -> dict[str, Any]:  # Any: the values of an item
        """The item by which the connection's turn to be looked at comes."""
        pk, sk = look_key(connected.connection)
        return {"pk": pk, "sk": sk, "at": connected.at, "ttl": connected.ttl}

    async def unwatch(self, connection: ConnectionId) -> None:
        """Let the turn of a connection come no more, if it is not there."""
        if await self._table.get(connection_key(connection), only=["pk"]) is None:
            await self._table.delete(look_key(connection))

    async def make(self, made: Connected) -> Connected | None:
        """Write a new connection's item; the one that is there, if there is one."""
        try:
            await self._table.put(
                made.item(),
                condition="attribute_not_exists(pk) OR #ttl <= :now",
                values={"now": self._clock.now_ms() // 1_000},
            )
        except ConditionFailed as failed:
            return self._learn(made.connection, failed.item)
        self._remember(made)
        return None

    async def end(self, connection: ConnectionId) -> Connected | None:
        """Let a connection be no more; what it was. None if it was not there, or somebody else has ended it.

        From then on it begins nothing. Its item stays until `remove`, so that who dies meanwhile leaves a trace.
        """
        self._known.pop(connection, None)
        condition = "attribute_exists(pk) AND attribute_not_exists(ended)"
        values = {"one": 1}
        try:
            item: Item | None = await self._table.update(
                connection_key(connection),
                "SET ended = :one ADD version :one",
                condition=condition,
                values=values,
                returns="ALL_NEW",
                repeat=True,
            )
        except ConditionFailed as failed:
            item = failed.item if failed.is_in_doubt else None
        return connected_of(item) if item else None

    async def ending(self, connection: ConnectionId) -> Connected | None:
        """A connection that was ended by somebody who has not come to remove it."""
        item = await self._table.get(connection_key(connection))
        found = connected_of(item) if item else None
        return found if found is not None and found.is_ended else None

    async def remove(self, connection: ConnectionId) -> None:
        """Delete a connection's item, and let its turn to be looked at come no more."""
        await self._table.write_many(deletes=[connection_key(connection), look_key(connection)])

    async def change(
        self, connection: ConnectionId, decide: Callable[[Connected], Change | None], known: Connected | None = None
    ) -> Connected | None:
        """Change a connection's item as `decide` says; what it is then, None if there is none.

        Args:
            connection: its id.
            decide: told what the item is, says what it is to be; None for nothing. Asked again whenever somebody else
                was quicker.
            known: what it was a moment ago; None to look.

        Raises:
            Unavailable: others were quicker again and again.

        """
        now = known or await self.get(connection)
        is_fresh = known is None
        for tries in range(1, MAX_TRIES + 1):
            change = decide(now) if now is not None else None
            if change is None:
                if is_fresh:
                    return now
                now, is_fresh = await self.get(connection), True  # nothing is written that would prove it true
                continue
            try:
                await self._commit(change)
            except ConditionFailed as failed:
                now, is_fresh = self._learn(connection, failed.item), True
            except Cancelled as cancelled:
                if cancelled.reasons[0].code == "ConditionalCheckFailed":
                    now, is_fresh = self._learn(connection, cancelled.reasons[0].item), True
                elif cancelled.is_conflict:
                    await self._clock.sleep(random.random() * tries * CONFLICT_WAIT_S)  # noqa: S311  no secret
                    now, is_fresh = await self.get(connection), True
                else:
                    raise
            else:
                self._remember(change.to)
                return change.to
        raise Unavailable("Too much happens to this connection at once; try again.", retry_after_ms=250)

    async def _commit(self, change: Change) -> None:
        item, condition, values = change.to.item(), "#version = :version", {"version": change.to.version - 1}
        if change.actions:
            await self._table.transact(Put(item, condition, values), *change.actions)
        else:
            await self._table.put(item, condition=condition, values=values)

    def is_void(self, ttl: int) -> bool:
        """Whether an item has outlived its time: DynamoDB may take days to remove it."""
        return ttl <= self._clock.now_ms() // 1_000

    def _learn(self, connection: ConnectionId, item: dict[str, Any] | None) -> Connected | None:  # Any: as above
        found = connected_of(item) if item else None
        if found is None or found.is_ended or self.is_void(found.ttl):
            self._known.pop(connection, None)
            return None
        self._remember(found)
        return found

    def _remember(self, found: Connected) -> None:
        self._known.pop(found.connection, None)
        self._known[found.connection] = (self._clock.monotonic(), found)
        if len(self._known) > MAX_CACHED:
            del self._known[next(iter(self._known))]
