"""What a function behind an HTTP API is told of a request, and the response that is made of what it returns.

Both payload formats, 2.0 and 1.0. A body is text for `text/*`, JSON, XML and JavaScript, and base64 for all else, also
where no type is given, as AWS was seen to do it (the guide says "binary" and lists none).
Source: developer guide, "Create AWS Lambda proxy integrations for HTTP APIs in API Gateway".
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

Json = dict[str, Any]  # Any: JSON

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What a header may be called (RFC 9110, section 5.6.2)."""

_TEXT_TYPES = ("application/json", "application/xml", "application/javascript")


class HttpRequest(NamedTuple):
    """A request as it came.

    Attributes:
        method: in capitals.
        path: as it was written, with the stage in it where the stage has a name.
        query: what was after the question mark, as it was written.
        headers: in their order, with names in small letters.
        body: all of it.
        protocol: `HTTP/1.1`.
        source_ip: the client's address.

    """

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    protocol: str
    source_ip: str

    def header(self, name: str) -> str:
        """The values of a header with commas between; empty where there is none."""
        return ",".join(value for key, value in self.headers if key == name)


class Place(NamedTuple):
    """Where in an API a request is, and when.

    Attributes:
        account, api: the API's.
        domain: its host.
        stage, variables: the stage and its variables.
        route: the route's key.
        parameters: of the path.
        request_id: of this request.
        time, time_ms: in common log format and epoch milliseconds.

    """

    account: str
    api: str
    domain: str
    stage: str
    variables: Mapping[str, str]
    route: str
    parameters: Mapping[str, str]
    request_id: str
    time: str
    time_ms: int


class NoResponse(Exception):
    """What a function returned is no response."""


