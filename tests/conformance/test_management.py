"""`@connections` as boto3 and other backends call it: what it does, what it refuses, and in which words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from backendlab import BACKEND, STRANGER, Backend, Stingy, serving, unread
from botocore.exceptions import ClientError
from gatewaylab import Functions, still_works
from rawpeer import CLOSE, TEXT, Peer, closing, frame, request

from hubbub.apigateway import Api, Route
from hubbub.gateway import Sites
from hubbub.sigv4 import Credentials, Keys
from live import BOUND_S, until

UNKNOWN = "R0oXAdfD0kwCH6w="
"""An id as API Gateway makes them, of no connection."""


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A gateway and a backend whose key it knows."""
    async with serving() as made:
        yield made


def path_of(peer: Peer) -> str:
    """A connection's path as SDKs write it."""
    return f"/ws/@connections/{quote(peer.id, safe='')}"


def refused(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, error type and sentence of an answer."""
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.headers["x-amzn-errortype"], answer.json()["message"]


# POST


async def test_a_backend_posts_to_a_client(backend: Backend) -> None:
    """What boto3 posts, bytes or text, arrives as a text frame, and boto3 gets 200 with nothing in it."""
    boto = await backend.boto()
    async with await backend.lab.open() as peer:
        for data, text in ((b"hello", "hello"), ("grüße".encode(), "grüße"), ("text", "text"), (b"", "")):
            answer = await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=data)
            assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
            assert answer["ResponseMetadata"]["HTTPHeaders"]["content-length"] == "0"
            assert await peer.text() == text
        await still_works(peer)


async def test_what_is_posted_in_turn_arrives_in_turn(backend: Backend) -> None:
    """Short ones and long ones."""
    boto = await backend.boto()
    async with await backend.lab.open() as peer:
        sent = [f"{n}:" + "x" * (n % 3 * 40_000) for n in range(20)]
        for data in sent:
            await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=data)
        assert [await peer.text() for _ in sent] == sent


async def test_threads_post_at_the_same_time(backend: Backend) -> None:
    """From one client of boto3's, as it may be used; nothing is lost and nothing comes twice."""
    boto = await backend.boto(max_pool_connections=8)
    peers = [await backend.lab.open() for _ in range(4)]
    calls = [(peer, f"{n}") for n in range(10) for peer in peers]
    async with asyncio.TaskGroup() as group:
        for peer, data in calls:
            group.create_task(backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=data))
    for peer in peers:
        assert {await peer.text() for _ in range(10)} == {f"{n}" for n in range(10)}
        await still_works(peer)


@pytest.mark.parametrize("stage", ["/ws", ""])
@pytest.mark.parametrize("name", ["@connections", "%40connections"])
@pytest.mark.parametrize("safe", ["=", ""])
async def test_every_spelling_of_the_path_is_taken(stage: str, name: str, safe: str) -> None:
    """With `@` or `%40`, `=` or `%3D`; without a stage where the host has but one API."""
    async with serving() as backend, await backend.lab.open() as peer:
        answer = await backend.raw("POST", f"{stage}/{name}/{quote(peer.id, safe=safe)}", b"hello")
        assert (answer.status_code, answer.content) == (200, b"")
        assert await peer.text() == "hello"


async def test_a_message_may_have_128_kb(backend: Backend) -> None:
    """And not a byte more: boto3 raises `PayloadTooLargeException`, and the client notices nothing."""
    boto = await backend.boto()
    async with await backend.lab.open() as peer:
        await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=b"x" * 131_072)
        assert await peer.text() == "x" * 131_072
        with pytest.raises(boto.exceptions.PayloadTooLargeException) as caught:
            await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=b"x" * 131_073)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
        assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0
        assert caught.value.response["Error"]["Message"] == "A message has at most 131072 bytes."
        await still_works(peer)


