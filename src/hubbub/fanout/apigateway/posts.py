"""Posts to `@connections`: one signed request for each recipient, what its answer means, and what is tried again.

Sources: "Use @connections commands in your backend service" in API Gateway's developer guide; botocore's model of
`apigatewaymanagementapi` for the errors' names.
"""

from __future__ import annotations

import enum
import hashlib
import logging
import random
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Protocol
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from hubbub.aws.credentials import Provider
from hubbub.aws.http import Broken, HttpResponse, Unreached
from hubbub.aws.signing import Signer
from hubbub.clock import Clock
from hubbub.model import ConnectionId
from hubbub.sigv4 import Credentials

logger = logging.getLogger(__name__)

SERVICE = "execute-api"

MAX_POST_BYTES = 131_072
"""The longest message that a post may have; longer ones are refused with 413, so they are not sent at all."""

TRY_S = 5.0
"""How long one try may take."""

BACKOFF_S, MAX_BACKOFF_S = 0.1, 2.0
"""The longest wait before the second try, which doubles with each, and the longest of all."""

SKEW_S = 30.0
"""How far the gateway's clock may be from ours before we go by the gateway's."""

LOGGED_PER_S = 20
"""How many refusals are logged one by one in a second; the rest are counted."""

NOTICE_S = 1.0
"""How long it is tried to say with what code a connection is closed, before it is closed without."""

CLOSING = "closing"
"""The code of the notice that says with what a connection would be closed, where the gateway has no codes."""


class Outcome(enum.Enum):
    """What became of a post."""

    DELIVERED = "delivered"
    GONE = "gone"  # there is no such connection any more: forget it
    REFUSED = "refused"  # 400, 403, 413: it would be refused again
    THROTTLED = "throttled"  # 429: the client does not read, or the account's quota is used up
    FAILED = "failed"  # 5xx, or no answer: the client may have it or not

    @property
    def may_pass(self) -> bool:
        """Whether the same post may succeed later."""
        return self in (Outcome.THROTTLED, Outcome.FAILED)


class Http(Protocol):
    """What carries posts: `hubbub.aws.http.HttpClient`."""

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
        """Send a request; raises `Unreached` or `Broken`."""
        ...


class Watch(Protocol):
    """Who is told how posts fare, to tell one slow client from a quota that is used up: `Pace`."""

    def accepted(self) -> None:
        """A post was not throttled."""
        ...

    async def throttled(self, connection: ConnectionId) -> None:
        """A post to this connection was answered with 429."""
        ...


class Frame:
    """A text that is posted, perhaps to many: its hash is computed once."""

    __slots__ = ("body", "digest")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.digest = hashlib.sha256(body).hexdigest()

    def __repr__(self) -> str:
        return f"<Frame of {len(self.body)} bytes>"


