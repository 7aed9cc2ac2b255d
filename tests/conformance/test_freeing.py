"""What a connection held is let go of when it ends, at once: by its counts of references, without a collector."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import pytest
from gatewaylab import Lab, still_works
from rawpeer import TEXT, closing, frame, request

from hubbub.gateway.connection import Life
from hubbub.gateway.door import Door
from hubbub.gateway.http import Farewell, RequestHead
from hubbub.gateway.hub import Peer
from hubbub.gateway.sockets import Connection, Upgrade
from live import until

KINDS = (Connection, Peer, Life, Upgrade, Door, RequestHead, Farewell)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No collection takes place, after one that has found what others left behind."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> dict[str, int]:
    """How many objects of a connection there are, by kind."""
    counts = Counter(map(type, gc.get_objects()))  # a name for the list, in a cell, would keep all there is for ever
    return {kind.__name__: counts[kind] for kind in KINDS}


async def used_and_left(lab: Lab, how: str) -> None:
    """A connection comes, talks, and ends in that way."""
    if how == "refused":
        async with await lab.dial(request("/nowhere")) as peer:
            assert (await peer.answer()).status == 404
        return
    if how == "HTTP alone":
        peer = await lab.dial(b"GET / HTTP/1.1\r\nHost: chat.example\r\n\r\n")
        assert (await peer.answer()).status == 200
        peer.cut()
        return
    if how == "after a request":
        peer = await lab.dial(b"GET / HTTP/1.1\r\nHost: chat.example\r\n\r\n")
        assert (await peer.answer()).status == 200
        await peer.send(request())
        assert (await peer.answer()).status == 101
        connect = await lab.functions.wait_for("CONNECT", count=len(lab.functions.of("CONNECT")))
        peer.id = connect["requestContext"]["connectionId"]
    else:
        peer = await lab.open()
    assert lab.hub.join("room", peer.id)
    lab.hub.publish("room", b"hello")
    assert await peer.text() == "hello"
    await still_works(peer)
    if how == "closed":
        await peer.send(closing(1000))
        await peer.closed()
    elif how == "a bad frame":
        await peer.send(frame(TEXT, b"x", mask=None))
        await peer.closed()
    elif how == "half a frame":
        await peer.send(frame(TEXT, b"x" * 100)[:50])
        await lab.hang_on()
    peer.cut()
    await lab.end(peer)


HOW = ("closed", "cut", "a bad frame", "half a frame", "refused", "after a request", "HTTP alone")


@pytest.mark.parametrize("how", HOW)
async def test_a_connection_that_ended_is_freed_without_a_collector(lab: Lab, uncollected: None, how: str) -> None:
    """However it ended, nothing of it waits for the garbage collector, which may never look at it."""
    for _ in range(5):
        await used_and_left(lab, how)
    await until(lambda: not any(held().values()), f"nothing of them is left of {held()}", bound_s=5.0)