async def test_what_is_too_large_need_not_be_sent(backend: Backend) -> None:
    """Who asks first (`Expect: 100-continue`, RFC 9110, section 10.1.1) is told at once."""
    async with await backend.lab.open() as peer, await backend.lab.dial() as caller:
        fields = "Host: h\r\nContent-Length: 10000000\r\nExpect: 100-continue\r\n\r\n"
        await caller.send(f"POST {path_of(peer)} HTTP/1.1\r\n{fields}".encode())
        answer = await caller.answer()
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (413, "PayloadTooLargeException")
        await caller.ended()
        await still_works(peer)


async def test_what_is_too_large_has_no_length_perhaps(backend: Backend) -> None:
    """A chunked body is counted as it comes."""
    async with await backend.lab.open() as peer, await backend.lab.dial() as caller:
        await caller.send(f"POST {path_of(peer)} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        await caller.send(b"20001\r\n", b"x" * 0x20001, b"\r\n0\r\n\r\n")
        answer = await caller.answer()
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (413, "PayloadTooLargeException")
        await still_works(peer)


async def test_a_caller_that_is_refused_can_call_again(backend: Backend) -> None:
    """On the same connection: what was too large is read and thrown away."""
    async with await backend.lab.open() as peer:
        assert (await backend.raw("POST", path_of(peer), b"x" * 500_000)).status_code == 413
        assert (await backend.raw("POST", path_of(peer), b"hello")).status_code == 200
        assert await peer.text() == "hello"


async def test_bytes_that_are_no_text_are_refused(backend: Backend) -> None:
    """A text frame may not carry them; the client would have to fail the connection."""
    async with await backend.lab.open() as peer:
        answer = await backend.raw("POST", path_of(peer), b"\x1f\x8b gzip")
        assert refused(answer) == (
            400,
            "BadRequestException",
            "A message is text in UTF-8; this is not, at byte 1. Send bytes in base64.",
        )
        await still_works(peer)


async def test_a_client_that_does_not_read_is_429_and_stays(backend: Backend) -> None:
    """Once its buffer is full: `LimitExceededException`; what was taken before arrives when it reads again."""
    boto = await backend.boto(retries={"max_attempts": 0})
    async with await unread(backend.lab) as peer:
        taken = 0
        with pytest.raises(boto.exceptions.LimitExceededException) as caught:
            while True:
                await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=f"{taken}:" + "y" * 100_000)
                taken += 1
                assert taken < 100, "the buffer has no end"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert caught.value.response["Error"]["Message"] == "The WebSocket client side buffer is full."
        assert taken >= 5
        answer = await backend.raw("GET", path_of(peer))
        assert answer.status_code == 200
        peer.read_again()
        while (text := await peer.text()).startswith("x"):
            pass
        for n in range(taken):
            assert text.startswith(f"{n}:")
            text = await peer.text() if n < taken - 1 else ""
        await still_works(peer)
        await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=b"again")
        assert await peer.text() == "again"


# GET


