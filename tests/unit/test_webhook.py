"""The HTTP endpoint as a function: what is sent, what each answer comes to, and what is done when there is none."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from scripts.servers import free_port
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from endpoint import Call, Endpoint, response
from hubbub.apigateway import Event, Identity, RequestContext, Response, new_id
from hubbub.gateway.integrations.webhook import HandlerFailed, Webhook, check_address, read_secret
from live import BOUND_S, until

pytestmark = pytest.mark.usefixtures("one_root")

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint() as running:
        yield running


def event(kind: str = "MESSAGE", route: str = "$default", body: str | None = "hello") -> Event:
    """An event of that type."""
    context = RequestContext(
        route_key=route,
        event_type=kind,  # type: ignore[arg-type]
        extended_request_id="R0oXAdfD0kwCH6w=",
        request_time="19/Feb/2024:07:11:42 +0000",
        stage="ws",
        connected_at=1,
        request_time_epoch=1,
        identity=Identity("203.0.113.7"),
        request_id="R0oXAdfD0kwCH6w=",
        domain_name="example.com",
        connection_id="TXzPWdnOjoECGjA=",
        api_id="hubbub0000",
    )
    return Event(request_context=context, body=body if kind == "MESSAGE" else None, is_base64_encoded=False)


async def call(endpoint: Endpoint, kind: str = "MESSAGE", **options: Any) -> Response:
    """What a webhook makes of the endpoint's answer."""
    async with Webhook(endpoint.url, **options) as webhook:
        return await webhook(event(kind))


async def failure(endpoint: Endpoint, kind: str = "MESSAGE", **options: Any) -> str:
    """Why a webhook makes nothing of it."""
    with pytest.raises(HandlerFailed) as failed:
        await call(endpoint, kind, **options)
    return str(failed.value)


# What is sent


async def test_the_event_is_posted_as_json_with_headers_that_name_it(endpoint: Endpoint):
    """The body is the event's JSON and nothing else; routers find the rest in headers."""
    await call(endpoint)
    (got,) = endpoint.calls
    assert got.line == "POST /events HTTP/1.1"
    assert got.body == msgspec.json.encode(event())
    assert got.headers["host"] == f"127.0.0.1:{endpoint.port}"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["accept-encoding"] == "identity"
    assert got.headers["hubbub-event-type"] == "MESSAGE"
    assert got.headers["hubbub-route-key"] == "$default"
    assert got.headers["hubbub-connection-id"] == "TXzPWdnOjoECGjA="
    assert got.headers["webhook-id"] == got.event["requestContext"]["requestId"]
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
    assert "webhook-signature" not in got.headers


async def test_the_query_of_the_address_is_kept(endpoint: Endpoint):
    """Whoever wants to tell gateways apart can do so there."""
    async with Webhook(f"{endpoint.url}?from=a%20b&x") as webhook:
        await webhook(event())
    assert endpoint.calls[0].line == "POST /events?from=a%20b&x HTTP/1.1"


async def test_a_route_key_is_written_so_that_a_header_can_have_it(endpoint: Endpoint):
    """What no header may contain is percent-encoded, and so is the percent sign."""
    async with Webhook(endpoint.url) as webhook:
        await webhook(event(route="a/b ü\r\nX: 100%"))
    assert endpoint.calls[0].headers["hubbub-route-key"] == "a/b%20%C3%BC%0D%0AX:%20100%25"
    assert "x" not in endpoint.calls[0].headers


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_"), SECRET.rstrip("="), f" {SECRET}\n", KEY])
async def test_the_signature_is_what_the_standard_says(endpoint: Endpoint, secret: str | bytes):
    """The specification's own library verifies it, and refuses it for another body, id, time or secret."""
    await call(endpoint, secrets=[secret])
    (got,) = endpoint.calls
    verifier = Verifier(SECRET)
    assert verifier.verify(got.body, got.headers) == got.event
    other = str(int(got.headers["webhook-timestamp"]) - 1)
    for body, changed in [
        (got.body + b" ", {}),
        (got.body, {"webhook-id": new_id()}),
        (got.body, {"webhook-timestamp": other}),
    ]:
        with pytest.raises(WebhookVerificationError):
            verifier.verify(body, {**got.headers, **changed})
    with pytest.raises(WebhookVerificationError):
        Verifier(bytes(32)).verify(got.body, got.headers)


