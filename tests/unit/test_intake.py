"""Who reads many sockets in one go: what it tells of them, and that nothing is lost, doubled or told to another."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from hubbub.gateway import accelerator
from hubbub.gateway.framing import FIN, Frame, payload_size, read_frame
from hubbub.gateway.intake import Intake, new_intake
from otherway import pass_the_other_way

LONGEST = 32 * 1024
MASK = bytes.fromhex("37fa213d")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no epoll")


def frame(payload: bytes, *, first: int = FIN | 1, mask: bytes = MASK) -> bytes:
    """As a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))


def sockets() -> Any:
    """What reads, in C; its absence is a failure, with what to do about it."""
    if accelerator.Intake is None:
        pytest.fail("the accelerator is not built: scripts/setup system gcc; rm .venv/.dev; make .venv/.dev")
    return accelerator.Intake()


class Line:
    """Two ends of a connection, of which `ours` is read."""

    def __init__(self) -> None:
        self.ours, self.far = socket.socketpair()
        self.ours.setblocking(False)
        self.fd = self.ours.fileno()

    def close(self) -> None:
        self.ours.close()
        self.far.close()


@pytest.fixture
def line() -> Iterator[Line]:
    """A connection."""
    made = Line()
    yield made
    made.close()


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 125, 126, 127, 1_000, LONGEST])
def test_a_whole_text_is_told_as_text(line, size):
    """With what it was, byte by byte."""
    reading, text = sockets(), ("häb☃😀" * size)[:size]
    text = text.encode()[:size].decode(errors="ignore")
    sent = frame(text.encode())
    reading.add(line.fd, line)
    line.far.sendall(sent)
    assert reading.read(LONGEST) == [(line, sent, text)]
    assert payload_size(sent) == len(text.encode())
    assert reading.read(LONGEST) == []


@pytest.mark.parametrize(
    "sent",
    [
        b"\x81",
        frame(b"hello")[:-1],
        frame(b"x" * 300)[:3],
        frame(b"x" * 300)[:-1],
        frame(b"one") + frame(b"two"),
        frame(b"one") + b"\x81",
        frame(b"not \xff UTF-8"),
        frame(b"half \xc3"),
        frame(b"binary", first=FIN | 2),
        frame(b"a part", first=1),
        frame(b"the rest", first=FIN),
        frame(b"compressed", first=FIN | 0x40 | 1),
        frame(b"ping", first=FIN | 9),
        frame(b"", first=FIN | 9),
        frame(b"with a payload", first=FIN | 10),
        frame(b"", first=10),
        frame(b"", first=FIN | 10) * 2,
        frame(b"", first=FIN | 10)[:-1],
        b"\x8a\x00",
        frame(b"x" * (LONGEST + 1)),
        b"\x81\x05hello",
        b"\x81\xfe\x00\x05" + MASK + b"hello",
        b"\x81\xff" + (5).to_bytes(8, "big") + MASK + b"hello",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=lambda sent: sent[:12].hex(),
)
def test_anything_else_is_told_as_it_came(line, sent):
    """Right or wrong: that is for others to say."""
    reading = sockets()
    reading.add(line.fd, line)
    line.far.sendall(sent)
    got = reading.read(LONGEST)
    assert [(owner, text) for owner, _, text in got] == [(line, None)] * len(got)
    assert b"".join(data for _, data, _ in got) == sent


@given(st.binary(min_size=4, max_size=4))
def test_a_pong_without_payload_is_told_as_such(mask):
    """The answer of who is silent to a ping, with whatever mask."""
    line, reading, pong = Line(), sockets(), frame(b"", first=FIN | 10, mask=mask)
    reading.add(line.fd, line)
    try:
        line.far.sendall(pong)
        assert reading.read(LONGEST) == [(line, pong, False)]
    finally:
        line.close()


@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: frame(text.encode())))
def test_what_is_told_as_text_is_what_the_frame_says(sent):
    """By the rules of the way that takes all frames."""
    line, reading = Line(), sockets()
    reading.add(line.fd, line)
    try:
        line.far.sendall(sent)
        for owner, data, text in reading.read(LONGEST):
            assert (owner, data) == (line, sent)
            if text is False:
                assert read_frame(data, 0, LONGEST) == Frame(FIN | 10, b"", len(data))
            elif text is not None:
                assert read_frame(data, 0, LONGEST) == Frame(FIN | 1, text.encode(), len(data))
    finally:
        line.close()


