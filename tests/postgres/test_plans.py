"""Every statement finds its rows by an index, whether the tables are new and unknown or full and analysed."""

from __future__ import annotations

import re

import pytest

from hubbub.store.postgres import finding, marks, messages, pages, retention
from hubbub.store.postgres.link import in_schema
from postgreslab import schema_of

STATEMENTS = {
    "messages": (messages.WRITE, "text[],text[],text[],text[],bigint[],bigint[],bigint[],bytea[]"),
    "marks": (marks.MOVE, "text[],text[],bigint[]"),
    "pages": (pages.OF_LOG, "text,bigint,bigint,bigint,bigint,bigint,boolean"),
    "threads": (pages.OF_THREAD, "text,bigint,bigint,bigint,bigint,bigint,bigint,boolean"),
    "states": (finding.STATES, "text[],text[],text[],bigint"),
    "rooms": (finding.ALL_ROOMS, "text,bigint"),
    "rooms of a kind": (finding.ROOMS_OF_KIND, "text,bigint,text"),
    "sweep": (retention.DUE, "bigint,bigint,bigint,bigint"),
}

FILL = """
INSERT INTO hubbub.rooms (id, kind, name, created_at, head) SELECT 'room' || n, 'public', '', 1, 100
    FROM generate_series(1, 500) n;
INSERT INTO hubbub.entries SELECT r, s, 'user' || s % 50, 'c' || s, s % 10 / 4,
    CASE WHEN s % 10 > 3 THEN s - 1 END, CASE WHEN s % 7 = 0 THEN 3 END, s, 1, 'x'
    FROM generate_series(1, 500) r, generate_series(1, 100) s;
INSERT INTO hubbub.members SELECT r, 'user' || s, 'member', 1 FROM generate_series(1, 500) r, generate_series(1, 20) s;
INSERT INTO hubbub.reads SELECT r, 'user' || s, 1, 1 FROM generate_series(1, 500) r, generate_series(1, 20) s;
ANALYZE hubbub.rooms, hubbub.entries, hubbub.members, hubbub.reads;
"""


@pytest.mark.parametrize("is_full", [False, True])
async def test_statements_go_by_indexes(store, tmp_path, is_full):
    """No table is read from end to end, and no index either."""
    schema = schema_of(tmp_path)
    connection = await store._address.connect()
    try:
        if is_full:
            await connection.execute(in_schema(FILL, schema))
        for name, (statement, types) in STATEMENTS.items():
            values = ", ".join("'{}'" if kind.endswith("[]") else "NULL" for kind in types.split(","))
            await connection.execute(f'PREPARE "{name}" ({types}) AS {in_schema(statement, schema)}')
            plan = [row[0] for row in await connection.fetch(f'EXPLAIN EXECUTE "{name}" ({values})')]
            scans = [n for n, line in enumerate(plan) if re.search(r"(Index|Index Only|Bitmap Index) Scan ", line)]
            assert scans, plan
            assert not any("Seq Scan" in line for line in plan), (name, plan)
            for n in scans:
                assert "Index Cond:" in plan[n + 1], (name, plan[n], plan)
            if name.startswith("rooms"):  # however many deleted rooms come first
                assert "Filter:" not in "".join(plan), plan
    finally:
        await connection.close()
