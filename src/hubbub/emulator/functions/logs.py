"""What functions print, line by line and within bounds, and the last of it, which Lambda calls a log's tail.

A function is never held up by what it prints, and cannot fill our memory with it: lines are cut, what comes faster than
anybody could read is thrown away and counted. stdout and stderr are two pipes: their lines can change places.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Literal

import msgspec

TAIL_BYTES = 4_096
"""How much of a log an invocation's outcome has (Invoke, `LogType=Tail`)."""

MAX_LINE_BYTES = 256 * 1024
"""Where a line is cut; a log event's size in CloudWatch."""

BURST_BYTES = 8 * 1024 * 1024
BYTES_PER_S = 1024 * 1024
"""What of an environment's output is kept: so much at once, and then so much a second."""

LINE_COST_BYTES = 100
"""What a line costs besides its bytes."""

MAX_HELD_LINES = 1_000
"""How many lines wait for the end of a start that may be a failure already known."""

READ_BYTES = 65_536
"""How much is read at once; what a pipe holds on Linux."""


class LogLine(msgspec.Struct, frozen=True):
    """A line of a function's log.

    Attributes:
        function: the function's name.
        request_id: the invocation that was under way; None while the environment came up or waited.
        stream: `platform` for what Lambda itself says: START, END, REPORT, and our own warnings.
        text: without the line's end.
        at: epoch seconds.

    """

    function: str
    request_id: str | None
    stream: Literal["stdout", "stderr", "platform"]
    text: str
    at: float


OnLine = Callable[[LogLine], None]


class Log:
    """The log of one environment.

    Args:
        function: the function's name.
        on_line: told of each line.

    """

    def __init__(self, function: str, on_line: OnLine) -> None:
        self._function = function
        self._on_line = on_line
        self._request_id: str | None = None
        self._tail = bytearray()
        self._held: list[LogLine] | None = None  # None for lines that go out at once
        self._allowance = float(BURST_BYTES)
        self._counted_at = time.monotonic()
        self._dropped_bytes = 0

    def begin(self, request_id: str) -> None:
        """What follows belongs to an invocation."""
        self._tell_dropped()
        self._request_id = request_id

    def end(self) -> bytes:
        """What follows belongs to none; the tail of what did."""
        self._tell_dropped()
        self._request_id = None
        tail = bytes(self._tail[-TAIL_BYTES:])
        self._tail.clear()
        return tail

    def say(self, text: str) -> None:
        """A line of Lambda's own."""
        self._tell_dropped()
        if self._tail and not self._tail.endswith(b"\n"):
            self._tail += b"\n"
        self.keep(text.encode() + b"\n")
        self._emit("platform", text)

    def hold(self) -> None:
        """Keep lines back until `release` or `forget`."""
        self._held = []

    def release(self) -> None:
        """Give out what was held back."""
        held, self._held = self._held, None
        for line in held or ():
            self._on_line(line)

    def forget(self) -> None:
        """Throw away what was held back."""
        self._held = None

    def printed(self, stream: Literal["stdout", "stderr"], line: bytes) -> None:
        """A line of the function's; its bytes have been kept."""
        cost = len(line) + LINE_COST_BYTES
        if not self._afford(cost):
            self._dropped_bytes += len(line) + 1
            return
        self._tell_dropped()
        self._emit(stream, line.decode(errors="replace"))

    def is_flooded(self) -> bool:
        """Whether what is printed now is thrown away."""
        return self._dropped_bytes > 0 and not self._afford(0)

    def skip(self, size: int) -> None:
        """So many bytes were printed meanwhile, without a look at their lines."""
        self._dropped_bytes += size

    def keep(self, output: bytes) -> None:
        """Keep what was printed for the tail, whatever becomes of its lines."""
        if self._request_id is None:
            return
        self._tail += output[-TAIL_BYTES:]
        if len(self._tail) > 4 * TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]

    def _afford(self, cost: int) -> bool:
        now = time.monotonic()
        self._allowance = min(BURST_BYTES, self._allowance + (now - self._counted_at) * BYTES_PER_S)
        self._counted_at = now
        if self._allowance < max(cost, MAX_LINE_BYTES if self._dropped_bytes else 0):
            return False  # and once in arrears, until there is room for any line
        self._allowance -= cost
        return True

    def _tell_dropped(self) -> None:
        if self._dropped_bytes:
            size = self._dropped_bytes / 1e6
            self._dropped_bytes = 0
            self._emit("platform", f"[{size:,.1f} MB of output are left out here: too much at once]")

    def _emit(self, stream: Literal["stdout", "stderr", "platform"], text: str) -> None:
        at = time.time()
        # Runtimes write a traceback as one event, its lines ended by \r and indented by no-break spaces.
        for part in text.split("\r") if "\r" in text else (text,):
            line = LogLine(self._function, self._request_id, stream, part.replace("\xa0", " "), at)
            if self._held is None:
                self._on_line(line)
                continue
            self._held.append(line)
            if len(self._held) > MAX_HELD_LINES:
                self.release()


class Pipe:
    """One of the two pipes that a process prints to, cut into lines.

    Args:
        log: gets the lines.
        stream: which of the two it is.

    Attributes:
        write_fd: for the process; to be closed with `started` once that has it.

    """

    def __init__(self, log: Log, stream: Literal["stdout", "stderr"]) -> None:
        self._log = log
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._partial = bytearray()
        self._cut = False  # whether the rest of the line is thrown away
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._loop.add_reader(self._read_fd, self._read)

    def started(self) -> None:
        """The process has its end."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self) -> None:
        """Nothing more is read."""
        self.started()
        if self._read_fd >= 0:
            self._loop.remove_reader(self._read_fd)
            os.close(self._read_fd)
            self._read_fd = -1

    def drain(self) -> None:
        """Take what is in the pipe by now, the beginning of a line too: all that was printed before this was called."""
        read = 0
        while self._read_fd >= 0 and read < READ_BYTES:
            try:
                chunk = os.read(self._read_fd, READ_BYTES)
            except BlockingIOError:
                break
            if not chunk:
                break
            read += len(chunk)
            self._feed(chunk)
        if self._partial:
            self._log.printed(self._stream, bytes(self._partial))
            self._partial.clear()

    def _read(self) -> None:
        try:
            chunk = os.read(self._read_fd, READ_BYTES)
        except BlockingIOError:
            return
        if chunk:
            self._feed(chunk)
        else:
            self.drain()
            self.close()

    def _feed(self, chunk: bytes) -> None:
        self._log.keep(chunk)
        if self._log.is_flooded():
            self._log.skip(len(chunk))
            self._partial.clear()
            self._cut = not chunk.endswith(b"\n")
            return
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._end_line(line)
        self._grow_line(rest)

    def _end_line(self, end: bytes) -> None:
        if self._cut:
            self._cut = False
            return
        self._grow_line(end)
        if not self._cut:
            self._log.printed(self._stream, bytes(self._partial).removesuffix(b"\r"))
        self._cut = False
        self._partial.clear()

    def _grow_line(self, more: bytes) -> None:
        if self._cut:
            return
        self._partial += more
        if len(self._partial) > MAX_LINE_BYTES:
            self._cut = True
            cut = bytes(self._partial[:MAX_LINE_BYTES]) + f" [cut here, at {MAX_LINE_BYTES:,} bytes]".encode()
            self._partial.clear()
            self._log.printed(self._stream, cut)
