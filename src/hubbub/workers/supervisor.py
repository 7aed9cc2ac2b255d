"""The parent of workers: it starts them, replaces them, ends them, and serves nobody.

It binds a socket for each worker to the one port (SO_REUSEPORT: the kernel spreads connections over them) and keeps it,
so that who connects while a worker is being replaced waits for the next instead of being refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from hubbub.config import Settings
from hubbub.listening import HTTP_SHUTDOWN_S, CannotStart, bind, close_all, reachable
from hubbub.workers.place import VARIABLE, Place

logger = logging.getLogger("hubbub")

STARTS_WITHIN_S = 60.0
"""How long a worker may take to start."""

STEADY_S = 10.0
"""A worker that lives so long has begun well: if it ends, it is started again at once."""

BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""How long it waits to be started again, after so many bad beginnings; the last one from there on."""

TRIES = 5
"""After how many bad beginnings the parent ends, where no other worker is there either."""

ENDING_S = 5.0
"""How much longer than it should a worker may take to end, before it is killed."""


def ending_s(settings: Settings) -> float:
    """The longest a node of these settings takes to end after SIGTERM, and a little more."""
    return settings.drain_s + settings.handler_timeout_s + HTTP_SHUTDOWN_S + ENDING_S


CANNOT_RUN = 126
"""The status that stands for a process that could not be made, as in shells."""


class _NotStarted(Exception):
    """A worker ended before it accepted, or did not accept in time; it has said why."""

    def __init__(self, status: int) -> None:
        super().__init__(_ended(status))
        self.status = status


class _Seat:
    """One of the places: its sockets, and the process that has them now.

    Attributes:
        number: which one, from 0.
        admin: the sockets of its admin port.
        public: its sockets on the common port; none while connections are to go to the others.
        worker: the process; None while there is none.
        changing: held while another process is put there.

    """

    def __init__(self, number: int, admin: list[socket.socket]) -> None:
        self.number = number
        self.admin = admin
        self.public: list[socket.socket] = []
        self.worker: Process | None = None
        self.changing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<worker {self.number}, {self.worker.pid if self.worker else 'none'}>"

    def vacate(self) -> None:
        """Let no further connections wait here."""
        close_all(self.public)
        self.public = []


