"""What becomes of a message: which function takes it, what of its answer reaches the client, how many run at once."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from gatewaylab import Functions, Lab, running, still_works
from rawpeer import PING, PONG, TEXT, Frame, closing, frame, request

from hubbub.apigateway import Event, Response, Route
from hubbub.gateway import sockets
from live import until


def said(action: str, **fields: object) -> bytes:
    """A message with an action."""
    return frame(TEXT, json.dumps({"action": action, **fields}).encode())


async def test_a_message_goes_to_the_route_that_it_names(lab: Lab) -> None:
    """The route key selects the function; a message that names none, or no JSON, goes to `$default`."""
    async with await lab.open() as peer:
        await peer.send(said("who"))
        assert await peer.text() == peer.id
        for body in ('{"action":"elsewhere"}', "{}", "no JSON", "[1]", '{"action":["who"]}', "", "\ud7ff"):
            await peer.send(frame(TEXT, body.encode()))
            if body:
                assert await peer.text() == body
    assert {event["requestContext"]["routeKey"] for event in lab.functions.of("MESSAGE")} == {"$default"}


@pytest.mark.parametrize("action", ["$connect", "$disconnect"])
async def test_no_message_reaches_connect_or_disconnect(lab: Lab, action: str) -> None:
    """A message that names `$connect` or `$disconnect` goes to `$default`."""
    async with await lab.open() as peer:
        await peer.send(said(action))
        assert await peer.json() == {"action": action}
        await still_works(peer)
    kinds = [event["requestContext"]["eventType"] for event in lab.functions.events]
    assert kinds.count("CONNECT") == 1


async def test_a_message_that_no_route_takes_is_forbidden() -> None:
    """Without a route and without `$default` the client gets the Forbidden document, byte for byte, and stays."""
    functions = Functions()
    async with running(functions, functions.api(default=None)) as lab, await lab.open() as peer:
        for body in (b"no JSON", b'{"action":"unknown"}', b'{"action":"$connect"}', b""):
            await peer.send(frame(TEXT, body))
            document = await peer.text()
            pattern = r'\{"message": "Forbidden", "connectionId":"(.{16})", "requestId":"([\w-]{15}=)"\}'
            match = re.fullmatch(pattern, document)
            assert match is not None, document
            assert match[1] == peer.id
            json.loads(document)
        await peer.send(said("who"))
        assert await peer.text() == peer.id


async def test_only_a_two_way_route_answers() -> None:
    """The body that a function returns is sent on a two-way route, text or bytes, and dropped on any other."""
    functions = Functions()

    async def answer(event: Event) -> Response:
        return Response(body="kept" if event.request_context.route_key == "text" else b"kept too")

    routes = {"oneway": Route(answer), "text": Route(answer, two_way=True), "bytes": Route(answer, two_way=True)}
    async with running(functions, functions.api(**routes)) as lab, await lab.open() as peer:
        await peer.send(said("oneway"))
        await peer.send(said("text"))
        assert await peer.text() == "kept"
        await peer.send(said("oneway"), said("bytes"))
        assert await peer.text() == "kept too"
        await still_works(peer)


@pytest.mark.parametrize("body", [None, "", b""])
async def test_an_empty_body_is_no_answer(body: str | bytes | None) -> None:
    """Where there is nothing to send nothing is sent."""
    functions = Functions()

    async def answer(event: Event) -> Response:
        return Response(body=body)

    async with running(functions, functions.api(none=Route(answer, two_way=True))) as lab, await lab.open() as peer:
        await peer.send(said("none"))
        await still_works(peer)


@pytest.mark.parametrize("status", [101, 200, 204, 301, 401, 410, 500, 501])
async def test_the_status_of_a_message_means_nothing(status: int) -> None:
    """Whatever status a message's function returns, its body is sent and the connection stays."""
    functions = Functions()

    async def answer(event: Event) -> Response:
        return Response(status_code=status, body="so be it")

    async with running(functions, functions.api(do=Route(answer, two_way=True))) as lab, await lab.open() as peer:
        await peer.send(said("do"))
        assert await peer.text() == "so be it"
        await still_works(peer)


def is_error_of(document: str, event: dict[str, dict[str, str]]) -> bool:
    """Whether this is the document of a failure, byte for byte."""
    context = event["requestContext"]
    return document == (
        f'{{"message": "Internal server error", "connectionId":"{context["connectionId"]}",'
        f' "requestId":"{context["requestId"]}"}}'
    )


@pytest.mark.parametrize("two_way", [True, False])
async def test_a_function_that_raises_is_answered_for(two_way: bool) -> None:
    """A function that raises makes the document of API Gateway, byte for byte, on any route; the connection stays."""
    functions = Functions()

    async def fail(event: Event) -> Response:
        await functions.keep(event)
        raise LookupError("a defect that the client must not see")

    async with running(functions, functions.api(fail=Route(fail, two_way))) as lab, await lab.open() as peer:
        await peer.send(said("fail"))
        assert is_error_of(await peer.text(), await functions.wait_for("MESSAGE"))
        await still_works(peer)
        assert lab.hub.stats.failures == 1


async def test_a_function_that_takes_too_long_is_answered_for_and_ends() -> None:
    """A function that takes too long makes the same document once; it runs to its end, and its answer is dropped."""
    functions = Functions()
    release, ended = asyncio.Event(), asyncio.Event()

    async def slow(event: Event) -> Response:
        await functions.keep(event)
        await release.wait()
        ended.set()
        return Response(body="too late")

    api = functions.api(slow=Route(slow, two_way=True))
    async with running(functions, api, handler_timeout_s=1.0) as lab, await lab.open() as peer:
        await peer.send(said("slow"))
        assert is_error_of(await peer.text(), await functions.wait_for("MESSAGE"))
        release.set()
        await ended.wait()
        await still_works(peer)


