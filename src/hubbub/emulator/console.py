"""What `hubbub local` shows: one table of what runs where, then what functions log, each function in its colour."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from rich.console import Console as Terminal
from rich.table import Table
from rich.text import Text

from hubbub.emulator.functions import LogLine, Report

if TYPE_CHECKING:
    from hubbub.emulator.running import RunningStack

COLOURS = ("cyan", "magenta", "yellow", "blue", "green", "bright_cyan", "bright_magenta", "bright_yellow")

_NOISE = ("START ", "END ", "REPORT ", "INIT_START ")
"""How lines begin that CloudWatch has for every invocation; `report` says it in fewer words."""

_PLAIN_WIDTH = 160
"""How wide tables are where there is no terminal to ask."""


class Console:
    """Writes for somebody who watches.

    Args:
        stream: where to; standard error by default, since a command's own output may go to standard output.

    """

    def __init__(self, stream: TextIO | None = None) -> None:
        chosen = stream or sys.stderr
        width = None if chosen.isatty() else _PLAIN_WIDTH
        self._terminal = Terminal(file=chosen, highlight=False, soft_wrap=True, width=width)
        self._colours: dict[str, str] = {}
        self._width = 0

    def name_functions(self, names: Iterable[str]) -> None:
        """Give functions their colours, and their names one width."""
        for name in names:
            self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
            self._width = max(self._width, len(name))

    def say(self, words: str) -> None:
        """Something that is good to know."""
        self._terminal.print(Text(words))

    def warn(self, words: str) -> None:
        """Something that is not as it should be."""
        self._terminal.print(Text(words, style="yellow"))

    def line(self, line: LogLine) -> None:
        """A line that a function printed."""
        if line.stream == "platform" and line.text.startswith(_NOISE):
            return
        style = "yellow" if line.stream == "platform" else "red" if line.stream == "stderr" else ""
        self._terminal.print(self._head(line.function, line.at) + Text(_visible(line.text), style=style))

    def report(self, report: Report) -> None:
        """An invocation has ended."""
        words = f"{report.duration_ms:.0f} ms"
        if report.init_ms is not None:
            words += f", after {report.init_ms:.0f} ms to start"
        words += f", {report.memory_mb} of {report.memory_limit_mb} MB"
        if report.status != "success":
            words = f"{report.error_type or report.status}: {words}"
        style = "dim" if report.status == "success" else "bold red"
        self._terminal.print(self._head(report.function, time.time()) + Text(words, style=style))

    def _head(self, function: str, at: float) -> Text:
        clock = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1_000) % 1_000:03d} "
        name = Text(f"{function:<{self._width}} ", style=self._colours.get(function, ""))
        return Text.assemble((clock, "dim"), name, ("│ ", "dim"))

    def show(self, running: RunningStack) -> None:
        """Everything that runs, as one table."""
        table = Table(title=None, box=None, pad_edge=False, show_header=False)
        for column in ("bold", "", "dim"):
            table.add_column(style=column, overflow="fold")
        stack = running.stack
        for api in running.apis:
            for url in api.urls:
                table.add_row("address", url, api.definition.name)
            for route in api.definition.routes:
                notes: list[str] = [route.authorization] if route.authorization != "NONE" else []
                notes += ["API key"] if route.api_key_required else []
                notes += ["answers"] if route.two_way else []
                table.add_row("route", Text(route.key), f"{running.target_of(route)}  {', '.join(notes)}".strip())
        for function in stack.functions:
            limits = f"{function.runtime}, {function.memory_mb} MB, {function.timeout_s:g} s"
            table.add_row("function", Text(function.name, style=self._colours.get(function.name, "")), limits)
        for source in stack.sources:
            table.add_row("source", f"{source.source} ({source.kind})", source.function)
        for resource in stack.resources:
            table.add_row("resource", resource.name, resource.type)
        for service, url in running.endpoints.items():
            table.add_row("endpoint", url, service)
        for name, value in stack.outputs.items():
            table.add_row("output", str(value), name)
        self._terminal.print(table)
        for each in stack.unsupported:
            self.warn(f"not here: {each.logical_id} ({each.type}): {each.meaning}")

    def fail(self, words: str) -> None:
        """Why it is over."""
        self._terminal.print(Text(words, style="red"))


def _visible(text: str) -> str:
    """A line without what would move the cursor or colour more than itself."""
    return "".join(char if char.isprintable() or char == "\t" else f"\\x{ord(char):02x}" for char in text)