async def test_two_secrets_make_two_signatures(endpoint: Endpoint):
    """While a secret is replaced, who has the old one and who has the new one both believe."""
    await call(endpoint, secrets=[bytes(24), KEY])
    (got,) = endpoint.calls
    assert len(got.headers["webhook-signature"].split(" ")) == 2
    for secret in (bytes(24), KEY):
        Verifier(secret).verify(got.body, got.headers)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "not base64!", "whsec_" + "ü" * 40, b"short"])
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: str | bytes):
    """Standard Webhooks asks for 24 bytes at least."""
    with pytest.raises(ValueError, match="24 bytes") as refused:
        Webhook("http://127.0.0.1/", secrets=[secret])
    assert not secret or str(secret).removeprefix("whsec_") not in str(refused.value) or secret == "whsec_"
    with pytest.raises(ValueError, match="24 bytes"):
        read_secret(secret)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com",
        "/events",
        "http://",
        "http:///events",
        "ws://example.com",
        "ftp://x",
        "http://x:port/",
        "http://x:99999/",
        "http://x:0/",
        "http://[::1/",
        "http://x/a b",
        "http://x/#part",
        "http://x/\n",
        "http://x\x00y/",
    ],
)
def test_an_address_that_is_none_is_named(url: str):
    """With an example of what would be one."""
    with pytest.raises(ValueError, match="expected an http or https address such as"):
        check_address(url)


def test_an_address_has_no_password():
    """It is printed, and calls are signed; what was given is not shown."""
    with pytest.raises(ValueError, match="without a user or password") as refused:
        Webhook("http://ann:hunter2@example.com/")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://x", "https://x.example:8443/a?b=c", "http://[::1]:80/", "HTTP://X/"])
def test_an_address_may_have_a_port_a_path_and_a_query(url: str):
    """In any spelling of the scheme."""
    assert check_address(url) == url


# What the answer comes to


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_success_lets_a_client_in(endpoint: Endpoint, status: int):
    """Any status of success; the subprotocol is the header's."""
    endpoint.answer = lambda call: response(status)
    assert await call(endpoint, "CONNECT") == Response(status_code=status, body=b"")
    endpoint.answer = lambda call: response(status, sec_websocket_protocol="chat.v1")
    answer = await call(endpoint, "CONNECT")
    assert answer.headers == {"Sec-WebSocket-Protocol": "chat.v1"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 429, 500, 503])
async def test_another_status_is_the_handshakes(endpoint: Endpoint, status: int):
    """With the body, which may be any bytes."""
    endpoint.answer = lambda call: response(status, b"no\xff")
    assert await call(endpoint, "CONNECT") == Response(status_code=status, body=b"no\xff")


async def test_the_body_answers_a_message(endpoint: Endpoint):
    """Nothing answers nothing."""
    endpoint.answer = lambda call: response(200, "héllo", content_type="text/plain; charset=utf-8")
    assert (await call(endpoint)).body == "héllo"
    for status in (200, 204):
        endpoint.answer = lambda call, status=status: response(status)
        assert not (await call(endpoint)).body


