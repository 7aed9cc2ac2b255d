"""A cluster whose every way between two servers can be broken, and runs on it whose history is written down."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
from history.cutter import Link, NatsLink
from history.guests import DEN, HOST, Den
from history.nemesis import Theatre
from history.record import History, Log, Quiet, Recorder
from history.workload import ROOMS, USERS, Crowd, users
from scripts.cluster import Cluster
from scripts.servers import NatsCluster, Postgres

from hubbub.model import RoomId, UserId
from hubbub.ports import Store
from hubbub.protocol import encode
from live import SECRET, Wire, token, until

CONVERGED_WITHIN_S = 15.0
"""How long after everything is healed and quiet a client may lack something."""

PATIENCE_S = 2 * CONVERGED_WITHIN_S
"""How long a run waits for it, so that its history shows how late it was."""

FINISHED_WITHIN_S = 60.0
"""How long what is under way may take to be acknowledged once everything is healed."""

NODES = 3
BROKEN = Path(__file__).parent / "faults" / "history" / "broken.py"

Harm = Callable[[Recorder], Awaitable[None]]
"""What is done to the cluster while clients talk; returns with everything healed."""


def nats_servers(folder: Path) -> NatsCluster:
    """Three NATS servers that do not tell clients of each other: these would go past what can be cut."""
    return NatsCluster(3, folder=folder, arguments=["--no_advertise"])


@asynccontextmanager
async def breakable(
    folder: Path, *, postgres: Postgres, database: str, nats: NatsCluster, seed: int, broken: str | None = None
) -> AsyncIterator[tuple[Cluster, Theatre]]:
    """Three nodes behind nginx, with a way of its own from each to PostgreSQL and to each NATS server.

    Args:
        folder: for logs.
        postgres, nats: run already, and are left running.
        database: the name of an empty one.
        seed: of which messages are lost.
        broken: how the nodes' code is broken on purpose (`history/broken.py`); None for not.

    """
    chance = random.Random(f"links {seed}")
    async with AsyncExitStack() as stack:
        to_postgres = [await stack.enter_async_context(Link(postgres.port)) for _ in range(NODES)]
        to_nats = [
            [await stack.enter_async_context(NatsLink(server.port, chance)) for server in nats.servers]
            for _ in range(NODES)
        ]
        cluster = Cluster(
            nodes=NODES,
            nats=nats,
            postgres=postgres,
            folder=folder,
            secret=SECRET,
            store_url=lambda n: f"postgresql://hubbub@127.0.0.1:{to_postgres[n].port}/{database}",
            fanout_url=lambda n: "nats://" + ",".join(f"127.0.0.1:{link.port}" for link in to_nats[n]),
            settings={"rate": "0", "user_rate": "0", "drain_s": "1", "presence_grace_s": "1"},
        )
        if broken is not None:
            for node in cluster.nodes:
                node.command = [sys.executable, str(BROKEN), broken, "serve"]
        theatre = Theatre(cluster.nodes, nats.servers, postgres, cluster.balancer, to_postgres, to_nats)
        stack.push_async_callback(asyncio.to_thread, cluster.stop)
        await asyncio.to_thread(cluster.start)
        yield cluster, theatre


async def run(
    ws_url: str,
    opening: AbstractAsyncContextManager[Store],
    path: Path,
    *,
    seed: int,
    harm: Harm,
    settles: bool = True,
    **crowd_options: float,
) -> History:
    """Let a crowd talk while harm is done, wait until all is well again, and return the history.

    Args:
        ws_url: where clients connect.
        opening: of the store, past everything that can be broken.
        path: the file of the history.
        seed: of the crowd.
        harm: so.
        settles: whether it is waited for what is so in the end; without, the history ends with the logs.
        crowd_options: see `Crowd`.

    """
    async with await Wire.open(ws_url, token("maker")) as wire:
        for room in ROOMS:
            await wire.ok("create", kind="public", room=room, members=list(users()))
    async with await Wire.open(ws_url, token(HOST)) as wire:
        await wire.ok("create", kind="private", room=DEN)
    with Recorder(path) as recorder, Recorder(path.with_name("den.jsonl")) as theirs:
        crowd = Crowd(ws_url, recorder, seed=seed, **crowd_options)
        den = Den(ws_url, theirs, seed=seed)
        try:
            crowd.begin()
            den.begin()
            await until(lambda: all(writer.done for writer in crowd.writers), "everybody's first word", bound_s=60.0)
            await harm(recorder)
            await den.finish(FINISHED_WITHIN_S)
            unanswered = await crowd.finish_writing(FINISHED_WITHIN_S)
            recorder.write(Quiet(t=recorder.now(), unanswered=unanswered))
            async with opening as store:
                if settles:
                    crowd.arrive()
                    await _converged(crowd, store)
                crowd.check()
                den.check()
                for room in ROOMS:
                    recorder.write(await _log(store, recorder, room))
                if settles:
                    await crowd.presence(PATIENCE_S)
                    await crowd.leave(USERS[0])
                    await crowd.presence(PATIENCE_S)
                    members, _, _ = await store.members(RoomId(DEN))
                    await den.listen(recorder, {member.user for member in members}, PATIENCE_S)
        finally:
            await den.end()
            await crowd.end()
    return History.read(path)


async def _converged(crowd: Crowd, store: Store) -> None:
    """Return when all have everything, or will not in time: the checker says what is lacking, and how late it was."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                heads = await _heads(store)
                if not crowd.lacking(heads) and heads == await _heads(store):
                    return
                await asyncio.sleep(0.1)


async def _heads(store: Store) -> dict[str, int]:
    known = [await store.room(RoomId(room)) for room in ROOMS]
    return {room.id: room.head for room in known if room is not None}


async def _log(store: Store, recorder: Recorder, room: str) -> Log:
    """All that a store has of a room."""
    contents: list[int] = []
    more = True
    while more:
        page = await store.page(RoomId(room), after=len(contents), limit=200, changes=False)
        contents += [recorder.number(msgspec.json.decode(encode(entry))) for entry in page.entries]
        more = page.has_more
    marks = {}
    for user in users():
        states = await store.rooms_of(UserId(user))
        marks[user] = next(state.read for state in states if state.room == room)
    return Log(t=recorder.now(), room=room, contents=contents, marks=marks)
