"""What a peer sends to a client that connects, listens, speaks and hears: recorded, for the tests of the dialects."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.peers.audience import Audience, Member
from bench.peers.catalogue import Peer
from bench.peers.measure import STRAGGLERS_S, served

FOLDER = Path(__file__).parents[2] / "tests" / "recorded" / "peers"
"""Where recordings are, a file for each peer."""

MESSAGES = 10
"""How many messages a client says: the first half one after the other, the others at once."""


class Recording(msgspec.Struct):
    """What one client got, from the answer to its handshake on.

    Attributes:
        versions: of what was recorded, by name.
        said: how many messages it said, also those before the ones that are counted.
        chunks: the bytes as they came, a character for each.

    """

    versions: dict[str, str]
    said: int
    chunks: list[str]


class _Recorded(Member):
    __slots__ = ("chunks", "said")

    def __init__(self, audience: Audience, number: int) -> None:
        super().__init__(audience, number)
        self.chunks: list[str] = []
        self.said = 0

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data.decode("latin-1"))
        super().data_received(data)

    def say(self, number: int) -> None:
        self.said += 1
        super().say(number)


class _Recorder(Audience):
    kind = _Recorded


async def record(peer: Peer) -> Recording:
    """Start a peer and record what it sends to one of two clients.

    Raises:
        RuntimeError: not all of what was said came.

    """
    async with served(peer) as running:
        audience = _Recorder(peer.dialect(), running.port, at_once=peer.at_once)
        members = await audience.connect(2)
        await audience.listen(members)
        client = members[0]
        assert isinstance(client, _Recorded)
        await audience.hear(client, members, len(members), STRAGGLERS_S)
        audience.track(MESSAGES)
        begin = audience.received
        for number in range(MESSAGES):
            client.say(number)
            if number < MESSAGES // 2:
                await audience.until(begin + (number + 1) * len(members), peer.lost_after_s)
        if not await audience.until(begin + MESSAGES * len(members), peer.lost_after_s):
            raise RuntimeError(f"of {MESSAGES * len(members)} deliveries only {audience.received - begin} came")
        await audience.quiet(0.5)
        audience.close()
        return Recording(peer.found(), client.said, client.chunks)


def keep(name: str, recording: Recording, folder: Path = FOLDER) -> None:
    """Write a recording down."""
    folder.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(recording), indent=1)
    (folder / f"{name}.json").write_bytes(text + b"\n")


def kept(folder: Path = FOLDER) -> dict[str, Recording]:
    """All recordings, by the name of their peer."""
    return {path.stem: msgspec.json.decode(path.read_bytes(), type=Recording) for path in sorted(folder.glob("*.json"))}
