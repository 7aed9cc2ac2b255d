"""What the how-to has people write into files works: three NATS servers by one of them, and nodes by another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from scripts.servers import Nats, Server, free_port

from clusterlab import Shared
from documents import ROOT, blocks
from live import BOUND_S, SECRET, ServerProcess, Wire, token

PAGE = ROOT / "docs" / "how-to" / "run-a-cluster.md"


def file(language: str, name: str) -> str:
    """The file of this name that the page shows."""
    [found] = [block.text for block in blocks(PAGE, language) if block.text.startswith(f"# {name}\n")]
    return found


def replaced(text: str, **values: str) -> str:
    """Settings with other values, each of which the page has set."""
    for name, value in values.items():
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
        assert count == 1, f"the page does not set {name}"
    return text


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[str]:
    """The page's three NATS servers, on ports of this machine; their address as the page's settings have it."""
    text = file("conf", "nats-server.conf")
    ports, routes = [free_port() for _ in range(3)], [free_port() for _ in range(3)]
    for number, route in enumerate(routes, 1):
        assert f"10.0.0.2{number}:6222" in text
        text = text.replace(f"10.0.0.2{number}:6222", f"127.0.0.1:{route}")
    with ExitStack() as stack:
        for number, (port, route) in enumerate(zip(ports, routes, strict=True), 1):
            own = text.replace("nats-1", f"nats-{number}").replace("0.0.0.0:4222", f"127.0.0.1:{port}")
            own = own.replace("0.0.0.0:6222", f"127.0.0.1:{route}").replace(
                "127.0.0.1:8222", f"127.0.0.1:{free_port()}"
            )
            configuration = tmp_path / f"nats-{number}.conf"
            configuration.write_text(own)
            program = Nats().command[0]
            stack.enter_context(Server([program, "-c", str(configuration)], port=port, log=tmp_path / f"{number}.log"))
        yield ",".join(f"127.0.0.1:{port}" for port in ports)


async def test_nodes_by_the_page_s_files_are_one_chat(servers: Shared, nats: str, tmp_path: Path):
    """Servers find each other and give nodes the rights that these need; what one node is told the other tells."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    text = file("toml", "hubbub.toml")
    fanout = re.search(r'^fanout = "(nats://[^@]+@)', text, re.MULTILINE)
    assert fanout is not None
    nodes: list[ServerProcess] = []
    store = servers.settings()["store"]
    try:
        for number in range(2):
            folder = tmp_path / f"node-{number}"
            folder.mkdir()
            own = replaced(
                text,
                host='"127.0.0.1"',
                admin_port=str(free_port()),
                store=f'"{store}?patience=30"',
                fanout=f'"{fanout[1]}{nats}"',
                secret_file=f'"{secret}"',
            )
            (folder / "hubbub.toml").write_text(own)
            nodes.append(ServerProcess(folder, HUBBUB_SECRET=""))
            await nodes[-1].start()
        found = re.search(r"^admin_port = (\d+)$", own, re.MULTILINE)
        assert found is not None
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{found[1]}", timeout=BOUND_S, trust_env=False) as http:
            assert (await http.get("/readyz")).json() == {"status": "ok"}
            async with asyncio.timeout(BOUND_S):
                while "\nhubbub_nats_nodes 1.0\n" not in (await http.get("/metrics")).text:
                    await asyncio.sleep(0.05)
        hall = {"hall": "member"}
        async with (
            await Wire.open(nodes[0].ws_url, token("ann", rooms=hall)) as ann,
            await Wire.open(nodes[1].ws_url, token("bob", rooms=hall)) as bob,
        ):
            await ann.ok("sync")
            await bob.ok("sync")
            await ann.ok("send", room="hall", text="Is this one chat?")
            assert (await bob.wait_for("message.created"))["text"] == "Is this one chat?"
    finally:
        for node in nodes:
            await node.stop()
