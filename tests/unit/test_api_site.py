"""The page's files, the development token, health and metrics, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.routing import BaseRoute

from hubbub.api import (
    DevToken,
    create_app,
    dev_token_routes,
    health_routes,
    metrics_routes,
    no_dev_token_routes,
    page_routes,
)
from hubbub.errors import Unavailable


@asynccontextmanager
async def served(
    routes: Iterable[BaseRoute],
    *,
    base_url: str = "http://localhost:8000",
    client: tuple[str, int] = ("127.0.0.1", 5000),
) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of an application of `routes`, seen as coming from `client`."""
    transport = httpx.ASGITransport(create_app(routes), client=client)
    async with httpx.AsyncClient(transport=transport, base_url=base_url) as http:
        yield http


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A page's folder, its library a link to a file elsewhere, as in a checkout."""
    web = tmp_path / "web"
    web.mkdir()
    (web / "index.html").write_text("<!doctype html><title>Hubbub</title>")
    (web / "page.css").write_text("body {}")
    (web / "odd.xyz").write_text("?")
    (tmp_path / "hubbub.js").write_text("export {}")
    (web / "hubbub.js").symlink_to(tmp_path / "hubbub.js")
    (tmp_path / "secret.txt").write_text("secret")
    return web


async def test_the_page_and_its_files_have_their_types(folder: Path) -> None:
    """Each file comes with its own type, and with the right to be kept only if it is asked for again."""
    expected = {
        "/": "text/html; charset=utf-8",
        "/web/page.css": "text/css; charset=utf-8",
        "/web/hubbub.js": "text/javascript; charset=utf-8",
        "/js/hubbub.js": "text/javascript; charset=utf-8",
        "/web/odd.xyz": "application/octet-stream",
    }
    async with served(page_routes(folder)) as http:
        for path, kind in expected.items():
            response = await http.get(path)
            assert (response.status_code, response.headers["content-type"]) == (200, kind)
            assert response.headers["cache-control"] == "no-cache"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"


async def test_the_page_is_told_where_the_websocket_is(folder: Path) -> None:
    """Its path is a setting of the server's."""
    async with served(page_routes(folder, websocket="/talk")) as http:
        response = await http.get("/web/chat.json")
        assert response.json() == {"path": "/talk"}
        assert response.headers["cache-control"] == "no-cache"


