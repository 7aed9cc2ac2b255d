"""A running stack for code that is not asynchronous: it runs in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from hubbub.emulator.apis import RunningApi
from hubbub.emulator.definition import Stack
from hubbub.emulator.functions import Outcome
from hubbub.emulator.http import RunningHttpApi
from hubbub.emulator.running import RunningStack

logger = logging.getLogger("hubbub.emulator")

T = TypeVar("T")


class BackgroundStack:
    """A stack beside whoever waits: `with BackgroundStack("template.yaml") as stack: …`.

    Args:
        path: the template, or the folder that it is in.
        options: as for `RunningStack`; its callbacks are called in the other thread.

    Raises, on entering:
        Exception: what `RunningStack` raises.

    """

    def __init__(self, path: str | Path = ".", **options: Any) -> None:  # Any: as RunningStack takes them
        self._running = RunningStack(path, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, name="hubbub stack", daemon=True)

    def __repr__(self) -> str:
        return f"<BackgroundStack of {self._running!r}>"

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self._thread.join()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._end is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    @property
    def stack(self) -> Stack:
        """What the template says."""
        return self._running.stack

    @property
    def apis(self) -> list[RunningApi]:
        """The WebSocket APIs in the template's order."""
        return self._running.apis

    @property
    def http_apis(self) -> list[RunningHttpApi]:
        """The HTTP APIs likewise."""
        return self._running.http_apis

    @property
    def url(self) -> str:
        """Where clients of the first API connect."""
        return self._running.url

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a program reaches the stack."""
        return self._running.environment

    def invoke(self, name: str, payload: Any = None) -> Outcome:  # Any: JSON
        """Invoke a function by its name or logical id, and wait for its end."""
        return self._wait(self._running.invoke(name, payload))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("the stack does not run; enter it first")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _serve(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        try:
            async with self._running:
                self._started.set_result(None)
                await self._until_end(self._end)
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)
        finally:
            self._loop = None

    async def _until_end(self, end: asyncio.Event) -> None:
        """Wait until it is to end, or fails."""
        failing = asyncio.get_running_loop().create_task(self._running.failed())
        ending = asyncio.get_running_loop().create_task(end.wait())
        waited: list[asyncio.Future[Any]] = [failing, ending]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        for each in waited:
            each.cancel()
        await asyncio.wait(waited)
        if not failing.cancelled() and (error := failing.exception()) is not None:
            logger.error("the stack has ended: %s", error)