async def test_messages_of_one_connection_are_handled_at_the_same_time() -> None:
    """A message does not wait for the one before: begun in the order of arrival, answered in the order of the ends."""
    functions = Functions()
    begun: list[str] = []
    second = asyncio.Event()

    async def work(event: Event) -> Response:
        name = json.loads(event.body or "")["name"]
        begun.append(name)
        if name == "first":
            await second.wait()
        elif name == "second":
            second.set()
        return Response(body=name)

    async with running(functions, functions.api(work=Route(work, two_way=True))) as lab, await lab.open() as peer:
        await peer.send(said("work", name="first"), said("work", name="second"))
        assert [await peer.text(), await peer.text()] == ["second", "first"]
        assert begun == ["first", "second"]


class Held:
    """A function that counts its calls and ends none before it is released."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.release = asyncio.Event()

    async def __call__(self, event: Event) -> Response:
        self.bodies.append(event.body or "")
        await self.release.wait()
        return Response(body=event.body)


async def test_a_connection_with_too_many_functions_under_way_is_not_read() -> None:
    """Beyond `max_in_flight` nothing more is read, other connections go on, and in the end no message is lost."""
    functions, held = Functions(), Held()
    api = functions.api(default=Route(held, two_way=True), echo=Route(functions.echo, two_way=True))
    bodies = [f"{n:03} " + "x" * 1_000 for n in range(200)]
    async with running(functions, api, max_in_flight=8) as lab, await lab.open() as peer, await lab.open() as other:
        for body in bodies:
            await peer.send(frame(TEXT, body.encode()))
        await until(lambda: len(held.bodies) >= 8, "eight are under way")
        await lab.hang_on()
        assert held.bodies == bodies[:8], "also where one read brings more"
        await other.send(said("echo"))
        assert await other.json() == {"action": "echo"}
        held.release.set()
        assert sorted([await peer.text() for _ in bodies]) == bodies
        assert held.bodies == bodies
        await peer.send(frame(PING, b"again"))
        assert await peer.receive() == Frame(PONG, b"again")


async def test_the_bound_holds_for_what_comes_with_the_handshake() -> None:
    """Messages in the handshake's own segment count too: no more is taken before some have ended."""
    functions, held = Functions(), Held()
    early = [f"early {n:02}" for n in range(20)]
    late = [f"late {n:03} " + "x" * 1_000 for n in range(100)]
    async with (
        running(functions, functions.api(default=Route(held, two_way=True)), max_in_flight=8) as lab,
        await lab.dial(request(), *[frame(TEXT, body.encode()) for body in early]) as peer,
    ):
        assert (await peer.answer()).status == 101
        for body in late:
            await peer.send(frame(TEXT, body.encode()))
        await lab.hang_on()
        assert held.bodies == early[:8]
        held.release.set()
        assert sorted([await peer.text() for _ in early + late]) == early + late
        assert held.bodies == early + late


async def test_functions_end_though_their_connection_is_gone() -> None:
    """A connection that ends lets its functions run on; their answers are dropped, and `$disconnect` does not wait."""
    functions, held = Functions(), Held()
    async with running(functions, functions.api(default=Route(held, two_way=True))) as lab:
        peer = await lab.open()
        await peer.send(frame(TEXT, b"one"), closing(1000))
        assert await lab.end(peer) == (1000, "")
        assert held.bodies == ["one"]
        held.release.set()
        await still_works_elsewhere(lab)
        assert lab.hub.stats.failures == 0


async def still_works_elsewhere(lab: Lab) -> None:
    """Another connection can come and talk."""
    async with await lab.open() as peer:
        await still_works(peer)


async def test_a_disconnect_that_fails_troubles_nobody() -> None:
    """A `$disconnect` that raises is counted, and that is all."""
    functions = Functions()

    async def fail(event: Event) -> Response:
        await functions.keep(event)
        raise LookupError

    async with running(functions, functions.api(disconnect=fail)) as lab, await lab.open() as witness:
        peer = await lab.open()
        peer.cut()
        assert (await lab.end(peer))[0] == 1006
        await until(lambda: lab.hub.stats.failures == 1, "it is counted")
        await still_works(witness)


async def test_a_defect_of_the_gateways_own_ends_one_connection(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where taking a message goes wrong in the gateway itself, that connection closes with 1011 and no other."""
    peer, witness = await lab.open(), await lab.open()

    def fail(*_: object) -> None:
        raise LookupError("a defect")

    with monkeypatch.context() as broken:
        broken.setattr(lab.gateway, "message", fail)
        await peer.send(frame(TEXT, b"hi"), frame(TEXT, b"again"))
        assert (await peer.receive()).code == 1011
    await peer.send(closing(1011))
    await peer.ended()
    assert (await lab.end(peer))[0] == 1011
    await still_works(witness)


async def test_a_socket_that_cannot_be_handed_over_is_disconnected(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `$connect` has agreed and the socket then fails, `$disconnect` is told, and other connections go on."""
    witness = await lab.open()

    def fail(*_: object) -> None:
        raise OSError("the socket is of no use")

    with monkeypatch.context() as broken:
        broken.setattr(sockets, "switching", fail)
        peer = await lab.dial(request())
        connect = await lab.functions.wait_for("CONNECT", count=2)
        await peer.ended()
    peer.id = connect["requestContext"]["connectionId"]
    assert await lab.end(peer) == (1006, "Connection closed abnormally")
    await still_works(witness)
