"""The parent of workers: it starts, restarts, replaces and ends them; here they are scripts that misbehave as told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clusterlab import free_ports
from hubbub.config import Settings
from hubbub.listening import CannotStart, bind
from hubbub.workers import Supervisor
from live import BOUND_S, until

WORKERS = 3
WORKER = Path(__file__).with_name("scripted_worker.py")

PARENT = """
import asyncio, sys
from hubbub.workers import supervisor as workers
from hubbub.config import Settings
from hubbub.telemetry import configure_logging

workers.STARTS_WITHIN_S, workers.ENDING_S = 3, int(sys.argv[2])
workers.HTTP_SHUTDOWN_S, workers.BACK_OFF_S = 0, (0, 0.05)
configure_logging("info", "text")
settings = Settings(port=0, workers=int(sys.argv[1]), drain_s=0, handler_timeout_s=0.1)
supervisor = workers.Supervisor(settings, announce=lambda url: print(url, flush=True), command=sys.argv[3:])
sys.exit(asyncio.run(supervisor.run()))
"""


class Parent:
    """A supervisor in a process of its own.

    Attributes:
        port: where the workers answer; set when all do.
        ending_s: how long it waits for the end of its workers.

    """

    port: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = [sys.executable, str(WORKER), str(folder)]
        self.ending_s = 2
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def said(self) -> str:
        """Standard error, the workers' too."""
        return (self.folder / "stderr").read_text()

    @property
    def workers(self) -> list[int]:
        """The processes that there are, by their ids."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [each.pid for each in psutil.Process(self.pid).children() if each.status() != psutil.STATUS_ZOMBIE]
        return []

    def events(self, what: str) -> list[tuple[int, int]]:
        """What happened to whom: number and process id of the workers, in order."""
        file = self.folder / "events"
        lines = [line.split(" ", 2) for line in file.read_text().splitlines()] if file.exists() else []
        return [(int(number), int(pid)) for number, pid, said in lines if said == what]

    def misbehave(self, number: int, mode: str) -> None:
        """Let a worker that is started from now on misbehave; `""` lets it behave."""
        (self.folder / f"mode-{number}").write_text(mode)

    def launch(self) -> None:
        with (self.folder / "stdout").open("wb") as stdout, (self.folder / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PARENT, str(WORKERS), str(self.ending_s), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    async def start(self) -> None:
        """Start it, and return when it has announced its address."""
        self.launch()
        file = self.folder / "stdout"
        await until(lambda: file.read_text().endswith("\n") or self.has_ended, "an announcement")
        self.port = int(file.read_text().strip().rpartition(":")[2])

    @property
    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def tell(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def ended(self) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None, "not started"
        return await asyncio.to_thread(self._process.wait, BOUND_S)

    async def who(self) -> int:
        """Connect, and be told which process answers."""
        loop = asyncio.get_running_loop()
        with socket.socket() as connection:
            connection.setblocking(False)
            async with asyncio.timeout(BOUND_S):
                await loop.sock_connect(connection, ("127.0.0.1", self.port))
                return int(await loop.sock_recv(connection, 100))

    async def all_answer(self) -> set[int]:
        """Connect until every worker has answered; returns them. What a dying one takes with it does not count."""
        seen: set[int] = set()
        async with asyncio.timeout(BOUND_S):
            while len(seen) < WORKERS:
                with contextlib.suppress(ConnectionResetError):
                    seen.add(await self.who())
        return seen

    def close(self) -> None:
        """Leave nothing of it."""
        left = psutil.Process(self.pid).children() if not self.has_ended and self._process else []
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    """A supervisor that is not yet started."""
    made = Parent(tmp_path)
    yield made
    made.close()


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waits for stays a zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


async def test_all_workers_answer_on_one_port(parent: Parent):
    """The address is announced once, when every worker accepts; the kernel spreads connections over them."""
    await parent.start()
    assert sorted(number for number, _ in parent.events("ready")) == [0, 1, 2]
    assert await parent.all_answer() == set(parent.workers)
    assert (parent.folder / "stdout").read_text() == f"http://127.0.0.1:{parent.port}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_passed_on_once_and_the_end_waited_for(parent: Parent, number: signal.Signals):
    """Every worker gets the one that came; the status is 0 when all ended in good order, and nobody listens then."""
    await parent.start()
    parent.tell(number)
    assert await parent.ended() == 0
    assert sorted(each for each, _ in parent.events(number.name)) == [0, 1, 2]
    with pytest.raises(ConnectionRefusedError):
        await parent.who()


async def test_a_worker_that_ends_badly_shows_in_the_status(parent: Parent):
    """The first status that is not 0 is the parent's own."""
    parent.misbehave(1, "ends badly")
    await parent.start()
    parent.tell(signal.SIGTERM)
    assert await parent.ended() == 5


