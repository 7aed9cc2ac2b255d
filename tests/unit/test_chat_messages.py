"""Messages: what is sent is stored, handed out, and shown alike live and in history."""

from __future__ import annotations

import asyncio
import json

import pytest

import hubbub
from chatlab import lab
from doubles import settle
from hubbub.errors import Forbidden
from hubbub.model import Principal
from hubbub.protocol import Ask, Read, Result, Room_, Send


@pytest.fixture
async def at():
    async with lab() as made:
        yield made


@pytest.fixture
async def alice(at):
    tab = await at.tab("alice", name="Alice")
    await tab.ok("create", kind="public", room="general", name="General")
    return tab


@pytest.fixture
async def bob(at, alice):
    tab = await at.tab("bob")
    await tab.ok("join", room="general")
    return tab


async def test_a_message_reaches_everybody_in_the_room_and_its_sender_is_told_where_it_stands(alice, bob):
    """`send` answers with seq, id and time; every member gets the entry with the same."""
    reply = await alice.ok("send", room="general", text="hi", client_id="c1")
    entry = alice.of("message.created")[-1]
    assert entry == {
        "type": "message.created",
        "text": "hi",
        "client_id": "c1",
        "room": "general",
        "by": "alice",
        "name": "Alice",
        **{key: reply[key] for key in ("seq", "id", "at")},
    }
    assert bob.of("message.created") == [entry]
    page = await bob.ok("history", room="general")
    assert page["entries"][-1] == entry


async def test_the_same_client_id_is_stored_once(alice, bob):
    """Sending again what was sent returns the first result and delivers nothing."""
    first = await alice.ok("send", room="general", text="hi", client_id="c1")
    again = await alice.ok("send", room="general", text="hi", client_id="c1")
    assert again == first
    assert len(bob.of("message.created")) == 1
    other = await bob.ok("send", room="general", text="hi", client_id="c1")
    assert other["seq"] == first["seq"] + 1


async def test_messages_of_one_connection_keep_their_order(alice, bob):
    """What a client sends without waiting is stored in that order."""
    texts = [str(n) for n in range(50)]
    frames = [json.dumps({"action": "send", "room": "general", "text": text}) for text in texts]
    await asyncio.gather(*(alice.say(frame) for frame in frames))
    assert [entry["text"] for entry in bob.of("message.created")] == texts
    seqs = [entry["seq"] for entry in bob.entries]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_data_is_passed_on_as_it_is(alice, bob):
    """Any JSON in `data` arrives unchanged, null included."""
    for data in ({"a": [1, 2.5, None, "ü"]}, None, 0, "x", []):
        await alice.ok("send", room="general", data=data)
        assert bob.of("message.created")[-1]["data"] == data
    assert (await bob.ok("history", room="general", limit=1))["entries"][0]["data"] == []


@pytest.mark.parametrize(
    "fields, code",
    [
        ({}, "bad_request"),
        ({"text": " \n"}, "bad_request"),
        ({"text": "x" * 8001}, "too_large"),
        ({"text": 5}, "bad_request"),
        ({"text": "x", "client_id": "c" * 65}, "bad_request"),
        ({"text": "x", "reply_to": 99}, "not_found"),
        ({"text": "x", "thread": 99}, "not_found"),
        ({"text": "x", "reply_to": 0}, "bad_request"),
        ({"text": "x", "reply_to": -1}, "bad_request"),
        ({"text": "x", "reply_to": 2**60}, "bad_request"),
        ({"text": "x", "room": "no such"}, "bad_request"),
        ({"text": "x", "room": "ro\nom"}, "bad_request"),
        ({"text": "x", "room": "r" * 65}, "bad_request"),
        ({"text": "x", "room": ""}, "bad_request"),
        ({"text": "x", "room": "general\n"}, "bad_request"),
        ({"text": "x", "room": "elsewhere"}, "not_found"),
    ],
)
async def test_a_bad_message_is_refused_by_name_and_nothing_is_stored(alice, bob, fields, code):
    """Each mistake has its error code, and the others notice nothing."""
    before = (await bob.ok("history", room="general"))["head"]
    assert await alice.refused("send", **{"room": "general", **fields}) == code
    assert (await bob.ok("history", room="general"))["head"] == before
    assert bob.of("message.created") == []


