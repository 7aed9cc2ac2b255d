"""Signed calls to one of AWS's services: where it is, what is tried again, and what its refusals are called.

Two kinds: JSON calls that name their operation in `X-Amz-Target` (DynamoDB, SQS, SSM, Secrets Manager), and REST calls
(Lambda's Invoke, `@connections`). Sources: "AWS JSON 1.0 protocol" in Smithy's documents; "Service-specific endpoints"
and "Retry behavior" in the AWS SDKs and tools reference; "Error handling with DynamoDB" in its developer guide.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hubbub.aws.credentials import Provider
from hubbub.aws.http import Broken, HttpClient, HttpResponse, Unreached, split
from hubbub.aws.pool import parts_of
from hubbub.aws.signing import Signer
from hubbub.clock import Clock, SystemClock
from hubbub.sigv4 import Credentials

BACKOFF_S = 0.05
"""The longest wait before the second try; it doubles with each."""

MAX_BACKOFF_S = 2.0

SKEW_S = 30.0
"""How far AWS's clock may be from what we take it for before we go by AWS's."""


_LEAST_S = 0.01
"""How long a try may take at least."""

_NOTHING = HttpResponse(0, (), b"")
"""In place of an answer."""


class _Kind(NamedTuple):
    """What there is to know of a service.

    Attributes:
        word: its service id in names of variables.
        target: what stands before the operation in `X-Amz-Target`; empty where that is not used.
        version: of the JSON protocol.
        signing: its name in signatures.

    """

    word: str
    target: str = ""
    version: str = ""
    signing: str = ""


_KINDS = {
    "dynamodb": _Kind("DYNAMODB", "DynamoDB_20120810", "1.0"),
    "sqs": _Kind("SQS", "AmazonSQS", "1.0"),
    "ssm": _Kind("SSM", "AmazonSSM", "1.1"),
    "secretsmanager": _Kind("SECRETS_MANAGER", "secretsmanager", "1.1"),
    "lambda": _Kind("LAMBDA"),
    "execute-api": _Kind("APIGATEWAYMANAGEMENTAPI", signing="execute-api"),
}

_THROTTLES = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)

_NOT_DONE = frozenset(
    {"TransactionInProgressException", "TransactionConflictException", "ReplicatedWriteConflictException"}
)
"""Refused because of something that is under way; worth another try, and surely not done."""

_CLOCK = frozenset(
    {
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
"""What AWS says when our clock is wrong, and sometimes when something else is."""


class AwsError(Exception):
    """A call was not answered as hoped.

    Attributes:
        type: AWS's name for it, as `ThrottlingException`; `Unreached` or `Broken` where there was no answer.
        message: what was said about it.
        status: the HTTP status; None where there was no answer.
        is_throttle: whether it was too much at a time.
        is_in_doubt: whether the call may have been done all the same.
        document: the answer's JSON, if that is an object.

    """

    def __init__(
        self,
        type: str,  # noqa: A002  AWS's word
        message: str,
        *,
        status: int | None = None,
        is_in_doubt: bool = False,
        document: Mapping[str, Any] | None = None,  # Any: JSON
    ) -> None:
        super().__init__(f"{type}: {message}")
        self.type = type
        self.message = message
        self.status = status
        self.is_throttle = type in _THROTTLES or status == 429
        self.is_in_doubt = is_in_doubt
        self.document: dict[str, Any] = dict(document or {})  # Any: JSON


class Unanswered(AwsError):
    """There was no answer in time; `is_in_doubt` says whether the call may have been done."""


class Service:
    """One service in one region.

    Args:
        http: what carries the calls; not closed here.
        name: as in the service's address: `dynamodb`, `sqs`, `ssm`, `secretsmanager`, `lambda`, `execute-api`.
        region: such as `us-east-1`.
        credentials: whose calls these are.
        endpoint: its address; None for that in `AWS_ENDPOINT_URL_<SERVICE>` or `AWS_ENDPOINT_URL`, else AWS's own.
        signing_name: the service's name in signatures, where it is another one.
        try_s: how long one try may take.
        environment: where the variables are; that of this process by default.
        clock: time; this machine's by default.

    Raises:
        ValueError: the service has no address that is known.

    """

    def __init__(
        self,
        http: HttpClient,
        name: str,
        *,
        region: str,
        credentials: Provider,
        endpoint: str | None = None,
        signing_name: str | None = None,
        try_s: float = 3.0,
        environment: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._kind = _KINDS.get(name) or _Kind(name.upper().replace("-", "_"))
        self._http = http
        self._name = name
        self._region = region
        self._credentials = credentials
        self._endpoint = _endpoint(endpoint, name, self._kind.word, region, environment)
        self._signing_name = signing_name or self._kind.signing or name
        self._origin, prefix = split(self._endpoint)
        self._host = parts_of(self._origin)[1]
        self._prefix = prefix.rstrip("/")
        self._signer: Signer | None = None  # for the credentials of now; None before the first call
        self._try_s = try_s
        self._clock = clock or SystemClock()
        self._skew_s = 0.0  # how far AWS's clock is ahead of ours
        self._json = f"application/x-amz-json-{self._kind.version}"

    def __repr__(self) -> str:
        return f"<Service {self._name} at {self._endpoint}>"

    @property
    def endpoint(self) -> str:
        """Its address."""
        return self._endpoint

    @property
    def clock(self) -> Clock:
        """The time that its waits go by."""
        return self._clock

    async def call(
        self,
        operation: str,
        request: Mapping[str, Any],  # Any: JSON
        *,
        deadline_s: float = 10.0,
        repeat: bool = True,
    ) -> dict[str, Any]:  # Any: JSON
        """Do an operation of a service that speaks AWS's JSON protocol, and return what it says.

        Args:
            operation: such as `GetItem`.
            request: its input.
            deadline_s: until when tries are made.
            repeat: whether doing it twice does what doing it once does; else it is not tried again where it may have
                been done.

        Raises:
            AwsError: the service's refusal; `Unanswered` if there was none.
            NoCredentials: there are none to sign with.
            ValueError: the service has no such protocol.

        """
        if not self._kind.target:
            raise ValueError(f"{self._name}: expected one of AWS's JSON services, for which this is known")
        headers = (("Content-Type", self._json), ("X-Amz-Target", f"{self._kind.target}.{operation}"))
        answer = await self._tried("POST", "/", headers, msgspec.json.encode(request), deadline_s, repeat)
        if not answer.body:
            return {}
        try:
            return msgspec.json.decode(answer.body, type=dict[str, Any])  # Any: JSON
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            said = f"{self._endpoint}: the answer is not {operation}'s: {error}"
            raise Unanswered("Broken", said, is_in_doubt=True) from error

    async def rest(
        self,
        method: str,
        path: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        deadline_s: float = 10.0,
        repeat: bool = True,
    ) -> HttpResponse:
        """Do a call that is a method and a path, and return its answer.

        Args:
            method: such as `POST`.
            path: from the endpoint on, with its query, percent-encoded.
            headers: beside those of the signature.
            body: all of it.
            deadline_s, repeat: as `call`.

        Raises:
            AwsError: the status is 400 or more; `Unanswered` if there was no answer.
            NoCredentials: there are none to sign with.

        """
        return await self._tried(method, path, headers, body, deadline_s, repeat)

    async def send(
        self,
        method: str,
        path: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        timeout_s: float,
        repeat: bool = False,
    ) -> HttpResponse:
        """Sign and send once, and return the answer whatever its status: for callers with a policy of their own.

        Raises:
            Unreached, Broken: there was none; as `HttpClient.request`.
            NoCredentials: there are none to sign with.

        """
        target = f"{self._prefix}{path}"
        signer = self._signer_for(await self._credentials.get())
        signed = signer.sign(method, target, headers, body, self._clock.now_ms() / 1_000 + self._skew_s)
        return await self._http.request(
            method, f"{self._origin}{target}", headers=signed, body=body, timeout_s=timeout_s, repeat=repeat
        )

    def _signer_for(self, credentials: Credentials) -> Signer:
        if self._signer is None or self._signer.credentials is not credentials:
            self._signer = Signer(
                credentials, origin=self._origin, host=self._host, service=self._signing_name, region=self._region
            )
        return self._signer

    async def pause(self, tries: int, ends_at: float, undone: str) -> None:
        """Wait before something is tried again, longer each time.

        Args:
            tries: how many there have been before the last one.
            ends_at: the clock's monotonic time after which there is no other.
            undone: what is said if there is none.

        Raises:
            AwsError: the time is over; its type is `ThrottlingException`.

        """
        wait_s = _wait_s(tries)
        if self._clock.monotonic() + wait_s >= ends_at:
            raise AwsError("ThrottlingException", undone)
        await self._clock.sleep(wait_s)

    async def _tried(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        deadline_s: float,
        repeat: bool,
    ) -> HttpResponse:
        """The first answer that is none of those worth another try."""
        ends_at = self._clock.monotonic() + deadline_s
        tries, has_set_clock, was_in_doubt = 0, False, False
        while True:
            timeout_s = max(_LEAST_S, min(self._try_s, ends_at - self._clock.monotonic()))
            answer, failure = await self._attempt(method, path, headers, body, timeout_s, repeat)
            if failure is None:
                return answer
            if not has_set_clock and failure.type in _CLOCK and self._set_clock(answer):
                has_set_clock = True
                continue
            was_in_doubt = failure.is_in_doubt = was_in_doubt or failure.is_in_doubt
            wait_s = _wait_s(tries)
            if not _worth_another(failure, repeat) or self._clock.monotonic() + wait_s >= ends_at:
                raise failure
            await self._clock.sleep(wait_s)
            tries += 1

    async def _attempt(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        timeout_s: float,
        repeat: bool,
    ) -> tuple[HttpResponse, AwsError | None]:
        """One try: its answer, and what is wrong if it is no success."""
        try:
            answer = await self.send(method, path, headers=headers, body=body, timeout_s=timeout_s, repeat=repeat)
        except (Unreached, Broken) as error:
            in_doubt = isinstance(error, Broken)
            kind = "Broken" if in_doubt else "Unreached"
            failure = Unanswered(kind, f"{self._endpoint}: {error}", is_in_doubt=in_doubt)
            failure.__cause__ = error
            return _NOTHING, failure
        if answer.status < 400:
            return answer, None
        refused = refusal(answer)
        refused.is_in_doubt = refused.is_in_doubt or answer.is_second
        return answer, refused

    def _set_clock(self, answer: HttpResponse) -> bool:
        """Go by AWS's clock from now on, if that is not what ours says."""
        from email.utils import parsedate_to_datetime  # seldom needed, and slow to load where functions start cold

        try:
            theirs_s = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
        except ValueError:
            return False
        skew_s = theirs_s - self._clock.now_ms() / 1_000
        if abs(skew_s - self._skew_s) < SKEW_S:
            return False
        self._skew_s = skew_s
        return True


