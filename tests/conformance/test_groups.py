"""`@groups`, which AWS does not have: one call speaks to all members, through the client that this package offers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from backendlab import BACKEND, REGION, Backend, Stingy, serving, unread
from gatewaylab import Functions, still_works
from rawpeer import TEXT, Peer, closing, frame, request

from hubbub import ManagementClient
from hubbub.apigateway import Api
from hubbub.gateway import Sites
from hubbub.management import BadRequest, Forbidden, Gone, LimitExceeded, TooLarge
from live import BOUND_S, until

UNKNOWN = "R0oXAdfD0kwCH6w="


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A gateway and a backend whose key it knows."""
    async with serving() as made:
        yield made


def client_of(backend: Backend, prefix: str = "/ws", **options: Any) -> ManagementClient:
    """A client for the backend's gateway."""
    endpoint = f"http://127.0.0.1:{backend.lab.port}{prefix}"
    return ManagementClient(endpoint, BACKEND, REGION, **{"timeout_s": BOUND_S, "backoff_s": 0.001, **options})


async def members(client: ManagementClient, group: str) -> set[str]:
    """The ids of a group's members."""
    return {connection async for connection in client.members(group)}


async def test_what_is_published_goes_to_all_members_in_one_call(backend: Backend) -> None:
    """As a text frame, and to nobody else; how many that were is what the call returns."""
    async with client_of(backend) as client:
        ins = [await backend.lab.open() for _ in range(3)]
        out = await backend.lab.open()
        for peer in ins:
            await client.join("lobby", peer.id)
        assert await client.publish("lobby", "hello") == 3
        assert await client.publish("lobby", "grüße".encode()) == 3
        for peer in ins:
            assert [await peer.text(), await peer.text()] == ["hello", "grüße"]
        await still_works(out)


async def test_an_answer_tells_how_many_got_it(backend: Backend) -> None:
    """And how many went without."""
    async with client_of(backend) as client, await backend.lab.open() as peer:
        await client.join("lobby", peer.id)
        answer = await backend.raw("POST", "/ws/@groups/lobby", b"hello")
        assert (answer.status_code, answer.json()) == (200, {"sent": 1, "dropped": 0})
        assert answer.headers["content-type"] == "application/json"


async def test_joining_and_leaving_twice_is_as_good_as_once(backend: Backend) -> None:
    """Members get what is published once, however often they joined; leaving what one is not in is nothing."""
    async with client_of(backend) as client, await backend.lab.open() as peer:
        await client.leave("lobby", peer.id)
        for _ in range(2):
            await client.join("lobby", peer.id)
        assert await client.publish("lobby", "once") == 1
        assert await peer.text() == "once"
        for _ in range(2):
            await client.leave("lobby", peer.id)
        assert await client.publish("lobby", "never") == 0
        await still_works(peer)


async def test_one_may_be_left_out(backend: Backend) -> None:
    """Who wrote a message does not need it; an id that is not there leaves out nobody."""
    async with client_of(backend) as client:
        a, b = await backend.lab.open(), await backend.lab.open()
        outsider = await backend.lab.open()
        for peer in (a, b):
            await client.join("lobby", peer.id)
        assert await client.publish("lobby", "from a", exclude=a.id) == 1
        assert await client.publish("lobby", "from nobody", exclude=UNKNOWN) == 2
        assert await client.publish("lobby", "from outside", exclude=outsider.id) == 2
        assert [await a.text(), await a.text()] == ["from nobody", "from outside"]
        assert [await b.text() for _ in range(3)] == ["from a", "from nobody", "from outside"]


async def test_a_connection_keeps_its_order(backend: Backend) -> None:
    """Whatever reaches it through groups and by itself, in the order of the calls."""
    async with client_of(backend) as client, await backend.lab.open() as peer:
        for group in ("one", "two"):
            await client.join(group, peer.id)
        for n in range(5):
            await client.publish("one", f"{n}a")
            await client.post(peer.id, f"{n}b")
            await client.publish("two", f"{n}c", exclude=UNKNOWN)
        assert [await peer.text() for _ in range(15)] == [f"{n}{x}" for n in range(5) for x in "abc"]


