"""What is to happen at a time: an item in the partition of its minute, found by whoever looks when the time has come.

A process that looks for the first time looks back over `LOOK_BACK_MIN` minutes, so that nothing is lost while nobody
looked for a while; afterwards it goes on from where it was, once more over the minute before.

Who sees to an item claims it, and removes it when that is done. Where he dies in between, his claim is void after
`CLAIM_MS`, and whoever looks then sees to the item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubbub.aws.marshalling import Key
from hubbub.aws.service import AwsError
from hubbub.aws.table import ConditionFailed, Table
from hubbub.clock import Clock
from hubbub.fanout.apigateway.failures import passes
from hubbub.fanout.apigateway.keys import DUE_SHARDS, due_key, due_pk
from hubbub.parallel import each

LOOK_BACK_MIN = 15
"""Over how many minutes a process looks back that has not looked before."""

CLAIM_MS = 50_000
"""For how long who claims an item is believed to be seeing to it: less than a minute, after which somebody looks."""

KEPT_S = 3_600
"""How long an item is kept after its time, for those who look late."""


class Dues:
    """What is due, in a table.

    Args:
        table: where it is.
        clock: time.

    """

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._looked: dict[str, int] = {}  # up to which minute was looked, by kind

    def item(self, kind: str, what: str, at_s: int, **said: Any) -> dict[str, Any]:  # Any: the values of an item
        """The item of something that is due.

        Args:
            kind: why; a word.
            what: an id; the same one within a minute is one item.
            at_s: when, epoch seconds.
            said: further attributes.

        """
        pk, sk = due_key(at_s // 60, kind, what)
        ttl = max(at_s, self._clock.now_ms() // 1_000) + KEPT_S
        return {"pk": pk, "sk": sk, "ttl": ttl, **said}

    async def until(self, kind: str, last: int, *, now: int) -> list[dict[str, Any]]:  # Any: as above
        """Items of that kind up to the minute `last`, from where the last look ended; `now` is this minute.

        Minutes are epoch minutes. Whoever has seen to all that is over calls `done`.
        """
        first = max(0, now - KEPT_S // 60, min(self._looked.get(kind, now - LOOK_BACK_MIN) - 1, last))
        pks = [due_pk(minute, shard) for minute in range(first, last + 1) for shard in range(DUE_SHARDS)]
        found = await each(lambda pk: self._in(pk, f"{kind}#"), pks)
        return [item for items in found for item in items]

    def done(self, kind: str, minute: int) -> None:
        """Let the next look begin a minute before that one."""
        self._looked[kind] = minute

    async def claim(self, items: Sequence[dict[str, Any]], now_ms: int) -> list[dict[str, Any]]:  # Any: as above
        """Those of the items that nobody else sees to, as of `now_ms`; also those of which that is not known.

        Where it fails for some, what could be claimed is returned, and the next look finds the others.
        """

        async def one(item: dict[str, Any]) -> bool | None:  # Any: as above
            return await self._claim(item, now_ms)

        free = [item for item in items if item.get("claimed", 0) < now_ms - CLAIM_MS]
        claims = await each(one, free)
        for item, is_claimed in zip(free, claims, strict=True):
            if is_claimed is None:
                _, minute, _ = item["pk"].split("#")
                kind = item["sk"].partition("#")[0]
                self._looked[kind] = min(int(minute), self._looked.get(kind, int(minute)))
        return [{**item, "claimed": now_ms} for item, is_claimed in zip(free, claims, strict=True) if is_claimed]

    async def remove(self, claimed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:  # Any: as above
        """Remove what was claimed and is seen to; returns what could not be removed just now."""

        async def one(item: dict[str, Any]) -> bool:  # Any: as above
            try:
                await self._table.delete(key_of(item), condition="#claimed = :then", values={"then": item["claimed"]})
            except ConditionFailed:
                pass  # it is there anew, or claimed by somebody else
            except AwsError as error:
                if not passes(error):
                    raise
                return False
            return True

        removed = await each(one, claimed)
        return [item for item, is_removed in zip(claimed, removed, strict=True) if not is_removed]

    async def _claim(self, item: dict[str, Any], now_ms: int) -> bool | None:  # Any: as above
        """Whether it is ours, or may be; None if that could not be asked."""
        try:
            await self._table.update(
                key_of(item),
                "SET #claimed = :now",
                condition="attribute_exists(pk) AND (attribute_not_exists(#claimed) OR #claimed < :void)",
                values={"now": now_ms, "void": now_ms - CLAIM_MS},
            )
        except ConditionFailed:
            return False
        except AwsError as error:
            if not passes(error):
                raise
            if not error.is_in_doubt:
                return None
        return True

    async def _in(self, pk: str, prefix: str) -> list[dict[str, Any]]:  # Any: as above
        found: list[dict[str, Any]] = []  # Any: as above
        start: str | None = None
        while True:
            page = await self._table.query(pk, prefix=prefix, start=start)
            found += page.items
            if page.next is None:
                return found
            start = page.next


def key_of(item: dict[str, Any]) -> Key:  # Any: the values of an item
    """Where an item is."""
    return item["pk"], item["sk"]
