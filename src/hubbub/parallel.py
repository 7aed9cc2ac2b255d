"""The same call for many things, so many at a time; and a few different ones at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

AT_ONCE = 32
"""How many calls are under way at a time: fewer than an `HttpClient` has connections."""

FEW_AT_ONCE = 16
"""How many, where each call makes several itself, or a long one."""

AboutT = TypeVar("AboutT")
ResultT = TypeVar("ResultT")
OtherT = TypeVar("OtherT")


async def each(
    call: Callable[[AboutT], Coroutine[Any, Any, ResultT]],  # Any: what coroutines are sent and yield
    about: Iterable[AboutT],
    *,
    at_once: int = AT_ONCE,
) -> list[ResultT]:
    """What the call returns for each, in their order; the first failure ends all and is raised."""
    things = list(about)
    if len(things) == 1:
        return [await call(things[0])]
    results: dict[int, ResultT] = {}
    waiting = iter(enumerate(things))

    async def one_after_the_other() -> None:
        for place, thing in waiting:
            results[place] = await call(thing)

    await _grouped([one_after_the_other() for _ in range(min(at_once, len(things)))])
    return [results[place] for place in range(len(things))]


async def every(
    call: Callable[[AboutT], Coroutine[Any, Any, ResultT]],  # Any: as above
    about: Iterable[AboutT],
    *,
    at_once: int = AT_ONCE,
) -> list[ResultT]:
    """As `each`, but a failure ends nothing: it is raised when all the others are done."""

    async def kept(thing: AboutT) -> tuple[ResultT | None, Exception | None]:
        try:
            return await call(thing), None
        except Exception as failure:  # whatever it is, the others go on, and then it is raised
            return None, failure

    results: list[ResultT] = []
    failed: Exception | None = None
    for result, failure in await each(kept, about, at_once=at_once):
        failed = failed or failure
        results.append(result)  # type: ignore[arg-type]  # None only if there is a failure, and then nothing is returned
    if failed is not None:
        raise failed
    return results


async def both(
    one: Coroutine[Any, Any, ResultT], other: Coroutine[Any, Any, OtherT]
) -> tuple[ResultT, OtherT]:  # Any: as above
    """What the two return, done at the same time; the first failure ends both and is raised."""
    first, second = await _grouped([one, other])
    return first, second


async def together(*calls: Coroutine[Any, Any, None]) -> None:  # Any: as above
    """Return when all are done; then the first failure is raised."""
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _grouped(works: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:  # Any: whatever the works return
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
