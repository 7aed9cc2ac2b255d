"""The PROXY protocol as HAProxy really speaks it, to nodes that expect it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from scripts.servers import Server, free_port
from websockets.exceptions import InvalidMessage

from frontlab import fronted, program
from hubbub.app import Node
from hubbub.config import Settings
from live import SECRET, Wire, token, until

SPOKEN = {"proxy_protocol": True}
CHECK = "    default-server check"


@pytest.mark.parametrize(
    ("how", "scheme"), [("send-proxy-v2-ssl check-send-proxy", "https"), ("send-proxy check-send-proxy", "http")]
)
async def test_haproxy_names_its_client(how: str, scheme: str, tmp_path: Path) -> None:
    """With the words that haproxy.cfg names for it a node sees the client, whatever that claims, and is found ready."""
    faster = {CHECK: f"{CHECK} {how}", "inter 2s fastinter 500ms downinter 1s rise 2 fall 3": "inter 100ms fall 1"}
    async with fronted("haproxy", tmp_path, SPOKEN, SPOKEN, changes=faster) as (front, nodes):
        claimed = {"X-Forwarded-For": "10.9.9.9"}
        for number in range(4):
            source = f"127.0.0.{70 + number}"
            async with await front.open("ann", source=source, additional_headers=claimed) as ann:
                (peer,) = [peer for node in nodes for peer in node.hub.peers()]
                assert peer.context.identity.source_ip == source
                await ann.ok("ping")
            await until(lambda: not any(node.hub.peers() for node in nodes), "it is gone")
        async with front.http() as http:  # by now the checks have said what they found
            assert (await http.get("/")).status_code == 200


@asynccontextmanager
async def passing_on(folder: Path, how: str = "send-proxy-v2") -> AsyncIterator[tuple[int, Node]]:
    """A balancer that knows nothing of HTTP in front of a node; its port, and the node."""
    settings = Settings(port=0, secret=SECRET, data=str(folder / "node"), proxy_protocol=True)
    async with Node(settings) as node:
        port = free_port()
        file = folder / "passing.cfg"
        file.write_text(PASSING.format(port=port, node=node.port, how=how))
        server = Server([program("haproxy"), "-db", "-f", str(file)], port=port, log=folder / "passing.log")
        await asyncio.to_thread(server.start)
        try:
            yield port, node
        finally:
            await asyncio.to_thread(server.stop)


PASSING = """
defaults
    mode tcp
    timeout connect 2s
    timeout client 60s
    timeout server 60s
listen passing
    bind 127.0.0.1:{port}
    server node 127.0.0.1:{node} {how}
"""


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2"])
async def test_a_balancer_below_http_names_its_client_too(how: str, tmp_path: Path) -> None:
    """Where only bytes are passed on, the header alone says who the client is."""
    async with passing_on(tmp_path, how) as (port, node):
        url = f"ws://127.0.0.1:{port}/ws"
        for source in ("127.0.0.77", "127.0.0.78"):
            async with await Wire.open(url, token("ann"), local_addr=(source, 0)) as ann:
                await ann.ok("ping")
                (peer,) = node.hub.peers()
                assert peer.context.identity.source_ip == source
            await until(lambda: not node.hub.peers(), "it is gone")


async def test_past_the_balancer_nobody_comes_in(tmp_path: Path) -> None:
    """A client that reaches the node itself is not answered."""
    async with passing_on(tmp_path) as (_, node):
        with pytest.raises((OSError, InvalidMessage)):
            await Wire.open(node.ws_url, token("ann"))
        assert not node.hub.peers()