async def test_an_author_edits_his_message(alice, bob):
    """An edit is an entry of its own that names its target; a page that has the target tells of it."""
    seq = (await alice.ok("send", room="general", text="helo"))["seq"]
    edited = await alice.ok("edit", room="general", target=seq, text="hello")
    entry = bob.of("message.edited")[-1]
    assert (entry["target"], entry["text"], entry["seq"]) == (seq, "hello", edited["seq"])
    page = await bob.ok("history", room="general", before=seq + 1, limit=1)
    assert [each["seq"] for each in page["entries"]] == [seq]
    assert page["changes"] == [entry]


async def test_nobody_edits_somebody_elses_message(alice, bob):
    """Not even the room's owner."""
    seq = (await bob.ok("send", room="general", text="mine"))["seq"]
    assert await alice.refused("edit", room="general", target=seq, text="yours") == "forbidden"
    assert await alice.refused("edit", room="general", target=seq + 7, text="yours") == "not_found"
    assert await alice.refused("edit", room="general", target=1, text="not a message") == "not_found"


async def test_a_deleted_message_keeps_its_place_and_loses_its_words(alice, bob):
    """After a deletion neither the message nor its edits can be read; deleting again changes nothing."""
    seq = (await bob.ok("send", room="general", text="secret", data={"a": 1}))["seq"]
    await bob.ok("edit", room="general", target=seq, text="still secret")
    await bob.ok("delete", room="general", target=seq)
    page = await alice.ok("history", room="general")
    assert "secret" not in json.dumps(page)
    message = next(entry for entry in page["entries"] if entry["seq"] == seq)
    assert message["deleted"] is True and "data" not in message
    assert (await bob.ok("delete", room="general", target=seq))["seq"] == 0
    assert await bob.refused("edit", room="general", target=seq, text="back") == "conflict"


async def test_a_moderator_deletes_what_others_wrote_and_a_member_does_not(alice, bob):
    """Deleting others' messages takes the role of a moderator or owner."""
    mine = (await alice.ok("send", room="general", text="x"))["seq"]
    his = (await bob.ok("send", room="general", text="x"))["seq"]
    assert await bob.refused("delete", room="general", target=mine) == "forbidden"
    assert (await alice.ok("delete", room="general", target=his))["seq"] == his + 1


async def test_reactions_are_added_and_taken_back_once(alice, bob):
    """Twice the same reaction is one; taking back what is not there changes nothing."""
    seq = (await alice.ok("send", room="general", text="x"))["seq"]
    first = await bob.ok("react", room="general", target=seq, reaction="👍")
    assert first["seq"] == seq + 1
    assert (await bob.ok("react", room="general", target=seq, reaction="👍"))["seq"] == 0
    assert (await bob.ok("unreact", room="general", target=seq, reaction="🎉"))["seq"] == 0
    assert (await bob.ok("unreact", room="general", target=seq, reaction="👍"))["seq"] == seq + 2
    assert [entry["reaction"] for entry in alice.of("reaction.added", "reaction.removed")] == ["👍", "👍"]
    assert await bob.refused("react", room="general", target=seq + 50, reaction="👍") == "not_found"
    assert await bob.refused("react", room="general", target=seq, reaction="") == "bad_request"


async def test_history_goes_both_ways_and_around(alice, bob):
    """Pages are in seq order, exclude the edge they are asked from, and say whether there is more."""
    first = (await alice.ok("send", room="general", text="0"))["seq"]
    for n in range(1, 10):
        await alice.ok("send", room="general", text=str(n))

    async def texts(**where):
        page = await bob.ok("history", room="general", **where)
        return [entry.get("text") for entry in page["entries"]], page["has_more"]

    assert await texts(limit=3) == (["7", "8", "9"], True)
    assert await texts(before=first + 3, limit=2) == (["1", "2"], True)
    assert await texts(after=first + 6, limit=5) == (["7", "8", "9"], False)
    assert await texts(around=first + 5, limit=3) == (["4", "5", "6"], True)
    assert await bob.refused("history", room="general", before=1, after=1) == "bad_request"
    assert await bob.refused("history", room="general", limit=201) == "bad_request"


async def test_a_thread_has_its_root_and_its_answers(alice, bob):
    """`history` with `thread` leaves out the rest of the room."""
    root = (await alice.ok("send", room="general", text="root"))["seq"]
    await bob.ok("send", room="general", text="elsewhere")
    await bob.ok("send", room="general", text="answer", thread=root, reply_to=root)
    page = await alice.ok("history", room="general", thread=root)
    assert [entry["text"] for entry in page["entries"]] == ["root", "answer"]