async def test_a_connection_is_described(backend: Backend) -> None:
    """Since when it is there, when it was last active, where it comes from and what it calls itself."""
    boto = await backend.boto()
    async with await backend.lab.open(request(User_Agent="the client/1.0")) as peer:
        found = await backend.call(boto.get_connection, ConnectionId=peer.id)
        connected_ms = backend.lab.functions.of("CONNECT")[0]["requestContext"]["connectedAt"]
        assert found["ConnectedAt"] == datetime.fromtimestamp(connected_ms / 1_000, UTC)
        assert found["ConnectedAt"] <= found["LastActiveAt"] <= datetime.now(UTC)
        assert found["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "the client/1.0"}


async def test_times_are_written_as_aws_writes_them(backend: Backend) -> None:
    """ISO 8601 in UTC to the millisecond; an agent that the client did not name is null."""
    async with await backend.lab.open() as peer:
        found = (await backend.raw("GET", path_of(peer))).json()
        assert set(found) == {"connectedAt", "lastActiveAt", "identity"}
        for name in ("connectedAt", "lastActiveAt"):
            assert datetime.fromisoformat(found[name]).tzinfo == UTC
            assert len(found[name]) == len("2020-04-30T20:10:33.236Z")
        assert found["identity"] == {"sourceIp": "127.0.0.1", "userAgent": None}


async def test_messages_either_way_make_a_connection_active(backend: Backend) -> None:
    """One from the client, one to it, and one to a group that it is in."""
    boto = await backend.boto()
    lab = backend.lab

    async def age() -> timedelta:
        found = await backend.call(boto.get_connection, ConnectionId=peer.id)
        return datetime.now(UTC) - found["LastActiveAt"]

    async with await lab.open() as peer:
        known = lab.hub.get(peer.id)
        assert known is not None
        assert lab.hub.join("room", peer.id)

        def grow_old() -> None:
            known.context.connected_at -= 1_000_000
            known.life.message_at -= 1_000
            known.sent_at -= 1_000
            for group in known.groups or ():
                group.published_at -= 1_000

        grow_old()
        assert await age() > timedelta(seconds=999)
        await peer.send(frame(TEXT, b"in"))
        assert await peer.text() == "in"
        known.sent_at -= 1_000  # the echo
        assert await age() < timedelta(seconds=500)
        grow_old()
        await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=b"out")
        assert await age() < timedelta(seconds=500)
        grow_old()
        lab.hub.publish("room", b"to all")
        assert [await peer.text(), await peer.text()] == ["out", "to all"]
        assert await age() < timedelta(seconds=500)


# DELETE


async def test_a_backend_closes_a_connection(backend: Backend) -> None:
    """The client gets 1000, `$disconnect` is told of a normal end, and then the connection is gone."""
    boto = await backend.boto()
    async with await backend.lab.open() as peer:
        answer = await backend.call(boto.delete_connection, ConnectionId=peer.id)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
        close = await peer.receive()
        assert (close.opcode, close.code) == (CLOSE, 1000)
        await peer.send(closing(1000))
        await peer.ended()
        assert await backend.lab.end(peer) == (1000, "Connection Closed Normally")
        with pytest.raises(boto.exceptions.GoneException):
            await backend.call(boto.delete_connection, ConnectionId=peer.id)


async def test_what_was_posted_before_arrives_before_the_end(backend: Backend) -> None:
    """A last word, and then the close."""
    boto = await backend.boto()
    async with await backend.lab.open() as peer:
        await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=b"the last word")
        await backend.call(boto.delete_connection, ConnectionId=peer.id)
        assert await peer.text() == "the last word"
        assert (await peer.receive()).code == 1000


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("code=4000&reason=try%20again", (4000, "try again")),
        ("code=3000", (3000, "")),
        ("code=4999&reason=" + "x" * 123, (4999, "x" * 123)),
        ("reason=gr%C3%BC%C3%9Fe", (1000, "grüße")),
        ("code=1000", (1000, "")),
        ("other=thing", (1000, "Connection Closed Normally")),
    ],
)
async def test_a_backend_says_why_it_closes(query: str, told: tuple[int, str]) -> None:
    """Code and reason in the query, beyond AWS, reach the client and `$disconnect`."""
    async with serving() as backend, await backend.lab.open() as peer:
        assert (await backend.raw("DELETE", f"{path_of(peer)}?{query}")).status_code == 204
        close = await peer.receive()
        assert (close.code, close.reason) == told
        await peer.send(closing(1000))
        assert await backend.lab.end(peer) == told


@pytest.mark.parametrize(
    "query",
    [
        *(
            f"code={code}"
            for code in ("999", "1001", "1005", "1006", "2999", "5000", "04000", "x", "", "-4000", "%C2%B2")
        ),
        "code=4000&code=4001",
        "code=4000&reason=" + "x" * 124,
        "reason=" + "%C3%BC" * 62,
        "reason=%FF",
    ],
)
async def test_a_close_that_cannot_be_sent_is_refused(query: str) -> None:
    """With 400 and a sentence; the connection stays."""
    async with serving() as backend, await backend.lab.open() as peer:
        status, error, _ = refused(await backend.raw("DELETE", f"{path_of(peer)}?{query}"))
        assert (status, error) == (400, "BadRequestException")
        await still_works(peer)


