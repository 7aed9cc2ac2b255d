"""What is shown while a load test runs: one line that changes on a terminal, and elsewhere one every few seconds."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TextIO

from hubbub.loadtest.result import Second

_EVERY = 5
"""Seconds between lines where there is no terminal."""

_BETWEEN = "  "


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
            self._out.write(_BETWEEN.join(words) + "\n")
        self._seconds += 1
        self._out.flush()

    def wait(self, what: str) -> None:
        """Show what is done before the first connection."""
        if self._lives:
            self._line([what])
        elif self._waits % _EVERY == 0:
            self._out.write(what + "\n")
        self._waits += 1
        self._out.flush()

    def _line(self, words: Sequence[str]) -> None:
        """Write it over the last one: what matters most comes first, and what does not fit is left out."""
        room = shutil.get_terminal_size().columns - 1
        line = words[0][:room]
        for each in words[1:]:
            if len(line) + len(_BETWEEN) + len(each) > room:
                break
            line += _BETWEEN + each
        self._out.write(f"\r{line}\x1b[K")

    def end(self) -> None:
        """Leave the line empty for what follows."""
        if self._lives:
            self._out.write("\r\x1b[K")
            self._out.flush()


def _words(second: Second, where: str) -> list[str]:
    words = [where]
    if second.phase != "connect":
        words += [f"{second.live:,} connected", f"{second.sent:,} sent/s", f"{second.delivered:,} delivered/s"]
    words += [
        f"{count:,} {what}"
        for count, what in ((second.refused, "refused"), (second.failed, "failed"), (second.closed, "closed"))
        if count
    ]
    if second.ack.p99 is not None:
        words.append(f"p99 ack {second.ack.p99:,.1f} ms")
    if second.delivery.p99 is not None:
        words.append(f"p99 delivery {second.delivery.p99:,.1f} ms")
    if second.server_cpu is not None and second.server_rss is not None:
        words.append(f"server {second.server_cpu:.0%} {second.server_rss / 1e6:,.0f} MB")
    words.append(f"bench {second.load_cpu:.0%}")
    return words
