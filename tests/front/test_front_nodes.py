"""Nodes that go, die or have too much to do, behind the proxies of deploy/: clients are told, and taken elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from frontlab import FILES, Front, fronted
from hubbub.app import Node
from live import ServerProcess, Wire, until


def counts(nodes: list[Node]) -> list[int]:
    """How many connections each has."""
    return [len(node.hub) for node in nodes]


@pytest.mark.parametrize("kind", FILES)
async def test_connections_are_spread_without_stickiness(kind: str, tmp_path: Path) -> None:
    """Clients of one address come to all nodes."""
    async with fronted(kind, tmp_path, {}, {}, {}) as (front, nodes):
        wires = [await front.open(f"user-{n}") for n in range(9)]
        assert sum(counts(nodes)) == 9
        assert min(counts(nodes)) >= 1
        for wire in wires:
            await wire.socket.close()


@pytest.mark.parametrize("kind", FILES)
async def test_a_node_that_drains_says_so_and_others_take_over(kind: str, tmp_path: Path) -> None:
    """Its connections end with 1012, those of the other stay, and every new handshake is answered by the other."""
    async with fronted(kind, tmp_path, {}, {}) as (front, (going, staying)):
        wires = [await front.open(f"user-{n}") for n in range(6)]
        there, here = len(going.hub), len(staying.hub)
        assert there
        assert here
        await going.drain(0.3)
        again = [await front.open(f"user-{n}") for n in range(6)]
        assert len(staying.hub) == here + 6
        ended = [wire for wire in wires if not await answers(wire)]
        assert [await wire.closed() for wire in ended] == [1012] * there
        for wire in {*wires, *again} - {*ended}:
            await wire.ok("ping")
            await wire.socket.close()


@pytest.mark.parametrize("kind", FILES)
async def test_a_node_that_is_killed_cuts_its_own_only(kind: str, tmp_path: Path) -> None:
    """Its connections end without a close code, as those of a dead node do; new handshakes go to the other one."""
    folder = tmp_path / "mortal"
    folder.mkdir()
    mortal = ServerProcess(folder)
    await mortal.start()
    try:
        async with fronted(kind, tmp_path, {}) as (other, (node,)):
            front = Front(kind, [mortal.port, node.port], tmp_path / "both")
            await asyncio.to_thread(front.start)
            try:
                wires = [await front.open(f"user-{n}") for n in range(6)]
                here = len(node.hub)
                assert 0 < here < 6
                mortal.signal(signal.SIGKILL)
                await mortal.ended()
                again = [await front.open(f"user-{n}") for n in range(6)]
                assert len(node.hub) == here + 6
                cut = [wire for wire in wires if not await answers(wire)]
                assert len(cut) == 6 - here
                assert [await wire.closed() for wire in cut] == [1006] * len(cut)
                for wire in {*wires, *again} - {*cut}:
                    await wire.socket.close()
            finally:
                await asyncio.to_thread(front.stop)
            assert other.is_running
    finally:
        await mortal.stop()


async def test_a_reload_of_nginx_keeps_what_is_connected(tmp_path: Path) -> None:
    """Connections stay with the old workers, newcomers come to the new ones."""
    async with fronted("nginx", tmp_path, {}) as (front, (node,)), await front.open("ann") as ann:
        workers = children(front.pid)
        os.kill(front.pid, signal.SIGHUP)
        await until(lambda: bool(children(front.pid) - workers), "new workers")
        async with await front.open("bob") as bob:
            await bob.ok("ping")
            await ann.ok("ping")
            assert len(node.hub) == 2


def children(pid: int) -> set[int]:
    """The processes that a process has started."""
    return {child.pid for child in psutil.Process(pid).children()}


async def answers(wire: Wire) -> bool:
    """Whether a connection still does."""
    try:
        await wire.ok("ping")
    except ConnectionClosed:
        return False
    return True


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_a_handshake_that_one_node_has_no_room_for_comes_to_another(kind: str, tmp_path: Path) -> None:
    """Full nodes answer 503, which no client sees while there is room elsewhere, and no node counts as dead for it."""
    most = [1, 2] if kind == "nginx" else [1]  # HAProxy asks one node more, and not all of them
    async with fronted(kind, tmp_path, *[{"max_connections": count} for count in most], {}) as (front, nodes):
        wires = [await front.open(f"user-{n}") for n in range(12)]
        assert counts(nodes) == [*most, 12 - sum(most)]
        assert sum(node.hub.stats.refused[503] for node in nodes) > 0, "no node was asked that was full"
        for wire in wires:
            await wire.socket.close()
        await until(lambda: not sum(counts(nodes)), "everybody is gone")
        wires = [await front.open(f"user-{n}") for n in range(3)]
        assert counts(nodes)[-1] < 3, "a node that was full is left alone for ever"
        for wire in wires:
            await wire.socket.close()


@pytest.mark.parametrize("kind", FILES)
async def test_where_no_node_has_room_the_client_hears_when_to_come_again(kind: str, tmp_path: Path) -> None:
    """The 503 of the node comes through with its Retry-After."""
    async with fronted(kind, tmp_path, {"max_connections": 1}, {"max_connections": 1}) as (front, nodes):
        wires = [await front.open("ann")]
        while sum(counts(nodes)) < 2:
            try:
                wires.append(await front.open("bob"))
            except InvalidStatus as full:
                assert (kind, full.response.status_code) == ("caddy", 503)  # it does not ask another node
        with pytest.raises(InvalidStatus) as refused:
            await front.open("cleo")
        assert refused.value.response.status_code == 503
        assert 2 <= int(refused.value.response.headers["retry-after"]) <= 6
        for wire in wires:
            await wire.socket.close()