class HttpResponse(NamedTuple):
    """A response: its status, its headers in order, its body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def said(status: int, words: str) -> HttpResponse:
    """What API Gateway itself says."""
    return HttpResponse(status, [("content-type", "application/json")], msgspec.json.encode({"message": words}))


def event(request: HttpRequest, place: Place, version: str) -> Json:
    """What a function gets, in a payload format."""
    return _event_2(request, place) if version == "2.0" else _event_1(request, place)


def _event_2(request: HttpRequest, place: Place) -> Json:
    cookies = [each.strip() for key, value in request.headers if key == "cookie" for each in value.split(";")]
    query = _joined(parse_qsl(request.query, keep_blank_values=True))
    found: Json = {
        "version": "2.0",
        "routeKey": place.route,
        "rawPath": request.path,
        "rawQueryString": request.query,
        "headers": _joined((key, value) for key, value in request.headers if key != "cookie"),
        "requestContext": {
            "accountId": place.account,
            "apiId": place.api,
            "domainName": place.domain,
            "domainPrefix": place.domain.partition(".")[0],
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": request.protocol,
                "sourceIp": request.source_ip,
                "userAgent": request.header("user-agent"),
            },
            "requestId": place.request_id,
            "routeKey": place.route,
            "stage": place.stage,
            "time": place.time,
            "timeEpoch": place.time_ms,
        },
    }
    found |= {"cookies": cookies} if cookies else {}
    found |= {"queryStringParameters": query} if query else {}
    found |= {"pathParameters": dict(place.parameters)} if place.parameters else {}
    found |= {"stageVariables": dict(place.variables)} if place.variables else {}
    return found | _body(request, absent={})


def _event_1(request: HttpRequest, place: Place) -> Json:
    query = parse_qsl(request.query, keep_blank_values=True)
    resource = place.route.partition(" ")[2] or place.route
    return {
        "version": "1.0",
        "resource": resource,
        "path": request.path,
        "httpMethod": request.method,
        "headers": dict(request.headers),
        "multiValueHeaders": _lists(request.headers),
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": _lists(query) or None,
        "requestContext": {
            "accountId": place.account,
            "apiId": place.api,
            "domainName": place.domain,
            "domainPrefix": place.domain.partition(".")[0],
            "extendedRequestId": place.request_id,
            "httpMethod": request.method,
            "identity": {"sourceIp": request.source_ip, "userAgent": request.header("user-agent")},
            "path": request.path,
            "protocol": request.protocol,
            "requestId": place.request_id,
            "requestTime": place.time,
            "requestTimeEpoch": place.time_ms,
            "resourceId": place.route,
            "resourcePath": resource,
            "stage": place.stage,
        },
        "pathParameters": dict(place.parameters) or None,
        "stageVariables": dict(place.variables) or None,
        **_body(request, absent={"body": None}),
    }


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: ",".join(values) for name, values in _lists(pairs).items()}


def _lists(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _body(request: HttpRequest, absent: Json) -> Json:
    if not request.body:
        return {**absent, "isBase64Encoded": False}
    kind = request.header("content-type").partition(";")[0].strip().lower()
    if (kind.startswith("text/") or kind in _TEXT_TYPES) and not request.header("content-encoding"):
        return {"body": request.body.decode("utf-8", "replace"), "isBase64Encoded": False}
    return {"body": base64.b64encode(request.body).decode(), "isBase64Encoded": True}


def response(payload: bytes, version: str) -> HttpResponse:
    """The response that a function's payload means in a format.

    In 2.0 what has no `statusCode` is itself the body of a 200, as JSON, or as it is where it is text.

    Raises:
        NoResponse: it means none.

    """
    try:
        found = msgspec.json.decode(payload or b"null")
    except msgspec.DecodeError as error:
        raise NoResponse(f"the function returned what is no JSON: {error}") from error
    if isinstance(found, dict) and "statusCode" in found:
        return _full(found, version)
    if version == "1.0":
        raise NoResponse(f"expected a statusCode from the function in format 1.0, got {_short(found)}")
    body = found.encode() if isinstance(found, str) else payload or b"null"
    return HttpResponse(200, [("content-type", "application/json")], body)


def _full(found: Json, version: str) -> HttpResponse:
    headers = list(_headers(found.get("headers")))
    many = found.get("multiValueHeaders") if version == "1.0" else None
    if isinstance(many, dict):
        headers = [each for each in headers if each[0] not in {_name(name) for name in many}]
        headers += [(_name(name), _text(value)) for name, values in many.items() for value in values]
    if version == "2.0":
        headers += [("set-cookie", _text(cookie)) for cookie in found.get("cookies") or ()]
    if all(name != "content-type" for name, _ in headers):
        headers.append(("content-type", "text/plain; charset=utf-8"))
    return HttpResponse(_status(found["statusCode"]), headers, _octets(found))


def _headers(given: Any) -> Iterable[tuple[str, str]]:  # Any: JSON
    if given is None:
        return []
    if not isinstance(given, dict):
        raise NoResponse(f"expected a mapping as the response's headers, got {_short(given)}")
    return [(_name(name), _text(value)) for name, value in given.items()]


def _name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise NoResponse(f"expected the name of a header, got {_short(name)}")
    return name.lower()


def _text(value: Any) -> str:  # Any: JSON
    if isinstance(value, str) and not any(char in value for char in "\r\n\0"):
        return value
    if isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    raise NoResponse(f"expected text as the value of a header, got {_short(value)}")


def _status(value: Any) -> int:  # Any: JSON
    try:
        status = int(value)
    except (TypeError, ValueError):
        status = 0
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)) or not 200 <= status <= 599:
        raise NoResponse(f"expected a statusCode of 200 to 599, got {_short(value)}")
    return status


def _octets(found: Json) -> bytes:
    body = found.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise NoResponse(f"expected text as the response's body, got {_short(body)}")
    if not found.get("isBase64Encoded"):
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise NoResponse(f"the response's body is said to be base64, and is not: {error}") from error


def _short(value: Any) -> str:  # Any: JSON
    return repr(value)[:100]
