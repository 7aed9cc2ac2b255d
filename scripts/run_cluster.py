"""`make run-cluster`: a whole cluster on this machine, and whatever of it dies is started again.

It prints where the page is and which processes there are to be killed. What was said is kept for the next run.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TextIO

from scripts.cluster import Cluster
from scripts.servers import Missing, Server

DATA = Path("hubbub-data/cluster")
"""Where logs and the secret are, and PostgreSQL's data unless we are root."""

ROOTS_DATA = Path("/var/lib/hubbub-cluster")
"""Where PostgreSQL's data is if we are root: it runs as another user then, who must get there."""

LOOK_S = 0.1
BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 5.0)
"""How long a part that ended waits to be started again: nothing at first, longer when it does not stay."""

STEADY_S = 10.0
"""A part that was there for so long has not ended for lack of another one."""


class CannotRun(Exception):
    """The cluster cannot be started; the message says why."""


class Keeper:
    """Starts a part again whenever it has ended, and says so.

    Args:
        name: what people call the part.
        part: which one.
        say: prints a line.

    """

    def __init__(self, name: str, part: Server, say: Callable[[str], None]) -> None:
        self._name = name
        self._part = part
        self._say = say
        self._bad = 0
        self._gone_at: float | None = None
        self._since = time.monotonic()
        self._next_at = 0.0
        self._is_begun = True

    def look(self) -> None:
        """Do what is to be done now; it never waits."""
        now = time.monotonic()
        if self._gone_at is None:
            if not self._part.is_running:
                self._lost(now)
        elif not self._is_begun:
            if now >= self._next_at:
                self._part.kill()  # what a killed one has left behind, such as nginx's workers
                self._part.begin()
                self._is_begun = True
        elif self._part.is_running:
            if self._part.is_ready():
                took_s = now - self._gone_at
                self._say(f"{self._name} is back after {took_s:.1f} s, pid {self._part.pid}")
                self._gone_at, self._since = None, now
        else:  # it did not come so far
            self._retry(now)

    def _lost(self, now: float) -> None:
        if now - self._since >= STEADY_S:
            self._bad = 0
        self._gone_at = now
        self._say(f"{self._name} has ended ({_ended(self._part)}); starting it again")
        self._retry(now)

    def _retry(self, now: float) -> None:
        self._is_begun = False
        self._next_at = now + BACK_OFF_S[min(self._bad, len(BACK_OFF_S) - 1)]
        self._bad += 1


def _ended(part: Server) -> str:
    status = part.process.poll() if part.process else None
    if status is None or status >= 0:
        return f"status {status}, its log is {part.log}"
    return signal.Signals(-status).name


def run(port: int, *, nodes: int, data: Path, postgres: Path, say: Callable[[str], None]) -> None:
    """Run a cluster until SIGINT or SIGTERM, and leave nothing running.

    Args:
        port: of nginx.
        nodes: how many there are.
        data: where logs and the secret are.
        postgres: where PostgreSQL's data is.
        say: prints a line.

    Raises:
        CannotRun: a port is taken, another one runs here, or a part does not start.

    """
    asked: list[int] = []

    def received(number: int, frame: FrameType | None) -> None:
        if asked:
            os._exit(128 + number)  # the parts end when we do
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, received)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(data / "lock"):
        _require_free(port)
        secret = _secret(data / "secret")
        cluster = Cluster(
            nodes=nodes,
            folder=data.absolute(),
            data=postgres.absolute(),
            port=port,
            secret=secret,
            settings={"dev": "true", "drain_s": "1"},
            dies_with_starter=True,
        )
        say("Starting PostgreSQL, NATS, the nodes and nginx …")
        try:
            cluster.start()
        except RuntimeError as error:
            raise CannotRun(str(error)) from error
        try:
            _introduce(cluster, data, say)
            keepers = [Keeper(name, part, say) for name, part in cluster.parts]
            while not asked:
                for keeper in keepers:
                    keeper.look()
                time.sleep(LOOK_S)
        finally:
            say("Ending …")
            cluster.stop()


def _introduce(cluster: Cluster, data: Path, say: Callable[[str], None]) -> None:
    say(f"Hubbub's cluster is running: {cluster.url}")
    say("Open it in two tabs and be two people. Then kill -9 what you like: it is started again, and nothing is lost.")
    for name, part in cluster.parts:
        say(f"  {name:<11} pid {part.pid:<8} port {part.port}")
    say(f"A token for your own client: HUBBUB_SECRET_FILE={data / 'secret'} .venv/bin/hubbub token --user alice")
    say(f"Logs are in {data}; Ctrl-C ends all.")


def _locked(file: Path) -> TextIO:
    """Hold a file for as long as we run.

    Raises:
        CannotRun: another process does.

    """
    held = file.open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise CannotRun(f"Another cluster runs here already: {file} is held. End that one first.") from None
    return held


def _require_free(port: int) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError as error:
        words = f"The port {port} cannot be had: {error.strerror}. Choose another: make run-cluster PORT={port + 80}"
        raise CannotRun(words) from None


def _secret(file: Path) -> str:
    """What tokens are signed with, by all nodes and in all runs."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(f"{secrets.token_hex(32)}\n")
    return file.read_text().strip()


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="run_cluster", description="Run a whole cluster on this machine.")
    parser.add_argument("--port", type=int, default=8000, help="of nginx, where the page is")
    parser.add_argument("--nodes", type=int, default=3, help="how many")
    parser.add_argument("--data", type=Path, default=DATA, help="for logs and the secret")
    parser.add_argument("--postgres", type=Path, help="for PostgreSQL's data; by default beside the logs")
    given = parser.parse_args()
    postgres = given.postgres or (ROOTS_DATA if os.geteuid() == 0 else given.data / "postgres")
    try:
        run(given.port, nodes=given.nodes, data=given.data, postgres=postgres, say=_say)
    except (CannotRun, Missing) as error:
        print(f"run-cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
