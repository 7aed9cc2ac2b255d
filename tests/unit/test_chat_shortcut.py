"""The short way of a message: nobody can tell it from the long one, and it takes what is plain and nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import Any

import msgspec
import pytest

import hubbub
from chatlab import Lab, Tab, lab
from doubles import settle
from hubbub.apigateway import DEFAULT
from hubbub.errors import Unavailable
from hubbub.gateway.integrations import InProcess
from hubbub.model import MessageCreated, Principal
from hubbub.protocol import Send

PLAIN = {"action": "send", "ref": "r", "room": "general", "text": "hi"}
TIMEOUT_S = 29.0


class Talker:
    """A tab as the gateway sees it: its messages go the short way if they may."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.answers: list[bytes] = []
        self.shortened: list[bool] = []
        self.ended = 0
        self._calls = InProcess(TIMEOUT_S, self._failed)
        self._route = tab.lab.chat.api().routes[DEFAULT]

    def _failed(self) -> None:
        raise AssertionError("a function failed")

    def _end(self) -> None:
        self.ended += 1

    def say(self, body: str | dict[str, Any]) -> bool:
        """Send a frame; whether it went the short way."""
        text = body if isinstance(body, str) else json.dumps(body)
        connection, now = self.tab.connection, asyncio.get_running_loop().time()
        if self._calls.shorten(self._route, connection, text, self.answers.append, self._end, now):
            self.shortened.append(True)
            return True
        event = self.tab.lab.event("MESSAGE", connection, self.tab.authorizer, body=text, is_base64_encoded=False)
        self._calls.start(self._route, event, self.answers.append, self._end)
        self.shortened.append(False)
        return False

    async def quiet(self) -> None:
        """Wait until all is answered."""
        await self._calls.finish(10)
        await settle()


@pytest.fixture
async def at():
    async with lab() as made:
        yield made


@pytest.fixture
async def alice(at) -> Talker:
    return await talker(at, "alice", name="Alice")


async def talker(at: Lab, user: str, **claims: Any) -> Talker:
    """Somebody in the room `general`, of whom everything is remembered."""
    tab = await at.tab(user, **claims)
    if await at.chat.store.room("general") is None:
        await tab.ok("create", kind="public", room="general")
    await tab.ok("join", room="general")
    await tab.ok("send", room="general", text="first")
    return Talker(tab)


# What it takes


@pytest.mark.parametrize(
    "more",
    [{}, {"client_id": "c"}, {"reply_to": 3}, {"thread": 3}, {"ref": None}, {"text": 'ü\u2028\n"\\'}],
)
async def test_a_plain_message_takes_the_short_way(alice, more):
    """It is stored, handed out and acknowledged, once each and in that order."""
    alice.tab.raw.clear()
    order: list[str] = []
    alice.tab.lab.sink.frames[alice.tab.connection] = frames = _Noting(order, "entry")
    alice.answers = _Noting(order, "ack")
    assert alice.say({**PLAIN, **more})
    await alice.quiet()
    [entry] = [json.loads(frame) for frame in frames]
    assert entry["text"] == more.get("text", "hi")
    assert {key: entry.get(key) for key in ("client_id", "reply_to", "thread")} == {
        key: more.get(key) for key in ("client_id", "reply_to", "thread")
    }
    stored = await alice.tab.lab.chat.store.entry("general", entry["seq"])
    assert json.loads(msgspec.json.encode(stored)) == entry
    if "ref" in more:
        assert order == ["entry"]
    else:
        assert order == ["entry", "ack"]
        reply = json.loads(alice.answers[0])
        asked = {"client_id": more["client_id"]} if "client_id" in more else {}
        expected = {"type": "ok", "ref": "r", **{key: entry[key] for key in ("room", "seq", "id", "at")}, **asked}
        assert reply == expected
    assert alice.ended == 1


class _Noting(list[bytes]):
    """A list that notes in another when something came."""

    def __init__(self, order: list[str], word: str) -> None:
        super().__init__()
        self._order = order
        self._word = word

    def append(self, item: bytes) -> None:
        self._order.append(self._word)
        super().append(item)


