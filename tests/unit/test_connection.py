"""The life of one connection, told frames and times, and held against a plain model of RFC 6455."""

from __future__ import annotations

import base64
import codecs
import copy
import math
import sys
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from examples import examples
from hubbub.gateway.connection import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MAX_REASON_BYTES,
    PING,
    PONG,
    TEXT,
    Close,
    Drop,
    Life,
    Message,
    Phase,
    Ping,
    Pong,
    Rules,
)

RULES = Rules(max_message_bytes=64, ping_after_s=25.0, pong_within_s=20.0, close_within_s=5.0)
GOING_AWAY = Close(1001, "Going away", drop=False)


class Line:
    """A life with a clock that the test moves."""

    def __init__(self, rules: Rules = RULES, **changed: Any) -> None:
        self.rules = rules._replace(**changed)
        self.now = 1_000.0
        self.sent_at = 0.0
        self.life = Life(self.now)

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: bool = False) -> Any:
        return self.life.received(opcode, fin, rsv, payload, self.now, self.rules)

    def text(self, words: str = "hi") -> Any:
        return self.frame(TEXT, words.encode())

    def part(self, opcode: int, payload: bytes) -> Any:
        return self.frame(opcode, payload, fin=False)

    def close(self, code: int = 1000, reason: str = "bye") -> Any:
        return self.life.close(code, reason, self.now, self.rules)

    def after(self, seconds: float) -> Any:
        """Let time pass, and ask what is to be done then."""
        self.now += seconds
        return self.life.passed(self.now, self.sent_at, self.rules)

    def look_in(self) -> float:
        return self.life.next_look(self.now, self.sent_at, self.rules) - self.now