async def test_a_body_may_come_in_chunks(endpoint: Endpoint):
    """As from a server that does not know its length before."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    endpoint.answer = lambda call: head + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    assert (await call(endpoint)).body == "hello"


async def test_what_disconnect_returns_is_nothing(endpoint: Endpoint):
    """Its body is not looked at."""
    endpoint.answer = lambda call: response(200, b"\xff")
    assert await call(endpoint, "DISCONNECT") == Response()


@pytest.mark.parametrize("kind", ["MESSAGE", "DISCONNECT"])
@pytest.mark.parametrize("status", [400, 404, 410, 500, 503])
async def test_an_error_is_a_failure_of_the_function(endpoint: Endpoint, kind: str, status: int):
    """Of a message and of `$disconnect`, whose end of it all the log has."""
    endpoint.answer = lambda call: response(status, "<html>not for clients")
    assert await failure(endpoint, kind) == f"{endpoint.url} answered {status} to $default"


@pytest.mark.parametrize("kind", ["CONNECT", "MESSAGE", "DISCONNECT"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed_and_said(endpoint: Endpoint, kind: str, status: int):
    """It is nearly always a slash that lacks in the address, or a page to log in on."""
    endpoint.answer = lambda call: response(status, location="/events/")
    words = await failure(endpoint, kind)
    assert words == f"{endpoint.url} answered {status}, a redirect to /events/: redirects are not followed"
    assert len(endpoint.calls) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (response(200, gzip.compress(b"x", mtime=0), content_encoding="gzip"), "answered 200 with a compressed body"),
        (response(200, b"x" * 101), "answered 200 with more than 100 bytes"),
        (response(200, b"x", content_length="1000"), "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "broke off"),
        (b"HTTP/1.1 700 Odd\r\nContent-Length: 0\r\n\r\n", "answered 700, which is no response's status"),
        (b"garbage\r\n\r\n", "broke off"),
        (b"", "broke off"),
    ],
)
@pytest.mark.parametrize("kind", ["CONNECT", "MESSAGE"])
async def test_garbage_is_a_failure(endpoint: Endpoint, answer: bytes, words: str, kind: str):
    """What is said names the address and what was wrong with the answer."""
    answered: list[Call] = []

    def once(call: Call) -> bytes:
        answered.append(call)
        return answer

    endpoint.answer = once
    async with Webhook(endpoint.url, max_response_bytes=100, timeout_s=BOUND_S) as webhook:
        calling = asyncio.create_task(webhook(event(kind)))
        await until(lambda: bool(answered), "the call")
        if words == "broke off":
            endpoint.hang_up()
        with pytest.raises(HandlerFailed) as failed:
            await calling
    assert words in str(failed.value)
    assert endpoint.url in str(failed.value)


async def test_an_answer_that_is_not_read_to_its_end_blocks_no_other(endpoint: Endpoint):
    """Its connection is given up, and its place is free."""
    answers = [
        response(200, b"x" * 200_000),
        response(200, b"x" * 200_000, content_encoding="gzip"),
        response(200, "fine"),
    ]
    endpoint.answer = lambda call: answers.pop(0)
    async with Webhook(endpoint.url, max_calls=1, timeout_s=BOUND_S) as webhook:
        for _ in range(2):
            with pytest.raises(HandlerFailed):
                await webhook(event())
        assert (await webhook(event())).body == "fine"


async def test_a_body_for_a_client_is_text(endpoint: Endpoint):
    """A text frame that is no UTF-8 would cost the client its connection."""
    endpoint.answer = lambda call: response(200, b"\xff\xfe")
    assert await failure(endpoint) == f"{endpoint.url} answered 200 with a body that is no UTF-8"


async def test_an_answer_without_end_is_cut(endpoint: Endpoint):
    """What does not say its length is read up to the limit, and no further."""
    endpoint.answer = lambda call: b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000
    assert "with more than 1000 bytes" in await failure(endpoint, max_response_bytes=1_000)


async def test_an_answer_of_exactly_the_limit_is_taken(endpoint: Endpoint):
    """One byte more is not, see above."""
    endpoint.answer = lambda call: response(200, b"x" * 1_000)
    assert (await call(endpoint, max_response_bytes=1_000)).body == "x" * 1_000


# Cookies, connections, time


async def test_cookies_of_one_call_are_not_sent_with_the_next(endpoint: Endpoint):
    """A session that a view opens for one client is not another's."""
    endpoint.answer = lambda call: response(200, set_cookie="sessionid=ann; Path=/")
    async with Webhook(endpoint.url) as webhook:
        await webhook(event())
        await webhook(event())
    assert [got.headers.get("cookie") for got in endpoint.calls] == [None, None]


async def test_connections_are_kept(endpoint: Endpoint):
    """Calls one after another need but one, also when an answer was an error."""
    statuses = [200, 500, 204, 200]
    endpoint.answer = lambda call: response(statuses[len(endpoint.calls) - 1])
    async with Webhook(endpoint.url) as webhook:
        for kind in ("CONNECT", "CONNECT", "MESSAGE", "DISCONNECT"):
            await webhook(event(kind))
    assert (len(endpoint.calls), endpoint.connections) == (4, 1)