class Posts:
    """Posts to, closes and looks for connections of one API's stage.

    Args:
        http: what carries the requests.
        endpoint: the stage's address, as `https://{domainName}/{stage}`.
        region: which requests are signed for.
        credentials: whose requests these are.
        clock: time.
        watch: who is told how posts fare; None for nobody.
        patience_s: how long a post is tried before it is given up.
        close_codes: whether the gateway takes a code and a reason to close with, as Hubbub's own does. API Gateway
            always closes with 1000; there the client is sent a notice with the code before.

    Raises:
        ValueError: the endpoint is none.

    """

    def __init__(
        self,
        http: Http,
        endpoint: str,
        *,
        region: str,
        credentials: Provider,
        clock: Clock,
        watch: Watch | None = None,
        patience_s: float = 5.0,
        close_codes: bool = False,
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"endpoint: expected an address such as https://host/stage, got {endpoint!r}")
        self._http = http
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._prefix = f"{quote(parts.path.rstrip('/'), safe='/%')}/@connections/"
        self._host = parts.netloc if parts.port not in _OWN_PORTS[parts.scheme] else str(parts.hostname)
        self._region = region
        self._credentials = credentials
        self._clock = clock
        self._watch = watch
        self._close_codes = close_codes
        self._skew_s = 0.0  # how far the gateway's clock is ahead of ours
        self._signer: Signer | None = None  # for the credentials of now; None before the first request
        self._logged: tuple[int, int] = (0, 0)  # a second, and how many refusals were met in it
        self.patience_s = patience_s

    def __repr__(self) -> str:
        return f"<Posts to {self._origin}{self._prefix}>"

    async def post(self, connection: ConnectionId, frame: Frame, *, patience_s: float | None = None) -> Outcome:
        """Post until it is taken, refused for good, or `patience_s` is over; 0 for a single try."""
        return await self.insist(connection, frame, await self.attempt(connection, frame), patience_s=patience_s)

    async def insist(
        self,
        connection: ConnectionId,
        frame: Frame,
        outcome: Outcome,
        *,
        patience_s: float | None = None,
        backoff_s: float = BACKOFF_S,
    ) -> Outcome:
        """Go on trying after a try that had this outcome, at first after at most `backoff_s`, then less and less often.

        It ends when it is taken or refused for good, or `patience_s` is over.
        """
        ends_at = self._clock.monotonic() + (self.patience_s if patience_s is None else patience_s)
        bound_s = backoff_s
        while outcome.may_pass:
            wait_s = random.random() * bound_s  # noqa: S311  no secret: spreads out those who wait
            if self._clock.monotonic() + wait_s >= ends_at:
                return outcome
            await self._clock.sleep(wait_s)
            bound_s = min(2 * bound_s, MAX_BACKOFF_S)
            outcome = await self.attempt(connection, frame, is_again=True)
        return outcome

    async def attempt(self, connection: ConnectionId, frame: Frame, *, is_again: bool = False) -> Outcome:
        """Post once; what is refused because our clock is wrong is posted again by the gateway's clock.

        The watch is not told of a post that `is_again` tried: who was throttled once may well be twice.
        """
        if len(frame.body) > MAX_POST_BYTES:
            logger.error("a message of %d bytes cannot be posted: at most %d", len(frame.body), MAX_POST_BYTES)
            return Outcome.REFUSED
        try:
            skew_s = self._skew_s
            answer = await self._post(connection, frame)
            if answer.status == 403 and self._was_off(skew_s, answer):
                answer = await self._post(connection, frame)
        except (Unreached, Broken) as error:
            logger.info("a post to %s had no answer: %s", connection, error)
            return Outcome.FAILED
        return await self._meant(connection, answer, is_watched=not is_again)

    async def close(self, connection: ConnectionId, code: int, reason: str) -> Outcome:
        """Close a connection, and let its client know with what code.

        A gateway without codes closes with 1000, so the client is sent a notice before; it takes the notice's `close`
        for the code.
        """
        query = {"code": str(code), "reason": reason} if self._close_codes else {}
        if not self._close_codes:
            notice = {"type": "notice", "code": CLOSING, "close": code, "message": reason}
            said = await self.post(connection, Frame(msgspec.json.encode(notice)), patience_s=NOTICE_S)
            if said is Outcome.GONE:
                return Outcome.GONE
        return await self._called("DELETE", connection, query)

    async def look(self, connection: ConnectionId, *, patience_s: float | None = None) -> Outcome:
        """Whether a connection is there: `DELIVERED` if it is, `GONE` if not; `patience_s` as of `post`."""
        return await self._called("GET", connection, {}, patience_s=patience_s)

    async def _post(self, connection: ConnectionId, frame: Frame) -> HttpResponse:
        target = f"{self._prefix}{quote(connection, safe='')}"
        signer = self._signer_for(await self._credentials.get())
        return await self._http.request(
            "POST",
            f"{self._origin}{target}",
            headers=signer.sign("POST", target, (), frame.body, self._now_s(), digest=frame.digest),
            body=frame.body,
            timeout_s=TRY_S,
        )

    async def _called(
        self, method: str, connection: ConnectionId, query: dict[str, str], *, patience_s: float | None = None
    ) -> Outcome:
        """What comes of a request that is not a post, tried as long as one."""
        ends_at = self._clock.monotonic() + (self.patience_s if patience_s is None else patience_s)
        bound_s = BACKOFF_S
        while True:
            try:
                skew_s = self._skew_s
                answer = await self._call(method, connection, query)
                if answer.status == 403 and self._was_off(skew_s, answer):
                    answer = await self._call(method, connection, query)
                outcome = await self._meant(connection, answer, is_watched=False)
            except (Unreached, Broken) as error:
                logger.info("%s %s had no answer: %s", method, connection, error)
                outcome = Outcome.FAILED
            wait_s = random.random() * bound_s  # noqa: S311  no secret
            if not outcome.may_pass or self._clock.monotonic() + wait_s >= ends_at:
                return outcome
            await self._clock.sleep(wait_s)
            bound_s = min(2 * bound_s, MAX_BACKOFF_S)

    async def _call(self, method: str, connection: ConnectionId, query: dict[str, str]) -> HttpResponse:
        target = f"{self._prefix}{quote(connection, safe='')}"
        if query:
            target = f"{target}?{urlencode(query, quote_via=quote)}"
        signer = self._signer_for(await self._credentials.get())
        return await self._http.request(
            method,
            f"{self._origin}{target}",
            headers=signer.sign(method, target, (), b"", self._now_s()),
            timeout_s=TRY_S,
            repeat=True,
        )

    def _signer_for(self, credentials: Credentials) -> Signer:
        if self._signer is None or self._signer.credentials is not credentials:
            self._signer = Signer(
                credentials, origin=self._origin, host=self._host, service=SERVICE, region=self._region
            )
        return self._signer

    async def _meant(self, connection: ConnectionId, answer: HttpResponse, *, is_watched: bool) -> Outcome:
        """What an answer means; refusals are logged, and the watch is told of what is about quotas."""
        status = answer.status
        watch = self._watch if is_watched else None
        if status == 429:
            if watch is not None:
                await watch.throttled(connection)
            return Outcome.THROTTLED
        if watch is not None:
            watch.accepted()
        if 200 <= status < 300:
            return Outcome.DELIVERED
        if status == 410:
            return Outcome.GONE
        if status >= 500 or status == 408:
            logger.info("a post to %s was answered with %d", connection, status)
            return Outcome.FAILED
        self._log_refusal(connection, answer)
        return Outcome.REFUSED

    def _log_refusal(self, connection: ConnectionId, answer: HttpResponse) -> None:
        second = int(self._clock.monotonic())
        before, count = self._logged
        if before != second:
            if count > LOGGED_PER_S:
                logger.warning("%d more posts were refused", count - LOGGED_PER_S)
            count = 0
        self._logged = (second, count + 1)
        if count < LOGGED_PER_S:
            headers = answer.headers
            logger.warning(
                "a post was refused: status %d, %s",
                answer.status,
                headers.get("x-amzn-errortype", "of no type"),
                extra={
                    "connection_id": connection,
                    "request_id": headers.get("x-amzn-requestid", ""),
                    "status": answer.status,
                    "said": answer.body[:500].decode("utf-8", "replace"),
                },
            )

    def _now_s(self) -> float:
        """The gateway's time of day."""
        return self._clock.now_ms() / 1_000 + self._skew_s

    def _was_off(self, skew_s: float, answer: HttpResponse) -> bool:
        """Whether a refusal can have come of a clock that was off, by which the request was signed; it is set then.

        Args:
            skew_s: how far the gateway's clock was taken to be ahead.
            answer: the refusal.

        """
        try:
            theirs_s = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
        except ValueError:
            return False
        is_s = theirs_s - self._clock.now_ms() / 1_000
        if abs(is_s - skew_s) < SKEW_S:
            return False
        if abs(is_s - self._skew_s) >= SKEW_S:  # else another post has found it out meanwhile
            logger.warning("our clock is %.0f s off the gateway's: signing by the gateway's", -is_s)
            self._skew_s = is_s
        return True


_OWN_PORTS = {"http": (None, 80), "https": (None, 443)}
