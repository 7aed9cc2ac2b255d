"""Quotas: each of AWS's, at values that a test can wait for, and what a client is told that is over one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gatewaylab import Functions, Lab, running, still_works
from rawpeer import BINARY, CONTINUATION, TEXT, Peer, frame, request

from hubbub.apigateway import Api, Rate, Response, Route
from hubbub.gateway import PROFILES, Account, GatewayLimits, profile

AWS = PROFILES["aws"]


async def ignore(event: Any) -> Response:
    """A function that says nothing."""
    return Response()


async def told(peer: Peer) -> str:
    """What the message of the document is that came."""
    return str(json.loads(await peer.text())["message"])


def test_the_profile_has_awss_values() -> None:
    """128 KB in frames of 32 KB, 10 minutes idle, 2 hours of life, 500 connections/s, 10,000 requests/s, 29 s."""
    expected = GatewayLimits(
        max_message_bytes=131_072,
        max_frame_bytes=32_768,
        max_post_bytes=131_072,
        max_url_bytes=4_096,
        accept_binary=False,
        ping_after_s=None,
        idle_s=600.0,
        lifetime_s=7_200.0,
        max_in_flight=100_000,
        handler_timeout_s=29.0,
        connections=Rate(500, 500),
        requests=Rate(10_000, 5_000),
    )
    assert expected == AWS


def test_a_profile_is_changed_by_what_follows_its_name() -> None:
    """Times, sizes, rates and none are read; everything else stays the profile's."""
    changed = profile("aws, idle_s=1.5,lifetime_s=none,requests=10/5,max_post_bytes=100,pings_are_activity=true")
    assert (changed.idle_s, changed.lifetime_s, changed.requests) == (1.5, None, Rate(10, 5))
    assert (changed.max_post_bytes, changed.pings_are_activity) == (100, True)
    assert changed.max_frame_bytes == AWS.max_frame_bytes
    assert profile("none").accept_binary


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("azure", "expected one of aws, none, got 'azure'"),
        ("aws,idle=3", "got 'idle=3'"),
        ("aws,idle_s", "got 'idle_s'"),
        ("aws,idle_s=soon", "idle_s: .*'soon'"),
        ("aws,requests=many/5", "requests: .*'many/5'"),
        ("aws,accept_binary=none", "accept_binary: .*'none'"),
    ],
)
def test_a_profile_that_is_none_is_refused_with_what_was_expected(text: str, words: str) -> None:
    """The error names what was expected and what came."""
    with pytest.raises(ValueError, match=words):
        profile(text)


async def test_a_message_of_128_kb_in_frames_of_32_kb_is_taken() -> None:
    """The largest message in the largest frames reaches its function whole."""
    async with running(max_message_bytes=131_072, max_frame_bytes=32_768) as lab, await lab.open() as peer:
        part = b"x" * 32_768
        await peer.send(frame(TEXT, part, bits=0))
        await peer.send(frame(CONTINUATION, part, bits=0), frame(CONTINUATION, part, bits=0))
        await peer.send(frame(CONTINUATION, part))
        assert len(await peer.text()) == 131_072


async def test_a_frame_over_32_kb_closes_with_1009() -> None:
    """However short the message would be."""
    async with running(max_message_bytes=131_072, max_frame_bytes=32_768) as lab:
        code, reason = await lab.fails(frame(TEXT, b"x" * 32_769))
        assert code == 1009
        assert "32768" in reason
        assert "131072" in reason


async def test_a_message_of_129_kb_closes_with_1009() -> None:
    """However small its frames are."""
    async with running(max_message_bytes=131_072, max_frame_bytes=32_768) as lab:
        parts = [frame(TEXT, b"x" * 32_768, bits=0), *[frame(CONTINUATION, b"x" * 32_768, bits=0)] * 3]
        code, _ = await lab.fails(*parts, frame(CONTINUATION, b"x" * 1_024))
        assert code == 1009


async def test_a_binary_message_closes_with_1003_under_aws_and_arrives_in_base64_under_none() -> None:
    """What API Gateway refuses is there for who asks for it, and the event says that it is base64."""
    async with running(accept_binary=AWS.accept_binary) as lab:
        assert (await lab.fails(frame(BINARY, b"\x00\xff")))[0] == 1003
    async with running(accept_binary=PROFILES["none"].accept_binary) as lab, await lab.open() as peer:
        await peer.send(frame(BINARY, b"\x00\xff"))
        event = await lab.functions.wait_for("MESSAGE", peer.id)
        assert (event["body"], event["isBase64Encoded"]) == ("AP8=", True)
        assert event["requestContext"]["routeKey"] == "$default"