async def test_calls_at_a_time_are_bounded(endpoint: Endpoint):
    """Further ones wait for their turn."""
    endpoint.gate.clear()
    async with Webhook(endpoint.url, max_calls=3) as webhook:
        calls = [asyncio.create_task(webhook(event(body=str(number)))) for number in range(10)]
        await until(lambda: endpoint.at_once == 3, "three calls")
        endpoint.gate.set()
        await asyncio.gather(*calls)
    assert endpoint.most_at_once == 3
    assert sorted(got.event["body"] for got in endpoint.calls) == [str(number) for number in range(10)]


@pytest.mark.slow
async def test_a_call_that_takes_too_long_is_given_up(endpoint: Endpoint):
    """Waiting for one's turn counts too; the next call finds a free place."""
    endpoint.gate.clear()
    async with Webhook(endpoint.url, timeout_s=0.5, max_calls=1) as webhook:
        outcomes = await asyncio.gather(webhook(event()), webhook(event()), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == [f"no answer from {endpoint.url} within 0.5 s"] * 2
        assert webhook.calls == {"timeout": 2}
        assert len(endpoint.calls) == 1
    endpoint.gate.set()
    await call(endpoint)


async def test_an_answer_that_stops_halfway_is_given_up(endpoint: Endpoint):
    """The limit is for the whole of a call and not for each byte."""
    endpoint.answer = lambda call: response(200, b"x", content_length="10")
    assert "no answer" in await failure(endpoint, timeout_s=0.05)


async def test_calls_are_counted_by_how_they_ended(endpoint: Endpoint):
    """By status where there was one."""
    answers = [response(200), response(403), response(500), response(200, b"\xff"), b""]
    endpoint.answer = lambda call: answers[len(endpoint.calls) - 1]
    async with Webhook(endpoint.url) as webhook:
        for kind in ("MESSAGE", "CONNECT", "MESSAGE", "MESSAGE", "MESSAGE"):
            await asyncio.gather(webhook(event(kind)), return_exceptions=True)
        assert webhook.calls == {"200": 2, "403": 1, "500": 1, "broken": 1}


# Trying again


async def test_an_endpoint_that_restarts_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    """A connection that is refused is tried again, since nothing was sent; then the call goes through, once."""
    endpoint = Endpoint()
    endpoint.port = free_port()
    tries = 0
    send = httpx.AsyncHTTPTransport.handle_async_request

    async def counted(*args: Any) -> httpx.Response:
        nonlocal tries
        tries += 1
        return await send(*args)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", counted)
    async with Webhook(endpoint.url, retry_after_s=(0.01,) * 1_000) as webhook:
        calling = asyncio.create_task(webhook(event()))
        await until(lambda: tries >= 2, "a second try")
        async with endpoint:
            assert (await calling).status_code == 200
            assert len(endpoint.calls) == 1


async def test_an_endpoint_that_is_not_there_is_named():
    """After a bounded number of tries."""
    url = f"http://127.0.0.1:{free_port()}/"
    async with Webhook(url, retry_after_s=(0.001, 0.001)) as webhook:
        with pytest.raises(HandlerFailed, match=f"cannot connect to {url}: ") as failed:
            await webhook(event())
        assert failed.value.outcome == "unreachable"
        assert webhook.calls == {"unreachable": 1}


async def test_what_was_sent_is_never_sent_again(endpoint: Endpoint):
    """An endpoint that hangs up may have done its work already."""
    endpoint.answer = lambda call: b""
    async with Webhook(endpoint.url, retry_after_s=(0.001, 0.001)) as webhook:
        with pytest.raises(HandlerFailed, match="broke off"):
            await webhook(event())
    assert len(endpoint.calls) == 1


async def test_a_ping_connects_and_sends_nothing(endpoint: Endpoint):
    """Whether the endpoint is there is asked without an event."""
    async with Webhook(endpoint.url) as webhook:
        await webhook.ping()
        await until(lambda: endpoint.connections == 1, "the connection")
    assert endpoint.calls == []
    gone = Webhook(f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(HandlerFailed, match="cannot connect to"):
        await gone.ping()


async def test_proxies_of_the_environment_are_not_for_this(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch):
    """The endpoint is one's own."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    endpoint.answer = lambda call: response(200, json.dumps("here"))
    assert (await call(endpoint)).body == '"here"'