def closing(code: int, payload: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + payload


# Messages


@pytest.mark.parametrize("words", ["", "hello", "grüß Gott 👋", "x" * 64])
def test_a_text_frame_is_a_message(words):
    """An unfragmented text is delivered as it is, up to the longest one."""
    assert Line().text(words) == Message(words)


def test_fragments_become_one_message():
    """A message in parts is delivered once, whole, when its last part has come."""
    line = Line()
    assert line.part(TEXT, b"one ") is None
    assert line.part(CONTINUATION, b"two ") is None
    assert line.frame(CONTINUATION, b"three") == Message("one two three")
    assert line.text("next") == Message("next")


def test_empty_fragments_are_a_message_too():
    """Parts without a byte are allowed, and so is a message of nothing else."""
    line = Line()
    assert line.part(TEXT, b"") is None
    assert line.part(CONTINUATION, b"") is None
    assert line.frame(CONTINUATION, b"") == Message("")


def test_control_frames_may_come_between_fragments():
    """A ping in the middle of a message is answered there, and the message goes on."""
    line = Line()
    line.part(TEXT, b"one ")
    assert line.frame(PING, b"?") == Pong(b"?")
    assert line.frame(PONG, b"!") is None
    assert line.frame(CONTINUATION, b"two") == Message("one two")


def test_a_character_may_be_cut_by_fragments():
    """A character whose bytes come in different parts is whole in the end."""
    line = Line()
    whole = "a👋b".encode()
    assert line.part(TEXT, whole[:2]) is None
    for byte in whole[2:-1]:
        assert line.part(CONTINUATION, bytes((byte,))) is None
    assert line.frame(CONTINUATION, whole[-1:]) == Message("a👋b")


def test_endless_fragments_cost_neither_memory_nor_a_second_look():
    """Parts are kept as bytes and each byte is checked once: endless tiny or empty parts hold up nobody."""
    line = Line(max_message_bytes=2_000_000)
    line.part(TEXT, b"x" * 1_000_000)
    seen: list[int] = []

    def watch(frame: Any, event: str, function: Any) -> None:
        if event == "c_call" and function is codecs.utf_8_decode:
            seen.append(len(frame.f_locals["self"].gathered) - frame.f_locals["self"].checked)

    sys.setprofile(watch)
    try:
        for _ in range(100):
            line.part(CONTINUATION, b"y")
            line.part(CONTINUATION, b"")
    finally:
        sys.setprofile(None)
    assert max(seen) == 1
    assert len(line.life.gathered) == 1_000_100


@pytest.mark.parametrize("payload", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"])
def test_a_text_that_is_not_utf_8_closes_with_1007(payload):
    """Also a cut character, a surrogate, an overlong form and a code point beyond the last."""
    assert Line().frame(TEXT, payload) == Close(1007, "the text is not UTF-8", drop=False)
    line = Line()
    line.part(TEXT, b"good so far ")
    assert line.frame(CONTINUATION, payload).code == 1007


def test_rubbish_is_refused_before_the_message_ends():
    """A part that can never become UTF-8 closes at once; one that may still become it does not."""
    line = Line()
    line.part(TEXT, b"first")
    assert line.frame(CONTINUATION) == Message("first")
    assert line.part(TEXT, b"\xf0\x9f") is None
    assert line.part(CONTINUATION, b"\xff").code == 1007


def test_a_binary_message_closes_with_1003():
    """Unless the gateway takes them; whether it came whole or in parts."""
    assert Line().frame(BINARY, b"\0").code == 1003
    assert Line().part(BINARY, b"\0").code == 1003


def test_binary_messages_are_delivered_in_base64_where_they_are_taken():
    """Whole ones and fragmented ones, and no part of them is taken for text."""
    line = Line(accept_binary=True)
    assert line.frame(BINARY, b"\0\xff") == Message(base64.b64encode(b"\0\xff").decode(), is_base64=True)
    assert line.part(BINARY, b"\xff") is None
    assert line.frame(CONTINUATION, b"\xfe") == Message(base64.b64encode(b"\xff\xfe").decode(), is_base64=True)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_over_the_limit_closes_with_1009(opcode):
    """In one frame, or as soon as its parts are too many, before they are kept."""
    rules = RULES._replace(accept_binary=True)
    refusal = Close(1009, "a message has at most 64 bytes", drop=False)
    assert Line(rules).frame(opcode, b"x" * 65) == refusal
    line = Line(rules)
    assert line.part(opcode, b"x" * 40) is None
    assert line.part(CONTINUATION, b"x" * 24) is None
    assert line.part(CONTINUATION, b"x") == refusal
    assert Line(rules).part(opcode, b"x" * 65) == refusal


@pytest.mark.parametrize(
    ("before", "opcode", "rsv"),
    [
        ([], CONTINUATION, False),
        ([TEXT], TEXT, False),
        ([TEXT], BINARY, False),
        ([], TEXT, True),
        ([], PING, True),
        ([], 0x3, False),
        ([], 0xB, False),
    ],
    ids=["nothing to continue", "text in text", "binary in text", "rsv", "rsv on ping", "opcode 3", "opcode 11"],
)
def test_what_breaks_the_protocol_closes_with_1002(before, opcode, rsv):
    """Parts out of place, bits that were not agreed on, and kinds of frames that there are not."""
    line = Line()
    for each in before:
        line.part(each, b"")
    act = line.frame(opcode, rsv=rsv)
    assert (act.code, act.drop) == (1002, False)
    assert line.life.phase is Phase.CLOSING


# The closing handshake


def test_a_clients_close_is_answered_with_its_code_and_the_socket_closed():
    """The answer has the client's code; `$disconnect` reports its code and reason."""
    line = Line()
    assert line.frame(CLOSE, closing(4000, "grüß".encode())) == Close(4000, "", drop=True)
    assert line.frame(CLOSE, closing(4000)) is None
    assert line.life.lost() == (4000, "grüß")


def test_a_clients_close_without_a_code_is_answered_likewise():
    """`$disconnect` reports 1005."""
    line = Line()
    assert line.frame(CLOSE) == Close(1005, "", drop=True)
    assert line.life.lost() == (1005, "Client-side close frame status not set")


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999])
def test_close_codes_that_may_be_sent_are_taken(code):
    """Those of the RFC, of its registry, of libraries and of applications."""
    assert Line().frame(CLOSE, closing(code)) == Close(code, "", drop=True)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535])
def test_close_codes_that_may_not_be_sent_are_answered_with_1002(code):
    """The socket is closed too: who has sent CLOSE sends nothing more to wait for."""
    line = Line()
    assert line.frame(CLOSE, closing(code, b"why")) == Close(1002, "the close code may not be sent", drop=True)
    assert line.life.lost()[0] == 1002


