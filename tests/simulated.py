"""API Gateway's `@connections` in place of an `HttpClient`: latencies on virtual time, the account's quota, faults."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from email.utils import formatdate
from urllib.parse import unquote

from hubbub.aws.http import Broken, HttpResponse, Unreached
from hubbub.clock import Clock
from hubbub.sigv4 import Credentials, Keys, Rejected, verify

HOST = "api.execute-api.eu-central-1.amazonaws.com"
ENDPOINT = f"https://{HOST}/prod"
REGION = "eu-central-1"
CREDENTIALS = Credentials("AKIDEXAMPLE", "a secret")


class Bucket:
    """The account's token bucket.

    Args:
        rate: tokens a second; 0 for no limit.
        burst: how many it holds.

    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        if not self._rate:
            return True
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class SimulatedApi:
    """The gateway.

    Args:
        clock: its time; the broadcaster's may be another one.
        latency_s: the least and greatest time of a request; a slow hundredth takes five times as long.
        rate, burst: the account's quota.
        checks: whether signatures are checked, which takes most of a simulation's time.
        seed: of the times.

    Attributes:
        got: what each connection got, with the time.
        requests: how many were made of each connection.
        answers: how many of each status.
        gone, forbidden: connections that are no more, and that one may not post to.
        slow: connections whose clients read nothing before that time.
        hanging: connections whose posts are never answered.
        failing: how many of the next posts to a connection fail, and how: `500`, `unreached`, `before` or `after`.

    """

    def __init__(
        self,
        clock: Clock,
        *,
        latency_s: tuple[float, float] = (0.005, 0.015),
        rate: float = 0.0,
        burst: float = 0.0,
        checks: bool = True,
        seed: int = 1,
    ) -> None:
        self.got: dict[str, list[tuple[float, bytes]]] = defaultdict(list)
        self.requests: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self.gone: set[str] = set()
        self.forbidden: set[str] = set()
        self.slow: dict[str, float] = {}
        self.hanging: set[str] = set()
        self.failing: dict[str, list[str]] = defaultdict(list)
        self.under_way = 0
        self.most_under_way = 0
        self._clock = clock
        self._latency_s = latency_s
        self._bucket = Bucket(rate, burst)
        self._checks = checks
        self._keys = Keys({CREDENTIALS.access_key: CREDENTIALS.secret_key})
        self._random = random.Random(seed)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        timeout_s: float,
        repeat: bool = False,
    ) -> HttpResponse:
        """Answer a post as API Gateway does."""
        prefix = f"{ENDPOINT}/@connections/"
        assert url.startswith(prefix), url
        connection = unquote(url[len(prefix) :])
        self.requests[connection] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if connection in self.hanging:
                await asyncio.sleep(timeout_s)
                raise Broken("no answer in time")
            await asyncio.sleep(self._latency())
            fault = self.failing[connection].pop(0) if self.failing.get(connection) else None
            if fault == "unreached":
                raise Unreached("no connection")
            if fault == "before":
                raise Broken("the connection broke")
            answer = self._answer(connection, method, url, headers, body, fault)
            if fault == "after":
                raise Broken("the connection broke")
            self.answers[answer.status] += 1
            return answer
        finally:
            self.under_way -= 1

    def frames(self, connection: str) -> list[bytes]:
        """What a connection got."""
        return [frame for _, frame in self.got[connection]]

    def _latency(self) -> float:
        low, high = self._latency_s
        latency = self._random.uniform(low, high)
        return latency * 5 if self._random.random() < 0.01 else latency

    def _answer(
        self,
        connection: str,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        fault: str | None,
    ) -> HttpResponse:
        now = self._clock.monotonic()
        if self._checks:
            try:
                verify(
                    self._keys,
                    method=method,
                    path=url.removeprefix(f"https://{HOST}"),
                    query="",
                    fields=[("host", HOST), *headers],
                    body=body,
                    service="execute-api",
                    now_s=self._clock.now_ms() / 1_000,
                )
            except Rejected as rejected:
                return self._refusal(403, rejected.type, rejected.message)
        if not self._bucket.take(now):
            return self._refusal(429, "LimitExceededException", "Too Many Requests")
        if fault == "500":
            return self._refusal(500, "InternalServerErrorException", "Internal server error")
        if connection in self.forbidden:
            return self._refusal(403, "ForbiddenException", "Forbidden")
        if len(body) > 131_072:
            return self._refusal(413, "PayloadTooLargeException", "Too large")
        if connection in self.gone:
            return self._refusal(410, "GoneException", "")
        if now < self.slow.get(connection, 0.0):
            return self._refusal(429, "LimitExceededException", "The client does not read")
        self.got[connection].append((now, body))
        return HttpResponse(200, [], b"")

    def _refusal(self, status: int, name: str, message: str) -> HttpResponse:
        date = formatdate(self._clock.now_ms() / 1_000, usegmt=True)
        fields = [(b"x-amzn-errortype", name.encode()), (b"x-amzn-requestid", b"R1"), (b"date", date.encode())]
        return HttpResponse(status, fields, f'{{"message":"{message}"}}'.encode() if message else b"")
