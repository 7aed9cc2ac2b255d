"""Connections: tokens, starting and resuming, presence, limits, and frames that are not as they should be."""

from __future__ import annotations

import asyncio
import json

import pytest

from chatlab import lab
from hubbub.errors import Unavailable


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
