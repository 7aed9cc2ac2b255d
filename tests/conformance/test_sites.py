"""Stages, several APIs, custom domains: which API a client reaches by its host and path."""

from __future__ import annotations

import json
from typing import Any

from gatewaylab import Functions, Lab, running
from rawpeer import TEXT, frame, request

from hubbub.apigateway import Api, Event, Response, Route
from hubbub.gateway import Sites


async def whoami(event: Event) -> Response:
    """Says which API and stage it was called for."""
    context = event.request_context
    told = {"api": context.api_id, "stage": context.stage, "host": context.domain_name, "vars": event.stage_variables}
    return Response(body=json.dumps(told))


def api(api_id: str, stage: str, **options: Any) -> Api:
    """An API that tells who it is."""
    return Api(routes={"$default": Route(whoami, two_way=True)}, id=api_id, stage=stage, **options)


SITES = Sites(
    {"/dev": api("aaaaaaaaaa", "dev"), "/prod": api("aaaaaaaaaa", "prod", stage_variables={"table": "big"})},
    {
        "chat.example.com": {"": api("bbbbbbbbbb", "live"), "/v2": api("cccccccccc", "two")},
        "fixed.example.com": {"/": api("dddddddddd", "x", domain_name="d-name.example")},
    },
)


async def reached(lab: Lab, target: str, host: str) -> Any:
    """What the API says that a client reaches; the status of the refusal where there is none."""
    async with await lab.dial(request(target, Host=host)) as peer:
        answer = await peer.answer()
        if answer.status != 101:
            return answer.status
        await peer.send(frame(TEXT, b"who are you?"))
        return json.loads(await peer.text())


async def test_stages_are_told_apart_by_the_path() -> None:
    """Each has its name, its variables and its own connections on any host; an unknown one is refused."""
    async with running(api=SITES) as lab:
        dev = await reached(lab, "/dev", "127.0.0.1:8000")
        assert dev == {"api": "aaaaaaaaaa", "stage": "dev", "host": "127.0.0.1:8000", "vars": None}
        prod = await reached(lab, "/prod?token=x", "localhost:8000")
        assert (prod["stage"], prod["vars"]) == ("prod", {"table": "big"})
        assert await reached(lab, "/prod/", "localhost") == {**prod, "host": "localhost"}
        assert await reached(lab, "/stage", "localhost:8000") == 404
        assert await reached(lab, "/", "localhost:8000") == 404


async def test_a_custom_domain_needs_no_stage_in_the_path() -> None:
    """The host leads to its API, with or without a port and in any case; a mapped path leads to another."""
    async with running(api=SITES) as lab:
        assert (await reached(lab, "/", "chat.example.com"))["api"] == "bbbbbbbbbb"
        assert (await reached(lab, "/", "Chat.Example.com:8000"))["stage"] == "live"
        assert (await reached(lab, "/v2", "chat.example.com"))["api"] == "cccccccccc"
        assert await reached(lab, "/dev", "chat.example.com") == 404


async def test_events_may_name_another_domain_than_the_clients() -> None:
    """`domainName` is what the API says it is, where it says so."""
    async with running(api=SITES) as lab:
        assert (await reached(lab, "/", "fixed.example.com"))["host"] == "d-name.example"


async def test_a_plain_get_at_any_stage_gets_426() -> None:
    """Also with a slash at the end; at other paths the HTTP application answers."""
    async with running(api=SITES) as lab:
        for target, status in (("/dev", 426), ("/prod/", 426), ("/other", 200)):
            head = request(target, drop=("Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version"))
            async with await lab.dial(head) as peer:
                assert (await peer.answer()).status == status


def test_without_a_path_a_host_with_one_api_has_that_one() -> None:
    """Connections may be managed without the stage where it is clear which API is meant."""
    known = Sites({"/dev": api("aaaaaaaaaa", "dev")}, {"one.example": {"/v1": api("bbbbbbbbbb", "live")}})
    one = known.beside("one.example", "")
    assert one is not None
    assert one.id == "bbbbbbbbbb"
    assert known.beside("localhost", "/") is known.at("localhost", "/dev")
    assert SITES.beside("localhost", "") is None
    assert SITES.beside("localhost", "/prod") is SITES.at("localhost", "/prod")


async def test_a_connection_stays_with_the_api_that_it_was_made_to() -> None:
    """Its messages and its end go to the routes of that API."""
    one, other = Functions(), Functions()
    sites = Sites({"/one": one.api(), "/other": other.api()})
    async with running(one, api=sites) as lab:
        async with await lab.open(request("/one")) as peer:
            await peer.send(frame(TEXT, b"hello"))
            await one.wait_for("MESSAGE", peer.id)
        await one.wait_for("DISCONNECT", peer.id)
    assert other.events == []
