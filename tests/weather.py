"""A way to DynamoDB on which there is weather: requests throttled or not answered, no table, nobody there.

It runs in a thread of its own, so that it is there for programs beside the test and outlives the test's loop.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from concurrent.futures import Future
from typing import Self
from urllib.parse import urlsplit

from loops import new_event_loop

REFUSALS = {
    "throttled": (400, "ProvisionedThroughputExceededException", "The level of configured throughput was exceeded."),
    "failing": (500, "InternalServerError", "We encountered an internal error. Please try again."),
    "missing": (400, "ResourceNotFoundException", "Requested resource not found"),
}


class Weather:
    """An HTTP proxy to a service.

    Args:
        url: the service's.
        seed: of what is left to chance.

    Attributes:
        url: where the proxy is, set in the block.
        mood: `fair`; one of `REFUSALS`; `lost` for requests that are done and not answered; `away` for nobody there.
        share: of the requests that the mood holds for; 1 for all.
        met: how many requests met which mood.

    """

    url: str

    def __init__(self, url: str, seed: int = 1) -> None:
        self._there = (urlsplit(url).hostname or "", urlsplit(url).port or 80)
        self._random = random.Random(seed)
        self.mood = "fair"
        self.share = 1.0
        self.met: Counter[str] = Counter()
        self._loop = new_event_loop()
        self._ready: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, name="weather", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = self._ready.result()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self._ready.set_result(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)  # whoever was accepted last has a task now
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # sockets are closed the turn after they are cut

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio itself holds a task weakly, and the collector may take one that waits for a stream that is its own.
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, a request after the other."""
        try:
            while True:
                request = await _message(reader)
                mood = self.mood if self._random.random() < self.share else "fair"
                self.met[mood] += 1
                if mood == "away":
                    break
                answer = _refusal(mood) if mood in REFUSALS else await self._forwarded(request)
                if mood == "lost":
                    break
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # whoever it was is gone, or the test is over
        finally:
            writer.transport.abort()

    async def _forwarded(self, request: bytes) -> bytes:
        """The service's answer."""
        reader, writer = await asyncio.open_connection(*self._there)
        try:
            writer.write(request)
            return await _message(reader)
        finally:
            writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """A whole request or response, which says how long it is."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:-2])
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


def _refusal(mood: str) -> bytes:
    status, kind, words = REFUSALS[mood]
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{kind}", "message": words}).encode()
    head = (
        f"HTTP/1.1 {status} Whatever\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
