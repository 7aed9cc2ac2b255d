"""PostgreSQL and NATS that many tests share, and workers of one machine on them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
from scripts.cluster import Node
from scripts.servers import Nats, Postgres, free_port

from live import BOUND_S, SECRET, until


class Shared(NamedTuple):
    """Servers that run, and are left running.

    Attributes:
        postgres: with a database for each test.
        nats: with a prefix for each test.

    """

    postgres: Postgres
    nats: Nats

    def settings(self) -> dict[str, str]:
        """Of nodes that have a database and subjects of their own, and share them."""
        name = f"t{uuid.uuid4().hex[:12]}"
        return {
            "store": self.postgres.create_database(name),
            "fanout": f"{self.nats.url}?prefix={name}",
            "secret": SECRET,
            "drain_s": "0.5",
        }


@contextmanager
def shared() -> Iterator[Shared]:
    """Both, started."""
    with Postgres() as postgres, Nats() as nats:
        yield Shared(postgres, nats)


class Workers(Node):
    """`hubbub serve --workers N`, with an admin port for each.

    Attributes:
        count: how many workers there are to be.
        admin_port: of the first.
        starts: how often they were started.

    """

    def __init__(self, count: int, settings: dict[str, str], *, folder: Path) -> None:
        self.count = count
        self.admin_port = free_ports(count)
        self.starts = 0
        own = {"workers": str(count), "admin_port": str(self.admin_port)}
        super().__init__("workers", {**own, **settings}, folder=folder)

    async def begin_all(self) -> None:
        """Start them, and return when their address is announced."""
        self.begin()
        self.starts += 1
        await until(lambda: self.said.count("is running: ") == self.starts or not self.is_running, "an address")
        assert self.is_running, self.said

    @property
    def pids(self) -> list[int]:
        """The workers, by the ports that they listen on."""
        found: dict[int, int] = {}
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                for each in child.net_connections("tcp"):
                    if each.status == psutil.CONN_LISTEN and each.laddr.port != self.port:
                        found[each.laddr.port] = child.pid
        return [pid for _, pid in sorted(found.items())]

    async def ended(self) -> int:
        """The parent's exit status, once it has ended."""
        assert self.process is not None, "not started"
        return await asyncio.to_thread(self.process.wait, BOUND_S)

    def lines_of(self, worker: int) -> list[str]:
        """What one of them has logged."""
        return [line for line in self.said.splitlines() if re.search(rf'"worker": {worker}\b', line)]


def free_ports(count: int) -> int:
    """The first of several free ports in a row."""
    for _ in range(100):
        first = free_port()
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise OSError(f"there are no {count} free ports in a row")


def _is_free(port: int) -> bool:
    return all(each.laddr.port != port for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN)
