"""Connections: tokens, starting and resuming, presence, limits, and frames that are not as they should be."""

from __future__ import annotations

import asyncio
import contextlib
import json
from unittest.mock import AsyncMock

import msgspec
import pytest

from chatlab import Tab, lab
from doubles import settle
from hubbub.errors import Unavailable
from hubbub.model import Principal
from hubbub.parallel import FEW_AT_ONCE
from hubbub.protocol import ACTIONS

TOKEN = "a.b.c"


@pytest.fixture
async def at():
    async with lab() as made:
        yield made


@pytest.fixture
async def alice(at):
    tab = await at.tab("alice", name="Alice")
    await tab.ok("create", kind="public", room="general", name="General")
    return tab


async def test_a_handshake_without_a_good_token_is_refused_and_told_why(at):
    """401 with a document that names the reason."""
    assert (await at.handshake(None))[:2][0] == 401
    status, body, _, _ = await at.handshake("garbage")
    assert (status, body["code"]) == (401, "unauthorized")
    status, body, _, _ = await at.handshake(at.token("alice", ttl_s=-5))
    assert (status, body["code"]) == (401, "token_expired")


async def test_the_subprotocol_is_selected_if_it_was_offered(at):
    """A browser that offers `hubbub.v1` beside its token gets `hubbub.v1` back."""
    event = at.event("CONNECT", "c=", None, headers={"sec-websocket-protocol": "hubbub.v1, jwt." + "x"})
    event.request_context.authorizer = {"principal": '{"user":"alice","expires_at":9999999999}'}
    response = await at.chat.handle(event)
    assert response.headers == {"Sec-WebSocket-Protocol": "hubbub.v1"}


async def test_a_token_is_found_in_any_line_of_its_header(at):
    """Subprotocols may come in one line or in several, in any order."""
    for lines in (["hubbub.v1", f"jwt.{TOKEN}"], [f"jwt.{TOKEN}", "hubbub.v1"], [f"hubbub.v1,jwt.{TOKEN}"]):
        event = at.event("CONNECT", "c=", None, headers={}, multi_value_headers={"Sec-WebSocket-Protocol": lines})
        at.chat.tokens.verify = verified = AsyncMock(return_value=Principal("alice", 2**40))
        event.request_context.authorizer = await at.chat.authorize(event)
        verified.assert_awaited_once_with(TOKEN)
        assert (await at.chat.handle(event)).headers == {"Sec-WebSocket-Protocol": "hubbub.v1"}


@pytest.mark.parametrize(
    "body",
    ["", "hi", "[]", "5", "null", '"x"', "{", '{"action":5}', '{"ref":"1"}', '{"action":"ping","ref":5}', "[" * 5000],
)
async def test_a_frame_that_is_no_object_with_an_action_is_a_bad_request(alice, body):
    """Whatever comes, the answer is an error and the connection goes on."""
    reply = json.loads((await alice.say(body)).body)
    assert (reply["type"], reply["code"], reply["retry"]) == ("error", "bad_request", False)
    assert "at" in await alice.ok("ping")


async def test_a_binary_frame_is_a_bad_request(alice):
    """Where the gateway lets binary frames through, the chat refuses them."""
    reply = json.loads((await alice.say("AAAA", binary=True)).body)
    assert reply["code"] == "bad_request"


async def test_an_unknown_action_is_an_error_and_unknown_fields_are_ignored(alice):
    """The protocol can grow."""
    assert await alice.refused("fly") == "unknown_action"
    assert await alice.refused("x" * 10_000) == "unknown_action"
    await alice.ok("ping", colour="blue")


async def test_without_a_ref_success_is_silent_and_an_error_is_not(alice):
    """No ref, no `ok`; but an error is always told."""
    assert (await alice.say('{"action":"ping"}')).body is None
    assert json.loads((await alice.say('{"action":"fly"}')).body)["code"] == "unknown_action"


async def test_an_error_inside_is_told_without_details(at, alice):
    """The client gets `internal` with the request's id, and no word of the cause."""

    @at.chat.before("ping")
    async def break_down(chat, by, ask):
        raise RuntimeError("the secret cause")

    reply = await alice.ask("ping")
    assert reply["code"] == "internal" and reply["retry"] and reply["request_id"]
    assert "secret" not in json.dumps(reply)


async def test_sync_returns_everything_missed(at, alice):
    """After a reconnect the entries since the last seq come in order, and live ones go on from there."""
    bob = await at.tab("bob")
    await bob.ok("join", room="general")
    synced = await bob.ok("sync")
    head = next(room["head"] for room in synced["rooms"])
    await bob.leave()
    for n in range(5):
        await alice.ok("send", room="general", text=str(n))
    bob = await at.tab("bob", sync=False)
    synced = await bob.ok("sync", rooms={"general": head}, epoch=synced["epoch"])
    assert [entry["text"] for entry in synced["entries"]] == list("01234")
    assert synced["entries"] == alice.of("message.created")
    assert (synced["more"], synced["reset"]) == ([], [])
    await alice.ok("send", room="general", text="live")
    assert [entry["text"] for entry in bob.entries] == ["live"]


