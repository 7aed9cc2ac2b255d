"""`hubbub bench` against `hubbub serve`, as a person runs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import async_playwright

from live import SECRET, ServerProcess, token
from terminal import CTRL_C, Terminal, hubbub
from tlslab import Issuer

Starter = Callable[..., Any]


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Starter]:
    """Starts servers with settings of the environment; they end with the test."""
    running: list[ServerProcess] = []

    async def started(**settings: str) -> ServerProcess:
        process = ServerProcess(tmp_path, **{f"HUBBUB_{name.upper()}": value for name, value in settings.items()})
        running.append(process)
        await process.start()
        return process

    try:
        yield started
    finally:
        for process in running:
            await process.stop()


async def bench(folder: Path, url: str, *arguments: str, **variables: str) -> Any:
    """Run it to its end, beside what this process serves; with the server's secret unless told otherwise."""
    quick = ("--duration", "2", "--settle", "5s", "--connections", "10")
    environment = {"HUBBUB_SECRET": SECRET, **variables}
    return await asyncio.to_thread(hubbub, folder, "bench", url, *quick, *arguments, **environment)


def read(folder: Path) -> Any:
    """The JSON document."""
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


async def test_a_load_test_passes_and_sees_the_server(start: Starter, tmp_path: Path) -> None:
    """All is delivered, the server's process is found by its port, and the status says that it passed."""
    server = await start()
    # It tells how far it is once a second, and connecting takes longer than that.
    ran = await bench(tmp_path, server.ws_url, "--rate", "40", "--ramp", "5", "--json", "result.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.rstrip().endswith("PASS")
    assert re.search(r"connecting \d+ of 10", ran.stderr)
    result = read(tmp_path)
    assert result["counts"]["acked"] == 80
    assert result["counts"]["delivered"] == 800
    assert result["delivery"]["count"] == 800
    assert result["server"]["pids"] == [server.process.pid]
    assert result["server"]["cpu_s"] > 0
    assert result["server"]["rss_bytes"] > 10_000_000
    assert result["passed"] is True


async def test_json_alone_on_standard_output(start: Starter, tmp_path: Path) -> None:
    """With `--json -` standard output is the document, and nothing else."""
    server = await start()
    ran = await bench(tmp_path, server.ws_url, "--json", "-", "--rooms", "4", "--rooms-each", "2")
    result = json.loads(ran.stdout)
    assert result["passed"], ran.stdout
    assert result["counts"]["delivered"] == 20 * 5


async def test_a_storm_loses_nothing(start: Starter, tmp_path: Path) -> None:
    """Everybody is cut in the middle, comes back, and has everything once, beside history and several processes."""
    server = await start(rate="0", user_rate="0")
    ran = await bench(
        *(tmp_path, server.ws_url, "--connections", "40", "--rooms", "4", "--rate", "100", "--duration", "4"),
        *("--storm", "--history", "10", "--processes", "2", "--json", "result.json"),
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = read(tmp_path)
    assert (result["storm"]["cut"], result["storm"]["back"]) == (40, 40)
    assert result["storm"]["back_ms"]["count"] == 40
    assert result["counts"]["closed"] == {}, "who was cut on purpose was not lost"
    assert result["counts"]["delivered"] == 400 * 10
    assert result["history"]["count"] == result["counts"]["pages"] > 0
    assert "back after the storm" in ran.stdout


async def test_slow_readers_are_closed_and_get_everything_in_the_end(start: Starter, tmp_path: Path) -> None:
    """Who does not read is closed with 4408, the others lose nothing by it, nor do they when they read again."""
    server = await start(rate="0", user_rate="0", outbox_bytes="65536")
    ran = await bench(
        *(tmp_path, server.ws_url, "--slow", "2", "--rate", "300", "--size", "8000", "--duration", "4"),
        *("--settle", "20s", "--json", "result.json"),
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = read(tmp_path)
    assert result["counts"]["slow_closed"]["4408"] >= 2
    assert result["counts"]["closed"] == {}
    assert result["counts"]["delivered"] == 1_200 * 10
    assert result["delivery"]["count"] == 1_200 * 8, "durations are of those that read"
    assert "closed by the server: 4408" in ran.stdout


async def test_rate_limits_fail_it_and_are_explained(start: Starter, tmp_path: Path) -> None:
    """Messages over a rate limit are refused; the verdict says so, and which settings it was."""
    server = await start(rate="5", burst="5")
    ran = await bench(tmp_path, server.ws_url, "--senders", "1", "--rate", "100")
    assert ran.returncode == 1
    assert re.search(r"failed: \d+ messages refused: rate_limited", ran.stdout)
    assert "user_rate" in ran.stdout
    assert ran.stdout.rstrip().endswith("FAIL")


async def test_it_speaks_tls(start: Starter, tmp_path: Path) -> None:
    """A server with a certificate of one's own authority is trusted with --ca, and not without."""
    issuer = Issuer(tmp_path)
    issuer.write()
    (tmp_path / "ca.pem").write_bytes(issuer.certificate)
    process = ServerProcess(tmp_path, HUBBUB_TLS_CERT=str(issuer.cert), HUBBUB_TLS_KEY=str(issuer.key))
    server_url = await started_with_tls(process)
    try:
        trusted = await bench(tmp_path, server_url, "--ca", "ca.pem")
        assert trusted.returncode == 0, trusted.stdout + trusted.stderr
        refused = await bench(tmp_path, server_url)
        assert refused.returncode == 1
        assert "TLS: " in refused.stderr
    finally:
        await process.stop()


async def started_with_tls(process: ServerProcess) -> str:
    """Start it; returns the URL of its WebSocket."""
    await process.start()
    return f"wss://127.0.0.1:{process.port}/ws"


async def test_tokens_are_fetched(start: Starter, tmp_path: Path) -> None:
    """Where the backend makes the tokens it is asked for one for each connection, with the header that it wants."""
    server = await start()
    asked: list[str] = []

    async def give(request: web.Request) -> web.Response:
        if request.headers.get("X-Key") != "k":
            return web.Response(status=403)
        asked.append(request.query["user"])
        text = token(request.query["user"])
        return web.json_response({"token": text}) if len(asked) % 2 else web.Response(text=text + "\n")

    application = web.Application()
    application.router.add_get("/token", give)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        fetched = ("--token-url", f"http://127.0.0.1:{port}/token?user={{user}}", "--rooms", "3")
        ran = await bench(tmp_path, server.ws_url, *fetched, "--token-header", "X-Key: k", "--json", "result.json")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert len(set(asked)) == 10
        result = read(tmp_path)
        assert result["counts"]["acked"] == 20
        refused = await bench(tmp_path, server.ws_url, *fetched)
        assert refused.returncode == 1
        assert "expected status 200" in refused.stderr
        assert "got 403" in refused.stderr
    finally:
        await runner.cleanup()


async def test_rooms_that_are_there_are_used(start: Starter, tmp_path: Path) -> None:
    """Named rooms get the messages, and what is in them already counts for nothing."""
    server = await start()
    for _ in range(2):
        ran = await bench(tmp_path, server.ws_url, "--room", "general,random", "--json", "result.json")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert read(tmp_path)["counts"]["delivered"] == 20 * 5


async def test_it_comes_from_several_addresses(start: Starter, tmp_path: Path) -> None:
    """With more source addresses everything works as with one."""
    server = await start()
    ran = await bench(tmp_path, server.ws_url, "--source-addresses", "3", "--json", "result.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert read(tmp_path)["asked"]["source_addresses"] == 3


async def test_what_is_wrong_is_said_before_anything_is_started(start: Starter, tmp_path: Path) -> None:
    """A wrong path, a refused token, and flags that cannot be each end in one line."""
    server = await start()
    wrong = await bench(tmp_path, server.ws_url.replace("/ws", "/nowhere"))
    assert wrong.returncode == 1
    assert "status 404" in wrong.stderr
    refused = await bench(tmp_path, server.ws_url, HUBBUB_SECRET="b" * 40)
    assert refused.returncode == 1
    assert "status 401" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    for arguments, words in (
        (("--rate", "fast"), "rate: expected a number from 0 to 1,000,000, got 'fast'"),
        (("--html", "/no/such/folder/r.html"), "html: expected a file that can be written"),
        (("--tokens", "nothing"), "tokens: expected a file that can be read, got 'nothing'"),
    ):
        ran = await bench(tmp_path, server.ws_url, *arguments)
        assert ran.returncode == 2
        assert words in ran.stderr


async def test_the_last_result_stays_until_there_is_a_new_one(tmp_path: Path, unused_tcp_port: int) -> None:
    """A load test that cannot be done leaves files as they were, and none where there was none."""
    (tmp_path / "result.json").write_text("the last", encoding="ascii")
    files = ("--json", "result.json", "--html", "report.html")
    ran = await bench(tmp_path, f"ws://127.0.0.1:{unused_tcp_port}/ws", *files)
    assert ran.returncode == 1
    assert "Connection refused" in ran.stderr
    assert (tmp_path / "result.json").read_text(encoding="ascii") == "the last"
    assert not (tmp_path / "report.html").exists()


async def test_without_a_way_to_tokens_it_says_which_there_are(start: Starter, tmp_path: Path) -> None:
    """Where nobody has given a secret or tokens it ends with the ways there are."""
    server = await start()
    without = await asyncio.to_thread(hubbub, tmp_path / "..", "bench", server.ws_url)
    assert without.returncode == 2
    assert "expected a way to tokens" in without.stderr


async def test_ctrl_c_gives_a_report(start: Starter, tmp_path: Path) -> None:
    """On a terminal the line changes in place; Ctrl-C ends it with the report of what there was, and status 130."""
    server = await start()

    arguments = ("bench", server.ws_url, "--duration", "10m", "--connections", "5", "--html", "report.html")
    with Terminal(tmp_path, *arguments, columns=150, HUBBUB_SECRET=SECRET) as terminal:
        terminal.until(r"\d s of 600  5 connected  .*[1-9]\d* delivered/s")
        terminal.type(CTRL_C)
        status, text, shown = terminal.ends(), terminal.text, terminal.shown
    assert status == 130
    assert "note: ended by hand" in text
    assert "PASS" in text
    assert "\x1b[K" in shown
    assert "Traceback" not in text
    assert "Passed" in (tmp_path / "report.html").read_text(encoding="utf-8")


async def test_the_page_opens_without_a_network(start: Starter, tmp_path: Path) -> None:
    """The report opens from disk, offline, asks for nothing else, complains of nothing, and shows its plots."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail("Chromium is missing; install it with: scripts/setup system chromium")
        pytest.skip("Chromium is missing; install it with: scripts/setup system chromium")
    server = await start()
    ran = await bench(tmp_path, server.ws_url, "--html", "report.html")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        context = await browser.new_context(offline=True)
        page = await context.new_page()
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        await page.goto((tmp_path / "report.html").as_uri())
        await page.wait_for_load_state("networkidle")
        assert asked == [(tmp_path / "report.html").as_uri()]
        assert said == []
        assert await page.locator("svg").count() == 7
        assert await page.get_by_text("Passed", exact=True).is_visible()
        for drawn in await page.locator("svg polyline").all():
            box = await drawn.bounding_box()
            assert box is not None
            assert box["width"] > 0
        await page.screenshot(path=tmp_path / "report.png", full_page=True)
        assert (tmp_path / "report.png").stat().st_size > 20_000
        await page.set_viewport_size({"width": 360, "height": 700})
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "fits a telephone"
        await browser.close()