async def test_a_gateway_without_pings_and_limits_of_time_serves() -> None:
    """There is nothing to look after, and that is no trouble."""
    async with running(ping_after_s=None, idle_s=None, lifetime_s=None) as lab, await lab.open() as peer:
        await still_works(peer)


async def test_a_target_over_4096_bytes_is_refused_with_414() -> None:
    """One that fits is not."""
    async with running(max_url_bytes=4_096) as lab:
        fits = "/ws?x=" + "y" * (4_096 - 6)
        await lab.open(request(fits))
        async with await lab.dial(request(fits + "y")) as peer:
            assert (await peer.answer()).status == 414


async def test_connections_over_the_rate_are_refused_with_429() -> None:
    """As many as the burst are let in, the next is told to come later, and `$connect` is not asked."""
    async with running(connections=Rate(0.001, 2)) as lab:
        first, _ = await lab.open(), await lab.open()
        async with await lab.dial(request()) as peer:
            answer = await peer.answer()
        assert (answer.status, answer.message) == (429, "Too Many Requests")
        assert len(lab.functions.of("CONNECT")) == 2
        await still_works(first)


async def test_messages_over_the_accounts_rate_are_told_so_and_the_connection_stays() -> None:
    """The document has the shape of the others; no function is called; `$connect` took from the same bucket."""
    async with running(requests=Rate(0.001, 2)) as lab, await lab.open() as peer:
        await still_works(peer)
        await peer.send(frame(TEXT, b"one too many"))
        document = json.loads(await peer.text())
        assert list(document) == ["message", "connectionId", "requestId"]
        assert (document["message"], document["connectionId"]) == ("Too Many Requests", peer.id)
        assert len(lab.functions.of("MESSAGE")) == 1


async def test_the_account_is_shared_by_its_gateways() -> None:
    """What one gateway takes, another has not."""
    account = Account(GatewayLimits(requests=Rate(0.001, 3)))
    async with (
        running(account=account) as one,
        running(account=account) as other,
        await one.open() as peer,
        await other.open() as second,
    ):
        await still_works(peer)
        await second.send(frame(TEXT, b"one too many"))
        assert await told(second) == "Too Many Requests"


async def test_a_stages_rate_holds_for_all_its_routes_together() -> None:
    """Two messages on two routes empty a bucket of three that `$connect` has taken from."""
    functions = Functions()
    api = functions.api()
    limited = Api(routes=api.routes, rate=Rate(0.001, 3))
    async with running(functions, api=limited) as lab, await lab.open() as peer:
        await still_works(peer)
        await peer.send(frame(TEXT, b'{"action": "who"}'))
        assert await peer.text() == peer.id
        await peer.send(frame(TEXT, b'{"action": "who"}'))
        assert await told(peer) == "Too Many Requests"


async def test_a_routes_rate_holds_for_that_route_alone() -> None:
    """Others go on."""
    functions = Functions()
    api = functions.api(slow=Route(functions.echo, two_way=True, rate=Rate(0.001, 1)))
    async with running(functions, api=api) as lab, await lab.open() as peer:
        for expected in (None, "Too Many Requests"):
            await peer.send(frame(TEXT, b'{"action": "slow"}'))
            document = json.loads(await peer.text())
            assert document.get("message") == expected
        await still_works(peer)


async def test_a_rate_of_nothing_lets_nothing_through() -> None:
    """A route that is throttled to 0 is closed, not free."""
    functions = Functions()
    api = functions.api(off=Route(ignore, rate=Rate(0, 0)))
    async with running(functions, api=api) as lab, await lab.open() as peer:
        await peer.send(frame(TEXT, b'{"action": "off"}'))
        assert await told(peer) == "Too Many Requests"


async def test_a_throttled_connect_refuses_with_429() -> None:
    """The rate of `$connect` holds for handshakes."""
    functions = Functions()
    api = functions.api(connect=Route(functions.connect, rate=Rate(0.001, 1)))
    async with running(functions, api=api) as lab:
        await lab.open()
        async with await lab.dial(request()) as peer:
            assert (await peer.answer()).status == 429


async def test_a_route_may_have_less_time_than_others(lab: Lab) -> None:
    """The integration's own time-out answers for it; a route without one has the gateway's."""
    functions = Functions()

    async def hang(event: Any) -> Response:
        await lab.functions.held.wait()
        return Response(body="late")

    lab.functions.held.clear()
    api = functions.api(hang=Route(hang, two_way=True, timeout_s=0.05))
    async with running(functions, api=api) as other, await other.open() as peer:
        await peer.send(frame(TEXT, b'{"action": "hang"}'))
        assert await told(peer) == "Internal server error"
        lab.functions.held.set()
        await still_works(peer)
