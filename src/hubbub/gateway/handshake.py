"""A request for a WebSocket, without its socket: what it says, what is wrong with it, what functions are told of it.

RFC 6455, section 4.2, for what a handshake must have; docs/contract.md for what the authorizer and `$connect` get.
"""

from __future__ import annotations

import base64
import binascii
import http
import ipaddress
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from hubbub.apigateway import CONNECT, Api, Event, RequestContext
from hubbub.entropy import random_bytes

Fields = list[tuple[str, str]]
"""Names and values of headers, in their order and the client's spelling."""

Headers = dict[str, tuple[str, list[str]]]
"""Headers by their names in lower case: how each was spelled first, and its values.

Names that differ in case alone are one header (RFC 9110, section 5.1).
"""


class Refusal(NamedTuple):
    """An HTTP response that is no 101."""

    status: int
    body: bytes
    headers: dict[str, str] = {}  # noqa: RUF012  nobody changes it


class Request:
    """The head of a request as the client wrote it.

    Args:
        method, target: of its first line.
        fields: its headers.

    """

    __slots__ = ("_query", "fields", "headers", "method", "target")

    def __init__(self, method: str, target: str, fields: Fields) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.headers: Headers = {}
        self._query: list[tuple[str, str]] | None = None  # None before it is asked for
        for name, value in fields:
            key = name.lower()
            known = self.headers.get(key)
            if known is None:
                self.headers[key] = (name, [value])
            else:
                known[1].append(value)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"  # not the query: there may be a token in it

    @property
    def path(self) -> str:
        """The target without its query, and without scheme and host if it names them (RFC 9112, section 3.2.2)."""
        path = self.target.partition("?")[0]
        return path if path.startswith("/") else "/" + path.partition("://")[2].partition("/")[2]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query's parameters, decoded."""
        if self._query is None:
            self._query = parse_qsl(self.target.partition("?")[2], keep_blank_values=True)
        return self._query

    def values(self, name: str) -> list[str]:
        """All values of a header, by its lower-case name."""
        known = self.headers.get(name)
        return [] if known is None else known[1]

    def value(self, name: str) -> str | None:
        """The first of them; None for none."""
        known = self.headers.get(name)
        return None if known is None else known[1][0]

    def asks_for(self, name: str, token: str) -> bool:
        """Whether a header lists the token; a list may come in several lines (RFC 9110, section 5.3)."""
        values = self.values(name)
        return token in values or any(token == each.strip() for value in values for each in value.lower().split(","))

    def subprotocols(self) -> list[str]:
        """What the client offers, in its order."""
        offers = [offer.strip() for value in self.values("sec-websocket-protocol") for offer in value.split(",")]
        return [offer for offer in offers if offer]


def what_is_wrong(request: Request) -> Refusal | None:
    """Why this is no proper request for a WebSocket; None if it is one (RFC 6455, section 4.2.1)."""
    if request.method != "GET":
        return Refusal(405, said("A WebSocket is asked for with GET."), {"Allow": "GET"})
    if len(request.values("host")) != 1 or not request.value("host"):
        return Refusal(400, said("Host: expected one."))
    if request.values("sec-websocket-version") != ["13"]:
        return Refusal(426, said("The version of WebSocket here is 13."), {"Sec-WebSocket-Version": "13"})
    if not _are_key(request.values("sec-websocket-key")):
        return Refusal(400, said("Sec-WebSocket-Key: expected 16 bytes in base64."))
    return None


