"""What a load test counts: durations, frames, and each connection's logs."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from hubbub.loadtest import frames
from hubbub.loadtest.frames import BadFrame, Control, Item, Mark, Reader, Reply, Run, Signal
from hubbub.loadtest.histogram import Histogram, bucket, middle
from hubbub.loadtest.logs import Log, Tally
from hubbub.loadtest.telling import Counts

BENCH = "1234abcd"


# Durations


def exact(durations: list[int], percentage: float) -> int:
    """The smallest duration that so many percent do not exceed."""
    return sorted(durations)[max(1, math.ceil(len(durations) * percentage / 100)) - 1]


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=200))
def test_percentiles_are_within_a_percent(durations: list[int]) -> None:
    """Every percentile is the exact one, to within one in a hundred."""
    histogram = Histogram()
    for us in durations:
        histogram.record(us)
    wanted = (50, 90, 99, 99.9, 100)
    for percentage, found in zip(wanted, histogram.percentiles_ms(*wanted), strict=True):
        assert found == pytest.approx(exact(durations, percentage) / 1_000, rel=0.01)


@given(st.integers(0, 1 << 37))
def test_a_duration_is_in_the_bucket_that_says_so(us: int) -> None:
    """The middle of a duration's bucket is in that bucket, and no more than 1% away."""
    assert bucket(middle(bucket(us))) == bucket(us)
    assert abs(middle(bucket(us)) - us) <= us / 100 + 1


