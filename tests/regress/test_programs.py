"""The programs in C that benches compare with and load with: what they count is what there was."""

from __future__ import annotations

import pytest
from bench import native
from bench.delivery import SHAPES
from bench.native import Audience, Publisher, audience, broadcaster, program
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

TEXT = "~000~".ljust(200, "x")


async def opened(crowd: Audience, listeners: int, rooms: str = "") -> list[Publisher]:
    """Listeners and a publisher of room 0."""
    await crowd.open([(None, f"listen {rooms}".strip())] * listeners)
    return [Publisher(await crowd.open([(None, "")]), listeners, TEXT)]


@pytest.mark.parametrize("options", [(), ("joined",)], ids=["one send each", "joined"])
@pytest.mark.parametrize("in_flight", [1, 16])
async def test_every_listener_gets_every_text(options, in_flight):
    """And the audience says so when all have: the second run begins from nothing."""
    async with broadcaster(*options) as server, audience(server) as crowd:
        publishers = await opened(crowd, 10)
        for count in (40, 20):
            ran = await crowd.run(publishers, count, in_flight, 200)
            assert ran.deliveries == 10 * count
            assert ran.seconds > 0 and ran.load_cpu_s >= 0


@pytest.mark.parametrize("options", [(), ("joined",)], ids=["one send each", "joined"])
async def test_rooms_have_listeners_and_publishers_of_their_own(options):
    """A listener in two rooms hears both."""
    async with broadcaster(*options) as server, audience(server) as crowd:
        await crowd.open([(None, "listen 0 1")] * 3 + [(None, "listen 1")] * 4)
        first = await crowd.open([(None, "")] * 2)
        texts = ["~000~".ljust(200, "x"), "~001~".ljust(60_000, "y")]
        publishers = [Publisher(first, 3, texts[0]), Publisher(first + 1, 7, texts[1])]
        assert (await crowd.run(publishers, 20, 4, 200)).deliveries == 20 * (3 + 7)


@pytest.mark.parametrize("options", [(), ("joined",)], ids=["one send each", "joined"])
async def test_numbers_that_are_none_do_the_broadcaster_no_harm(options):
    """A blank behind the last room, no room at all, one below the first: others go on being served."""
    async with broadcaster(*options) as server, audience(server) as crowd:
        await crowd.open([(None, "listen 0 "), (None, "listen x"), (None, "~-7~"), (None, "~-9~".ljust(200, "x"))])
        first = await crowd.open([(None, "")])
        assert (await crowd.run([Publisher(first, 1, TEXT)], 5, 1, 200)).deliveries == 5


async def test_what_does_not_come_is_missed():
    """An audience that waits for more than there is says how much came."""
    async with broadcaster() as server, audience(server, stalled_s=0.5) as crowd:
        (publisher,) = await opened(crowd, 2)
        with pytest.raises(RuntimeError, match="expected 3 deliveries, got 2 and then nothing more"):
            await crowd.run([publisher._replace(listeners=3)], 1, 1, 200)


async def test_the_broadcaster_answers_a_handshake_as_it_is_to_be():
    """A client that looks at the answer agrees, and gets what another says."""

    class Client(WSListener):
        def __init__(self) -> None:
            self.texts: list[bytes] = []

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            self.texts.append(frame.get_payload_as_bytes())
            transport.disconnect()

    async with broadcaster() as server:
        one, client = await ws_connect(Client, f"ws://127.0.0.1:{server.port}/")
        one.send(WSMsgType.TEXT, b"listen")
        one.send(WSMsgType.TEXT, b"hello")
        await one.wait_disconnected()
        assert client.texts == [b"hello"]


def test_a_program_that_does_not_compile_is_told_of(monkeypatch, tmp_path):
    """As is a machine without a compiler, with what to do."""
    (tmp_path / "wrong.c").write_text("int main(void) { return nothing; }")
    monkeypatch.setattr(native, "SOURCES", tmp_path)
    monkeypatch.setattr(native, "BUILT", tmp_path)
    with pytest.raises(RuntimeError, match="nothing"):
        program("wrong")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="scripts/setup system gcc"):
        program("wrong")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_memberships_are_as_they_are_said_to_be(shape):
    """Each room has its listeners, each listener different rooms, and each run the same."""
    memberships = shape.memberships()
    assert memberships == shape.memberships()
    assert all(len(set(rooms)) == shape.rooms_of_each for rooms in memberships)
    every = [room for rooms in memberships for room in rooms]
    assert all(every.count(room) == shape.listeners for room in range(shape.rooms))