class Supervisor:
    """The parent of workers.

    Args:
        settings: what they run; `workers` of them.
        announce: told the address once all accept.
        command: what starts one; by default what started this process.

    """

    def __init__(
        self, settings: Settings, *, announce: Callable[[str], None], command: Sequence[str] | None = None
    ) -> None:
        self._settings = settings
        self._announce = announce
        self._command = [sys.executable, *sys.orig_argv[1:]] if command is None else list(command)
        self._seats: list[_Seat] = []
        self._port = 0
        self._alive: set[Process] = set()
        self._replaced: set[Process] = set()  # those of them that were asked to end
        self._held, self._lifeline = os.pipe()
        self._ending = asyncio.Event()
        self._asked: signal.Signals | None = None  # which signal has asked for the end
        self._roll_asked = asyncio.Event()
        self._status = 0

    def __repr__(self) -> str:
        return f"<Supervisor of {len(self._alive)} workers on {self._port}>"

    async def run(self) -> int:
        """Run the workers until SIGTERM or SIGINT; a second one ends them at once. SIGHUP replaces them one by one.

        Returns the status to exit with: 0 if all ended in good order.

        Raises:
            CannotStart: a port cannot be had.

        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._roll_asked.set)
        reserved = self._take_ports()
        try:
            await self._run()
        except _NotStarted as failure:
            self._status = failure.status if failure.status > 0 else 1
        finally:
            self._vacate_all()
            close_all(reserved)
            await self._end_all()
        return self._status

    def _take_ports(self) -> list[socket.socket]:
        """Have the port, and a seat for each worker; nobody can connect yet.

        A port that is shared can be had by every process of this user: so it is asked for alone first. The sockets
        that are returned keep it while no worker has one.
        """
        settings = self._settings
        alone = bind(settings.host, settings.port)
        self._port = alone[0].getsockname()[1]
        close_all(alone)
        reserved = bind(settings.host, self._port, shared=True)
        try:
            for number in range(settings.workers):
                admin = []
                if settings.admin_port is not None:
                    admin = bind(settings.admin_host or settings.host, settings.admin_port + number)
                self._seats.append(_Seat(number, admin))
        except CannotStart:
            close_all(reserved)
            self._vacate_all()
            raise
        return reserved

    def _vacate_all(self) -> None:
        for seat in self._seats:
            seat.vacate()
            close_all(seat.admin)

    async def _run(self) -> None:
        ending = asyncio.create_task(self._ending.wait(), name="hubbub end")
        tasks = {ending, asyncio.create_task(self._start_all(), name="hubbub start")}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not self._ending.is_set():
                _raise(done)
                self._announce(f"{self._settings.http_scheme}://{reachable(self._settings.host)}:{self._port}")
                tasks = {ending, asyncio.create_task(self._roll(), name="hubbub roll")}
                tasks |= {asyncio.create_task(self._keep(each), name=f"hubbub {each!r}") for each in self._seats}
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not self._ending.is_set():
                _raise(done)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _start_all(self) -> None:
        """Start them, the first one alone: what keeps one from starting keeps all, and is said once.

        Raises:
            _NotStarted: one did not.

        """
        first, *others = self._seats
        await self._fill(first)
        await asyncio.gather(*map(self._fill, others))

    async def _fill(self, seat: _Seat) -> None:
        """Put a new worker on the seat, and return when it accepts.

        Raises:
            _NotStarted: it did not; who was there before still is.

        """
        try:
            worker, awaited = await self._begin(seat)
        except (OSError, CannotStart) as error:  # no such program just now, too many processes or open files
            logger.error("cannot start a worker: %s", error)
            raise _NotStarted(CANNOT_RUN) from error
        self._alive.add(worker)
        if not await _is_told(awaited, STARTS_WITHIN_S):
            if worker.returncode is None:
                with contextlib.suppress(TimeoutError):  # it closed the pipe, and so is about to end
                    async with asyncio.timeout(1.0):
                        await worker.wait()
            _signal(worker, signal.SIGKILL)
            status = await worker.wait()
            self._alive.discard(worker)
            raise _NotStarted(status)
        seat.worker = worker

    async def _begin(self, seat: _Seat) -> tuple[Process, int]:
        """A process that is to be a worker, and the end of the pipe on which it says that it is one."""
        if not seat.public:
            seat.public = bind(self._settings.host, self._port, shared=True)
        awaited, ready = os.pipe()
        try:
            place = Place(
                number=seat.number,
                public=[each.fileno() for each in seat.public],
                admin=[each.fileno() for each in seat.admin],
                lifeline=self._held,
                ready=ready,
            )
            worker = await asyncio.create_subprocess_exec(
                *self._command,
                env={**os.environ, VARIABLE: msgspec.json.encode(place).decode()},
                pass_fds=(*place.public, *place.admin, place.lifeline, place.ready),
                start_new_session=True,  # a terminal's Ctrl-C is the parent's alone, who passes it on once
            )
        except BaseException:
            os.close(awaited)
            raise
        finally:
            os.close(ready)
        return worker, awaited

    async def _keep(self, seat: _Seat) -> None:
        """Start a worker anew whenever the one on the seat ends by itself.

        Raises:
            _NotStarted: it does not start any more, and no other one is there.

        """
        loop = asyncio.get_running_loop()
        bad = 0
        while True:
            worker, began = seat.worker, loop.time()
            if worker is not None:
                status = await worker.wait()
                self._alive.discard(worker)
                if loop.time() - began >= STEADY_S:
                    bad = 0
                if self._ending.is_set():
                    return
            async with seat.changing:
                if seat.worker is not worker:
                    continue  # it was replaced
                if worker is not None:
                    logger.error("worker %d ended by itself, %s; it is started again", seat.number, _ended(status))
                seat.worker = None
                delay_s = BACK_OFF_S[min(bad, len(BACK_OFF_S) - 1)]
                bad += 1
                if delay_s:
                    seat.vacate()
                    await asyncio.sleep(delay_s)
                try:
                    await self._fill(seat)
                except _NotStarted as failure:
                    logger.error("worker %d does not start, %s", seat.number, failure)
                    if bad >= TRIES and not any(each.worker for each in self._seats):
                        raise

    async def _roll(self) -> None:
        """Replace all workers one by one whenever that is asked: the old one drains when the new one accepts."""
        while True:
            await self._roll_asked.wait()
            self._roll_asked.clear()
            logger.info("SIGHUP: replacing %d workers, one by one", len(self._seats))
            for seat in self._seats:
                if not await self._replace(seat):
                    break

    async def _replace(self, seat: _Seat) -> bool:
        """Replace the worker on the seat; False if that cannot be, and it stays."""
        async with seat.changing:
            old = seat.worker
            try:
                await self._fill(seat)
            except _NotStarted as failure:
                logger.error("worker %d cannot be replaced, the new one %s; all others stay", seat.number, failure)
                return False
        if old is not None:
            await self._end_one(old)
        return True

    async def _end_one(self, worker: Process) -> None:
        self._replaced.add(worker)
        _signal(worker, signal.SIGTERM)
        try:
            async with asyncio.timeout(ending_s(self._settings)):
                await worker.wait()
        except TimeoutError:
            logger.error("a worker that was replaced does not end; it is killed")
            _signal(worker, signal.SIGKILL)
            await worker.wait()
        self._alive.discard(worker)
        self._replaced.discard(worker)

    def _end(self, number: signal.Signals) -> None:
        """A signal that asks for the end has come."""
        if self._asked is not None:
            logger.warning("%s again: ending at once", number.name)
            for worker in self._alive:
                _signal(worker, signal.SIGKILL)
            logging.shutdown()
            os._exit(128 + number)
        self._asked = number
        self._vacate_all()  # who connects is refused as soon as the workers accept no more
        for worker in self._alive - self._replaced:  # a second signal would end these at once
            _signal(worker, number)
        self._ending.set()

    async def _end_all(self) -> None:
        """Wait until no worker is left; those that nobody has asked to end are asked now."""
        if self._asked is None:
            for worker in self._alive - self._replaced:
                _signal(worker, signal.SIGTERM)
        left = {asyncio.create_task(worker.wait(), name="hubbub ending") for worker in self._alive}
        if not left:
            return
        _, late = await asyncio.wait(left, timeout=ending_s(self._settings))
        if late:
            logger.error("%d workers do not end; they are killed", len(late))
            for worker in self._alive:
                _signal(worker, signal.SIGKILL)
            await asyncio.wait(late)
        bad = [task.result() for task in left if task.result() not in (0, -(self._asked or 0))]
        for status in bad:
            logger.error("a worker ended badly, %s", _ended(status))
        if bad and not self._status:
            self._status = bad[0] if bad[0] > 0 else 128 - bad[0]


async def _is_told(awaited: int, within_s: float) -> bool:
    """Whether something comes out of a pipe in time, before it ends; it is closed then."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(awaited, readable.set)
    try:
        async with asyncio.timeout(within_s):
            await readable.wait()
        return bool(os.read(awaited, 1))
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(awaited)
        os.close(awaited)


def _raise(done: set[asyncio.Task[Any]]) -> None:
    for task in done:
        task.result()


def _signal(worker: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.send_signal(number)


def _ended(status: int) -> str:
    """How a process ended, in words."""
    return f"status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
