"""One execution environment: a process that runs a function, and one invocation at a time in it.

It comes up, waits, runs an invocation, is on its way back until it asks for the next one, and waits again. Whatever
goes wrong ends it: a time-out, a crash, too much memory; the invocation gets an error, and the next one another
environment. Source: docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from hubbub.emulator.definition import Function
from hubbub.emulator.functions.logs import Log, OnLine, Pipe
from hubbub.emulator.functions.outcome import MIB, Failure, Invocation, Report, begin_in_log, conclude
from hubbub.emulator.functions.processes import Process, Warden, proportional_bytes, resident_bytes
from hubbub.emulator.functions.runtime_api import Answer, Delivery, RuntimeApi
from hubbub.emulator.functions.runtimes import Plan
from hubbub.entropy import random_bytes


class Owner(Protocol):
    """Whom an environment tells what becomes of it; none of these may raise."""

    def came_up(self, environment: Environment) -> None:
        """It can run invocations."""

    def idle(self, environment: Environment) -> None:
        """It waits for an invocation."""

    def returning(self, environment: Environment) -> None:
        """It has answered, and will ask for the next invocation."""

    def finished(self, environment: Environment, report: Report) -> None:
        """The invocation in it has ended."""

    def init_failed(self, environment: Environment, failure: Failure) -> None:
        """It did not come up; the invocation that waits for it ends with this."""

    def init_too_slow(self, environment: Environment, invocation: Invocation) -> None:
        """It did not come up in time, and has ended; the invocation needs another that comes up within its time-out."""

    def gone(self, environment: Environment, invocation: Invocation | None) -> None:
        """It has ended; an invocation that had not begun in it must run elsewhere."""


class Phase(Enum):
    """What an environment does: RETURNING is after the answer to one invocation, before the request for the next."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    RETURNING = "returning"
    ENDED = "ended"


