"""Frames and messages as RFC 6455 has them, sections 5 and 8: what is taken, what is refused and with which code."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from gatewaylab import Functions, Lab, running, still_works
from rawpeer import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, RSV2, RSV3, TEXT, Frame, Peer, frame, request

pytestmark = pytest.mark.usefixtures("witness")

LIMIT = 32 * 1024


async def test_a_text_comes_whole(lab: Lab) -> None:
    """A function gets the text that was sent, and a client the text that the function returns."""
    async with await lab.open() as peer:
        for text in ("hi", "ä ∑ \U0001f600", "with \0 and \x7f", '{"action":"x"}'):
            await still_works(peer, text)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
async def test_every_form_of_length_is_read_and_written(size: int) -> None:
    """Lengths in 7, 16 and 64 bits carry messages to the function and back, in the shortest form that fits."""
    async with running(max_message_bytes=200_000) as lab, await lab.open() as peer:
        await peer.send(frame(TEXT, b"x" * size))
        assert len((await lab.functions.wait_for("MESSAGE"))["body"]) == size
        if size:  # an empty body is no answer
            assert len(await peer.text()) == size
        await still_works(peer)


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"], ids=lambda mask: mask.hex())
async def test_any_mask_is_taken_off(lab: Lab, mask: bytes) -> None:
    """Every masking key works, zero too, at every length that its four bytes can end in."""
    async with await lab.open() as peer:
        for size in (1, 2, 3, 4, 5, 63, 64, 65, 1_000):
            text = "abcdefg" * 200
            await peer.send(frame(TEXT, text[:size].encode(), mask=mask))
            assert await peer.text() == text[:size]


async def test_fragments_become_one_message(lab: Lab) -> None:
    """A message in fragments, empty ones among them, reaches the function once and whole."""
    async with await lab.open() as peer:
        await peer.send(frame(TEXT, b"one ", bits=0))
        await peer.send(frame(CONTINUATION, b"", bits=0), frame(CONTINUATION, b"two ", bits=0))
        await peer.send(frame(CONTINUATION, b"three"))
        assert await peer.text() == "one two three"
        await peer.send(frame(TEXT, b"", bits=0), frame(CONTINUATION, b"end"))
        assert await peer.text() == "end"
    assert [event["body"] for event in lab.functions.of("MESSAGE", peer.id)] == ["one two three", "end"]


async def test_a_character_may_be_split_over_fragments(lab: Lab) -> None:
    """UTF-8 is judged over the whole message: a fragment may end within a character."""
    async with await lab.open() as peer:
        text = "κόσμε \U0001f600"
        pieces = [text.encode()[n : n + 1] for n in range(len(text.encode()))]
        await peer.send(frame(TEXT, pieces[0], bits=0))
        await peer.send(*[frame(CONTINUATION, piece, bits=0) for piece in pieces[1:]], frame(CONTINUATION))
        assert await peer.text() == text


@pytest.mark.parametrize("looks_like", ["\u2280mask", "\u2045maskhello"], ids=["a pong", "a text"])
async def test_bytes_in_the_midst_of_a_frame_are_no_frame(lab: Lab, looks_like: str) -> None:
    """What comes by itself, and would be a whole frame if it did not go on with one, is a part of that."""
    async with await lab.open() as peer:
        text = f"before {looks_like} after"
        sent = frame(TEXT, text.encode(), mask=bytes(4))
        begin = sent.index(looks_like.encode()) + 1  # from the second byte of the sign on
        end = begin + len(looks_like.encode()) - 1
        assert sent[begin] in (0x80 | PONG, 0x80 | TEXT)
        for part in (sent[:begin], sent[begin:end], sent[end:]):
            await peer.send(part)
            await asyncio.sleep(0.05)  # so that it is read by itself
        assert await peer.text() == text
        await still_works(peer)


async def test_very_many_tiny_fragments_are_one_message(lab: Lab) -> None:
    """A message of the longest length in fragments of one byte, with many empty ones, is taken as well."""
    async with await lab.open() as peer:
        await peer.send(frame(TEXT, b"", bits=0))
        await peer.send((frame(CONTINUATION, b"x", bits=0) + frame(CONTINUATION, b"", bits=0)) * LIMIT)
        await peer.send(frame(CONTINUATION))
        assert await peer.text() == "x" * LIMIT


async def test_control_frames_between_fragments_are_answered_at_once(lab: Lab) -> None:
    """A ping between two fragments gets its pong before the message is whole, and the message stays whole."""
    async with await lab.open() as peer:
        await peer.send(frame(TEXT, b"one ", bits=0), frame(PING, b"now"))
        assert await peer.receive() == Frame(PONG, b"now")
        await peer.send(frame(PONG, b"unasked"), frame(CONTINUATION, b"two"))
        assert await peer.text() == "one two"


@pytest.mark.parametrize("payload", [b"", b"are you there", bytes(range(125)), b"\xff\xfe not UTF-8"])
async def test_a_ping_gets_its_payload_back(lab: Lab, payload: bytes) -> None:
    """The pong carries the ping's very payload, whatever its bytes are."""
    async with await lab.open() as peer:
        await peer.send(frame(PING, payload))
        assert await peer.receive() == Frame(PONG, payload)


