"""What an environment keeps from one invocation to the next: its event loop, its clients, the chat made of them.

Each part is opened when it is first needed, and stays; what cannot be opened just now is tried again at the next
invocation. Lambda lets a process stand still between invocations and ends it without a word, so nothing is kept here
that would have to be saved: an ended process needs no farewell, and gets none.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from hubbub.aws.credentials import NoCredentials, Provider, find
from hubbub.aws.http import HttpClient
from hubbub.aws.service import Service
from hubbub.chat import Chat
from hubbub.clock import SystemClock
from hubbub.config import SettingsError
from hubbub.entropy import forget
from hubbub.lambdas import logs
from hubbub.lambdas.place import Place, read
from hubbub.lambdas.tokens import ReadSecret, Tokens, managed_secret, parameter

if TYPE_CHECKING:
    from hubbub.aws.marshalling import Key
    from hubbub.clock import Clock
    from hubbub.fanout.apigateway.broadcaster import Broadcaster
    from hubbub.fanout.apigateway.tally import Tally
    from hubbub.lambdas.assembly import Parts

ResultT = TypeVar("ResultT")

Chore = Callable[[float], Awaitable[object]]
"""A piece of background work, told for how many seconds it may go on."""


class Home:
    """An environment's own; all of it lives on one event loop, which `run` turns.

    Args:
        place: where it is.
        clock: time; the machine's by default.

    Attributes:
        place, clock: as given.

    """

    def __init__(self, place: Place, *, clock: Clock | None = None) -> None:
        self.place = place
        self.clock: Clock = clock or SystemClock()
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._is_first = True
        self._http: HttpClient | None = None
        self._tokens: Tokens | None = None
        self._chat: Chat | None = None
        self._doorman: Chat | None = None
        self._broadcaster: Broadcaster | None = None
        self._parts: Parts | None = None
        self._tallies: list[Tally] = []

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Turn the loop until `work` is done; what else was begun on it goes on meanwhile, and stands still after.

        Each run has a context of its own, so that nothing of one invocation is taken for another's.
        """
        # Its `run` would set each time what Ctrl-C does, which takes as long as an answer.
        loop = self._runner.get_loop()
        return loop.run_until_complete(loop.create_task(work, context=copy_context()))

    def close(self) -> None:
        """End everything; for tests, since Lambda ends processes without asking."""
        self.run(self._stack.aclose())
        self._runner.close()

    def first(self) -> bool:
        """True the first time."""
        was, self._is_first = self._is_first, False
        return was

    async def http(self) -> HttpClient:
        """The connections to AWS.

        Whom they trust is read with the first that is secure, which takes 20 ms of CPU: what gets an environment ready
        has one, unless the function needs none.
        """
        if self._http is None:
            # As many to one host as a broadcaster makes posts at a time.
            self._http = await self._stack.enter_async_context(HttpClient(max_connections=100))
        return self._http

    async def service(self, name: str) -> Service:
        """One of AWS's services.

        Raises:
            SettingsError: there are no credentials.

        """
        return Service(await self.http(), name, region=self.place.region, credentials=credentials(), clock=self.clock)

    async def tokens(self) -> Tokens:
        """What verifies tokens; it loads what it needs when the first one comes."""
        if self._tokens is None:
            read_secret = await self._read_secret()
            self._tokens = Tokens(
                self.place.settings,
                http=await self.http(),
                read_secret=read_secret,
                monotonic=self.clock.monotonic,
            )
        return self._tokens

    async def _read_secret(self) -> ReadSecret | None:
        place = self.place
        if place.secret_parameter is not None:
            return parameter(await self.service("ssm"), place.secret_parameter)
        if place.secret_arn is not None:
            return managed_secret(await self.service("secretsmanager"), place.secret_arn)
        return None

    async def chat(self) -> Chat:
        """The chat, with its store and fan-out.

        Raises:
            Unavailable: the table does not answer.
            SettingsError: something is not set, or is impossible.

        """
        if self._chat is None:
            self._chat = await self._open_chat()
        return self._chat

    async def doorman(self) -> Chat:
        """A chat that authorizes: without a store, unless one's own chat authorizes in its own way.

        Raises:
            Unavailable, SettingsError: as `chat`.

        """
        if self._doorman is None:
            chat = load_chat(self.place.settings.app)
            if type(chat).authorize is Chat.authorize:
                chat.tokens = await self.tokens()
            else:
                chat = await self.chat()
            self._doorman = chat
        return self._doorman

    async def warm_tokens(self) -> None:
        """Be ready to authorize: keys fetched, and what verifies with them loaded."""
        await self.doorman()
        verifier = await (await self.tokens()).load()
        await verifier.count_keys()  # for which those at an address are fetched

    async def broadcaster(self) -> Broadcaster:
        """What delivers.

        Raises:
            Unavailable, SettingsError: as `chat`.

        """
        if self._broadcaster is None:
            self._broadcaster = await self._open_broadcaster()
        return self._broadcaster

    async def chores(self) -> list[tuple[str, Chore]]:
        """What the sweeper does beside the chat's own background work, by name."""
        from hubbub.fanout.apigateway.stale import Stale

        parts = await self._opened()
        stale = Stale(parts.table, posts=parts.posts, pace=parts.pace, forget=parts.directory.forget, clock=self.clock)

        async def sweep_connections(within_s: float) -> None:
            await stale.sweep(self.clock.now_ms(), within_s / 2)  # a step must be over before the time is

        async def sweep_directory(within_s: float) -> None:
            await parts.directory.sweep(self.clock.now_ms())

        async def sweep_store(within_s: float) -> None:
            ends_at = self.clock.monotonic() + within_s / 2  # as above
            while await parts.store.sweep() and self.clock.monotonic() < ends_at:
                pass

        return [("connections", sweep_connections), ("directory", sweep_directory), ("retention", sweep_store)]

    def read_ahead(self, keys: Iterable[Key]) -> None:
        """Begin to read what the event will ask the table for, and forget what was read for the last one."""
        if self._parts is not None:
            self._parts.table.ahead.expect(keys)

    def taken_tallies(self) -> list[Tally]:
        """The numbers of the broadcaster's jobs since this was last asked."""
        taken, self._tallies = self._tallies, []
        return taken

    async def _open_chat(self) -> Chat:
        parts = await self._opened()
        chat = load_chat(self.place.settings.app)
        chat.bind(
            store=parts.store,
            fanout=parts.fanout,
            directory=parts.directory,
            tokens=await self.tokens(),
            clock=self.clock,
            limits=self.place.chat_limits(),
        )
        return chat

    async def _open_broadcaster(self) -> Broadcaster:
        from hubbub.lambdas.assembly import broadcaster_of

        return broadcaster_of(await self._opened(), self.clock, self.report)

    def report(self, tally: Tally) -> None:
        """Take the numbers of one of the broadcaster's jobs."""
        self._tallies.append(tally)

    async def _opened(self) -> Parts:
        """The parts; opened all or none, so that what failed is tried again from the start."""
        if self._parts is None:
            from hubbub.lambdas.assembly import open_parts

            async with AsyncExitStack() as stack:
                self._parts = await open_parts(self, stack)
                self._stack.push_async_exit(stack.pop_all())
        return self._parts


