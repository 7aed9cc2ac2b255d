"""What `hubbub bench` does with its flags, and its exit status: 0 for a pass, 1 for a fail, 130 when ended by hand."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import uvloop
from rich.console import Console

from hubbub.loadtest.coordinating import CannotRun, Coordinator
from hubbub.loadtest.page import page
from hubbub.loadtest.plan import Plan, PlanError, plan, raise_open_files
from hubbub.loadtest.progress import Progress
from hubbub.loadtest.report import show
from hubbub.loadtest.result import Result, document

_WIDTH = 118
_INTERRUPTED = 130


def run(
    url: str,
    given: Mapping[str, object],
    out: TextIO,
    progress: TextIO,
    version: str,
    *,
    secret: str | None = None,
    audience: str | None = None,
    issuer: str | None = None,
) -> int:
    """Do the load test that the flags ask for; returns the exit status.

    Args:
        url: of the WebSocket.
        given: the flags; what was not given is None or False.
        out: where the result goes.
        progress: where it is shown how far it is.
        version: of Hubbub.
        secret, audience, issuer: of tokens, where no flag says where they come from.

    Raises:
        PlanError: a flag cannot be that, or a file cannot be written.
        CannotRun: the server cannot be reached, or refuses; or it was ended before there was anything to tell.

    """
    what = plan(url, given, secret=secret, audience=audience, issuer=issuer)
    files = {name: str(given[name]) for name in ("json", "html") if given.get(name) is not None}
    for name, path in files.items():
        if path != "-":
            _check_writable(name, path)
        elif name == "html":
            raise PlanError("html: expected a file that can be written, got '-'; only --json goes to standard output")
    raise_open_files()
    result = uvloop.run(_run(what, progress, version))
    if "html" in files:
        _write("html", files["html"], page(result).encode())
    if files.get("json") == "-":
        out.write(document(result).decode())
    else:
        if "json" in files:
            _write("json", files["json"], document(result))
        show(result, Console(file=out, highlight=False, width=None if out.isatty() else _WIDTH))
    return _INTERRUPTED if result.interrupted else 0 if result.passed else 1


async def _run(what: Plan, out: TextIO, version: str) -> Result:
    progress = Progress(out)
    coordinator = Coordinator(what, progress, version, progress.wait)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, coordinator.stop)
    try:
        return await coordinator.run()
    finally:
        progress.end()


def _check_writable(name: str, path: str) -> None:
    """Find out now whether a file can be written; what an earlier load test wrote stays until there is a result."""
    file = Path(path)
    was_there = file.exists()
    try:
        with file.open("ab"):
            pass
        if not was_there:
            file.unlink()
    except OSError as error:
        raise PlanError(f"{name}: expected a file that can be written, got {path!r}: {error.strerror}") from None


def _write(name: str, path: str, content: bytes) -> None:
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise PlanError(f"{name}: expected a file that can be written, got {path!r}: {error.strerror}") from None


__all__ = ["CannotRun", "PlanError", "run"]
