"""Connections and their listening in a table that many functions change at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from directorylab import A1, A2, ALICE, BOB, OTHER, ROOM, A, B, Functions, connection
from doubles import FakeClock
from hubbub.aws.credentials import Fixed
from hubbub.aws.http import HttpResponse
from hubbub.aws.service import AwsError, Service
from hubbub.aws.table import Table
from hubbub.errors import NotFound, Unavailable
from hubbub.fanout import ApiGatewayDirectory
from hubbub.fanout.apigateway.keys import delivery_key, listener_key
from hubbub.model import RoomId, UserId
from hubbub.sigv4 import Credentials


@pytest.fixture
def functions(table: Table) -> Functions:
    return Functions(table)


async def test_what_one_function_wrote_every_other_one_knows(functions):
    """Whose a connection is, what it listens to, and that it ended."""
    await functions.connect("alice", A, ROOM)
    assert (await functions.two.principal(A)).user == ALICE
    assert [each for each, _ in await functions.two.audience(ROOM)] == [A]
    await functions.one.unlisten(A, ROOM)
    assert await functions.two.audience(ROOM) == []
    await functions.two.disconnect_connection(A)
    await functions.clock.advance(1)
    assert await functions.one.principal(A) is None


async def test_a_newer_token_is_known_everywhere_after_a_second_and_prolongs_what_there_is(functions, table):
    """Also the listeners' items, by which the broadcaster knows whom to leave out."""
    await functions.connect("alice", A, ROOM, ttl_s=60)
    before = await functions.one.principal(A)
    newer = functions.principal("alice", ttl_s=3_000, name="Alice")
    await functions.two.connect(A, newer)
    await functions.clock.advance(1)
    assert before != await functions.one.principal(A) == newer
    item = await table.get(listener_key(ROOM, 0, ALICE, A))
    assert (item["expires_at"], item["after"]) == (newer.expires_at, 0)


async def test_a_connection_that_outlived_its_items_is_nobodys_and_listens_to_nothing(functions):
    """DynamoDB may keep them for days; nobody takes them for valid."""
    await functions.connect("alice", A, ROOM, ttl_s=100_000)
    await functions.clock.advance(7_801)
    assert await functions.one.principal(A) is None
    assert await functions.one.connections(ALICE) == []
    assert await functions.one.audience(ROOM) == []
    assert await functions.one.online(ROOM, 10) == ([], 0)
    assert not await functions.one.is_online(ROOM, ALICE)
    assert await functions.listen(functions.one, A, OTHER) == {}
    await functions.one.follow(ALICE, OTHER, 0)
    assert await functions.one.audience(OTHER) == []


async def test_a_connection_that_has_outlived_its_items_can_come_anew(functions):
    """Under the same id, as the test of a gateway without a limit of two hours would."""
    await functions.connect("alice", A, ROOM, ttl_s=100_000)
    await functions.clock.advance(7_801)
    await functions.one.connect(A, functions.principal("alice"))
    assert await functions.listen(functions.two, A, OTHER) == {OTHER: []}


async def test_what_is_taken_out_by_one_function_does_not_listen_by_another(functions):
    """Neither when only the connection was to stop, nor when its user was to; and other rooms are not touched."""
    await functions.connect("alice", A)
    for end in (functions.two.unlisten(A, ROOM), functions.two.unfollow(ALICE, ROOM)):
        async with await functions.one.listen(A, [ROOM, OTHER]) as listening:
            await end
            assert await functions.start(listening, ROOM, OTHER) == {OTHER: []}
        assert await functions.two.audience(ROOM) == []


async def test_who_listened_and_is_taken_out_meanwhile_is_not_told_that_he_listens(functions):
    """What was known of the connection a moment ago does not count."""
    await functions.connect("alice", A, ROOM)
    async with await functions.one.listen(A, [ROOM]) as listening:
        await functions.two.unfollow(ALICE, ROOM)
        assert await functions.start(listening, ROOM) == {}
    assert await functions.two.audience(ROOM) == []


async def test_who_was_taken_out_may_come_back(functions):
    """What happened before it was asked to listen does not count."""
    await functions.connect("alice", A, ROOM)
    await functions.one.unlisten(A, ROOM)
    assert await functions.listen(functions.two, A, ROOM) == {ROOM: []}
    await functions.two.unfollow(ALICE, ROOM)
    await functions.one.follow(ALICE, ROOM, 0)
    assert [each for each, _ in await functions.two.audience(ROOM)] == [A]