async def test_many_pings_get_their_pongs_in_order(lab: Lab) -> None:
    """Every ping of a burst is answered, in order."""
    async with await lab.open() as peer:
        await peer.send(*[frame(PING, b"%d" % n) for n in range(300)])
        assert [await peer.receive() for _ in range(300)] == [Frame(PONG, b"%d" % n) for n in range(300)]


@pytest.mark.parametrize("payload", [b"", b"nobody asked", bytes(125)])
async def test_an_unsolicited_pong_is_ignored(lab: Lab, payload: bytes) -> None:
    """A pong that answers nothing changes nothing."""
    async with await lab.open() as peer:
        await peer.send(frame(PONG, payload))
        await still_works(peer)


async def test_bytes_may_come_one_at_a_time(lab: Lab) -> None:
    """A handshake, a message in fragments, a ping and a CLOSE work when each byte comes in a segment of its own."""
    async with await Peer.dial(lab.port) as peer:
        await peer.trickle(request())
        assert (await peer.answer()).status == 101
        text = "slowly: " + "ä" * 150
        await peer.trickle(frame(TEXT, text.encode()[:100], bits=0) + frame(PING, b"p"))
        assert await peer.receive() == Frame(PONG, b"p")
        await peer.trickle(frame(CONTINUATION, text.encode()[100:]))
        assert await peer.text() == text
        await peer.trickle(frame(CLOSE, (1000).to_bytes(2, "big") + b"bye"))
        assert (await peer.closed()).code == 1000


async def test_many_frames_may_come_in_one_segment(lab: Lab) -> None:
    """Five hundred frames that come together are five hundred messages; none is lost or doubled."""
    async with await lab.open() as peer:
        await peer.send(b"".join(frame(TEXT, b"m%d" % n) for n in range(500)))
        assert sorted([await peer.text() for _ in range(500)]) == sorted(f"m{n}" for n in range(500))


async def test_the_first_frames_may_come_with_the_handshake(lab: Lab) -> None:
    """What a client sends in the same segment as its handshake is taken after 101, in order."""
    async with await lab.dial(request() + frame(PING, b"1") + frame(TEXT, b"early") + frame(PING, b"2")) as peer:
        assert (await peer.answer()).status == 101
        came = [await peer.receive() for _ in range(3)]
    assert sorted(came) == [Frame(TEXT, b"early"), Frame(PONG, b"1"), Frame(PONG, b"2")]


async def test_a_frame_may_be_split_between_handshake_and_later(lab: Lab) -> None:
    """A frame whose first bytes came with the handshake is read together with the rest of it."""
    whole = frame(TEXT, b"in two halves")
    async with await lab.dial(request() + whole[:5]) as peer:
        assert (await peer.answer()).status == 101
        await peer.send(whole[5:])
        assert await peer.text() == "in two halves"


