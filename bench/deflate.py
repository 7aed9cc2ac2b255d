"""What permessage-deflate costs and brings: `python -m bench.deflate [--quick]`.

The server's CPU time of a delivery and its bytes, with clients that all offer it or none, in interleaved rounds; beside
it what compressing a message and inflating one takes alone, by its length: that many times over it would be paid if a
message were compressed for each listener.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop
from picows import WSFrame, WSMsgType, WSTransport

from bench import saving
from bench.load import Client, Server, hubbub_server
from bench.tls import delivery_us
from hubbub.gateway.deflate import compress, inflate

LENGTHS = (200, 1_000, 8_000)
"""Of texts, in characters."""

OFFER = "permessage-deflate; client_max_window_bits"

_SAID = (
    "the of and to a in is it you that he was for on are with as his they be at one have this from or had "
    "by hot but some what there we can out other were all your when up use word how said an each she "
    "which do their time if will way about many then them would write like so these her long make thing "
    "see him two has look more day could go come did my sound no most number who over know water than "
    "call first people may down side been now find "
)
WORDS = tuple(_SAID.split())


def text(length: int) -> str:
    """Words of everyday, the same in each run: neither as dense as chance nor one word said again."""
    return " ".join(random.Random(length).choices(WORDS, k=length))[:length]


class Inflating(Client):
    """A client that has offered compression, and hands what came to `on_frame` as it was before."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Count a text frame as its own length, answer a ping."""
        if frame.msg_type == WSMsgType.TEXT:
            payload = frame.get_payload_as_bytes()
            if frame.rsv1:
                payload = inflate(payload, 2**20)
            self.frames += len(payload) >= self.least
            if self.on_frame is not None:
                self.on_frame(payload)
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())


@asynccontextmanager
async def deflating_server() -> AsyncIterator[Server]:
    """`hubbub serve` that compresses everything, and clients that offer it."""
    async with hubbub_server(deflate="1", deflate_min_bytes="1") as server:
        server.offers = {"Sec-WebSocket-Extensions": OFFER}
        server.client = Inflating
        yield server


def alone(length: int, count: int) -> dict[str, float]:
    """What zlib does with one message: microseconds of compressing and of inflating, and its length thereafter."""
    message = text(length).encode()
    packed = compress(message)
    figures = {"length": float(length), "compressed_bytes": float(len(packed))}
    for name, work in (("compress_us", lambda: compress(message)), ("inflate_us", lambda: inflate(packed, 2**20))):
        began = time.thread_time()
        for _ in range(count):
            work()
        figures[name] = (time.thread_time() - began) / count * 1e6
    return figures


async def main(rounds: int, quick: bool) -> dict[str, object]:
    """Measure and print."""
    print(f"zlib {zlib.ZLIB_RUNTIME_VERSION} alone:")
    zlibs = [alone(length, 500 if quick else 5_000) for length in LENGTHS]
    for each in zlibs:
        took = f"{each['compress_us']:.1f} us to compress, {each['inflate_us']:.1f} us to inflate"
        print(f"{each['length']:>6.0f} bytes become {each['compressed_bytes']:.0f}: {took}")
    print(f"listeners  length  plain, us  deflated, us  ratio  plain, bytes  deflated, bytes  (medians of {rounds})")
    rows = []
    for listening in (100,) if quick else (100, 1_000):
        for length in LENGTHS:
            count = (10_000 if quick else 100_000) // listening
            pairs = [
                (
                    await delivery_us(hubbub_server, text(length), listening, count, 1),
                    await delivery_us(deflating_server, text(length), listening, count, 1),
                )
                for _ in range(rounds)
            ]
            plain_us, packed_us = (statistics.median(pair[which][0] for pair in pairs) for which in (0, 1))
            plain_bytes, packed_bytes = (statistics.median(pair[which][1] for pair in pairs) for which in (0, 1))
            ratio = statistics.median(packed[0] / plain[0] for plain, packed in pairs)
            print(
                f"{listening:>9}  {length:>6}  {plain_us:>9.2f}  {packed_us:>12.2f}  {ratio:>5.2f}"
                f"  {plain_bytes:>12.0f}  {packed_bytes:>15.0f}",
                flush=True,
            )
            times = {"plain_us": plain_us, "deflated_us": packed_us, "ratio": ratio}
            sizes = {"plain_bytes": plain_bytes, "deflated_bytes": packed_bytes}
            rows.append({"listeners": listening, "length": length, **times, **sizes})
    return {"alone": zlibs, "rows": rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    saving.add_argument(parser)
    chosen = parser.parse_args()
    figures = uvloop.run(main(chosen.rounds, chosen.quick))
    if chosen.save:
        saving.save("deflate", figures)
