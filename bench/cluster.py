"""The cluster under measurement: PostgreSQL that waits for the disk, NATS, nodes of Hubbub, and what each of them uses.

Everything runs on this machine, beside the load: what is compared is processor time, and clocks only within one run.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
from scripts.cluster import Cluster, Node
from scripts.servers import Postgres

from bench.load import SECRET, Client, Server, processor_s

SETTINGS = {"rate": "0", "user_rate": "0", "log_level": "warning"}
"""Of all nodes: nobody is held back for being quick."""


class Cpu(NamedTuple):
    """Processor time in seconds: of nodes, of PostgreSQL with all its processes, of the NATS servers."""

    nodes: float
    postgres: float
    nats: float

    def since(self, before: Cpu) -> Cpu:
        """What was used from `before` until this."""
        return Cpu(*(now - then for now, then in zip(self, before, strict=True)))

    @property
    def total(self) -> float:
        """Of all of them."""
        return sum(self)


def cpu_of(pid: int) -> float:
    """Processor time of a process and of all that it has started, ended ones too, in seconds.

    Processes that run are read to the nanosecond, their ended threads with them; processes that ended to a hundredth of
    a second.
    """
    used = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                used += processor_s(process.pid)
                times = process.cpu_times()
                used += times.children_user + times.children_system
    return used


def cpu(cluster: Cluster, nodes: Sequence[Node]) -> Cpu:
    """What these nodes, and all of PostgreSQL and NATS, have used so far."""
    return Cpu(
        sum(cpu_of(node.pid) for node in nodes),
        cpu_of(cluster.postgres.pid),
        sum(cpu_of(server.pid) for server in cluster.nats.servers),
    )


def rss(node: Node) -> int:
    """The node's resident memory in bytes."""
    return int(psutil.Process(node.pid).memory_info().rss)


def as_server(node: Node) -> Server:
    """A node, as clients of `bench.load` want it."""
    assert node.process is not None
    return Server(node.process, node.port, node.ws_url)


@contextlib.contextmanager
def running_cluster(
    *, nodes: int = 3, nats: int = 1, safe: bool = True, settings: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A cluster whose PostgreSQL counts what it is asked.

    Args:
        nodes: how many.
        nats: how many NATS servers.
        safe: whether PostgreSQL waits for the disk.
        settings: of the nodes, besides `SETTINGS`.

    """
    counting = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "top"}
    server = Postgres(safe=safe, settings=counting)
    server.dies_with_starter = True  # also when somebody ends this process in the middle
    with server as postgres:
        postgres.run_sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements", "hubbub")
        chosen = {**SETTINGS, **(settings or {})}
        with Cluster(
            nodes=nodes, nats=nats, postgres=postgres, settings=chosen, secret=SECRET, dies_with_starter=True
        ) as cluster:
            yield cluster


@contextlib.contextmanager
def lone_node(**settings: str) -> Iterator[Node]:
    """A node on a SQLite file of its own, with nobody beside it."""
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
        own = {"store": f"sqlite:///{folder}/bench.db", "secret": SECRET, "drain_s": "0", **SETTINGS, **settings}
        node = Node("alone", own, folder=Path(folder))
        node.dies_with_starter = True
        with node:
            yield node


def disconnect(clients: Sequence[Client]) -> None:
    """End their connections."""
    for client in clients:
        assert client.transport is not None
        client.transport.disconnect()


class _Statement(msgspec.Struct, array_like=True):
    query: str
    calls: int


def statements(postgres: Postgres) -> dict[str, int]:
    """How often each statement of the nodes was run since the count was begun anew, by its text."""
    found = postgres.run_sql(
        "SELECT coalesce(json_agg(json_build_array(query, calls)), '[]') FROM pg_stat_statements s"
        " JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = 'hubbub' AND query NOT LIKE '%pg_stat_statements%'",
        "hubbub",
    )
    counted: dict[str, int] = {}
    for each in msgspec.json.decode(found, type=list[_Statement]):
        text = " ".join(each.query.split())
        counted[text] = counted.get(text, 0) + each.calls
    return counted


def forget_statements(postgres: Postgres) -> None:
    """Begin the count anew."""
    postgres.run_sql("SELECT pg_stat_statements_reset()", "hubbub")