async def test_a_reply_is_bounded_in_bytes_and_says_that_there_is_more():
    """A page of long messages is cut where one reply is full, nearest to the edge first."""
    async with lab(max_reply_bytes=5_000, max_text_chars=5_000) as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="general")
        first = (await alice.ok("send", room="general", text="a" * 2_000))["seq"]
        for letter in "bcdef":
            await alice.ok("send", room="general", text=letter * 2_000)

        async def letters(**where):
            page = await alice.ok("history", room="general", **where)
            assert page["has_more"]
            return "".join(entry["text"][0] for entry in page["entries"])

        assert await letters() == "ef"
        assert await letters(after=first) == "bc"
        assert await letters(around=first + 2) in ("bc", "cd")


async def test_unread_counts_what_came_after_the_mark_and_own_messages_move_it(at, alice, bob):
    """A message is unread for the others until they mark it; writing marks what was there as read."""

    async def unread(tab):
        return next(room["unread"] for room in (await tab.ok("sync"))["rooms"] if room["room"] == "general")

    seq = 0
    for n in range(3):
        seq = (await alice.ok("send", room="general", text=str(n)))["seq"]
    await alice.ok("react", room="general", target=seq, reaction="👍")
    assert (await unread(alice), await unread(bob)) == (0, 3)
    await bob.ok("read", room="general", seq=seq - 1)
    assert await unread(bob) == 1
    await bob.ok("read", room="general", seq=1)
    assert await unread(bob) == 1
    await bob.ok("send", room="general", text="me too")
    assert (await unread(alice), await unread(bob)) == (1, 0)


async def test_reading_is_told_to_the_room_and_to_ones_other_tabs(at, alice, bob):
    """A read mark that moved is a signal; a mark behind the old one is none."""
    seq = (await alice.ok("send", room="general", text="x"))["seq"]
    other = await at.tab("bob")
    await bob.ok("read", room="general", seq=seq)
    expected = {"type": "read", "room": "general", "user": "bob", "seq": seq}
    assert alice.of("read") == [expected] and other.of("read") == [expected] and bob.of("read") == []


async def test_a_typing_signal_goes_to_the_others(alice, bob):
    """The one who types is not told, and what is told has no seq."""
    await bob.ok("typing", room="general", on=True)
    await bob.ok("typing", room="general", on=False)
    assert [signal["on"] for signal in alice.of("typing")] == [True, False]
    assert all("seq" not in signal for signal in alice.of("typing"))
    assert bob.of("typing") == []


async def test_hooks_check_change_and_hear_of_messages():
    """`before` refuses or changes an ask, `on` hears of the stored entry, and a failing hook hurts nobody."""
    chat = hubbub.Chat()
    heard = []

    @chat.before("send")
    async def check(chat, by, ask: Send):
        if "damn" in (ask.text or ""):
            raise Forbidden("Mind your words.")

    @chat.before("send")
    async def shout(chat, by, ask: Send):
        ask.text = (ask.text or "").upper()
        return ask

    @chat.on("message.created")
    async def listen(chat, entry):
        heard.append(entry.text)

    @chat.on("message.created")
    async def broken(chat, entry):
        raise RuntimeError("this hook is broken on purpose")

    async with lab(chat) as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="general")
        assert await alice.refused("send", room="general", text="damn") == "forbidden"
        await alice.ok("send", room="general", text="hi", client_id="1")
        await alice.ok("send", room="general", text="hi", client_id="1")
        await settle()
        assert alice.of("message.created")[0]["text"] == "HI"
        assert heard == ["HI"]
        assert chat.stats.hook_failures == 1


async def test_users_add_their_own_actions():
    """An action is a function with a struct for its fields, checked like the built-in ones."""
    chat = hubbub.Chat()

    class Vote(Ask):
        room: Room_
        option: int

    class Voted(Result):
        votes: int

    votes: list[int] = []

    @chat.action("vote")
    async def vote(chat, by, ask: Vote) -> Voted:
        votes.append(ask.option)
        return Voted(votes=len(votes))

    with pytest.raises(ValueError, match="exists already"):
        chat.action("send")(vote)
    with pytest.raises(TypeError, match="async def"):
        chat.action("other")(lambda chat, by, ask: None)

    async with lab(chat) as at:
        alice = await at.tab("alice")
        assert await alice.ok("vote", room="general", option=2) == {"votes": 1}
        assert await alice.refused("vote", room="general", option="two") == "bad_request"
        assert votes == [2]