async def test_who_was_taken_out_of_more_rooms_than_are_remembered_starts_over(functions):
    """It cannot be told any more whether he may listen, so he asks again."""
    await functions.connect("alice", A)
    async with await functions.one.listen(A, [ROOM]) as listening:
        for n in range(31):
            await functions.two.unlisten(A, RoomId(f"room-{n}"))
        with pytest.raises(Unavailable):
            await functions.start(listening, ROOM)
    assert await functions.listen(functions.one, A, ROOM) == {ROOM: []}


async def test_whoever_asks_for_all_who_listen_misses_nobody_who_is_about_to(functions):
    """In his own function he is told of them; elsewhere they are made to start over, and are not heard of before."""
    await functions.connect("alice", A)
    await functions.connect("bob", B)
    async with await functions.one.listen(A, [ROOM]) as here, await functions.two.listen(B, [ROOM]) as elsewhere:
        assert [each for each, _ in await functions.one.audience(ROOM)] == [A]
        assert await functions.start(here, ROOM) == {ROOM: []}
        with pytest.raises(Unavailable):
            await functions.start(elsewhere, ROOM)
    assert [each for each, _ in await functions.one.audience(ROOM)] == [A]
    assert functions.told == [(ROOM, "alice", True), (ROOM, "bob", True), (ROOM, "bob", False)]
    assert await functions.listen(functions.two, B, ROOM) == {ROOM: []}


async def test_what_was_written_while_a_connection_was_joining_is_found_in_the_log(functions, table):
    """It is returned, and the listener's item says that it need not be posted."""
    await functions.connect("alice", A)
    async with await functions.one.listen(A, [ROOM, OTHER]) as listening:
        functions.log = [1, 2, 3]
        found = await listening.start({ROOM: 1, OTHER: 3})
    assert found == {ROOM: [b"2", b"3"], OTHER: []}
    assert (await table.get(listener_key(ROOM, 0, ALICE, A)))["after"] == 3


async def test_a_room_in_which_more_is_written_at_every_look_does_not_keep_a_connection_from_joining(functions, table):
    """What is written after the first look is posted."""
    looks = 0

    async def read(room: RoomId, after: int) -> list[tuple[int, bytes]]:
        nonlocal looks
        looks += 1
        end = 150 * looks if looks < 3 else after + 7
        return [(seq, b"%d" % seq) for seq in range(after + 1, end + 1)]

    directory = ApiGatewayDirectory(table, clock=functions.clock, read=read)
    await directory.connect(A, functions.principal("alice"))
    async with await directory.listen(A, [ROOM]) as listening:
        assert await listening.start({ROOM: 0}) == {ROOM: [b"%d" % seq for seq in range(1, 308)]}
    assert looks == 3


async def test_who_took_too_long_to_join_starts_over(functions):
    """More was written meanwhile than a reply can bear."""
    await functions.connect("alice", A)
    async with await functions.one.listen(A, [ROOM]) as listening:
        functions.log = list(range(1, 1_002))
        with pytest.raises(Unavailable):
            await listening.start({ROOM: 0})
    assert await functions.one.audience(ROOM) == []
    assert functions.told == [(ROOM, "alice", True), (ROOM, "alice", False)]


async def test_a_room_that_is_deleted_while_a_connection_joins_it_has_nothing_to_tell(functions, table):
    """Its log cannot be read; that is no failure."""

    async def read(room: RoomId, after: int) -> list[tuple[int, bytes]]:
        raise NotFound

    directory = ApiGatewayDirectory(table, clock=functions.clock, read=read)
    await directory.connect(A, functions.principal("alice"))
    async with await directory.listen(A, [ROOM]) as listening:
        assert await listening.start({ROOM: 1}) == {ROOM: []}


async def test_only_logs_that_have_grown_are_read_where_the_store_can_tell(functions, table):
    """One question for all rooms instead of one for each."""
    asked: list[Mapping[RoomId, int]] = []
    read: list[RoomId] = []

    async def grown(afters: Mapping[RoomId, int]) -> list[RoomId]:
        asked.append(dict(afters))
        return [OTHER]

    async def read_after(room: RoomId, after: int) -> list[tuple[int, bytes]]:
        read.append(room)
        return [(2, b"2")] if after == 1 else []

    directory = ApiGatewayDirectory(table, clock=functions.clock, read=read_after, grown=grown)
    await directory.connect(A, functions.principal("alice"))
    async with await directory.listen(A, [ROOM, OTHER]) as listening:
        assert await listening.start({ROOM: 1, OTHER: 1}) == {ROOM: [], OTHER: [b"2"]}
    assert (asked, set(read)) == ([{ROOM: 1, OTHER: 1}], {OTHER})