async def test_membership_ends_with_the_connection(backend: Backend) -> None:
    """Whoever ends it: the client, the backend, or the network."""
    async with client_of(backend) as client:
        by_client, by_backend, by_network, stays = [await backend.lab.open() for _ in range(4)]
        for peer in (by_client, by_backend, by_network, stays):
            await client.join("lobby", peer.id)
        await by_client.send(closing(1000))
        await by_client.closed()
        await client.close(by_backend.id)
        by_network.cut()
        await backend.lab.functions.wait_for("DISCONNECT", by_network.id)
        assert await members(client, "lobby") == {stays.id}
        assert await client.publish("lobby", "who is there?") == 1
        assert await stays.text() == "who is there?"


async def test_who_is_gone_cannot_join(backend: Backend) -> None:
    """Nor leave: it is gone, and its id may be forgotten; an id that can be none is malformed."""
    async with client_of(backend) as client:
        closing_peer = await backend.lab.open()
        await client.close(closing_peer.id)
        for connection in (UNKNOWN, closing_peer.id):
            with pytest.raises(Gone):
                await client.join("lobby", connection)
            with pytest.raises(Gone):
                await client.leave("lobby", connection)
        for operation in (client.join, client.leave):
            with pytest.raises(BadRequest, match="Invalid connectionId: x"):
                await operation("lobby", "x")
        with pytest.raises(BadRequest, match="Invalid connectionId: x"):
            await client.publish("lobby", "hello", exclude="x")
        assert await members(client, "lobby") == set()


def one_of(functions: Functions, api_id: str, stage: str) -> Api:
    """An API with those functions."""
    return Api(routes=functions.api().routes, id=api_id, stage=stage)


async def test_a_group_belongs_to_its_api_and_stage() -> None:
    """The same name elsewhere is another group, and so is a group of the hub's own; nobody joins another's."""
    functions = Functions()
    sites = Sites({"/dev": one_of(functions, "aaaaaaaaaa", "dev"), "/prod": one_of(functions, "aaaaaaaaaa", "prod")})
    async with (
        serving(functions, api=sites) as backend,
        client_of(backend, "/dev") as dev,
        client_of(backend, "/prod") as prod,
    ):
        a, b = await backend.lab.open(request("/dev")), await backend.lab.open(request("/prod"))
        await dev.join("lobby", a.id)
        await prod.join("lobby", b.id)
        assert backend.lab.hub.join("lobby", a.id)
        assert await dev.publish("lobby", "to dev") == 1
        assert await prod.publish("lobby", "to prod") == 1
        backend.lab.hub.publish("lobby", b"to the hub's own")
        assert [await a.text(), await a.text()] == ["to dev", "to the hub's own"]
        assert await b.text() == "to prod"
        with pytest.raises(Gone):
            await prod.join("lobby", a.id)
        assert await members(prod, "lobby") == {b.id}
        await still_works(b)


async def test_members_are_listed_a_page_at_a_time(backend: Backend) -> None:
    """In the order of their ids, with the count of all; what comes and goes meanwhile disturbs nobody's place."""
    async with client_of(backend) as client:
        peers = [await backend.lab.open() for _ in range(5)]
        for peer in peers:
            await client.join("lobby", peer.id)
        ids = sorted(peer.id for peer in peers)
        first = (await backend.raw("GET", "/ws/@groups/lobby?limit=2")).json()
        assert first == {"count": 5, "connections": ids[:2], "nextToken": ids[1]}
        await client.leave("lobby", ids[1])
        second = (await backend.raw("GET", f"/ws/@groups/lobby?limit=2&nextToken={quote(ids[1])}")).json()
        assert second == {"count": 4, "connections": ids[2:4], "nextToken": ids[3]}
        last = (await backend.raw("GET", f"/ws/@groups/lobby?limit=2&nextToken={quote(ids[3])}")).json()
        assert last == {"count": 4, "connections": ids[4:]}
        assert [connection async for connection in client.members("lobby")] == [ids[0], *ids[2:]]
        empty = (await backend.raw("GET", "/ws/@groups/empty")).json()
        assert empty == {"count": 0, "connections": []}


