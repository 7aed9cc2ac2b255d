"""What a delivery costs in instructions, to notice when it becomes more: `python -m bench.regress [--record]`.

valgrind counts the instructions of a fixed piece of work, which are the same whatever else the machine does: frames
published to a hub whose connections are real sockets, by the accelerator and in plain Python. What the kernel does is
not in it. `--record` takes the figures as those that `bench/instructions.json` holds for this Python and this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop

from hubbub.gateway.connection import Life
from hubbub.gateway.hub import Hub, Peer

RECORDED = Path(__file__).parent / "instructions.json"
TOLERANCE = 0.10
"""By how much more of them an installation may need: libraries differ in their patch releases."""

CONNECTIONS = 200
TURNS = 8
"""That are counted; what they deliver fits into the sockets' buffers, so that nobody has to read meanwhile."""

FRAME = b"x" * 400

WORKS: dict[str, Callable[[Hub, int], None]] = {}
"""What is counted, by name: each publishes the frames of one turn, the number of which it is told."""


def _work(publish: Callable[[Hub, int], None]) -> Callable[[Hub, int], None]:
    WORKS[publish.__name__] = publish
    return publish


@_work
def one_room(hub: Hub, turn: int) -> None:
    """A frame to all."""
    hub.publish("all", FRAME)


@_work
def sixteen_in_a_turn(hub: Hub, turn: int) -> None:
    """Sixteen frames to all."""
    for _ in range(16):
        hub.publish("all", FRAME)


@_work
def several_rooms(hub: Hub, turn: int) -> None:
    """A frame to each of twenty rooms, of which each connection is in four."""
    for room in range(20):
        hub.publish(f"room{room}", FRAME)


@_work
def answers(hub: Hub, turn: int) -> None:
    """A frame to each connection, of its own."""
    for peer in hub.peers():
        hub.send_to(peer, FRAME)


def deliveries(name: str) -> int:
    """How many frames a turn of that work delivers."""
    return CONNECTIONS * {"one_room": 1, "sixteen_in_a_turn": 16, "several_rooms": 4, "answers": 1}[name]


class _Wire:
    """What a hub wants of a socket beside its writing."""

    def waiting(self) -> int:
        return 0

    def send_close(self, code: int, reason: str) -> None:
        raise RuntimeError("expected no connection to be closed")

    def drop(self, abort: bool) -> None:
        raise RuntimeError("expected no connection to be dropped")


async def work() -> None:
    """Do all pieces of work for who counts: before and after each a line is printed, and one awaited."""
    hub, loop = Hub(), asyncio.get_running_loop()
    ends: list[socket.socket] = []
    for n in range(CONNECTIONS):
        one, other = socket.socketpair()
        ends.append(other)
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=one)
        transport.set_write_buffer_limits(high=0)
        hub.add(Peer(f"c{n}", Life(hub.now()), _Wire(), transport.write, transport=transport, fd=one.fileno()))
        for group in ("all", *(f"room{(n + step) % 20}" for step in (0, 3, 7, 11))):
            hub.join(group, f"c{n}")
    for name, publish in WORKS.items():
        for turn in range(2 + TURNS):
            if turn == 2:  # caches are warm
                _say(f"ready {name}")
            publish(hub, turn)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        _say(f"done {name}")
        for end in ends:
            end.recv(1 << 20)


def _say(line: str) -> None:
    print(line, flush=True)
    sys.stdin.readline()


def count(*, accelerated: bool) -> dict[str, float]:
    """The instructions of a delivery in each piece of work.

    Raises:
        RuntimeError: valgrind is not here, or says nothing.

    """
    if shutil.which("valgrind") is None:
        raise RuntimeError("expected valgrind to count instructions, got none: scripts/setup system valgrind")
    with tempfile.TemporaryDirectory(prefix="hubbub-regress-") as folder:
        out, vgdb = Path(folder, "callgrind.out"), f"--vgdb-prefix={folder}/vgdb"
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", vgdb]
        command += [sys.executable, "-m", "bench.regress", "--work"]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "HUBBUB_ACCELERATOR": str(int(accelerated))}
        with Path(folder, "said").open("w+") as said:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment, text=True
            )
            assert process.stdin is not None and process.stdout is not None
            found = {}
            try:
                for number, name in enumerate(WORKS, 1):
                    for line, asked in ((f"ready {name}", ("instrumentation on", "zero")), (f"done {name}", ("dump",))):
                        got = process.stdout.readline().strip()
                        if got != line:
                            said.seek(0)
                            raise RuntimeError(f"expected {line!r} of what valgrind runs, got {got!r}: {said.read()}")
                        for words in asked:
                            control = ["vgdb", vgdb, f"--pid={process.pid}", *words.split()]
                            subprocess.run(control, check=True, capture_output=True)
                        process.stdin.write("go\n")
                        process.stdin.flush()
                    found[name] = _total(Path(f"{out}.{number}")) / TURNS / deliveries(name)
            finally:
                process.kill()
                process.communicate()
        return found


def _total(out: Path) -> int:
    for line in out.read_text().splitlines():
        if line.startswith(("summary:", "totals:")):
            return int(line.split()[1])
    raise RuntimeError(f"expected a summary in {out}, got none")


def here() -> str:
    """What figures hold for: the Python and the processor."""
    return f"{platform.python_implementation()} {'.'.join(platform.python_version_tuple()[:2])} {platform.machine()}"


def recorded() -> dict[str, dict[str, float]]:
    """What was recorded, by `here` and by the names of `measure`."""
    return msgspec.json.decode(RECORDED.read_bytes(), type=dict[str, dict[str, float]]) if RECORDED.exists() else {}


def measure() -> dict[str, float]:
    """The instructions of a delivery, of each piece of work, each way."""
    return {
        f"{name}, {'accelerator' if accelerated else 'Python'}": round(figure, 1)
        for accelerated in (True, False)
        for name, figure in count(accelerated=accelerated).items()
    }


def main(record: bool) -> int:
    """Print the figures beside those recorded; 1 when one is worse than it may be."""
    before, found = recorded().get(here(), {}), measure()
    print(f"instructions of a delivery, {here()}")
    worse = False
    for name, figure in found.items():
        known = before.get(name)
        is_worse = known is not None and figure > known * (1 + TOLERANCE)
        worse |= is_worse
        print(f"{name:>32}  {figure:>9,.0f}  {'' if known is None else f'{known:>9,.0f}'}{' WORSE' * is_worse}")
    if record:
        RECORDED.write_bytes(msgspec.json.format(msgspec.json.encode({**recorded(), here(): found}), indent=2) + b"\n")
        return 0
    return int(worse)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        uvloop.run(work())
    else:
        sys.exit(main(chosen.record))
