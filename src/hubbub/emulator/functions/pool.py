"""All functions of a stack: their names and ARNs, how many invocations may run, and the watch over their processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from hubbub.emulator.definition import ACCOUNT, Function
from hubbub.emulator.functions.environment import Environment, Owner, Phase
from hubbub.emulator.functions.fleet import Fleet, Starts
from hubbub.emulator.functions.logs import LogLine
from hubbub.emulator.functions.outcome import Invocation, Outcome, Report
from hubbub.emulator.functions.processes import Census, Warden
from hubbub.emulator.functions.runtimes import CannotRun, Plan, Runtimes
from hubbub.entropy import random_bytes

ACCOUNT_LIMIT = "ConcurrentInvocationLimitExceeded"
FUNCTION_LIMIT = "ReservedFunctionConcurrentInvocationLimitExceeded"

LOOK_EVERY_S = 0.05
"""How often memory is looked at while functions run."""

REST_S = 30.0
"""How often idle environments are looked at, at least."""

_REFERENCE = re.compile(
    r"(?:arn:[a-z-]+:lambda:[a-z0-9-]*:\d*:|(?:\d+:)?)(?:function:)?(?P<name>[A-Za-z0-9_.-]+)(?::(?P<qualifier>[$\w-]+))?"
)


class UnknownFunction(LookupError):
    """There is no function of this name or ARN; the message names it and those there are."""


class Throttled(Exception):
    """An invocation is over a limit of concurrency.

    Attributes:
        reason: `ConcurrentInvocationLimitExceeded` (the account's) or
            `ReservedFunctionConcurrentInvocationLimitExceeded` (the function's own).

    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Reference(NamedTuple):
    name: str
    qualifier: str | None


class Functions:
    """Runs functions: `async with Functions(stack.functions, …) as functions: await functions.invoke("name", b"{}")`.

    Args:
        functions: all that there are at first; one that cannot be run answers its invocations with the reason.
        environment: variables for every function: endpoints, credentials, authorities. A function's own win, but for
            the names that Lambda reserves.
        region, account: of the functions' ARNs.
        account_concurrency: how many invocations may run at a time.
        idle_s: after how long without invocations an environment ends.
        init_s: how long one may take to come up before that is tried once more, within the function's time-out.
        starts: how many environments come up at a time; None for as many as there are processors, and two at least.
        on_log: called with each line that functions and Lambda log; must not block or raise.
        on_report: called after each invocation; must not block or raise.

    Attributes:
        mark: what the marks of all its processes begin with (`bootstrap/warden.py`).
        folder: where its layers and homes are; None before it runs, and gone after.

    """

    def __init__(
        self,
        functions: Iterable[Function],
        *,
        environment: Mapping[str, str] | None = None,
        region: str = "us-east-1",
        account: str = ACCOUNT,
        account_concurrency: int = 1_000,
        idle_s: float = 600.0,
        init_s: float = 10.0,
        starts: int | None = None,
        on_log: Callable[[LogLine], None] | None = None,
        on_report: Callable[[Report], None] | None = None,
    ) -> None:
        self._first = tuple(functions)
        self._shared = dict(environment or {})
        self._region = region
        self._account = account
        self._account_concurrency = account_concurrency
        self._idle_s = idle_s
        self._init_s = init_s
        self._on_log = on_log or (lambda line: None)
        self._on_report = on_report or (lambda report: None)
        self._starts = Starts(starts or max(2, os.cpu_count() or 2))
        self._fleets: dict[str, Fleet] = {}
        self._references: dict[str, _Reference] = {}  # names and ARNs that have been read
        self._in_flight: Counter[str] = Counter()  # invocations by function
        self._held = 0  # concurrency that functions have reserved
        self._alive: set[Environment] = set()  # environments of which something is left
        self._made = 0  # how many there have been
        self.mark = f"{random_bytes(8).hex()}."
        self.folder: Path | None = None
        self._stirred = asyncio.Event()  # set while there may be something to look at
        self._told: set[tuple[str, str]] = set()  # warnings by function
        self._running = False
        self._runtimes: Runtimes | None = None
        self._warden: Warden | None = None
        self._watch: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Functions {len(self._fleets)}, {len(self._alive)} environments, {self._in_flight.total()} in flight>"

    async def __aenter__(self) -> Self:
        folder = self.folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="hubbub-functions-"))
        (folder / "home").mkdir()
        self._runtimes = Runtimes(folder, self._shared, region=self._region)
        self._warden = Warden(self.mark, folder)
        try:
            await self._warden.start()
            self._running = True
            await asyncio.gather(*(self.replace(function) for function in self._first))
            self._watch = asyncio.create_task(self._look(), name="hubbub-functions")
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes; invocations that are under way fail."""
        await self._stop()

    def names(self) -> tuple[str, ...]:
        """The names of all functions."""
        return tuple(self._fleets)

    def get(self, name_or_arn: str) -> Function:
        """The function of a name, an ARN or a partial ARN (`account:function:name`), each with or without a qualifier.

        Every qualifier leads to the function as it is now: there are no versions here, and its version is `$LATEST`.

        Raises:
            UnknownFunction: there is none.

        """
        return self._fleet(name_or_arn).function

    def arn(self, name_or_arn: str) -> str:
        """A function's ARN, without a qualifier.

        Raises:
            UnknownFunction: there is none.

        """
        return self._arn(self.get(name_or_arn).name)

    def environments(self, name_or_arn: str) -> tuple[Environment, ...]:
        """The environments of a function that have not ended; those of older code are not among them.

        Raises:
            UnknownFunction: there is none.

        """
        return self._fleet(name_or_arn).environments()

    async def interpreter(self, runtime: str) -> str:
        """The Python that runs functions of a Python runtime, for who installs what they need."""
        return await self._found().interpreter(runtime)

    async def invoke(
        self,
        name_or_arn: str,
        payload: bytes,
        *,
        client_context: str | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
    ) -> Outcome:
        """Run a function with a payload and wait for its end; it is bounded by the function's own time-out.

        If the caller is cancelled, the invocation runs to its end all the same, as it does on AWS.

        Args:
            name_or_arn: as `get` takes it.
            payload: JSON of at most 6 MB; the caller has seen to that.
            client_context: JSON for `context.client_context`.
            request_id: None for a new one; tries of one Event invocation have the same.
            trace_id: an `X-Amzn-Trace-Id`; None for a new one.

        Raises:
            UnknownFunction: there is none.
            Throttled: too many invocations run.

        """
        if not self._running:
            raise RuntimeError("expected functions that run: use them within `async with`")
        fleet = self._fleet(name_or_arn)
        function = fleet.function
        self._admit(function)
        qualifier = self._references[name_or_arn].qualifier
        invocation = Invocation(
            request_id or str(uuid.UUID(bytes=random_bytes(16), version=4)),
            payload,
            arn=self._arn(function.name) + (f":{qualifier}" if qualifier else ""),
            trace_id=trace_id or _new_trace_id(),
            client_context=client_context,
        )
        self._in_flight[function.name] += 1
        self._stirred.set()
        fleet.place(invocation)
        return await invocation.outcome

    async def reload(self, name: str) -> None:
        """A function's code has changed: its environments end after the invocation that they run, new ones come up.

        Raises:
            UnknownFunction: there is none.

        """
        await self.replace(self.get(name))

    async def replace(self, function: Function) -> None:
        """Take a function's new definition, or a new function, in the way of `reload`."""
        plan = await self._plan(function)
        if not self._running:
            return
        before = self._fleets.get(function.name)
        self._fleets[function.name] = Fleet(
            function,
            plan,
            new_environment=self._new_environment,
            starts=self._starts,
            on_finished=self._finished,
            place_elsewhere=self._place_again,
            on_line=self._on_log,
        )
        self._count_reserved()
        if before is not None:
            before.retire()

    async def remove(self, name: str) -> None:
        """Take a function away; what it runs it may end.

        Raises:
            UnknownFunction: there is none.

        """
        fleet = self._fleet(name)
        del self._fleets[fleet.function.name]
        self._count_reserved()
        fleet.retire()

    def _count_reserved(self) -> None:
        self._held = sum(fleet.function.reserved_concurrency or 0 for fleet in self._fleets.values())

    async def _plan(self, function: Function) -> Plan | CannotRun:
        try:
            plan = await self._found().plan(function)
        except CannotRun as reason:
            self._warn(function.name, str(reason))
            return reason
        for warning in plan.warnings:
            self._warn(function.name, warning)
        return plan

    def _found(self) -> Runtimes:
        if self._runtimes is None:
            raise RuntimeError("expected functions that run: use them within `async with`")
        return self._runtimes

    def _warn(self, name: str, text: str) -> None:
        if (name, text) not in self._told:
            self._told.add((name, text))
            self._on_log(LogLine(name, None, "platform", text, time.time()))

    def _fleet(self, name_or_arn: str) -> Fleet:
        reference = self._references.get(name_or_arn)
        if reference is None:
            matched = _REFERENCE.fullmatch(name_or_arn)
            reference = _Reference(*matched.group("name", "qualifier")) if matched else _Reference(name_or_arn, None)
        fleet = self._fleets.get(reference.name)
        if fleet is None:
            there = ", ".join(self._fleets) or "none"
            raise UnknownFunction(f"There is no function {name_or_arn!r}; there are: {there}.")
        if len(self._references) < 10_000:
            self._references[name_or_arn] = reference
        return fleet

    def _arn(self, name: str) -> str:
        return f"arn:aws:lambda:{self._region}:{self._account}:function:{name}"

    def _admit(self, function: Function) -> None:
        """Raise `Throttled` for an invocation that is too many."""
        reserved = function.reserved_concurrency
        if reserved is not None:
            if self._in_flight[function.name] >= reserved:
                words = f"Rate Exceeded: {function.name} runs {reserved} times at once at most."
                raise Throttled(FUNCTION_LIMIT, words)
            return
        if self._in_flight.total() < self._account_concurrency - self._held:
            return
        others = [fleet.function for fleet in self._fleets.values()]
        shared = sum(self._in_flight[one.name] for one in others if one.reserved_concurrency is None)
        if shared >= self._account_concurrency - self._held:
            words = f"Rate Exceeded: {self._account_concurrency - self._held} invocations run at once at most."
            raise Throttled(ACCOUNT_LIMIT, words)

    def _new_environment(
        self, owner: Owner, function: Function, plan: Plan, within_invocation: bool, quiet: bool
    ) -> Environment:
        if self._warden is None:
            raise RuntimeError("expected functions that run: use them within `async with`")
        self._made += 1
        environment = Environment(
            function,
            plan,
            mark=f"{self.mark}{self._made}",
            owner=owner,
            warden=self._warden,
            on_line=self._on_log,
            on_end=self._alive.discard,
            init_s=None if within_invocation else self._init_s,
            quiet=quiet,
        )
        self._alive.add(environment)
        return environment

    def _finished(self, report: Report) -> None:
        self._in_flight[report.function] -= 1
        self._on_report(report)

    def _place_again(self, invocation: Invocation, function: Function) -> bool:
        """Run an invocation with the code that there is now; False where there is none."""
        fleet = self._fleets.get(function.name)
        if fleet is None or not self._running:
            return False
        fleet.place(invocation)
        return True

    async def _look(self) -> None:
        """Watch over processes: end what has too much in memory, or has been idle for long."""
        census = Census()
        while True:
            at_work = {one.pid: one for one in self._alive if one.phase in (Phase.BUSY, Phase.STARTING) and one.pid}
            self._stirred.clear()
            families = census.take(set(at_work)) if at_work else {}
            for pid, environment in at_work.items():
                environment.check_memory(families[pid])
            self._starts.resume()
            for fleet in self._fleets.values():
                fleet.end_idle(time.monotonic() - self._idle_s)
            if self._in_flight.total():
                await asyncio.sleep(LOOK_EVERY_S)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(REST_S, self._idle_s / 4)):
                        await self._stirred.wait()

    async def _stop(self) -> None:
        """End everything, and wait until nothing is left."""
        self._running = False
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        if self._warden is not None:
            self._warden.takes_over = True
        for fleet in self._fleets.values():
            fleet.end()
        for environment in list(self._alive):
            environment.end()
        await asyncio.gather(*(environment.ended() for environment in list(self._alive)))
        if self._runtimes is not None:
            await self._runtimes.close()
        if self._warden is not None:
            await self._warden.stop()
        if self._watch is not None and not self._watch.cancelled():
            self._watch.result()  # why it ended before us


def _new_trace_id() -> str:
    root = random_bytes(12).hex()
    return f"Root=1-{int(time.time()):08x}-{root};Parent={random_bytes(8).hex()};Sampled=0"