async def test_messages_sent_during_sync_are_neither_lost_nor_doubled(at, alice):
    """Whenever a message falls into a sync, it is in the reply or comes live, exactly once."""
    for _ in range(20):
        bob = await at.tab("bob", sync=False, rooms={"general": "member"})
        start = (await alice.ok("history", room="general", limit=1))["head"]
        frames = [json.dumps({"action": "send", "room": "general", "text": str(n)}) for n in range(10)]
        results = await asyncio.gather(
            *(alice.say(frame) for frame in frames[:5]),
            bob.ask("sync", rooms={"general": start}),
            *(alice.say(frame) for frame in frames[5:]),
        )
        synced = results[5]
        got = [entry["seq"] for entry in synced["entries"]] + [entry["seq"] for entry in bob.entries]
        assert got == list(range(start + 1, start + 11))
        await bob.leave()


async def test_a_long_absence_is_told_in_part_and_names_the_rest():
    """Beyond a bound `sync` lists the room in `more`, and `history` goes on from the last entry."""
    async with lab(sync_entries=3) as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="a")
        await alice.ok("create", kind="public", room="b")
        for n in range(5):
            await alice.ok("send", room="a", text=str(n))
            await alice.ok("send", room="b", text=str(n))
        tab = await at.tab("alice", sync=False)
        synced = await tab.ok("sync", rooms={"a": 2, "b": 2})
        assert [(entry["room"], entry["seq"]) for entry in synced["entries"]] == [("a", 3), ("a", 4), ("a", 5)]
        assert synced["more"] == ["a", "b"]
        page = await tab.ok("history", room="a", after=5)
        assert [entry["seq"] for entry in page["entries"]] == [6, 7]
        assert {room["room"]: room["head"] for room in synced["rooms"]} == {"a": 7, "b": 7}


async def test_many_rooms_are_read_some_at_a_time(monkeypatch):
    """As many at once as the reply may carry, in the order of the rooms, and not all of a thousand."""
    async with lab() as at:
        alice = await at.tab("alice")
        names = [f"room{number:02}" for number in range(40)]
        for name in names:
            await alice.ok("create", kind="public", room=name)
            for n in range(2):
                await alice.ok("send", room=name, text=str(n))
        under_way, most, real = 0, 0, at.chat.store.page

        async def page(room, **where):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await settle()
            found = await real(room, **where)
            under_way -= 1
            return found

        monkeypatch.setattr(at.chat.store, "page", page)
        tab = await at.tab("alice", sync=False)
        synced = await tab.ok("sync", rooms=dict.fromkeys(names, 2))
        assert [(entry["room"], entry["text"]) for entry in synced["entries"]] == [
            (name, text) for name in names for text in ("0", "1")
        ]
        assert most == FEW_AT_ONCE


async def test_no_more_is_read_than_a_reply_may_carry(monkeypatch):
    """However many rooms there are, and what is left is named, in order."""
    async with lab(sync_entries=5) as at:
        alice = await at.tab("alice")
        names = [f"room{number}" for number in range(6)]
        for name in names:
            await alice.ok("create", kind="public", room=name)
            for n in range(2):
                await alice.ok("send", room=name, text=str(n))
        read = []
        real = at.chat.store.page

        async def page(room, **where):
            read.append((room, where["limit"]))
            return await real(room, **where)

        monkeypatch.setattr(at.chat.store, "page", page)
        tab = await at.tab("alice", sync=False)
        synced = await tab.ok("sync", rooms=dict.fromkeys(names, 2))
        assert [entry["room"] for entry in synced["entries"]] == ["room0", "room0", "room1", "room1", "room2"]
        assert synced["more"] == names[2:]
        assert read == [("room0", 2), ("room1", 2), ("room2", 2)]


async def test_seqs_of_another_epoch_or_beyond_the_head_are_reset(at, alice):
    """A client whose seqs mean nothing here is told so, room by room."""
    tab = await at.tab("alice", sync=False)
    assert (await tab.ok("sync", rooms={"general": 1}, epoch="another"))["reset"] == ["general"]
    assert (await tab.ok("sync", rooms={"general": 99}))["reset"] == ["general"]
    assert (await tab.ok("sync", rooms={"general": 1}))["reset"] == []