async def test_two_who_delete_the_same_message_both_succeed(alice, bob):
    """One entry is written; the slower one is told that there was nothing to write."""
    seq = (await bob.ok("send", room="general", text="x"))["seq"]
    replies = await asyncio.gather(*(tab.ok("delete", room="general", target=seq) for tab in (alice, bob)))
    assert sorted(reply["seq"] for reply in replies) == [0, seq + 1]


@pytest.mark.parametrize(
    "data, code",
    [
        ("[" * 100 + "]" * 100, None),
        ('{"a":' * 100 + "1" + "}" * 100, None),
        ("[" + "[]," * 500 + "1]", None),
        ('["' + "[{" * 500 + '\\"[[[", "\\\\"]', None),
        ("[" * 101 + "]" * 101, "bad_request"),
        ('{"a":' * 101 + "1" + "}" * 101, "bad_request"),
        ("[" * 900 + "]" * 900, "bad_request"),
        ("[" * 5_000 + "]" * 5_000, "bad_request"),
        ('["\\\\", ' * 101 + "1" + "]" * 101, "bad_request"),
    ],
)
async def test_data_is_not_nested_deeper_than_readers_can_read(alice, bob, data, code):
    """A hundred levels are passed on; more are refused, or one message would break every reader's parser."""
    body = '{"action":"send","ref":"r","room":"general","data":%s}' % data  # noqa: UP031  braces
    reply = json.loads((await alice.say(body)).body)
    assert reply.get("code") == code
    assert len(bob.of("message.created")) == (code is None)
    await bob.ok("history", room="general")


async def test_a_page_of_history_is_bounded_with_what_has_become_of_its_messages():
    """However often a message was edited, its last words are told once, and they count for the size of the reply."""
    async with lab(max_reply_bytes=5_000, max_text_chars=5_000) as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="general")
        seqs = [(await alice.ok("send", room="general", text=str(n)))["seq"] for n in range(4)]
        for n in range(10):
            for seq in seqs:
                await alice.ok("edit", room="general", target=seq, text=f"{n}" * 2_000)
        last = (await alice.ok("react", room="general", target=seqs[0], reaction="👍"))["seq"]
        page = await alice.ok("history", room="general", after=seqs[0] - 1, limit=4)
        assert [entry["seq"] for entry in page["entries"]] == seqs[:2] and page["has_more"]
        assert [(change["type"], change["target"]) for change in page["changes"]] == [
            ("message.edited", seqs[0]),
            ("message.edited", seqs[1]),
            ("reaction.added", seqs[0]),
        ]
        assert {change["text"][0] for change in page["changes"][:2]} == {"9"} and page["changes"][2]["seq"] == last
        page = await alice.ok("history", room="general", before=seqs[-1] + 1, limit=4)
        assert [entry["seq"] for entry in page["entries"]] == seqs[2:] and page["has_more"]


async def test_a_page_that_is_cut_tells_what_it_cut_off_of_its_own_messages():
    """An edit that no longer fits as an entry of the page is told as a change of the message that did."""
    async with lab(max_reply_bytes=4_000, max_text_chars=5_000) as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="general")
        first = (await alice.ok("send", room="general", text="old"))["seq"]
        await alice.ok("send", room="general", text="x" * 3_000)
        await alice.ok("edit", room="general", target=first, text="new" + " " * 1_000)
        page = await alice.ok("history", room="general", after=first - 1)
        assert [entry["seq"] for entry in page["entries"]] == [first, first + 1]
        assert [(change["seq"], change["text"][:3]) for change in page["changes"]] == [(first + 2, "new")]


async def test_reading_beyond_the_end_marks_what_there_is(at, alice, bob):
    """The mark goes to the head, the others are told where it is, and what comes later is unread."""
    seq = (await alice.ok("send", room="general", text="x"))["seq"]
    await bob.ok("read", room="general", seq=seq + 1_000)
    assert alice.of("read") == [{"type": "read", "room": "general", "user": "bob", "seq": seq}]
    await alice.ok("send", room="general", text="y")
    assert [room["unread"] for room in (await bob.ok("sync"))["rooms"]] == [1]
    await bob.ok("read", room="general", seq=seq - 1)
    assert len(alice.of("read")) == 1