async def test_a_second_signal_ends_all_at_once(parent: Parent):
    """Also workers that do not end; the status says which signal it was, as that of a single process does."""
    parent.ending_s = 60
    for number in range(WORKERS):
        parent.misbehave(number, "does not end")
    await parent.start()
    workers = parent.workers
    parent.tell(signal.SIGTERM)
    await until(lambda: len(parent.events("SIGTERM")) == WORKERS, "the first signal everywhere")
    parent.tell(signal.SIGTERM)
    assert await parent.ended() == 128 + signal.SIGTERM
    await until(lambda: all(map(is_gone, workers)), "the end of all workers")


async def test_a_worker_that_does_not_end_is_killed(parent: Parent):
    """After as long as an orderly end may take; that is said, and shows in the status."""
    parent.misbehave(2, "does not end")
    await parent.start()
    parent.tell(signal.SIGTERM)
    assert await parent.ended() == 128 + signal.SIGKILL
    assert "1 workers do not end; they are killed" in parent.said


async def test_a_parent_that_is_killed_leaves_no_workers(parent: Parent):
    """They end as by SIGTERM, as nobody is there any more to end them."""
    await parent.start()
    workers = parent.workers
    parent.tell(signal.SIGKILL)
    await parent.ended()
    await until(lambda: all(map(is_gone, workers)), "the end of all workers")
    assert len(parent.events("SIGTERM")) == WORKERS


async def test_a_worker_that_is_killed_is_started_again(parent: Parent):
    """On its place, while the others go on; who connects meanwhile is not refused."""
    await parent.start()
    before = parent.workers
    os.kill(before[0], signal.SIGKILL)
    await until(lambda: len(parent.events("ready")) == WORKERS + 1, "another worker", bound_s=BOUND_S)
    assert len(await parent.all_answer() - set(before)) == 1
    assert f"worker {parent.events('ready')[-1][0]} ended by itself, killed by SIGKILL" in parent.said


async def test_a_worker_that_cannot_start_is_what_all_ends_with(parent: Parent):
    """It is tried alone first, so its reason is there once; its status is the parent's."""
    for number in range(WORKERS):
        parent.misbehave(number, "does not start")
    parent.launch()
    assert await parent.ended() == 3
    assert parent.said == "worker 0 has a reason\n"
    assert (parent.folder / "stdout").read_text() == ""


async def test_one_that_cannot_start_beside_others_ends_these_too(parent: Parent):
    """Nothing is announced, and nothing is left."""
    parent.misbehave(2, "does not start")
    parent.launch()
    assert await parent.ended() == 3
    assert (parent.folder / "stdout").read_text() == ""
    assert all(is_gone(pid) for _, pid in parent.events("ready"))


async def test_a_worker_that_starts_for_ever_is_not_waited_for(parent: Parent):
    """It is killed after a bound, as one that cannot start."""
    parent.misbehave(0, "starts for ever")
    parent.launch()
    assert await parent.ended() == 1
    assert all(is_gone(pid) for _, pid in parent.events("starting"))


async def test_the_end_may_be_asked_for_while_a_worker_starts(parent: Parent):
    """Nothing is announced, and nothing is left."""
    parent.misbehave(0, "starts for ever")
    parent.launch()
    await until(lambda: bool(parent.events("starting")), "a worker that starts")
    parent.tell(signal.SIGTERM)
    assert await parent.ended() == 0
    assert all(is_gone(pid) for _, pid in parent.events("starting"))