def _are_key(values: list[str]) -> bool:
    try:
        return len(values) == 1 and len(base64.b64decode(values[0], validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` comes from `host` (RFC 6455, section 10.2)."""
    scheme, _, authority = origin.partition("://")
    return scheme in ("http", "https") and authority.lower() == host.lower()


class Proxies:
    """The proxies whose `X-Forwarded-*` are believed.

    Args:
        listed: addresses and networks, separated by commas; `*` for everybody.

    """

    def __init__(self, listed: str) -> None:
        names = [name.strip() for name in listed.split(",") if name.strip()]
        if "*" in names:
            names = ["0.0.0.0/0", "::/0"]
        self._networks = [ipaddress.ip_network(name, strict=False) for name in names]
        self.trust = lru_cache(4_096)(self._trust)

    @property
    def listed(self) -> list[str]:
        """Their addresses and networks, as uvicorn wants them for what goes beside the gateway."""
        return [str(network) for network in self._networks]

    def _trust(self, address: str) -> bool:
        """Whether `address` is one of them."""
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(known in network for network in self._networks)

    def way(self, peer: str, forwarded: Sequence[str]) -> list[str]:
        """The addresses that a request came by, up to the client's, which is the last.

        That is the nearest which is no trusted proxy's: what is before it is the client's own claim.

        Args:
            peer: who opened the socket.
            forwarded: the values of `X-Forwarded-For`.

        """
        hops = [hop.strip() for value in forwarded for hop in value.split(",") if hop.strip()]
        hops.append(peer)
        while len(hops) > 1 and self.trust(hops[-1]):
            hops.pop()
        return hops


def headers_for_functions(request: Request, *, way: list[str], proxied: bool, secure: bool) -> Headers:
    """The client's headers without those of its own hop, and those that a gateway answers for, by name as AWS has it.

    What asks for a WebSocket is among them, for the authorizer.

    Args:
        request: what the client asked.
        way: what `Proxies.way` says.
        proxied: whether a trusted proxy opened the socket, which then knows the scheme and the port.
        secure: whether the socket speaks TLS.

    """
    headers = {name: named for name, named in request.headers.items() if name not in _NOT_THE_CLIENTS}
    host = request.value("host") or ""
    scheme = request.value("x-forwarded-proto") if proxied else None
    scheme = scheme or ("https" if secure else "http")
    port = request.value("x-forwarded-port") if proxied else None
    port = port or _port(host) or ("443" if scheme == "https" else "80")
    headers["host"] = ("Host", [host])
    headers["x-forwarded-for"] = ("X-Forwarded-For", [", ".join(way)])
    headers["x-forwarded-port"] = ("X-Forwarded-Port", [port])
    headers["x-forwarded-proto"] = ("X-Forwarded-Proto", [scheme])
    if "x-amzn-trace-id" not in headers:
        trace = f"Root=1-{int(time.time()):08x}-{random_bytes(12).hex()}"
        headers["x-amzn-trace-id"] = ("X-Amzn-Trace-Id", [trace])
    headers |= _ASKING
    return dict(sorted(headers.items()))


def _port(host: str) -> str | None:
    _, _, port = host.rpartition(":")
    return port if port != host and port.isdecimal() else None


_NOT_THE_CLIENTS = frozenset(
    ("connection", "upgrade", "content-length", "host", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto")
)
"""Headers that belong to the client's own hop, and those that are the gateway's to say."""

_ASKING: Headers = {
    "connection": ("Connection", ["upgrade"]),
    "content-length": ("content-length", ["0"]),
    "upgrade": ("Upgrade", ["websocket"]),
}


def authorizer_event(context: RequestContext, api: Api, request: Request, headers: Headers) -> Event:
    """What a REQUEST authorizer is given; what there is none of is empty here, and not absent.

    It sees that a WebSocket is asked for, in API Gateway's own spelling whatever the client's is.
    """
    return Event(
        type="REQUEST",
        method_arn=f"{api.arn}/{CONNECT}",
        headers={name: values[-1] for name, values in headers.values()},
        multi_value_headers={name: values.copy() for name, values in headers.values()},
        query_string_parameters=dict(request.query),
        multi_value_query_string_parameters=_gathered(request.query),
        stage_variables=api.stage_variables,
        request_context=context,
    )


def connect_event(context: RequestContext, api: Api, request: Request, headers: Headers) -> Event:
    """What `$connect` is given: no headers of the hop, and nothing of a query that was not there."""
    query = request.query
    several = {name: values.copy() for key, (name, values) in headers.items() if key not in _ASKING}
    return Event(
        headers={name: values[-1] for name, values in several.items()},
        multi_value_headers=several,
        query_string_parameters=dict(query) if query else None,
        multi_value_query_string_parameters=_gathered(query) if query else None,
        stage_variables=api.stage_variables or None,
        request_context=context,
        is_base64_encoded=False,
    )


def _gathered(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    gathered: dict[str, list[str]] = {}
    for name, value in pairs:
        gathered.setdefault(name, []).append(value)
    return gathered


def said(words: str) -> bytes:
    """A document that says why."""
    return msgspec.json.encode({"message": words})


def http_response(refusal: Refusal) -> bytes:
    """A whole HTTP/1.1 response that ends the connection."""
    try:
        phrase = http.HTTPStatus(refusal.status).phrase
    except ValueError:
        phrase = "Refused"
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(refusal.body)),
        "Connection": "close",
        **refusal.headers,
    }
    if refusal.status == 426:
        fields |= {"Upgrade": "websocket", "Connection": "Upgrade, close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {refusal.status} {phrase}\r\n{lines}\r\n".encode("latin-1") + refusal.body
