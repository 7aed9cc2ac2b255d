"""What has changed of a stack's files, as it changes: code in whole folders, templates one by one.

A template is looked for in its folder and not at its place on the disk, since editors write a new file and give it the
old one's name; and so is a code folder itself, since builds throw it away and make a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from watchfiles import DefaultFilter, awatch
from watchfiles.filters import BaseFilter

from hubbub.listening import CannotStart


class Places(NamedTuple):
    """Where changes matter: anywhere below folders, and in single files; all of them resolved paths."""

    folders: frozenset[Path]
    files: frozenset[Path]


class Follower:
    """Tells of changes: `async with Follower(places, changed): …`.

    Args:
        places: where to look, whether it is there or not; asked again after each change.
        changed: told which paths have changed, one call at a time; what it raises ends the following.

    Raises, on entering:
        CannotStart: changes cannot be followed.

    """

    def __init__(self, places: Callable[[], Places], changed: Callable[[set[Path]], Awaitable[None]]) -> None:
        self._places = places
        self._changed = changed
        self._turn = asyncio.Lock()  # held while a change is dealt with
        self._looks = asyncio.Event()  # whether changes from now on are seen
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Follower of {self._places()}>"

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="hubbub follower")
        looks = asyncio.get_running_loop().create_task(self._looks.wait())
        try:
            await asyncio.wait([self._task, looks], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self._end()
            raise
        finally:
            looks.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def failed(self) -> None:
        """Wait until changes are not followed any more, and raise why.

        Raises:
            CannotStart: it is not possible any more.
            Exception: what `changed` has raised.

        """
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_there(self._places())
            except ExceptionGroup as errors:
                error = errors.exceptions[0]
                if isinstance(error, OSError):
                    words = f"changes of files cannot be followed: {error}; `--once` does without"
                    raise CannotStart(words) from error
                raise error from None

    async def _follow_there(self, places: Places) -> None:
        """Return when there are other places to look at."""
        moved = asyncio.Event()
        named = places.files | places.folders
        beside = {path.parent for path in named if path.parent.is_dir()}
        whole = {folder for folder in places.folders if folder.is_dir()}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look(beside, _Named(named), places, moved, recursive=False))
            if whole:
                group.create_task(self._look(whole, DefaultFilter(), places, moved, recursive=True))

    async def _look(
        self, folders: set[Path], wanted: BaseFilter, places: Places, moved: asyncio.Event, *, recursive: bool
    ) -> None:
        async with aclosing(awatch(*folders, recursive=recursive, watch_filter=wanted, stop_event=moved)) as changes:
            upcoming = asyncio.ensure_future(anext(changes, None))
            await asyncio.sleep(0)  # its first step is to look: what changes from here on is seen
            self._looks.set()
            while (seen := await upcoming) is not None:
                paths = {Path(path) for _, path in seen}
                async with self._turn:
                    await self._changed(paths)
                if self._places() != places or not paths.isdisjoint(places.folders):
                    moved.set()
                upcoming = asyncio.ensure_future(anext(changes, None))


class _Named(BaseFilter):
    """Lets changes of certain paths through."""

    def __init__(self, paths: frozenset[Path]) -> None:
        super().__init__()
        self._paths = paths

    def __call__(self, change: object, path: str) -> bool:
        """Whether it is one of them."""
        return Path(path) in self._paths