class Environment:
    """One execution environment.

    Args:
        function: what it runs.
        plan: how.
        mark: what its processes are marked with.
        owner, warden, on_line: who is told what becomes of it, of its process, of its log.
        on_end: told once nothing is left of it.
        init_s: how long it may take to come up; None where that is part of the invocation that it is started for.
        quiet: whether what is logged until it is up is held back, for its owner to give out or forget.

    Attributes:
        function: what it runs.
        phase: what it does.
        since: when that began; monotonic seconds.
        log: its log.

    """

    def __init__(
        self,
        function: Function,
        plan: Plan,
        *,
        mark: str,
        owner: Owner,
        warden: Warden,
        on_line: OnLine,
        on_end: Callable[[Environment], None],
        init_s: float | None,
        quiet: bool = False,
    ) -> None:
        self.function = function
        self.phase = Phase.STARTING
        self.log = Log(function.name, on_line)
        self._plan = plan
        self._mark = mark
        self._owner = owner
        self._warden = warden
        self._on_end = on_end
        self._init_s = init_s
        self._loop = asyncio.get_running_loop()
        self.since = time.monotonic()
        self._api = RuntimeApi(self)
        self._pipes: list[Pipe] = []
        self._process: Process | None = None  # None until it runs
        self._invocation: Invocation | None = None  # waits for it, or runs in it
        self._began = self.since  # when the invocation did, and its time-out with it
        self._has_begun = False  # whether the invocation is in the log
        self._init_ms: float | None = None  # how long it took to come up, until an invocation has told that
        self._peak_bytes = 0  # the most that its processes had resident
        self._timer: asyncio.TimerHandle | None = None  # ends what takes too long
        self._life: asyncio.Task[None] | None = None
        if quiet:
            self.log.hold()

    def __repr__(self) -> str:
        return f"<Environment {self._mark} of {self.function.name}, {self.phase.value}>"

    @property
    def pid(self) -> int | None:
        """Its process' id; None until it runs."""
        return self._process.pid if self._process is not None else None

    def start(self, invocation: Invocation) -> None:
        """Come up for an invocation."""
        self._invocation = invocation
        self._life = asyncio.create_task(self._live(), name=repr(self))
        self._life.add_done_callback(lambda life: self._on_end(self))
        if self._init_s is None:
            self._open(invocation)
        else:
            self._timer = self._loop.call_later(self._init_s, self._init_too_slow, invocation)

    def take(self, invocation: Invocation) -> None:
        """Run an invocation: at once if idle; if returning, as soon as the process asks for it."""
        self._invocation = invocation
        if self.phase is Phase.IDLE:
            self._begin(invocation)

    def give_back(self) -> Invocation | None:
        """The invocation that it took and that the process has not asked for yet; it is to run elsewhere."""
        if self.phase is not Phase.RETURNING:
            return None
        invocation, self._invocation = self._invocation, None
        return invocation

    def forgo(self) -> Invocation | None:
        """The invocation that it was to come up for and that has not begun; it is to run elsewhere."""
        if self.phase is not Phase.STARTING or self._has_begun:
            return None
        invocation, self._invocation = self._invocation, None
        return invocation

    def waits_with(self, invocation: Invocation) -> bool:
        """Whether it took the invocation, and the process has not asked for it yet."""
        return self._invocation is invocation and self.phase is Phase.RETURNING

    def end(self) -> None:
        """End the process at once; an invocation in it fails."""
        if self.phase is Phase.ENDED:
            return
        not_begun = self.give_back()
        if self._invocation is not None:
            self._fail(KILLED)
        self._cancel_timer()
        self._enter(Phase.ENDED)
        if self._process is not None:
            self._process.kill()
        self._api.close()
        self._owner.gone(self, not_begun)

    async def ended(self) -> None:
        """Wait until nothing is left of it."""
        if self._life is not None:
            await asyncio.shield(self._life)

    def check_memory(self, pids: list[int]) -> None:
        """Look at what its processes have in memory, and end it if that is more than the function may have."""
        if self._process is None or self.phase is Phase.ENDED:
            return
        family = {self._process.pid, *pids}
        resident = sum(map(resident_bytes, family))
        limit = self.function.memory_mb * MIB
        if resident > limit and len(family) > 1:
            resident = proportional_bytes(family)
        self._peak_bytes = max(self._peak_bytes, resident)
        if resident > limit:
            self._end_for(
                Failure(error_type="Runtime.OutOfMemory", message="Runtime exited with error: signal: killed")
            )

    # What the process asks and answers.

    def asked(self) -> None:
        """The process is ready for an invocation."""
        if self.phase is Phase.STARTING:
            self._came_up()
        elif self.phase is Phase.RETURNING:
            self._cancel_timer()
        else:
            return
        self._enter(Phase.IDLE)
        if self._invocation is not None:
            self._begin(self._invocation)
        else:
            self._owner.idle(self)

    def answered(self, answer: Answer) -> None:
        """The invocation has ended; its timer stays, for the way back is part of what it times."""
        invocation = self._invocation
        if self.phase is not Phase.BUSY or invocation is None:
            return
        self._enter(Phase.RETURNING)
        if answer.error_type is None:
            self._conclude(invocation, answer.payload)
        else:
            self._conclude(invocation, Failure(error_type=answer.error_type, payload=answer.payload))
        self._owner.returning(self)

    def init_failed(self, answer: Answer) -> None:
        """The process cannot come up, and says why."""
        if self.phase is Phase.STARTING:
            self._fail_init(Failure(error_type=answer.error_type or "Unhandled", payload=answer.payload))

    # Its life.

    async def _live(self) -> None:
        """Start the process, wait for its end, and leave nothing behind."""
        try:
            await self._api.open()
            self._pipes = [Pipe(self.log, "stdout"), Pipe(self.log, "stderr")]
            if self.phase is not Phase.ENDED:
                await self._run()
        except OSError as error:
            words = f"fork/exec {self._plan.command[0]}: {error.strerror or error}"
            self._fail_init(Failure(error_type="Runtime.InvalidEntrypoint", message=words))
        finally:
            self.end()
            for pipe in self._pipes:
                pipe.close()
            self._api.close()

    async def _run(self) -> None:
        stdout, stderr = self._pipes
        process = self._process = await Process.start(
            self._plan.command,
            environment=self._variables(),
            folder=self._plan.folder,
            mark=self._mark,
            stdout=stdout.write_fd,
            stderr=stderr.write_fd,
        )
        self._warden.watch(process.pid)
        stdout.started()
        stderr.started()
        if self.phase is Phase.ENDED:  # since it was begun to be started
            process.kill()
        self._exited(await process.wait())
        if not self._warden.takes_over:
            await process.end_family()
        self._drain()
        self._warden.unwatch(process.pid)

    def _variables(self) -> dict[str, str]:
        day = time.strftime("%Y/%m/%d", time.gmtime())
        return self._plan.environment | {
            "AWS_LAMBDA_RUNTIME_API": self._api.address,
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{day}/[$LATEST]{random_bytes(16).hex()}",
        }

    def _came_up(self) -> None:
        self.log.release()
        if self._init_s is not None:
            self._cancel_timer()
            self._init_ms = self._init_elapsed_ms()
        self._owner.came_up(self)

    def _begin(self, invocation: Invocation) -> None:
        """Give an invocation to the process, which waits for one."""
        if not self._has_begun:
            self._drain()
            self._open(invocation)
        self._enter(Phase.BUSY)
        left_s = self._began + self.function.timeout_s - time.monotonic()
        self._api.give(
            Delivery(
                request_id=invocation.request_id,
                payload=invocation.payload,
                arn=invocation.arn,
                deadline_ms=int((time.time() + left_s) * 1_000),
                trace_id=invocation.trace_id,
                client_context=invocation.client_context,
            )
        )

    def _open(self, invocation: Invocation) -> None:
        """From here on the log and the time are the invocation's."""
        self._has_begun = True
        self._began = time.monotonic()
        begin_in_log(self.log, invocation)
        self._timer = self._loop.call_later(self.function.timeout_s, self._timed_out)

    def _timed_out(self) -> None:
        if self._has_begun:  # else it has answered, and has not come back
            words = f"Task timed out after {self.function.timeout_s:.2f} seconds"
            self._fail(Failure(error_type="Sandbox.Timedout", message=words, status="timeout"))
        self.end()

    def _init_too_slow(self, invocation: Invocation) -> None:
        self.log.release()
        self.log.say(f"INIT_REPORT Init Duration: {self._init_elapsed_ms():.2f} ms\tPhase: init\tStatus: timeout")
        self._invocation = None
        self.end()
        self._owner.init_too_slow(self, invocation)

    def _exited(self, status: int) -> None:
        """The process has ended of itself."""
        self._drain()
        self._end_for(_exit_failure(status))

    def _end_for(self, failure: Failure) -> None:
        """End, for a reason that is the answer to an invocation that has begun or waits for the environment."""
        if self.phase is Phase.STARTING:
            self._fail_init(failure)
        elif self.phase is Phase.BUSY:
            self._fail(failure)
        self.end()

    def _fail_init(self, failure: Failure) -> None:
        """It did not come up: so does the invocation end, and whoever comes soon gets the same answer."""
        if self.phase is not Phase.STARTING:
            return
        self._drain()
        elapsed_ms = self._init_elapsed_ms()
        if self._init_s is not None:
            self._init_ms = elapsed_ms
        where = "invoke" if self._init_s is None else "init"
        self.log.say(
            f"INIT_REPORT Init Duration: {elapsed_ms:.2f} ms\tPhase: {where}\tStatus: error\t"
            f"Error Type: {failure.error_type}"
        )
        self._owner.init_failed(self, failure)
        self._fail(failure)
        self.end()

    def _fail(self, failure: Failure) -> None:
        """End the invocation that waits for the environment or runs in it."""
        invocation = self._invocation
        if invocation is None:
            return
        self.log.release()
        if not self._has_begun:
            self._open(invocation)
        self._conclude(invocation, failure)

    def _conclude(self, invocation: Invocation, result: bytes | Failure) -> None:
        now = time.monotonic()
        self._drain()
        if self._process is not None:
            self._peak_bytes = max(self._peak_bytes, resident_bytes(self._process.pid))
        init_ms, self._init_ms = self._init_ms, None
        self._invocation = None
        self._has_begun = False
        report = conclude(
            self.log,
            invocation,
            self.function,
            result,
            duration_ms=(now - self._began) * 1_000,
            init_ms=init_ms,
            memory_bytes=self._peak_bytes,
        )
        self._owner.finished(self, report)

    def _init_elapsed_ms(self) -> float:
        return (time.monotonic() - self.since) * 1_000

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since = time.monotonic()

    def _drain(self) -> None:
        for pipe in self._pipes:
            pipe.drain()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _exit_failure(status: int) -> Failure:
    """What Lambda says of a process that has ended, by its status: negative for a signal."""
    if status == 0:
        words = "Runtime exited without providing a reason"
    elif status > 0:
        words = f"Runtime exited with error: exit status {status}"
    else:
        words = f"Runtime exited with error: signal: {_SIGNALS.get(-status) or signal.strsignal(-status)}"
    return Failure(error_type="Runtime.ExitError", message=words)


_SIGNALS: dict[int, str] = {
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGKILL: "killed",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGTERM: "terminated",
}
"""What Go, in which Lambda is written, calls them."""

KILLED = _exit_failure(-signal.SIGKILL)
"""What an invocation ends with whose environment is ended."""
