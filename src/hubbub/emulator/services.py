"""Calls to AWS's services wherever they are emulated: signed, cancellable, with a time-out.

Not boto3: its calls cannot be cancelled, and a long poll would hold a thread, and the end of everything, for 20 s.
Source: the protocols `json` and `query` in the developer guides of SQS, DynamoDB, EventBridge and SNS.
"""

from __future__ import annotations

import contextlib
import json
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import httpx

from hubbub.sigv4 import Credentials, sign

Document = dict[str, Any]
"""A service's parameters or answer, as they are in JSON. Any: each operation has its own shape."""


class _Json(NamedTuple):
    """A service that speaks JSON: what its `X-Amz-Target` begins with, its JSON version, the name it is signed for."""

    target: str
    version: str
    signed_as: str


_JSON = {
    "dynamodb": _Json("DynamoDB_20120810", "1.0", "dynamodb"),
    "dynamodbstreams": _Json("DynamoDBStreams_20120810", "1.0", "dynamodb"),
    "events": _Json("AWSEvents", "1.1", "events"),
    "sqs": _Json("AmazonSQS", "1.0", "sqs"),
}

_QUERY = {"sns": "2010-03-31"}
"""Services that take forms and answer with XML, and the version of each."""

_PLACES = {"dynamodbstreams": ("streams.dynamodb", "dynamodb"), "events": ("eventbridge",)}
"""What else the address of a service is found under, first to last: its other names, and whose address it shares."""


class ServiceFailed(Exception):
    """A service refused a call, or could not be reached.

    Attributes:
        code: the service's own, such as `ResourceNotFoundException`, or `Unreachable`, or `NoEndpoint`.

    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code


class ServiceClient:
    """Calls SQS, SNS, DynamoDB, its streams, and EventBridge.

    Args:
        endpoints: where the services are, by their name in ARNs; `dynamodbstreams` is where `dynamodb` is by
            default, and `*` is where all others are.
        region: of calls that do not say which.
        credentials: what calls are signed with.
        timeout_s: how long a call may take, seconds; longer by as much as a call itself says that it waits.

    """

    def __init__(
        self,
        endpoints: Mapping[str, str],
        *,
        region: str = "us-east-1",
        credentials: Credentials = Credentials("test", "test"),  # noqa: B008  immutable
        timeout_s: float = 10.0,
    ) -> None:
        self._endpoints = dict(endpoints)
        self._region = region
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def call(
        self,
        service: str,
        operation: str,
        parameters: Document,
        *,
        region: str | None = None,
        wait_s: float = 0.0,
    ) -> Document:
        """Call an operation and return its answer.

        Args:
            service: its name in ARNs, or `dynamodbstreams`.
            operation: such as `SendMessage`.
            parameters: as in the service's API reference; for SNS a flat form.
            region: None for the client's own.
            wait_s: how long the service may wait before it answers, beside the time-out.

        Raises:
            ServiceFailed: it refused, or could not be reached in time.

        """
        url = self._url(service)
        headers, body, signed_as = _request(service, operation, parameters)
        headers |= sign(
            self._credentials,
            method="POST",
            url=url,
            headers=headers,
            body=body,
            service=signed_as,
            region=region or self._region,
            now_s=time.time(),
        )
        timeout = httpx.Timeout(self._timeout_s, read=self._timeout_s + wait_s, pool=None)
        try:
            response = await self._client.post(url, headers=headers, content=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise ServiceFailed("Unreachable", f"{service} at {url}: {error or type(error).__name__}") from error
        return _answer(service, operation, response)

    def _url(self, service: str) -> str:
        names = (service, *_PLACES.get(service, ()), "*")
        url = next((self._endpoints[name] for name in names if name in self._endpoints), None)
        if url is None:
            known = ", ".join(sorted(self._endpoints)) or "none"
            raise ServiceFailed("NoEndpoint", f"no endpoint is known for {service}; there are: {known}")
        return url if url.endswith("/") else f"{url}/"


def _request(service: str, operation: str, parameters: Document) -> tuple[dict[str, str], bytes, str]:
    """Headers, body, and the service that the request is signed for."""
    if (version := _QUERY.get(service)) is not None:
        body = urlencode({"Action": operation, "Version": version, **parameters}).encode()
        return {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, body, service
    if (spoken := _JSON.get(service)) is None:
        raise ServiceFailed("NoEndpoint", f"{service} is none of the services that can be called here")
    headers = {
        "Content-Type": f"application/x-amz-json-{spoken.version}",
        "X-Amz-Target": f"{spoken.target}.{operation}",
    }
    return headers, json.dumps(parameters).encode(), spoken.signed_as


def _answer(service: str, operation: str, response: httpx.Response) -> Document:
    if service in _QUERY:
        return _answer_in_xml(operation, response)
    document: Document = {}
    with contextlib.suppress(ValueError):  # no JSON is what a proxy or a wrong address says; the status tells
        document = response.json() if response.content else {}
    if response.is_success:
        return document
    query_code = response.headers.get("x-amzn-query-error", "").partition(";")[0]
    code = str(document.get("__type") or query_code or response.status_code).rpartition("#")[2]
    raise ServiceFailed(code, str(document.get("message") or document.get("Message") or ""))


def _answer_in_xml(operation: str, response: httpx.Response) -> Document:
    try:
        root = ElementTree.fromstring(response.content)  # noqa: S314  from an endpoint that the user named
    except ElementTree.ParseError:
        raise ServiceFailed(str(response.status_code), response.text[:200]) from None
    found = {element.tag.rpartition("}")[2]: element.text or "" for element in root.iter()}
    if response.is_success:
        return found
    raise ServiceFailed(found.get("Code") or str(response.status_code), found.get("Message") or operation)