@pytest.mark.parametrize(
    "body",
    [
        {"action": "ping", "ref": "r"},
        {"action": "history", "ref": "r", "room": "general"},
        {**PLAIN, "text": " \n"},
        {**PLAIN, "text": "x" * 8_001},
        {**PLAIN, "text": None},
        {**PLAIN, "data": {"a": 1}},
        {**PLAIN, "room": "nowhere"},
        {**PLAIN, "room": 1},
        {**PLAIN, "ref": "r" * 65},
        {**PLAIN, "client_id": ""},
        {**PLAIN, "reply_to": 0},
        {**PLAIN, "more": True},
        "no JSON",
        "[]",
        '{"action":"send","room":"general","text":"\\ud800"}',
        '{"action":"send","room":"general","text":"x","y":' + "[" * 2_000,
    ],
)
async def test_what_is_not_plain_goes_the_long_way(alice, body):
    """And nothing is done before: it is counted once, and answered by the long way."""
    before = sum(alice.tab.lab.chat.stats.actions.values()) + sum(alice.tab.lab.chat.stats.errors.values())
    assert not alice.say(body)
    await alice.quiet()
    assert alice.ended == 1
    after = sum(alice.tab.lab.chat.stats.actions.values()) + sum(alice.tab.lab.chat.stats.errors.values())
    assert after == before + 1


@pytest.mark.parametrize("changed", [{"banned_until": 2**40}, {"revoked_before": 2**40}])
async def test_who_is_banned_or_revoked_meanwhile_is_not_let_through(alice, changed):
    """Although his connection is still here, and all about him is remembered."""
    assert alice.say(PLAIN)
    await alice.quiet()
    await alice.tab.lab.chat.store.change_user("alice", **changed)
    assert not alice.say(PLAIN)
    await alice.quiet()
    assert json.loads(alice.answers[-1])["type"] == "error"
    assert alice.tab.lab.sink.closed[alice.tab.connection]


async def test_a_hook_or_an_action_of_ones_own_is_never_passed_by():
    """Before the action, after the entry, in place of the action, and a subclass that answers events itself."""
    heard: list[str] = []

    class Own(hubbub.Chat):
        async def write(self, entry: Any) -> Any:
            heard.append("write")
            return await super().write(entry)

    before, after, instead, own = hubbub.Chat(), hubbub.Chat(), hubbub.Chat(), Own()

    @before.before("send")
    async def check(chat: hubbub.Chat, by: Any, ask: Send) -> None:
        heard.append("before")

    @after.on("message.created")
    async def hear(chat: hubbub.Chat, entry: Any) -> None:
        heard.append("after")

    @instead.action("send", replace=True)
    async def send(chat: hubbub.Chat, by: Any, ask: Send) -> hubbub.Result:
        heard.append("instead")
        return hubbub.Result()

    for chat, word in ((before, "before"), (after, "after"), (instead, "instead"), (own, "write")):
        async with lab(chat) as at:
            tab = await at.tab("alice")
            await tab.ok("create", kind="public", room="general")
            await tab.ok("send", room="general", text="first")
            heard.clear()
            alone = Talker(tab)
            assert not alone.say(PLAIN)
            await alone.quiet()
            assert heard == [word]


async def test_a_hook_that_comes_later_is_heard_from_then_on(alice):
    """Hooks may be registered while the chat runs."""
    assert alice.say(PLAIN)
    await alice.quiet()
    heard: list[str] = []

    @alice.tab.lab.chat.on("message.created")
    async def hear(chat: hubbub.Chat, entry: Any) -> None:
        heard.append(entry.text)

    assert not alice.say({**PLAIN, "text": "heard"})
    await alice.quiet()
    assert heard == ["heard"]


async def test_too_many_messages_are_refused_as_ever(caplog):
    """The same number passes as on the long way, and a message that goes it is counted once."""
    async with lab(rate=1, burst=5, user_rate=1, user_burst=20) as at:
        alice = await talker(at, "alice")
        await at.clock.advance(30)
        for _ in range(8):
            alice.say(PLAIN)
        await alice.quiet()
        assert alice.shortened == [True] * 5 + [False] * 3
        replies = [json.loads(answer) for answer in alice.answers]
        assert sorted(reply["type"] for reply in replies) == ["error"] * 3 + ["ok"] * 5
        await at.clock.advance(2)
        alice.shortened.clear()
        for _ in range(3):
            alice.say(PLAIN)
        assert alice.shortened == [True, True, False]
        await alice.quiet()


