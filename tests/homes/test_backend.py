"""`/v1`, in every home: what the customer's own backend does in the chat, over HTTP."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from homelab import Home, entry, fresh, signal_of
from live import BOUND_S


async def test_what_the_backend_does_reaches_those_who_are_connected(home: Home) -> None:
    """A room that it makes is heard of at once, and so is what it says there, as the system and as a user."""
    room, ann = fresh("order"), fresh("ann")
    async with home.backend() as http, await home.connect(ann, name="Ann") as wire:
        await wire.ok("sync")
        made = await http.post("/v1/rooms", json={"kind": "private", "room": room, "members": [{"user": ann}]})
        assert (made.status_code, made.json()["id"]) == (201, room)
        told = await signal_of(wire, "room", room=room, joined=True)
        assert told["state"]["role"] == "member"
        posted = await http.post(f"/v1/rooms/{room}/messages", json={"text": "It is on its way.", "client_id": "s-1"})
        assert posted.status_code == 201
        heard = await entry(wire, room, posted.json()["seq"])
        assert (heard["by"], heard["text"]) == ("system", "It is on its way.")
        again = await http.post(f"/v1/rooms/{room}/messages", json={"text": "again", "client_id": "s-1"})
        assert again.json()["seq"] == posted.json()["seq"]
        named = await http.post(f"/v1/rooms/{room}/messages", json={"text": "Thanks!", "user": ann})
        assert (await entry(wire, room, named.json()["seq"]))["name"] == "Ann"
        page = (await http.get(f"/v1/rooms/{room}/messages", params={"limit": 2})).json()
        assert page["entries"] == [heard, await entry(wire, room, named.json()["seq"])]
        gone = await http.delete(f"/v1/rooms/{room}/messages/{posted.json()['seq']}")
        assert gone.status_code == 204
        assert (await wire.ok("history", room=room, around=posted.json()["seq"], limit=1))["entries"][0]["deleted"]


async def test_a_message_of_the_backend_may_be_larger_than_a_clients(home: Home) -> None:
    """50 KB, more than a frame from a client or one of API Gateway's: it is heard whole, and read whole later."""
    room, ann = fresh("order"), fresh("ann")
    data = {"lines": ["ä 👋 " + "x" * 95 for _ in range(480)]}
    async with home.backend() as http, await home.connect(ann) as wire:
        await http.post("/v1/rooms", json={"kind": "private", "room": room, "members": [{"user": ann}]})
        synced = await wire.ok("sync")
        posted = await http.post(f"/v1/rooms/{room}/messages", json={"text": "Your order", "data": data})
        assert posted.status_code == 201, posted.text
        heard = await entry(wire, room, posted.json()["seq"])
        assert heard["data"] == data
        seen = {room: synced["rooms"][0]["head"]}
        assert (await wire.ok("sync", epoch=synced["epoch"], rooms=seen))["entries"] == [heard]
        assert (await wire.ok("history", room=room, limit=1))["entries"] == [heard]


async def test_the_backend_keeps_rooms_and_members(home: Home) -> None:
    """Rooms are listed, changed and removed; members are put, seen and taken out; ids may have what paths do not."""
    room, ann = fresh("team"), f"{fresh('ann')}@example.org"
    async with home.backend() as http, await home.connect(ann) as wire:
        await wire.ok("sync")
        await http.post("/v1/rooms", json={"kind": "public", "room": room, "name": "Team"})
        found = (await http.get("/v1/rooms", params={"after": room[:-1], "limit": 200})).json()
        assert room in [each["id"] for each in found["rooms"]]
        changed = await http.patch(f"/v1/rooms/{room}", json={"name": "The team", "kind": "private"})
        assert (changed.status_code, changed.json()["name"], changed.json()["kind"]) == (200, "The team", "private")
        path = f"/v1/rooms/{room}/members/{quote(ann)}"
        put = await http.put(path, json={"role": "moderator"})
        assert (put.status_code, put.json()["role"]) == (200, "moderator")
        await signal_of(wire, "room", room=room, joined=True)
        assert (await http.get(path)).json()["user"] == ann
        assert (await http.get(f"/v1/rooms/{room}/members")).json()["count"] == 1
        await wire.ok("send", room=room, text="one")
        await http.post(f"/v1/rooms/{room}/messages", json={"text": "two"})
        unread = (await http.get(f"/v1/users/{quote(ann)}/unread")).json()
        assert (unread["user"], unread["unread"]) == (ann, 1)
        assert (await http.delete(path)).status_code == 204
        await signal_of(wire, "room", room=room, joined=False)
        assert (await http.delete(f"/v1/rooms/{room}")).status_code == 204
        assert (await http.get(f"/v1/rooms/{room}")).status_code == 404


