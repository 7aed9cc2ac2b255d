"""Acknowledged sends beside PostgreSQL's own pgbench, which inserts the same row: `python -m bench.pgbench_sends`.

In each round pgbench's clients insert into a table with the columns and indexes of the SQLite store's, each in a
transaction of its own that waits for the disk (`synchronous_commit=on`, `fsync=on`); then as many senders send a
message of the same size to Hubbub, each its next one when the last was acknowledged. What Hubbub does beside the insert
(WebSocket, rights, order, the author's read mark, the room's head, handing out) pgbench does not do.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import tempfile
from pathlib import Path

import uvloop
from scripts.servers import Postgres, postgres_program

from bench import saving
from bench.load import ROOM, hubbub_server
from bench.sends import TEXT_BYTES, measure
from hubbub.model import MessageCreated, RoomId, UserId, new_ulid
from hubbub.protocol import encode

CLIENTS = (64, 256)

TABLE = """
CREATE TABLE entries (
    key bigserial PRIMARY KEY, room bigint NOT NULL, author text NOT NULL, client_id text, target bigint,
    thread bigint, words int NOT NULL, messages bigint NOT NULL, at bigint NOT NULL, body bytea NOT NULL
);
CREATE UNIQUE INDEX entries_sent_once ON entries (room, author, client_id) WHERE client_id IS NOT NULL;
CREATE INDEX entries_by_target ON entries (room, target, words) WHERE target IS NOT NULL;
CREATE INDEX entries_by_thread ON entries (room, thread) WHERE thread IS NOT NULL;
"""
"""Of `hubbub/store/sqlite/0001.sql`; the key comes of a sequence, which is what a serial column is for."""


def script() -> str:
    """What each of pgbench's transactions does."""
    now_ms = 1_700_000_000_000
    message = MessageCreated(
        room=RoomId(ROOM), seq=1_000_000, id=new_ulid(now_ms), at=now_ms, by=UserId("user100"), text="x" * TEXT_BYTES
    )
    return (
        "INSERT INTO entries (room, author, client_id, target, thread, words, messages, at, body) VALUES"
        f" (1, 'user' || :client_id, NULL, NULL, NULL, 0, 1000000, {now_ms}, '{encode(message).decode()}');\n"
    )


async def inserts_per_s(postgres: Postgres, clients: int, seconds: float, file: Path) -> float:
    """What pgbench achieves with so many clients.

    Raises:
        RuntimeError: it failed; the message is its own.

    """
    words = ["-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(max(1, round(seconds))), "-f", str(file)]
    process = await asyncio.create_subprocess_exec(
        str(postgres_program("pgbench")),
        *words,
        postgres.url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), seconds + 60)
    found = re.search(r"^tps = ([0-9.]+)", out.decode(), re.MULTILINE)
    if process.returncode or found is None:
        raise RuntimeError(f"pgbench ended with {process.returncode}: {err.decode().strip()}")
    return float(found[1])


async def main(rounds: int, seconds: float) -> list[dict[str, float]]:
    """Print a table with the ratio of each round, and return it."""
    ours: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    theirs: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    postgres = Postgres(safe=True, settings={"max_connections": "300", "synchronous_commit": "on"})
    try:
        with postgres, tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
            file = Path(folder) / "insert.sql"
            file.write_text(script())
            postgres.run_sql(TABLE, "hubbub")
            async with hubbub_server(pinned=False) as server:
                await inserts_per_s(postgres, 64, 1, file)
                await measure(server, 64, 1)
                for _ in range(rounds):
                    for clients in CLIENTS:
                        theirs[clients].append(await inserts_per_s(postgres, clients, seconds, file))
                        ours[clients].append((await measure(server, clients, seconds)).acks_per_s)
    finally:
        postgres.remove()
    best = [max(each) for each in zip(*theirs.values(), strict=True)]
    table: list[dict[str, float]] = []
    print(f"{'clients':>7}  {'pgbench inserts/s':>17}  {'Hubbub acks/s':>13}  ratio  (medians of {rounds})")
    for clients in CLIENTS:
        row: dict[str, float] = {
            "clients": clients,
            "pgbench_per_s": statistics.median(theirs[clients]),
            "hubbub_per_s": statistics.median(ours[clients]),
            "ratio": _ratio(ours[clients], theirs[clients]),
            "ratio_to_best": _ratio(ours[clients], best),
        }
        print(f"{clients:>7}  {row['pgbench_per_s']:>17,.0f}  {row['hubbub_per_s']:>13,.0f}  {row['ratio']:>5.2f}")
        table.append(row)
    print(f"With {max(CLIENTS)} senders, to the better of pgbench's in each round: {table[-1]['ratio_to_best']:.2f}")
    return table


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--quick", action="store_true", help="one short round")
    saving.add_argument(parser)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, 2
    found = uvloop.run(main(chosen.rounds, chosen.seconds))
    if chosen.save:
        saving.save("pgbench_sends", {"rows": found})
