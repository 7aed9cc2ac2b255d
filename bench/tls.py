"""What TLS costs that ends in the process: `python -m bench.tls [--quick]`.

The server's CPU time per delivered message with and without TLS, in interleaved rounds, beside what OpenSSL
takes for a record of that size; resident memory of a connection; CPU time of a handshake by the kind of key.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import ssl
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import msgspec
import trustme
import uvloop
from picows import ws_connect

from bench import saving
from bench.load import ROOM, Client, Server, connect, connect_many, hubbub_server, until

Make = Callable[[], AbstractAsyncContextManager[Server]]

TEXT = "x" * 200

PAGE = 100
"""How many messages of twice that length a page of history has, where one is read."""

RECORD = len(TEXT) + 160
"""About what such a message has as a frame."""


class Certificate:
    """A certificate of a key of one kind, in files.

    Attributes:
        cert, key: the files.
        client, server: what both sides speak TLS with.

    """

    def __init__(self, folder: Path, kind: trustme.KeyType) -> None:
        authority = trustme.CA(key_type=kind)
        issued = authority.issue_cert("127.0.0.1", key_type=kind)
        self.cert, self.key = folder / f"{kind.name}.pem", folder / f"{kind.name}-key.pem"
        self.cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.client = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.server.load_cert_chain(self.cert, self.key)


@asynccontextmanager
async def tls_server(certificate: Certificate) -> AsyncIterator[Server]:
    """`hubbub serve` with a certificate."""
    async with hubbub_server(tls_cert=str(certificate.cert), tls_key=str(certificate.key)) as server:
        server.tls = certificate.client
        yield server


def openssl_us(certificate: Certificate, size: int, count: int = 20_000) -> float:
    """CPU time of a record of that size, in microseconds: encrypted and taken out, in this process and alone."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = certificate.server.wrap_bio(to_server, to_client, server_side=True)
    client = certificate.client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    waiting = [client, server]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
    to_client.read()  # the session tickets
    payload = b"x" * size
    began = time.thread_time()
    for _ in range(count):
        server.write(payload)
        to_client.read()
    return (time.thread_time() - began) / count * 1e6


async def delivery_us(made: Make, text: str, listening: int, count: int, in_flight: int) -> tuple[float, float]:
    """The server's CPU time of a delivery in microseconds, and the bytes of it that its metrics count.

    Args:
        made: starts the server.
        text: what is said each time.
        listening: how many listen.
        count: how often it is said.
        in_flight: how many messages follow each other without waiting for all listeners to have them.

    """
    async with made() as server:
        publisher = await connect(server, "publisher")
        await publisher.ask(action="history", room=ROOM)
        listeners = await connect_many(server, ["watcher"] * listening)
        for listener in listeners:
            await listener.ask(action="sync")
            listener.frames, listener.least = 0, 200  # signals are shorter
        await asyncio.sleep(2.5)  # presence has been told, nothing else is under way
        frame = msgspec.json.encode({"action": "send", "ref": "r", "room": ROOM, "text": text})
        watched = [listeners[-1], *listeners[::97]]
        bytes_before, before = await bytes_out(server), server.cpu_s()
        sent = 0
        while sent < count:
            arrived = min(each.frames for each in watched)
            while sent < count and sent - arrived < in_flight:
                publisher.send(frame)
                sent += 1
            await asyncio.sleep(0)
        await until(lambda: all(each.frames == count for each in listeners))
        took_s = server.cpu_s() - before
        deliveries = count * listening
        return took_s / deliveries * 1e6, (await bytes_out(server) - bytes_before) / deliveries


async def bytes_out(server: Server) -> float:
    """How many bytes of frames a server has sent."""
    async with httpx.AsyncClient(verify=server.tls or True, trust_env=False) as client:
        numbers = (await client.get(f"http{server.url[2:].rpartition('/')[0]}/metrics")).text
    found = re.search(r"^hubbub_bytes_out_total ([\d.e+]+)$", numbers, re.MULTILINE)
    assert found is not None, numbers
    return float(found[1])


