"""Actions and hooks: what `@chat.action`, `@chat.before` and `@chat.on` register, the chat's own actions among them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from hubbub.model import ENTRY_TYPES, Entry, type_of
from hubbub.protocol import Ask, Result

if TYPE_CHECKING:
    from hubbub.chat.caller import Caller
    from hubbub.chat.core import Chat

    ActionFunction = Callable[[Chat, Caller, Any], Awaitable[Result]]  # Any: each action has its own Ask
    BeforeHook = Callable[[Chat, Caller, Any], Awaitable[Ask | None]]
    OnHook = Callable[[Chat, Any], Awaitable[None]]

Function = TypeVar("Function", bound=Callable[..., Any])


class Action(msgspec.Struct, frozen=True):
    """A registered action: its name, its fields' struct with a decoder, and its function."""

    name: str
    ask: type[Ask]
    decoder: msgspec.json.Decoder[Any]
    function: Any


class Registry:
    """A set of actions and hooks."""

    def __init__(self) -> None:
        self.actions: dict[str, Action] = {}
        self.befores: dict[str, list[BeforeHook]] = {}
        self.listeners: dict[str, list[OnHook]] = {}

    def action(self, name: str, *, replace: bool = False) -> Callable[[Function], Function]:
        """Register `async def f(chat, by, ask: MyAsk) -> Result` as the action `name`.

        The annotation of `ask`, a subclass of `hubbub.Ask`, says which fields the action takes.

        Args:
            name: what clients put into `action`.
            replace: whether an action of that name may exist and is replaced.

        Raises:
            TypeError: the function is not of that shape.
            ValueError: the name is taken.

        """

        def register(function: Function) -> Function:
            if name in self.actions and not replace:
                raise ValueError(f"the action {name!r} exists already; say replace=True to put yours in its place")
            frame = inspect.currentframe()
            nearby = frame.f_back.f_locals if frame and frame.f_back else {}
            ask = _ask_of(name, function, nearby)
            self.actions[name] = Action(name, ask, msgspec.json.Decoder(ask), function)
            return function

        return register

    def before(self, name: str) -> Callable[[Function], Function]:
        """Register `async def f(chat, by, ask)` to run before the action `name`.

        It refuses by raising a `hubbub.errors.HubbubError`, changes by returning another ask, and agrees with None. The
        ask is what the action's struct says; hooks run in the order of their registration.
        """

        def register(function: Function) -> Function:
            _require_coroutine(function, f"before({name!r})")
            self.befores.setdefault(name, []).append(function)
            return function

        return register

    def on(self, entry_type: str) -> Callable[[Function], Function]:
        """Register `async def f(chat, entry)` to run after an entry of that type was stored and handed out.

        What it raises is logged and hurts nobody; the sender's acknowledgement does not wait for it. A hook may write
        entries of its own, which hooks hear of in turn, up to ten times in a chain. The first entries of a room, which
        are written as it is made, are handed out to nobody and so are not told either.

        Raises:
            ValueError: there is no such type of entry.

        """
        types = [type_of(kind) for kind in ENTRY_TYPES]
        if entry_type not in types:
            raise ValueError(f"there is no entry type {entry_type!r}; expected one of {', '.join(types)}")

        def register(function: Function) -> Function:
            _require_coroutine(function, f"on({entry_type!r})")
            self.listeners.setdefault(entry_type, []).append(function)
            return function

        return register


def _require_coroutine(function: Callable[..., Any], what: str) -> None:
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{what} expects an `async def` function, got {function!r}")


def _ask_of(name: str, function: Callable[..., Any], nearby: Mapping[str, Any]) -> type[Ask]:
    """The struct that the function's last parameter is annotated with; `nearby` are the names where it is defined."""
    _require_coroutine(function, f"action({name!r})")
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 3:
        raise TypeError(f"action({name!r}) expects a function of (chat, by, ask), got one of ({', '.join(parameters)})")
    # Only the last annotation matters; the others may be names that exist for type checkers alone.
    annotation = function.__annotations__.get(parameters[2])
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, {**function.__globals__, **nearby})  # noqa: S307  the programmer's own
        except NameError as error:
            raise TypeError(f"action({name!r}): the annotation {annotation!r} cannot be found: {error}") from error
    if not (isinstance(annotation, type) and issubclass(annotation, Ask)):
        raise TypeError(f"action({name!r}) expects its last parameter annotated with a subclass of hubbub.Ask")
    return annotation


BUILT_IN = Registry()
"""The chat's own actions; every `Chat` starts with them."""

action = BUILT_IN.action

__all__ = ["BUILT_IN", "Action", "Entry", "Registry", "action"]
