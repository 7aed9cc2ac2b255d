"""The cheap clients of benches, at a real server."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from bench.load import connect as connect_client
from bench.load import hubbub_server
from bench.many import Crowd, Crowds, write_tokens

COUNT = 60

if shutil.which("cc") is None:
    pytest.fail("the clients of these tests are compiled: apt-get install gcc libc6-dev", pytrace=False)


async def test_a_crowd_listens_hears_everything_and_comes_back(tmp_path: Path) -> None:
    """Each of a crowd hears each message once, and after all connections broke all are there again."""
    sizes = [COUNT // 2, COUNT // 2]
    async with hubbub_server() as server:
        files = write_tokens(tmp_path, sizes, COUNT, 10)
        started = [await Crowd.start(server.port, f"127.0.1.{n + 1}", path) for n, path in enumerate(files)]
        crowds = Crowds(started, sizes)
        try:
            for crowd in started:
                crowd.order(f"open {COUNT // 2} 10")
            await crowds.settle(60, "connecting")
            for _ in range(2):
                crowds.tell("count 200")
                await _until(lambda: all(crowd.is_up_to_date for crowd in started))
                sender = await connect_client(server, "sender", ["hall"])
                for _ in range(5):
                    await sender.ask(action="send", room="hall", text="x" * 200)
                await _until(lambda: crowds.total("frames") >= 5 * COUNT)
                assert crowds.total("frames") == 5 * COUNT
                crowds.tell("storm 30")
                await crowds.settle(60, "coming back")
            assert crowds.total("handshakes") == COUNT
            assert crowds.trouble() == {"refused": 0, "broken": 0, "late": 0, "closed": 0, "errors": 0}
        finally:
            await crowds.end()


async def test_a_crowd_says_what_is_wrong_with_an_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An order that is none ends the crowd, which says what was expected and what came."""
    (tmp_path / "tokens").write_text("a\n")
    crowd = await Crowd.start(1, "127.0.1.1", tmp_path / "tokens")

    crowd.order("dance")
    await asyncio.wait_for(crowd.process.wait(), 20)

    assert crowd.process.returncode == 2
    assert "expected open, storm, count or quit, got dance" in capfd.readouterr().err


async def _until(is_so: object, within_s: float = 60.0) -> None:
    assert callable(is_so)
    async with asyncio.timeout(within_s):
        while not is_so():
            await asyncio.sleep(0.02)
