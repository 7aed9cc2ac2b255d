"""Who is let in, in every home, and how those who are not learn it."""

from __future__ import annotations

import base64
import json
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from homelab import Home, fresh
from hubbub import auth
from live import BOUND_S, Wire


async def let_in(home: Home, bearer: str, place: str) -> Wire:
    """A connection with its token in one of the places."""
    query = f"?token={bearer}" if place == "query" else ""
    headers = {"Authorization": f"Bearer {bearer}"} if place == "header" else None
    protocols = ["hubbub.v1", f"jwt.{bearer}"] if place == "subprotocol" else None
    socket = await connect(
        home.ws_url + query,
        additional_headers=headers,
        subprotocols=protocols,  # type: ignore[arg-type]
        proxy=None,
        open_timeout=BOUND_S,
    )
    return Wire(socket)


@pytest.mark.parametrize("place", ["subprotocol", "header", "query"])
async def test_a_token_is_taken_in_each_of_its_places(home: Home, place: str) -> None:
    """Subprotocol, header and query let a user in; only in the first is a subprotocol agreed."""
    user = fresh("ann")
    async with await let_in(home, home.token(user), place) as wire:
        synced = await wire.ok("sync")
        assert synced["user"] == user
        assert synced["connection_id"]
        assert wire.socket.subprotocol == ("hubbub.v1" if place == "subprotocol" else None)


async def test_the_first_place_with_a_token_counts(home: Home) -> None:
    """A bad token in the subprotocol is not made good by one in the query."""
    good = home.token(fresh("ann"))
    with pytest.raises(InvalidStatus) as refused:
        await connect(
            f"{home.ws_url}?token={good}",
            subprotocols=["hubbub.v1", "jwt.nonsense"],  # type: ignore[list-item]
            proxy=None,
            open_timeout=BOUND_S,
        )
    assert refused.value.response.status_code == 401


def unsigned(user: str) -> str:
    """A token with the algorithm `none`."""
    parts = [{"alg": "none", "typ": "JWT"}, {"sub": user, "exp": int(time.time()) + 600}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return f"{'.'.join(encoded)}."


BAD = {
    "missing": "unauthorized",
    "nonsense": "unauthorized",
    "of-another-secret": "unauthorized",
    "unsigned": "unauthorized",
    "expired": "token_expired",
}


@pytest.mark.parametrize("kind", BAD)
async def test_without_a_good_token_nobody_gets_in(home: Home, kind: str) -> None:
    """A handshake without a token, or with one that is bad or has run out, gets 401 and a reason as JSON."""
    user, now_s = fresh("mallory"), int(time.time())
    bearer = {
        "missing": None,
        "nonsense": "nonsense",
        "of-another-secret": auth.issue(
            "another secret, as long as ours is, 0123456789", user=user, ttl_s=60, now_s=now_s
        ),
        "unsigned": unsigned(user),
        "expired": auth.issue(home.secret, user=user, ttl_s=60, now_s=now_s - 3_600),
    }[kind]
    with pytest.raises(InvalidStatus) as refused:
        if bearer is None:
            await connect(home.ws_url, proxy=None, open_timeout=BOUND_S)
        else:
            await let_in(home, bearer, "subprotocol")
    assert refused.value.response.status_code == 401
    assert home.why_refused(refused.value, BAD[kind]) == BAD[kind]


async def test_nobody_is_the_system(home: Home) -> None:
    """A token for the chat's own user id is good, and opens nothing: 403."""
    with pytest.raises(InvalidStatus) as refused:
        await home.connect("system")
    assert refused.value.response.status_code == 403
    assert home.why_refused(refused.value, "forbidden") == "forbidden"


async def test_a_user_may_have_several_connections(home: Home) -> None:
    """Each hears what is said, by whichever of them."""
    user, room = fresh("ann"), fresh("tea")
    async with await home.connect(user) as phone, await home.connect(user) as desk:
        await phone.ok("create", kind="public", room=room)
        await phone.ok("sync")
        assert [each["room"] for each in (await desk.ok("sync"))["rooms"]] == [room]
        sent = await phone.ok("send", room=room, text="both")
        for wire in (phone, desk):
            while not any(frame.get("seq") == sent["seq"] and "id" in frame for frame in wire.frames):
                wire.frames.append(await wire.receive())
