"""TLS between a socket's transport and a protocol: OpenSSL on the other side, and one that a test looks into below."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import ssl
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from hubbub.listening.certificates import read_pair
from hubbub.listening.tls import PIECE_BYTES, READ_BYTES, RECORD_BYTES, TlsTransport, read_buffer
from live import BOUND_S, until
from tlslab import Issuer


class Raw:
    """A socket's transport that notes what is asked of it."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.taken = 0
        self.ends: list[str] = []
        self.is_paused = False
        self.limits: Any = None

    def write(self, data: bytes) -> None:
        assert data, "nothing is to be written"
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return len(self.sent) - self.taken

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def get_write_buffer_limits(self) -> Any:
        return self.limits

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 1)}.get(name, default)

    def is_closing(self) -> bool:
        return bool(self.ends)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")


class Plain(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.told: list[str] = []
        self.pause_after: int | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if self.pause_after is not None and len(self.heard) >= self.pause_after:
            self.pause_after = None
            self.transport.pause_reading()

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


class Buffered(asyncio.BufferedProtocol):
    """The same for who has a buffer of its own, and a small one."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.told: list[str] = []
        self._buffer = memoryview(bytearray(100))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += self._buffer[:nbytes]

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")


class Line:
    """A client's TLS, ours, and nothing in between.

    Attributes:
        raw, tls, protocol: of our side.
        client: the other's.

    """

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, end_s: float = BOUND_S) -> None:
        self.raw = Raw()
        self.made: list[Plain] = []
        self.tls = TlsTransport(server, self._make, end_s, read_buffer())
        self.tls.connection_made(self.raw)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self._in, self._out, server_hostname="localhost")

    def _make(self) -> Plain:
        self.made.append(Plain())
        return self.made[-1]

    @property
    def protocol(self) -> Plain:
        (made,) = self.made
        return made

    def carry(self, most: int = READ_BYTES) -> None:
        """Bring what was written to the other side, in pieces as large as reads are at most."""
        self._in.write(bytes(self.raw.sent[self.raw.taken :]))
        self.raw.taken = len(self.raw.sent)
        data = self._out.read()
        for begin in range(0, len(data), most):
            self.comes(data[begin : begin + most])

    def comes(self, data: bytes) -> None:
        """Bytes come from the socket."""
        self.tls.get_buffer(-1)[: len(data)] = data
        self.tls.buffer_updated(len(data))

    def shake(self, most: int = READ_BYTES) -> Line:
        """Do the handshake."""
        while True:
            try:
                self.client.do_handshake()
            except ssl.SSLWantReadError:
                self.carry(most)
                continue
            self.carry(most)
            return self

    def hear(self) -> bytes:
        """What the client can read."""
        heard = bytearray()
        try:
            while data := self.client.read(READ_BYTES):
                heard += data
        except ssl.SSLWantReadError:
            pass
        return bytes(heard)

    def leave(self) -> None:
        """The client says goodbye."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.client.unwrap()
        self.carry()


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    issuer = Issuer(tmp_path_factory.mktemp("tls"))
    issuer.write()
    return read_pair(issuer.cert, issuer.key).context, issuer.client_context()


@pytest.fixture
async def line(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Line:
    return Line(*contexts)


# The handshake


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("most", [1, READ_BYTES])
async def test_a_protocol_is_made_when_the_handshake_is_done(
    tmp_path: Path, version: ssl.TLSVersion, most: int
) -> None:
    """However its bytes come, and it is told of what came behind."""
    issuer = Issuer(tmp_path)
    issuer.write()
    client = issuer.client_context()
    client.maximum_version = version
    line = Line(read_pair(issuer.cert, issuer.key).context, client)
    assert repr(line.tls) == "<TlsTransport SHAKING>"
    while True:
        try:
            line.client.do_handshake()
            break
        except ssl.SSLWantReadError:
            assert bool(line.made) is line.tls.shaken.done()
            line.carry(most)
    line.client.write(b"early")
    line.carry(most)
    assert not await line.tls.shaken
    assert (line.protocol.told, line.protocol.heard) == (["made"], b"early")
    spoken = line.tls.get_extra_info("ssl_object")
    assert spoken.version() == version.name.replace("_", ".")
    assert line.tls.get_extra_info("sslcontext") is not None
    assert line.tls.get_extra_info("peername") == ("192.0.2.1", 1)
    assert line.tls.get_extra_info("nothing", 7) == 7


async def test_a_handshake_that_fails_says_why_and_makes_nothing(line: Line) -> None:
    """The other gets an alert, and not a reset alone."""
    line.comes(b"\x16\x03\x01\x00\x05nonsense")
    assert "SSL" in await line.tls.shaken
    assert (bytes(line.raw.sent[:1]), line.raw.ends, line.made) == (b"\x15", ["abort"], [])


@pytest.mark.parametrize("end", ["eof_received", "connection_lost", "abort", "close"])
async def test_a_handshake_may_end_at_any_time(line: Line, end: str) -> None:
    """Whoever ends it, nothing is made, and who waits for it learns of that unless it was himself."""
    line.comes(b"\x16\x03\x01")
    getattr(line.tls, end)(*([None] if end == "connection_lost" else []))
    assert not line.made
    if end in ("eof_received", "connection_lost"):
        assert await line.tls.shaken
    line.tls.connection_lost(None)
    assert line.tls.is_closing()


async def test_a_socket_that_comes_too_late_is_closed(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """It was given up before the loop had it ready."""
    tls, raw = TlsTransport(contexts[0], Plain, BOUND_S, read_buffer()), Raw()
    tls.abort()
    tls.connection_made(raw)
    assert raw.ends == ["abort"]


# Bytes


@settings(deadline=None, max_examples=examples(30))
@given(data=st.data())
def test_all_bytes_arrive_in_order_both_ways(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], data: st.DataObject
) -> None:
    """Whatever their lengths are, and wherever they are cut on the way."""

    async def story() -> None:
        line = Line(*contexts).shake()
        said: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        heard = bytearray()
        sizes = st.sampled_from([1, 90, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 20_000, 70_000])
        for number in range(data.draw(st.integers(1, 8))):
            words = bytes([65 + number]) * data.draw(sizes)
            if data.draw(st.booleans()):
                line.client.write(words)
                said[0].extend(words)
            else:
                line.tls.writelines([words[:1], words[1:]])
                said[1].extend(words)
            if data.draw(st.booleans()):
                line.carry(data.draw(st.sampled_from([500, PIECE_BYTES, PIECE_BYTES + 1, READ_BYTES])))
                heard += line.hear()
        line.carry()
        heard += line.hear()
        assert (line.protocol.heard, heard) == said

    asyncio.run(story())


async def test_a_protocol_with_a_buffer_gets_as_much_as_it_holds(line: Line) -> None:
    """And all of it in the end; a protocol may be exchanged at any time."""
    line.shake()
    buffered = Buffered()
    line.tls.set_protocol(buffered)
    assert line.tls.get_protocol() is buffered
    line.client.write(b"x" * 1_000)
    line.carry()
    assert buffered.heard == b"x" * 1_000
    line.tls.connection_lost(None)
    assert buffered.told == ["lost"]


async def test_who_wants_nothing_gets_nothing_and_all_of_it_later(line: Line) -> None:
    """Not even the rest of what came at once; and no more is read from the socket."""
    line.shake()
    protocol = line.protocol
    protocol.pause_after = 1
    for number in range(40):
        line.client.write(bytes([number]) * 1_000)
    line.carry()
    assert (len(protocol.heard), line.raw.is_paused, line.tls.is_reading()) == (1_000, True, False)
    protocol.pause_after = 10_000
    line.tls.resume_reading()
    assert not line.raw.is_paused
    await until(lambda: line.raw.is_paused, "enough again")
    assert len(protocol.heard) == 10_000
    line.tls.resume_reading()
    await until(lambda: len(protocol.heard) == 40_000, "all of it")
    assert protocol.heard == b"".join(bytes([number]) * 1_000 for number in range(40))


async def test_what_waits_is_known_to_the_byte(line: Line) -> None:
    """All of it waits in the socket's transport, which is asked for pauses, and whose they are."""
    line.shake()
    line.tls.set_write_buffer_limits(high=1)
    assert line.raw.limits == line.tls.get_write_buffer_limits() == (1, None)
    for size in (1, 100_000):
        line.tls.write(b"x" * size)
        assert line.tls.get_write_buffer_size() == len(line.raw.sent) - line.raw.taken > size
    line.tls.pause_writing()
    line.tls.resume_writing()
    assert line.protocol.told == ["made", "pause", "resume"]
    line.carry()
    assert line.tls.get_write_buffer_size() == 0
    encrypt, encrypted, write, most = line.tls.get_extra_info("seal")
    encrypt(b"past it")
    write(encrypted())
    line.carry()
    assert (line.hear()[-7:], most) == (b"past it", RECORD_BYTES)


async def test_nothing_to_write_is_not_written(line: Line) -> None:
    """No record is made of it."""
    line.shake()
    before = len(line.raw.sent)
    line.tls.write(b"")
    assert len(line.raw.sent) == before
    assert not line.tls.can_write_eof()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library's own count")
async def test_no_connection_keeps_room_for_the_largest_thing_that_it_has_seen(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """Half a megabyte went out over each, and a read full of bytes came in; what is kept is what a quiet one has."""

    class Numbers(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in ("a", "b", "c", "d", "mapped", "f", "g", "used", "i", "j")]

    try:
        numbers = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        pytest.skip("the C library does not count")
    numbers.restype = Numbers

    def used() -> int:
        now = numbers()
        return int(now.used + now.mapped)

    lines = [Line(*contexts).shake() for _ in range(40)]
    for each in lines:
        each.tls.write(b"x" * 100)
        each.carry()
        each.hear()
    gc.collect()
    before = used()
    for each in lines:
        each.tls.write(b"x" * 500_000)
        each.raw.sent.clear()
        each.protocol.pause_after = 1
        each.client.write(b"y" * 60_000)
        data = each._out.read()
        each.comes(data)
        each.tls.resume_reading()
    await until(lambda: all(len(each.protocol.heard) == 60_000 for each in lines), "heard")
    for each in lines:
        each.protocol.heard = bytearray()
        # The client's own memory is not looked at: it goes.
        del each.client, each._in, each._out
    gc.collect()
    assert (used() - before) / len(lines) < 24 * 1024


# The end


async def test_goodbye_is_said_and_answered(line: Line) -> None:
    """What waits goes before it, what still comes is thrown away, and the socket is closed when both have said it."""
    line.shake()
    protocol = line.protocol
    line.tls.write(b"last words")
    line.tls.close()
    assert line.tls.is_closing()
    line.tls.write(b"too late")
    line.client.write(b"too late as well")
    line.carry()
    assert (line.hear(), line.raw.ends) == (b"last words", [])
    line.leave()
    assert (line.raw.ends, bytes(protocol.heard)) == (["close"], b"")
    line.tls.connection_lost(None)
    assert protocol.told == ["made", "lost"]


async def test_the_others_goodbye_is_answered(line: Line) -> None:
    """The protocol hears of it, and then that it is over."""
    line.shake()
    protocol = line.protocol
    line.client.write(b"bye")
    line.leave()
    assert (bytes(protocol.heard), protocol.told, line.raw.ends) == (b"bye", ["made", "eof"], ["close"])
    line.carry()
    line.client.unwrap()
    line.tls.connection_lost(None)
    assert protocol.told == ["made", "eof", "lost"]


async def test_who_wants_nothing_still_hears_that_it_ends(line: Line) -> None:
    """A paused connection that is closed is read from again, for the other's goodbye."""
    line.shake()
    line.protocol.pause_after = 1
    line.client.write(b"x" * 2 * PIECE_BYTES)
    with contextlib.suppress(ssl.SSLWantReadError):
        line.client.unwrap()
    line.carry()
    assert line.raw.is_paused
    line.tls.close()
    assert (line.raw.is_paused, line.raw.ends) == (False, ["close"])


@pytest.mark.parametrize("how", ["silent", "gone", "deaf"])
async def test_an_end_takes_no_longer_than_it_may(contexts: tuple[ssl.SSLContext, ssl.SSLContext], how: str) -> None:
    """Whether the other says no goodbye, goes without one, or says it and reads nothing."""
    line = Line(*contexts, end_s=0.01).shake()
    line.tls.write(b"x" * 1_000)
    match how:
        case "silent":
            line.tls.close()
        case "gone":
            line.tls.eof_received()
        case "deaf":
            line.tls.close()
            line.carry()
            assert line.hear() == b"x" * 1_000
            line.leave()
            assert line.raw.ends == ["close"]
    await until(lambda: line.raw.ends[-1:] == ["abort"], "cut off")


async def test_a_broken_connection_ends_at_once(line: Line) -> None:
    """Bytes that are no TLS are answered with an alert."""
    line.shake()
    before = len(line.raw.sent)
    line.comes(b"this is no record of TLS")
    assert line.raw.ends == ["abort"]
    assert line.raw.sent[before:]
    assert not line.protocol.heard
    line.tls.write(b"too late")
    line.comes(b"more")
    line.tls.connection_lost(None)
    line.tls.abort()
    line.tls.resume_reading()
    assert line.protocol.told == ["made", "lost"]


async def test_a_protocol_that_fails_while_it_catches_up_ends_the_connection(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    """As it does when bytes have just come, which is the loop's to see."""
    line.shake()
    line.tls.pause_reading()
    line.client.write(b"hello")
    line.carry()

    def fail(data: bytes) -> None:
        raise RuntimeError("no")

    line.protocol.data_received = fail  # type: ignore[method-assign]
    line.tls.resume_reading()
    await until(lambda: line.raw.ends == ["abort"], "ended")
    assert "a protocol failed" in caplog.text


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("shaken", [True, False])
async def test_what_has_ended_is_freed_without_the_collector(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], shaken: bool, uncollected: None
) -> None:
    """Its protocol, and OpenSSL's memory."""
    line = Line(*contexts)
    if shaken:
        line.shake()
        line.tls.close()
    freed: list[Callable[[], Any]] = [weakref.ref(line.tls.get_extra_info("ssl_object"))]
    freed += [weakref.ref(each) for each in line.made]
    line.made.clear()
    line.tls.abort()
    line.tls.connection_lost(None)
    assert [each() for each in freed] == [None] * len(freed)
