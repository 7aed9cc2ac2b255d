"""The environments of one function: which of them takes an invocation, and what happens while none comes up.

An invocation goes to the environment that was used last, else to one that is about to be free, else to a new one. As
all of them share one machine here, only so many start at a time, and a function with several has a moment to become
free before it gets another; what waits is run by whatever is free first. On AWS nothing waits.
Source: docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hubbub.emulator.definition import Function
from hubbub.emulator.functions.environment import KILLED, Environment, Owner, Phase
from hubbub.emulator.functions.logs import Log, OnLine
from hubbub.emulator.functions.outcome import Failure, Invocation, Report, begin_in_log, conclude
from hubbub.emulator.functions.runtimes import CannotRun, Plan

RETURNS_WITHIN_S = 0.1
"""How long an invocation waits for an environment that has answered the one before."""

FREE_WITHIN_S = 0.1
"""How long it waits for any of several environments before another is started: about what a start takes."""

STARTS_WITHIN_S = 1.0
"""After how long an environment that still comes up does not hold up others."""

FIRST_BACK_OFF_S = 0.5
MAX_BACK_OFF_S = 10.0
"""How long a function that does not come up answers so without another attempt: at first, and at most."""

NewEnvironment = Callable[[Owner, Function, Plan, bool, bool], Environment]
"""Makes an environment: for whom, of what, how, whether within an invocation, whether quiet."""


class Starts:
    """How many environments come up at a time, whatever they run.

    Args:
        limit: so many.

    Attributes:
        limit: likewise.

    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._starting: set[Environment] = set()
        self._waiting: dict[Invocation, Fleet] = {}  # for which there is to be a start, in turn

    def has_room(self) -> bool:
        """Whether another may start."""
        if len(self._starting) >= self.limit:
            late = time.monotonic() - STARTS_WITHIN_S
            self._starting = {one for one in self._starting if one.phase is Phase.STARTING and one.since > late}
        return len(self._starting) < self.limit

    def begun(self, environment: Environment) -> None:
        """One starts."""
        self._starting.add(environment)

    def over(self, environment: Environment) -> None:
        """It has come up, or will not; this may be told twice."""
        self._starting.discard(environment)
        self.resume()

    def wait(self, invocation: Invocation, fleet: Fleet) -> None:
        """Start an environment for an invocation as soon as there is room, if it waits then."""
        self._waiting[invocation] = fleet
        self.resume()

    def resume(self) -> None:
        """Start what waits, as far as there is room."""
        while self._waiting and self.has_room():
            invocation = next(iter(self._waiting))
            self._waiting.pop(invocation).start_for(invocation)