async def test_in_a_crowd_reading_is_told_to_ones_own_tabs_only():
    """Nobody else is told, however many read."""
    async with lab(crowd=2) as at:
        tabs = [await at.tab(user, rooms={"hall": "member"}) for user in ("alice", "bob", "bob", "carol")]
        seq = (await tabs[0].ok("send", room="hall", text="x"))["seq"]
        await tabs[1].ok("read", room="hall", seq=seq)
        assert [len(tab.of("read")) for tab in tabs] == [0, 0, 1, 0]


async def test_a_hook_or_action_that_returns_something_else_is_a_defect_that_hurts_nobody():
    """The asker is told `internal` under his `ref`, nothing is stored, and the log says whose fault it is."""
    chat = hubbub.Chat()

    class Vote(Ask):
        pass

    @chat.action("vote")
    async def vote(chat, by, ask: Vote):
        return {"votes": 1}

    @chat.action("forget")
    async def forget(chat, by, ask: Vote):
        pass

    class Unsayable(Result):
        what: object

    @chat.action("mumble")
    async def mumble(chat, by, ask: Vote):
        return Unsayable(what=object())

    @chat.before("send")
    async def wrong(chat, by, ask: Send):
        return Vote()

    async with lab(chat) as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="general")
        for action in ("vote", "forget", "mumble"):
            assert await alice.refused(action) == "internal"
        assert await alice.refused("send", room="general", text="x") == "internal"
        assert alice.of("message.created") == []
        assert chat.stats.actions["vote"] == 0


async def test_a_built_in_action_is_replaced_only_on_purpose():
    """With `replace` one's own function takes the place, the hooks before it stay, and other chats are not touched."""
    chat, seen = hubbub.Chat(), []

    @chat.before("ping")
    async def note(chat, by, ask):
        seen.append(by.user)

    @chat.action("ping", replace=True)
    async def ping(chat, by, ask: Ask) -> Result:
        raise Forbidden("Nobody pings here.")

    async with lab(chat) as at:
        assert await (await at.tab("alice")).refused("ping") == "forbidden"
        assert seen == ["alice"]
    async with lab() as at:
        await (await at.tab("alice")).ok("ping")


async def test_hooks_that_answer_each_other_stop():
    """A hook that answers its own messages goes ten rounds and no further; the next message begins anew."""
    chat = hubbub.Chat()

    @chat.on("message.created")
    async def echo(chat, entry):
        by = Principal("echo", 2**40, scopes=("server",))
        await chat.perform("send", Send(room=entry.room, text=f"{entry.text}!"), by)

    async with lab(chat) as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="general")
        for n in (1, 2):
            await alice.ok("send", room="general", text="hi")
            await chat.aclose()
            assert alice.of("message.created")[-1]["text"] == "hi" + "!" * 10
            assert len(alice.of("message.created")) == 11 * n
            assert chat.stats.hook_failures == n


async def test_a_hook_that_hangs_holds_nobody_up(monkeypatch):
    """Senders are answered, further hooks are left out when too many run, and the chat can be closed."""
    chat, ended = hubbub.Chat(), []

    @chat.on("message.created")
    async def hang(chat, entry):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(entry.text)

    monkeypatch.setattr("hubbub.chat.core.MAX_HOOKS", 3)
    async with lab(chat) as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="general")
        for n in range(5):
            await alice.ok("send", room="general", text=str(n))
        assert chat.stats.hook_failures == 2
        await chat.aclose(within_s=0.01)
        assert sorted(ended) == ["0", "1", "2"]


async def test_hooks_may_ask_in_their_turn():
    """`perform` inside a hook goes through the other hooks and checks; one that asks itself for ever is `internal`."""
    chat = hubbub.Chat()

    @chat.before("react")
    async def only_members_react(chat, by, ask):
        await chat.perform("read", Read(room=ask.room, seq=ask.target), by.principal)

    @chat.before("unreact")
    async def round_and_round(chat, by, ask):
        await chat.perform("unreact", ask, by.principal)

    async with lab(chat) as at:
        alice, bob = await at.tab("alice"), await at.tab("bob")
        await alice.ok("create", kind="private", room="den")
        seq = (await alice.ok("send", room="den", text="x"))["seq"]
        await alice.ok("react", room="den", target=seq, reaction="👍")
        assert await bob.refused("react", room="den", target=seq, reaction="👍") == "not_found"
        assert await alice.refused("unreact", room="den", target=seq, reaction="👍") == "internal"
        await alice.ok("ping")