REFUSED = {
    "an unmasked frame": frame(TEXT, b"hi", mask=None),
    "an unmasked ping": frame(PING, b"hi", mask=None),
    "the first reserved bit": frame(TEXT, b"hi", bits=FIN | RSV1),
    "the second reserved bit": frame(TEXT, b"hi", bits=FIN | RSV2),
    "the third reserved bit": frame(BINARY, b"hi", bits=FIN | RSV3),
    "a reserved bit on a ping": frame(PING, b"hi", bits=FIN | RSV1),
    "a reserved bit on a close": frame(CLOSE, b"\x03\xe8", bits=FIN | RSV2),
    **{f"the reserved opcode {opcode:#x}": frame(opcode) for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)},
    "a fragmented ping": frame(PING, b"hi", bits=0),
    "a fragmented pong": frame(PONG, b"hi", bits=0),
    "a fragmented close": frame(CLOSE, b"\x03\xe8", bits=0),
    "a ping of 126 bytes": frame(PING, bytes(126)),
    "a pong of 126 bytes": frame(PONG, bytes(126)),
    "a close of 126 bytes": frame(CLOSE, b"\x03\xe8" + bytes(124)),
    "a continuation of nothing": frame(CONTINUATION, b"hi"),
    "an unfinished continuation of nothing": frame(CONTINUATION, b"hi", bits=0),
    "a text inside a fragmented message": frame(TEXT, b"one ", bits=0) + frame(TEXT, b"two"),
    "a binary inside a fragmented message": frame(TEXT, b"one ", bits=0) + frame(BINARY, b"two"),
    "a reserved bit on a continuation": frame(TEXT, b"one ", bits=0) + frame(CONTINUATION, b"two", bits=FIN | RSV1),
    "16 bits for a length of 125": frame(TEXT, bytes(125), length=b"\x7e\x00\x7d"),
    "64 bits for a length of 125": frame(TEXT, bytes(125), length=b"\x7f" + (125).to_bytes(8, "big")),
    "64 bits for a length of 65535": frame(TEXT, bytes(65_535), length=b"\x7f" + (65_535).to_bytes(8, "big")),
    "64 bits with the highest set": frame(TEXT, b"hi", length=b"\x7f\x80" + bytes(6) + b"\x02"),
    "64 bits all set": frame(TEXT, b"hi", length=b"\x7f" + b"\xff" * 8),
    "garbage": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
async def test_a_breach_of_the_protocol_closes_with_1002(lab: Lab, data: bytes) -> None:
    """What RFC 6455 forbids closes the connection with 1002 and a reason, and no function hears of it."""
    code, reason = await lab.fails(data)
    assert code == 1002
    assert reason
    assert [event["body"] for event in lab.functions.of("MESSAGE")] == ["still here"]  # the witness's


async def test_a_breach_is_noticed_before_the_payload_comes(lab: Lab) -> None:
    """A frame is refused for its header alone: the server does not wait for a payload that may never come."""
    assert (await lab.fails(frame(3, bytes(1_000))[:2]))[0] == 1002
    assert (await lab.fails(frame(TEXT, bytes(70_000))[:10]))[0] == 1009


NOT_UTF8 = {
    "a lone continuation byte": b"\x80",
    "a byte that never occurs": b"hi \xff",
    "an overlong form": b"\xc0\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "beyond the last character": b"\xf4\x90\x80\x80",
    "a cut character": b"\xce\xba\xe1\xbd",
}


@pytest.mark.parametrize("text", NOT_UTF8.values(), ids=NOT_UTF8.keys())
async def test_a_text_that_is_not_utf8_closes_with_1007(lab: Lab, text: bytes) -> None:
    """Invalid UTF-8 closes with 1007, in one frame as in fragments of one byte each."""
    assert (await lab.fails(frame(TEXT, text)))[0] == 1007
    pieces = [frame(CONTINUATION, text[n : n + 1], bits=0) for n in range(len(text))]
    assert (await lab.fails(frame(TEXT, b"begin ", bits=0), *pieces, frame(CONTINUATION)))[0] == 1007
    assert [event["body"] for event in lab.functions.of("MESSAGE")] == ["still here"]  # the witness's


