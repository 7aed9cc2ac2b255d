"""permessage-deflate on the wire: the handshake, what a client may send compressed, and what it may not."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import pytest
from gatewaylab import Lab, running, still_works
from rawpeer import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, RSV2, TEXT, Peer, frame, request

from hubbub.gateway.deflate import compress, inflate

OFFER = "permessage-deflate; client_max_window_bits"
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
LEAST = 100
MOST = 4_000


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """A gateway that compresses."""
    async with running(deflate_min_bytes=LEAST, max_message_bytes=MOST, accept_binary=True) as made:
        yield made


async def opened(lab: Lab, offer: str = OFFER) -> Peer:
    """A peer with which compression is agreed."""
    return await lab.open(request(Sec_WebSocket_Extensions=offer))


async def echoed(peer: Peer, words: str) -> None:
    """What was sent comes back: compressed, where that is worth it."""
    if len(words) < LEAST:
        assert await peer.text() == words
    else:
        came = await peer.receive(FIN | RSV1)
        assert came.opcode == TEXT
        assert inflate(came.payload, MOST).decode() == words


# The handshake


async def test_compression_is_agreed_where_it_is_offered(lab: Lab) -> None:
    """The answer says that no context is taken over; who offers nothing gets nothing."""
    for offer, answer in ((OFFER, AGREED), ("permessage-deflate; server_max_window_bits=9", None), ("x-other", None)):
        async with await lab.dial(request(Sec_WebSocket_Extensions=offer)) as peer:
            assert (await peer.answer()).headers.get("sec-websocket-extensions") == answer
    async with await lab.dial(request()) as peer:
        assert "sec-websocket-extensions" not in (await peer.answer()).headers


async def test_nothing_is_agreed_where_it_is_off() -> None:
    """Which it is unless it was asked for; then reserved bits are wrong, also in a message that would inflate."""
    async with running() as lab:
        async with await lab.dial(request(Sec_WebSocket_Extensions=OFFER)) as peer:
            assert "sec-websocket-extensions" not in (await peer.answer()).headers
            await still_works(peer, "x" * 1_000)
        code, reason = await lab.fails(frame(TEXT, compress(b"hello"), bits=FIN | RSV1))
    assert (code, reason) == (1002, "reserved bits are set that no agreed extension has here")


async def test_what_is_no_list_of_extensions_is_refused(lab: Lab) -> None:
    """With 400 and what was expected."""
    async with await lab.dial(request(Sec_WebSocket_Extensions="permessage-deflate;;")) as peer:
        answer = await peer.answer()
    assert answer.status == 400
    assert answer.message.startswith("Sec-WebSocket-Extensions: expected")


# Messages


@pytest.mark.parametrize("words", ["hi", "x" * 5, "Grüße, 世界! " * 200, "x" * MOST])
async def test_compressed_and_plain_messages_are_the_same_to_functions(lab: Lab, words: str) -> None:
    """A client may compress each message or not."""
    async with await opened(lab) as peer:
        for bits, payload in ((FIN | RSV1, compress(words.encode())), (FIN, words.encode())):
            await peer.send(frame(TEXT, payload, bits=bits))
            await echoed(peer, words)


async def test_a_compressed_message_may_come_in_fragments(lab: Lab) -> None:
    """The first has the bit and the others have not (RFC 7692, section 6.1); control frames come in between."""
    words = "all of it " * 50
    data = compress(words.encode())
    async with await opened(lab) as peer:
        await peer.send(frame(TEXT, data[:1], bits=RSV1), frame(PING, b"?"))
        assert (await peer.receive()).opcode == PONG
        for each in data[1:-1]:
            await peer.send(frame(CONTINUATION, bytes([each]), bits=0))
        await peer.send(frame(CONTINUATION, data[-1:]))
        await echoed(peer, words)
        await peer.send(frame(TEXT, b"", bits=RSV1), frame(CONTINUATION, data))
        await echoed(peer, words)


async def test_binary_messages_may_be_compressed(lab: Lab) -> None:
    """They reach functions in base64, as plain ones do."""
    async with await opened(lab) as peer:
        await peer.send(frame(BINARY, compress(b"\x00\xff" * 8), bits=FIN | RSV1))
        event = await lab.functions.wait_for("MESSAGE")
    assert (event["body"], event["isBase64Encoded"]) == ("AP8A/wD/AP8A/wD/AP8A/w==", True)


async def test_short_answers_and_control_frames_are_never_compressed(lab: Lab) -> None:
    """Nor is what would not get shorter."""
    import random

    noise = "".join(random.Random(1).choices([chr(n) for n in range(33, 127)], k=LEAST))
    async with await opened(lab) as peer:
        for words in ("x" * (LEAST - 1), noise):
            await peer.send(frame(TEXT, words.encode()))
            assert await peer.text() == words
        await peer.send(frame(PING, b"x" * 125))
        assert await peer.receive() == (PONG, b"x" * 125)


# What is wrong


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ([frame(PING, b"", bits=FIN | RSV1)], 1002),
        ([frame(CLOSE, b"", bits=FIN | RSV1)], 1002),
        ([frame(TEXT, compress(b"hi"), bits=FIN | RSV1 | RSV2)], 1002),
        ([frame(TEXT, compress(b"hi"), bits=FIN | RSV2)], 1002),
        ([frame(TEXT, b"", bits=RSV1), frame(CONTINUATION, compress(b"hi"), bits=FIN | RSV1)], 1002),
        ([frame(TEXT, b"", bits=0), frame(CONTINUATION, compress(b"hi"), bits=FIN | RSV1)], 1002),
        ([frame(TEXT, b"\xff\xff\xff", bits=FIN | RSV1)], 1007),
        ([frame(TEXT, b"", bits=FIN | RSV1)], 1007),
        ([frame(TEXT, compress(b"\xff\xfe"), bits=FIN | RSV1)], 1007),
        ([frame(TEXT, compress(b"hello")[:-2], bits=FIN | RSV1)], 1007),
        ([frame(TEXT, compress(b"x" * (MOST + 1)), bits=FIN | RSV1)], 1009),
    ],
)
async def test_what_is_wrongly_compressed_ends_the_connection(lab: Lab, data: list[bytes], code: int) -> None:
    """With the code for it."""
    async with await opened(lab) as peer:
        await peer.send(*data)
        assert (await peer.receive()).code == code


async def test_a_bomb_is_too_big(lab: Lab) -> None:
    """However small it comes."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = (stream.compress(b"x" * 3_000_000) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(bomb) < MOST
    async with await opened(lab) as peer:
        await peer.send(frame(TEXT, bomb, bits=FIN | RSV1))
        assert (await peer.receive()).code == 1009


async def test_compressed_fragments_are_bounded(lab: Lab) -> None:
    """What would be gathered beyond what any message needs is refused before its end."""
    async with await opened(lab) as peer:
        await peer.send(frame(TEXT, b"x" * 1_000, bits=RSV1))
        await peer.send(*[frame(CONTINUATION, b"x" * 1_000, bits=0)] * 4)
        assert (await peer.receive()).code == 1009