async def test_a_room_that_a_token_grants_is_there_at_once(at):
    """The customer's backend needs to do nothing but issue tokens: the rooms they name exist, with that role."""
    alice = await at.tab("alice", rooms={"team": "member"})
    bob = await at.tab("bob", rooms={"team": "reader"})
    await alice.ok("send", room="team", text="hi")
    assert [entry["text"] for entry in bob.of("message.created")] == ["hi"]
    assert await bob.refused("send", room="team", text="hi") == "forbidden"
    carol = await at.tab("carol", sync=False, rooms={"fresh": "member"})
    await carol.ok("send", room="fresh", text="first")
    assert await (await at.tab("dave")).refused("history", room="team") == "not_found"


async def test_anybody_listens_to_a_public_room_without_joining(at, alice):
    """`subscribe` gives live entries from its head on, leaves no membership, and ends with `unsubscribe`."""
    watcher = await at.tab("watcher")
    head = (await watcher.ok("subscribe", room="general"))["head"]
    seq = (await alice.ok("send", room="general", text="1"))["seq"]
    assert seq == head + 1
    assert [entry["seq"] for entry in watcher.entries] == [seq]
    assert (await alice.ok("members", room="general"))["count"] == 1
    assert await watcher.refused("send", room="general", text="x") == "not_a_member"
    await watcher.ok("read", room="general", seq=seq)
    await watcher.ok("unsubscribe", room="general")
    await alice.ok("send", room="general", text="2")
    assert len(watcher.entries) == 1
    await alice.ok("create", kind="private", room="secret")
    assert await watcher.refused("subscribe", room="secret") == "not_found"


async def test_a_subscription_resumes_by_naming_the_room(at, alice):
    """A public room named in `sync` is listened to again, with what was missed."""
    head = (await alice.ok("send", room="general", text="0"))["seq"]
    await alice.ok("send", room="general", text="1")
    watcher = await at.tab("watcher", sync=False)
    synced = await watcher.ok("sync", rooms={"general": head})
    assert [entry["text"] for entry in synced["entries"]] == ["1"]
    await alice.ok("send", room="general", text="2")
    assert [entry["text"] for entry in watcher.entries] == ["2"]


async def test_presence_counts_users_and_waits_before_offline(at, alice):
    """Two tabs are one user; a short absence is not told, a longer one is."""
    one = await at.tab("bob")
    await one.ok("join", room="general")
    two = await at.tab("bob")
    await at.tick()

    def told():
        return [(signal["user"], signal["online"]) for signal in alice.of("presence") if signal["user"] == "bob"]

    assert told() == [("bob", True)]
    assert await alice.ok("presence", room="general") == {"room": "general", "online": ["alice", "bob"], "count": 2}
    await one.leave()
    await at.tick(10)
    assert told() == [("bob", True)]
    await two.leave()
    await at.tick(3)
    again = await at.tab("bob")
    await at.tick(10)
    assert told() == [("bob", True)]
    await again.leave()
    await at.tick(7)
    assert told() == [("bob", True), ("bob", False)]
    assert (await alice.ok("presence", room="general"))["online"] == ["alice"]


async def test_in_a_crowded_room_only_the_number_is_told_and_typing_is_merged():
    """Above the crowd's size comings are one count every few seconds, and typing one frame every few."""
    async with lab(crowd=10) as at:
        alice = await at.tab("alice", rooms={"hall": "member"})
        tabs = [await at.tab(f"user{n}", rooms={"hall": "member"}) for n in range(30)]
        await at.tick(10)
        signals = alice.of("presence")
        assert len(signals) <= 3 and signals[-1] == {"type": "presence", "room": "hall", "count": 31}
        for tab in tabs:
            await tab.ok("typing", room="hall")
        assert len(alice.of("typing")) == 1
        await at.tick(3)
        await tabs[0].ok("typing", room="hall")
        assert len(alice.of("typing")) == 2


async def test_a_connection_is_told_before_its_token_ends_and_closed_when_it_has(at):
    """A `notice` a minute before, 4401 at the end, unless `auth` brought a newer token."""
    tab = await at.tab("alice", ttl_s=90)
    other = await at.tab("alice", ttl_s=90)
    await at.tick(40)
    assert [notice["code"] for notice in tab.of("notice")] == ["token_expires"]
    renewed = await other.ok("auth", token=at.token("alice", ttl_s=3600))
    assert renewed["expires_at"] > at.clock.now_ms() / 1000 + 3000
    await at.tick(60)
    assert at.sink.closed == {tab.connection: (4401, "token expired")}
    await other.ok("ping")
    assert await tab.refused("ping") == "token_expired"
    assert len(other.of("notice")) == 1


async def test_auth_takes_only_a_good_token_of_the_same_user(at, alice):
    """Somebody else's token, an expired or a bad one changes nothing."""
    assert await alice.refused("auth", token=at.token("bob")) == "forbidden"
    assert await alice.refused("auth", token=at.token("alice", ttl_s=-1)) == "token_expired"
    assert await alice.refused("auth", token="x") == "unauthorized"
    await alice.ok("ping")


