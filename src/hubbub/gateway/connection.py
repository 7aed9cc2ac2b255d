"""The life of one WebSocket connection after its handshake, without a socket or a clock in sight.

It is told what came, what the server wants and what time it is, and says what is to be done. RFC 6455: fragments
(5.4), control frames (5.5), UTF-8 (8.1), the closing handshake (7). Masks, opcodes and the size of control frames are
the affair of `hubbub.gateway.framing`, which is in front of it.
"""

from __future__ import annotations

import base64
import codecs
from enum import IntEnum
from typing import NamedTuple

import msgspec

from hubbub.gateway.deflate import BadData, TooMuch, inflate, longest_payload

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
"""Opcodes (RFC 6455, section 5.2)."""

COMPRESSED = 0x40
"""The reserved bit that marks the first frame of a compressed message (RFC 7692, section 6)."""

GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED, NO_STATUS, ABNORMAL = 1001, 1002, 1003, 1005, 1006
INVALID_TEXT, TOO_BIG, SERVER_ERROR, SERVICE_RESTART, SLOW_CONSUMER = 1007, 1009, 1011, 1012, 4408
"""Close codes (RFC 6455, section 7.4.1, and our own above 4000)."""

MAX_REASON_BYTES = 123
"""What a CLOSE frame has room for beside its code (RFC 6455, section 5.5)."""


class Phase(IntEnum):
    """Where in its life a connection is."""

    OPEN = 0
    CLOSING = 1  # our CLOSE is sent, the other's is awaited
    CLOSED = 2  # nothing more is to be done but to let go of the socket


_OPEN, _CLOSED = Phase.OPEN, Phase.CLOSED  # an enumeration is asked for a member by a function


class Message(msgspec.Struct, frozen=True, gc=False):
    """A whole message came: its text, or its bytes in base64."""

    body: str
    is_base64: bool = False


class Pong(NamedTuple):
    """Answer a ping with this."""

    payload: bytes


class Ping(NamedTuple):
    """Ask whether the other is still there."""


_PING = Ping()


class Close(NamedTuple):
    """Send CLOSE with this code and reason; `drop` then closes the socket, for the other has nothing more to say.

    A code of 1005 stands for a CLOSE without a code.
    """

    code: int
    reason: str
    drop: bool


class Drop(NamedTuple):
    """Close the socket; with `abort` without sending what still waits."""

    abort: bool


Act = Message | Pong | Ping | Close | Drop


class Rules(NamedTuple):
    """What holds for all connections of a gateway; times in seconds.

    Attributes:
        max_message_bytes: the longest message; beyond it 1009.
        accept_binary: whether binary messages are delivered in base64; otherwise they close with 1003.
        ping_after_s: after how long a silence the other is pinged.
        ping_early_s: by how much sooner it may be, where many would be at once.
        pong_within_s: how long it may then stay silent before it is taken for dead.
        pings_are_activity: whether the other's pings keep the connection from being idle.
        close_within_s: how long the closing handshake may take.
        idle_s: how long there may be no message in either direction; None for no limit.
        lifetime_s: how long a connection lives; None for no limit.
        deflate_min_bytes: from which length on what is sent is compressed for those who have agreed to that; None for
            never, and nobody has.

    """

    max_message_bytes: int = 32 * 1024
    accept_binary: bool = False
    ping_after_s: float = 40.0
    ping_early_s: float = 0.0
    pong_within_s: float = 20.0
    pings_are_activity: bool = False
    close_within_s: float = 5.0
    idle_s: float | None = None
    lifetime_s: float | None = None
    deflate_min_bytes: int | None = None