# Connections that are not there


async def test_an_unknown_connection_is_gone(backend: Backend) -> None:
    """For all three operations boto3 raises `GoneException`; the body is empty, as AWS's is."""
    boto = await backend.boto()
    calls: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (boto.post_to_connection, {"Data": b"x"}),
        (boto.get_connection, {}),
        (boto.delete_connection, {}),
    ]
    for operation, parameters in calls:
        with pytest.raises(boto.exceptions.GoneException) as caught:
            await backend.call(operation, ConnectionId=UNKNOWN, **parameters)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 410
        assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0
    answer = await backend.raw("POST", f"/ws/@connections/{UNKNOWN}", b"x")
    assert (answer.status_code, answer.content) == (410, b"")
    assert answer.headers["x-amzn-errortype"] == "GoneException"


async def test_a_connection_that_is_closing_is_gone(backend: Backend) -> None:
    """From the moment that either side has begun to close it."""
    async with await backend.lab.open() as peer:
        assert (await backend.raw("DELETE", path_of(peer))).status_code == 204
        for method in ("POST", "GET", "DELETE"):
            assert (await backend.raw(method, path_of(peer))).status_code == 410
    async with await backend.lab.open() as peer:
        await peer.send(closing(1000))
        await peer.closed()
        assert (await backend.raw("POST", path_of(peer), b"x")).status_code == 410


async def test_a_connection_is_not_there_during_connect() -> None:
    """`$connect` cannot post to whom it lets in, nor ask, nor close; once it has agreed, others can."""
    functions = Functions()
    functions.held.clear()
    async with serving(functions) as backend, await backend.lab.dial(request()) as peer:
        peer.id = (await functions.wait_for("CONNECT"))["requestContext"]["connectionId"]
        for method in ("POST", "GET", "DELETE"):
            assert (await backend.raw(method, path_of(peer))).status_code == 410
        functions.held.set()
        assert (await peer.answer()).status == 101
        await until(lambda: backend.lab.hub.get(peer.id) is not None, "the connection")
        assert (await backend.raw("POST", path_of(peer), b"welcome")).status_code == 200
        assert await peer.text() == "welcome"


@pytest.mark.parametrize(
    "name", ["x", "R0oXAdfD0kwCH6w", "R0oXAdfD0kwCH6w==", "cjy8i76bx002884le6n17d49b", "R0oX dfD0kwCH6w="]
)
async def test_an_id_that_can_be_none_is_refused(name: str) -> None:
    """With 400 and AWS's words: it was never a connection's."""
    async with serving() as backend:
        answer = await backend.raw("POST", f"/ws/@connections/{quote(name, safe='')}", b"x")
        assert refused(answer) == (400, "BadRequestException", f"Invalid connectionId: {name}")


def one_of(functions: Functions, api_id: str, stage: str) -> Api:
    """An API with those functions."""
    return Api(routes=functions.api().routes, id=api_id, stage=stage)


async def test_apis_and_stages_do_not_reach_each_others_connections() -> None:
    """A connection is gone under any path but its own API's at its own stage; domains lead to their API's."""
    functions = Functions()
    sites = Sites(
        {"/dev": one_of(functions, "aaaaaaaaaa", "dev"), "/prod": one_of(functions, "aaaaaaaaaa", "prod")},
        {
            "other.example": {"": one_of(functions, "bbbbbbbbbb", "prod")},
            "mapped.example": {"": one_of(functions, "aaaaaaaaaa", "prod")},
        },
    )
    async with serving(functions, api=sites) as backend, await backend.lab.open(request("/prod")) as peer:
        rest = f"/@connections/{quote(peer.id, safe='')}"
        assert (await backend.raw("POST", f"/dev{rest}", b"1")).status_code == 410
        assert (await backend.raw("POST", rest, b"2", host="other.example")).status_code == 410
        assert (await backend.raw("POST", rest, b"3", host="mapped.example")).status_code == 200
        assert (await backend.raw("POST", rest, b"4", host="mapped.example:443")).status_code == 200
        assert (await backend.raw("POST", f"/prod{rest}", b"5")).status_code == 200
        assert (await backend.raw("POST", rest, b"6")).status_code == 403  # which of the two?
        assert [await peer.text() for _ in range(3)] == ["3", "4", "5"]