async def test_a_user_who_follows_a_room_is_behind_where_more_was_written_meanwhile(functions):
    """Those of his connections that have begun to listen; where nothing was written they are like all others."""
    await functions.connect("alice", A1)
    await functions.connect("alice", A2, ROOM)
    functions.log = [1, 2]
    assert await functions.one.follow(ALICE, ROOM, 1) == {0: 2}
    listeners = {listener.connection: listener for listener in await functions.one._rooms.all(ROOM)}
    assert {each: (listener.is_behind, listener.after) for each, listener in listeners.items()} == {
        A1: (True, 1),
        A2: (False, 0),
    }
    assert await functions.one.follow(ALICE, ROOM, 1) == {}
    assert await functions.one.follow(BOB, ROOM, 1) == {}
    assert await functions.one.follow(ALICE, OTHER, 2) == {}
    assert [listener.is_behind for listener in await functions.one._rooms.all(OTHER)] == [False, False]


async def test_a_connection_that_ends_while_it_joins_leaves_nothing_behind(functions):
    """Whichever of the two is first, and whichever function does it."""
    for n in range(12):
        await functions.one.connect(A, functions.principal("alice"))
        async with await functions.one.listen(A, [ROOM, OTHER]) as listening:
            calls: list[Any] = [functions.start(listening, ROOM, OTHER), functions.two.disconnect_connection(A)]
            await asyncio.gather(*(calls if n % 2 else reversed(calls)))
        assert await functions.items() == []
    assert functions.told.count((ROOM, "alice", True)) == functions.told.count((ROOM, "alice", False))


async def test_a_connection_whose_end_was_left_half_done_is_forgotten_at_the_next_post(functions, table):
    """A function died after it had said that the connection ended; posts find it gone."""
    await functions.connect("alice", A, ROOM, OTHER)
    await functions.one._connections.end(A)
    assert await functions.two.disconnect_connection(A) is None
    assert await functions.listen(functions.two, A, RoomId("third")) == {}
    assert len(await functions.items()) > 0
    await functions.two.forget(A)
    assert await functions.items() == []
    assert sorted(functions.told[-2:]) == [(OTHER, "alice", False), (ROOM, "alice", False)]
    await functions.two.forget(A)


async def test_a_connection_that_is_just_arriving_is_not_taken_for_gone(functions):
    """API Gateway says so of it until `$connect` is done; once it has asked for something, or is old, it is gone."""
    await functions.one.connect(A, functions.principal("alice"))
    await functions.one.follow(ALICE, ROOM, 0)
    await functions.one.forget(A)
    assert [each for each, _ in await functions.one.audience(ROOM)] == [A]
    await functions.clock.advance(60)
    await functions.one.forget(A)
    assert await functions.one.audience(ROOM) == []
    await functions.connect("bob", B, ROOM)
    await functions.one.forget(B)
    assert await functions.one.audience(ROOM) == []


async def test_two_hundred_rooms_of_one_user_take_few_requests_and_leave_nothing_behind(functions, table):
    """More than a transaction takes: they come in several, each of which counts for itself."""
    rooms = [RoomId(f"room-{n:03}") for n in range(200)]
    await functions.one.connect(A, functions.principal("alice"))
    table.used.requests.clear()
    assert set(await functions.listen(functions.two, A, *rooms)) == set(rooms)
    assert table.used.requests["TransactWriteItems"] == 3
    assert len(functions.told) == 200
    assert await functions.one.is_online(rooms[0], ALICE)
    assert await functions.one.is_online(rooms[199], ALICE)
    await functions.one.connect(A, functions.principal("alice", ttl_s=4_000))
    await functions.one.disconnect_connection(A)
    assert len(functions.told) == 400
    assert await functions.items() == []


async def test_one_user_may_have_many_connections(functions):
    """They are told of as one, and each is reached."""
    many = [connection(f"c{n}") for n in range(60)]
    await asyncio.gather(*(functions.one.connect(each, functions.principal("alice")) for each in many))
    await functions.two.follow(ALICE, ROOM, 0)
    assert functions.told == [(ROOM, "alice", True)]
    assert sorted(await functions.one.connections(ALICE)) == sorted(many)
    assert await functions.one.online(ROOM, 10) == (["alice"], 1)
    assert await functions.one.listeners(ROOM) == 60
    await functions.one.unfollow(ALICE, ROOM)
    assert functions.told == [(ROOM, "alice", True), (ROOM, "alice", False)]
    assert await functions.one.audience(ROOM) == []


