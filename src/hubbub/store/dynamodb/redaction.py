"""Words of edits that a deletion's transaction could not hold: removed after it, and hidden from readers until then."""

from __future__ import annotations

from hubbub.aws.marshalling import Item
from hubbub.aws.table import ConditionFailed, Table
from hubbub.model import RoomId
from hubbub.parallel import each
from hubbub.store.dynamodb import keys
from hubbub.store.dynamodb.effects import stripping


async def finish(table: Table, room: RoomId, target: int) -> None:
    """Remove the words of all edits of a message that is deleted."""
    start = None
    while True:
        page = await table.query(keys.about_pk(room), prefix=keys.words_prefix(target), start=start, limit=100)
        places = [(keys.log_pk(room), str(item["sk"]).rpartition("#")[2]) for item in page.items]
        await each(_Stripping(table), (await table.get_many(places)).values())
        start = page.next
        if start is None:
            return


class _Stripping:
    def __init__(self, table: Table) -> None:
        self._table = table

    async def __call__(self, item: Item) -> None:
        update = stripping(item)
        if update is None:
            return
        try:
            await self._table.update(
                update.key, update.expression, condition=update.condition, values=update.values, repeat=True
            )
        except ConditionFailed:  # retention has removed it
            return
