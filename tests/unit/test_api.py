"""The HTTP API for the customer's backend, over the real chat and an in-memory store, without sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from chatlab import FakeTokens, Lab, lab
from doubles import settle
from hubbub.api import ENDPOINTS, Doorkeeper, backend_routes, create_app
from hubbub.errors import Forbidden, Unavailable


class Backend:
    """The customer's backend, talking to the API of a lab."""

    def __init__(self, lab: Lab, http: httpx.AsyncClient, doorkeeper: Doorkeeper) -> None:
        self.lab = lab
        self.http = http
        self.doorkeeper = doorkeeper

    async def call(self, method: str, path: str, status: int, **options: Any) -> Any:
        """Ask, expect `status`, and return the answer's JSON (None for an empty one)."""
        response = await self.http.request(method, path, **options)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    async def refused(self, method: str, path: str, status: int, **options: Any) -> tuple[str, str]:
        """Ask, expect a refusal with `status`, and return its code and message."""
        document = await self.call(method, path, status, **options)
        assert document.keys() == {"error"}
        error = document["error"]
        assert error.keys() <= {"code", "message", "retry", "retry_after_ms", "request_id"}
        return error["code"], error["message"]


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with lab() as running:
        doorkeeper = Doorkeeper(running.chat, FakeTokens(running.clock), max_body_bytes=2_000, body_timeout_s=0.05)
        app = create_app(backend_routes(doorkeeper, version="1.2.3"))
        headers = {"Authorization": f"Bearer {running.token('backend', scopes=['server'])}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://chat", headers=headers) as http:
            yield Backend(running, http, doorkeeper)


