"""A request for a WebSocket, without its socket: what it says, what is wrong with it, what functions are told of it.

RFC 6455, section 4.2, for what a handshake must have; docs/contract.md for what the authorizer and `$connect` get.
"""

from __future__ import annotations

import base64
import binascii
import http
import ipaddress
import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from hubbub.apigateway import CONNECT, Api, Event, RequestContext

Fields = list[tuple[str, str]]
"""Names and values of headers, in their order and the client's spelling."""


class Refusal(NamedTuple):
    """An HTTP response that is no 101."""

    status: int
    body: bytes
    headers: dict[str, str] = {}  # noqa: RUF012  nobody changes it


class Request:
    """The head of a request as the client wrote it."""

    __slots__ = ("fields", "method", "target")

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ", 2)
        self.fields: Fields = []
        for line in lines:
            name, _, value = line.partition(":")
            self.fields.append((name, value.strip()))

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
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    def values(self, name: str) -> list[str]:
        """All values of a header, by its lower-case name."""
        return [value for known, value in self.fields if known.lower() == name]

    def value(self, name: str) -> str | None:
        """The first of them; None for none."""
        return next(iter(self.values(name)), None)

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

    @property
    def listed(self) -> list[str]:
        """Their addresses and networks, as uvicorn wants them for what goes beside the gateway."""
        return [str(network) for network in self._networks]

    def trust(self, address: str) -> bool:
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


def fields_for_functions(request: Request, *, way: list[str], proxied: bool, secure: bool) -> Fields:
    """The client's headers, and those that a gateway answers for.

    Args:
        request: what the client asked.
        way: what `Proxies.way` says.
        proxied: whether a trusted proxy opened the socket, which then knows the scheme and the port.
        secure: whether the socket speaks TLS.

    """
    own = ("host", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto")
    fields = [(name, value) for name, value in request.fields if name.lower() not in own]
    host = request.value("host") or ""
    scheme = request.value("x-forwarded-proto") if proxied else None
    scheme = scheme or ("https" if secure else "http")
    port = request.value("x-forwarded-port") if proxied else None
    port = port or _port(host) or ("443" if scheme == "https" else "80")
    fields += [
        ("Host", host),
        ("X-Forwarded-For", ", ".join(way)),
        ("X-Forwarded-Port", port),
        ("X-Forwarded-Proto", scheme),
    ]
    if request.value("x-amzn-trace-id") is None:
        fields.append(("X-Amzn-Trace-Id", f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)}"))
    return fields


def _port(host: str) -> str | None:
    _, _, port = host.rpartition(":")
    return port if port != host and port.isdecimal() else None


_HOP = ("connection", "upgrade", "content-length")
"""Headers that belong to the client's own hop."""


def authorizer_event(context: RequestContext, api: Api, request: Request, fields: Fields) -> Event:
    """What a REQUEST authorizer is given; what there is none of is empty here, and not absent.

    It sees that a WebSocket is asked for, in API Gateway's own spelling whatever the client's is.
    """
    own = [("Connection", "upgrade"), ("Upgrade", "websocket"), ("content-length", "0")]
    headers = _by_name([*_without_hop(fields), *own])
    return Event(
        type="REQUEST",
        method_arn=f"{api.arn}/{CONNECT}",
        headers=_last_of(headers),
        multi_value_headers=headers,
        query_string_parameters=dict(request.query),
        multi_value_query_string_parameters=_gathered(request.query),
        stage_variables=api.stage_variables,
        request_context=context,
    )


def connect_event(context: RequestContext, api: Api, request: Request, fields: Fields) -> Event:
    """What `$connect` is given: no headers of the hop, and nothing of a query that was not there."""
    headers = _by_name(_without_hop(fields))
    query = request.query
    return Event(
        headers=_last_of(headers),
        multi_value_headers=headers,
        query_string_parameters=dict(query) if query else None,
        multi_value_query_string_parameters=_gathered(query) if query else None,
        stage_variables=api.stage_variables or None,
        request_context=context,
        is_base64_encoded=False,
    )


def _without_hop(fields: Fields) -> Fields:
    return [field for field in fields if field[0].lower() not in _HOP]


def _by_name(fields: Fields) -> dict[str, list[str]]:
    """Values by name, in alphabetical order whatever the case: so AWS writes headers.

    Names that differ in case alone are one header (RFC 9110, section 5.1), which is spelled as it came first.
    """
    gathered: dict[str, tuple[str, list[str]]] = {}
    for name, value in fields:
        gathered.setdefault(name.lower(), (name, []))[1].append(value)
    return dict(gathered[name] for name in sorted(gathered))


def _last_of(gathered: dict[str, list[str]]) -> dict[str, str]:
    return {name: values[-1] for name, values in gathered.items()}


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
