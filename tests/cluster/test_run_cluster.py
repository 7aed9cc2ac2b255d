"""`make run-cluster`: a cluster on this machine that outlives the killing of any of its parts, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from scripts.servers import free_port

from documents import ROOT
from hubbub.client import connect
from hubbub.model import Entry, MessageCreated
from live import BOUND_S, until

PARTS = ["PostgreSQL", "NATS 1", "NATS 2", "NATS 3", "node-1", "node-2", "node-3", "nginx"]


class Runner:
    """`python -m scripts.run_cluster`, with its data in a folder of its own.

    Attributes:
        port: where the page is.
        processes: those that were started.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    @property
    def parts(self) -> dict[str, int]:
        """The process of each part, as it was said last."""
        found = re.findall(r"^  (\S.*?)\s+pid (\d+)\s+port", self.said, re.MULTILINE)
        found += re.findall(r"^(.+) is back after .* pid (\d+)$", self.said, re.MULTILINE)
        return {name: int(pid) for name, pid in found}

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it; more than once at a time only to see it refused."""
        with (self.folder / "said").open("ab") as said:
            command = [sys.executable, "-m", "scripts.run_cluster", "--port", str(self.port)]
            command += ["--data", str(self.folder / "data"), "--postgres", str(self.folder / "postgres"), *arguments]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=ROOT)
        self.processes.append(process)
        return process

    async def begin(self) -> None:
        """Start it, and return once it says where the page is."""
        before = self.said.count("is running: ") if (self.folder / "said").exists() else 0
        process = self.start()
        await until(lambda: self.said.count("is running: ") > before or process.poll() is not None, "it", bound_s=60)
        assert process.poll() is None, self.said
        await until(lambda: "Ctrl-C ends all" in self.said, "its last words")

    async def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it as a terminal does; its status."""
        self.processes[-1].send_signal(number)
        return await asyncio.to_thread(self.processes[-1].wait, 60)


@pytest.fixture
def runner() -> Iterator[Runner]:
    """Not yet started; in a folder that PostgreSQL's user may look into, where we are root."""
    folder = Path(tempfile.mkdtemp(prefix="hubbub-run-cluster-"))
    folder.chmod(0o755)
    made = Runner(folder)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)


async def dev_token(runner: Runner, user: str) -> str:
    """A token as the page gets one, through nginx."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{runner.port}", timeout=BOUND_S, trust_env=False) as http:
        assert "Hubbub" in (await http.get("/")).text
        answer = await http.post("/dev/token", json={"user": user})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waits for stays a zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


async def test_every_part_may_be_killed_while_people_talk(runner: Runner):
    """Each is started again, and what was said is there, once and in order; Ctrl-C leaves nothing running."""
    await runner.begin()
    assert list(runner.parts) == PARTS
    address = f"ws://127.0.0.1:{runner.port}/ws"
    heard: list[Entry] = []
    quick: dict[str, Any] = {"backoff_base_s": 0.02, "backoff_cap_s": 0.5}
    async with (
        connect(address, token=await dev_token(runner, "ada"), **quick) as ada,
        connect(address, token=await dev_token(runner, "bob"), **quick) as bob,
    ):

        async def listen() -> None:
            async for each in bob.room("general", after=0):
                heard.append(each)  # noqa: PERF401  the test looks at the list meanwhile

        def said() -> list[str | None]:
            return [entry.text for entry in heard if isinstance(entry, MessageCreated)]

        listening = asyncio.create_task(listen())
        sent: list[str] = []
        for name in PARTS:
            victim = runner.parts[name]
            os.kill(victim, signal.SIGKILL)
            for when in ("killed", "killed still"):
                sent.append(f"{name} {when}")
                await ada.send("general", sent[-1])
            await until(lambda name=name, victim=victim: runner.parts[name] != victim, f"{name}", bound_s=2 * BOUND_S)  # type: ignore[misc]
            sent.append(f"{name} is back")
            await ada.send("general", sent[-1])
        await until(lambda: len(said()) >= len(sent), "all that was said", bound_s=2 * BOUND_S)
        assert said() == sent
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    pids = runner.parts.values()
    assert await runner.end() == 0
    assert all(map(is_gone, pids))
    await runner.begin()
    async with connect(address, token=await dev_token(runner, "eve")) as eve:
        page = await eve.history("general", limit=200)
    assert [entry.text for entry in page.entries if isinstance(entry, MessageCreated)] == sent
    pids = runner.parts.values()
    second = runner.start()
    assert await asyncio.to_thread(second.wait, 60) == 1
    assert "Another cluster runs here already" in runner.said
    runner.processes[-2].kill()
    await until(lambda: all(map(is_gone, pids)), "the end of all parts", bound_s=2 * BOUND_S)


async def test_a_port_that_is_taken_is_named(runner: Runner):
    """With how to choose another; nothing is started."""
    with socket.create_server(("127.0.0.1", runner.port)):
        process = runner.start()
        assert await asyncio.to_thread(process.wait, 60) == 1
    assert f"The port {runner.port} cannot be had: Address already in use" in runner.said
    assert "make run-cluster PORT=" in runner.said
    assert not (runner.folder / "postgres").exists()