def test_what_is_longer_than_one_read_comes_in_the_next(line):
    """In order, and others are not kept waiting by it."""
    reading, others = sockets(), [Line() for _ in range(20)]
    for each in (line, *others):
        each.far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2_000_000)
        reading.add(each.fd, each)
        each.far.setblocking(False)
    sent = random.Random(1).randbytes(150_000)
    began = {each: each.far.send(sent) for each in (line, *others)}
    got: dict[Line, bytes] = dict.fromkeys(began, b"")
    while told := reading.read(LONGEST):
        assert len({owner for owner, _, _ in told}) == len(told)
        for owner, data, _ in told:
            assert len(data) <= 64 * 1024
            got[owner] += data
    assert {owner: len(data) for owner, data in got.items()} == began
    assert all(sent.startswith(data) for data in got.values())
    for each in others:
        each.close()


@pytest.mark.parametrize("how", ["end", "reset"])
def test_the_end_is_told_once_and_left_to_the_transport(how):
    """What came before it is told before; then the socket is not read any more."""
    listener = socket.create_server(("127.0.0.1", 0))
    far = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    reading, owner = sockets(), object()
    reading.add(ours.fileno(), owner)
    far.sendall(b"last words")
    if how == "end":
        far.shutdown(socket.SHUT_WR)
    else:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
    told = []
    while len(reading):
        told += reading.read(LONGEST)
    assert told[-1] == (owner, None, None)
    if how == "end" or len(told) > 1:  # a reset may throw away what came before it
        assert told[:-1] == [(owner, b"last words", None)]
    assert reading.read(LONGEST) == []
    for each in (ours, far, listener):
        each.close()


def test_a_number_may_be_anothers(line):
    """Whose socket is closed is not told of the next one that has its number, nor can he end that one's being read."""
    reading, one, other = sockets(), object(), object()
    reading.add(line.fd, one)
    fd = line.fd
    line.close()
    again = Line()
    for _ in range(50):
        if again.fd == fd:
            break
        again = Line()
    assert again.fd == fd
    reading.add(fd, other)
    assert len(reading) == 1
    assert reading.remove(fd, one) is False
    again.far.sendall(frame(b"hello"))
    assert [(owner, text) for owner, _, text in reading.read(LONGEST)] == [(other, "hello")]
    assert reading.remove(fd, other) is True
    assert reading.remove(fd, other) is False
    again.far.sendall(b"more")
    assert reading.read(LONGEST) == []
    again.close()


def test_a_socket_that_is_closed_and_not_removed_is_not_read(line):
    """It is gone from what is watched by itself; its owner is let go when it is removed."""
    reading = sockets()
    reading.add(line.fd, line)
    line.far.sendall(b"too late")
    line.close()
    assert reading.read(LONGEST) == []
    assert reading.remove(line.fd, line) is True


@pytest.mark.parametrize(
    ("call", "raises", "words"),
    [
        (lambda reading: reading.add(-1, None), ValueError, "expected the number of a socket, got -1"),
        (lambda reading: reading.add("3", None), TypeError, "cannot be interpreted as an integer"),
        (lambda reading: reading.add(999_999, None), OSError, "Bad file descriptor"),
        (lambda reading: reading.read("many"), TypeError, "cannot be interpreted as an integer"),
        (lambda reading: type(reading)(1), TypeError, "takes at most 0 arguments|takes no arguments|takes exactly 0"),
    ],
    ids=["negative", "no number", "nothing", "no limit", "arguments"],
)
def test_what_cannot_be_read_is_refused(call, raises, words):
    """And nothing is left of it."""
    reading = sockets()
    with pytest.raises(raises, match=words):
        call(reading)
    assert len(reading) == 0
    assert reading.remove(0, None) is reading.remove(-1, None) is reading.remove(10_000_000, None) is False