def test_half_a_close_code_is_answered_with_1002():
    """A CLOSE has no payload, or at least two bytes."""
    assert Line().frame(CLOSE, b"\x03") == Close(1002, "the close code may not be sent", drop=True)


def test_a_close_reason_that_is_not_utf_8_is_answered_with_1007():
    """And nothing of it is reported."""
    line = Line()
    assert line.frame(CLOSE, closing(1000, b"\xff")) == Close(1007, "the reason is not UTF-8", drop=True)
    assert line.life.lost() == (1007, "the reason is not UTF-8")


def test_a_close_may_come_between_fragments():
    """It ends the connection, and what there was of a message is forgotten."""
    line = Line()
    line.part(TEXT, b"one ")
    assert line.frame(CLOSE, closing(1000)) == Close(1000, "", drop=True)
    assert line.life.gathered is None
    assert line.frame(CONTINUATION, b"two") is None


def test_the_servers_close_waits_for_the_clients():
    """CLOSE is sent, the client's ends it, and `$disconnect` reports what the server closed with."""
    line = Line()
    assert line.close(4403, "removed") == Close(4403, "removed", drop=False)
    assert line.frame(CLOSE, closing(4403)) == Drop(abort=False)
    assert line.life.lost() == (4403, "removed")


def test_nothing_is_delivered_after_the_servers_close():
    """Messages, pings and rubbish that were under way are passed over."""
    line = Line()
    line.part(TEXT, b"one ")
    line.close()
    assert line.frame(CONTINUATION, b"two") is None
    assert line.text() is None
    assert line.frame(PING, b"?") is None
    assert line.frame(TEXT, b"\xff", rsv=True) is None


def test_a_close_that_nobody_answers_is_cut_off():
    """After `close_within_s`, whatever else was sent meanwhile."""
    line = Line()
    line.close()
    assert line.look_in() == 5
    assert line.after(4) is None
    line.text()
    assert line.look_in() == 1
    assert line.after(1) == Drop(abort=True)
    assert line.life.lost() == (1000, "bye")


def test_an_answered_close_has_time_to_leave():
    """A socket that cannot get rid of its last bytes is cut off after `close_within_s`, and not before."""
    line = Line()
    assert line.frame(CLOSE, closing(1000)).drop
    assert line.look_in() == 5
    assert line.after(4.5) is None
    assert line.after(0.5) == Drop(abort=True)
    assert line.after(1) == Drop(abort=True)


def test_closing_begins_once():
    """A second wish to close changes nothing: the first code holds."""
    line = Line()
    assert line.close(4401, "token expired") is not None
    assert line.close(1012, "Service restart") is None
    assert line.life.lost() == (4401, "token expired")


def test_a_reason_is_as_long_as_a_close_frame_has_room_for():
    """It is cut between characters."""
    act = Line().close(4400, "a" + "ü" * 200)
    assert act.reason == "a" + "ü" * 61
    assert len(act.reason.encode()) == MAX_REASON_BYTES


def test_a_socket_that_is_simply_gone_is_reported_as_1006():
    """Nobody has said why; asked again, the answer is the same."""
    line = Line()
    line.part(TEXT, b"one ")
    assert line.life.lost() == (1006, "Connection closed abnormally")
    assert line.life.lost() == (1006, "Connection closed abnormally")
    assert line.life.gathered is None
    assert line.close() is None


# Time


def test_silence_is_answered_with_a_ping():
    """After `ping_after_s` in which nothing came."""
    line = Line()
    assert line.look_in() == 25
    assert line.after(24.5) is None
    assert line.after(0.5) == Ping()
    assert line.look_in() == 20


@pytest.mark.parametrize("opcode", [TEXT, PING, PONG, CONTINUATION])
def test_whatever_comes_is_a_sign_of_life(opcode):
    """Messages, parts of them, pings and pongs all put the ping off, and answer one."""
    line = Line()
    line.part(TEXT, b"") if opcode == CONTINUATION else None
    line.after(24)
    line.frame(opcode, fin=opcode != CONTINUATION)
    assert line.after(24) is None
    assert line.after(1) == Ping()
    line.after(19)
    line.frame(opcode, fin=opcode != CONTINUATION)
    assert line.after(1) is None
    assert line.after(24) == Ping()