async def test_the_client_fetches_all_pages(backend: Backend) -> None:
    """However many members there are; here pages are small."""
    async with client_of(backend) as client:
        peers = [await backend.lab.open() for _ in range(5)]
        for peer in peers:
            await client.join("lobby", peer.id)
        whole = [connection async for connection in client.members("lobby", page=2)]
        assert whole == sorted(peer.id for peer in peers)


NAMES = ["a", "room#42", "user:ann@example.com", "a.b_c~d-e=f+g", "x" * 128]


@pytest.mark.parametrize("name", NAMES)
async def test_a_group_may_be_called(name: str) -> None:
    """Anything of 1 to 128 letters, digits and `_ . ~ : @ = + # -`, percent-encoded in the path or not."""
    async with serving() as backend, client_of(backend) as client, await backend.lab.open() as peer:
        await client.join(name, peer.id)
        assert await client.publish(name, "hello") == 1
        assert (await backend.raw("POST", f"/ws/%40groups/{quote(name)}", b"again")).json()["sent"] == 1
        assert [await peer.text(), await peer.text()] == ["hello", "again"]


@pytest.mark.parametrize("name", ["a b", "a/b", "ä", "x" * 129, "a\n", "\x00", "%"])
async def test_a_group_may_not_be_called(name: str) -> None:
    """Anything else: 400 for every operation."""
    async with serving() as backend, client_of(backend) as client, await backend.lab.open() as peer:
        for call in (
            client.join(name, peer.id),
            client.leave(name, peer.id),
            client.publish(name, ""),
            members(client, name),
        ):
            with pytest.raises(BadRequest, match="Invalid group") as caught:
                await call
            assert (caught.value.status, caught.value.type) == (400, "BadRequestException")


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("POST", "droppable=yes"),
        ("POST", "droppable="),
        ("POST", "exclude="),
        ("POST", "exclude=x&exclude=y"),
        *(("GET", f"limit={limit}") for limit in ("0", "1001", "x", "", "-1", "%C2%B2")),
        ("GET", "nextToken=x"),
        ("GET", "limit=1&limit=2"),
    ],
)
async def test_a_parameter_that_makes_no_sense_is_refused(method: str, query: str) -> None:
    """With 400, and nothing is sent."""
    async with serving() as backend, client_of(backend) as client, await backend.lab.open() as peer:
        await client.join("lobby", peer.id)
        answer = await backend.raw(method, f"/ws/@groups/lobby?{query}", b"hello" if method == "POST" else b"")
        assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "BadRequestException")
        await still_works(peer)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/ws/@groups/lobby"),
        ("PUT", "/ws/@groups/lobby"),
        ("POST", f"/ws/@groups/lobby/connections/{UNKNOWN}"),
        ("PUT", f"/ws/@groups/lobby/members/{UNKNOWN}"),
        ("PUT", "/ws/@groups/lobby/connections/"),
        ("PUT", "/ws/@groups/lobby/connections"),
        ("POST", "/ws/@groups"),
        ("POST", "/ws/@groups//"),
    ],
)
async def test_there_are_no_other_operations(method: str, path: str) -> None:
    """404, in AWS's words."""
    async with serving() as backend:
        answer = await backend.raw(method, path)
        assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (404, "NotFoundException")
        route = path.removeprefix("/ws/")
        assert answer.json()["message"] == f"No method found matching route {route} for http method {method}."


async def test_what_holds_for_connections_holds_for_groups() -> None:
    """The signature, the stage, the quota, the length and UTF-8."""
    account = Stingy()
    async with serving(account=account) as backend, client_of(backend) as client, await backend.lab.open() as peer:
        await client.join("lobby", peer.id)
        answer = await backend.raw("POST", "/ws/@groups/lobby", b"x", credentials=None)
        assert (answer.status_code, answer.json()["message"]) == (403, "Missing Authentication Token")
        async with client_of(backend, "/wrong") as lost:
            with pytest.raises(Forbidden, match="Forbidden") as caught:
                await lost.publish("lobby", "x")
            assert caught.value.type == "ForbiddenException"
        with pytest.raises(TooLarge, match="at most 131072 bytes"):
            await client.publish("lobby", "x" * 131_073)
        with pytest.raises(BadRequest, match="UTF-8"):
            await client.publish("lobby", b"\xff")
        async with client_of(backend, retries=0) as hasty:
            account.refusals = 1
            with pytest.raises(LimitExceeded, match="Too Many Requests"):
                await hasty.publish("lobby", "x")
        await still_works(peer)
        await client.publish("lobby", "y" * 131_072)
        assert await peer.text() == "y" * 131_072