def test_it_keeps_its_owners_and_lets_go_of_them(line):
    """Also where they refer to it in turn, and no more than once each."""

    class Owner:
        reading: Any

    reading, owner = sockets(), Owner()
    before = sys.getrefcount(owner)
    reading.add(line.fd, owner)
    line.far.sendall(frame(b"x"))
    for _ in range(100):
        line.far.sendall(frame(b"x"))
        reading.read(LONGEST)
        reading.add(line.fd, owner)
    assert sys.getrefcount(owner) == before + 1
    assert reading.remove(line.fd, owner)
    assert sys.getrefcount(owner) == before
    reading.add(line.fd, owner)
    owner.reading = reading
    gone = weakref.ref(owner)
    del owner, reading
    gc.collect()
    assert gone() is None


def test_another_thread_runs_while_it_reads():
    """The interpreter is let go of once for all of them, and they are all told."""
    lines, reading = [Line() for _ in range(300)], sockets()
    for each in lines:
        reading.add(each.fd, each)
    ends = threading.Event()
    spinning = threading.Thread(target=lambda: [None for _ in iter(ends.is_set, True)])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.000_1)  # each of the writes here waits so long for the other thread
    spinning.start()
    try:
        for number in range(20):
            for each in lines:
                each.far.sendall(frame(b"%d" % number))
            told: list[tuple[Line, bytes, str]] = []
            while len(told) < len(lines):
                told += reading.read(LONGEST)
            assert {owner for owner, _, _ in told} == set(lines)
            assert {text for _, _, text in told} == {str(number)}
    finally:
        sys.setswitchinterval(interval)
        ends.set()
        spinning.join()
        for each in lines:
            each.close()


class Owner:
    """Keeps what it is told."""

    def __init__(self, intake: Intake, line: Line) -> None:
        self.intake, self.line = intake, line
        self.got: list[tuple[bytes, str | None]] = []
        self.ended = 0
        self.full = asyncio.Event()

    def receive(self, data: bytes, text: str | None) -> None:
        self.got.append((data, text))
        if len(self.got) % 3 == 0:
            self.intake.remove(self.line.fd, self)
            self.full.set()

    def receive_end(self) -> None:
        self.ended += 1
        self.full.set()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_loop_watches_it_as_long_as_there_is_anybody(run):
    """Who is removed while he is told of something is told no more until he is added, and misses nothing."""
    sockets()

    async def talk() -> None:
        intake = new_intake(LONGEST)
        assert intake is not None
        for _ in range(3):  # and again after it was without anybody
            lines = [Line() for _ in range(5)]
            owners = [Owner(intake, line) for line in lines]
            for line, owner in zip(lines, owners, strict=True):
                intake.add(line.fd, owner)
            for number in range(12):
                for line in lines:
                    line.far.sendall(frame(b"%d" % number))
                    await asyncio.sleep(0)
                if number % 3 == 2:
                    for owner in owners:
                        await asyncio.wait_for(owner.full.wait(), 10)
                        owner.full.clear()
                    assert len(intake) == 0
                    for line, owner in zip(lines, owners, strict=True):
                        intake.add(line.fd, owner)
                else:
                    await asyncio.sleep(0.005)
            for owner in owners:
                assert b"".join(data for data, _ in owner.got) == b"".join(frame(b"%d" % n) for n in range(12))
                owner.line.far.close()
                await asyncio.wait_for(owner.full.wait(), 10)
                assert owner.ended == 1
                owner.line.close()
            assert len(intake) == 0

    run(talk())


async def test_without_the_accelerator_there_is_none(monkeypatch):
    """And transports read themselves."""
    monkeypatch.setattr(accelerator, "Intake", None)
    assert new_intake(LONGEST) is None


@pytest.mark.slow
def test_connections_keep_their_promises_with_and_without_the_accelerator():
    """The tests of frames, of closing, of functions and of compressing pass either way."""
    names = ("rfc6455", "closing", "functions", "deflating")
    pass_the_other_way(*(f"tests/conformance/test_{name}.py" for name in names))
