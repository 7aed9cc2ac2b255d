"""When the tokens of connections run out: each connection is told of twice, when that is near and when it has come.

One that is still there a while after the end was told, for it could not be closed, is told of again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hubbub.aws.table import ConditionFailed, Table
from hubbub.fanout.apigateway.connected import Connected
from hubbub.fanout.apigateway.connections import Connections
from hubbub.fanout.apigateway.due import Dues, key_of
from hubbub.model import ConnectionId
from hubbub.parallel import each

TOKEN = "token"  # noqa: S105  a word, not a secret
"""The kind of what is due when a token runs out."""

ARRIVING_S = 60
"""How long an item may be there before the connection's own."""


class _Lapse(msgspec.Struct):
    """What is due: the token of `connection` runs out at `at`, epoch seconds; `told` is 1 once that was told."""

    connection: ConnectionId
    at: int
    told: int = 0


class Lapses:
    """Tells of tokens that run out.

    Args:
        table, connections, dues: where things are.

    """

    def __init__(self, table: Table, connections: Connections, dues: Dues) -> None:
        self._table = table
        self._connections = connections
        self._dues = dues

    def items(self, connected: Connected) -> list[dict[str, Any]]:  # Any: the values of an item
        """What is to be kept so that the end of its token is told; nothing if the connection ends first."""
        at = connected.principal.expires_at
        if at >= connected.ttl:
            return []
        what = f"{connected.connection}#{at}"
        return [self._dues.item(TOKEN, what, at, connection=connected.connection, at=at)]

    async def lapsing(self, now_s: int, lead_s: int) -> tuple[list[ConnectionId], list[ConnectionId]]:
        """Whose tokens run out within `lead_s` from `now_s`, and whose have run out; see `hubbub.ports.Directory`."""
        until_s = now_s + lead_s
        items = await self._dues.until(TOKEN, until_s // 60, now=now_s // 60)
        lapses = [(item, msgspec.convert(item, _Lapse)) for item in items]
        near = [(item, lapse) for item, lapse in lapses if lapse.at <= until_s]
        there = await self._connections.many([lapse.connection for _, lapse in near])
        soon, over, stale = [], [], []
        for item, lapse in near:
            connected = there.get(lapse.connection)
            if connected is not None and connected.principal.expires_at == lapse.at:
                if lapse.at <= now_s:
                    over.append(item)
                elif not lapse.told:
                    soon.append(item)
            elif connected is not None or lapse.at <= now_s - ARRIVING_S:
                stale.append(key_of(item))
        await self._table.write_many(deletes=stale)
        told = [item for item, is_first in zip(soon, await each(self._tell, soon), strict=True) if is_first]
        self._dues.done(TOKEN, now_s // 60)
        return _connections(told), _connections(await self._dues.claim(over, now_s * 1_000))

    async def _tell(self, item: dict[str, Any]) -> bool:  # Any: the values of an item
        """Whether nobody has told of it before."""
        condition = "attribute_exists(pk) AND attribute_not_exists(told)"
        try:
            await self._table.update(key_of(item), "SET told = :one", condition=condition, values={"one": 1})
        except ConditionFailed:
            return False
        return True


def _connections(items: list[dict[str, Any]]) -> list[ConnectionId]:  # Any: as above
    return [ConnectionId(item["connection"]) for item in items]