async def test_an_unchanged_file_is_not_sent_again(folder: Path) -> None:
    """A file whose ETag the browser has gets 304, and its new content once it changes."""
    async with served(page_routes(folder)) as http:
        first = await http.get("/")
        again = await http.get("/", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        # The browser takes over the headers of a 304: another policy there would break the page it has kept.
        assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
        (folder / "index.html").write_text("<!doctype html><title>Another, longer one</title>")
        changed = await http.get("/", headers={"If-None-Match": first.headers["etag"]})
        assert changed.status_code == 200


async def test_the_page_may_only_talk_to_its_own_host(folder: Path) -> None:
    """The page's policy allows its own scripts and styles, and sockets to the host it came from and no other."""
    async with served(page_routes(folder)) as http:
        policy = (await http.get("/")).headers["content-security-policy"]
        directives = {name: values for name, *values in (part.split() for part in policy.split(";"))}
        assert directives["default-src"] == ["'none'"]
        assert directives["script-src"] == directives["style-src"] == ["'self'"]
        assert directives["connect-src"] == ["'self'", "ws://localhost:8000", "wss://localhost:8000"]
        assert directives["img-src"] == ["'self'", "data:", "https:"]
        for name in ("base-uri", "form-action", "frame-ancestors"):
            assert directives[name] == ["'none'"]


@pytest.mark.parametrize("host", ["evil; script-src *", "a b", "x' 'unsafe-inline", ""])
async def test_a_host_header_cannot_add_to_the_policy(folder: Path, host: str) -> None:
    """A Host header that is no host adds nothing to the policy."""
    async with served(page_routes(folder)) as http:
        policy = (await http.get("/", headers={"Host": host})).headers["content-security-policy"]
        assert "connect-src 'self';" in policy
        assert "script-src 'self';" in policy


@pytest.mark.parametrize(
    "path",
    ["/web/../secret.txt", "/web/%2e%2e/secret.txt", "/web/..%2fsecret.txt", "/web/none.js", "/web/", "/web/%00"],
)
async def test_only_the_pages_own_files_are_served(folder: Path, path: str) -> None:
    """No path leads out of the page's folder."""
    async with served(page_routes(folder)) as http:
        response = await http.get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def mint(user: str, name: str | None) -> DevToken:
    """A token that says whose it is."""
    return DevToken(f"token of {user}, {name}", 99)


async def test_the_own_page_gets_a_development_token() -> None:
    """The page on this machine gets a token by name; so does a program without an Origin."""
    async with served(dev_token_routes(mint)) as http:
        for headers in ({"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}, {}):
            response = await http.post("/dev/token", json={"user": "ann", "name": "Ann"}, headers=headers)
            assert response.json() == {"token": "token of ann, Ann", "expires_at": 99}
            assert response.headers["cache-control"] == "no-store"
            assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost"])
async def test_every_name_of_this_machine_will_do(base_url: str) -> None:
    """All loopback names are allowed hosts."""
    async with served(dev_token_routes(mint), base_url=base_url) as http:
        assert (await http.post("/dev/token", json={"user": "ann"})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"Host": "evil.example"}, "127.0.0.1"),
        ({"Host": "localhost.evil.example:8000"}, "127.0.0.1"),
        ({"Host": "localhost@evil.example"}, "127.0.0.1"),
        ({"Host": ""}, "127.0.0.1"),
        ({"Origin": "http://evil.example"}, "127.0.0.1"),
        ({"Origin": "http://localhost:9000"}, "127.0.0.1"),
        ({"Origin": "null"}, "127.0.0.1"),
        ({"Sec-Fetch-Site": "cross-site"}, "127.0.0.1"),
        ({"Sec-Fetch-Site": "same-site"}, "127.0.0.1"),
        ({}, "192.0.2.7"),
    ],
)
async def test_nobody_else_gets_a_development_token(headers: dict[str, str], client: str) -> None:
    """Another site's page, a rebound name and another machine are refused."""
    async with served(dev_token_routes(mint), client=(client, 5000)) as http:
        response = await http.post("/dev/token", json={"user": "ann"}, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")


async def test_a_form_cannot_ask_for_a_development_token() -> None:
    """What a browser sends across sites without asking first, a form or plain text, is refused."""
    async with served(dev_token_routes(mint)) as http:
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            response = await http.post("/dev/token", content=b'{"user":"ann"}', headers={"Content-Type": kind})
            assert response.status_code == 400
        preflight = await http.options("/dev/token", headers={"Access-Control-Request-Method": "POST"})
        assert preflight.status_code == 405
        assert not any(name.startswith("access-control") for name in preflight.headers)


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"user":""}', b'{"user":"a","role":"owner"}', b'{"user":1}'])
async def test_a_bad_wish_for_a_token_is_named(body: bytes) -> None:
    """A malformed body gets 400."""
    async with served(dev_token_routes(mint)) as http:
        response = await http.post("/dev/token", content=body, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_request")


async def test_without_dev_there_are_no_tokens() -> None:
    """A server without --dev gives no tokens away and says where they come from."""
    async with served(no_dev_token_routes()) as http:
        response = await http.post("/dev/token", json={"user": "ann"})
        assert response.status_code == 404
        assert "hubbub token" in response.json()["error"]["message"]


class Needs:
    """What a node needs, to be broken by tests."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hangs = False
        self.draining = False

    async def check(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error


async def test_readiness_follows_what_the_node_needs() -> None:
    """A node is ready while its store works and it does not drain; it lives all the time."""
    needs = Needs()
    async with served(health_routes(needs=needs.check, draining=lambda: needs.draining, timeout_s=0.05)) as http:

        async def ready() -> tuple[int, object]:
            assert (await http.get("/healthz")).json() == {"status": "ok"}
            response = await http.get("/readyz")
            return response.status_code, response.json().get("reason")

        assert await ready() == (200, None)
        needs.error = Unavailable("The disk is full.")
        assert await ready() == (503, "The disk is full.")
        needs.error, needs.hangs = None, True
        assert await ready() == (503, "no answer within 0.05 s")
        needs.hangs, needs.draining = False, True
        assert await ready() == (503, "draining")
        needs.draining = False
        assert await ready() == (200, None)


async def test_a_node_that_lacks_what_it_can_do_without_is_ready_and_says_so() -> None:
    """A balancer that takes it out would make an outage of one part one of all; who watches reads what is away."""
    needs, away = Needs(), ["NATS is away."]
    async with served(
        health_routes(needs=needs.check, draining=lambda: needs.draining, lacks=lambda: away[0] if away else None)
    ) as http:
        response = await http.get("/readyz")
        assert (response.status_code, response.json()) == (200, {"status": "degraded", "reason": "NATS is away."})
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        needs.draining = True
        response = await http.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"status": "unavailable", "reason": "draining"})
        needs.draining = False
        away.clear()
        assert (await http.get("/readyz")).json() == {"status": "ok"}


async def test_metrics_are_made_when_they_are_asked_for() -> None:
    """Each scrape calls for the text, which goes out with its own type."""
    texts = iter([b"one 1\n", b"one 2\n"])
    async with served(metrics_routes(lambda: (next(texts), "text/plain; version=1.0.0"))) as http:
        for expected in ("one 1\n", "one 2\n"):
            response = await http.get("/metrics")
            assert (response.text, response.headers["content-type"]) == (expected, "text/plain; version=1.0.0")
