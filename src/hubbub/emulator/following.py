"""What has changed of a stack's files, as it changes: code in whole folders, templates one by one.

A template is looked for in its folder and not at its place on the disk, since editors write a new file and give it the
old one's name; and so is a code folder itself, since builds throw it away and make a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from watchfiles import DefaultFilter, awatch
from watchfiles.filters import BaseFilter
from watchfiles.main import FileChange

from hubbub.listening import CannotStart

OVERLAP_S = 1.0
"""How long places are still looked at when there are others, so that nothing is missed in between."""


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
        self._told: dict[Path, tuple[int, int, int] | None] = {}  # what was told of paths; None for those gone
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
        try:
            async with asyncio.TaskGroup() as looks:
                while True:
                    await self._follow_there(self._places(), looks)
        except ExceptionGroup as errors:
            error = errors.exceptions[0]
            if isinstance(error, OSError):
                words = f"changes of files cannot be followed: {error}; `--once` does without"
                raise CannotStart(words) from error
            raise error from None

    async def _follow_there(self, places: Places, looks: asyncio.TaskGroup) -> None:
        """Return when there are other places to look at; looks at these ones end a while after that."""
        moved, stop = asyncio.Event(), asyncio.Event()
        named = places.files | places.folders
        beside = {path.parent for path in named if path.parent.is_dir()}
        whole = {folder for folder in places.folders if folder.is_dir()}
        looks.create_task(
            self._look(awatch(*beside, recursive=False, watch_filter=_Named(named), stop_event=stop), places, moved)
        )
        if whole:
            looks.create_task(self._look(awatch(*whole, watch_filter=DefaultFilter(), stop_event=stop), places, moved))
        await moved.wait()
        asyncio.get_running_loop().call_later(OVERLAP_S, stop.set)

    async def _look(self, look: AsyncGenerator[set[FileChange], None], places: Places, moved: asyncio.Event) -> None:
        async with aclosing(look):
            upcoming = asyncio.ensure_future(anext(look, None))
            await asyncio.sleep(0)  # its first step is to look: what changes from here on is seen
            self._looks.set()
            while (seen := await upcoming) is not None:
                async with self._turn:
                    paths = {path for _, name in seen if self._is_news(path := Path(name))}
                    if paths:
                        await self._changed(paths)
                if self._places() != places or not paths.isdisjoint(places.folders):
                    moved.set()
                upcoming = asyncio.ensure_future(anext(look, None))

    def _is_news(self, path: Path) -> bool:
        """Whether a path is not as it was when a change of it was told last: two looks may have seen the same."""
        try:
            stat = path.stat()
            state = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except OSError:
            state = None
        is_news = path not in self._told or self._told[path] != state
        self._told[path] = state
        return is_news


class _Named(BaseFilter):
    """Lets changes of certain paths through."""

    def __init__(self, paths: frozenset[Path]) -> None:
        super().__init__()
        self._paths = paths

    def __call__(self, change: object, path: str) -> bool:
        """Whether it is one of them."""
        return Path(path) in self._paths
