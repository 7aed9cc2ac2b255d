"""Stretches of a room's log: one query each, by index, so that a page costs what is on it however long the log is."""

from __future__ import annotations

from operator import attrgetter

from hubbub.errors import NotFound
from hubbub.model import AnyEntry, Page
from hubbub.store.postgres.link import Session
from hubbub.store.postgres.transaction import read_entry

MAX_CHANGES = 1_000
TOP = 2**62
"""A greater seq than there can be."""

_LOG = "SELECT seq, sort, body FROM hubbub.entries WHERE room = r.no AND {edge} ORDER BY seq {order} LIMIT {count}"

# A thread's root comes before all its answers.
_THREAD = """SELECT * FROM (
    (SELECT seq, sort, body FROM hubbub.entries WHERE room = r.no AND seq = $7 AND {edge})
    UNION ALL
    (SELECT seq, sort, body FROM hubbub.entries WHERE room = r.no AND thread = $7 AND {edge}
        ORDER BY seq {order} LIMIT {count})
) thread ORDER BY seq {order} LIMIT {count}"""

_PAGE = """
WITH r AS MATERIALIZED (
    SELECT no, head FROM hubbub.rooms WHERE id = $1 AND NOT deleted
), earlier AS MATERIALIZED (
    SELECT e.*, row_number() OVER (ORDER BY e.seq DESC) AS nth FROM r CROSS JOIN LATERAL ({earlier}) e
), later AS MATERIALIZED (
    SELECT e.*, row_number() OVER (ORDER BY e.seq) AS nth FROM r CROSS JOIN LATERAL ({later}) e
), counted AS (
    SELECT (SELECT count(*) FROM earlier) AS earlier, (SELECT count(*) FROM later) AS later
), after AS (
    SELECT *, least(later, $6::bigint - least(earlier, $6 / 2)) AS taken
    FROM counted
), chosen AS MATERIALIZED (
    SELECT least(earlier, $6 - taken) AS earlier, taken AS later,
        least(earlier, $6 - taken) < earlier OR taken < later AS has_more FROM after
), page AS MATERIALIZED (
    SELECT seq, sort, body FROM earlier WHERE nth <= (SELECT earlier FROM chosen)
    UNION ALL
    SELECT seq, sort, body FROM later WHERE nth <= (SELECT later FROM chosen)
), words AS MATERIALIZED (
    SELECT w.seq, w.body FROM r CROSS JOIN page p CROSS JOIN LATERAL (
        SELECT seq, body FROM hubbub.entries
        WHERE room = r.no AND target = p.seq AND sort = 1 AND seq > {after} ORDER BY seq DESC LIMIT 1
    ) w WHERE $8::boolean AND p.sort = 0
), reactions AS MATERIALIZED (
    SELECT w.seq, w.body FROM r CROSS JOIN page p CROSS JOIN LATERAL (
        SELECT seq, body FROM hubbub.entries
        WHERE room = r.no AND target = p.seq AND sort = 2 AND seq > {after} ORDER BY seq DESC LIMIT {changes}
    ) w WHERE $8::boolean AND p.sort = 0
    ORDER BY w.seq DESC LIMIT {changes} - (SELECT count(*) FROM words)
)
SELECT 0 AS part, head AS seq, ''::bytea AS body, has_more FROM r CROSS JOIN chosen
UNION ALL SELECT 1, seq, body, false FROM page
UNION ALL SELECT 2, seq, body, false FROM words
UNION ALL SELECT 2, seq, body, false FROM reactions
"""


def _page_of(stretch: str, after: str) -> str:
    return _PAGE.format(
        earlier=stretch.format(edge="seq <= $2::bigint", order="DESC", count="$3::bigint"),
        later=stretch.format(edge="seq >= $4::bigint", order="ASC", count="$5::bigint"),
        after=after,
        changes=MAX_CHANGES,
    )


# A log's page has every change up to its last entry itself; a thread's page has none.
OF_LOG = _page_of(_LOG, "(SELECT max(seq) FROM page)").replace("$8", "$7")
OF_THREAD = _page_of(_THREAD, "0")


async def read_page(
    session: Session,
    *,
    room: str,
    before: int | None,
    after: int | None,
    around: int | None,
    limit: int,
    thread: int | None,
    changes: bool,
) -> Page:
    """A page as `hubbub.ports.Store.page` describes it."""
    high, earlier, low, later = TOP, limit + 1, 0, 0
    if around is not None:
        high, low, later = around - 1, around, limit + 1
    elif after is not None:
        earlier, low, later = 0, after + 1, limit + 1
    elif before is not None:
        high = before - 1
    values = [room, min(high, TOP), earlier, min(low, TOP), later, limit]
    if thread is None:
        rows = await session.alone(OF_LOG, *values, changes)
    else:
        rows = await session.alone(OF_THREAD, *values, thread, changes)
    if not rows:
        raise NotFound(f"There is no room {room!r}.")
    head, has_more = 0, False
    entries: list[AnyEntry] = []
    changed: list[AnyEntry] = []
    for part, seq, body, more in rows:
        if part == 0:
            head, has_more = seq, more
        else:
            (entries if part == 1 else changed).append(read_entry(seq, body))
    entries.sort(key=attrgetter("seq"))
    changed.sort(key=attrgetter("seq"))
    return Page(entries, head, has_more, changed)