def test_a_ping_may_go_somewhat_sooner_where_that_was_said():
    """Who is looked at early on purpose is pinged from `ping_early_s` before the time on; nobody else is."""
    rules = Rules(ping_after_s=25.0, ping_early_s=5.0, idle_s=90.0)
    life = Life(0.0)
    assert (life.next_look(0.0, 0.0, rules), life.earliest_look(25.0, rules)) == (25.0, 20.0)
    assert life.passed(19.5, 0.0, rules, early=True) is None
    assert life.passed(24.5, 0.0, rules) is None
    assert life.passed(20.0, 0.0, rules, early=True) == Ping()
    assert life.next_look(20.0, 0.0, rules) == life.earliest_look(40.0, rules) == 40.0
    life.received(PONG, True, 0, b"", 70.0, rules)
    assert life.next_look(70.0, 0.0, rules) == life.earliest_look(90.0, rules) == 90.0


def test_who_does_not_answer_a_ping_is_dead():
    """After `pong_within_s` the socket is cut off, and `$disconnect` reports 1006."""
    line = Line()
    assert line.after(25) == Ping()
    assert line.after(19.5) is None
    assert line.after(0.5) == Drop(abort=True)
    assert line.life.lost() == (1006, "no answer to ping")


def test_who_is_not_read_is_not_taken_for_dead():
    """While nothing is read silence means nothing, also to a ping that is out; after it, the other gets a new start."""
    line = Line()
    assert line.after(25) == Ping()
    line.life.deaf = True
    assert line.after(20) is None
    assert line.after(1_000) is None
    assert line.look_in() == 20
    line.life.hears_again(line.now)
    assert line.after(24) is None
    assert line.after(1) == Ping()
    assert line.after(20) == Drop(abort=True)


def test_an_idle_connection_is_closed():
    """Pings and pongs are no messages: they keep it alive, not busy."""
    line = Line(idle_s=60.0)
    line.after(20)
    line.text()
    for _ in range(5):
        line.after(10)
        line.frame(PING)
        line.frame(PONG)
    assert line.after(9.5) is None
    assert line.look_in() == 0.5
    assert line.after(0.5) == GOING_AWAY
    assert line.life.lost() == (1001, "Going away")


def test_pings_count_against_idleness_if_that_is_wanted():
    """The other's pings then keep the connection from being idle; its pongs do not."""
    line = Line(idle_s=60.0, pings_are_activity=True)
    line.after(20)
    line.frame(PING)
    line.after(20)
    line.frame(PONG)
    assert line.after(20) is None
    line.frame(PONG)
    assert line.look_in() == 20
    assert line.after(20) == GOING_AWAY


def test_nobody_is_pinged_where_that_is_not_wanted():
    """A connection without a word lives until something else ends it."""
    line = Line(ping_after_s=math.inf)
    assert line.after(100_000) is None
    assert line.look_in() == math.inf


def test_messages_in_either_direction_count_against_idleness():
    """One that was sent to the connection puts the end off as one that came does."""
    line = Line(idle_s=60.0)
    line.after(20)
    line.sent_at = line.now
    line.after(10)
    line.frame(PONG)
    assert line.look_in() == 25
    line.after(20)
    line.frame(PONG)
    assert line.after(20) is None
    assert line.look_in() == 5
    line.frame(PONG)
    assert line.after(10) == GOING_AWAY


def test_a_fragmented_message_counts_when_it_is_whole():
    """Parts alone keep no connection busy."""
    line = Line(idle_s=30.0)
    line.after(20)
    line.part(TEXT, b"one ")
    assert line.after(10) == GOING_AWAY
    line = Line(idle_s=30.0)
    line.part(TEXT, b"one ")
    line.after(20)
    line.frame(CONTINUATION, b"two")
    assert line.after(10) is None


def test_a_connection_ends_with_its_lifetime():
    """However busy it is."""
    line = Line(lifetime_s=100.0)
    for _ in range(9):
        line.after(10)
        line.text()
    assert line.after(9.5) is None
    assert line.look_in() == 0.5
    assert line.after(0.5) == GOING_AWAY


