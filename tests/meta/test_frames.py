"""What the chat really says is what the AsyncAPI document says that it says."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft7Validator

from chatlab import Lab, Tab, lab
from documents import ROOT
from hubbub.chat import Chat
from hubbub.model import SYSTEM, MessageCreated, type_of
from hubbub.protocol import ACTIONS

Json = dict[str, Any]


class Witness:
    """Asks, and holds every frame against the document."""

    def __init__(self) -> None:
        self.document: Json = json.loads((ROOT / "docs" / "asyncapi.json").read_text(encoding="utf-8"))
        self.asked: set[str] = set()
        self.told: set[str] = set()

    def schema(self, message: Json) -> Json:
        """The schema of a channel's message."""
        payload = self.document["components"]["messages"][message["$ref"].rpartition("/")[2]]["payload"]
        # What is not described is not to be there: `type` and `ref` aside, the schemas are closed here.
        schema = self.document["components"]["schemas"][payload["$ref"].rpartition("/")[2]]
        return {**schema, "additionalProperties": False, "components": self.document["components"]}

    async def ask(self, tab: Tab, action: str, **fields: Any) -> Json:
        """Ask and be answered, both as documented."""
        operation = self.document["operations"][action]
        question = {"action": action, "ref": "r1", **fields}
        Draft7Validator(self.schema(operation["messages"][0])).validate(question)
        reply = {**await tab.ask(action, **fields), "ref": "r1"}
        answers = [self.schema(message) for message in operation["reply"]["messages"]]
        assert any(Draft7Validator(schema).is_valid(reply) for schema in answers), (action, reply)
        assert reply["type"] == "ok", reply
        self.asked.add(action)
        return reply

    def hear(self, tab: Tab) -> None:
        """Hold all that a tab was told against the document, by type."""
        operations = self.document["operations"]
        sent = [*operations["entries"]["messages"], *operations["signals"]["messages"]]
        by_type = {schema["properties"]["type"]["enum"][0]: schema for schema in map(self.schema, sent)}
        for frame in tab.frames:
            Draft7Validator(by_type[frame["type"]]).validate(frame)
            self.told.add(frame["type"])


async def scenario(at: Lab, witness: Witness) -> None:
    """Two people do everything there is to do."""
    alice, bob = await at.tab("alice", name="Alice"), await at.tab("bob", avatar="https://example.org/b.png")
    say = witness.ask
    await say(alice, "create", kind="public", room="general", name="General")
    await say(bob, "rooms")
    await say(bob, "subscribe", room="general")
    await say(bob, "unsubscribe", room="general")
    await say(bob, "join", room="general")
    await at.tick(2)
    first = await say(alice, "send", room="general", text="Hello", data={"any": ["thing", None]}, client_id="c-1")
    await say(bob, "read", room="general", seq=first["seq"])
    await say(bob, "send", room="general", text="Hi", reply_to=first["seq"], thread=first["seq"])
    await say(alice, "edit", room="general", target=first["seq"], text="Hello!")
    await say(bob, "react", room="general", target=first["seq"], reaction="👋")
    await say(bob, "unreact", room="general", target=first["seq"], reaction="👋")
    await say(bob, "typing", room="general")
    await say(bob, "history", room="general", around=first["seq"], limit=1)
    await say(bob, "members", room="general")
    await say(bob, "presence", room="general")
    await say(alice, "role", room="general", user="bob", role="moderator")
    await say(bob, "delete", room="general", target=first["seq"])
    await say(bob, "history", room="general", thread=first["seq"])
    await at.chat.update_room("general", name="Everybody")
    await say(alice, "kick", room="general", user="bob")
    await say(alice, "invite", room="general", user="bob")
    await say(bob, "sync", rooms={"general": 1})
    await say(bob, "leave", room="general")
    await say(bob, "leave", room="general")
    await say(alice, "create", kind="direct", members=["bob"])
    await say(alice, "ping")
    carol = await at.tab("carol", ttl_s=120, rooms={"order-815": "member"})
    await at.tick(70)
    token = at.token("carol", name="Carol")
    await say(carol, "auth", token=token)
    for tab in (alice, bob, carol):
        witness.hear(tab)


async def test_every_frame_is_as_documented() -> None:
    """Every action, every answer and everything told live fits the document's schemas, to the last field."""
    witness = Witness()
    async with lab(presence_grace_s=1.0) as at:
        await scenario(at, witness)
    assert witness.asked == set(ACTIONS)
    assert witness.told >= {"message.created", "message.edited", "message.deleted", "reaction.added"}
    assert witness.told >= {"reaction.removed", "member.joined", "member.left", "member.updated", "room.updated"}
    assert witness.told >= {"typing", "presence", "read", "room", "notice"}


async def test_a_failure_is_as_documented() -> None:
    """A refusal and an internal error both fit the schema of errors, the second with the request's id."""
    witness, chat = Witness(), Chat()

    @chat.before("ping")
    async def broken(chat: Chat, by: Any, ask: Any) -> None:
        raise RuntimeError("a defect")

    async with lab(chat) as at:
        alice = await at.tab("alice")
        schema = witness.schema({"$ref": "#/channels/chat/messages/ErrorReply"})
        for frame in ({"action": "join", "room": "nowhere"}, {"action": "ping"}, {"action": "?"}, []):
            reply = json.loads((await alice.say(json.dumps(frame))).body or "")
            Draft7Validator(schema).validate(reply)
            assert ("request_id" in reply) == (reply["code"] == "internal")


async def test_the_words_of_a_deleted_message_are_gone() -> None:
    """After a deletion neither the message nor its edits are handed out with their words, as the protocol says."""
    async with lab() as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="general")
        seq = (await alice.ok("send", room="general", text="secret", data={"also": "secret"}))["seq"]
        await alice.ok("edit", room="general", target=seq, text="still secret")
        await alice.ok("delete", room="general", target=seq)
        page = await alice.ok("history", room="general")
        assert "secret" not in json.dumps(page)
        left = [entry for entry in page["entries"] if entry["type"].startswith("message.") and entry.get("deleted")]
        assert [entry["type"] for entry in left] == ["message.created", "message.edited"]


async def test_the_systems_messages_are_written_as_shown() -> None:
    """The call that the documents show for a hook's own message stores it and hands it out."""
    async with lab() as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="general")
        entry = await at.chat.write(MessageCreated(room="general", by=SYSTEM, text="pong"))
        assert alice.of(type_of(entry))[0]["text"] == "pong"
