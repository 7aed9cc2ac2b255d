"""The events that functions are given, to the field, as the JSON that a Lambda would get (docs/contract.md)."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest
from gatewaylab import Functions, Json, Lab, running
from rawpeer import CLOSE, KEY, TEXT, closing, frame, request

from hubbub.apigateway import Api, request_time


class Like:
    """Equal to every string that the pattern matches whole."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(self.pattern, other) is not None

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"like {self.pattern}"


class Now:
    """Equal to every whole number of milliseconds that is now, give or take a minute."""

    def __eq__(self, other: object) -> bool:
        return type(other) is int and abs(other - time.time() * 1_000) < 60_000

    __hash__ = None  # type: ignore[assignment]


ID = Like(r"[A-Za-z0-9_-]{15}=")
TRACE = Like(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}")


def context(kind: str, route: str, connection: str, **more: Any) -> Json:
    """The `requestContext` of an event, all of it."""
    return {
        "routeKey": route,
        "eventType": kind,
        "extendedRequestId": ID,
        "requestTime": Like(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000"),
        "messageDirection": "IN",
        "stage": "local",
        "connectedAt": Now(),
        "requestTimeEpoch": Now(),
        "identity": {"sourceIp": "127.0.0.1"},
        "requestId": ID,
        "domainName": "chat.example",
        "connectionId": connection,
        "apiId": "hubbub0000",
        **more,
    }


FORWARDED = {
    "Host": "chat.example",
    "X-Forwarded-For": "127.0.0.1",
    "X-Forwarded-Port": "80",
    "X-Forwarded-Proto": "http",
    "X-Amzn-Trace-Id": TRACE,
}
ASKED = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}


def each_in_a_list(values: Json) -> Json:
    return {name: [value] for name, value in values.items()}


async def told(lab: Lab, head: bytes | None = None) -> Json:
    """What `$connect` is told of a handshake."""
    await lab.open(head)
    return lab.functions.of("CONNECT")[-1]


async def test_a_connect_event_to_the_field(lab: Lab) -> None:
    """`CONNECT` has headers in both forms, `requestContext`, `isBase64Encoded` false, and nothing else."""
    async with await lab.open() as peer:
        assert lab.functions.of("CONNECT") == [
            {
                "headers": {**ASKED, **FORWARDED},
                "multiValueHeaders": each_in_a_list({**ASKED, **FORWARDED}),
                "requestContext": context("CONNECT", "$connect", peer.id),
                "isBase64Encoded": False,
            }
        ]


async def test_a_message_event_to_the_field(lab: Lab) -> None:
    """`MESSAGE` has `requestContext` with a `messageId`, `body`, `isBase64Encoded` false, and nothing else."""
    async with await lab.open(request("/ws?a=b")) as peer:
        await peer.send(frame(TEXT, '{"text":"hi ä"}'.encode()))
        assert await lab.functions.wait_for("MESSAGE") == {
            "requestContext": context("MESSAGE", "$default", peer.id, messageId=ID),
            "body": '{"text":"hi ä"}',
            "isBase64Encoded": False,
        }