async def test_a_banned_user_is_out(home: Home) -> None:
    """His connections are closed with 4403 and his tokens let nobody in; when it is taken back, a new one does."""
    user = fresh("mallory")
    old = home.token(user)
    async with home.backend() as http:
        wire = await home.connect(user, old)
        await wire.ok("sync")
        banned = await http.put(f"/v1/users/{user}/ban", json={})
        assert banned.status_code == 200
        assert await home.closed(wire) == 4403
        with pytest.raises(InvalidStatus) as refused:
            await home.connect(user, old)
        assert refused.value.response.status_code in (401, 403)
        with pytest.raises(InvalidStatus) as refused:
            await home.connect(user)
        assert refused.value.response.status_code == 403
        await http.delete(f"/v1/users/{user}/ban")
        later = home.token(user, later_s=2)
        async with await home.connect(user, later) as back:
            await back.ok("sync")


async def test_tokens_can_be_voided(home: Home) -> None:
    """Revoking closes the user's connections with 4401 and refuses the tokens from before with 401; newer ones do."""
    user = fresh("ann")
    old = home.token(user)
    async with home.backend() as http:
        wire = await home.connect(user, old)
        await wire.ok("sync")
        assert (await http.post(f"/v1/users/{user}/revoke")).status_code == 200
        assert await home.closed(wire) == 4401
        with pytest.raises(InvalidStatus) as refused:
            await home.connect(user, old)
        assert refused.value.response.status_code == 401
        async with await home.connect(user, home.token(user, later_s=2)) as back:
            await back.ok("sync")


async def test_a_disconnected_user_may_come_back(home: Home) -> None:
    """All his connections are closed with 4403, and his token still lets him in."""
    user = fresh("ann")
    async with home.backend() as http:
        wires = [await home.connect(user) for _ in range(2)]
        for wire in wires:
            await wire.ok("sync")
        assert (await http.post(f"/v1/users/{user}/disconnect", json={"reason": "again, please"})).status_code == 204
        assert [await home.closed(wire) for wire in wires] == [4403, 4403]
        async with await home.connect(user) as back:
            await back.ok("sync")


@pytest.mark.parametrize("bearer", ["none", "nonsense", "user", "expired"])
async def test_only_the_backend_may_call(home: Home, bearer: str) -> None:
    """Without a token, with a bad one or a user's, nothing is done: 401 or 403 and the code."""
    token = {
        "none": None,
        "nonsense": "nonsense",
        "user": home.token(fresh("ann")),
        "expired": home.token("backend", ttl_s=-60, scopes=("server",)),
    }[bearer]
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=home.http_url, headers=headers, timeout=BOUND_S, trust_env=False) as http:
        answer = await http.post("/v1/rooms", json={"kind": "public", "room": fresh("x")})
    expected = {"user": (403, "forbidden"), "expired": (401, "token_expired")}.get(bearer, (401, "unauthorized"))
    assert (answer.status_code, answer.json()["error"]["code"]) == expected


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/rooms/nowhere", None, 404, "not_found"),
        ("POST", "/v1/rooms/nowhere/messages", b'{"text": "x"}', 404, "not_found"),
        ("POST", "/v1/rooms", b"{", 400, "bad_request"),
        ("POST", "/v1/rooms", b'{"kind": "open"}', 400, "bad_request"),
        ("POST", "/v1/rooms", b'{"kind": "public", "name": "' + b"x" * 70_000 + b'"}', 413, "too_large"),
        ("GET", "/v1/rooms?limit=x", None, 400, "bad_request"),
        ("PUT", "/v1/users/x/ban", b'{"until": 1}', 400, "bad_request"),
        ("GET", "/v1/nothing", None, 404, "not_found"),
    ],
)
async def test_bad_requests_are_told(
    home: Home, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    """What is not there, no JSON, too large or of the wrong type gets its status and code."""
    async with home.backend() as http:
        headers = {"Content-Type": "application/json"}
        answer = await http.request(method, path, content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