async def test_a_newer_token_changes_what_is_granted(at):
    """Rooms of the old token are left, rooms of the new one are open."""
    alice = await at.tab("alice", rooms={"old": "member"})
    bob = await at.tab("bob", rooms={"old": "member"})
    await alice.ok("auth", token=at.token("alice", rooms={"new": "member"}))
    await bob.ok("send", room="old", text="x")
    assert alice.of("message.created") == []
    assert await alice.refused("send", room="old", text="x") == "not_found"
    await alice.ok("send", room="new", text="x")


async def test_too_many_actions_are_refused_with_the_time_to_wait():
    """A hundred at once are taken, then fifty a second, for a connection and for a user."""
    async with lab(rate=50, burst=100, user_rate=50, user_burst=150) as at:
        one, two = await at.tab("alice", sync=False), await at.tab("alice", sync=False)
        replies = [await one.ask("ping") for _ in range(110)]
        refused = [reply for reply in replies if reply["type"] == "error"]
        assert len(refused) == 10
        assert refused[0]["code"] == "rate_limited" and refused[0]["retry"] and refused[0]["retry_after_ms"] == 20
        replies = [await two.ask("ping") for _ in range(60)]
        assert len([reply for reply in replies if reply["type"] == "error"]) == 10
        other = await at.tab("bob", sync=False)
        await other.ok("ping")


async def test_a_store_that_is_away_answers_unavailable_and_comes_back(at, alice, monkeypatch):
    """While the store cannot write, sends are refused with retry; nothing is half done."""
    real = at.chat.store.append

    async def away(entry):
        raise Unavailable

    monkeypatch.setattr(at.chat.store, "append", away)
    reply = await alice.ask("send", room="general", text="x")
    assert (reply["code"], reply["retry"]) == ("unavailable", True)
    monkeypatch.setattr(at.chat.store, "append", real)
    await alice.ok("send", room="general", text="x")
    assert len(alice.of("message.created")) == 1