async def test_a_users_bucket_that_is_empty_takes_nothing_from_the_connections(at):
    """A message of one connection that the user's other ones have used up can be sent when there is room again."""
    async with lab(rate=1, burst=5, user_rate=1, user_burst=6) as at:
        one = await talker(at, "alice")
        await at.clock.advance(30)
        other = await talker(at, "alice")
        await at.clock.advance(30)
        assert [one.say(PLAIN) for _ in range(5)] == [True] * 5
        assert [other.say(PLAIN) for _ in range(2)] == [True, False]
        await one.quiet()
        await other.quiet()
        await at.clock.advance(1)
        assert other.say(PLAIN)
        await other.quiet()


# Order


async def test_a_message_never_overtakes_one_of_its_connection(at):
    """Also when the first ones have to wait for what is not yet remembered, and are on the long way."""
    alice = await talker(at, "alice")
    store = at.chat.store
    for cache in (store._rooms, store._members, store._users):
        cache.values.clear()
    for n in range(40):
        alice.say({**PLAIN, "text": str(n)})
        if n % 3 == 0:
            await asyncio.sleep(0)
        if n % 7 == 0:
            await asyncio.sleep(0.001)
    await alice.quiet()
    assert True in alice.shortened
    assert False in alice.shortened
    page = await store.page("general", limit=40)
    assert [entry.text for entry in page.entries] == [str(n) for n in range(40)]


async def test_a_message_goes_behind_one_of_its_connection_that_the_store_has_not_been_given(alice, monkeypatch):
    """The one before waits for something that is asked for; other connections have nothing to do with that."""
    at = alice.tab.lab
    bob = await talker(at, "bob")
    store = at.chat.store
    answer = asyncio.get_running_loop().create_future()
    user = store.user

    async def wait(*given: Any, **named: Any) -> Any:
        await asyncio.shield(answer)
        return await user(*given, **named)

    monkeypatch.setattr(store, "user", wait)
    assert not alice.say({**PLAIN, "text": "first", "data": {}})
    await settle()
    assert not alice.say({**PLAIN, "text": "second"})
    assert bob.say({**PLAIN, "text": "from bob"})
    await settle()
    answer.set_result(None)
    await alice.quiet()
    await bob.quiet()
    page = await store.page("general", limit=3)
    assert [entry.text for entry in page.entries] == ["from bob", "first", "second"]
    assert alice.say(PLAIN)
    await alice.quiet()


async def test_a_message_waits_for_one_on_the_long_way_only_until_the_store_has_that(alice, monkeypatch):
    """What is slow and no message, or stored already, holds up nobody."""
    store = alice.tab.lab.chat.store
    slow = asyncio.get_running_loop().create_future()
    page = store.page

    async def wait(*given: Any, **named: Any) -> Any:
        await slow
        return await page(*given, **named)

    monkeypatch.setattr(store, "page", wait)
    alice.say({"action": "history", "ref": "h", "room": "general"})
    assert not alice.say(PLAIN), "the one before has not begun"
    await settle()
    assert alice.say(PLAIN)
    await asyncio.sleep(0.05)
    slow.set_result(None)
    await alice.quiet()
    assert [json.loads(answer).get("ref") for answer in alice.answers] == ["r", "r", "h"]


async def test_a_message_that_is_written_by_several_tasks_lets_those_behind_it_pass_all_the_same(alice):
    """An action of one's own may write more than one entry at once; when it is done, nothing is waited for any more."""
    chat = alice.tab.lab.chat
    built_in = chat.actions["send"]

    @chat.action("send", replace=True)
    async def twice(chat: hubbub.Chat, by: Any, ask: Send) -> hubbub.Result:
        texts = ("one", "two")
        await asyncio.gather(*(chat.write(MessageCreated(room=ask.room, by=by.user, text=text)) for text in texts))
        return hubbub.Result()

    assert not alice.say(PLAIN)
    await alice.quiet()
    assert chat.shortcut.waiting == {}
    chat.actions["send"] = built_in
    assert alice.say(PLAIN)
    await alice.quiet()
    assert [json.loads(answer)["type"] for answer in alice.answers] == ["ok", "ok"]