def test_both_ways_to_record_are_one() -> None:
    """Recording many since their beginnings counts as recording each; unknown beginnings are left out."""
    source = random.Random(7)
    begun = [source.randrange(1, 10**12) for _ in range(500)]
    now = 10**12
    one, many = Histogram(), Histogram()
    for each in begun:
        one.record((now - each) // 1_000)
    many.record_since(now, [*begun, 0, 0])
    assert one.counts == many.counts
    many.record_since(5, [10])  # clocks of two processors may differ by a little
    assert many.counts[0] == one.counts[0] + 1
    many.record_since(1 << 62, [1])
    assert many.percentiles_ms(100)[0] == pytest.approx(((1 << 37) - 1) / 1_000, rel=0.01)


def test_what_is_taken_can_be_added_elsewhere() -> None:
    """Taking empties, and adding what was taken is the same histogram again."""
    histogram, other = Histogram(), Histogram()
    for us in (3, 3, 500, 70_000):
        histogram.record(us)
    taken = histogram.take()
    assert histogram.total == 0
    other.add(taken)
    other.add(taken)
    assert other.total == 8
    assert other.counts[3] == 4


def test_there_are_no_percentiles_of_nothing() -> None:
    """Where nothing was measured nothing is claimed."""
    assert Histogram().percentiles_ms(50, 99) == [None, None]


def test_counts_add_up() -> None:
    """Numbers are added, and what is counted by name is added by name."""
    total = Counts(sent=1, refused={"a": 1})
    total.add(Counts(sent=2, refused={"a": 2, "b": 3}, closed={"1006": 1}))
    assert total == Counts(sent=3, refused={"a": 3, "b": 3}, closed={"1006": 1})
    assert Counts().refused == {}


def test_kinds_of_failures_are_bounded() -> None:
    """A server that says something else each time fills no memory with it."""
    counts = Counts()
    for number in range(1_000):
        counts.fail(f"request {number} failed")
        counts.fail("request 1 failed")
    assert len(counts.failed) < 100
    assert sum(counts.failed.values()) == 2_000
    assert counts.failed["request 1 failed"] == 1_001


# Frames


def entry(seq: int, *, room: str = "r", number: int | None = None, **more: Any) -> bytes:
    """An entry's JSON, of this load test if it has a number."""
    data = {"bench": BENCH, "worker": 0, "number": number, "due": 1_000 + number} if number is not None else None
    fields = {"type": "message.created", "room": room, "seq": seq, "id": f"i{seq}", "data": data, **more}
    return json.dumps(fields).encode()


def framed(payload: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    """A server's frame."""
    return Frame(opcode, payload, fin).serialize(mask=False)


class Feed:
    """A connection that gets bytes in pieces."""

    def __init__(self, reader: Reader | None = None) -> None:
        self.marks: list[tuple[Mark, str, int]] = []
        self.reader = reader or Reader(BENCH, lambda mark, room, seq: self.marks.append((mark, room, seq)))
        self.items: list[Item] = []
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Bytes came."""
        data = self._rest + data
        items, used = self.reader.read(data)
        self._rest = data[used:]
        self.items += items

    def seqs(self) -> list[int]:
        """Of all entries, in order."""
        return [seq for item in self.items if isinstance(item, Run) for seq in range(item.first, item.last + 1)]


def test_entries_that_follow_each_other_are_one_run() -> None:
    """What comes in one piece is joined as far as it is one room's and without a hole, with each entry's due time."""
    feed = Feed()
    feed.take(
        framed(entry(4, number=1))
        + framed(entry(5, number=2))
        + framed(entry(9, number=3))
        + framed(entry(10, room="q"))
        + framed(b'{"type":"presence","room":"r","count":3}')
        + framed(entry(11, room="q"))
    )
    found = [(item.room, item.first, item.last, item.dues) if isinstance(item, Run) else None for item in feed.items]
    assert found == [
        ("r", 4, 5, (1_001, 1_002)),
        ("r", 9, 9, (1_003,)),
        ("q", 10, 10, (0,)),
        None,
        ("q", 11, 11, (0,)),
    ]
    assert isinstance(feed.items[3], Signal)
    assert [(mark.number, room, seq) for mark, room, seq in feed.marks] == [(1, "r", 4), (2, "r", 5), (3, "r", 9)]


def test_bytes_may_come_in_any_pieces() -> None:
    """Cut at any byte, the same frames are read, whatever their lengths."""
    long = entry(2, text="x" * 70_000)
    data = framed(entry(1)) + framed(long) + framed(b"", Opcode.PING) + framed(entry(3, text="y" * 200))
    ends = [*range(1, 12), *range(len(framed(entry(1))), len(framed(entry(1))) + 12), 70_000, len(data) - 1]
    for end in ends:
        feed = Feed()
        feed.take(data[:end])
        feed.take(data[end:])
        assert feed.seqs() == [1, 2, 3], end
        assert sum(isinstance(item, Control) for item in feed.items) == 1, end
    feed = Feed()
    for start in range(0, len(data), 97):
        feed.take(data[start : start + 97])
    assert feed.seqs() == [1, 2, 3]


def test_a_message_in_several_frames_is_one() -> None:
    """Parts are put together, and a ping between them is not lost and not doubled."""
    whole = entry(1)
    parts = (
        framed(whole[:9], fin=False)
        + framed(b"hi", Opcode.PING)
        + framed(whole[9:20], Opcode.CONT, fin=False)
        + framed(whole[20:], Opcode.CONT)
    )
    for end in range(1, len(parts)):
        feed = Feed()
        feed.take(parts[:end])
        feed.take(parts[end:])
        assert feed.seqs() == [1], end
        assert [item.payload for item in feed.items if isinstance(item, Control)] == [b"hi"], end


def test_a_piece_that_came_before_is_not_mistaken() -> None:
    """Pieces and payloads that are known give the same again; one that differs by a character does not."""
    feed = Feed()
    first, other = framed(entry(1, number=1)) + framed(entry(2)), framed(entry(1, number=2)) + framed(entry(2))
    for data in (first, other, first, framed(entry(2)), other):
        feed.take(data)
    runs = [item for item in feed.items if isinstance(item, Run)]
    assert [run.dues for run in runs] == [(1_001, 0), (1_002, 0), (1_001, 0), (0,), (1_002, 0)]
    assert [mark.number for mark, _, _ in feed.marks] == [1, 2], "each message is told once"


def test_known_pieces_are_forgotten_and_read_again() -> None:
    """However many different pieces come, all are read."""
    feed = Feed()
    for _ in range(2):
        for seq in range(1, 10_001):
            feed.take(framed(entry(seq)))
    assert feed.seqs() == [*range(1, 10_001)] * 2


def test_replies_are_given_whole() -> None:
    """An answer, an error and API Gateway's own word are replies, each time anew."""
    feed = Feed()
    words = [b'{"type":"ok","ref":"s1","seq":4,"id":"x"}', b'{"type":"error","ref":null,"code":"internal"}']
    words.append(b'{"message":"Internal server error","connectionId":"c","requestId":"r"}')
    for _ in range(2):
        feed.take(b"".join(map(framed, words)))
    replies = [item for item in feed.items if isinstance(item, Reply)]
    assert [reply.json for reply in replies] == words * 2
    assert (replies[0].head.ref, replies[0].head.seq, replies[1].head.code) == ("s1", 4, "internal")


def compressed(payload: bytes) -> bytes:
    """A server's frame of a message compressed without context."""
    deflate = PerMessageDeflate(True, True, 12, 12)
    return Frame(Opcode.TEXT, payload).serialize(mask=False, extensions=[deflate])


def test_compressed_messages_are_read() -> None:
    """Where compression was agreed a message may be compressed or not, and says the same; parts of it too."""
    feed = Feed()
    feed.reader = Reader(BENCH, lambda mark, room, seq: feed.marks.append((mark, room, seq)), inflates=True)
    packed = compressed(entry(2, number=2, text="x" * 300))
    assert packed[0] == 0xC1
    body = packed[2:] if packed[1] < 126 else packed[4:]
    parts = bytes([0x41, 5]) + body[:5] + framed(b"hi", Opcode.PING) + framed(body[5:], Opcode.CONT)
    for _ in range(2):
        feed.take(framed(entry(1, number=1)) + packed)
        feed.take(framed(entry(1, number=1)) + parts)
    assert feed.seqs() == [1, 2] * 4
    assert [mark.number for mark, _, _ in feed.marks] == [1, 2]


def test_what_is_not_compressed_right_is_refused() -> None:
    """A message that says it is compressed and is not is an error, and so is one where it was not agreed."""
    for data in (b"\xc1\x05hello", framed(b"{}", Opcode.TEXT)[:1] + b"\x00" + compressed(entry(1))):
        with pytest.raises(BadFrame):
            Feed(Reader(BENCH, lambda mark, room, seq: None, inflates=True)).take(data)
    with pytest.raises(BadFrame, match="byte 0xc1"):
        Feed().take(compressed(entry(1)))


def test_what_is_remembered_of_messages_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long messages are, those that are kept to be known again are few enough for the memory."""
    monkeypatch.setattr(frames, "_MOST_PAYLOAD_BYTES", 100_000)
    feed = Feed()
    tracemalloc.start()
    try:
        for seq in range(1, 101):
            feed.take(framed(entry(seq, text=chr(97 + seq % 26) * 40_000)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert feed.seqs() == [*range(1, 101)]
    assert held < 1_000_000


@pytest.mark.parametrize("data", [None, {"bench": BENCH}, {"bench": "other", "worker": 0, "number": 1, "due": 5}, [1]])
def test_other_messages_have_no_due_time(data: Any) -> None:
    """Messages that are not of this load test count as entries, and have no duration."""
    feed = Feed()
    feed.take(framed(entry(1, data=data)))
    assert [item.dues for item in feed.items if isinstance(item, Run)] == [(0,)]
    assert feed.marks == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x81\x82abcd{}", "masked"),
        (framed(b"not json"), "not the chat's"),
        (framed(b"\xff\xfe"), "not the chat's"),
        (framed(b"{}", Opcode.BINARY), "byte 0x82"),
        (framed(b"{}", Opcode.CONT), "byte 0x80"),
        (framed(b"{", fin=False) + framed(b"{}"), "byte 0x81"),
        (b"\x81\x7f" + (1 << 40).to_bytes(8, "big"), "1,099,511,627,776 bytes"),
        (b"\xc1\x02{}", "byte 0xc1"),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes, words: str) -> None:
    """Bytes that no server of the chat sends are an error that says what is wrong."""
    with pytest.raises(BadFrame, match=words):
        Feed().take(data)


# Logs


def run(first: int, last: int | None = None) -> Run:
    """Entries, each due at a time that is its `seq` times ten."""
    last = first if last is None else last
    return Run("r", first, last, tuple(seq * 10 for seq in range(first, last + 1)))


def begun(head: int = 0) -> Log:
    """A log that listens from behind `head`."""
    log = Log(Tally("r"))
    log.begin(head)
    assert list(log.go_on()) == []
    return log


def counted(log: Log) -> tuple[int, int, int]:
    """What the room's tally has: delivered, doubled, out of order."""
    return log.tally.delivered, log.tally.doubled, log.tally.disordered


def test_entries_in_order_are_delivered() -> None:
    """What follows is delivered and timed."""
    log = begun(3)
    assert list(log.take(run(4, 6))) == [40, 50, 60]
    assert list(log.take(run(7))) == [70]
    assert counted(log) == (4, 0, 0)
    assert log.lacks(7) == 0


def test_a_hole_is_lost_unless_it_is_filled() -> None:
    """What is passed over lacks; what comes later is out of order and not lost."""
    log = begun()
    log.take(run(1))
    log.take(run(4))
    assert log.lacks(4) == 2
    assert log.lacks(6) == 4
    assert log.known == 1
    assert list(log.take(run(2))) == [20]
    assert counted(log) == (3, 0, 1)
    assert log.lacks(4) == 1
    assert log.known == 2


def test_what_comes_again_is_doubled_and_not_timed() -> None:
    """A run that overlaps with what came counts its new part only."""
    log = begun()
    log.take(run(1, 3))
    assert list(log.take(run(2, 5))) == [40, 50]
    assert counted(log) == (5, 2, 0)
    assert list(log.take(run(1))) == []
    assert counted(log) == (5, 3, 0)


def test_an_answer_fills_holes_and_doubles_nothing() -> None:
    """What a resuming answer has is delivered once, also what came before beyond the hole."""
    log = begun()
    log.take(run(1))
    log.take(run(3))
    assert list(log.resume([(2, 20), (3, 30), (4, 40), (5, 50)], log.known)) == [20, 40, 50]
    assert counted(log) == (5, 0, 1), "the second came after the third"
    assert log.tally.resumed == 3
    assert log.lacks(5) == 0


def test_an_answer_with_what_was_not_missed_is_doubled() -> None:
    """What a resuming answer has at or below the `seq` that was named, or twice, is one too many."""
    log = begun()
    log.take(run(1, 3))
    assert list(log.resume([(3, 30), (4, 40), (4, 40)], 3)) == [40]
    assert counted(log) == (4, 2, 0)


def test_a_hole_without_end_is_lost_at_once() -> None:
    """A server whose `seq` jumps far ahead costs no memory; what it passed over is lost."""
    log = begun(3)
    assert list(log.take(run(10**12))) == [10**13]
    assert log.tally.lost == 10**12 - 4
    assert log.lacks(10**12) == 0


def test_an_answer_with_a_hole_leaves_it() -> None:
    """An answer that leaves something out has not delivered it."""
    log = begun()
    log.resume([(1, 10), (4, 40)], 0)
    assert log.lacks(4) == 2


def test_what_comes_before_the_answer_waits_for_it() -> None:
    """Entries that come while it is unknown where the log stands are taken after, without those the answer had."""
    log = Log(Tally("r"))
    assert log.held == []
    log.held += [run(3), run(4, 6), run(7)]
    log.begin(4)
    assert [(each.first, each.last, each.dues) for each in log.go_on()] == [(5, 6, (50, 60)), (7, 7, (70,))]
    assert log.held is None


def test_beginning_anew_forgets() -> None:
    """A log that was reset lacks nothing of what it was before."""
    log = begun()
    log.take(run(5))
    log.begin(2)
    assert log.lacks(2) == 0
    assert list(log.take(run(3))) == [30]