async def test_a_banned_user_is_put_out_and_kept_out(at):
    """A ban closes connections with 4403, refuses handshakes, and voids older tokens for good."""
    tab = await at.tab("mallory")
    old = at.token("mallory")
    await at.chat.ban("mallory", at.clock.now_ms() // 1000 + 60)
    assert at.sink.closed == {tab.connection: (4403, "banned")}
    assert (await at.handshake(old))[0] == 403
    await at.clock.advance(61)
    assert (await at.handshake(old))[0] == 401
    assert (await at.handshake(at.token("mallory")))[0] == 200


async def test_a_chat_that_does_not_run_says_so():
    """Using a Chat before it is bound names the mistake."""
    import hubbub

    with pytest.raises(RuntimeError, match="hubbub serve"):
        _ = hubbub.Chat().store


async def just_coming_in(at, user, **claims):
    """A handshake has been agreed to, and the sink does not know the connection yet; returns what makes it a tab."""
    status, _, connection, authorizer = await at.handshake(at.token(user, **claims))
    assert status == 200

    def arrive():
        at.sink.open(connection)
        return Tab(at, user, connection, authorizer)

    return arrive


async def repaired(at):
    """Let a repair that has begun get its answer from the store, whose one writer answers in order."""
    await settle()
    await at.chat.store.ping()
    await settle()


async def test_rubbish_counts_against_the_limit_like_anything_else():
    """Who sends what is no JSON, or nothing the chat knows, is slowed down by the same buckets."""
    async with lab(rate=50, burst=5) as at:
        tab = await at.tab("mallory", sync=False)
        codes = [json.loads((await tab.say(body)).body)["code"] for body in ("{", "[]", '{"action":"fly"}') * 2]
        assert codes == [*["bad_request", "bad_request", "unknown_action"], *["bad_request"] * 2, "rate_limited"]
        await (await at.tab("bob", sync=False)).ok("ping")


async def test_a_new_name_does_not_undo_a_ban(at, monkeypatch):
    """However a ban and a handshake with a new name fall together, the ban holds, and the name is kept."""
    await at.tab("mallory", name="One")
    real = at.chat.store.change_user

    async def slowly(user, **changes):
        await settle()
        return await real(user, **changes)

    monkeypatch.setattr(at.chat.store, "change_user", slowly)
    for names in ("Two", "Three"):
        handshakes = [at.handshake(at.token("mallory", name=name)) for name in (names, f"{names} again")]
        await asyncio.gather(handshakes[0], at.chat.ban("mallory", at.clock.now_ms() // 1000 + 60), handshakes[1])
        known = await at.chat.store.user("mallory")
        assert known.banned_until > 0 and known.revoked_before > 0
        assert (await at.handshake(at.token("mallory")))[0] == 403
        await at.chat.unban("mallory")
        await at.clock.advance(1)


async def test_a_ban_meets_a_connection_that_is_just_coming_in(at):
    """It can do nothing, and is closed with 4403 as soon as it tries; with a revoked token likewise with 4401."""
    arrive = await just_coming_in(at, "mallory")
    await at.chat.ban("mallory", at.clock.now_ms() // 1000 + 60)
    tab = arrive()
    assert await tab.refused("sync") == "forbidden"
    assert at.sink.closed[tab.connection][0] == 4403
    arrive = await just_coming_in(at, "bob")
    await at.chat.revoke("bob")
    tab = arrive()
    assert await tab.refused("sync") == "unauthorized"
    assert at.sink.closed[tab.connection][0] == 4401


async def test_revoking_voids_every_token_issued_until_then(at):
    """Those of the same second too, since tokens tell seconds, and those that tell no time; a later one is welcome."""
    tab = await at.tab("alice")
    await at.chat.revoke("alice")
    assert at.sink.closed == {tab.connection: (4401, "token revoked")}
    assert (await at.handshake(at.token("alice")))[:1] == (401,)
    await at.clock.advance(1)
    assert (await at.handshake(at.token("alice")))[0] == 200
    assert (await at.handshake(at.token("alice", issued_at=0)))[0] == 401
    assert (await at.handshake(at.token("bob", issued_at=0)))[0] == 200


async def test_who_loses_a_grant_with_a_newer_token_is_told_and_hears_no_more(at, alice):
    """A private room ends, a public one goes on: anybody may listen to it."""
    bob = await at.tab("bob", rooms={"team": "member", "general": "reader"})
    carol = await at.tab("carol", rooms={"team": "member"})
    await bob.ok("auth", token=at.token("bob"))
    assert bob.of("room") == [{"type": "room", "room": "team", "joined": False}]
    await carol.ok("send", room="team", text="without bob")
    await alice.ok("send", room="general", text="to all")
    assert [entry["text"] for entry in bob.of("message.created")] == ["to all"]


async def test_a_grant_that_ends_while_its_holder_resumes_is_not_listened_to(at, monkeypatch):
    """A newer token in the middle of a `sync` decides what the connection hears."""
    carol = await at.tab("carol", rooms={"team": "member"})
    await carol.ok("send", room="team", text="before")
    bob = await at.tab("bob", sync=False, rooms={"team": "member"})
    real = at.chat.store.page

    async def page(room, **where):
        await bob.ok("auth", token=at.token("bob"))
        return await real(room, **where)

    monkeypatch.setattr(at.chat.store, "page", page)
    assert (await bob.ok("sync", rooms={"team": 1}))["rooms"] == []
    dave = await at.tab("dave", sync=False, rooms={"team": "member"})

    @at.chat.before("sync")
    async def renew_first(chat, by, ask):
        await dave.ok("auth", token=at.token("dave"))

    assert (await dave.ok("sync"))["rooms"] == []
    await carol.ok("send", room="team", text="without bob and dave")
    assert bob.of("message.created") == dave.of("message.created") == []


async def test_a_connection_keeps_the_scope_it_came_with(at):
    """A token of the backend's connection without its scope is refused: it may listen to what a user may not."""
    backend = await at.tab("backend", scopes=["server"])
    assert await backend.refused("auth", token=at.token("backend")) == "forbidden"
    await backend.ok("auth", token=at.token("backend", scopes=["server"]))


async def test_a_newer_token_for_a_connection_that_is_gone_leaves_nothing_behind(at, monkeypatch):
    """Who sends `auth` and is cut off is forgotten like everybody else."""
    tab = await at.tab("bob")
    real = at.chat.tokens.verify

    async def slowly(token):
        await tab.leave()
        return await real(token)

    monkeypatch.setattr(at.chat.tokens, "verify", slowly)
    assert await tab.refused("auth", token=at.token("bob")) == "not_found"
    assert await at.chat.directory.principal(tab.connection) is None


async def test_a_sync_that_names_thousands_of_rooms_gets_what_is_there_for_him(at, alice):
    """Rooms that are not there, or not his, are left out; a public one is listened to; nothing is left behind."""
    await alice.ok("create", kind="private", room="secret")
    bob = await at.tab("bob", sync=False)
    synced = await bob.ok("sync", rooms={"general": 1, "secret": 1, **{f"r{n}": 1 for n in range(3_000)}})
    assert [room["room"] for room in synced["rooms"]] == ["general"]
    assert {entry["room"] for entry in synced["entries"]} == {"general"}
    assert (synced["more"], synced["reset"]) == ([], [])
    assert repr(at.chat.fanout._streams) == "<Streams of 2 rooms>"  # `general`, and alice in `secret`


@pytest.mark.slow
async def test_two_thousand_watchers_of_a_public_room_leave_no_rows(at, alice):
    """Listening, reading and asking around write nothing; all of them hear what is said, and are counted."""

    async def rows():
        members = (await at.chat.store.members("general"))[1]
        marks = [await at.chat.store.rooms_of(f"user{n}", also=["general"]) for n in (0, 1_999)]
        return members, [(state.read, state.role) for [state] in marks], (await at.chat.store.room("general")).head

    seq = (await alice.ok("send", room="general", text="welcome"))["seq"]
    before = await rows()
    tabs = [await at.tab(f"user{n}", sync=False) for n in range(2_000)]
    for tab in tabs:
        await tab.ok("subscribe", room="general")
        await tab.ok("read", room="general", seq=seq)
    assert await rows() == before == (1, [(0, "reader")] * 2, seq)
    await alice.ok("send", room="general", text="hello all")
    assert all(len(tab.entries) == 1 for tab in tabs)
    online = await tabs[0].ok("presence", room="general")
    assert (online["count"], len(online["online"])) == (2_001, 200)
    assert await at.chat.store.user("user7") is None


async def test_who_is_online_in_a_crowd_is_looked_up_once_a_second(at, monkeypatch):
    """However many ask at once, and without a list that is older than that."""
    async with lab(crowd=3) as at:
        tabs = [await at.tab(f"user{n}", rooms={"hall": "member"}) for n in range(5)]
        real, asked = at.chat.directory.online, []

        async def online(room, limit):
            asked.append(room)
            return await real(room, limit)

        monkeypatch.setattr(at.chat.directory, "online", online)
        for tab in tabs * 3:
            assert (await tab.ok("presence", room="hall"))["count"] == 5
        assert len(asked) == 1
        newcomer = await at.tab("newcomer", rooms={"hall": "member"})
        await at.clock.advance(1)
        assert (await newcomer.ok("presence", room="hall"))["count"] == 6


async def test_a_count_includes_who_is_only_just_away(at, alice):
    """What is told with an arrival is what `presence` answers: a reload does not make a user vanish."""
    bob = await at.tab("bob")
    await bob.ok("join", room="general")
    await at.tick()
    await bob.leave()
    carol = await at.tab("carol")
    await carol.ok("join", room="general")
    await at.tick()
    assert alice.of("presence")[-1] == {
        "type": "presence",
        "room": "general",
        "user": "carol",
        "online": True,
        "count": 3,
    }
    assert (await alice.ok("presence", room="general"))["count"] == 3
    await at.tick(6)
    assert (alice.of("presence")[-1]["user"], alice.of("presence")[-1]["count"]) == ("bob", 2)


async def test_in_a_crowd_nothing_that_everybody_does_costs_its_square():
    """Coming, typing, reading and going of 300 users: a few frames for each of them, not 300."""
    async with lab(crowd=50) as at:
        tabs = [await at.tab(f"user{n}", rooms={"hall": "member"}) for n in range(300)]
        await at.tick(6)
        for tab in tabs:
            tab.raw.clear()
        for tab in tabs:
            await tab.ok("typing", room="hall")
            await tab.ok("read", room="hall", seq=1)
        for tab in tabs[:100]:
            await tab.leave()
        await at.tick(12)
        assert max(len(tab.frames) for tab in tabs[100:]) <= 4
        assert tabs[-1].of("presence")[-1]["count"] == 200


@pytest.mark.slow
async def test_what_comes_and_goes_leaves_nothing_behind():
    """After a crowd has been and gone, nothing is kept of its buckets, its typing, its absences and its rooms."""
    async with lab(crowd=3, rate=50, user_rate=50) as at:
        for round_ in range(2):
            tabs = [await at.tab(f"user{round_}-{n}", rooms={"hall": "member"}) for n in range(200)]
            for tab in tabs:
                await tab.ok("typing", room="hall")
                await tab.ok("presence", room="hall")
            for tab in tabs:
                await tab.leave()
            await at.tick(10)
        board, fanout = at.chat.presence, at.chat.fanout
        for kept in (board._arrived, board._leaving, board._away, board._typing_at, board._crowded, board._listed):
            assert not kept
        for kept in (fanout._sessions, fanout._connections, fanout._online, fanout._opened, fanout._looked_after):
            assert not kept
        assert not at.chat._connections._full_at and len(at.chat._users._full_at) <= 1_001
        assert not at.chat.heads._noted and repr(fanout._streams) == "<Streams of 0 rooms>"


async def test_an_entry_that_nobody_handed_out_is_delivered_within_six_seconds(at, alice, monkeypatch):
    """Whether publishing failed or was never reached: the room needs no other message for it."""
    bob = await at.tab("bob")
    await bob.ok("join", room="general")
    real = at.chat.fanout.publish

    async def failing(room, seq, frame):
        raise Unavailable

    monkeypatch.setattr(at.chat.fanout, "publish", failing)
    sent = await alice.ok("send", room="general", text="lost")
    assert bob.of("message.created") == []
    await at.tick(6)
    await repaired(at)
    assert [entry["seq"] for entry in bob.of("message.created")] == [sent["seq"]]

    async def interrupted(room, seq, frame):
        raise asyncio.CancelledError

    monkeypatch.setattr(at.chat.fanout, "publish", interrupted)
    with pytest.raises(asyncio.CancelledError):
        await alice.say('{"action":"send","room":"general","text":"lost, too"}')
    monkeypatch.setattr(at.chat.fanout, "publish", real)
    await at.tick(6)
    await repaired(at)
    assert [entry["text"] for entry in bob.of("message.created")] == ["lost", "lost, too"]
    assert bob.of("message.created") == alice.of("message.created")


async def test_an_entry_that_took_long_to_store_is_looked_after_as_well(at, alice, monkeypatch):
    """Its room's head may have been announced before it was there."""
    bob = await at.tab("bob")
    await bob.ok("join", room="general")
    await at.tick(20)
    append, publish = at.chat.store.append, at.chat.fanout.publish

    async def slow(entry):
        await at.tick(9)
        return await append(entry)

    async def failing(room, seq, frame):
        raise Unavailable

    monkeypatch.setattr(at.chat.store, "append", slow)
    monkeypatch.setattr(at.chat.fanout, "publish", failing)
    await alice.ok("send", room="general", text="late")
    monkeypatch.setattr(at.chat.fanout, "publish", publish)
    await at.tick(6)
    await repaired(at)
    assert [entry["text"] for entry in bob.of("message.created")] == ["late"]


async def test_a_busy_room_is_told_its_head_every_few_seconds_and_an_idle_one_never(at, alice):
    """Once in five seconds in which something was written, with what all have had by then."""
    for _ in range(12):
        await alice.ok("send", room="general", text="x")
        await at.tick()
    heads = [signal["head"] for signal in alice.of("head")]
    assert len(heads) == 2 and heads == sorted(set(heads))
    await at.tick(20)
    head = alice.entries[-1]["seq"]
    assert [signal["head"] for signal in alice.of("head")] == [*heads, head]
    assert alice.of("head")[-1] == {"type": "head", "room": "general", "head": head}
    alice.raw.clear()
    assert await alice.refused("react", room="general", target=head + 5, reaction="👍") == "not_found"
    await at.tick(20)
    assert alice.of("head") == []


async def test_heads_wait_for_the_store(at, alice, monkeypatch):
    """While it does not answer, what is lost stays to be found."""
    bob = await at.tab("bob")
    await bob.ok("join", room="general")

    async def failing(*args):
        raise Unavailable

    monkeypatch.setattr(at.chat.fanout, "publish", failing)
    await alice.ok("send", room="general", text="lost")
    real = at.chat.store.heads
    monkeypatch.setattr(at.chat.store, "heads", failing)
    for _ in range(8):
        await at.clock.advance(1)
        with contextlib.suppress(Unavailable):
            await at.chat.tick()
    assert bob.of("message.created") == []
    monkeypatch.setattr(at.chat.store, "heads", real)
    await at.tick(2)
    await repaired(at)
    assert [entry["text"] for entry in bob.of("message.created")] == ["lost"]


async def test_a_look_at_the_rooms_that_is_broken_off_goes_on_with_the_next(at, alice, monkeypatch):
    """What was due and not announced yet, because time ran out or one room was refused, is announced later."""
    rooms = [(await alice.ok("create", kind="public"))["room"] for _ in range(40)]
    await at.tick(20)
    for room in rooms:
        await alice.ok("send", room=room, text="x")
    real, announced = at.chat.fanout.announce, []

    async def announce(room, head, frame):
        if room == rooms[0] and len(announced) < 40:
            raise Unavailable
        if len(announced) == 7:
            announced.append("stuck")
            await asyncio.Event().wait()
        announced.append(room)
        await real(room, head, frame)

    monkeypatch.setattr(at.chat.fanout, "announce", announce)
    await at.clock.advance(6)
    with contextlib.suppress(TimeoutError, Unavailable):
        async with asyncio.timeout(0.05):
            await at.chat.tick()
    for _ in range(3):
        await at.clock.advance(1)
        with contextlib.suppress(Unavailable):
            await at.chat.tick()
    assert sorted(set(announced) - {"stuck"}) == sorted(rooms)


async def test_a_connection_that_cannot_be_closed_keeps_no_other_from_it(at, alice, monkeypatch):
    """Nor does it keep heads from being announced; that it failed is told."""
    tabs = [await at.tab(f"user{n}", ttl_s=30) for n in range(5)]
    real = at.chat.fanout.close

    async def close(connection, code, reason):
        if connection == tabs[0].connection:
            raise Unavailable
        await real(connection, code, reason)

    monkeypatch.setattr(at.chat.fanout, "close", close)
    await at.clock.advance(25)
    await alice.ok("send", room="general", text="x")
    alice.raw.clear()
    await at.clock.advance(6)
    with pytest.raises(Unavailable):
        await at.chat.tick()
    assert set(at.sink.closed) == {tab.connection for tab in tabs[1:]}
    assert alice.of("head")


async def test_what_retention_removes_during_a_sync_is_a_reset(at, alice, monkeypatch):
    """A hole is never handed out: the room is named in `reset`, and none of its entries is in the reply."""
    for n in range(5):
        await alice.ok("send", room="general", text=str(n))
    real = at.chat.store.page

    async def page(room, **where):
        found = await real(room, **where)
        return msgspec.structs.replace(found, entries=found.entries[2:])

    monkeypatch.setattr(at.chat.store, "page", page)
    synced = await (await at.tab("alice", sync=False)).ok("sync", rooms={"general": 1})
    assert (synced["reset"], synced["entries"], synced["more"]) == (["general"], [], [])


async def test_what_is_published_during_a_sync_does_not_make_its_answer_endless(monkeypatch):
    """Beyond the bound the room is named in `more`, and live entries go on from the told head."""
    async with lab(sync_entries=4) as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="general")
        await alice.ok("send", room="general", text="0")
        tab = await at.tab("alice", sync=False)
        real = at.chat.store.page

        async def page(room, **where):
            found = await real(room, **where)
            for n in range(1, 8):
                await alice.ok("send", room="general", text=str(n))
            return found

        monkeypatch.setattr(at.chat.store, "page", page)
        synced = await tab.ok("sync", rooms={"general": 2})
        monkeypatch.setattr(at.chat.store, "page", real)
        assert [entry["text"] for entry in synced["entries"]] == ["0", "1", "2", "3"]
        assert (synced["more"], synced["rooms"][0]["head"]) == (["general"], 10)
        await alice.ok("send", room="general", text="live")
        assert [entry["seq"] for entry in tab.entries] == [11]


@pytest.mark.parametrize("action", sorted(ACTIONS.keys() - {"ping"}))  # which needs nothing that could break
async def test_no_action_tells_what_failed_inside(at, alice, monkeypatch, action):
    """Whatever breaks under an action, its asker gets `internal` and a reference, and nobody gets anything else."""
    fields = {
        "kind": "public",
        "user": "bob",
        "role": "member",
        "seq": 1,
        "target": 1,
        "reaction": "x",
        "text": "x",
        "token": at.token("alice"),
        **({} if action == "create" else {"rooms": {"general": 1}, "room": "general"}),
    }

    def broken(*args, **options):
        raise RuntimeError("the password is at /etc/secret")

    for port in (at.chat.store, at.chat.fanout, at.chat.tokens, at.chat.presence):
        for name in ("room", "rooms", "rooms_of", "member", "members", "append", "entry", "page", "create_room"):
            if hasattr(port, name):
                monkeypatch.setattr(port, name, broken)
        for name in ("listen", "unlisten", "verify", "online", "type"):
            if hasattr(port, name):
                monkeypatch.setattr(port, name, broken)
    reply = await alice.ask(action, **fields)
    assert (reply["code"], sorted(reply)) == ("internal", ["code", "message", "request_id", "retry", "type"])
    assert "secret" not in json.dumps([reply, *alice.frames])


async def test_while_tokens_cannot_be_verified_nobody_is_told_that_his_is_bad(monkeypatch: pytest.MonkeyPatch):
    """The handshake is refused with 503 and `unavailable`, which a client waits out instead of asking for a token."""
    async with lab() as at:

        async def away(token: str) -> Principal:
            raise Unavailable("The keys cannot be fetched just now.")

        monkeypatch.setattr(at.chat.tokens, "verify", away)
        status, body, _, _ = await at.handshake(at.token("alice"))
        assert (status, body["code"], body["retry"]) == (503, "unavailable", True)


async def test_nobody_can_be_taken_for_the_chat_itself():
    """A token for the user `system` is refused with 403, but for the customer's backend, which speaks in its name."""
    async with lab() as at:
        status, body, _, _ = await at.handshake(at.token("system"))
        assert (status, body["code"]) == (403, "forbidden")
        assert (await at.handshake(at.token("system", scopes=["server"])))[0] == 200