# Failures


async def test_where_nothing_can_be_sent_any_more_a_client_is_told_so(alice):
    """A chat whose owner has taken the action away answers as to any action that is not there."""
    del alice.tab.lab.chat.actions["send"]
    assert not alice.say(PLAIN)
    await alice.quiet()
    assert [json.loads(answer)["code"] for answer in alice.answers] == ["unknown_action"]


async def test_a_message_that_cannot_be_stored_is_refused_with_its_ref(alice, monkeypatch, caplog):
    """It was taken, and the store says no: the client, the counters and the log are told as on the long way."""
    caplog.set_level(logging.INFO)
    at = alice.tab.lab
    assert alice.say({**PLAIN, "reply_to": 77})
    await alice.quiet()
    [reply] = [json.loads(answer) for answer in alice.answers]
    assert (reply["type"], reply["code"], reply["ref"]) == ("error", "not_found", "r")
    assert at.chat.stats.errors["not_found"] == 1
    [line] = [record for record in caplog.records if record.message == "send refused: not_found"]
    assert line.connection_id == alice.tab.connection
    assert line.request_id


async def test_a_defect_after_the_store_has_it_is_told_as_one(alice, monkeypatch, caplog):
    """The client hears of no details, and the log has them under the same reference."""

    def fail(*given: Any) -> None:
        raise ZeroDivisionError("for this test")

    monkeypatch.setattr(alice.tab.lab.chat.shortcut._fanout, "publish_ready", fail)
    assert alice.say(PLAIN)
    await alice.quiet()
    [reply] = [json.loads(answer) for answer in alice.answers]
    assert reply["code"] == "internal"
    assert "ZeroDivision" not in str(reply)
    [line] = [record for record in caplog.records if record.message == "action send failed"]
    assert line.request_id == reply["request_id"]
    assert alice.ended == 1


async def test_a_message_that_is_stored_is_acknowledged_though_it_cannot_be_handed_out(alice, monkeypatch, caplog):
    """Its listeners will miss it and read it from the store, as on the long way."""

    def fail(*given: Any) -> None:
        raise Unavailable("for this test")

    monkeypatch.setattr(alice.tab.lab.chat.shortcut._fanout, "publish_ready", fail)
    assert alice.say(PLAIN)
    await alice.quiet()
    [reply] = [json.loads(answer) for answer in alice.answers]
    assert reply["type"] == "ok"
    assert (await alice.tab.lab.chat.store.entry("general", reply["seq"])).id == reply["id"]
    [line] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "cannot hand out room general" in line.message
    assert line.connection_id == alice.tab.connection


async def test_a_store_that_is_full_or_closing_leaves_it_to_the_long_way(alice, monkeypatch):
    """Which says so."""
    monkeypatch.setattr(alice.tab.lab.chat.store._writer, "_max_pending", 0)
    assert not alice.say(PLAIN)
    await alice.quiet()
    [reply] = [json.loads(answer) for answer in alice.answers]
    assert reply["code"] == Unavailable.code


# Alike


ROOMS = ("general", "general", "general", "hall", "nowhere")
USERS = ("alice", "bob", "eve")


