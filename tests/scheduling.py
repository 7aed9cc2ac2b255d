"""What a worker runs in one go, where tests are spread over several (`pytest --dist loadfile`)."""

from __future__ import annotations

import re

from xdist.scheduler import LoadFileScheduling

OF_A_HOME = re.compile(r"(?:tests/)?homes/.*\[(\w+)")


class Scheduling(LoadFileScheduling):
    """The tests of a file, with the servers that they share; and all tests in a home, which is then started once.

    They begin in the order in which they are collected.
    """

    def _split_scope(self, nodeid: str) -> str:
        home = OF_A_HOME.match(nodeid)
        return super()._split_scope(nodeid) if home is None else f"homes[{home[1]}]"
