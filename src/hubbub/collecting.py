"""When Python's garbage collector looks at what, so that its pauses do not grow with what a process holds.

What the process begins with, and later whatever has survived a full collection, is set aside for good (`gc.freeze`). A
full collection then only looks at what came since the last one, whether the process holds a hundred connections or a
hundred thousand. What is set aside is still freed by its counts of references, as nearly everything is; only what
forms a cycle after that stays until the process ends. Connections form none once they are closed.
"""

from __future__ import annotations

import gc
import time
from types import TracebackType
from typing import Literal

YOUNG = 1_000
"""How many more objects must have been made than freed for a young collection."""

MIDDLE, FULL = 10, 2
"""After how many young ones the survivors are looked at, and after how many of those there is a full collection.

So a full one looks at some 30,000 objects, what two thousand connections need, however many there are.
"""


class Pauses:
    """How long the collector has halted the process, from entering on.

    Attributes:
        longest_s: the longest, in seconds.
        total_s: all together.
        count: how many there were.

    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.total_s = 0.0
        self.count = 0
        self._began_at: float | None = None  # None while there is no collection

    def __repr__(self) -> str:
        return f"<Pauses {self.count}, the longest {self.longest_s * 1_000:.1f} ms>"

    def forget(self) -> None:
        """Count from here on: what was before is the start's affair."""
        self.longest_s = self.total_s = 0.0
        self.count = 0

    def __enter__(self) -> Pauses:
        gc.callbacks.append(self._noticed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.callbacks.remove(self._noticed)

    def _noticed(self, phase: Literal["start", "stop"], info: dict[str, int]) -> None:
        if phase == "start":
            self._began_at = time.perf_counter()
        elif self._began_at is not None:
            took_s = time.perf_counter() - self._began_at
            self._began_at = None
            self.count += 1
            self.total_s += took_s
            self.longest_s = max(self.longest_s, took_s)


class SettingAside:
    """The policy above, from entering to leaving; for a process that serves, not for one that embeds a node."""

    def __init__(self) -> None:
        self._before = gc.get_threshold()

    def __enter__(self) -> SettingAside:
        self._before = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.collect()  # nothing is left, which it must know: it waits with a full one until a quarter more is there
        gc.set_threshold(YOUNG, MIDDLE, FULL)
        gc.callbacks.append(self._noticed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.callbacks.remove(self._noticed)
        gc.set_threshold(*self._before)
        gc.unfreeze()

    def _noticed(self, phase: Literal["start", "stop"], info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2:
            gc.freeze()  # the survivors, and the few younger ones that there are just now
