"""The clients of a node that dies, or is drained, come back to the others: nothing is lost, and the store is spared."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
import uvicorn
import uvloop
from bench.cluster import running_cluster
from bench.reconnects import Return, fill, move, rooms_of, talking
from scripts.cluster import Cluster

from hubbub.listening import Server, bind
from live import BOUND_S

CLIENTS = 600
A_SECOND = 20.0
"""How many messages are sent meanwhile."""

STATEMENTS_OF_A_MESSAGE = 10
"""More than one message costs."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three nodes, of which the first is to end."""
    with running_cluster(safe=False, settings={"drain_s": "3"}) as running:
        yield running


# A client alone costs two statements for the handshake and eight or so for a `sync` of two rooms. Those who come at
# once share nearly all of them, those whom a drain spreads over seconds some.
@pytest.mark.parametrize(("kill", "statements_each"), [(True, 1), (False, 8)], ids=["killed", "drained"])
async def test_all_clients_of_a_node_come_back_to_the_others_and_miss_nothing(
    cluster: Cluster, kill: bool, statements_each: int
):
    """Whoever was at the node is live elsewhere, has every message once and in order, and costs the store little."""
    async with talking(cluster, CLIENTS, A_SECOND) as talk:
        crowd = await fill(cluster, CLIENTS)
        try:
            went: Return = await move(cluster, crowd, talk, kill=kill, within_s=5 * BOUND_S)
            assert crowd.live == CLIENTS
            assert len(went.live_after_s) == CLIENTS
            assert (crowd.repeated, crowd.torn, crowd.resets) == (0, 0, 0)
            assert not crowd.errors
            assert set(crowd.closed) <= ({1006} if kill else {1012})
            rooms = {room for number in range(CLIENTS) for room in rooms_of(number, CLIENTS)}
            assert talk.heads.keys() == rooms
            most = statements_each * CLIENTS + STATEMENTS_OF_A_MESSAGE * went.said
            assert went.asked <= most, went.statements
        finally:
            await crowd.leave()


def test_many_are_accepted_in_one_turn_of_the_loop():
    """Thousands who come at once do not wait for as many turns before somebody looks at them."""
    turns: list[int] = []

    async def come() -> None:
        turn = 0

        class Accepted(asyncio.Protocol):
            def __init__(self, **_: object) -> None: ...

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                turns.append(turn)
                transport.close()

        (listener,) = bind("127.0.0.1", 0)
        listener.listen(64)
        server = Server(uvicorn.Config(_nothing, http=Accepted, lifespan="off", log_config=None, backlog=64))
        clients = [socket.create_connection(listener.getsockname()) for _ in range(48)]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(BOUND_S):
            while len(turns) < len(clients):
                turn += 1
                await asyncio.sleep(0)
        server.should_exit = True
        await serving
        for client in clients:
            client.close()

    uvloop.run(come())
    assert len(set(turns)) <= len(turns) // 4


async def _nothing(scope: object, receive: object, send: object) -> None:
    """An application that nobody asks."""