async def test_a_disconnect_event_to_the_field(lab: Lab) -> None:
    """`DISCONNECT` has API Gateway's four headers, code and reason in `requestContext`, and nothing else."""
    async with await lab.open(request("/ws?a=b", User_Agent="raw/1")) as peer:
        await peer.send(closing(4000, "bye"))
        headers = {"Host": "chat.example", "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
        assert await lab.functions.wait_for("DISCONNECT") == {
            "headers": headers,
            "multiValueHeaders": each_in_a_list(headers),
            "requestContext": context(
                "DISCONNECT",
                "$disconnect",
                peer.id,
                identity={"sourceIp": "127.0.0.1", "userAgent": "raw/1"},
                disconnectStatusCode=4000,
                disconnectReason="bye",
            ),
            "isBase64Encoded": False,
        }


async def test_an_authorizers_event_to_the_field() -> None:
    """An authorizer is told the handshake with its `Connection` and `Upgrade`; what there is none of is empty."""
    functions = Functions()
    async with running(functions, functions.api(authorizer=functions.authorize)) as lab:
        peer = await lab.open()
        headers = {"Connection": "upgrade", "Upgrade": "websocket", **ASKED, **FORWARDED, "content-length": "0"}
        assert functions.authorizations == [
            {
                "type": "REQUEST",
                "methodArn": "arn:aws:execute-api:us-east-1:123456789012:hubbub0000/local/$connect",
                "headers": headers,
                "multiValueHeaders": each_in_a_list(headers),
                "queryStringParameters": {},
                "multiValueQueryStringParameters": {},
                "stageVariables": {},
                "requestContext": context("CONNECT", "$connect", peer.id),
            }
        ]
        (asked,), (connect,) = functions.authorizations, functions.of("CONNECT")
        trace = "X-Amzn-Trace-Id"
        assert asked["headers"][trace] == connect["headers"][trace], "one request, one trace"
        asked_of = {**asked["requestContext"], "authorizer": connect["requestContext"]["authorizer"]}
        assert asked_of == connect["requestContext"], "one request, one id"


async def test_what_the_authorizer_said_is_in_all_three_events() -> None:
    """Its context, with `principalId` and `integrationLatency`, is in the three events of the connection, as it was."""
    functions = Functions()
    async with running(functions, functions.api(authorizer=functions.authorize)) as lab, await lab.open() as peer:
        await peer.send(frame(TEXT, b"hi"), closing(1000))
        await functions.wait_for("DISCONNECT")
        said = [event["requestContext"]["authorizer"] for event in functions.events]
        assert len(said) == 3
        latency = said[0]["integrationLatency"]
        assert type(latency) is int and latency >= 0
        assert said == [{"principalId": "ann", "level": 3, "trusted": True, "integrationLatency": latency}] * 3


async def test_without_an_authorizer_there_is_no_word_of_one(lab: Lab) -> None:
    """`authorizer` is absent, not null, where none ran; nothing in any event is null."""
    async with await lab.open() as peer:
        await peer.send(frame(TEXT, b"hi"), frame(CLOSE))
        await lab.functions.wait_for("DISCONNECT")
    for event in lab.functions.events:
        assert "authorizer" not in event["requestContext"]
        assert b"null" not in msgspec.json.encode(event)


async def test_stage_variables_are_in_every_event_if_there_are_any() -> None:
    """Stage variables reach the authorizer and all three events; without any, only the authorizer sees that."""
    functions = Functions()
    plain = functions.api(authorizer=functions.authorize)
    api = Api(
        routes=plain.routes, authorizer=plain.authorizer, id="abcdefghij", stage="prod", stage_variables={"a": "1"}
    )
    async with running(functions, api) as lab, await lab.open() as peer:
        await peer.send(frame(TEXT, b"hi"), closing(1000))
        await functions.wait_for("DISCONNECT")
        for event in (*functions.authorizations, *functions.events):
            assert event["stageVariables"] == {"a": "1"}
            assert (event["requestContext"]["apiId"], event["requestContext"]["stage"]) == ("abcdefghij", "prod")
        (asked,) = functions.authorizations
        assert asked["methodArn"].endswith(":abcdefghij/prod/$connect")


QUERIES: list[tuple[str, dict[str, list[str]] | None]] = [
    ("", None),
    ("?", None),
    ("?a=1&b=2", {"a": ["1"], "b": ["2"]}),
    ("?a=1&a=2", {"a": ["1", "2"]}),
    ("?a=&flag", {"a": [""], "flag": [""]}),
    ("?a=%C3%A4%20%26+x&%6Eame=%2B", {"a": ["ä & x"], "name": ["+"]}),
    ("?a=b=c", {"a": ["b=c"]}),
    ("?a=1;b=2", {"a": ["1;b=2"]}),
    ("?a=%ff%", {"a": ["\ufffd%"]}),
]


@pytest.mark.parametrize(("query", "values"), QUERIES)
async def test_a_query_is_decoded_and_absent_without_one(query: str, values: dict[str, list[str]] | None) -> None:
    """`CONNECT` has the query in both forms, decoded, the last of a name in the plain one; without a query neither."""
    functions = Functions()
    async with running(functions, functions.api(authorizer=functions.authorize)) as lab:
        connect = await told(lab, request("/ws" + query))
        plain = None if values is None else {name: several[-1] for name, several in values.items()}
        assert connect.get("queryStringParameters") == plain
        assert connect.get("multiValueQueryStringParameters") == values
        assert ("queryStringParameters" in connect) == (values is not None)
        assert functions.authorizations[0]["queryStringParameters"] == (plain or {})
        assert functions.authorizations[0]["multiValueQueryStringParameters"] == (values or {})


async def test_headers_keep_the_clients_spelling(lab: Lab) -> None:
    """Header names reach `$connect` as they were written, and repeated ones in `multiValueHeaders` in order."""
    head = request(
        extra=("x-ODD-case: one", "X-Twice: 1", "X-Twice: 2", "Cookie: a=b; c=d", "X-Umlaut: \xe4", "X-Empty:")
    )
    connect = await told(lab, head)
    assert connect["headers"] == {
        **ASKED,
        **FORWARDED,
        "x-ODD-case": "one",
        "X-Twice": "2",
        "Cookie": "a=b; c=d",
        "X-Umlaut": "ä",
        "X-Empty": "",
    }
    assert connect["multiValueHeaders"]["X-Twice"] == ["1", "2"]
    assert "connection" not in {name.lower() for name in connect["headers"]}


async def test_protocol_headers_of_the_websocket_are_passed(lab: Lab) -> None:
    """`Sec-WebSocket-Protocol` and `-Extensions` reach `$connect`; `Host` is spelled so, however the client did."""
    head = request(Sec_WebSocket_Protocol="chat.v1, x", Sec_WebSocket_Extensions="permessage-deflate")
    connect = await told(lab, head.replace(b"Host:", b"hOST:"))
    assert connect["headers"]["Sec-WebSocket-Protocol"] == "chat.v1, x"
    assert connect["headers"]["Sec-WebSocket-Extensions"] == "permessage-deflate"
    assert connect["headers"]["Host"] == "chat.example"
    assert "hOST" not in connect["headers"]


async def test_a_trace_of_the_clients_is_kept(lab: Lab) -> None:
    """A trace id that comes with the request goes on to the functions."""
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793"
    assert (await told(lab, request(X_Amzn_Trace_Id=trace)))["headers"]["X-Amzn-Trace-Id"] == trace


@pytest.mark.parametrize(
    ("host", "port"),
    [("chat.example", "80"), ("chat.example:8443", "8443"), ("[::1]", "80"), ("[::1]:9000", "9000"), ("a:b:c", "80")],
)
async def test_the_domain_name_has_the_port(lab: Lab, host: str, port: str) -> None:
    """`domainName` is the host as the client named it, with a port where it named one, also in `X-Forwarded-Port`."""
    connect = await told(lab, request(Host=host))
    assert connect["requestContext"]["domainName"] == host
    assert connect["headers"]["X-Forwarded-Port"] == port


async def test_ids_are_api_gateways_and_never_come_twice(lab: Lab) -> None:
    """Connection, request and message ids have API Gateway's shape and differ; both request ids of an event are one."""
    ids: list[str] = []
    for _ in range(5):
        async with await lab.open() as peer:
            await peer.send(frame(TEXT, b"a"), frame(TEXT, b"b"), closing(1000))
            await lab.functions.wait_for("DISCONNECT", peer.id)
            ids.append(peer.id)
    for event in lab.functions.events:
        said = event["requestContext"]
        assert said["extendedRequestId"] == said["requestId"]
        ids += [said["requestId"], *([said["messageId"]] if "messageId" in said else [])]
    assert len(ids) == len(set(ids)) == 5 + 5 * 4 + 5 * 2
    assert all(ID == each for each in ids)  # noqa: SIM300  its equality is the test


async def test_times_agree(lab: Lab) -> None:
    """`requestTime` is `requestTimeEpoch`'s second, `connectedAt` is the same in all events and not after them."""
    async with await lab.open() as peer:
        await peer.send(frame(TEXT, b"a"), closing(1000))
        await lab.functions.wait_for("DISCONNECT")
    contexts = [event["requestContext"] for event in lab.functions.events]
    assert len({said["connectedAt"] for said in contexts}) == 1
    for said in contexts:
        assert said["requestTime"] == request_time(said["requestTimeEpoch"] // 1_000)
        assert said["connectedAt"] <= said["requestTimeEpoch"]


async def test_who_names_no_agent_has_none(lab: Lab) -> None:
    """`identity` has `userAgent` if the client sent one."""
    assert (await told(lab))["requestContext"]["identity"] == {"sourceIp": "127.0.0.1"}
    connect = await told(lab, request(user_AGENT="raw/1 (ä)"))
    assert connect["requestContext"]["identity"] == {"sourceIp": "127.0.0.1", "userAgent": "raw/1 (ä)"}


FROM = [
    # trusted proxies, X-Forwarded-For as it comes, the source, X-Forwarded-For as functions see it
    ("127.0.0.1", (), "127.0.0.1", "127.0.0.1"),
    ("127.0.0.1", ("203.0.113.7",), "203.0.113.7", "203.0.113.7"),
    ("127.0.0.1", ("198.51.100.1, 203.0.113.7",), "203.0.113.7", "198.51.100.1, 203.0.113.7"),
    ("127.0.0.1", ("198.51.100.1", "203.0.113.7"), "203.0.113.7", "198.51.100.1, 203.0.113.7"),
    ("127.0.0.1, 10.0.0.0/8", ("203.0.113.7, 10.1.2.3",), "203.0.113.7", "203.0.113.7"),
    ("127.0.0.1", ("2001:db8::1",), "2001:db8::1", "2001:db8::1"),
    ("127.0.0.1", (" , ",), "127.0.0.1", "127.0.0.1"),
    ("10.0.0.1", ("203.0.113.7",), "127.0.0.1", "203.0.113.7, 127.0.0.1"),
    ("", ("203.0.113.7",), "127.0.0.1", "203.0.113.7, 127.0.0.1"),
    ("*", ("198.51.100.1, 2001:db8::1, 203.0.113.7",), "198.51.100.1", "198.51.100.1"),
    ("*", ("not an address, 203.0.113.7",), "not an address", "not an address"),
]


@pytest.mark.parametrize(("trusted", "lines", "source", "shown"), FROM)
async def test_forwarded_addresses_are_believed_of_trusted_proxies_only(
    trusted: str, lines: tuple[str, ...], source: str, shown: str
) -> None:
    """The source is the nearest address that is no trusted proxy's; what a client claims itself is before it."""
    head = request(extra=tuple(f"x-forwarded-for: {line}" for line in lines))
    async with running(forwarded_allow_ips=trusted) as lab:
        connect = await told(lab, head)
        assert connect["requestContext"]["identity"]["sourceIp"] == source
        assert connect["headers"]["X-Forwarded-For"] == shown
        assert [name for name in connect["headers"] if name.lower() == "x-forwarded-for"] == ["X-Forwarded-For"]


@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.1.2.3/8", "10.0.0.0/8, *", "10.0.0.1", ""])
async def test_requests_beside_a_websocket_come_from_the_same_address(trusted: str) -> None:
    """The HTTP application is told the source that events have, however the trusted proxies are written."""

    async def say_client(scope: Any, receive: Any, send: Any) -> None:
        body = scope["client"][0].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async with running(app=say_client, forwarded_allow_ips=trusted) as lab:
        connect = await told(lab, request(X_Forwarded_For="203.0.113.7"))
        async with await lab.dial(b"GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n") as peer:
            assert (await peer.answer()).body.decode() == connect["requestContext"]["identity"]["sourceIp"]


@pytest.mark.parametrize("trusted", [True, False])
async def test_scheme_and_port_are_believed_of_trusted_proxies_only(trusted: bool) -> None:
    """Behind a trusted proxy that speaks TLS the functions see `https` and 443; anybody else's word is not taken."""
    head = request(X_Forwarded_Proto="https", X_Forwarded_Port="4443")
    async with running(forwarded_allow_ips="127.0.0.1" if trusted else "10.0.0.1") as lab:
        seen = (await told(lab, head))["headers"]
        assert (seen["X-Forwarded-Proto"], seen["X-Forwarded-Port"]) == (
            ("https", "4443") if trusted else ("http", "80")
        )
        seen = (await told(lab, request(X_Forwarded_Proto="https")))["headers"]
        assert seen["X-Forwarded-Port"] == ("443" if trusted else "80")