def _deed(dice: random.Random, step: int) -> dict[str, Any] | str:
    """Something that somebody asks for."""
    room, target = dice.choice(ROOMS), dice.randint(0, 12)
    message: dict[str, Any] = {"action": "send", "room": room, "text": f"text {step} ü"}
    if dice.random() < 0.8:
        message["ref"] = dice.choice(["a", "b", "c", "d", "r" * 64, "r" * 65, 5])
    if dice.random() < 0.3:
        message["client_id"] = dice.choice(["c1", "c2", "c3", "c4", "", "c" * 65])
    if dice.random() < 0.2:
        message[dice.choice(["reply_to", "thread"])] = target
    if dice.random() < 0.15:
        message["text"] = dice.choice(["", " \t", None, 7, "x" * 31, "\u2028\x00", "\U0001f600"])
    if dice.random() < 0.1:
        message["data"] = {"n": step}
    if dice.random() < 0.05:
        message["unknown"] = [1]
    others: list[dict[str, Any] | str] = [
        {"action": "join", "ref": "j", "room": room},
        {"action": "leave", "ref": "l", "room": room},
        {"action": "delete", "ref": "d", "room": room, "target": target + 1},
        {"action": "edit", "ref": "e", "room": room, "target": target + 1, "text": "edited"},
        {"action": "react", "ref": "x", "room": room, "target": target + 1, "reaction": "+"},
        {"action": "read", "ref": "m", "room": room, "seq": target},
        {"action": "history", "ref": "h", "room": room, "limit": 5},
        {"action": "role", "ref": "o", "room": "general", "user": "bob", "role": dice.choice(["reader", "member"])},
        {"action": "kick", "ref": "k", "room": "general", "user": "eve"},
        {"action": "send", "room": room},
        "{",
        '{"action":"send","room":"general","text":"a","text":"b","ref":"twice"}',
        '{"action":"send","room":"general","text":"\\ud83d"}',
    ]
    return message if dice.random() < 0.75 else dice.choice(others)


async def _played(chat: hubbub.Chat, seed: int, limits: dict[str, Any], caplog: Any) -> tuple[list[Any], int]:
    """All that comes of a random play, without what is random in itself; and how many messages went the short way."""
    dice = random.Random(seed)
    caplog.clear()
    async with lab(chat, max_text_chars=30, **limits) as at:
        talkers = [Talker(await at.tab(user, name=user.title(), ttl_s=300)) for user in USERS]
        server = Talker(await at.tab("backend", scopes=(Principal.SERVER,)))
        await talkers[0].tab.ok("create", kind="public", room="general", name="General")
        await talkers[1].tab.ok("create", kind="private", room="hall", name="Hall", members=["alice"])
        for each in talkers[1:]:
            await each.tab.ok("join", room="general")
        outcome: list[Any] = []
        for step in range(60):
            who = dice.choice([*talkers, *talkers, server])
            for _ in range(dice.choice([1, 1, 3])):
                who.say(_deed(dice, step))
            await who.quiet()
            if dice.random() < 0.2:
                await at.tick(dice.choice([1, 6, 40]))
        stats = at.chat.stats
        pages = [
            await at.chat.store.page(room, limit=200) for room in sorted(set(ROOMS)) if await at.chat.store.room(room)
        ]
        for one in [*talkers, server]:
            outcome += [_settled(each) for each in (one.tab.raw, one.answers)]
            outcome.append(one.ended)
        outcome.append(_settled([msgspec.json.encode(page) for page in pages]))
        outcome.append((dict(stats.actions), dict(stats.errors), dict(stats.entries), stats.hook_failures))
        outcome.append([(record.levelname, record.message) for record in caplog.records])
        outcome.append([(await at.chat.store.rooms_of(user)) for user in USERS])
        return outcome, sum(sum(one.shortened) for one in [*talkers, server])


def _settled(frames: list[bytes]) -> list[Any]:
    """Frames without ids, which are new in each play."""

    def stripped(value: Any) -> Any:
        if isinstance(value, dict):
            random_ones = ("id", "request_id", "connection_id", "epoch")
            return {key: stripped(each) for key, each in value.items() if key not in random_ones}
        return [stripped(each) for each in value] if isinstance(value, list) else value

    return [stripped(json.loads(frame)) for frame in frames]


class Long(hubbub.Chat):
    """A chat without a short way."""

    async def handle(self, event: Any) -> Any:
        return await super().handle(event)


@pytest.mark.parametrize("limits", [{}, {"rate": 0.5, "burst": 6, "user_rate": 0.5, "user_burst": 8}])
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(each, marks=pytest.mark.slow) for each in range(2, 12))])
async def test_nobody_can_tell_the_short_way_from_the_long_one(seed, limits, caplog):
    """The same frames, replies, log, counters and lines, whatever is asked in whatever order."""
    caplog.set_level(logging.DEBUG, logger="hubbub")
    long, none = await _played(Long(), seed, limits, caplog)
    short, some = await _played(hubbub.Chat(), seed, limits, caplog)
    assert none == 0
    assert some > 5
    assert short == long