def test_a_life_says_where_it_is():
    """Its repr shows the phase, the code, and how much of a message has come."""
    line = Line()
    line.part(TEXT, b"one ")
    assert repr(line.life) == "<Life OPEN 4 bytes of a message>"
    line.close(4403, "removed")
    assert repr(line.life) == "<Life CLOSING 4403 'removed'>"


# Any frames at any time

BITS_OF_TEXT = st.text(max_size=12).map(str.encode)
PAYLOADS = st.one_of(
    BITS_OF_TEXT,
    BITS_OF_TEXT.map(lambda whole: whole[: len(whole) // 2 + 1]),  # often ends within a character
    st.binary(max_size=12),
    st.integers(0, 70).map(lambda size: b"x" * size),
)
CLOSINGS = st.one_of(
    st.just(b""),
    st.builds(closing, st.sampled_from([1000, 1001, 1005, 1006, 1015, 2000, 3000, 4999, 5000]), BITS_OF_TEXT),
    st.binary(max_size=20),
)
FINITE = st.sampled_from([None, 20.0, 50.0, 120.0])


class AnyLife(RuleBasedStateMachine):
    """Arbitrary frames, times and wishes to close, against what RFC 6455 and the rules say in plain words."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line()
        self.parts: tuple[int, bytes] | None = None  # the kind and the bytes so far of a fragmented message
        self.code: int | None = None  # what ended it
        self.closes = 0
        self.over = False  # whether the socket is gone

    @property
    def is_open(self) -> bool:
        return self.code is None

    @precondition(lambda self: self.line.now == 1_000.0 and self.parts is None and self.is_open)
    @rule(binary=st.booleans(), idle_s=FINITE, lifetime_s=FINITE)
    def begin(self, binary: bool, idle_s: float | None, lifetime_s: float | None) -> None:
        """The rules are chosen before anything has happened."""
        self.line = Line(accept_binary=binary, idle_s=idle_s, lifetime_s=lifetime_s)

    @rule(
        opcode=st.sampled_from([TEXT, CONTINUATION, CONTINUATION, BINARY, PING, PONG, 0x3]),
        fin=st.booleans(),
        rsv=st.sampled_from([False] * 9 + [True]),
        payload=PAYLOADS,
    )
    def frame(self, opcode: int, fin: bool, rsv: bool, payload: bytes) -> None:
        """Any frame comes but CLOSE."""
        expected = self.expected(opcode, fin or opcode >= CLOSE, rsv, payload) if self.is_open else None
        act = self.line.frame(opcode, payload, fin=fin or opcode >= CLOSE, rsv=rsv)
        if isinstance(expected, int):
            self.closed_with(act, expected, drop=False)
        else:
            assert act == expected

    @rule(payload=CLOSINGS)
    def close_frame(self, payload: bytes) -> None:
        """CLOSE comes."""
        phase = self.line.life.phase
        act = self.line.frame(CLOSE, payload)
        if not self.is_open:
            assert act == (Drop(abort=False) if phase is Phase.CLOSING else None)
            return
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        if payload and (len(payload) == 1 or code in (1004, 1005, 1006) or not 1000 <= code <= 1014):
            code = code if 3000 <= code <= 4999 and len(payload) > 1 else 1002
        if code != 1002 and not is_utf_8(payload[2:]):
            code = 1007
        self.closed_with(act, code, drop=True)

    @rule(code=st.sampled_from([1000, 1012, 4401, 4408]), reason=st.text(max_size=80))
    def server_closes(self, code: int, reason: str) -> None:
        """The server wants to close."""
        act = self.line.close(code, reason)
        if self.is_open:
            self.closed_with(act, code, drop=False)
        else:
            assert act is None

    @rule()
    def message_goes_out(self) -> None:
        """The server sends a message."""
        self.line.sent_at = self.line.now

    @rule(halves=st.integers(0, 80))
    def time_passes(self, halves: int) -> None:
        """Some half seconds pass; nothing is to be done before the look that was announced."""
        look = self.line.look_in()
        seconds = halves / 2
        for early in (0.0, 0.5, look - 0.5, seconds):
            if 0 <= early < look and early <= seconds:
                life = copy.copy(self.line.life)
                assert life.passed(self.line.now + early, self.line.sent_at, self.line.rules) is None
        self.timely(self.line.after(seconds))

    @precondition(lambda self: not self.over)
    @rule()
    def lost(self) -> None:
        """The socket is gone: there is always something to report, and always the same."""
        code, reason = self.line.life.lost()
        assert code == (self.code if self.code is not None else 1006)
        assert isinstance(reason, str)
        self.code, self.parts, self.over = code, None, True

    @invariant()
    def bounded(self) -> None:
        """At most one CLOSE, never more than a message's bytes, and none once closing has begun."""
        assert self.closes <= 1
        life = self.line.life
        assert (life.phase is Phase.OPEN) == self.is_open
        assert (life.code is None) == self.is_open
        if self.is_open and self.parts is not None:
            assert life.gathered == self.parts[1]
            assert len(life.gathered) <= self.line.rules.max_message_bytes
        else:
            assert life.gathered is None

    def teardown(self) -> None:
        """Whatever has happened: after a silence the connection is gone, within the times that the rules name."""
        rules = self.line.rules
        began = self.line.now
        for _ in range(5):
            act = self.line.after(self.line.look_in())
            self.timely(act)
            if act == Drop(abort=True):
                break
        else:
            raise AssertionError("the connection is still there")
        assert self.line.now - began <= rules.ping_after_s + rules.pong_within_s + rules.close_within_s

    def timely(self, act: object) -> None:
        """What time may bring."""
        if isinstance(act, Close):
            self.closed_with(act, 1001, drop=False)
        elif isinstance(act, Ping):
            assert self.is_open
        elif act is not None:
            assert act == Drop(abort=True)
            if self.is_open:
                self.code, self.parts = 1006, None

    def closed_with(self, act: Any, code: int, *, drop: bool) -> None:
        assert self.is_open
        assert isinstance(act, Close)
        assert (act.code, act.drop) == (code, drop)
        assert len(act.reason.encode()) <= MAX_REASON_BYTES
        self.code, self.parts = code, None
        self.closes += 1

    def expected(self, opcode: int, fin: bool, rsv: bool, payload: bytes) -> Any:
        """What is to be done for a frame on an open connection; a number is a close code."""
        rules = self.line.rules
        if rsv:
            return 1002
        if opcode in (PING, PONG):
            return Pong(payload) if opcode == PING else None
        if opcode not in (CONTINUATION, TEXT, BINARY) or (opcode == CONTINUATION) == (self.parts is None):
            return 1002
        if opcode == BINARY and not rules.accept_binary:
            return 1003
        kind, so_far = self.parts or (opcode, b"")
        so_far += payload
        if len(so_far) > rules.max_message_bytes:
            return 1009
        if kind == TEXT and not is_utf_8(so_far, final=fin):
            return 1007
        self.parts = None if fin else (kind, so_far)
        if not fin:
            return None
        return Message(so_far.decode()) if kind == TEXT else Message(base64.b64encode(so_far).decode(), is_base64=True)


def is_utf_8(payload: bytes, *, final: bool = True) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(payload, final)
    except UnicodeDecodeError:
        return False
    return True


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=examples(60), stateful_step_count=25, deadline=None)


@settings(max_examples=examples(100), deadline=None)
@given(text=st.text(max_size=16), cuts=st.lists(st.integers(0, 64), max_size=6), pings=st.booleans())
def test_a_message_is_the_same_however_it_was_cut(text: str, cuts: list[int], pings: bool):
    """Any text in any fragments, pings between them or not, is delivered as the text."""
    whole = text.encode()
    assume(len(whole) <= RULES.max_message_bytes)
    line = Line()
    ends = sorted(min(cut, len(whole)) for cut in cuts)
    begin, opcode = 0, TEXT
    for end in ends:
        assert line.part(opcode, whole[begin:end]) is None
        assert not pings or line.frame(PING) == Pong(b"")
        begin, opcode = end, CONTINUATION
    assert line.frame(opcode, whole[begin:]) == Message(text)
