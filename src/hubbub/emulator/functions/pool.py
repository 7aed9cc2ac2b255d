"""All functions of a stack: which environment takes an invocation, when one is started, when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from hubbub.emulator.definition import ACCOUNT, Function
from hubbub.emulator.functions.environment import Outcome, Report
from hubbub.emulator.functions.logs import LogLine


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
        on_log: called with each line that functions and Lambda log; must not block.
        on_report: called after each invocation; must not block.

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
        on_log: Callable[[LogLine], None] | None = None,
        on_report: Callable[[Report], None] | None = None,
    ) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes; invocations that are under way fail."""
        raise NotImplementedError

    def names(self) -> tuple[str, ...]:
        """The names of all functions."""
        raise NotImplementedError

    def get(self, name_or_arn: str) -> Function:
        """The function of a name, an ARN or a partial ARN (`account:function:name`), each with or without a qualifier.

        Every qualifier leads to the function as it is now: there are no versions here, and its version is `$LATEST`.

        Raises:
            UnknownFunction: there is none.

        """
        raise NotImplementedError

    def arn(self, name_or_arn: str) -> str:
        """A function's ARN, without a qualifier.

        Raises:
            UnknownFunction: there is none.

        """
        raise NotImplementedError

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
        raise NotImplementedError

    async def reload(self, name: str) -> None:
        """A function's code has changed: its environments end after the invocation that they run, new ones come up.

        Raises:
            UnknownFunction: there is none.

        """
        raise NotImplementedError

    async def replace(self, function: Function) -> None:
        """Take a function's new definition, or a new function, in the way of `reload`."""
        raise NotImplementedError

    async def remove(self, name: str) -> None:
        """Take a function away; what it runs it may end.

        Raises:
            UnknownFunction: there is none.

        """
        raise NotImplementedError
