"""`hubbub serve --workers`: nodes on one port of one machine, with real PostgreSQL and NATS."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from scripts.servers import Nats

from clusterlab import Shared, Workers
from hubbub.client import connect
from hubbub.model import Entry, MessageCreated
from live import BOUND_S, Wire, token, until
from tlslab import Issuer

CROWD = 24
"""So many connections that it would be a wonder if they all came to one of two workers."""


async def connections(workers: Workers) -> list[int]:
    """How many connections each worker has, as its metrics tell."""
    found = []
    async with httpx.AsyncClient(timeout=BOUND_S, trust_env=False) as http:
        for number in range(workers.count):
            answer = await http.get(f"http://127.0.0.1:{workers.admin_port + number}/metrics")
            match = re.search(r"^hubbub_connections (\d+)", answer.text, re.MULTILINE)
            assert match is not None, answer.text
            found.append(int(match[1]))
    return found


async def crowd(workers: Workers, room: str) -> list[Wire]:
    """Many users' connections, all listening to one room that their tokens grant."""
    wires = [
        await Wire.open(workers.ws_url, token(f"user-{number}", rooms={room: "member"}), open_timeout=BOUND_S)
        for number in range(CROWD)
    ]
    for wire in wires:
        await wire.ok("sync")
    return wires


async def texts(wire: Wire, count: int) -> list[str]:
    """The texts of the first messages that come or came, in order of seq."""

    def heard() -> list[dict[str, Any]]:
        return [frame for frame in wire.frames if frame["type"] == "message.created"]

    while len(heard()) < count:
        wire.frames.append(await wire.receive())
    assert [frame["seq"] for frame in heard()] == sorted(frame["seq"] for frame in heard())
    return [frame["text"] for frame in heard()]


async def test_who_is_on_different_workers_talks_to_one_another(workers: Workers):
    """The kernel spreads connections over the workers; what is said on one is heard on all, in one order."""
    wires = await crowd(workers, "talk")
    spread = await connections(workers)
    assert sum(spread) == CROWD
    assert min(spread) > 0
    for number, wire in enumerate(wires[:6]):
        await wire.ok("send", room="talk", text=str(number))
    for wire in wires:
        assert await texts(wire, 6) == [str(number) for number in range(6)]
        await wire.socket.close()


async def test_the_address_is_said_once_and_lines_of_the_log_say_whose_they_are(workers: Workers):
    """One address for all of them; each line of a worker has its number."""
    assert workers.said.count("is running: ") == workers.starts
    assert f"is running: {workers.url}\n" in workers.said
    assert all(workers.lines_of(number) for number in range(workers.count))


async def test_a_worker_that_is_killed_takes_nothing_with_it(workers: Workers):
    """Its clients are cut and come back to whoever is there; nothing that was acknowledged is lost, or there twice."""
    heard: list[Entry] = []
    room = {"killed": "member"}
    before = workers.said.count("ended by itself, killed by SIGKILL")

    async def listen(chat: Any) -> None:
        async for each in chat.room("killed", after=0):
            heard.append(each)  # noqa: PERF401  the test looks at the list meanwhile

    quick: dict[str, Any] = {"backoff_base_s": 0.02, "backoff_cap_s": 0.2}
    async with (
        connect(workers.ws_url, token=token("ann", rooms=room), **quick) as ann,
        connect(workers.ws_url, token=token("bob", rooms=room), **quick) as bob,
    ):
        listening = asyncio.create_task(listen(bob))
        sent: list[str] = []
        for round_number in range(3):
            os.kill(workers.pids[round_number % workers.count], signal.SIGKILL)
            for number in range(10):
                sent.append(f"{round_number}-{number}")
                await ann.send("killed", sent[-1])
            await until(lambda: len(workers.pids) == workers.count, "another worker")

        def said() -> list[str | None]:
            return [entry.text for entry in heard if isinstance(entry, MessageCreated)]

        await until(lambda: len(said()) >= len(sent), "all that was sent")
        assert said() == sent
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert workers.said.count("ended by itself, killed by SIGKILL") == before + 3


async def test_workers_are_replaced_without_a_pause(workers: Workers):
    """At SIGHUP new workers take the places of the old, one by one; who sends meanwhile reconnects at most."""
    before = workers.pids
    async with connect(workers.ws_url, token=token("ann", rooms={"replaced": "member"}), backoff_base_s=0.02) as ann:
        os.kill(workers.pid, signal.SIGHUP)
        number = 0
        async with asyncio.timeout(4 * BOUND_S):
            while set(workers.pids) & set(before) or len(workers.pids) < workers.count:
                await ann.send("replaced", str(number))
                number += 1
        page = await ann.history("replaced", limit=200)
        assert [entry.seq for entry in page.entries] == list(range(page.entries[0].seq, page.head + 1))
        assert page.entries[-1].text == str(number - 1)  # type: ignore[union-attr]