async def test_everybody_is_found_while_a_room_is_spread_over_more_shards(functions, table):
    """Members come, go and ask at every number of shards, and nobody is lost or counted twice."""
    users = [UserId(f"user-{n}") for n in range(40)]
    here: set[str] = set()
    for step, shards in enumerate((1, 2, 4, 16, 128)):
        await table.update(delivery_key(ROOM), "SET shards = :shards", values={"shards": shards})
        for user in users[step * 8 : step * 8 + 8]:  # some by functions that still know the number before
            await functions.connect(user, connection(user), ROOM)
            here.add(user)
        gone = users[step * 8]
        await functions.clock.advance(3)
        assert await functions.one.online(ROOM, 100) == (sorted(here), len(here))
        assert all([await functions.one.is_online(ROOM, UserId(user)) for user in here])
        assert {principal.user for _, principal in await functions.two.audience(ROOM)} == here
        await functions.two.disconnect_connection(connection(gone))
        here.discard(gone)
        assert not await functions.one.is_online(ROOM, gone)
    for user in here:
        await functions.one.unfollow(UserId(user), ROOM)
    assert await functions.one.online(ROOM, 100) == ([], 0)


async def test_listeners_are_as_many_as_the_broadcaster_saw_or_as_there_are_where_these_were_few(functions, table):
    """A room that was empty at its last message is counted; a large one is not."""
    await table.update(delivery_key(ROOM), "SET listeners = :n", values={"n": 3})
    await functions.connect("alice", A, ROOM)
    assert await functions.one.listeners(ROOM) == 1
    await table.update(delivery_key(ROOM), "SET listeners = :n", values={"n": 5_000})
    assert await functions.one.listeners(ROOM) == 1
    await functions.clock.advance(3)
    assert await functions.one.listeners(ROOM) == 5_000


@pytest.mark.parametrize("user", ["a#b", "100%", "%23", "Ünïcødé", "user#conn#x", "x" * 128, "🦀" * 128, " "])
async def test_user_ids_of_any_kind_are_told_apart(functions, user):
    """No id reaches into another's items, nor comes back as another."""
    await functions.connect(user, A, ROOM)
    await functions.connect("a", B, ROOM)
    assert await functions.one.online(ROOM, 10) == (sorted([user, "a"]), 2)
    assert await functions.one.is_online(ROOM, UserId(user))
    assert await functions.one.connections(UserId(user)) == [A]
    assert await functions.one.connections(UserId("a")) == [B]
    await functions.one.unfollow(UserId("a"), ROOM)
    assert await functions.one.online(ROOM, 10) == ([user], 1)


class _Refusing:
    """An HTTP client whose every answer is the same refusal."""

    def __init__(self, status: int, name: str) -> None:
        self._answer = HttpResponse(status, [(b"x-amzn-errortype", name.encode())], b"{}")

    async def request(self, *args: Any, **options: Any) -> HttpResponse:
        return self._answer


def _refused(status: int, name: str) -> ApiGatewayDirectory:
    http: Any = _Refusing(status, name)
    credentials = Fixed(Credentials("test", "test"))
    clock = FakeClock()
    service = Service(
        http,
        "dynamodb",
        region="us-east-1",
        credentials=credentials,
        endpoint="http://nowhere",
        environment={},
        clock=clock,
    )

    async def read(room: RoomId, after: int) -> list[tuple[int, bytes]]:
        return []

    return ApiGatewayDirectory(Table(service, "table", deadline_s=0.0), clock=clock, read=read)


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "ProvisionedThroughputExceededException"),
        (400, "ThrottlingException"),
        (400, "ResourceNotFoundException"),
        (500, "InternalServerError"),
    ],
)
async def test_a_table_that_cannot_answer_just_now_is_unavailable(status, name):
    """Throttled, failing or not there: whatever is asked, the caller is told to come again."""
    directory = _refused(status, name)
    principal = Functions.principal(Functions(None), "alice")  # type: ignore[arg-type]  # nothing is asked of its table
    calls = [
        directory.ping(),
        directory.connect(A, principal),
        directory.disconnect_connection(A),
        directory.principal(A),
        directory.lapsing(0, 60),
        directory.online(ROOM, 1),
        directory.is_online(ROOM, ALICE),
        directory.audience(ROOM),
        directory.listeners(ROOM),
        directory.look_after(ROOM, 0),
        directory.due(120_000),
        directory.sweep(120_000),
        directory.listen(A, [ROOM]),
        directory.unlisten(A, ROOM),
        directory.follow(ALICE, ROOM, 0),
        directory.unfollow(ALICE, ROOM),
        directory.forget(A),
    ]
    for call in calls:
        with pytest.raises(Unavailable):
            await call


async def test_a_table_that_refuses_for_good_is_a_defect_that_is_not_hidden(functions):
    """A permission that is lacking comes as AWS says it."""
    with pytest.raises(AwsError, match="AccessDeniedException"):
        await _refused(400, "AccessDeniedException").principal(A)
