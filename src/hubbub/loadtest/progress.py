"""What is shown while a load test runs: one line that changes on a terminal, and elsewhere one every few seconds."""

from __future__ import annotations

import shutil
from typing import TextIO

from hubbub.loadtest.result import Second

_EVERY = 5
"""Seconds between lines where there is no terminal."""


class Progress:
    """Shows each second's figures.

    Args:
        out: where to.

    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lives = out.isatty()
        self._seconds = 0
        self._waits = 0

    def __call__(self, second: Second, where: str) -> None:
        """Show it."""
        words = _words(second, where)
        if self._lives:
            self._line(words)
        elif self._seconds % _EVERY == 0:
            self._out.write(words + "\n")
        self._seconds += 1
        self._out.flush()

    def wait(self, what: str) -> None:
        """Show what is done before the first connection."""
        if self._lives:
            self._line(what)
        elif self._waits % _EVERY == 0:
            self._out.write(what + "\n")
        self._waits += 1
        self._out.flush()

    def _line(self, words: str) -> None:
        width = shutil.get_terminal_size().columns
        self._out.write(f"\r{words[: width - 1]}\x1b[K")

    def end(self) -> None:
        """Leave the line empty for what follows."""
        if self._lives:
            self._out.write("\r\x1b[K")
            self._out.flush()


def _words(second: Second, where: str) -> str:
    words = [where]
    if second.phase != "connect":
        words.append(f"{second.live:,} connected")
        words.append(f"{second.sent:,} sent/s")
        words.append(f"{second.delivered:,} delivered/s")
        words += [
            f"{name} p99 {found.p99:,.1f} ms"
            for name, found in (("ack", second.ack), ("delivery", second.delivery))
            if found.p99 is not None
        ]
    words += [
        f"{count:,} {what}"
        for count, what in ((second.refused, "refused"), (second.failed, "failed"), (second.closed, "closed"))
        if count
    ]
    if second.server_cpu is not None and second.server_rss is not None:
        words.append(f"server {second.server_cpu:.0%} {second.server_rss / 1e6:,.0f} MB")
    words.append(f"bench {second.load_cpu:.0%}")
    return "  ".join(words)