# Who may call


async def test_a_wrong_stage_is_forbidden(backend: Backend) -> None:
    """As AWS says it to whoever forgets the stage or misspells it: boto3 raises `ForbiddenException`."""
    boto = await backend.boto(url=f"http://127.0.0.1:{backend.lab.port}/wrong")
    async with await backend.lab.open() as peer:
        with pytest.raises(boto.exceptions.ForbiddenException) as caught:
            await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=b"x")
        assert caught.value.response["Error"]["Message"] == "Forbidden"
        answer = await backend.raw("POST", f"/wrong/@connections/{peer.id}", b"x", credentials=None)
        assert refused(answer) == (403, "ForbiddenException", "Forbidden")


async def test_a_call_must_be_signed(backend: Backend) -> None:
    """Without a signature it is refused, whatever it is about, and the client notices nothing."""
    async with await backend.lab.open() as peer:
        for method in ("POST", "GET", "DELETE"):
            answer = await backend.raw(method, path_of(peer), credentials=None)
            assert refused(answer) == (403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        answer = await backend.raw("GET", path_of(peer), credentials=None, headers={"Authorization": "Bearer abc"})
        assert refused(answer)[:2] == (403, "IncompleteSignatureException")
        await still_works(peer)


async def test_a_call_must_be_signed_by_a_known_key_with_its_secret(backend: Backend) -> None:
    """Boto3 says which was wrong, and does not try again."""
    wrong = {
        "InvalidSignatureException": Credentials(BACKEND.access_key, "guessed"),
        "UnrecognizedClientException": STRANGER,
    }
    async with await backend.lab.open() as peer:
        for code, credentials in wrong.items():
            boto = await backend.boto(credentials)
            with pytest.raises(ClientError) as caught:
                await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=b"x")
            assert caught.value.response["Error"]["Code"] == code
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
            assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0
        await still_works(peer)


async def test_a_call_must_be_signed_now_and_for_this_service(backend: Backend) -> None:
    """An old signature, one of the future, and one for another service are refused in AWS's words."""
    async with await backend.lab.open() as peer:
        now_s = time.time()
        expected = {
            "Signature expired: ": {"now_s": now_s - 400},
            "Signature not yet current: ": {"now_s": now_s + 400},
            "Credential should be scoped to correct service: 'execute-api'. ": {"service": "lambda"},
        }
        for words, options in expected.items():
            status, error, message = refused(await backend.raw("POST", path_of(peer), b"x", **options))
            assert (status, error) == (403, "InvalidSignatureException")
            assert message.startswith(words)
        await still_works(peer)


async def test_on_a_machine_of_ones_own_any_key_will_do() -> None:
    """Where that is set: whatever credentials there are; but a known key still needs its secret."""
    keys = Keys({BACKEND.access_key: BACKEND.secret_key}, accept_unknown=True)
    async with serving(keys=keys) as backend, await backend.lab.open() as peer:
        boto = await backend.boto(Credentials("ASIAWHATEVER", "of somebody", "a session token"))
        await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=b"hello")
        assert await peer.text() == "hello"
        boto = await backend.boto(Credentials(BACKEND.access_key, "guessed"))
        with pytest.raises(ClientError, match="InvalidSignatureException"):
            await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=b"x")
        assert refused(await backend.raw("GET", path_of(peer), credentials=None))[0] == 403


# How often


