"""Who is written what at the end of a turn: the same promises of the way in Python and of the accelerator."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from hubbub.gateway import outlets
from hubbub.listening.certificates import read_pair
from hubbub.listening.tls import TlsTransport, read_buffer
from otherway import pass_the_other_way
from tlslab import Issuer

try:
    from hubbub.gateway import _accelerator as accelerator
except ImportError:  # the tests of it say so
    accelerator = None  # type: ignore[assignment]


@pytest.fixture(params=["python", "accelerator"])
def way(request: pytest.FixtureRequest) -> ModuleType:
    """The module under test."""
    return outlets if request.param == "python" else built()


def built() -> ModuleType:
    """The accelerator; its absence is a failure, with what to do about it."""
    if accelerator is None:
        pytest.fail("the accelerator is not built: scripts/setup system gcc; rm .venv/.dev; make .venv/.dev")
    return accelerator


class Far:
    """The far end of an outlet: the objects that were written to it."""

    def __init__(self, way: ModuleType, raises: Exception | None = None) -> None:
        self.writes: list[bytes] = []
        self.raises = raises
        self.outlet = way.Outlet(self.write)

    def write(self, data: bytes) -> None:
        if self.raises:
            raise self.raises
        self.writes.append(data)


def test_each_gets_one_write_in_the_order_of_the_log(way):
    """Whichever batches it is in, and whatever their order."""
    a, b, c = (Far(way) for _ in range(3))
    log = [b"0", b"1", b"2", b"3"]
    answer = way.flush(log, [([a.outlet, b.outlet], [1, 3]), ([b.outlet, c.outlet], [0, 2])])
    assert (a.writes, b.writes, c.writes) == ([b"13"], [b"0123"], [b"02"])
    assert answer == (8, 8, [])


def test_one_frame_is_handed_on_as_it_is(way):
    """And frames are joined once for all who get the same."""
    several = [Far(way) for _ in range(3)]
    everyone = [far.outlet for far in several]
    log = [b"0", b"1"]
    way.flush(log, [(everyone, [1])])
    way.flush(log, [(everyone, [0, 1])])
    assert all(far.writes[0] is log[1] for far in several)
    assert all(far.writes[1] is several[0].writes[1] for far in several)
    for far in several:
        far.writes.clear()
    way.flush(log, [(everyone, [0]), (everyone, [1])])
    assert all(far.writes[0] is several[0].writes[0] and len(far.writes) == 1 for far in several)


def test_the_congested_and_the_broken_are_left_to_the_caller(way):
    """With what they would have got and what was raised, and the others notice nothing."""
    broken = OSError("gone")
    a, b, c = Far(way), Far(way, broken), Far(way)
    a.outlet.congested = True
    frames, size, left = way.flush([b"x", b"yz"], [([a.outlet, b.outlet, c.outlet], [0, 1])])
    assert (frames, size) == (6, 9)
    assert [(outlet, data) for outlet, data, _ in left] == [(a.outlet, b"xyz"), (b.outlet, b"xyz")]
    assert [error for *_, error in left] == [None, broken]
    assert (a.writes, c.writes) == ([], [b"xyz"])


def test_what_is_no_failure_of_a_socket_goes_through(way):
    """An interruption ends the flush."""
    far = Far(way)

    def interrupted(data: bytes) -> None:
        raise KeyboardInterrupt

    far.outlet.write = interrupted
    with pytest.raises(KeyboardInterrupt):
        way.flush([b"x"], [([far.outlet], [0])])


def test_nothing_is_nothing(way):
    """No batches, or one of nobody."""
    assert way.flush([], []) == (0, 0, [])
    assert way.flush([b"x"], [([], [0])]) == (0, 0, [])
    assert way.flush([b"x", b"y"], [([], [0]), ([], [0, 1])]) == (0, 0, [])


@given(
    lists=st.lists(
        st.tuples(st.sets(st.integers(0, 7), max_size=8), st.sets(st.integers(0, 19), min_size=1)), max_size=14
    ),
    congested=st.sets(st.integers(0, 7)),
)
@pytest.mark.parametrize("which", ["python", "accelerator"])
def test_any_batches_are_written_like_a_model_says(which, lists, congested):
    """The model: each outlet's positions of all batches it is in, sorted."""
    way = outlets if which == "python" else built()
    # A position is in one batch of those that an outlet is in: a frame is published to one group.
    taken: dict[int, set[int]] = {}
    batches = []
    for who, positions in lists:
        fresh = sorted(each for each in positions if all(each not in taken.setdefault(n, set()) for n in who))
        if fresh:
            batches.append((sorted(who), fresh))
            for n in who:
                taken[n].update(fresh)
    log = [b"%02d." % n * (n + 1) for n in range(20)]
    fars = [Far(way) for _ in range(8)]
    for n in congested:
        fars[n].outlet.congested = True
    answer = way.flush(log, [([fars[n].outlet for n in who], positions) for who, positions in batches])
    due = {n: b"".join(log[position] for position in sorted(taken[n])) for n in range(8) if taken.get(n)}
    assert {n: far.writes for n, far in enumerate(fars) if far.writes} == {
        n: [data] for n, data in due.items() if n not in congested
    }
    assert {id(outlet): data for outlet, data, _ in answer[2]} == {
        id(fars[n].outlet): data for n, data in due.items() if n in congested
    }
    assert answer[:2] == (sum(len(taken[n]) for n in due), sum(map(len, due.values())))