def refusal(answer: HttpResponse) -> AwsError:
    """The error that an answer tells of.

    Its name is in `x-amzn-errortype`, up to a `:`, or in the document's `__type` or `code`, after a `#`; what is said
    about it in the document's `message` or `Message`.
    """
    try:
        document: Any = msgspec.json.decode(answer.body) if answer.body else {}  # Any: JSON
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = {}
    known: dict[str, Any] = document if isinstance(document, dict) else {}  # Any: JSON
    named = answer.headers.get("x-amzn-errortype") or known.get("__type") or known.get("code") or str(answer.status)
    name = str(named).partition(":")[0].rpartition("#")[2]
    said = str(known.get("message") or known.get("Message") or f"HTTP status {answer.status}")
    in_doubt = answer.status >= 500 and name not in _THROTTLES
    return AwsError(name, said, status=answer.status, is_in_doubt=in_doubt, document=known)


def _worth_another(failure: AwsError, repeat: bool) -> bool:
    if failure.is_in_doubt and not repeat:
        return False
    return (
        failure.is_throttle
        or isinstance(failure, Unanswered)
        or failure.type in _NOT_DONE
        or (failure.status is not None and failure.status >= 500)
    )


def _wait_s(tries: int) -> float:
    """How long to wait after a try that failed: any time up to a bound that doubles ("full jitter")."""
    most_s = min(BACKOFF_S * 2.0 ** min(tries, 16), MAX_BACKOFF_S)
    return random.random() * most_s  # noqa: S311  no secret


def _endpoint(given: str | None, name: str, word: str, region: str, environment: Mapping[str, str] | None) -> str:
    """The service's address, without a slash at its end."""
    known = os.environ if environment is None else environment
    if given is None and known.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() != "true":
        given = known.get(f"AWS_ENDPOINT_URL_{word}") or known.get("AWS_ENDPOINT_URL")
    if given:
        return given.rstrip("/")
    if name == "execute-api":
        raise ValueError("endpoint: expected that of the API's stage, https://host/stage; there is no other")
    return f"https://{name}.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
