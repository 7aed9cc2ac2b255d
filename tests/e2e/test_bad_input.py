"""What bad input gets from a real server: the error or close code that the protocol names; nobody else notices.

In every test Ann sits in the room, and at its end she has heard nothing odd, still speaks, and still hears.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwk, jwt
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hubbub.app import Node
from hubbub.clock import SystemClock
from hubbub.config import Settings
from live import BOUND_S, SECRET, Wire, backend, token, until

ROOM = "tea"
QUIET = {"presence", "head"}
"""Signals that come by themselves."""


@asynccontextmanager
async def bystander(node: Node) -> AsyncIterator[Wire]:
    """Ann, in the room from before to after; whatever the others do, she gets its entries in order and nothing else."""
    async with await Wire.open(node.ws_url, token("ann")) as ann:
        await ann.ok("create", kind="public", room=ROOM)
        head = (await ann.ok("sync"))["rooms"][0]["head"]
        ann.frames.clear()
        yield ann
        sent = await ann.ok("send", room=ROOM, text="Still here.")
        page = (await ann.ok("history", room=ROOM, after=head))["entries"]
        assert page[-1]["seq"] == sent["seq"]
        assert [frame for frame in ann.frames if frame["type"] not in QUIET] == page


@pytest.fixture
async def ann(node: Node) -> AsyncIterator[Wire]:
    """The bystander."""
    async with bystander(node) as wire:
        yield wire


@asynccontextmanager
async def mallory(node: Node, name: str = "mallory") -> AsyncIterator[Wire]:
    """A member of the room with bad input in mind."""
    async with await Wire.open(node.ws_url, token(name)) as wire:
        await wire.ok("join", room=ROOM)
        await wire.ok("sync")
        yield wire


async def answer(wire: Wire, body: str) -> dict[str, Any]:
    """What a frame is answered with, written as it is; it has to have an error or a ref."""
    await wire.socket.send(body)
    while (frame := await wire.receive())["type"] not in ("ok", "error"):
        wire.frames.append(frame)
    return frame


async def codes(wire: Wire, *bodies: str) -> dict[str, str]:
    """The error code that each frame gets; `ok` for a success."""
    found = {}
    for body in bodies:
        reply = await answer(wire, body)
        found[body] = reply.get("code", "ok")
        if reply["type"] == "error":
            assert isinstance(reply["message"], str) and isinstance(reply["retry"], bool)
            assert reply.keys() <= {"type", "ref", "code", "message", "retry", "retry_after_ms"}
    await wire.ok("ping")
    return found


def frame(action: str, **fields: str) -> str:
    """A frame whose fields are JSON texts, so that they can be what no encoder would write."""
    rest = "".join(f', "{name}": {value}' for name, value in fields.items())
    return f'{{"action": "{action}", "ref": "r"{rest}}}'


# Frames


NO_FRAMES = (
    *("", " ", "hi", "{", "}", '{"action": "ping"', '{"action": "ping",}', "{'action': 'ping'}", "\x00", "\ufeff{}"),
    *("[]", '["ping"]', "5", "1e400", "null", "true", '"ping"', "NaN", '{"action": "ping"} {"action": "ping"}'),
    *("{}", '{"ref": "1"}', '{"action": null}', '{"action": 5}', '{"action": ["ping"]}', '{"action": {"a": 1}}'),
    *('{"action": "ping", "ref": 5}', '{"action": "ping", "ref": {}}', f'{{"action": "ping", "ref": "{"r" * 65}"}}'),
    *("[" * 30_000, '{"a":' * 5_000, '{"action": "ping", "x": ' + "[" * 5_000, '{"action": "ping", "x": "\\ud800"}'),
)


async def test_what_is_no_json_object_with_an_action_is_a_bad_request(node: Node, ann: Wire) -> None:
    """Each such frame gets `bad_request`, which has no `ref` to repeat, and the connection goes on."""
    async with mallory(node) as wire:
        assert await codes(wire, *NO_FRAMES) == dict.fromkeys(NO_FRAMES, "bad_request")
        assert "ref" not in await answer(wire, "{")


async def test_an_action_that_nobody_knows_is_unknown(node: Node, ann: Wire) -> None:
    """`unknown_action`, whatever the name looks like; route keys and names of Python are no actions."""
    names = ("fly", "", "PING", "ping ", "$connect", "$disconnect", "$default", "__init__", "sync\\u0000", "x" * 30_000)
    bodies = [frame(name) for name in names]
    async with mallory(node) as wire:
        assert await codes(wire, *bodies) == dict.fromkeys(bodies, "unknown_action")


WRONG = ("null", "true", "5", "1.5", "[]", "{}", '"x y"', '[" "]')
"""Values that no required field of any action takes."""

FIELDS = {
    "send": {"room": '"tea"', "text": '"x"', "client_id": '"c"'},
    "edit": {"room": '"tea"', "target": "1", "text": '"x"'},
    "delete": {"room": '"tea"', "target": "1"},
    "react": {"room": '"tea"', "target": "1", "reaction": '"x"'},
    "unreact": {"room": '"tea"', "target": "1", "reaction": '"x"'},
    "history": {"room": '"tea"', "limit": "1", "before": "1"},
    "create": {"kind": '"public"', "room": '"new"', "name": '"New"', "members": "[]"},
    "join": {"room": '"tea"'},
    "leave": {"room": '"tea"'},
    "invite": {"room": '"tea"', "user": '"bob"', "role": '"member"'},
    "kick": {"room": '"tea"', "user": '"bob"'},
    "role": {"room": '"tea"', "user": '"bob"', "role": '"member"'},
    "members": {"room": '"tea"', "limit": "1", "after": '"a"'},
    "rooms": {"limit": "1", "after": '"a"'},
    "subscribe": {"room": '"tea"'},
    "unsubscribe": {"room": '"tea"'},
    "typing": {"room": '"tea"', "on": "true"},
    "read": {"room": '"tea"', "seq": "1"},
    "presence": {"room": '"tea"'},
    "sync": {"rooms": "{}", "epoch": '"e"'},
    "auth": {"token": '"t"'},
}


async def test_a_field_of_the_wrong_type_is_a_bad_request(node: Node, ann: Wire) -> None:
    """For every field of every action: a value of another type gets `bad_request`, and nothing is done."""
    wrong = {
        '"x"': ("true", "5", "1.5", "[]", "{}"),
        "1": ("true", '"1"', "[]", "{}", "1.0"),
        "[]": ("true", "5", '"bob"', "{}", "[5]", "[null]", '[""]', '["bob", 5]'),
        "{}": ("true", "5", '"x"', "[]", '{"tea": "1"}', '{"tea": null}', '{"tea": 1.0}', '{"t ea": 1}'),
        "true": ("5", '"true"', "[]", "{}"),
    }
    for count, (action, fields) in enumerate(FIELDS.items()):
        bodies = [
            frame(action, **{**fields, name: value})
            for name, good in fields.items()
            for value in wrong['"x"' if good.startswith('"') else good]
        ]
        required = [name for name in fields if name in ("room", "target", "reaction", "kind", "user", "seq", "token")]
        bodies += [frame(action, **{k: v for k, v in fields.items() if k != name}) for name in required]
        if action == "create":
            bodies.remove(frame(action, **{k: v for k, v in fields.items() if k != "room"}))  # the server makes one up
        async with mallory(node, f"mallory{count}") as wire:
            assert await codes(wire, *bodies) == dict.fromkeys(bodies, "bad_request")
    async with mallory(node) as wire:
        bodies = [frame("create", kind='"secret"'), frame("invite", room='"tea"', user='"b"', role='"god"')]
        assert await codes(wire, *bodies) == dict.fromkeys(bodies, "bad_request")


# Rooms

NO_ROOM_IDS = (
    *("", " ", "tea ", " tea", "t ea", "tea\\n", "\\ntea", "tea\\r\\n", "tea\\u0000", "te\\u0000a", "tea/..", "../tea"),
    *("tea?", "tea#", "tea%0A", "téa", "\\u0442ea", "\\uff54ea", "tea\\u200b", "tea\\u00a0", "\\ud83c\\udf75", "te'a"),
    *('tea\\"', "tea;--", "tea*", "{tea}", "tea\\u2028", "t" * 65, "t" * 20_000),
)
"""Room ids with a character that none has, look-alikes of `tea` among them, as JSON strings are written."""

IN_A_ROOM = {
    "send": {"text": '"x"'},
    "edit": {"target": "1", "text": '"x"'},
    "delete": {"target": "1"},
    "react": {"target": "1", "reaction": '"x"'},
    "unreact": {"target": "1", "reaction": '"x"'},
    "history": {},
    "join": {},
    "invite": {"user": '"bob"'},
    "kick": {"user": '"bob"'},
    "role": {"user": '"bob"', "role": '"reader"'},
    "members": {},
    "subscribe": {},
    "typing": {},
    "read": {"seq": "1"},
    "presence": {},
}
"""Actions that need a room that is there."""


async def test_a_room_id_with_odd_characters_is_a_bad_request(node: Node, ann: Wire) -> None:
    """Trailing line ends, look-alikes and paths are no room ids, wherever they stand."""
    for count, action in enumerate(("send", "history", "create", "leave")):
        fields = {"text": '"x"', "kind": '"public"'}
        bodies = [frame(action, **fields, room=f'"{room}"') for room in NO_ROOM_IDS]
        bodies += [frame("sync", rooms=f'{{"{room}": 1}}') for room in NO_ROOM_IDS]
        async with mallory(node, f"mallory{count}") as wire:
            assert await codes(wire, *bodies) == dict.fromkeys(bodies, "bad_request")
            listed = (await wire.ok("rooms"))["rooms"]
            assert [room["id"] for room in listed] == [ROOM]


async def test_a_room_that_is_not_there_and_one_of_others_are_the_same_to_a_stranger(node: Node, ann: Wire) -> None:
    """`not_found` in the same words for every action, whether there is such a room or not; leaving it succeeds."""
    await ann.ok("create", kind="private", room="secret", name="Secret")
    direct = (await ann.ok("create", kind="direct", members=["carol"]))["room"]
    told = {}
    async with mallory(node) as wire:
        for room in ("nowhere", "secret", direct, "direct:0123456789abcdef0123456789abcdef"):
            replies = [await answer(wire, frame(action, room=f'"{room}"', **f)) for action, f in IN_A_ROOM.items()]
            assert {reply.get("code") for reply in replies} == {"not_found"}, replies
            told[room] = [reply["message"].replace(room, "ROOM") for reply in replies]
            for action in ("leave", "unsubscribe"):
                assert await codes(wire, frame(action, room=f'"{room}"')) == {frame(action, room=f'"{room}"'): "ok"}
        synced = await wire.ok("sync", rooms={"nowhere": 1, "secret": 1, direct: 1})
        assert [room["room"] for room in synced["rooms"]] == [ROOM]
        assert (synced["entries"], synced["more"], synced["reset"]) == ([], [], [])
    assert len({tuple(messages) for messages in told.values()}) == 1
    ann.frames = [each for each in ann.frames if each.get("room") == ROOM]


async def test_rooms_of_two_are_made_by_the_server_alone(node: Node, ann: Wire) -> None:
    """An id that begins with `direct:` cannot be chosen, and a direct room has exactly one other member."""
    bodies = [
        frame("create", kind='"public"', room='"direct:x"'),
        frame("create", kind='"private"', room='"direct:"'),
        frame("create", kind='"direct"', room='"mine"', members='["ann"]'),
        frame("create", kind='"direct"'),
        frame("create", kind='"direct"', members='["mallory"]'),
        frame("create", kind='"direct"', members='["mallory", "mallory"]'),
        frame("create", kind='"direct"', members='["ann", "bob"]'),
    ]
    async with mallory(node) as wire:
        assert await codes(wire, *bodies) == dict.fromkeys(bodies, "bad_request")


# Messages that are not there, or not one's own

NO_SEQS = ("-1", "-0.0", "1.5", "1.0", "1e2", "1e400", "-1e400", "9007199254740992", "9" * 400, '"1"', "true", "[1]")
"""What is no seq: negative, broken, or beyond 2^53 - 1."""

SEQS = {
    "reply_to": ("send", {"text": '"x"'}, "not_found"),
    "thread": ("send", {"text": '"x"'}, "not_found"),
    "edit": ("edit", {"text": '"x"'}, "not_found"),
    "delete": ("delete", {}, "not_found"),
    "react": ("react", {"reaction": '"x"'}, "not_found"),
    "unreact": ("unreact", {"reaction": '"x"'}, "not_found"),
    "before": ("history", {}, "ok"),
    "after": ("history", {}, "ok"),
    "around": ("history", {}, "ok"),
    "seq": ("read", {}, "ok"),
}
"""Where a seq can be said, with what, and what one beyond the log gets."""


async def test_a_seq_that_is_none_is_a_bad_request_and_one_that_is_not_there_is_not_found(
    node: Node, ann: Wire
) -> None:
    """The same values for every field that takes a seq; pages beyond the log are empty, and marks stop at its end."""
    for count, (field, (action, fields, beyond)) in enumerate(SEQS.items()):
        field = "target" if field == action else field
        bad = [frame(action, room='"tea"', **fields, **{field: value}) for value in NO_SEQS]
        far = [
            frame(action, room='"tea"', **fields, **{field: value})
            for value in ("999999", "68719476736", "9007199254740991")
        ]
        async with mallory(node, f"mallory{count}") as wire:
            assert await codes(wire, *bad, *far) == dict.fromkeys(bad, "bad_request") | dict.fromkeys(far, beyond)
            zero = frame(action, room='"tea"', **fields, **{field: "0"})
            assert await codes(wire, zero) == {zero: "bad_request" if beyond == "not_found" else "ok"}
    async with mallory(node) as wire:
        bodies = [frame("sync", rooms=f'{{"tea": {value}}}') for value in NO_SEQS]
        bodies += [frame("history", room='"tea"', before="5", after="1")]
        bodies += [frame("history", room='"tea"', limit=limit) for limit in ("0", "-1", "201", "1.0", "1e400")]
        assert await codes(wire, *bodies) == dict.fromkeys(bodies, "bad_request")
        assert (await wire.ok("sync", rooms={ROOM: 2**53 - 1}))["reset"] == [ROOM]
        for edge in ({"after": 2**53 - 1}, {"before": 0}, {"before": 1}):
            page = await wire.ok("history", room=ROOM, **edge)
            assert (page["entries"], page["has_more"]) == ([], False)
        page = await wire.ok("history", room=ROOM, around=2**53 - 1, limit=2)
        assert [entry["seq"] for entry in page["entries"]] == [page["head"] - 1, page["head"]]
    await ann.ok("ping")
    marks = [each for each in ann.frames if each["type"] == "read"]
    assert {(each["user"], each["seq"]) for each in marks} == {("mallory9", 12)}  # what was allowed: up to the head
    ann.frames = [each for each in ann.frames if each not in marks]


async def test_what_somebody_else_wrote_stays_as_it_is(node: Node, ann: Wire) -> None:
    """Editing and deleting it is `forbidden`, as is what takes a higher role; what is no message is `not_found`."""
    seq = (await ann.ok("send", room=ROOM, text="Mine."))["seq"]
    async with mallory(node) as wire:
        bodies = {
            frame("edit", room='"tea"', target=str(seq), text='"Yours."'): "forbidden",
            frame("edit", room='"tea"', target=str(seq), data="null"): "forbidden",
            frame("delete", room='"tea"', target=str(seq)): "forbidden",
            frame("edit", room='"tea"', target="1", text='"x"'): "not_found",
            frame("delete", room='"tea"', target="1"): "not_found",
            frame("react", room='"tea"', target="1", reaction='"x"'): "not_found",
            frame("send", room='"tea"', text='"x"', reply_to="1"): "not_found",
            frame("kick", room='"tea"', user='"ann"'): "forbidden",
            frame("role", room='"tea"', user='"mallory"', role='"owner"'): "forbidden",
            frame("invite", room='"tea"', user='"bob"', role='"owner"'): "forbidden",
            frame("create", kind='"public"', room='"tea"'): "conflict",
        }
        assert await codes(wire, *bodies) == bodies
    async with await Wire.open(node.ws_url, token("stranger")) as wire:
        bodies = {
            frame("send", room='"tea"', text='"x"'): "not_a_member",
            frame("typing", room='"tea"'): "not_a_member",
            frame("react", room='"tea"', target=str(seq), reaction='"x"'): "not_a_member",
            frame("delete", room='"tea"', target=str(seq)): "forbidden",
            frame("invite", room='"tea"', user='"stranger"'): "not_a_member",
        }
        assert await codes(wire, *bodies) == bodies
    assert (await ann.ok("history", room=ROOM, around=seq, limit=1))["entries"][0]["text"] == "Mine."


# Too long


async def test_what_is_too_long_is_refused_at_its_limit(node: Node, ann: Wire) -> None:
    """One more than the limit gets the code of the table, and the limit itself is taken."""
    long = {
        "text": ("send", {"room": '"tea"'}, '"{}"', 8_000, "too_large"),
        "client_id": ("send", {"room": '"tea"', "text": '"x"'}, '"{}"', 64, "bad_request"),
        "reaction": ("react", {"room": '"tea"', "target": "{seq}"}, '"{}"', 32, "bad_request"),
        "name": ("create", {"kind": '"public"'}, '"{}"', 128, "bad_request"),
        "room": ("create", {"kind": '"public"'}, '"{}"', 64, "bad_request"),
        "user": ("invite", {"room": '"tea"'}, '"{}"', 128, "bad_request"),
    }
    async with mallory(node) as wire:
        seq = str((await wire.ok("send", room=ROOM, text="x"))["seq"])
        for field, (action, fields, shape, limit, code) in long.items():
            fields = {name: value.format(seq=seq) for name, value in fields.items()}
            for unit in ("x",) if field == "room" else ("x", "\\u00fc", "\\ud83c\\udf75"):
                at_limit, beyond = (
                    frame(action, **fields, **{field: shape.format(unit * n)}) for n in (limit, limit + 1)
                )
                if len(beyond) < 32_000:
                    assert (await answer(wire, beyond))["code"] == code, (field, unit)
                    assert (await answer(wire, at_limit))["type"] == "ok", (field, unit)
        members = [json.dumps([f"u{n}" for n in range(count)]) for count in (200, 201)]
        assert (await answer(wire, frame("create", kind='"private"', members=members[0])))["type"] == "ok"
        assert (await answer(wire, frame("create", kind='"private"', members=members[1])))["code"] == "bad_request"
        assert (await wire.ask("ping"))["type"] == "ok"
        assert (await answer(wire, f'{{"action": "ping", "ref": "{"r" * 64}"}}'))["ref"] == "r" * 64
        assert (await wire.ask("auth", token="x" * 16_385))["code"] == "bad_request"


async def test_a_message_over_the_limit_closes_its_connection_alone(node: Node, ann: Wire) -> None:
    """32 KiB are taken and one byte more closes with 1009; also when the limit falls into a character."""
    for filler in ("x", "\u00fc"):
        async with mallory(node) as wire:
            body = frame("ping", x='"{}"')
            room = 32 * 1024 - len(body) + 2
            fits = body.replace("{}", filler * (room // len(filler.encode())))
            assert (await answer(wire, fits))["type"] == "ok"
            await wire.socket.send(body.replace("{}", filler * (room // len(filler.encode()) + 1)))
            assert await wire.closed() == 1009


async def test_a_binary_message_closes_its_connection_alone(node: Node, ann: Wire) -> None:
    """1003, whatever is in it; text that is no UTF-8 gets 1007."""
    for body in (b"", b"\x00\xff", b'{"action": "ping"}'):
        async with mallory(node) as wire:
            await wire.socket.send(body)
            assert await wire.closed() == 1003
    async with mallory(node) as wire:
        await wire.socket.send(b'{"action": "ping", "x": "\xff"}', text=True)
        assert await wire.closed() == 1007


# Too many


async def flood(wire: Wire, bodies: list[str]) -> list[dict[str, Any]]:
    """Send all at once and return as many answers, in the order in which they come."""
    await asyncio.gather(*(wire.socket.send(body) for body in bodies))
    answers: list[dict[str, Any]] = []
    while len(answers) < len(bodies):
        reply = await wire.receive()
        (answers if reply["type"] in ("ok", "error") else wire.frames).append(reply)
    return answers


class StoppedClock(SystemClock):
    """The machine's time, but what buckets are filled by passes only in `advance`."""

    def __init__(self) -> None:
        self._now = time.monotonic()

    def monotonic(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


@pytest.fixture
def clock(node: Node, ann: Wire) -> StoppedClock:
    """The chat's clock, once Ann is in the room; her bucket is full again at the end."""
    node.chat.clock = StoppedClock()
    return node.chat.clock


@pytest.mark.parametrize("body", [frame("ping"), frame("fly"), "rubbish", frame("send", room='"tea"')])
async def test_too_many_frames_of_a_connection_are_refused_with_the_time_to_wait(
    node: Node, ann: Wire, clock: StoppedClock, body: str
) -> None:
    """A hundred at once, then fifty a second, whatever is in them; who waits as long as he is told is heard again."""
    async with await Wire.open(node.ws_url, token("mallory")) as wire:
        answers = await flood(wire, [body] * 130)
        refused = [reply for reply in answers if reply.get("code") == "rate_limited"]
        assert len(refused) == 30
        assert {(reply["retry"], reply["retry_after_ms"]) for reply in refused} == {(True, 20)}
        clock.advance(refused[0]["retry_after_ms"] / 1_000)
        answers = await flood(wire, [body] * 2)
        assert [reply.get("code") == "rate_limited" for reply in answers] == [False, True]
        clock.advance(1)
        assert sum(reply.get("code") != "rate_limited" for reply in await flood(wire, [body] * 60)) == 50


async def test_a_user_has_no_more_for_having_many_connections(node: Node, ann: Wire, clock: StoppedClock) -> None:
    """The bucket of a user is shared by all of his connections; others have their own."""
    bearer = token("mallory")
    async with await Wire.open(node.ws_url, bearer) as one, await Wire.open(node.ws_url, bearer) as two:
        answers = [*await flood(one, [frame("ping")] * 60), *await flood(two, [frame("ping")] * 60)]
        assert [reply["type"] for reply in answers] == ["ok"] * 100 + ["error"] * 20
        async with await Wire.open(node.ws_url, token("bob")) as bob:
            assert {reply["type"] for reply in await flood(bob, [frame("ping")] * 100)} == {"ok"}


async def test_the_backend_asks_over_http_as_often_as_it_needs(node: Node, ann: Wire, clock: StoppedClock) -> None:
    """The buckets are for clients' connections: 150 requests of the customer's backend at once are all answered."""
    async with backend(node.url) as http:
        responses = await asyncio.gather(*(http.get("/v1/rooms") for _ in range(150)))
        assert {response.status_code for response in responses} == {200}


# Tokens


def joined(*parts: bytes) -> str:
    """The parts of a token, put together by hand."""
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def unsigned(header: Any, claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token that nobody has signed."""
    return joined(json.dumps(header).encode(), json.dumps(claims).encode(), signature)


def hs256(secret: bytes, claims: dict[str, Any]) -> str:
    """A token signed with a secret that no library would take for one."""
    start = unsigned({"alg": "HS256", "typ": "JWT"}, claims).rstrip(".")
    return f"{start}.{joined(hmac.digest(secret, start.encode(), 'sha256'))}"


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims but for the changes; None leaves one out."""
    good = {"sub": "mallory", "exp": int(time.time()) + 600, "iat": int(time.time()), **changes}
    return {name: value for name, value in good.items() if value is not None}


def signed(secret: str = SECRET, **changes: Any) -> str:
    """A token that is signed well, with these claims changed."""
    return jwt.encode({"alg": "HS256"}, claims(**changes), jwk.OctKey.import_key(secret))


def bad_tokens() -> dict[str, tuple[str, str]]:
    """Tokens by what is wrong with them, each with its error code."""
    good = token("mallory")
    head, payload, signature = good.split(".")
    forged = unsigned({}, claims(sub="ann")).split(".")[1]
    found = {
        "nothing": "",
        "no token": "nonsense",
        "two parts": f"{head}.{payload}",
        "four parts": f"{good}.x",
        "no signature": f"{head}.{payload}.",
        "another signature": f"{head}.{payload}.{'A' * len(signature)}",
        "another payload": f"{head}.{forged}.{signature}",
        "another secret": signed("another-secret-for-tests-0123456789abcdef"),
        "not UTF-8": joined(b'{"alg": "\xff"}', json.dumps(claims()).encode(), b"x"),
        "header no object": unsigned([], claims()),
        "header nested": joined(b"[" * 5_000, json.dumps(claims()).encode(), b"x"),
        "no algorithm": unsigned({}, claims()),
        "too long": good + "A" * 16_384,
        "no subject": signed(sub=None),
        "empty subject": signed(sub=""),
        "subject a number": signed(sub=5),
        "subject too long": signed(sub="x" * 129),
        "no end": signed(exp=None),
        "end a word": signed(exp="tomorrow"),
        "end in milliseconds": signed(exp=(int(time.time()) + 600) * 1_000),
        "end without end": signed(exp=1e308),
        "not yet": signed(nbf=int(time.time()) + 600),
        "from the future": signed(iat=int(time.time()) + 600),
        "an odd room": signed(rooms={"te a": "member"}),
        "an odd role": signed(rooms={"tea": "god"}),
        "rooms a list": signed(rooms=["tea"]),
        "scope a list": signed(scope=["server"]),
        "critical extension": jwt.encode(
            {"alg": "HS256", "crit": ["b64"], "b64": True}, claims(), jwk.OctKey.import_key(SECRET)
        ),
        **{f"alg {name}": unsigned({"alg": name}, claims()) for name in ("none", "None", "NONE", "nOnE", "", "HS257")},
        **{f"alg none, signed {n}": unsigned({"alg": "none"}, claims(), bytes(n)) for n in (1, 32)},
        "alg HS512": jwt.encode({"alg": "HS512"}, claims(), jwk.OctKey.import_key(SECRET * 2), algorithms=["HS512"]),
    }
    return {
        **{what: (bearer, "unauthorized") for what, bearer in found.items()},
        "expired": (signed(exp=int(time.time()) - 60), "token_expired"),
        "expired long ago": (signed(exp=1), "token_expired"),
    }


async def refusal(url: str, **options: Any) -> tuple[int, str]:
    """The status of a refused handshake, and the error's code."""
    with pytest.raises(InvalidStatus) as refused:
        async with asyncio.timeout(BOUND_S):
            await connect(url, proxy=None, **options)
    response = refused.value.response
    document = json.loads(response.body or b"{}")
    return response.status_code, document.get("code", "")


async def test_a_bad_token_refuses_the_handshake_and_says_so(node: Node, ann: Wire) -> None:
    """401 with `unauthorized` or `token_expired`, in a header as in the query; no claim or key is told."""
    found = bad_tokens()
    told = {
        what: await refusal(node.ws_url, additional_headers={"Authorization": f"Bearer {bearer}"})
        for what, (bearer, _) in found.items()
        if len(bearer) < 8_000
    }
    assert told == {what: (401, found[what][1]) for what in told}
    told = {
        what: await refusal(f"{node.ws_url}?token={bearer}")
        for what, (bearer, _) in found.items()
        if len(bearer) < 8_000
    }
    assert told == {what: (401, found[what][1]) for what in told}
    for good in (signed(), hs256(SECRET.encode(), claims())):  # what makes the bad ones is able to make good ones
        async with await Wire.open(node.ws_url, good) as wire:
            await wire.ok("ping")
    assert await refusal(node.ws_url) == (401, "unauthorized")
    assert await refusal(node.ws_url, additional_headers={"Authorization": "Basic YW5uOmFubg=="}) == (
        401,
        "unauthorized",
    )
    subprotocols: Any = ["hubbub.v1", "jwt.nonsense"]
    assert await refusal(node.ws_url, subprotocols=subprotocols) == (401, "unauthorized")
    first_counts = {"Authorization": f"Bearer {token('mallory')}"}
    assert await refusal(node.ws_url, subprotocols=subprotocols, additional_headers=first_counts) == (
        401,
        "unauthorized",
    )


async def test_a_bad_token_in_auth_changes_nothing(node: Node, ann: Wire) -> None:
    """The same tokens, sent on an open connection, get the same codes; it lives on with the token it has."""
    found = {what: each for what, each in bad_tokens().items() if 0 < len(each[0]) <= 16_384}
    async with mallory(node) as wire:
        told = {what: (await wire.ask("auth", token=bearer))["code"] for what, (bearer, _) in found.items()}
        assert told == {what: code for what, (_, code) in found.items()}
        assert (await wire.ask("auth", token=token("ann")))["code"] == "forbidden"
        assert (await wire.ask("auth", token=token("mallory", audience="elsewhere")))["type"] == "ok"
        await wire.ok("send", room=ROOM, text="Still me.")


async def test_a_token_that_runs_out_closes_its_connection_alone(tmp_path: Path) -> None:
    """4401 when its time has come, not before."""
    settings = Settings(port=0, secret=SECRET, data=str(tmp_path), leeway_s=1.0)
    async with (
        Node(settings) as node,
        bystander(node),
        await Wire.open(node.ws_url, token("mallory", ttl_s=3)) as wire,
    ):
        await wire.ok("ping")
        assert await wire.closed() == 4401


async def test_a_public_key_is_not_a_secret_and_other_audiences_are_not_ours(tmp_path: Path) -> None:
    """With RS256 keys, a token signed with HS256 and the public key is refused, as are a wrong `aud` and `iss`."""
    private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    settings = Settings(
        port=0,
        data=str(tmp_path / "data"),
        public_keys=[str(tmp_path / "key.pem")],
        audience="chat",
        issuer="shop",
    )
    own = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    def rs256(user: str = "mallory", **changes: Any) -> str:
        good = {"sub": user, "aud": "chat", "iss": "shop", **changes}
        return jwt.encode({"alg": "RS256"}, claims(**good), jwk.RSAKey.import_key(own))

    ours = {"aud": "chat", "iss": "shop"}
    bad = {
        **{
            f"HS256 with the public key, {what}": hs256(secret, claims(**ours))
            for what, secret in {
                "PEM": pem,
                "PEM without its line end": pem.strip(),
                "DER": private.public_key().public_bytes(
                    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
                ),
            }.items()
        },
        "none": unsigned({"alg": "none"}, claims(**ours)),
        "RS256 over nothing": unsigned({"alg": "RS256"}, claims(**ours)),
        "RS256 of another key": jwt.encode(
            {"alg": "RS256"},
            claims(**ours),
            jwk.RSAKey.import_key(
                rsa.generate_private_key(public_exponent=65_537, key_size=2_048).private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            ),
        ),
        "wrong aud": rs256(aud="elsewhere"),
        "wrong auds": rs256(aud=["elsewhere", "chat "]),
        "no aud": rs256(aud=None),
        "wrong iss": rs256(iss="mall"),
        "no iss": rs256(iss=None),
        "key in the header": jwt.encode(
            {"alg": "RS256", "jwk": {"kty": "oct", "k": "AAAA"}, "jku": "http://127.0.0.1:1/"},
            claims(**ours, sub=None),
            jwk.RSAKey.import_key(own),
        ),
    }
    async with Node(settings) as node, await Wire.open(node.ws_url, rs256("ann")) as ann:
        told = {
            what: await refusal(node.ws_url, additional_headers={"Authorization": f"Bearer {bearer}"})
            for what, bearer in bad.items()
        }
        assert told == dict.fromkeys(bad, (401, "unauthorized"))
        async with await Wire.open(node.ws_url, rs256(aud=["elsewhere", "chat"])) as wire:
            await wire.ok("ping")
        await ann.ok("ping")
        assert ann.frames == []


# Handshakes


async def test_a_page_of_another_origin_may_not_connect(node: Node, ann: Wire) -> None:
    """403 for every origin but the server's own, however it is dressed up; who sends none is no browser."""
    own = f"127.0.0.1:{node.port}"
    bearer = {"Authorization": f"Bearer {token('mallory')}"}
    foreign = (
        *(
            "http://evil.example",
            f"http://evil.example/{own}",
            f"http://{own}.evil.example",
            f"http://{own}@evil.example",
        ),
        *("null", "", "file://", "http://127.0.0.1", f"http://127.0.0.1:{node.port}0", f"http://localhost:{node.port}"),
        f"http://{own}, http://evil.example",
    )
    for origin in foreign:
        status, _ = await refusal(node.ws_url, additional_headers={**bearer, "Origin": origin})
        assert status == 403, origin
    for origin in (f"http://{own}", None):
        async with connect(node.ws_url, origin=origin, additional_headers=bearer, proxy=None):  # type: ignore[arg-type]
            pass


async def test_a_listed_origin_may_connect_and_no_other(tmp_path: Path) -> None:
    """With `allowed_origins` the list is what counts, scheme and port included."""
    settings = Settings(port=0, secret=SECRET, data=str(tmp_path), allowed_origins=["https://app.example"])
    async with Node(settings) as node, bystander(node):
        bearer = {"Authorization": f"Bearer {token('mallory')}"}
        for origin in (
            "http://app.example",
            "https://app.example:444",
            "https://app.example.evil",
            "https://APP",
            node.url,
        ):
            assert (await refusal(node.ws_url, additional_headers={**bearer, "Origin": origin}))[0] == 403
        async with connect(node.ws_url, origin="https://app.example", additional_headers=bearer, proxy=None):  # type: ignore[arg-type]
            pass


def handshake(node: Node, *more: str) -> bytes:
    """A good handshake as bytes, with further header lines."""
    lines = (
        "GET /ws HTTP/1.1",
        f"Host: 127.0.0.1:{node.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}",
        f"Authorization: Bearer {token('mallory')}",
        *more,
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def status_of(node: Node, *pieces: bytes) -> int:
    """Send these bytes one piece after the other over a socket of their own; the status that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(BOUND_S):
            line = await reader.readline()
        return int(line.split(b" ")[1])
    finally:
        writer.close()


async def test_a_handshake_may_come_byte_by_byte_but_not_for_ever(tmp_path: Path) -> None:
    """One that is complete in time is answered with 101; one that trickles on is answered with 408 and cut off."""
    settings = Settings(
        port=0,
        secret=SECRET,
        data=str(tmp_path),
        handshake_timeout_s=1.5,
        max_header_bytes=1024 * 1024,
        rate=0,
        user_rate=0,
    )
    async with Node(settings) as node, bystander(node) as ann:
        whole = handshake(node)
        assert await status_of(node, *(whole[n : n + 1] for n in range(len(whole)))) == 101
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(handshake(node, "X-Slow: ")[:-4])

        async def trickle() -> None:
            while not reader.at_eof():
                writer.write(b"x")
                await ann.ok("ping")  # the others are answered all the while

        async with asyncio.timeout(BOUND_S):
            answered, _ = await asyncio.gather(reader.read(), trickle())
        assert answered.startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_sixty_four_kilobytes_of_headers_are_refused(node: Node, ann: Wire) -> None:
    """431 for one long header, for many short ones, for a long target, all at once and in pieces."""
    fat = handshake(node, "X-Filler: " + "a" * 65_536)
    many = handshake(node, *(f"X-Filler-{n}: aaaaaaaaaaaaaaaa" for n in range(2_500)))
    target = handshake(node).replace(b"/ws", b"/ws?x=" + b"a" * 65_536)
    for whole in (fat, many, target):
        assert await status_of(node, whole) == 431
        assert await status_of(node, *(whole[n : n + 1_000] for n in range(0, 20_000, 1_000))) == 431
    assert await status_of(node, handshake(node, "X-Filler: " + "a" * 8_192)) == 101


async def test_a_handshake_that_is_none_is_refused_by_name(node: Node, ann: Wire) -> None:
    """Another path, method, version or key, or no HTTP at all: each has its status."""
    good = handshake(node)
    bad = {
        b"NONSENSE\r\n\r\n": 400,
        b"BREW /v1/rooms HTTP/1.1\r\nHost: x\r\n\r\n": 400,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100): 400,
        good.replace(b"GET /ws", b"GET /wss"): 404,
        good.replace(b"GET /ws", b"GET /ws/../ws"): 404,
        good.replace(b"GET /ws", b"POST /ws"): 405,
        good.replace(b"Version: 13", b"Version: 8"): 426,
        good.replace(b"Sec-WebSocket-Key", b"X-Key"): 400,
        good.replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: A"): 400,
    }
    told = {raw: await status_of(node, raw) for raw in bad}
    assert told == bad


# Functions that fail


async def test_what_fails_inside_is_told_without_details(node: Node, ann: Wire) -> None:
    """`internal` with a reference and nothing of the cause; the connection and the others go on."""

    @node.chat.before("typing")
    async def break_down(chat: Any, by: Any, ask: Any) -> None:
        raise RuntimeError("the secret cause")

    async with mallory(node) as wire:
        reply = await wire.ask("typing", room=ROOM)
        assert (reply["code"], reply["retry"]) == ("internal", True)
        assert reply.keys() == {"type", "ref", "code", "message", "retry", "request_id"}
        assert "secret" not in json.dumps(reply)


async def test_a_function_that_takes_too_long_is_answered_for_and_still_writes_once(tmp_path: Path) -> None:
    """The client gets API Gateway's document; what he sends again with its `client_id` is stored once."""
    settings = Settings(port=0, secret=SECRET, data=str(tmp_path), handler_timeout_s=1.5)
    async with Node(settings) as node, bystander(node) as ann:
        released, waiting = asyncio.Event(), 0

        @node.chat.before("send")
        async def dawdle(chat: Any, by: Any, ask: Any) -> None:
            nonlocal waiting
            if by.user == "mallory":
                waiting += 1
                await released.wait()

        async with mallory(node) as wire:
            for _ in range(2):
                await wire.socket.send(frame("send", room='"tea"', text='"slow"', client_id='"c"'))
                while "message" not in (reply := await wire.receive()):
                    wire.frames.append(reply)
                assert reply["message"] == "Internal server error"
                assert reply.keys() == {"message", "connectionId", "requestId"}
            assert waiting == 2
            released.set()
            sent = await wire.ok("send", room=ROOM, text="slow", client_id="c")
        page = (await ann.ok("history", room=ROOM, after=2))["entries"]
        assert [each["seq"] for each in page if each.get("text") == "slow"] == [sent["seq"]]


# HTTP


JSON = {"Content-Type": "application/json"}
ROOMS, ONE, MEMBERS, POSTS = "/v1/rooms", "/v1/rooms/tea", "/v1/rooms/tea/members", "/v1/rooms/tea/messages"

REQUESTS: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    # bodies
    "no content type": ("POST", POSTS, {"content": b'{"text": "x"}'}, 400, "bad_request"),
    "text": ("POST", POSTS, {"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 400, "bad_request"),
    "a form": ("POST", POSTS, {"data": {"text": "x"}}, 400, "bad_request"),
    "an upload": ("POST", POSTS, {"files": {"text": b"x"}}, 400, "bad_request"),
    "almost JSON": (
        "POST",
        POSTS,
        {"content": b"{}", "headers": {"Content-Type": "application/jsonx"}},
        400,
        "bad_request",
    ),
    "no JSON": ("POST", POSTS, {"content": b"{", "headers": JSON}, 400, "bad_request"),
    "empty": ("POST", POSTS, {"content": b"", "headers": JSON}, 400, "bad_request"),
    "a list": ("POST", POSTS, {"json": ["x"]}, 400, "bad_request"),
    "a number": ("POST", POSTS, {"json": 5}, 400, "bad_request"),
    "null": ("POST", POSTS, {"content": b"null", "headers": JSON}, 400, "bad_request"),
    "not UTF-8": ("POST", POSTS, {"content": b'{"text": "\xff"}', "headers": JSON}, 400, "bad_request"),
    "half a surrogate": ("POST", POSTS, {"content": b'{"text": "\\ud800"}', "headers": JSON}, 400, "bad_request"),
    "nested": ("POST", POSTS, {"content": b"[" * 60_000, "headers": JSON}, 400, "bad_request"),
    "nested data": (
        "POST",
        POSTS,
        {"content": b'{"data": ' + b"[" * 200 + b"]" * 200 + b"}", "headers": JSON},
        400,
        "bad_request",
    ),
    "too large": ("POST", POSTS, {"json": {"text": "x" * 70_000}}, 413, "too_large"),
    "too long a text": ("POST", POSTS, {"json": {"text": "x" * 8_001}}, 413, "too_large"),
    # fields
    "blank": ("POST", POSTS, {"json": {"text": " \n"}}, 400, "bad_request"),
    "text a number": ("POST", POSTS, {"json": {"text": 5}}, 400, "bad_request"),
    "unknown field": ("POST", POSTS, {"json": {"text": "x", "colour": "blue"}}, 400, "bad_request"),
    "a path's field": ("POST", POSTS, {"json": {"text": "x", "room": "elsewhere"}}, 400, "bad_request"),
    "client_id too long": ("POST", POSTS, {"json": {"text": "x", "client_id": "c" * 65}}, 400, "bad_request"),
    "no user": ("POST", POSTS, {"json": {"text": "x", "user": ""}}, 400, "bad_request"),
    "reply to nothing": ("POST", POSTS, {"json": {"text": "x", "reply_to": 999}}, 404, "not_found"),
    "reply to 1.0": ("POST", POSTS, {"json": {"text": "x", "reply_to": 1.0}}, 400, "bad_request"),
    "reply to 1e400": (
        "POST",
        POSTS,
        {"content": b'{"text": "x", "reply_to": 1e400}', "headers": JSON},
        400,
        "bad_request",
    ),
    "no kind": ("POST", ROOMS, {"json": {"room": "new"}}, 400, "bad_request"),
    "an odd kind": ("POST", ROOMS, {"json": {"kind": "secret"}}, 400, "bad_request"),
    "a room that exists": ("POST", ROOMS, {"json": {"kind": "public", "room": "tea"}}, 409, "conflict"),
    "an odd room": ("POST", ROOMS, {"json": {"kind": "public", "room": "tea\n"}}, 400, "bad_request"),
    "a look-alike": ("POST", ROOMS, {"json": {"kind": "public", "room": "t\u0435a"}}, 400, "bad_request"),
    "a direct id": ("POST", ROOMS, {"json": {"kind": "public", "room": "direct:x"}}, 400, "bad_request"),
    "direct with one": ("POST", ROOMS, {"json": {"kind": "direct", "members": [{"user": "a"}]}}, 400, "bad_request"),
    "a member twice": (
        "POST",
        ROOMS,
        {"json": {"kind": "public", "members": [{"user": "a"}, {"user": "a", "role": "owner"}]}},
        400,
        "bad_request",
    ),
    "a member's odd field": (
        "POST",
        ROOMS,
        {"json": {"kind": "public", "members": [{"user": "a", "x": 1}]}},
        400,
        "bad_request",
    ),
    "nothing to change": ("PATCH", ONE, {"json": {}}, 400, "bad_request"),
    "becoming direct": ("PATCH", ONE, {"json": {"kind": "direct"}}, 400, "bad_request"),
    "an odd role": ("PUT", f"{MEMBERS}/bob", {"json": {"role": "god"}}, 400, "bad_request"),
    "a ban that is over": ("PUT", "/v1/users/bob/ban", {"json": {"until": 1}}, 400, "bad_request"),
    "a ban beyond time": ("PUT", "/v1/users/bob/ban", {"json": {"until": 2**53}}, 400, "bad_request"),
    "a long reason": ("POST", "/v1/users/bob/disconnect", {"json": {"reason": "x" * 31}}, 400, "bad_request"),
    # queries
    "unknown query": ("GET", f"{POSTS}?colour=blue", {}, 400, "bad_request"),
    "query twice": ("GET", f"{POSTS}?limit=1&limit=2", {}, 400, "bad_request"),
    "query and path": ("GET", f"{POSTS}?room=elsewhere", {}, 400, "bad_request"),
    "limit 0": ("GET", f"{POSTS}?limit=0", {}, 400, "bad_request"),
    "limit 201": ("GET", f"{POSTS}?limit=201", {}, 400, "bad_request"),
    "limit 1.5": ("GET", f"{POSTS}?limit=1.5", {}, 400, "bad_request"),
    "limit nan": ("GET", f"{POSTS}?limit=nan", {}, 400, "bad_request"),
    "no limit": ("GET", f"{POSTS}?limit=", {}, 400, "bad_request"),
    "before -1": ("GET", f"{POSTS}?before=-1", {}, 400, "bad_request"),
    "after 2^53": ("GET", f"{POSTS}?after={2**53}", {}, 400, "bad_request"),
    "around 1e400": ("GET", f"{POSTS}?around=1e400", {}, 400, "bad_request"),
    "two edges": ("GET", f"{POSTS}?after=1&before=3", {}, 400, "bad_request"),
    "an odd kind to list": ("GET", f"{ROOMS}?kind=secret", {}, 400, "bad_request"),
    "a query for a body": ("POST", f"{POSTS}?text=x", {"json": {"text": "x"}}, 400, "bad_request"),
    # paths
    "no such room": ("GET", "/v1/rooms/nowhere", {}, 404, "not_found"),
    "posting there": ("POST", "/v1/rooms/nowhere/messages", {"json": {"text": "x"}}, 404, "not_found"),
    "deleting it": ("DELETE", "/v1/rooms/nowhere", {}, 404, "not_found"),
    "a room with a line end": ("GET", f"{ONE}%0A", {}, 400, "bad_request"),
    "a room with a zero": ("GET", f"{ONE}%00", {}, 400, "bad_request"),
    "a room with a slash": ("GET", "/v1/rooms/te%2Fa", {}, 404, "not_found"),
    "a room that is too long": ("GET", "/v1/rooms/" + "t" * 65, {}, 400, "bad_request"),
    "a room not in UTF-8": ("GET", "/v1/rooms/te%FFa", {}, 400, "bad_request"),
    "a user that is too long": ("GET", "/v1/users/" + "u" * 129, {}, 400, "bad_request"),
    "a message that is none": ("DELETE", f"{POSTS}/1", {}, 404, "not_found"),
    "a message that is not there": ("DELETE", f"{POSTS}/999", {}, 404, "not_found"),
    "a message 0": ("DELETE", f"{POSTS}/0", {}, 400, "bad_request"),
    "a message 1.0": ("DELETE", f"{POSTS}/1.5", {}, 400, "bad_request"),
    "a message x": ("DELETE", f"{POSTS}/x", {}, 400, "bad_request"),
    "a message 2^53": ("DELETE", f"{POSTS}/{2**53}", {}, 400, "bad_request"),
    "no member": ("GET", f"{MEMBERS}/nobody", {}, 404, "not_found"),
    "a slash too many": ("GET", f"{ROOMS}/", {}, 404, "not_found"),
    "two slashes": ("GET", "/v1//rooms", {}, 404, "not_found"),
    "another case": ("GET", "/V1/rooms", {}, 404, "not_found"),
    "no such path": ("GET", "/v1/nothing", {}, 404, "not_found"),
    "another method": ("PUT", ROOMS, {"json": {}}, 405, "bad_request"),
}
"""Requests by what is wrong with them: method, path, the rest, and the status and code they get."""


async def test_a_bad_request_over_http_is_named_and_does_nothing(node: Node, ann: Wire) -> None:
    """Each has its status and an error of the one shape, as JSON; afterwards rooms and logs are as they were."""
    async with backend(node.url) as http:
        before = [(await http.get(path)).json() for path in (ROOMS, MEMBERS, POSTS)]
        told = {}
        for what, (method, path, options, _, _) in REQUESTS.items():
            response = await http.request(method, path, **options)
            error = response.json().get("error", {})
            told[what] = response.status_code, error.get("code", "none")
            assert error.keys() <= {"code", "message", "retry", "request_id"}
            assert response.headers["content-type"] == "application/json"
        assert told == {what: (status, code) for what, (_, _, _, status, code) in REQUESTS.items()}
        assert [(await http.get(path)).json() for path in (ROOMS, MEMBERS, POSTS)] == before


async def test_a_bad_token_does_not_open_the_backends_door(node: Node, ann: Wire) -> None:
    """401 with a challenge for no token or a bad one, 403 for one without the scope, for every path of the table."""
    bad = {f"Bearer {bearer}": (401, code) for bearer, code in bad_tokens().values() if 0 < len(bearer) < 8_000}
    bad |= dict.fromkeys(("", "Bearer", "Basic YTpi", token("backend", scopes=("server",))), (401, "unauthorized"))
    bad |= {
        f"Bearer {token('mallory', scopes=scopes)}": (403, "forbidden") for scopes in ((), ("servers",), ("SERVER",))
    }
    async with httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=BOUND_S) as http:
        told = {}
        for header in bad:
            response = await http.get(ROOMS, headers={"Authorization": header} if header else {})
            told[header] = response.status_code, response.json()["error"]["code"]
            assert ("www-authenticate" in response.headers) == (response.status_code == 401)
        assert told == bad
        for method, path in {(method, path) for method, path, *_ in REQUESTS.values()}:
            assert (await http.request(method, path)).status_code in (401, 404, 405)
        in_the_query = f"{ROOMS}?token={token('backend', scopes=('server',))}"
        assert (await http.get(in_the_query)).status_code == 401


async def test_a_body_without_end_is_cut_off(node: Node, ann: Wire) -> None:
    """One that says it is too large, and one that only turns out to be, get 413, and nothing is kept of them."""
    head = (
        f"POST {POSTS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token('backend', scopes=('server',))}\r\n"
    )
    said = f"{head}Content-Length: 1000000000000\r\n\r\n".encode()
    assert await status_of(node, said) == 413
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    assert await status_of(node, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), chunk, chunk) == 413
    for length in ("-1", "1x", "1, 2", "0x10"):
        assert await status_of(node, f"{head}Content-Length: {length}\r\n\r\n".encode(), b"{}") == 400
    await until(lambda: len(node.hub) == 1, "only Ann is connected")