async def test_workers_drain_together(workers: Workers):
    """At SIGTERM every connection is told and closed with a code after which it comes back; the status is 0."""
    wires = await crowd(workers, "hall")
    pids = workers.pids
    workers.end()
    codes = Counter([await wire.closed() for wire in wires])
    assert codes.keys() <= {1001, 1012}
    assert all(any(frame["type"] == "notice" for frame in wire.frames) for wire in wires)
    assert await workers.ended() == 0, workers.said[-5_000:]
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_nothing_is_left_of_workers_whose_parent_was_killed(workers: Workers):
    """They drain and end by themselves; the port is free again."""
    wires = await crowd(workers, "hall")
    pids = workers.pids
    os.kill(workers.pid, signal.SIGKILL)
    codes = Counter([await wire.closed() for wire in wires])
    assert codes.keys() <= {1001, 1012}
    await until(lambda: not any(map(_is_running, pids)), "the end of all workers")
    with pytest.raises(OSError, match=r"refused|failed"):
        await Wire.open(workers.ws_url, token("late"))


async def test_what_keeps_workers_from_starting_is_said_once(servers: Shared, tmp_path: Path):
    """Such as a database that is not there; the status is that of one process."""
    settings = servers.settings()
    missing = f"{settings['store']}x"
    workers = Workers(3, {**settings, "store": missing}, folder=tmp_path)
    workers.begin()
    assert await workers.ended() == 1
    assert workers.said.count("hubbub: ") == 1
    assert "create the database first" in workers.said


async def test_metrics_say_how_nats_fares_and_readiness_when_it_is_away(servers: Shared, tmp_path: Path):
    """A node cut from NATS serves its clients, and says that what others say comes late."""
    with Nats() as nats:
        workers = Workers(2, {**servers.settings(), "fanout": nats.url}, folder=tmp_path)
        await workers.begin_all()
        try:
            admin = f"http://127.0.0.1:{workers.admin_port}"
            async with httpx.AsyncClient(base_url=admin, timeout=BOUND_S, trust_env=False) as http:
                assert (await http.get("/readyz")).json() == {"status": "ok"}

                async def shown(line: str) -> None:
                    async with asyncio.timeout(BOUND_S):
                        while line not in (await http.get("/metrics")).text.splitlines():
                            await asyncio.sleep(0.05)

                await shown("hubbub_nats_connected 1.0")
                await shown("hubbub_nats_nodes 1.0")
                nats.kill()
                await shown("hubbub_nats_connected 0.0")
                ready = await http.get("/readyz")
                assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
                async with await Wire.open(workers.ws_url, token("ann", rooms={"hall": "member"})) as wire:
                    await wire.ok("sync")
                    await wire.ok("send", room="hall", text="still here")
        finally:
            workers.stop()


async def test_workers_speak_tls_and_take_a_renewed_certificate_at_sighup(servers: Shared, tmp_path: Path):
    """All of them, on the common port; those that take the places of the old ones read the files anew."""
    issuer = Issuer(tmp_path)
    first = issuer.write()
    tls = {"tls_cert": str(issuer.cert), "tls_key": str(issuer.key)}
    workers = Workers(2, {**servers.settings(), **tls}, folder=tmp_path)
    await workers.begin_all()

    async def shown() -> str:
        _, writer = await asyncio.open_connection("127.0.0.1", workers.port, ssl=issuer.client_context())
        number = writer.get_extra_info("peercert")["serialNumber"]
        writer.transport.abort()
        return str(number).lstrip("0")

    try:
        assert f"is running: https://127.0.0.1:{workers.port}\n" in workers.said
        assert {await shown() for _ in range(8)} == {first}
        url = f"wss://127.0.0.1:{workers.port}/ws"
        bearer = token("ann", rooms={"hall": "member"})
        async with await Wire.open(url, bearer, ssl=issuer.client_context()) as wire:
            await wire.ok("sync")
            await wire.ok("send", room="hall", text="over TLS")
        fresh, before = issuer.write(), workers.pids
        os.kill(workers.pid, signal.SIGHUP)
        await until(
            lambda: len(workers.pids) == workers.count and not set(workers.pids) & set(before),
            "new workers",
            bound_s=3 * BOUND_S,
        )
        # An old one listens beside the new one in its place until it is told to end.
        await until(lambda: not any(map(_is_running, before)), "no old workers", bound_s=3 * BOUND_S)
        assert {await shown() for _ in range(8)} == {fresh}
    finally:
        workers.stop()


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
