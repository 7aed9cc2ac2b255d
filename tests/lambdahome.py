"""An environment of Lambda's without Lambda: handlers are called as the runtime does, over a chat that is in memory."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chatlab import Lab, lab
from hubbub.chat import Chat
from hubbub.config import Settings
from hubbub.lambdas import home as homes
from hubbub.lambdas import logs
from hubbub.lambdas.home import Home
from hubbub.lambdas.place import Place

SECRET = "a secret for tests that is long enough to be one"
RECORDED = Path(__file__).parent / "conformance" / "recorded"


class Context:
    """What the runtime says of an invocation."""

    def __init__(self, left_ms: int = 30_000) -> None:
        self.aws_request_id = "11111111-2222-3333-4444-555555555555"
        self.function_name = "talk-socket"
        self._left_ms = left_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._left_ms


class LabHome(Home):
    """A home whose chat is one of `chatlab`.

    Attributes:
        lab: the chat's lab, once it is open.
        away: what opening the chat raises; None when it opens.
        broadcaster_is: what stands for the broadcaster.

    """

    lab: Lab

    def __init__(self, chat: Chat | None = None, **place: Any) -> None:
        super().__init__(Place(**{"region": "eu-west-1", "settings": Settings(secret=SECRET), **place}))
        self.away: Exception | None = None
        self.broadcaster_is: Any = None
        self.sweeps: list[tuple[str, Any]] = []
        self._given = chat

    async def _open_chat(self) -> Chat:
        if self.away is not None:
            raise self.away
        self.lab = await self._stack.enter_async_context(lab(self._given))
        self.clock = self.lab.clock
        return self.lab.chat

    async def _open_broadcaster(self) -> Any:
        return self.broadcaster_is

    async def chores(self) -> list[tuple[str, Any]]:
        return self.sweeps


@contextmanager
def living(monkeypatch: pytest.MonkeyPatch, home: LabHome) -> Iterator[LabHome]:
    """This process is an environment of that home."""
    monkeypatch.setattr(homes, "_current", home)
    try:
        yield home
    finally:
        home.close()


class Written:
    """What was written to the log, line by line."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All of it; each line is a JSON object."""
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def words(self) -> list[dict[str, Any]]:
        """The lines that are no metrics."""
        return [line for line in self.lines if "_aws" not in line]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics."""
        return [line for line in self.lines if "_aws" in line]


@contextmanager
def written(monkeypatch: pytest.MonkeyPatch, level: str = "debug") -> Iterator[Written]:
    """Handlers log as on Lambda, into a text."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers, root.level
    monkeypatch.setattr(logs, "_stream", None)
    logs.configure(level, stream)
    try:
        yield Written(stream)
    finally:
        root.handlers = before[0]
        root.setLevel(before[1])  # and not by the attribute: loggers keep what they found to be enabled
        logging.captureWarnings(False)


def recorded(name: str) -> dict[str, Any]:
    """An event as AWS sent it to somebody."""
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))["event"]


def from_client(connection: str, authorizer: dict[str, Any], body: str, route: str = "$default") -> dict[str, Any]:
    """A message as API Gateway hands it over, of a connection that an authorizer let in."""
    event = recorded("message")
    event["requestContext"] |= {"routeKey": route, "connectionId": connection, "authorizer": authorizer}
    return {**event, "body": body}