def credentials() -> Provider:
    """This function's credentials; Lambda puts those of its role into the environment.

    Raises:
        SettingsError: there are none.

    """
    try:
        return find()
    except NoCredentials as error:
        raise SettingsError(str(error)) from error


def load_chat(path: str | None) -> Chat:
    """The `Chat` at `module:attribute`; a plain one for None.

    Raises:
        SettingsError: there is none there.

    """
    if path is None:
        return Chat()
    module, _, attribute = path.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"app: expected module:attribute such as myapp:chat, got {path!r}: {error}") from error
    if not isinstance(found, Chat):
        raise SettingsError(f"app: expected a hubbub.Chat at {path}, got a {type(found).__name__}")
    return found


_current: Home | None = None  # this process's; None before it is needed


def current() -> Home:
    """This process's home, made of its environment variables.

    Raises:
        SettingsError: one is unknown or impossible.

    """
    global _current
    if _current is None:
        place = read(os.environ)
        logs.configure(place.settings.log_level)
        _forget_when_restored()
        _current = Home(place)
    return _current


def _forget_when_restored() -> None:
    """Let no two environments that are restored from one snapshot have the same random bytes, and so the same ids.

    Source: "Handling uniqueness with Lambda SnapStart" and "runtime hooks for Python" in Lambda's developer guide.
    """
    try:
        from snapshot_restore_py import register_after_restore  # type: ignore[import-untyped]  # it has no types
    except ImportError:
        return  # this is not Lambda's own Python, and no other is restored from snapshots
    register_after_restore(forget)