class Life:
    """One connection's state.

    Args:
        now: monotonic seconds.
        deflates: whether messages may be compressed, in both directions: it was agreed in the handshake.

    """

    __slots__ = (
        "checked",
        "close_by",
        "code",
        "deaf",
        "deflates",
        "gathered",
        "heard_at",
        "message_at",
        "opcode",
        "opened_at",
        "phase",
        "pinged_at",
        "reason",
    )

    def __init__(self, now: float, *, deflates: bool = False) -> None:
        self.phase = _OPEN
        self.deflates = deflates
        self.opened_at = now  # when the handshake was done, monotonic seconds
        self.deaf = False  # whether nothing is read for now, so that silence says nothing of the other
        self.heard_at = now  # when anything last came
        self.message_at = now  # when a message last came
        self.pinged_at: float | None = None  # when the ping was sent that nothing has followed yet; None for none
        self.close_by: float | None = None  # until when the socket may take to close; None while open, or for at once
        self.code: int | None = None  # what `$disconnect` will report; None until somebody has begun to close
        self.reason = ""  # likewise
        self.opcode: int | None = None  # TEXT or BINARY, and COMPRESSED, inside a fragmented message; None outside
        self.gathered: bytearray | None = None  # its bytes so far; None outside
        self.checked = 0  # how many of them are known to be whole characters of UTF-8

    def __repr__(self) -> str:
        code = f" {self.code} {self.reason!r}" if self.code is not None else ""
        part = f" {len(self.gathered)} bytes of a message" if self.gathered is not None else ""
        return f"<Life {self.phase.name}{code}{part}>"

    def received(self, opcode: int, fin: bool, rsv: int, payload: bytes, now: float, rules: Rules) -> Act | None:
        """A frame came; what is to be done.

        Args:
            opcode, fin: of the frame.
            rsv: its reserved bits, in the places they have in a frame's first byte.
            payload: without its mask.
            now: monotonic seconds.
            rules: of the gateway.

        """
        self.hears(now)
        if self.phase is not _OPEN:
            return self._received_closing(opcode, payload)
        if rsv and not (rsv == COMPRESSED and self.deflates and opcode in (TEXT, BINARY)):
            return self._fail(PROTOCOL_ERROR, "reserved bits are set that no agreed extension has here", now, rules)
        if opcode == TEXT and fin and self.opcode is None:
            self.message_at = now
            return self._whole(TEXT | rsv, payload, now, rules)
        if opcode == PING:
            if rules.pings_are_activity:
                self.message_at = now
            return Pong(payload)
        if opcode == PONG:
            return None
        if opcode == CLOSE:
            return self._received_close(payload, now, rules)
        return self._data(opcode, rsv, fin, payload, now, rules)

    def takes_text(self, size: int, now: float, rules: Rules) -> bool:
        """A frame came that is a whole text of so many bytes, decoded: whether it is a message as it is.

        It is as nearly always. Otherwise nothing is noted, and `received` is to be told of the frame.
        """
        if self.phase is not _OPEN or self.deaf or self.opcode is not None or size > rules.max_message_bytes:
            return False
        self.heard_at = self.message_at = now
        self.pinged_at = None
        return True

    def close(self, code: int, reason: str, now: float, rules: Rules) -> Close | None:
        """The server wants to close; None when closing has begun already."""
        if self.phase is not _OPEN:
            return None
        self._end(Phase.CLOSING, code, _fitting(reason), now, rules)
        return Close(code, self.reason, drop=False)

    def hears(self, now: float) -> None:
        """Something came, be it a part of a frame, inside which the other cannot answer a ping."""
        self.heard_at = now
        self.pinged_at = None

    def hears_again(self, now: float) -> None:
        """What comes is read again; what was not is forgiven."""
        self.deaf = False
        self.hears(now)

    def passed(self, now: float, message_out_at: float, rules: Rules, early: bool = False) -> Act | None:
        """Time has passed; what is to be done.

        Args:
            now: monotonic seconds.
            message_out_at: when a message was last sent to it.
            rules: of the gateway.
            early: whether it is looked at sooner than `next_look` said, as `earliest_look` allows.

        """
        if self.phase is not _OPEN:
            if self.close_by is not None and now < self.close_by:
                return None
            self.phase = _CLOSED
            return Drop(abort=True)
        if rules.lifetime_s is not None and now >= self.opened_at + rules.lifetime_s:
            return self.close(GOING_AWAY, "Going away", now, rules)
        if rules.idle_s is not None and now >= max(self.message_at, message_out_at) + rules.idle_s:
            return self.close(GOING_AWAY, "Going away", now, rules)
        if self.deaf:
            return None
        if self.pinged_at is not None:
            if now >= self.pinged_at + rules.pong_within_s:
                self.lost("no answer to ping")
                return Drop(abort=True)
            return None
        if now >= self.heard_at + rules.ping_after_s - (rules.ping_early_s if early else 0.0):
            self.pinged_at = now
            return _PING
        return None

    def next_look(self, now: float, message_out_at: float, rules: Rules) -> float:
        """When `passed` will have something to say at the earliest, as far as is known now; monotonic seconds."""
        if self.phase is not _OPEN:
            return now if self.close_by is None else max(self.close_by, now)
        if not self.deaf and rules.lifetime_s is None and rules.idle_s is None:  # as it mostly is
            if self.pinged_at is None:
                return max(self.heard_at + rules.ping_after_s, now)
            return max(self.pinged_at + min(rules.pong_within_s, rules.ping_after_s), now)
        if self.deaf:
            times = [now + min(rules.pong_within_s, rules.ping_after_s)]
        elif self.pinged_at is None:
            times = [self.heard_at + rules.ping_after_s]
        else:  # until when there may be no answer, and when the next ping is due if there is one
            times = [self.pinged_at + min(rules.pong_within_s, rules.ping_after_s)]
        if rules.lifetime_s is not None:
            times.append(self.opened_at + rules.lifetime_s)
        if rules.idle_s is not None:
            times.append(max(self.message_at, message_out_at) + rules.idle_s)
        return max(min(times), now)

    def earliest_look(self, look: float, rules: Rules) -> float:
        """From when on `passed` may be asked instead of at `look`, the outcome of `next_look`, as one who is early."""
        is_for_ping = self.phase is _OPEN and not self.deaf and look == self.heard_at + rules.ping_after_s
        return look - rules.ping_early_s if is_for_ping and self.pinged_at is None else look

    def lost(self, why: str = "Connection closed abnormally") -> tuple[int, str]:
        """The socket is gone, or of no use; the code and reason that `$disconnect` reports.

        That is what ended the connection: `why` counts only where nobody had begun to close.
        """
        self.phase = _CLOSED
        self.gathered = self.opcode = None
        if self.code is None:
            self.code, self.reason = ABNORMAL, why
        return self.code, self.reason

    def _data(self, opcode: int, rsv: int, fin: bool, payload: bytes, now: float, rules: Rules) -> Act | None:
        if opcode == CONTINUATION:
            if self.gathered is None:
                return self._fail(PROTOCOL_ERROR, "a continuation of nothing", now, rules)
        elif self.gathered is not None:
            return self._fail(PROTOCOL_ERROR, "a new message inside a fragmented one", now, rules)
        elif opcode not in (TEXT, BINARY):
            return self._fail(PROTOCOL_ERROR, "a frame of no known kind", now, rules)
        elif opcode == BINARY and not rules.accept_binary:
            return self._fail(UNSUPPORTED, "binary frames are not supported", now, rules)
        else:
            self.opcode, self.gathered, self.checked = opcode | rsv, bytearray(), 0
        assert self.opcode is not None and self.gathered is not None  # noqa: S101  set just above
        most = rules.max_message_bytes
        if self.opcode & COMPRESSED:
            most = longest_payload(most)
        if len(self.gathered) + len(payload) > most:
            return self._too_big(now, rules)
        self.gathered += payload
        if not fin:
            # A client that sends rubbish learns it before the end (RFC 6455, section 8.1, allows both).
            if self.opcode == TEXT and not self._may_become_text():
                return self._fail(INVALID_TEXT, "the text is not UTF-8", now, rules)
            return None
        opcode, whole = self.opcode, bytes(self.gathered)
        self.opcode = self.gathered = None
        self.message_at = now
        return self._whole(opcode, whole, now, rules)

    def _may_become_text(self) -> bool:
        """Whether what was gathered can begin a text; each byte is looked at once, however small the fragments are."""
        assert self.gathered is not None  # noqa: S101  asked inside a fragmented message
        try:
            _, whole = codecs.utf_8_decode(memoryview(self.gathered)[self.checked :], "strict", False)
        except UnicodeDecodeError:
            return False
        self.checked += whole
        return True

    def _whole(self, opcode: int, payload: bytes, now: float, rules: Rules) -> Act:
        if opcode & COMPRESSED:
            try:
                payload = inflate(payload, rules.max_message_bytes)
            except TooMuch:
                return self._too_big(now, rules)
            except BadData as bad:
                return self._fail(INVALID_TEXT, str(bad), now, rules)
            opcode &= ~COMPRESSED
        elif len(payload) > rules.max_message_bytes:
            return self._too_big(now, rules)
        if opcode == BINARY:
            return Message(base64.b64encode(payload).decode("ascii"), is_base64=True)
        try:
            return Message(payload.decode())
        except UnicodeDecodeError:
            return self._fail(INVALID_TEXT, "the text is not UTF-8", now, rules)

    def _received_close(self, payload: bytes, now: float, rules: Rules) -> Close:
        """The other closes: it is answered and has nothing more to say, even where it did so wrongly."""
        code, reason, answer = _read_close(payload)
        self._end(_CLOSED, code, reason, now, rules)
        return Close(code, answer, drop=True)

    def _received_closing(self, opcode: int, payload: bytes) -> Act | None:
        """After our CLOSE only the other's matters (RFC 6455, section 1.4)."""
        if opcode != CLOSE or self.phase is _CLOSED:
            return None
        self.phase = _CLOSED
        return Drop(abort=False)

    def _too_big(self, now: float, rules: Rules) -> Close:
        return self._fail(TOO_BIG, f"a message has at most {rules.max_message_bytes} bytes", now, rules)

    def _fail(self, code: int, reason: str, now: float, rules: Rules) -> Close:
        closed = self.close(code, reason, now, rules)
        assert closed is not None  # noqa: S101  only an open connection fails
        return closed

    def _end(self, phase: Phase, code: int, reason: str, now: float, rules: Rules) -> None:
        self.phase = phase
        self.code, self.reason = code, reason
        self.close_by = now + rules.close_within_s
        self.gathered = self.opcode = None


def _read_close(payload: bytes) -> tuple[int, str, str]:
    """What a CLOSE frame says: the code and reason to report, the code to answer with as well, and the words beside."""
    if not payload:
        return NO_STATUS, "Client-side close frame status not set", ""
    code = int.from_bytes(payload[:2], "big")
    if not _may_be_sent(code):  # nor may half a code, which is below 256
        wrong = "the close code may not be sent"
        return PROTOCOL_ERROR, wrong, wrong
    try:
        return code, payload[2:].decode(), ""
    except UnicodeDecodeError:
        wrong = "the reason is not UTF-8"
        return INVALID_TEXT, wrong, wrong


def _may_be_sent(code: int) -> bool:
    """Whether a CLOSE frame may carry the code (RFC 6455, sections 7.4.1 and 7.4.2, and the registry they found)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def _fitting(reason: str) -> str:
    """As much of the reason, in whole characters, as a CLOSE frame has room for."""
    return reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