class Transport:
    """A transport as far as the accelerator asks one, and what it was given to write."""

    def __init__(self) -> None:
        self.closing: Any = False
        self.writes: list[bytes] = []

    def is_closing(self) -> Any:
        if isinstance(self.closing, Exception):
            raise self.closing
        return self.closing

    def write(self, data: bytes) -> None:
        self.writes.append(data)


@pytest.fixture
def pair():
    """A connected pair of sockets; the first is what is written to, and takes some kilobytes."""
    one, other = socket.socketpair()
    for each in (one, other):
        each.setblocking(False)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    yield one, other
    one.close()
    other.close()


def test_the_accelerator_writes_past_a_transport_in_which_nothing_waits(pair):
    """Frames joined of one batch and merged of several."""
    transport = Transport()
    outlet = built().Outlet(transport.write, transport, pair[0].fileno())
    assert built().flush([b"1", b"2"], [([outlet], [0, 1])]) == (2, 2, [])
    assert built().flush([b"3", b"4"], [([outlet], [1]), ([outlet], [0])]) == (2, 2, [])
    assert (pair[1].recv(99), transport.writes) == (b"1234", [])


def test_the_accelerator_leaves_what_the_kernel_does_not_take_to_the_transport(pair):
    """In order: the socket has the beginning, the transport the rest; a full one gets all."""
    transport = Transport()
    outlet = built().Outlet(transport.write, transport, pair[0].fileno())
    frame = os.urandom(1_000_000)
    assert built().flush([frame], [([outlet], [0])])[2] == []
    assert built().flush([b"more"], [([outlet], [0])])[2] == []
    rest, more = transport.writes
    got = bytearray()
    while len(got) + len(rest) < len(frame):
        got += pair[1].recv(1 << 20)
    assert bytes(got) + rest == frame
    assert (len(got) > 0, more) == (True, b"more")


@pytest.mark.parametrize("how", ["closing", "detached", "congested"])
def test_the_accelerator_leaves_alone_a_socket_that_may_be_anothers(pair, how):
    """Neither a transport that closes, nor one that is gone, nor one in which something waits is written past."""
    transport = Transport()
    outlet = built().Outlet(transport.write, transport, pair[0].fileno())
    if how == "closing":
        transport.closing = True
    elif how == "detached":
        outlet.detach()
    else:
        outlet.congested = True
    left = built().flush([b"x"], [([outlet], [0])])[2]
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)
    assert transport.writes == ([] if how == "congested" else [b"x"])
    assert left == ([(outlet, b"x", None)] if how == "congested" else [])


def test_the_accelerator_tells_a_broken_socket_to_its_transport(pair):
    """Which knows what to do; and no signal ends the process."""
    transport = Transport()
    outlet = built().Outlet(transport.write, transport, pair[0].fileno())
    pair[1].close()
    assert built().flush([b"x"], [([outlet], [0])])[2] == []
    assert transport.writes == [b"x"]