async def test_a_call_for_many_takes_one_request_of_the_quota() -> None:
    """However many members there are."""
    account = Stingy()
    async with serving(account=account) as backend, client_of(backend) as client:
        for _ in range(5):
            await client.join("lobby", (await backend.lab.open()).id)
        before = account.refusals
        assert await client.publish("lobby", "hello") == 5
        assert account.refusals == before - 1


async def test_who_does_not_read_goes_without_what_may_be_dropped(backend: Backend) -> None:
    """It is counted, stays, and has what was meant for it when it reads again; the others notice nothing."""
    async with client_of(backend) as client, await unread(backend.lab) as slow, await backend.lab.open() as peer:
        for each in (slow, peer):
            await client.join("lobby", each.id)
        assert await client.publish("lobby", "typing", droppable=True) == 1
        answer = await backend.raw("POST", f"/ws/@groups/lobby?droppable=true&exclude={quote(peer.id)}", b"typing")
        assert answer.json() == {"sent": 0, "dropped": 1}
        answer = await backend.raw("POST", f"/ws/@groups/lobby?droppable=true&exclude={quote(slow.id)}", b"typing")
        assert answer.json() == {"sent": 1, "dropped": 0}
        assert await client.publish("lobby", "said") == 2
        assert [await peer.text() for _ in range(3)] == ["typing", "typing", "said"]
        slow.read_again()
        while (text := await slow.text()).startswith("x"):
            pass
        assert text == "said"


async def test_who_does_not_read_at_all_is_closed(backend: Backend) -> None:
    """With 4408, once too much waits for it that may not be dropped: it would have a gap that nobody tells it of."""
    async with client_of(backend) as client, await unread(backend.lab) as slow, await backend.lab.open() as peer:
        for each in (slow, peer):
            await client.join("lobby", each.id)
        published = 0
        while await client.publish("lobby", "y" * 100_000) == 2:
            published += 1
            assert published < 100, "the buffer has no end"
            assert len(await peer.text()) == 100_000
        assert published >= 5
        assert len(await peer.text()) == 100_000
        assert backend.lab.hub.stats.slow_closed == 1
        await still_works(peer)


async def test_a_client_may_speak_while_it_is_spoken_to(backend: Backend) -> None:
    """A function's answers and what is published come to the same connection whole."""
    async with client_of(backend) as client, await backend.lab.open() as peer:
        await client.join("lobby", peer.id)
        for n in range(10):
            await peer.send(frame(TEXT, f"mine {n}".encode()))
            await client.publish("lobby", f"theirs {n}")
        came = [await peer.text() for _ in range(20)]
        assert sorted(came) == sorted([f"mine {n}" for n in range(10)] + [f"theirs {n}" for n in range(10)])
        assert [text for text in came if text.startswith("theirs")] == [f"theirs {n}" for n in range(10)]


async def test_hundreds_hear_one_call_and_leave_nothing_behind() -> None:
    """The group is empty when all are gone."""
    async with serving() as backend, client_of(backend) as client:
        peers: list[Peer] = []
        for _ in range(200):
            peers.append(await backend.lab.open())
            await client.join("lobby", peers[-1].id)
        assert await client.publish("lobby", "hello") == len(peers)
        assert {await peer.text() for peer in peers} == {"hello"}
        for peer in peers:
            peer.cut()
        await until(lambda: not len(backend.lab.hub), "all are gone")
        assert (await backend.raw("GET", "/ws/@groups/lobby")).json()["count"] == 0
