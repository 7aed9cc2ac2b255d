"""A whole cluster on this machine: PostgreSQL, NATS servers that know each other, nodes of Hubbub, nginx in front.

For `make run-cluster`, for tests and for benchmarks. Every part is a `Server` that can be killed, paused and started
again at the same address; nothing here is part of Hubbub itself.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.servers import Missing, NatsCluster, Postgres, Server, free_port

_NOT_OURS = ("HUBBUB_", "AWS_")

NGINX = """\
daemon off;
worker_processes 1;
error_log stderr warn;
pid {folder}/nginx.pid;
{user}
events {{
    worker_connections 8192;
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        "" "";
    }}
    upstream hubbub {{
{upstreams}
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://hubbub;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_next_upstream error timeout http_503;
            proxy_connect_timeout 2s;
            proxy_read_timeout 90s;
            proxy_send_timeout 90s;
            proxy_buffering off;
        }}
    }}
}}
"""
"""nginx's configuration: round robin over the nodes, so that connections land on different ones."""


class Node(Server):
    """`hubbub serve`, on a port that it keeps.

    Args:
        name: what it is called in a list of processes and in its log's name.
        settings: of Hubbub, by their names, such as `drain_s="1"`.
        folder: for its log and its data.
        port: where it takes connections; None for a free one.

    Attributes:
        name: so.
        settings: what a next start has.

    """

    def __init__(self, name: str, settings: Mapping[str, str], *, folder: Path, port: int | None = None) -> None:
        port = port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__([sys.executable, "-m", "hubbub", "serve"], port=port, log=folder / f"{name}.log")
        self.name = name
        self.settings = {"port": str(port), "data": str(folder / name), **settings}

    @property
    def url(self) -> str:
        """Where its HTTP is, past the balancer."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where clients of it alone connect."""
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def said(self) -> str:
        """What it has written, all starts."""
        return self.log.read_text(errors="replace")

    def variables(self) -> dict[str, str]:
        """Ours, without settings of ours, and its settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
        own = {f"HUBBUB_{name.upper()}": value for name, value in self.settings.items()}
        return {**kept, "PYTHONUNBUFFERED": "1", **own}

    def is_ready(self) -> bool:
        """Whether it answers; what it needs may be away."""
        with contextlib.suppress(OSError, urllib.error.URLError):
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{self.url}/healthz", timeout=2.0) as answer:
                return bool(answer.status == 200)
        return False


class Balancer(Server):
    """nginx in front of the nodes.

    Args:
        ports: theirs.
        folder: for its configuration and its log.
        port: where it takes connections; None for a free one.

    Raises:
        Missing: there is no nginx here.

    """

    def __init__(self, ports: Sequence[int], *, folder: Path, port: int | None = None) -> None:
        port = port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "nginx.conf"
        super().__init__([_nginx(), "-p", str(folder), "-c", str(configuration)], port=port, log=folder / "nginx.log")
        # A node that does not answer is tried again with the next connection: a refused one costs nothing here.
        upstreams = "\n".join(f"        server 127.0.0.1:{each} max_fails=0;" for each in ports)
        user = "user root;" if os.geteuid() == 0 else ""
        configuration.write_text(NGINX.format(folder=folder, user=user, upstreams=upstreams, port=port))

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def start(self) -> None:
        """Start it; workers that outlived a killed one are ended first, as they hold its port."""
        if not self.is_running:
            self.kill()
        super().start()


class Cluster:
    """Nodes behind nginx, with PostgreSQL and NATS.

    Used as `with Cluster(...) as cluster`, or by `start` and `stop`. What is given to it, it neither starts nor stops.

    Args:
        nodes: how many.
        nats: how many NATS servers, or those that there are.
        postgres: a PostgreSQL that runs; None for one of its own.
        data: where its own keeps its data, safe on the disk; None for a new folder, removed at the end.
        database: the URL of the database; None for that of `postgres`.
        folder: for logs and data; None for a new one, removed at the end.
        port: of nginx; None for a free one.
        settings: of all nodes, such as `drain_s="1"`.
        secret: what tokens are signed with; None for a new one.
        store_url: where a node finds its store, by the node's number from 0: for what stands in between.
        fanout_url: where it finds NATS.
        dies_with_starter: whether all parts end with the thread that starts them.

    Attributes:
        nodes: the nodes.
        balancer: nginx.
        postgres: PostgreSQL.
        nats: the NATS servers.
        secret: what tokens are signed with.

    """

    def __init__(
        self,
        *,
        nodes: int = 3,
        nats: int | NatsCluster = 3,
        postgres: Postgres | None = None,
        data: Path | None = None,
        database: str | None = None,
        folder: Path | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        secret: str | None = None,
        store_url: Callable[[int], str] | None = None,
        fanout_url: Callable[[int], str] | None = None,
        dies_with_starter: bool = False,
    ) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="hubbub-cluster-"))
        self._is_folder_ours = folder is None
        self._own: list[Server] = []
        if postgres is None:
            postgres = Postgres(data, safe=data is not None)
            self._own.append(postgres)
        self._is_data_ours = data is None
        self.postgres = postgres
        if isinstance(nats, int):
            nats = NatsCluster(nats, folder=self.folder / "nats")
            self._own += nats.servers
        self.nats = nats
        self.secret = secret or secrets.token_hex(32)
        self.nodes: list[Node] = []
        for number in range(nodes):
            own = {
                "store": store_url(number) if store_url else database or postgres.url,
                "fanout": fanout_url(number) if fanout_url else nats.url,
                "secret": self.secret,
                **(settings or {}),
            }
            self.nodes.append(Node(f"node-{number + 1}", own, folder=self.folder))
        self.balancer = Balancer([node.port for node in self.nodes], folder=self.folder / "nginx", port=port)
        self._own += [*self.nodes, self.balancer]
        for each in self._own:
            each.dies_with_starter = dies_with_starter

    def __repr__(self) -> str:
        return f"<Cluster {self.url}, {len(self.nodes)} nodes>"

    @property
    def url(self) -> str:
        """Where the page is, through nginx."""
        return self.balancer.url

    @property
    def ws_url(self) -> str:
        """Where clients connect, through nginx."""
        return self.balancer.ws_url

    @property
    def parts(self) -> Iterator[tuple[str, Server]]:
        """All that runs, by a name that people can say."""
        yield "PostgreSQL", self.postgres
        for number, server in enumerate(self.nats.servers, 1):
            yield f"NATS {number}", server
        for node in self.nodes:
            yield node.name, node
        yield "nginx", self.balancer

    def start(self) -> None:
        """Start what is not running, the nodes at once; returns when all take connections.

        Raises:
            RuntimeError: a part did not; the others are stopped, and the message has its last words.

        """
        try:
            for server in self._own:
                if not isinstance(server, Node | Balancer):
                    server.start()
            begun = [node for node in self.nodes if not node.is_running]
            for node in begun:
                node.begin()
            for node in begun:
                node.wait()
            self.balancer.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all of its own, the balancer first and what the nodes need last; safe to repeat."""
        self.balancer.stop()
        for node in self.nodes:
            node.end()
        for server in reversed(self._own):
            server.stop()
        if self.postgres in self._own and self._is_data_ours:
            self.postgres.remove()
        if self._is_folder_ours:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _nginx() -> str:
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if found is None:
        raise Missing("there is no nginx here: apt-get install nginx")
    return found
