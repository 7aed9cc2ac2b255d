"""A worker that does what a file tells it to: `python scripted_worker.py FOLDER`, started by a `Supervisor`.

It answers every connection with its process id. FOLDER/mode-N says how worker N misbehaves; FOLDER/events has what
happened to all of them, a line each.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from hubbub.workers import take_place

folder = Path(sys.argv[1])
place = take_place(os.environ)
assert place is not None, "started by a supervisor"
mode_file = folder / f"mode-{place.number}"
mode = mode_file.read_text() if mode_file.exists() else ""


def tell(what: str) -> None:
    with (folder / "events").open("a") as events:
        events.write(f"{place.number} {os.getpid()} {what}\n")


if mode == "does not start":
    sys.stderr.write(f"worker {place.number} has a reason\n")
    sys.exit(3)
if mode == "starts for ever":
    tell("starting")
    time.sleep(600)

ports = place.ports()
for each in (*ports.public, *ports.admin):
    each.listen()
    each.settimeout(0.05)
place.end_with_parent(5.0)
asked: list[int] = []


def received(number: int, frame: FrameType | None) -> None:
    tell(signal.Signals(number).name)
    asked.append(number)


for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, received)
tell("ready")  # before anybody else can say so
place.tell_ready()
if mode == "dies when ready":
    os._exit(4)
while not asked or mode == "does not end":
    for listener in (*ports.public, *ports.admin):
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            connection.sendall(f"{os.getpid()}".encode())
sys.exit(5 if mode == "ends badly" else 0)
