"""AWS in place of a socket: answers as a test tells it, in no time, and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from doubles import FakeClock
from hubbub.aws.credentials import Fixed
from hubbub.aws.http import HttpResponse
from hubbub.aws.service import Service
from hubbub.sigv4 import Credentials, Keys, Signer, verify

OWN = Credentials("AKIDOWN", "a-secret", "a-token")
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
"""What `FakeClock` begins with."""

DATE_S = 1_700_000_000


class Asked:
    """A request."""

    def __init__(self, method: str, url: str, headers: Sequence[tuple[str, str]], body: bytes, repeat: bool) -> None:
        self.method = method
        self.url = url
        self.headers = dict(headers)
        self.body = body
        self.repeat = repeat

    @property
    def document(self) -> dict[str, Any]:
        """Its body, which is JSON."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    def signer(self, service: str, now_s: float = DATE_S) -> Signer:
        """Who has signed it."""
        parts = urlsplit(self.url)
        return verify(
            Keys({OWN.access_key: OWN.secret_key}),
            method=self.method,
            path=parts.path,
            query=parts.query,
            fields=[("Host", parts.netloc), *self.headers.items()],
            body=self.body,
            service=service,
            now_s=now_s,
        )


class Wire:
    """In place of an HTTP client: answers in turn, the last one again and again; exceptions are raised."""

    def __init__(self, *answers: HttpResponse | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []

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
        assert timeout_s > 0
        self.asked.append(Asked(method, url, headers, body, repeat))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock(FakeClock):
    """A clock that waits no longer than it must, and writes down how long it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._pass(self._monotonic + seconds)


def said(status: int, document: Any = None, **headers: str) -> HttpResponse:
    """An answer with a JSON document; underscores in names of headers are hyphens."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return HttpResponse(status, fields, b"" if document is None else json.dumps(document).encode())


def refused(name: str, status: int = 400, **headers: str) -> HttpResponse:
    """An error as DynamoDB has it."""
    return said(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{name}", "message": f"it is {name}"}, **headers)


def service(wire: Wire, name: str = "dynamodb", clock: Clock | None = None, **options: Any) -> Service:
    """A service on a wire."""
    given = {"region": "eu-west-1", "credentials": Fixed(OWN), "environment": {}, "clock": clock or Clock()}
    return Service(wire, name, **{**given, **options})
