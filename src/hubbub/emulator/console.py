"""What `hubbub local` shows: one table of what runs where, then what functions log, each function in its colour."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import NamedTuple, TextIO

from rich.console import Console as Terminal
from rich.text import Text

from hubbub.emulator.definition import RouteDefinition
from hubbub.emulator.functions import LogLine, Report
from hubbub.emulator.running import RunningStack, listed

COLOURS = ("cyan", "magenta", "yellow", "blue", "green", "bright_cyan", "bright_magenta", "bright_yellow")

_NOISE = ("START ", "END ", "REPORT ", "INIT_START ")
"""How lines begin that CloudWatch has for every invocation; `report` says it in fewer words."""


class Row(NamedTuple):
    """A row of the table: what it is, what it is called, and the rest."""

    kind: str
    name: str
    rest: str = ""
    colour: str = ""


class Console:
    """Writes for somebody who watches.

    Args:
        stream: where to; standard error by default, since a command's own output may go to standard output.

    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._terminal = Terminal(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self._running: RunningStack | None = None  # whose functions are called by their labels
        self._colours: dict[str, str] = {}  # by function
        self._width = 0  # of labels
        self._notices: dict[str, list[str]] | None = {}  # functions by what was said of them; None once it is shown

    def attach(self, running: RunningStack) -> None:
        """Call functions what this stack calls them."""
        self._running = running

    def say(self, words: str) -> None:
        """Something that is good to know."""
        self._terminal.print(Text(words))

    def warn(self, words: str) -> None:
        """Something that is not as it should be."""
        self._terminal.print(Text(words, style="yellow"))

    def fail(self, words: str) -> None:
        """Why it is over."""
        self._tell_notices()
        self._terminal.print(Text(f"hubbub: {words}", style="red"))

    def line(self, line: LogLine) -> None:
        """A line that a function printed, or that is said of one; what is said at the start is told together."""
        if line.stream == "platform" and line.text.startswith(_NOISE):
            return
        if line.stream == "platform" and line.request_id is None and self._notices is not None:
            self._notices.setdefault(line.text, []).append(line.function)
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
        label = self._label(function)
        self._width = max(self._width, len(label))
        return Text.assemble((clock, "dim"), (f"{label:<{self._width}} ", self._colour(function)), ("│ ", "dim"))

    def _label(self, function: str) -> str:
        return function if self._running is None else self._running.labels.get(function, function)

    def _colour(self, function: str) -> str:
        return self._colours.setdefault(function, COLOURS[len(self._colours) % len(COLOURS)])

    def show(self, running: RunningStack) -> None:
        """Everything that runs, as one table, and what is not as it would be on AWS."""
        self._width = max(map(len, running.labels.values()), default=0)
        rows = [*self._apis(running), *self._functions(running), *_others(running)]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        before = ""
        for kind, name, rest, colour in rows:
            shown = kind if kind != before else ""
            before = kind
            cell = name.ljust(widths[1]) if rest else name
            self._terminal.print(
                Text.assemble((f"{shown:<{widths[0]}}  ", "bold"), (cell, colour), (f"  {rest}" if rest else "", "dim"))
            )
        for each in running.stack.unsupported:
            self.warn(f"not here: {each.logical_id} ({each.type}): {each.meaning}")
        self._tell_notices()

    def _tell_notices(self) -> None:
        """Tell what was said of functions at the start: once, however many it was said of."""
        notices, self._notices = self._notices, None
        for text, functions in (notices or {}).items():
            self.warn(f"{listed(map(self._label, functions))}: {text}")

    def _apis(self, running: RunningStack) -> Iterator[Row]:
        for api in running.apis:
            for url in api.urls:
                yield Row("address", url, api.definition.name)
            for url in api.domain_urls:
                yield Row("address", url, f"{api.definition.name}, for who resolves that name to this machine")
            for route in api.definition.routes:
                yield Row("route", route.key, self._of_route(running, route))
        for http in running.http_apis:
            for url in http.urls:
                yield Row("address", url, http.definition.name)
            for url in http.domain_urls:
                yield Row("address", url, f"{http.definition.name}, for who resolves that name to this machine")
            for called in http.definition.routes:
                name = "nothing" if called.function is None else self._label(called.function.rpartition(":")[2])
                yield Row("route", called.key, name)

    def _of_route(self, running: RunningStack, route: RouteDefinition) -> str:
        notes: list[str] = []
        if route.authorizer is not None:
            notes.append(f"authorizer {self._label(route.authorizer.function.rpartition(':')[2])}")
        elif route.authorization == "AWS_IAM":
            notes.append("signed with AWS keys")
        notes += ["with an API key"] if route.api_key_required else []
        notes += ["answers"] if route.two_way else []
        return ", ".join([self._label(running.target_of(route)), *notes])

    def _functions(self, running: RunningStack) -> Iterator[Row]:
        for function in running.stack.functions:
            label = self._label(function.name)
            limits = [function.runtime, f"{function.memory_mb} MB", f"{function.timeout_s:g} s"]
            full = [function.name] if function.name != label else []
            yield Row("function", label, ", ".join([*full, *limits]), self._colour(function.name))
        for source in running.stack.sources:
            yield Row("source", source.source, f"{source.kind}, invokes {self._label(source.function)}")


def _others(running: RunningStack) -> Iterator[Row]:
    for resource in running.stack.resources:
        yield Row("resource", resource.logical_id, f"{resource.type.removeprefix('AWS::')} {resource.name}")
    for service, url in running.endpoints.items():
        yield Row("endpoint", url, "Lambda's API" if service == "lambda" else "all other services of AWS")
    for name, value in running.stack.outputs.items():
        here = running.here(str(value))
        yield Row("output", name, str(value) if here is None else f"{value}, here {here}")


def _visible(text: str) -> str:
    """A line without what would move the cursor or colour more than itself."""
    return "".join(char if char.isprintable() or char == "\t" else f"\\x{ord(char):02x}" for char in text)