async def test_invalid_utf8_is_noticed_before_the_message_ends(lab: Lab) -> None:
    """A fragment that can never become text closes with 1007 without waiting for the last one."""
    assert (await lab.fails(frame(TEXT, b"fine", bits=0), frame(CONTINUATION, b"\xce\xff", bits=0)))[0] == 1007


async def test_a_message_of_the_longest_length_is_taken(lab: Lab) -> None:
    """A message of exactly the limit is taken, in one frame as in fragments."""
    async with await lab.open() as peer:
        await still_works(peer, "x" * LIMIT)
        await peer.send(frame(TEXT, b"x" * (LIMIT - 1), bits=0), frame(CONTINUATION, b"x"))
        assert await peer.text() == "x" * LIMIT


async def test_a_message_over_the_limit_closes_with_1009(lab: Lab) -> None:
    """One byte more closes with 1009 and the limit in the reason, in one frame as when fragments make it."""
    expected = (1009, f"a message has at most {LIMIT} bytes")
    assert await lab.fails(frame(TEXT, b"x" * (LIMIT + 1))) == expected
    assert await lab.fails(frame(TEXT, b"x" * LIMIT, bits=0), frame(CONTINUATION, b"x")) == expected
    assert await lab.fails(frame(TEXT, b"x" * LIMIT, bits=0), frame(CONTINUATION, b"x", bits=0)) == expected


async def test_limits_are_in_bytes_of_utf8(lab: Lab) -> None:
    """The length of a message is that of its bytes, not of its characters."""
    assert (await lab.fails(frame(TEXT, "ä".encode() * (LIMIT // 2 + 1))))[0] == 1009


async def test_a_binary_message_closes_with_1003(lab: Lab) -> None:
    """As at API Gateway a binary message closes with 1003, whole or with its first fragment, and reaches nobody."""
    assert (await lab.fails(frame(BINARY, b"\x00\x01")))[0] == 1003
    assert (await lab.fails(frame(BINARY, b"\x00", bits=0)))[0] == 1003
    assert [event["body"] for event in lab.functions.of("MESSAGE")] == ["still here"]  # the witness's


async def test_where_they_are_accepted_binary_messages_arrive_in_base64() -> None:
    """With `accept_binary` a function gets a binary message in base64 and `isBase64Encoded` true, in fragments too."""
    async with running(accept_binary=True) as lab, await lab.open() as peer:
        payload = bytes(range(256))
        await peer.send(frame(BINARY, payload))
        assert base64.b64decode(await peer.text()) == payload
        await peer.send(frame(BINARY, payload[:9], bits=0), frame(PING), frame(CONTINUATION, payload[9:]))
        assert await peer.receive() == Frame(PONG, b"")
        assert base64.b64decode(await peer.text()) == payload
        await still_works(peer)
        events = lab.functions.of("MESSAGE", peer.id)
    assert [event["isBase64Encoded"] for event in events] == [True, True, False]
    assert {event["requestContext"]["routeKey"] for event in events} == {"$default"}


async def test_a_breach_ends_only_the_connection_that_made_it() -> None:
    """What was sent in the same turn as somebody's breach reaches the others, and him before his CLOSE."""
    functions = Functions()
    async with running(functions) as lab, await lab.open() as good, await lab.open() as bad:
        for peer in (good, bad):
            assert lab.hub.join("room", peer.id)
        lab.hub.publish("room", b"before")
        await bad.send(frame(TEXT, b"hi", mask=None))
        assert [await bad.text(), await good.text()] == ["before", "before"]
        assert (await bad.closed()).code == 1002
        lab.hub.publish("room", json.dumps({"after": True}).encode())
        assert await good.json() == {"after": True}
