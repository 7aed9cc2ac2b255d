"""The proxies of deploy/ as processes in front of nodes: the shipped files, with nothing changed but where things are.

What a test changes beyond that it names, word for word as it stands in the file, so that a file that moves on fails it.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import re
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from scripts.servers import Server, free_port

from hubbub.app import Node
from hubbub.config import Settings
from hubbub.gateway import Hub
from live import BOUND_S, SECRET, Wire, token

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile"}
NODES = ("127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003")
"""The nodes' addresses, as all the shipped files have them."""


def program(kind: str) -> str:
    """Where a proxy's program is; a test that wants one that is not here fails, and Caddy's are skipped."""
    found = shutil.which(kind, path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if found is None and kind == "caddy":
        pytest.skip("there is no caddy here, so its Caddyfile is NOT tested: apt-get install caddy")
    assert found is not None, f"there is no {kind} here: apt-get install {kind}"
    return found


class Certificate:
    """A certificate for 127.0.0.1 that signs itself.

    Attributes:
        chain, key, both: files with it, its key, and both.

    """

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chat.example.com")])
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("chat.example.com"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        self.chain, self.key, self.both = folder / "chain.pem", folder / "key.pem", folder / "both.pem"
        self.chain.write_bytes(made.public_bytes(pem))
        self.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        self.both.write_bytes(self.chain.read_bytes() + self.key.read_bytes())

    def trusted(self) -> ssl.SSLContext:
        """What a client needs that trusts it and nobody else."""
        return ssl.create_default_context(cafile=self.chain)


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """The text with every one of these made the other; each must be there."""
    for old, new in changes.items():
        assert old in text, f"the shipped file has no {old!r} any more"
        text = text.replace(old, new)
    return text


_SILENCES = re.compile(
    r"(?m)^(\s*(?:proxy_read_timeout|proxy_send_timeout|send_timeout|timeout tunnel)\s+)(\d+)s(;?)$",
)


def hurried(text: str, factor: float) -> str:
    """The text with its time-outs for silence so many times shorter."""
    return _SILENCES.sub(lambda found: f"{found[1]}{int(found[2]) * 1_000 / factor:.0f}ms{found[3]}", text)


class Front(Server):
    """A proxy in front of nodes, from its shipped file.

    Args:
        kind: nginx, haproxy or caddy.
        nodes: the ports of theirs; as many as there are take the place of the shipped ones.
        folder: an empty folder for its files.
        hurry: how many times shorter its time-outs for silence are.
        changes: of the shipped file.

    """

    def __init__(
        self,
        kind: str,
        nodes: Sequence[int],
        folder: Path,
        *,
        hurry: float = 1.0,
        changes: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.kind = kind
        self.inner_port, self.redirect_port = free_port(), free_port()
        self.certificate = Certificate(folder)
        self.trusted = self.certificate.trusted()
        port = free_port()
        file = folder / FILES[kind]
        shipped = replaced((DEPLOY / FILES[kind]).read_text(), changes or {})
        file.write_text(hurried(self._placed(_with_nodes(shipped, nodes), port, folder), hurry))
        commands = {
            "nginx": ["-p", str(folder), "-c", str(file), "-g", "daemon off;"],
            "haproxy": ["-db", "-f", str(file)],
            "caddy": ["run", "--adapter", "caddyfile", "--config", str(file)],
        }
        super().__init__(
            [program(kind), *commands[kind]],
            port=port,
            log=folder / "front.log",
            environment={"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
        )

    def _placed(self, text: str, port: int, folder: Path) -> str:
        """The text with ports, files and rights as they are here."""
        certificate = self.certificate
        inner = {"127.0.0.1:8079": f"127.0.0.1:{self.inner_port}"}
        if self.kind == "nginx":
            kept = "".join(
                f"    {each}_temp_path {folder}/{each};\n"
                for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            return replaced(
                text,
                {
                    "user www-data;": "user root;" if os.geteuid() == 0 else "",
                    "worker_processes auto;": "worker_processes 1;",
                    "worker_connections 65536;": "worker_connections 2048;",
                    "worker_rlimit_nofile 262144;": "",
                    "/run/nginx.pid": f"{folder}/nginx.pid",
                    "/var/log/nginx/": f"{folder}/",
                    "listen 80;": f"listen 127.0.0.1:{self.redirect_port};",
                    "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
                    "/etc/nginx/tls/fullchain.pem": str(certificate.chain),
                    "/etc/nginx/tls/privkey.pem": str(certificate.key),
                    "http {\n": f"http {{\n{kept}",
                    **inner,
                },
            )
        if self.kind == "haproxy":
            return replaced(
                text,
                {
                    "    user haproxy\n    group haproxy\n": "",
                    "maxconn 100000": "maxconn 1000",
                    "log /dev/log local0": "log stdout format raw local0",
                    "bind :80\n": f"bind 127.0.0.1:{self.redirect_port}\n",
                    "bind :443 ssl": f"bind 127.0.0.1:{port} ssl",
                    "/etc/haproxy/tls/hubbub.pem": str(certificate.both),
                    **inner,
                },
            )
        return replaced(
            text,
            {
                "admin localhost:2019": f"admin off\n\tauto_https disable_redirects\n\thttp_port {self.redirect_port}",
                "https://chat.example.com:443": f"https://127.0.0.1:{port}",
                "/etc/caddy/tls/fullchain.pem": str(certificate.chain),
                "/etc/caddy/tls/privkey.pem": str(certificate.key),
                **inner,
            },
        )

    @property
    def ws_url(self) -> str:
        """Where clients connect."""
        return f"wss://127.0.0.1:{self.port}/ws"

    async def open(self, user: str, *, source: str = "127.0.0.1", **options: Any) -> Wire:
        """A user's WebSocket through the proxy, from an address of this machine's many."""
        async with asyncio.timeout(BOUND_S):
            return await Wire.open(self.ws_url, token(user), ssl=self.trusted, local_addr=(source, 0), **options)

    def http(self, *, inner: bool = False) -> httpx.AsyncClient:
        """An HTTP client of the public side, or of the inner one."""
        url = f"http://127.0.0.1:{self.inner_port}" if inner else f"https://127.0.0.1:{self.port}"
        return httpx.AsyncClient(base_url=url, verify=self.trusted, timeout=BOUND_S, trust_env=False)


def _with_nodes(text: str, nodes: Sequence[int]) -> str:
    """The text with these nodes in place of the shipped ones; lines with more of those are left out."""
    for count, shipped in enumerate(NODES):
        assert shipped in text, f"the shipped file has no {shipped} any more"
        if count < len(nodes):
            text = text.replace(shipped, f"127.0.0.1:{nodes[count]}")
        else:
            text = re.sub(rf"(?m)^\s*server\s.*{re.escape(shipped)}.*\n", "", text).replace(f" {shipped}", "")
    return text


@asynccontextmanager
async def fronted(
    kind: str,
    folder: Path,
    *settings: Mapping[str, Any],
    hurry: float = 1.0,
    clock: Callable[[], float] | None = None,
    changes: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Front, list[Node]]]:
    """A proxy in front of nodes in this process, for the length of a block.

    Args:
        kind: nginx, haproxy or caddy.
        folder: for files.
        settings: of each node, beside those that all have.
        hurry, changes: as for `Front`.
        clock: what the nodes' connections take for the time in seconds; who gives one also sweeps their hubs.

    """
    program(kind)
    async with AsyncExitStack() as stack:
        nodes = []
        for count, own in enumerate(settings):
            data = folder / f"node{count + 1}"
            whole = Settings(**{"port": 0, "secret": SECRET, "data": str(data), "drain_s": 0.5, **own})
            node = Node(whole)
            if clock is not None:
                node.hub = Hub(clock=clock)
            nodes.append(await stack.enter_async_context(node))
        front = Front(kind, [node.port for node in nodes], folder / kind, hurry=hurry, changes=changes)
        stack.push_async_callback(asyncio.to_thread, front.stop)
        await asyncio.to_thread(front.start)
        yield front, nodes