async def test_boto3_tries_again_what_is_refused_for_now() -> None:
    """A call over the account's quota is a 429, which boto3 makes good by itself."""
    account = Stingy()
    async with serving(account=account) as backend, await backend.lab.open() as peer:
        boto = await backend.boto()
        account.refusals = 2
        answer = await backend.call(boto.post_to_connection, ConnectionId=peer.id, Data=b"at last")
        assert answer["ResponseMetadata"]["RetryAttempts"] == 2
        assert await peer.text() == "at last"


async def test_what_is_over_the_quota_is_refused() -> None:
    """Where nobody tries again: `LimitExceededException`; a call that is not signed takes nothing of the quota."""
    account = Stingy()
    async with serving(account=account) as backend, await backend.lab.open() as peer:
        boto = await backend.boto(retries={"max_attempts": 0})
        account.refusals = 2
        with pytest.raises(boto.exceptions.LimitExceededException) as caught:
            await backend.call(boto.get_connection, ConnectionId=peer.id)
        assert caught.value.response["Error"]["Message"] == "Too Many Requests"
        assert (await backend.raw("POST", path_of(peer), b"x", credentials=None)).status_code == 403
        assert (await backend.raw("POST", path_of(peer), b"x")).status_code == 429
        assert (await backend.raw("POST", path_of(peer), b"x")).status_code == 200
        assert await peer.text() == "x"


# What is no operation


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("PUT", f"/ws/@connections/{UNKNOWN}", f"@connections/{UNKNOWN}"),
        ("PATCH", f"/ws/%40connections/{UNKNOWN}", f"@connections/{UNKNOWN}"),
        ("POST", "/ws/@connections", "@connections"),
        ("POST", "/ws/@connections/", "@connections/"),
        ("GET", f"/@connections/{UNKNOWN}/more", f"@connections/{UNKNOWN}/more"),
    ],
)
async def test_what_is_no_operation_is_not_found(method: str, path: str, route: str) -> None:
    """In AWS's words."""
    async with serving() as backend:
        words = f"No method found matching route {route} for http method {method}."
        assert refused(await backend.raw(method, path)) == (404, "NotFoundException", words)


async def test_other_paths_are_the_applications(backend: Backend) -> None:
    """And so is the management API's own where the gateway was given no keys."""
    async with httpx.AsyncClient(timeout=BOUND_S, trust_env=False) as http:
        for path in ("/hello", "/@connectionsless/x", "/x@connections/y"):
            assert (await http.get(f"http://127.0.0.1:{backend.lab.port}{path}")).text == path
    async with serving(keys=None) as keyless, httpx.AsyncClient(timeout=BOUND_S, trust_env=False) as http:
        answer = await http.get(f"http://127.0.0.1:{keyless.lab.port}/ws/@connections/{UNKNOWN}")
        assert answer.text == f"/ws/@connections/{UNKNOWN}"


async def test_every_answer_has_a_request_id_of_its_own(backend: Backend) -> None:
    """A UUID, as AWS's have."""
    answers = [await backend.raw("GET", f"/ws/@connections/{UNKNOWN}") for _ in range(3)]
    assert len({answer.headers["x-amzn-requestid"] for answer in answers}) == 3
    assert all(len(answer.headers["x-amzn-requestid"]) == 36 for answer in answers)


async def test_routes_may_be_called_while_posts_arrive() -> None:
    """A function that posts to the connection which called it, as every sample does, before it answers."""
    functions = Functions()
    made: list[Backend] = []

    async def reply(event: Any) -> Any:
        context = event.request_context
        boto = await made[0].boto(url=f"http://{context.domain_name}/ws")
        await made[0].call(boto.post_to_connection, ConnectionId=context.connection_id, Data=event.body.upper())
        return await functions.echo(event)

    api = functions.api(default=Route(reply, two_way=True))
    async with serving(functions, api=api) as backend:
        made.append(backend)
        host = f"127.0.0.1:{backend.lab.port}"
        async with await backend.lab.open(request(Host=host)) as peer:
            await peer.send(frame(TEXT, b"hello"))
            assert [await peer.text(), await peer.text()] == ["HELLO", "hello"]