def test_a_transport_that_cannot_be_asked_is_a_broken_one(pair):
    """What it raises is told, and nothing is written."""
    transport = Transport()
    transport.closing = OSError("who asks?")
    outlet = built().Outlet(transport.write, transport, pair[0].fileno())
    assert built().flush([b"x"], [([outlet], [0])])[2] == [(outlet, b"x", transport.closing)]


@pytest.fixture
def pairs():
    """Connected pairs of sockets: what is written to, and the far end."""
    made = [socket.socketpair() for _ in range(60)]
    for each in (each for pair in made for each in pair):
        each.setblocking(False)
    yield made
    for each in (each for pair in made for each in pair):
        each.close()


@pytest.mark.parametrize("several", [False, True], ids=["one batch", "several"])
def test_many_are_written_to_in_volleys(pairs, several):
    """Each gets what is its own, past its transport or through it, however many they are and however long that is."""
    transports = [Transport() for _ in range(600)]
    outlets = [built().Outlet(each.write, each, pairs[n // 10][0].fileno()) for n, each in enumerate(transports)]
    log = [bytes([65 + n]) * (3_000 - n) for n in range(20)]
    batches = [(outlets, [3, 5])]
    if several:
        batches = [(outlets[first::7], [first]) for first in range(7)]
        batches += [(outlets[first::5], [7 + first, 13 + first]) for first in range(3)]
    due: list[list[int]] = [[] for _ in outlets]
    for who, positions in batches:
        for outlet in who:
            due[outlets.index(outlet)] += positions
    payloads = [b"".join(log[position] for position in sorted(each)) for each in due]
    for n in range(0, 600, 9):  # some are not written past their transports
        transports[n].closing = n % 2 == 0
        if n % 2:
            outlets[n].detach()
    outlets[255].congested = outlets[256].congested = True
    transports[511].closing = OSError("no")
    frames, size, left = built().flush(log, batches)
    assert (frames, size) == (sum(map(len, due)), sum(map(len, payloads)))
    assert sorted(
        (outlets.index(outlet), payload == payloads[outlets.index(outlet)], error) for outlet, payload, error in left
    ) == [(255, True, None), (256, True, None), (511, True, transports[511].closing)]
    through = [n for n, transport in enumerate(transports) if transport.writes]
    assert through == list(range(0, 600, 9))
    assert all(transports[n].writes == [payloads[n]] for n in through)
    past = [b"" if n in (*through, 255, 256, 511) else payload for n, payload in enumerate(payloads)]
    for number, (_, far) in enumerate(pairs):
        mine = range(number * 10, number * 10 + 10)
        in_order = sorted(mine, key=lambda n: n % 7) if several else mine  # as the batches have them
        assert far.recv(1 << 20) == b"".join(past[n] for n in in_order)


def test_other_threads_run_while_the_kernel_works(pairs):
    """Such as the one that commits messages: a volley is sent without Python's lock."""
    transport = Transport()
    outlets = [built().Outlet(transport.write, transport, pairs[n // 10][0].fileno()) for n in range(600)]
    near, far = socket.socketpair()
    outlets.insert(0, built().Outlet(transport.write, transport, near.fileno()))
    flushing: list[bool] = []
    seen: list[bool] = []

    def watch() -> None:
        while far.recv(1):  # waits without the lock, and needs it to go on
            seen.append(bool(flushing))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # so that the lock is let go of by itself alone
    thread = threading.Thread(target=watch)
    try:
        thread.start()
        for turn in range(1, 201):  # on a busy machine a thread may not run as soon as it may
            flushing.append(True)
            assert built().flush([b"x"], [(outlets, [0])])[2] == []
            flushing.clear()
            for _, end in pairs:
                end.recv(99)
            while len(seen) < turn:
                time.sleep(0.0001)
            if any(seen):
                break
    finally:
        sys.setswitchinterval(interval)
        near.close()
        thread.join()
        far.close()
    assert any(seen)


def test_an_interruption_leaves_nobody_a_part_of_a_frame(pairs):
    """Whose socket has the beginning gets the rest, while those who have nothing get nothing more."""
    transports = [Transport() for _ in range(20)]
    for one, _ in pairs[:20]:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            pairs[19][0].send(b"full" * 100)
    outlets = [built().Outlet(each.write, each, pairs[n][0].fileno()) for n, each in enumerate(transports)]

    def interrupted(data: bytes) -> None:
        raise KeyboardInterrupt

    outlets[3].write = interrupted
    frame = os.urandom(1_000_000)
    with pytest.raises(KeyboardInterrupt):
        built().flush([frame], [(outlets, [0])])
    for n in {*range(20)} - {3}:
        got = bytearray()
        with contextlib.suppress(BlockingIOError):
            while True:
                got += pairs[n][1].recv(1 << 20)
        whole = bytes(got) + b"".join(transports[n].writes)
        assert whole == frame if n < 3 else whole in (frame, b"") if n < 19 else not transports[n].writes
    assert transports[3].writes == []


def test_a_socket_that_goes_while_others_are_asked_is_not_written_to(pairs):
    """Whatever a transport does when it is asked whether it is closing, before anything is sent."""

    class Meddling(Transport):
        def is_closing(self) -> Any:
            outlets[0].detach()
            outlets[1].congested = True
            return False

    transports = [Transport(), Transport(), Meddling(), Transport()]
    outlets = [built().Outlet(each.write, each, pairs[n][0].fileno()) for n, each in enumerate(transports)]
    assert built().flush([b"x"], [(outlets, [0])])[2] == [(outlets[1], b"x", None)]
    assert [each.writes for each in transports] == [[b"x"], [], [], []]
    assert [pairs[n][1].recv(9) for n in (2, 3)] == [b"x", b"x"]
    for n in (0, 1):
        with pytest.raises(BlockingIOError):
            pairs[n][1].recv(1)


class Sealing:
    """What encrypts: it puts brackets around, and has the transport below it."""

    def __init__(self) -> None:
        self.below = Transport()
        self.records: list[bytes] = []
        self.raises: Exception | None = None

    def encrypt(self, data: bytes) -> int:
        if self.raises is not None:
            raise self.raises
        self.records.append(b"<%b>" % data)
        return len(data)

    def encrypted(self) -> bytes:
        return self.records.pop()

    def outlet(self, transport: Transport, fd: int, most: int = 1 << 24) -> Any:
        return built().Outlet(transport.write, transport, fd, (self.encrypt, self.encrypted, self.below.write, most))


def test_the_accelerator_encrypts_what_it_writes_past_a_transport(pair):
    """What the kernel does not take goes, encrypted, to the transport below, and never through the one above again."""
    above, sealing = Transport(), Sealing()
    outlet = sealing.outlet(above, pair[0].fileno())
    frame = os.urandom(1_000_000)
    for log in ([b"1", b"2"], [frame], [b"more"]):
        assert built().flush(log, [([outlet], list(range(len(log))))])[2] == []
    rest, more = sealing.below.writes
    got = bytearray()
    while len(got) + len(rest) < len(frame) + 6:
        got += pair[1].recv(1 << 20)
    assert bytes(got) + rest == b"<12><" + frame + b">"
    assert (more, above.writes) == (b"<more>", [])


@pytest.mark.parametrize("how", ["closing", "detached", "too long"])
def test_the_accelerator_leaves_it_to_the_transport_to_encrypt(pair, how):
    """Where the socket may be another's, and where it takes several records."""
    above, sealing = Transport(), Sealing()
    outlet = sealing.outlet(above, pair[0].fileno(), most=3)
    built().flush([b"abc"], [([outlet], [0])])
    assert pair[1].recv(9) == b"<abc>"
    if how == "closing":
        above.closing = True
    elif how == "detached":
        outlet.detach()
    frame = b"abcd" if how == "too long" else b"abc"
    assert built().flush([frame], [([outlet], [0])])[2] == []
    assert (above.writes, sealing.records, sealing.below.writes) == ([frame], [], [])


def test_what_cannot_be_encrypted_is_left_to_the_caller(pair):
    """With what was raised: nothing more may be written there."""
    sealing = Sealing()
    outlet = sealing.outlet(Transport(), pair[0].fileno())
    sealing.raises = OSError("no")
    assert built().flush([b"x"], [([outlet], [0])])[2] == [(outlet, b"x", sealing.raises)]
    sealing.encrypted = lambda: "text"  # type: ignore[method-assign, return-value, assignment]
    sealing.raises = None
    ((_, _, error),) = built().flush([b"x"], [([sealing.outlet(Transport(), pair[0].fileno())], [0])])[2]
    assert str(error) == "expected what is encrypted to be bytes, got 'text'"


def test_what_is_encrypted_is_written_in_turn_whatever_happens_until_then(pairs):
    """To the transport below where the socket is not to be written to any more; nowhere where it is gone."""
    sealings = [Sealing() for _ in range(4)]

    class Meddling(Transport):
        def is_closing(self) -> Any:
            outlets[0].congested = True
            outlets[1].detach()
            return False

    above = [Transport(), Transport(), Meddling(), Transport()]
    outlets = [sealing.outlet(above[n], pairs[n][0].fileno()) for n, sealing in enumerate(sealings)]
    assert built().flush([b"x"], [(outlets, [0])])[2] == []
    assert [each.below.writes for each in sealings] == [[b"<x>"], [], [], []]
    assert [pairs[n][1].recv(9) for n in (2, 3)] == [b"<x>", b"<x>"]
    assert [each.writes for each in above] == [[], [], [], []]


def test_an_interrupt_loses_nothing_that_is_encrypted(pairs):
    """Or what is encrypted next could not be read."""
    sealings = [Sealing() for _ in range(4)]
    outlets = [sealing.outlet(Transport(), pairs[n][0].fileno()) for n, sealing in enumerate(sealings)]
    sealings[2].raises = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        built().flush([b"x"], [(outlets, [0])])
    assert [pairs[n][1].recv(9) for n in (0, 1)] == [b"<x>", b"<x>"]
    for n in (2, 3):
        with pytest.raises(BlockingIOError):
            pairs[n][1].recv(1)


def test_much_is_encrypted_and_sent_in_parts(pairs):
    """Not all of it is kept until the last is encrypted."""
    most = 0

    class Counting(Sealing):
        def encrypted(self) -> bytes:
            nonlocal most
            most = max(most, sum(each.made for each in sealings) - received())
            return super().encrypted()

        made = 0

        def encrypt(self, data: bytes) -> int:
            self.made = 1
            return super().encrypt(data)

    def received() -> int:
        return sum(bool(select.select([far], [], [], 0)[0]) for _, far in pairs[: len(sealings)])

    sealings = [Counting() for _ in range(20)]
    outlets = [sealing.outlet(Transport(), pairs[n][0].fileno()) for n, sealing in enumerate(sealings)]
    frame = os.urandom(60_000)
    assert built().flush([frame], [(outlets, [0])])[2] == []
    assert 2 <= most <= 10
    for _, far in pairs[: len(sealings)]:
        got = bytearray()
        while len(got) < len(frame) + 2:
            got += far.recv(1 << 20)
        assert bytes(got) == b"<" + frame + b">"


def test_a_seal_is_let_go_with_the_socket(pair):
    """It may hold much memory of a TLS that has ended, while the outlet is still somewhere."""
    sealing = Sealing()
    before = sys.getrefcount(sealing), sys.getrefcount(sealing.below)
    outlet = sealing.outlet(Transport(), pair[0].fileno())
    for _ in range(100):
        built().flush([b"x", b"y"], [([outlet], [0, 1])])
        pair[1].recv(99)
    outlet.detach()
    assert (sys.getrefcount(sealing), sys.getrefcount(sealing.below)) == before


def test_outlets_are_freed_with_what_they_hold():
    """A reference is counted for each that is kept, and none is left behind."""
    gc.collect()  # transports of other tests that have raised
    transport = Transport()
    before = sys.getrefcount(transport), sys.getrefcount(Transport)
    held = [built().Outlet(transport.write, transport) for _ in range(10)]
    frame = os.urandom(100)
    count = sys.getrefcount(frame)
    for _ in range(100):
        built().flush([frame, b"y"], [(held, [0, 1]), (held[:5], [0])])
        held[0].congested = True
        built().flush([frame], [(held, [0])])
    transport.writes.clear()
    assert sys.getrefcount(frame) == count
    del held
    assert (sys.getrefcount(transport), sys.getrefcount(Transport)) == before


class Number:
    """Would become 0 where a position is wanted."""

    def __repr__(self) -> str:
        return "<Number>"

    def __index__(self) -> int:
        raise AssertionError("expected no code to run while batches are read")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda way, outlet: way.flush(1, []), "expected a list of frames and a list of batches"),
        (lambda way, outlet: way.flush([1], [([outlet], [0])]), "expected frames to be bytes, got 1"),
        (lambda way, outlet: way.flush([b""], [([outlet], [])]), "expected a list of outlets and one of positions"),
        (lambda way, outlet: way.flush([b""], [outlet]), "expected a list of outlets and one of positions"),
        (lambda way, outlet: way.flush([b""], [([outlet], [1])]), "expected ascending positions below 1, got"),
        (lambda way, outlet: way.flush([b"", b""], [([outlet], [1, 0])]), "expected ascending positions below 2"),
        (lambda way, outlet: way.flush([b""], [([outlet], [Number()])]), "expected positions to be int, got <Number>"),
        (
            lambda way, outlet: way.flush([b""] * 9, [([outlet] * 3, [*range(9)]), ([], [0])]),
            "once in a batch, got .* twice",
        ),
        (lambda way, outlet: way.flush([b""], [([object()], [0])]), "expected an Outlet, got"),
        (lambda way, outlet: way.Outlet(print, None, 3), "expected a transport beside the number of its socket"),
        (lambda way, outlet: way.Outlet(print, outlet, 3, (print, print, print, 2**70)), "too large"),
        (lambda way, outlet: way.Outlet(), "required argument"),
        (lambda way, outlet: way.Outlet(print, None, -1, 1), "expected a tuple of three functions and a size, got 1"),
        (
            lambda way, outlet: way.Outlet(print, None, -1, (print,) * 4),
            "expected a tuple of three functions and a size",
        ),
    ],
)
def test_the_accelerator_refuses_what_it_is_not_made_for(call: Callable[..., Any], words: str):
    """With words that say what was expected: nothing that Python code does to it ends the process."""
    with pytest.raises((TypeError, ValueError, OverflowError), match=words):
        call(built(), built().Outlet(print))


def test_what_was_refused_is_not_held():
    """Nor is what it came with."""
    frame, outlet = os.urandom(100), built().Outlet(print)
    for arguments in (
        ([frame, 1], []),
        ([frame], [([outlet], [0]), ([outlet, 1], [0])]),
        ([frame], [([outlet] * 2, [0])] * 2),
    ):
        counts = sys.getrefcount(frame), sys.getrefcount(outlet)
        for _ in range(3):
            with pytest.raises((TypeError, ValueError)):
                built().flush(*arguments)
        assert (sys.getrefcount(frame), sys.getrefcount(outlet)) == counts


@pytest.mark.parametrize("several", [False, True], ids=["one batch", "several"])
@pytest.mark.parametrize("change", ["fewer", "more", "others"])
def test_lists_that_change_while_they_are_written_do_no_harm(several, change):
    """Whatever a connection's own code does to what the accelerator was given, it reads nothing that is not there."""
    log = [os.urandom(500) for _ in range(40)]
    outlets, positions = [], list(range(40))
    batches = [(outlets, positions), (outlets[:3] if several else [], [0])][: 1 + several]
    writes: list[bytes] = []

    def write(data: bytes) -> None:
        writes.append(data)
        if change == "fewer":
            for each in (log, outlets, positions, batches):
                each.clear()
        elif change == "more":
            log.extend([b""] * 1_000)
            outlets.extend(built().Outlet(write) for _ in range(10) if len(outlets) < 200)
        else:
            log[:] = outlets[1:] = positions[:] = batches[:] = [None] * 40

    outlets.extend(built().Outlet(write) for _ in range(20))
    if several:
        batches[1] = (outlets[:3], [39])
        positions.remove(39)
    due = {b"".join(log), b"".join(log[:39])}
    if change == "others" and not several:
        with pytest.raises(TypeError, match="expected outlets to stay what they were, got None"):
            built().flush(log, batches)
    else:
        built().flush(log, batches)
    assert len(writes) >= 1
    assert set(writes) <= due


def test_each_interpreter_has_an_accelerator_of_its_own():
    """Nothing is shared with another interpreter, and nothing of it is left when that one ends."""
    interpreters = pytest.importorskip("_xxsubinterpreters", reason="they are called otherwise from Python 3.13 on")
    code = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("hubbub.gateway._accelerator", {built().__file__!r})
own = importlib.util.module_from_spec(spec)
spec.loader.exec_module(own)
class Mine(own.Outlet):
    pass
writes = []
assert own.flush([b"1"], [([Mine(writes.append), own.Outlet(writes.append)], [0])])[:2] == (2, 2)
assert writes == [b"1", b"1"] and id(own.Outlet) != {id(built().Outlet)}
"""
    other = interpreters.create()
    try:
        interpreters.run_string(other, code)
    finally:
        interpreters.destroy(other)
    far = Far(built())
    built().flush([b"2"], [([far.outlet], [0])])
    assert far.writes == [b"2"]


class Pausing(asyncio.Protocol):
    """A protocol that tells its outlet when to be left alone, and how often that was."""

    def __init__(self) -> None:
        self.outlet: Any = None
        self.pauses = 0

    def pause_writing(self) -> None:
        self.outlet.congested = True
        self.pauses += 1

    def resume_writing(self) -> None:
        self.outlet.congested = False


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_client_that_reads_haltingly_gets_everything_in_order(way, run):
    """Bytes that go past the transport never overtake those that wait in it."""
    dice = random.Random(6)
    sent, got = bytearray(), bytearray()

    async def talk() -> int:
        one, other = socket.socketpair()
        other.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        transport, protocol = await asyncio.get_running_loop().create_unix_connection(Pausing, sock=one)
        protocol.outlet = way.Outlet(transport.write, transport, one.fileno())
        transport.set_write_buffer_limits(high=0)
        for n in range(400):
            log = [b"%d," % (n * 10 + m) * dice.randrange(1, 400) for m in range(dice.randrange(1, 5))]
            sent.extend(b"".join(log))
            for outlet, payload, error in way.flush(log, [([protocol.outlet], list(range(len(log))))])[2]:
                assert error is None
                outlet.write(payload)
            await asyncio.sleep(0)
            with contextlib.suppress(BlockingIOError):
                got.extend(other.recv(1 if n % 40 < 20 else 1 << 16))
        while len(got) < len(sent):
            await asyncio.sleep(0)
            with contextlib.suppress(BlockingIOError):
                got.extend(other.recv(1 << 16))
        transport.close()
        other.close()
        return int(protocol.pauses)

    assert run(talk()) > 5
    assert got == sent


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_client_that_reads_haltingly_over_tls_gets_everything_in_order(way, run, tmp_path):
    """Records that go past the transports never overtake those that wait below."""
    issuer = Issuer(tmp_path)
    issuer.write()
    dice = random.Random(7)
    sent, got = bytearray(), bytearray()

    async def talk() -> int:
        one, other = socket.socketpair()
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        protocol = Pausing()
        transport = TlsTransport(read_pair(issuer.cert, issuer.key).context, lambda: protocol, 1.0, read_buffer())
        shaking = asyncio.to_thread(issuer.client_context().wrap_socket, other, server_hostname="localhost")
        _, client = await asyncio.gather(
            asyncio.get_running_loop().connect_accepted_socket(lambda: transport, one), shaking
        )
        assert await transport.shaken == ""
        client.setblocking(False)
        seal = transport.get_extra_info("seal")
        protocol.outlet = way.Outlet(transport.write, transport, one.fileno(), seal)
        transport.set_write_buffer_limits(high=0)

        def hear(records: int) -> None:
            with contextlib.suppress(ssl.SSLWantReadError):
                for _ in range(records):
                    got.extend(client.recv(1 << 16))

        for n in range(400):
            log = [b"%d," % (n * 10 + m) * dice.randrange(1, 900) for m in range(dice.randrange(1, 5))]
            sent.extend(b"".join(log))
            for outlet, payload, error in way.flush(log, [([protocol.outlet], list(range(len(log))))])[2]:
                assert error is None
                outlet.write(payload)
            await asyncio.sleep(0)
            hear(n % 2)
            while n % 40 == 39 and len(got) < len(sent):  # it catches up
                hear(99)
                await asyncio.sleep(0)
        while len(got) < len(sent):
            await asyncio.sleep(0)
            hear(99)
        transport.abort()
        client.close()
        await asyncio.sleep(0.01)
        return int(protocol.pauses)

    assert run(talk()) > 5
    assert got == sent


# Which way is taken


def python(code: str, wanted: str) -> subprocess.CompletedProcess[str]:
    """What a new process says of some code."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HUBBUB_ACCELERATOR": wanted}, capture_output=True, text=True
    )


SAY = "from hubbub.gateway import accelerator as a; print(a.is_used(), a.Outlet.__module__, a.missing)"
NOT_BUILT = "import sys; sys.modules['hubbub.gateway._accelerator'] = None; " + SAY


@pytest.mark.slow
def test_the_accelerator_is_used_where_it_is():
    """Unless the environment says that it is not to be."""
    built()
    assert python(SAY, "").stdout == python(SAY, "1").stdout == "True hubbub.gateway._accelerator \n"
    assert python(SAY, "0").stdout == "False hubbub.gateway.outlets HUBBUB_ACCELERATOR=0\n"


@pytest.mark.slow
def test_without_the_accelerator_hubbub_runs():
    """Unless the environment says that it must be there; then the process ends with what to do."""
    assert python(NOT_BUILT, "").stdout.startswith("False hubbub.gateway.outlets it was not built: ")
    refused = python(NOT_BUILT, "1")
    assert refused.returncode == 1
    assert "expected the accelerator, as HUBBUB_ACCELERATOR=1 says, got none: it was not built" in refused.stderr
    assert "expected HUBBUB_ACCELERATOR to be 0, 1 or empty, got 'yes'" in python(SAY, "yes").stderr


@pytest.mark.slow
def test_an_accelerator_that_cannot_be_loaded_is_not_called_missing(tmp_path):
    """What is wrong with it is told, and Hubbub runs without it."""
    broken = tmp_path / "_accelerator.so"
    broken.write_bytes(b"no machine reads this")
    code = f"""
import importlib.machinery, importlib.util, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "hubbub.gateway._accelerator":
            loader = importlib.machinery.ExtensionFileLoader(name, {str(broken)!r})
            return importlib.util.spec_from_file_location(name, {str(broken)!r}, loader=loader)
sys.meta_path.insert(0, Finder)
{SAY}"""
    assert python(code, "").stdout.startswith("False hubbub.gateway.outlets it was built, and cannot be loaded (")
    assert "got none: it was built, and cannot be loaded (" in python(code, "1").stderr


def test_an_accelerator_of_an_older_source_is_not_used():
    """After a pull it lies there until the next installation, and would be called as it does not expect."""
    for older in ("del old.VERSION", "old.VERSION -= 1"):
        code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("hubbub.gateway._accelerator", {built().__file__!r})
old = importlib.util.module_from_spec(spec)
spec.loader.exec_module(old)
{older}
sys.modules["hubbub.gateway._accelerator"] = old
{SAY}"""
        said = python(code, "").stdout
        assert said.startswith("False hubbub.gateway.outlets it was built, and cannot be loaded (expected version ")
        assert "got none: it was built, and cannot be loaded (expected version " in python(code, "1").stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("doctor",), ("local", ".")], ids=lambda each: each[0])
def test_the_command_line_says_what_is_wrong_with_it(command):
    """In one line: a variable that says nothing, or an accelerator that is demanded and is not there."""
    run = f"import sys; sys.argv[1:] = {command!r}; from hubbub.cli import main; main()"
    for code, wanted, words in (
        (run, "yes", "hubbub: expected HUBBUB_ACCELERATOR to be 0, 1 or empty, got 'yes'\n"),
        (
            NOT_BUILT.replace(SAY, run),
            "1",
            "hubbub: expected the accelerator, as HUBBUB_ACCELERATOR=1 says, got none: ",
        ),
    ):
        done = python(code, wanted)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith(words)


@pytest.mark.slow
def test_the_hub_keeps_its_promises_with_and_without_the_accelerator():
    """Its tests, and those of what a fan-out may ask of it, pass either way."""
    built()
    pass_the_other_way("tests/unit/test_hub.py", "tests/contract/test_sink.py")