async def test_a_member_whose_making_was_not_answered_hears_the_room_once_it_is_asked_again(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store wrote it and could not say so; of a direct room nothing more can be asked."""
    ann, bob = [await backend.lab.tab(user) for user in ("ann", "bob")]
    await backend.call("POST", "/v1/rooms", 201, json={"room": "tea", "kind": "private"})
    store = backend.lab.chat.store
    append = store.append

    async def unheard(entry: Any) -> Any:
        await append(entry)
        raise Unavailable

    monkeypatch.setattr(store, "append", unheard)
    await backend.refused("PUT", "/v1/rooms/tea/members/ann", 503)
    monkeypatch.setattr(store, "append", append)
    await backend.call("PUT", "/v1/rooms/tea/members/ann", 200)
    await ann.ok("send", room="tea", text="here")
    await backend.lab.tick()
    await store.ping()
    await settle()
    assert [entry["text"] for entry in ann.of("message.created")] == ["here"]
    made = await ann.ok("create", kind="direct", members=["bob"])
    assert len(bob.of("room")) == 1
    assert (await backend.call("PUT", f"/v1/rooms/{made['room']}/members/bob", 200))["role"] == "member"


async def test_a_room_is_made_changed_listed_and_deleted(backend: Backend) -> None:
    """A room's whole life can be led over HTTP."""
    made = await backend.call("POST", "/v1/rooms", 201, json={"room": "tea", "kind": "public", "name": "Tea"})
    assert (made["id"], made["kind"], made["name"], made["head"]) == ("tea", "public", "Tea", 1)
    changed = await backend.call("PATCH", "/v1/rooms/tea", 200, json={"name": "Green tea"})
    assert (changed["name"], changed["kind"]) == ("Green tea", "public")
    assert (await backend.call("GET", "/v1/rooms/tea", 200))["name"] == "Green tea"
    await backend.call("POST", "/v1/rooms", 201, json={"room": "vault", "kind": "private"})
    listed = await backend.call("GET", "/v1/rooms", 200)
    assert [room["id"] for room in listed["rooms"]] == ["tea", "vault"]
    assert listed["has_more"] is False
    page = await backend.call("GET", "/v1/rooms", 200, params={"limit": 1})
    assert ([room["id"] for room in page["rooms"]], page["has_more"]) == (["tea"], True)
    only = await backend.call("GET", "/v1/rooms", 200, params={"kind": "private"})
    assert [room["id"] for room in only["rooms"]] == ["vault"]
    await backend.call("DELETE", "/v1/rooms/tea", 204)
    assert (await backend.refused("GET", "/v1/rooms/tea", 404))[0] == "not_found"
    assert (await backend.refused("DELETE", "/v1/rooms/tea", 404))[0] == "not_found"


async def test_a_room_begins_with_its_members_and_their_roles(backend: Backend) -> None:
    """The first members have the roles that were asked for; the backend itself is no member."""
    members = [{"user": "ann", "role": "owner"}, {"user": "bob"}, {"user": "cy", "role": "reader"}]
    made = await backend.call("POST", "/v1/rooms", 201, json={"kind": "private", "members": members})
    listed = await backend.call("GET", f"/v1/rooms/{made['id']}/members", 200)
    assert [(m["user"], m["role"]) for m in listed["members"]] == [
        ("ann", "owner"),
        ("bob", "member"),
        ("cy", "reader"),
    ]
    assert (listed["count"], listed["has_more"], made["members"]) == (3, False, 3)


async def test_a_direct_room_is_the_same_room_twice(backend: Backend) -> None:
    """Making the direct room of two users again, in any order, returns the one that exists."""
    pair = [{"user": "ann"}, {"user": "bob"}]
    first = await backend.call("POST", "/v1/rooms", 201, json={"kind": "direct", "members": pair})
    again = await backend.call("POST", "/v1/rooms", 201, json={"kind": "direct", "members": pair[::-1]})
    assert (first["id"], first["members"]) == (again["id"], 2)
    alone = {"kind": "direct", "members": [{"user": "ann"}]}
    assert (await backend.refused("POST", "/v1/rooms", 400, json=alone))[0] == "bad_request"


async def test_a_room_that_exists_is_a_conflict(backend: Backend) -> None:
    """Making a room under an id that is taken is refused with 409."""
    await backend.call("POST", "/v1/rooms", 201, json={"room": "tea", "kind": "public"})
    assert (await backend.refused("POST", "/v1/rooms", 409, json={"room": "tea", "kind": "public"}))[0] == "conflict"


async def test_members_are_added_changed_listed_and_removed(backend: Backend) -> None:
    """Putting a member adds him or changes his role, and is safe to repeat; removing him too."""
    await backend.call("POST", "/v1/rooms", 201, json={"room": "tea", "kind": "private"})
    path = "/v1/rooms/tea/members/ann"
    assert (await backend.call("PUT", path, 200))["role"] == "member"
    head = (await backend.call("GET", "/v1/rooms/tea", 200))["head"]
    assert (await backend.call("PUT", path, 200, json={}))["role"] == "member"
    assert (await backend.call("GET", "/v1/rooms/tea", 200))["head"] == head
    assert (await backend.call("PUT", path, 200, json={"role": "owner"}))["role"] == "owner"
    assert (await backend.call("GET", path, 200))["role"] == "owner"
    await backend.call("DELETE", path, 204)
    await backend.call("DELETE", path, 204)
    assert (await backend.refused("GET", path, 404))[0] == "not_found"
    assert (await backend.call("GET", "/v1/rooms/tea/members", 200))["count"] == 0
    assert (await backend.refused("PUT", "/v1/rooms/none/members/ann", 404))[0] == "not_found"


async def test_a_user_id_may_contain_anything(backend: Backend) -> None:
    """Slashes, spaces and other letters in a user id survive the path."""
    await backend.call("POST", "/v1/rooms", 201, json={"room": "tea", "kind": "private"})
    for user, quoted in (("a/b", "a%2Fb"), ("Zoë @ 1", "Zo%C3%AB%20%40%201"), ("auth0|7", "auth0%7C7")):
        assert (await backend.call("PUT", f"/v1/rooms/tea/members/{quoted}", 200))["user"] == user
        unread = await backend.call("GET", f"/v1/users/{quoted}/unread", 200)
        assert (unread["user"], [room["room"] for room in unread["rooms"]]) == (user, ["tea"])


async def test_messages_are_posted_as_a_user_or_as_the_system(backend: Backend) -> None:
    """A post is an entry of the room's log, by whom it says, and listeners get it at once."""
    await backend.call("POST", "/v1/rooms", 201, json={"room": "tea", "kind": "private", "members": [{"user": "ann"}]})
    tab = await backend.lab.tab("ann", name="Ann")
    path = "/v1/rooms/tea/messages"
    first = await backend.call("POST", path, 201, json={"text": "The kettle is on."})
    second = await backend.call("POST", path, 201, json={"user": "ann", "text": "Milk!", "reply_to": first["seq"]})
    third = await backend.call("POST", path, 201, json={"user": "bot", "name": "Bot", "data": {"card": [1, None]}})
    assert [first["by"], second["by"], third["by"]] == ["system", "ann", "bot"]
    live = tab.of("message.created")
    assert [(e["seq"], e["by"], e.get("name")) for e in live] == [
        (first["seq"], "system", None),
        (second["seq"], "ann", "Ann"),
        (third["seq"], "bot", "Bot"),
    ]
    page = await backend.call("GET", path, 200, params={"limit": 3})
    assert page["entries"] == live
    assert page["entries"][2]["data"] == {"card": [1, None]}


async def test_the_same_client_id_posts_once(backend: Backend) -> None:
    """Posting again with a client_id returns the first result and stores nothing."""
    await backend.call("POST", "/v1/rooms", 201, json={"room": "tea", "kind": "public"})
    post = {"user": "ann", "text": "Once.", "client_id": "c-1"}
    first = await backend.call("POST", "/v1/rooms/tea/messages", 201, json=post)
    again = await backend.call("POST", "/v1/rooms/tea/messages", 201, json=post)
    assert again == first
    assert (await backend.call("GET", "/v1/rooms/tea", 200))["head"] == first["seq"]


async def test_history_goes_in_every_direction(backend: Backend) -> None:
    """History is read from the end, before, after and around a seq, and one thread at a time."""
    await backend.call("POST", "/v1/rooms", 201, json={"room": "tea", "kind": "public"})
    path = "/v1/rooms/tea/messages"
    root = (await backend.call("POST", path, 201, json={"text": "root"}))["seq"]
    for n in range(5):
        await backend.call("POST", path, 201, json={"text": str(n), **({"thread": root} if n % 2 else {})})

    async def seqs(**params: int) -> list[int]:
        return [e["seq"] for e in (await backend.call("GET", path, 200, params=params))["entries"]]

    assert await seqs(limit=2) == [6, 7]
    assert await seqs(before=4, limit=2) == [2, 3]
    assert await seqs(after=4, limit=2) == [5, 6]
    assert await seqs(around=4, limit=3) == [3, 4, 5]
    assert await seqs(thread=root) == [root, 4, 6]
    code, message = await backend.refused("GET", path, 400, params={"before": 3, "after": 1})
    assert code == "bad_request"
    assert "before" in message


async def test_a_message_is_deleted_once(backend: Backend) -> None:
    """Deleting removes the words, keeps the place, and can be repeated."""
    await backend.call("POST", "/v1/rooms", 201, json={"room": "tea", "kind": "public"})
    seq = (await backend.call("POST", "/v1/rooms/tea/messages", 201, json={"user": "ann", "text": "oops"}))["seq"]
    await backend.call("DELETE", f"/v1/rooms/tea/messages/{seq}", 204)
    await backend.call("DELETE", f"/v1/rooms/tea/messages/{seq}", 204)
    entries = (await backend.call("GET", "/v1/rooms/tea/messages", 200, params={"around": seq}))["entries"]
    (message,) = [entry for entry in entries if entry["seq"] == seq]
    assert message["deleted"] is True
    assert "text" not in message
    assert [entry["type"] for entry in entries].count("message.deleted") == 1
    assert (await backend.refused("DELETE", "/v1/rooms/tea/messages/99", 404))[0] == "not_found"


async def test_unread_counts_are_told_room_by_room(backend: Backend) -> None:
    """A user's unread messages are counted in each of his rooms and in all."""
    for room, posts in (("tea", 2), ("milk", 1)):
        await backend.call(
            "POST", "/v1/rooms", 201, json={"room": room, "kind": "private", "members": [{"user": "ann"}]}
        )
        for n in range(posts):
            await backend.call("POST", f"/v1/rooms/{room}/messages", 201, json={"text": str(n)})
    unread = await backend.call("GET", "/v1/users/ann/unread", 200)
    assert unread["unread"] == 3
    assert {room["room"]: room["unread"] for room in unread["rooms"]} == {"tea": 2, "milk": 1}
    assert (await backend.call("GET", "/v1/users/nobody/unread", 200)) == {"user": "nobody", "unread": 0, "rooms": []}


async def test_a_ban_closes_voids_and_ends(backend: Backend) -> None:
    """A ban closes the user's connections with 4403 and voids his tokens, also when it is taken back."""
    tab = await backend.lab.tab("ann")
    old = backend.lab.token("ann")
    until = backend.lab.clock.now_ms() // 1_000 + 60
    user = await backend.call("PUT", "/v1/users/ann/ban", 200, json={"until": until})
    assert user["banned_until"] == until
    assert backend.lab.sink.closed[tab.connection][0] == 4403
    assert (await backend.lab.handshake(old))[0] == 403
    user = await backend.call("DELETE", "/v1/users/ann/ban", 200)
    assert "banned_until" not in user
    assert (await backend.lab.handshake(old))[0] == 401
    await backend.lab.clock.advance(2)
    assert (await backend.lab.handshake(backend.lab.token("ann")))[0] == 200
    code, message = await backend.refused("PUT", "/v1/users/ann/ban", 400, json={"until": 5})
    assert (code, "until" in message) == ("bad_request", True)


async def test_disconnecting_and_revoking_differ_in_the_token(backend: Backend) -> None:
    """A disconnected user may come back with his token, one whose tokens are revoked needs a new one."""
    token = backend.lab.token("ann")
    tab = await backend.lab.tab("ann")
    await backend.call("POST", "/v1/users/ann/disconnect", 204, json={"reason": "bye"})
    assert backend.lab.sink.closed[tab.connection] == (4403, "bye")
    assert (await backend.lab.handshake(token))[0] == 200
    tab = await backend.lab.tab("ann")
    await backend.call("POST", "/v1/users/ann/revoke", 200)
    assert backend.lab.sink.closed[tab.connection][0] == 4401
    assert (await backend.lab.handshake(token))[0] == 401


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
async def test_nobody_but_the_backend_may_ask(backend: Backend, endpoint: Any) -> None:
    """Every row of the table needs a token that verifies and has the scope `server`."""
    path = endpoint.path.format(room="tea", user="ann", seq=1)
    refusals = [
        ({"Authorization": ""}, 401, "unauthorized"),
        ({"Authorization": "Basic YTpi"}, 401, "unauthorized"),
        ({"Authorization": "Bearer nonsense"}, 401, "unauthorized"),
        (
            {"Authorization": f"Bearer {backend.lab.token('backend', ttl_s=-1, scopes=['server'])}"},
            401,
            "token_expired",
        ),
        ({"Authorization": f"Bearer {backend.lab.token('ann', rooms={'tea': 'owner'})}"}, 403, "forbidden"),
    ]
    for headers, status, code in refusals:
        response = await backend.http.request(endpoint.method, path, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert ("www-authenticate" in response.headers) == (status == 401)


async def test_a_revoked_backend_token_is_refused(backend: Backend) -> None:
    """A server token is void, too, once its user's tokens have been revoked."""
    await backend.call("POST", "/v1/users/backend/revoke", 200)
    assert (await backend.refused("GET", "/v1/rooms", 401))[0] == "unauthorized"


BAD_BODIES = {
    "not JSON": (b"{", "not JSON"),
    "not UTF-8": (b'{"kind":"\xff"}', "body"),
    "no object": (b"[]", "object"),
    "nested too deeply": (b"[" * 1_500, "body"),
    "missing field": (b"{}", "kind"),
    "unknown field": (b'{"kind":"public","colour":1}', "colour"),
    "unknown field of a member": (b'{"kind":"public","members":[{"user":"a","rank":1}]}', "rank"),
    "wrong type": (b'{"kind":"public","name":1}', "$.name"),
    "no such kind": (b'{"kind":"secret"}', "$.kind"),
    "odd room id": (b'{"kind":"public","room":"a b"}', "$.room"),
    "too long a name": (b'{"kind":"public","name":"' + b"n" * 129 + b'"}', "$.name"),
    "a member twice": (b'{"kind":"public","members":[{"user":"a"},{"user":"a"}]}', "twice"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_a_bad_body_is_named(backend: Backend, case: str) -> None:
    """A malformed body gets 400 and a message that says where, and makes nothing."""
    body, word = BAD_BODIES[case]
    headers = {"Content-Type": "application/json; charset=utf-8"}
    code, message = await backend.refused("POST", "/v1/rooms", 400, content=body, headers=headers)
    assert code == "bad_request"
    assert word in message
    assert (await backend.call("GET", "/v1/rooms", 200))["rooms"] == []


@pytest.mark.parametrize(
    "body", [b'{"user":"bob","data":"\xff"}', b'{"user":"bob","text":"\\ud800"}'], ids=["byte", "surrogate"]
)
async def test_a_message_that_is_no_text_is_not_passed_on(backend: Backend, body: bytes) -> None:
    """What could not go into a text frame is refused, also in `data`, which is otherwise taken as it is."""
    await backend.call("POST", "/v1/rooms", 201, json={"kind": "public", "room": "tea"})
    headers = {"Content-Type": "application/json"}
    code, _ = await backend.refused("POST", "/v1/rooms/tea/messages", 400, content=body, headers=headers)
    assert code == "bad_request"
    assert len((await backend.call("GET", "/v1/rooms/tea/messages", 200))["entries"]) == 1


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_of_another_type_is_refused(backend: Backend, kind: str) -> None:
    """Only application/json is read."""
    code, message = await backend.refused(
        "POST", "/v1/rooms", 400, content=b'{"kind":"public"}', headers={"Content-Type": kind}
    )
    assert (code, "application/json" in message) == ("bad_request", True)


async def test_a_body_without_end_is_cut_off(backend: Backend) -> None:
    """A body beyond the limit gets 413, whether its length was declared or not."""

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1_000

    headers = {"Content-Type": "application/json"}
    for content in (b" " * 2_001, chunks()):
        assert (await backend.refused("POST", "/v1/rooms", 413, content=content, headers=headers))[0] == "too_large"


async def test_a_body_that_does_not_come_is_not_waited_for(backend: Backend) -> None:
    """A body that trickles in is given up after its time."""

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    headers = {"Content-Type": "application/json"}
    _, message = await backend.refused("POST", "/v1/rooms", 400, content=never(), headers=headers)
    assert "did not arrive" in message


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "colour=red", "kind=secret", "limit=1&limit=2"])
async def test_a_bad_query_is_named(backend: Backend, query: str) -> None:
    """A malformed query gets 400 and a message that names the parameter."""
    code, message = await backend.refused("GET", f"/v1/rooms?{query}", 400)
    assert code == "bad_request"
    assert query.partition("=")[0] in message


async def test_paths_and_methods_that_are_not_there_answer_in_the_same_shape(backend: Backend) -> None:
    """404 and 405 are error documents, and 405 says what is allowed."""
    assert (await backend.refused("GET", "/v1/nothing", 404))[0] == "not_found"
    assert (await backend.refused("GET", "/v1/rooms/", 404))[0] == "not_found"
    response = await backend.http.request("PUT", "/v1/rooms/tea")
    assert response.status_code == 405
    assert response.json()["error"]["retry"] is False
    assert "allow" in response.headers


async def test_a_store_that_is_away_is_503_and_worth_another_try(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store cannot do just now is `unavailable`, with the time to wait."""

    async def away(**_: object) -> None:
        raise Unavailable("The disk is full.", retry_after_ms=2_500)

    monkeypatch.setattr(backend.lab.chat.store, "rooms", away)
    response = await backend.http.get("/v1/rooms")
    error = response.json()["error"]
    assert (response.status_code, response.headers["retry-after"]) == (503, "3")
    assert (error["code"], error["retry"], error["retry_after_ms"]) == ("unavailable", True, 2_500)


async def test_a_defect_tells_nothing_but_its_reference(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unforeseen exception is `internal`; its details are in the log under the same request id only."""

    async def broken(**_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(backend.lab.chat.store, "rooms", broken)
    response = await backend.http.get("/v1/rooms")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (500, "internal")
    assert "swordfish" not in response.text
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.request_id == error["request_id"] == response.headers["x-request-id"]  # type: ignore[attr-defined]


async def test_hooks_see_what_the_backend_posts(backend: Backend) -> None:
    """A `before` hook can refuse a post over HTTP as it can one over a WebSocket."""

    @backend.lab.chat.before("send")
    async def be_polite(chat: object, by: object, ask: Any) -> None:
        if "damn" in ask.text:
            raise Forbidden("Mind your words.")

    await backend.call("POST", "/v1/rooms", 201, json={"room": "tea", "kind": "public"})
    path = "/v1/rooms/tea/messages"
    assert await backend.refused("POST", path, 403, json={"text": "damn"}) == ("forbidden", "Mind your words.")
    await backend.call("POST", path, 201, json={"text": "dear me"})


async def test_requests_are_counted_by_row_and_status(backend: Backend) -> None:
    """What was answered is counted by method, path template and status, whatever ids the paths had."""
    await backend.call("POST", "/v1/rooms", 201, json={"room": "tea", "kind": "public"})
    for room in ("a", "b"):
        await backend.refused("GET", f"/v1/rooms/{room}", 404)
    assert backend.doorkeeper.requests == {("POST", "/v1/rooms", 201): 1, ("GET", "/v1/rooms/{room}", 404): 2}


async def test_answers_are_safe_for_browsers_and_caches(backend: Backend) -> None:
    """No answer may be sniffed, framed or kept."""
    response = await backend.http.get("/v1/rooms")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert json.loads(response.content) == {"rooms": [], "has_more": False}