async def test_a_worker_that_dies_again_and_again_is_tried_while_others_are_there(parent: Parent):
    """They take the connections meanwhile; when what ailed it is gone it is there again."""
    await parent.start()
    first = parent.workers
    parent.misbehave(1, "dies when ready")
    (victim,) = [pid for number, pid in parent.events("ready") if number == 1]
    os.kill(victim, signal.SIGKILL)
    await until(lambda: len(parent.events("ready")) >= WORKERS + 4, "several beginnings")
    parent.misbehave(1, "does not start")
    await until(lambda: "worker 1 does not start, status 3" in parent.said, "a beginning that fails")
    assert await parent.who() in first
    parent.misbehave(1, "")
    assert len(await parent.all_answer()) == WORKERS


async def test_workers_none_of_which_start_any_more_are_given_up(parent: Parent):
    """After a few tries the parent ends, so that whoever runs it hears of it."""
    await parent.start()
    for number in range(WORKERS):
        parent.misbehave(number, "does not start")
    for pid in parent.workers:
        os.kill(pid, signal.SIGKILL)
    assert await parent.ended() == 3


async def test_sighup_replaces_the_workers_and_refuses_nobody(parent: Parent):
    """One by one, each new one before the old one goes; every connection that is made meanwhile is answered."""
    await parent.start()
    before = set(parent.workers)
    answered: set[int] = set()

    async def keep_asking() -> None:
        while True:
            answered.add(await parent.who())

    asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
    parent.tell(signal.SIGHUP)
    await until(lambda: len(parent.events("SIGTERM")) == WORKERS, "the end of the old ones")
    await until(lambda: all(map(is_gone, before)), "the end of the old ones")
    assert not any(task.done() for task in asking)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert not await parent.all_answer() & before
    assert [number for number, _ in parent.events("SIGTERM")] == [0, 1, 2]


async def test_a_replacement_that_does_not_start_leaves_the_old_workers(parent: Parent):
    """The one that is there stays, and so do all after it."""
    await parent.start()
    before = set(parent.workers)
    parent.misbehave(0, "does not start")
    parent.tell(signal.SIGHUP)
    await until(lambda: "worker 0 cannot be replaced" in parent.said, "the failure")
    assert await parent.all_answer() == before


async def test_workers_outlive_what_they_are_started_by(parent: Parent):
    """While a program is being replaced it cannot be run: who is there stays, and who ends is started when it can."""
    program = parent.folder / "program"
    program.write_text(f"#!/bin/sh\nexec {' '.join(parent.command)}\n", encoding="utf-8")
    program.chmod(0o755)
    parent.command = [str(program)]
    await parent.start()
    before = set(parent.workers)
    program.rename(parent.folder / "elsewhere")
    parent.tell(signal.SIGHUP)
    await until(lambda: "worker 0 cannot be replaced" in parent.said, "the failure")
    assert await parent.all_answer() == before
    os.kill(min(before), signal.SIGKILL)
    await until(lambda: "does not start" in parent.said, "a beginning that fails")
    assert await parent.who() in before
    (parent.folder / "elsewhere").rename(program)
    assert len(await parent.all_answer() & before) == WORKERS - 1


async def test_a_port_that_others_share_is_taken():
    """Also one that can be shared: a second Hubbub would get half of the first one's connections."""
    taken = bind("127.0.0.1", 0, shared=True)
    taken[0].listen()
    settings = Settings(port=taken[0].getsockname()[1], workers=2)
    with taken[0], pytest.raises(CannotStart, match="is in use"):
        await Supervisor(settings, announce=print, command=["false"]).run()


async def test_an_admin_port_that_is_taken_is_named():
    """Each worker has its own: the first that cannot be had is named before anything starts."""
    admin = free_ports(2)
    settings = Settings(port=0, workers=2, admin_port=admin)
    with (
        socket.create_server(("127.0.0.1", admin + 1)),
        pytest.raises(CannotStart, match=f"The port {admin + 1} on 127.0.0.1 is in use"),
    ):
        await Supervisor(settings, announce=print, command=["false"]).run()