async def memory(server: Server, count: int, *, reads: bool = False) -> float:
    """Resident memory of an idle connection, in KB, beyond what so many others have warmed up.

    Args:
        server: where.
        count: of how many.
        reads: whether each has got a page of history before.

    """
    async with AsyncExitStack() as stack:
        for _ in range(2):
            before = server.rss()
            for client in await connect_many(server, ["watcher"] * count):
                assert client.transport is not None
                stack.callback(client.transport.disconnect)
                if reads:
                    await client.ask(action="history", room=ROOM, limit=PAGE)
            await asyncio.sleep(2)
        return (server.rss() - before) / count / 1024


async def memories(made: Make, count: int) -> dict[str, float]:
    """Of connections that have got nothing yet, and of those that have got a page of history."""
    async with made() as server:
        fresh = await memory(server, count)
    async with made() as server:
        publisher = await connect(server, "publisher")
        await publisher.ask(action="history", room=ROOM)
        for _ in range(PAGE):
            await publisher.ask(action="send", room=ROOM, text=2 * TEXT)
        return {"fresh": fresh, "after_a_page": await memory(server, count, reads=True)}


async def handshake_us(certificate: Certificate, count: int) -> float:
    """The server's CPU time of a connection over TLS that asks for a WebSocket at no such path."""
    async with tls_server(certificate) as server:
        elsewhere = server.url + "-not-here"
        for part in (50, count):
            before = server.cpu_s()
            for _ in range(part):
                with suppress(Exception):
                    await ws_connect(Client, elsewhere, ssl_context=server.tls)
        return (server.cpu_s() - before) / count * 1e6


async def main(rounds: int, quick: bool) -> dict[str, object]:
    """Measure and print."""
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
        curve, rsa = (Certificate(Path(folder), kind) for kind in (trustme.KeyType.ECDSA, trustme.KeyType.RSA))
        record_us = openssl_us(curve, RECORD)
        print(f"OpenSSL alone, a record of {RECORD} bytes: {record_us:.2f} us")
        print(f"listeners  in flight  plain, us  TLS, us  ratio   (CPU per delivery, medians of {rounds} rounds)")
        for listening in (100,) if quick else (100, 1_000):
            for in_flight in (1, 16):
                count = (20_000 if quick else 200_000) // listening
                ways: list[Make] = [hubbub_server, partial(tls_server, curve)]
                pairs = [
                    [(await delivery_us(way, TEXT, listening, count, in_flight))[0] for way in ways]
                    for _ in range(rounds)
                ]
                plain_us, tls_us = (statistics.median(column) for column in zip(*pairs, strict=True))
                ratio = statistics.median(secret / plain for plain, secret in pairs)
                print(f"{listening:>9}  {in_flight:>9}  {plain_us:>9.2f}  {tls_us:>7.2f}  {ratio:>5.2f}", flush=True)
                figures = {"plain_us": plain_us, "tls_us": tls_us, "ratio": ratio}
                rows.append({"listeners": listening, "in_flight": in_flight, **figures})
        count = 200 if quick else 2_000
        memory_kb = {
            "plain": await memories(hubbub_server, count),
            "tls": await memories(partial(tls_server, curve), count),
        }
        for way, kb in memory_kb.items():
            print(f"resident memory of an idle connection, {way}: {kb['fresh']:.1f} KB,", end=" ")
            print(f"{kb['after_a_page']:.1f} KB after a page of {PAGE} messages of history")
        count = 100 if quick else 1_000
        handshakes = {"P-256": await handshake_us(curve, count), "RSA-2048": await handshake_us(rsa, count)}
        print("CPU of a connection with a TLS handshake:", ", ".join(f"{v:.0f} us {k}" for k, v in handshakes.items()))
    return {"record_us": record_us, "rows": rows, "memory_kb": memory_kb, "handshake_us": handshakes}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    saving.add_argument(parser)
    chosen = parser.parse_args()
    figures = uvloop.run(main(chosen.rounds, chosen.quick))
    if chosen.save:
        saving.save("tls", figures)