class Fleet:
    """The environments of one function, with the code that it has now.

    Args:
        function: what they run.
        plan: how; or why it cannot be run.
        new_environment: makes one.
        starts: how many may start.
        on_finished: told of each invocation's end.
        place_elsewhere: given an invocation that was to run here and must not any more; False if it cannot place it.
        on_line: told of each line that is logged.

    """

    def __init__(
        self,
        function: Function,
        plan: Plan | CannotRun,
        *,
        new_environment: NewEnvironment,
        starts: Starts,
        on_finished: Callable[[Report], None],
        place_elsewhere: Callable[[Invocation, Function], bool],
        on_line: OnLine,
    ) -> None:
        self.function = function
        self._plan = plan
        self._new_environment = new_environment
        self._starts = starts
        self._on_finished = on_finished
        self._place_elsewhere = place_elsewhere
        self._on_line = on_line
        self._loop = asyncio.get_running_loop()
        self._environments: set[Environment] = set()
        self._idle: list[Environment] = []  # the one that was used last is the last
        self._returning: list[Environment] = []  # the one that answered last is the last
        self._waiting: dict[Invocation, None] = {}  # in turn, for a start or what is free; bounded by concurrency
        self._failure: Failure | None = None  # why the last attempt did not come up; None once one has
        self._failures = 0  # attempts in a row that did not
        self._retry_at = 0.0  # when the next attempt may be
        self._retired = False  # whether there is newer code

    def __repr__(self) -> str:
        return f"<Fleet of {self.function.name}, {len(self._environments)} environments, {len(self._waiting)} waiting>"

    def environments(self) -> tuple[Environment, ...]:
        """Those that have not ended."""
        return tuple(self._environments)

    def place(self, invocation: Invocation) -> None:
        """Find an environment for an invocation, or end it with why there is none."""
        if self._retired:
            self._displace(invocation)
        elif self._waiting:
            self._place_anew(invocation)  # behind those
        elif self._idle:
            self._idle.pop().take(invocation)
        elif not self._take_returning(invocation):
            self._place_anew(invocation)

    def start_for(self, invocation: Invocation) -> None:
        """Start an environment for an invocation, if it still waits."""
        if invocation in self._waiting:
            del self._waiting[invocation]
            self._start(invocation)

    def retire(self) -> None:
        """There is newer code: end what is idle now, and what is busy after its invocation."""
        self._retired = True
        for environment in [*self._idle, *self._returning]:
            environment.end()
        while self._waiting:
            self._displace(self._next_waiting())

    def end(self) -> None:
        """End all environments, and the invocations in them."""
        self.retire()
        for environment in self.environments():
            environment.end()

    def end_idle(self, since: float) -> None:
        """End what has been idle since then; monotonic seconds."""
        for environment in [one for one in self._idle if one.since <= since]:
            environment.end()

    def refuse(self, invocation: Invocation, failure: Failure) -> None:
        """End an invocation without an environment."""
        log = Log(self.function.name, self._on_line)
        begin_in_log(log, invocation)
        self._on_finished(conclude(log, invocation, self.function, failure))

    # What environments tell.

    def came_up(self, environment: Environment) -> None:
        """The function can be run."""
        if self._failure is not None and not self._retired:
            self._failure = None
            self._failures = 0
            for invocation in list(self._waiting):
                self._be_patient(invocation)
        self._starts.over(environment)

    def idle(self, environment: Environment) -> None:
        """It takes what waits, or waits."""
        if environment in self._returning:
            self._returning.remove(environment)
        if self._retired:
            environment.end()
        elif self._waiting:
            environment.take(self._next_waiting())
        else:
            self._idle.append(environment)

    def returning(self, environment: Environment) -> None:
        """It will be idle soon."""
        if self._retired:
            environment.end()
        elif self._waiting:
            self._await_return(environment, self._next_waiting())
        else:
            self._returning.append(environment)

    def finished(self, environment: Environment, report: Report) -> None:
        """An invocation has ended."""
        self._on_finished(report)

    def init_failed(self, environment: Environment, failure: Failure) -> None:
        """Say so to all who wait, and for a while to who comes; what it logged is told if it is news."""
        if self._retired:
            if (invocation := environment.forgo()) is not None:
                self._displace(invocation)
            return
        if failure == self._failure:
            environment.log.forget()
        else:
            environment.log.release()
        self._failure = failure
        self._failures += 1
        self._retry_at = time.monotonic() + min(FIRST_BACK_OFF_S * 2 ** min(self._failures - 1, 10), MAX_BACK_OFF_S)
        while self._waiting:
            self.refuse(self._next_waiting(), failure)

    def init_too_slow(self, environment: Environment, invocation: Invocation) -> None:
        """Once more, and within the invocation, whatever else starts."""
        if self._retired:
            self._displace(invocation)
        else:
            self._start(invocation, within_invocation=True)

    def gone(self, environment: Environment, invocation: Invocation | None) -> None:
        """It has ended."""
        self._environments.discard(environment)
        for where in (self._idle, self._returning):
            if environment in where:
                where.remove(environment)
        self._starts.over(environment)
        if invocation is not None:
            self.place(invocation)

    def _take_returning(self, invocation: Invocation) -> bool:
        late = time.monotonic() - RETURNS_WITHIN_S
        if not self._returning or self._returning[-1].since < late:
            return False
        self._await_return(self._returning.pop(), invocation)
        return True

    def _await_return(self, environment: Environment, invocation: Invocation) -> None:
        environment.take(invocation)
        self._loop.call_later(RETURNS_WITHIN_S, self._give_up, environment, invocation)

    def _give_up(self, environment: Environment, invocation: Invocation) -> None:
        """Do not wait any longer for an environment that has not come back."""
        if environment.waits_with(invocation):
            environment.give_back()
            self.place(invocation)

    def _place_anew(self, invocation: Invocation) -> None:
        if isinstance(self._plan, CannotRun):
            self.refuse(invocation, Failure(error_type=self._plan.error_type, message=str(self._plan)))
        elif self._failure is not None and time.monotonic() < self._retry_at:
            self.refuse(invocation, self._failure)
        elif self._failure is not None and any(one.phase is Phase.STARTING for one in self._environments):
            self._waiting[invocation] = None  # one attempt at a time
        else:
            self._waiting[invocation] = None
            self._be_patient(invocation)

    def _be_patient(self, invocation: Invocation) -> None:
        """Start another environment for what waits: at once, or if none of several is free in a moment."""
        if len(self._environments) < self._starts.limit:
            self._starts.wait(invocation, self)
        else:
            self._loop.call_later(FREE_WITHIN_S, self._lose_patience, invocation)

    def _lose_patience(self, invocation: Invocation) -> None:
        if invocation in self._waiting:
            self._starts.wait(invocation, self)

    def _next_waiting(self) -> Invocation:
        invocation = next(iter(self._waiting))
        del self._waiting[invocation]
        return invocation

    def _start(self, invocation: Invocation, *, within_invocation: bool = False) -> None:
        if isinstance(self._plan, CannotRun):
            raise self._plan  # `place` has seen to that
        quiet = self._failure is not None
        environment = self._new_environment(self, self.function, self._plan, within_invocation, quiet)
        self._environments.add(environment)
        self._starts.begun(environment)
        environment.start(invocation)

    def _displace(self, invocation: Invocation) -> None:
        if not self._place_elsewhere(invocation, self.function):
            self.refuse(invocation, KILLED)
