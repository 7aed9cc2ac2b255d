"""Ways between servers on which a network can fail: cut, silent in a direction or both, slow, losing messages."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from cuttable import CHUNK, Cuttable, Passes, Way

BOTH = frozenset(Way)


class Link(Cuttable):
    """A TCP proxy to one port of this machine.

    Args:
        port: where it leads.

    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._is_cut = False
        self._open = {way: asyncio.Event() for way in Way}
        self._delay_s = 0.0
        self.heal()

    def cut(self) -> None:
        """Break what stands, and refuse what comes."""
        self._is_cut = True
        super().cut()

    def silence(self, ways: frozenset[Way] = BOTH) -> None:
        """Let nothing pass in these directions, while everything seems to stand: what is on its way comes later."""
        for way in ways:
            self._open[way].clear()

    def slow(self, delay_s: float) -> None:
        """Let everything take this much longer."""
        self._delay_s = delay_s

    def heal(self) -> None:
        """Be as if there were nothing in between."""
        self._is_cut = False
        self._delay_s = 0.0
        for gate in self._open.values():
            gate.set()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._is_cut:
            raise ConnectionRefusedError
        return await super()._connect()

    async def _pump(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: Passes) -> None:
        sieve = self._sieve(way)
        try:
            while data := await source.read(CHUNK):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._open[way].wait()
                sink.write(sieve.passes(data))
                await sink.drain()
            await self._open[way].wait()  # an end is not heard of either
        except OSError:
            pass
        finally:
            sink.close()

    def _sieve(self, way: Way) -> Sieve:
        return Sieve()


class Sieve:
    """What of a direction's bytes passes: all."""

    def passes(self, data: bytes) -> bytes:
        """What of them is to be handed on now."""
        return data


class NatsLink(Link):
    """A way to a NATS server that can lose messages.

    Args:
        port: where it leads.
        chance: which ones.

    Attributes:
        lost: how many were, by what they were.

    """

    def __init__(self, port: int, chance: random.Random) -> None:
        self._chance = chance
        self._share = 0.0
        self.lost: Counter[str] = Counter()
        super().__init__(port)

    def lose(self, share: float) -> None:
        """Lose this share of the messages, published and delivered ones."""
        self._share = share

    def heal(self) -> None:
        super().heal()
        self._share = 0.0

    def loses(self, verb: str) -> bool:
        """Whether this one is lost."""
        if self._share == 0.0 or self._chance.random() >= self._share:
            return False
        self.lost[verb] += 1
        return True

    def _sieve(self, way: Way) -> Sieve:
        return NatsSieve(self)


class NatsSieve(Sieve):
    """Takes whole messages out of one direction of NATS' protocol; everything else passes as it comes.

    Args:
        link: decides which.

    """

    MESSAGES = frozenset((b"PUB", b"HPUB", b"MSG", b"HMSG"))

    def __init__(self, link: NatsLink) -> None:
        self._link = link
        self._held = bytearray()  # the beginning of a line or message whose end has not come yet

    def passes(self, data: bytes) -> bytes:
        self._held += data
        out, place = bytearray(), 0
        while (end := self._held.find(b"\r\n", place)) >= 0:
            line = bytes(self._held[place:end])
            end += 2
            verb = line.split(b" ", 1)[0].upper()
            if verb in self.MESSAGES:
                end += int(line.rsplit(b" ", 1)[1]) + 2
                if end > len(self._held):
                    break
            if verb not in self.MESSAGES or not self._link.loses(verb.decode()):
                out += self._held[place:end]
            place = end
        del self._held[:place]
        return bytes(out)
