"""The how-to, from its archive to its two browsers, with `hubbub local` where it says AWS."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from deploylab import DEPLOY, ROOT, TEMPLATE, read
from documents import blocks
from homelab import Home, stack, staged

PAGE = ROOT / "docs" / "how-to" / "aws.md"
MOVE = ROOT / "docs" / "how-to" / "laptop-to-aws.md"

BOUND_MS = 30_000


def shell(page: Path, begins: str) -> str:
    """What a reader types of the block in which a command begins so."""
    (text,) = [block.text for block in blocks(page, "console") if f"$ {begins}" in block.text]
    lines = re.sub(r"\\\n\s+", "", text).splitlines()
    return "\n".join(line.removeprefix("$ ") for line in lines if line.startswith("$ "))


@contextmanager
def served(folder: Path, url: str) -> Iterator[str]:
    """The page, put together by the commands of the how-to for a chat at `url`, and served from a folder."""
    commands = shell(PAGE, "mkdir -p site").splitlines()
    assert commands[-1].startswith("python3 -m http.server 8080 --directory site")
    made = "\n".join(commands[:-1]).replace("site", str(folder / "site"))
    made = re.sub(r"wss://[a-z0-9]+\.execute-api[^\"]+", url, made)
    subprocess.run(["sh", "-ec", made], cwd=ROOT, check=True, timeout=60)
    assert json.loads((folder / "site" / "web" / "chat.json").read_text()) == {"url": url}
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", folder / "site"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            port = re.search(r"port (\d+)", server.stdout.readline())
            assert port is not None
            yield f"http://127.0.0.1:{port[1]}/"
        finally:
            server.kill()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser; where tests are the last word, its absence is a failure."""
    path = shutil.which("chromium")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Chromium is missing: scripts/setup system chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            await browser.close()


async def come_in(browser: Browser, url: str, token: str) -> Page:
    """Somebody in a browser of his own, who has a token."""
    context = await browser.new_context()
    context.set_default_timeout(BOUND_MS)
    page = await context.new_page()
    await page.goto(url)
    await page.get_by_text("I have a token").click()
    await page.locator("#start-token").fill(token)
    await page.locator("#start-go").click()
    await expect(page.locator("#composer-text")).to_be_visible(timeout=BOUND_MS)
    return page


def granted(home: Home, line: str) -> str:
    """The token that a line of the how-to makes, with the home's secret."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HUBBUB_")}
    environment = {**kept, "HUBBUB_SECRET": home.secret}
    words = line.replace(".venv/bin/hubbub", f"{sys.executable} -m hubbub").split()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip().splitlines()[-1]


async def test_two_browsers_talk(tmp_path: Path) -> None:
    """With the how-to's commands, two people come in by two browsers, and each reads what the other writes."""
    ann_line, bob_line = shell(PAGE, ".venv/bin/hubbub token --user ann").splitlines()
    with stack(
        "how-to", staged(tmp_path / "staged") / "sam" / "template.yaml", tmp_path / "run", tables="moto"
    ) as home:
        async with home.backend() as backend:
            made = re.search(r"-d '(\{.*?\})'", shell(PAGE, "export HUBBUB_SECRET"))
            assert made is not None
            (await backend.post("/v1/rooms", json=json.loads(made[1]))).raise_for_status()
        with served(tmp_path, home.ws_url) as url:
            async with chromium() as browser:
                ann = await come_in(browser, url, granted(home, ann_line))
                bob = await come_in(browser, url, granted(home, bob_line))
                for writer, reader, words in ((ann, bob, "Hello from Ann"), (bob, ann, "Hello from Bob")):
                    await writer.locator("#composer-text").fill(words)
                    await writer.locator("#composer-text").press("Enter")
                    await expect(reader.locator("#timeline").get_by_text(words)).to_be_visible(timeout=BOUND_MS)


def test_what_the_how_to_names_is_there() -> None:
    """Parameters, outputs, files and scripts that the two how-tos name exist, and all parameters are in one of them."""
    template = read(TEMPLATE)
    text = PAGE.read_text() + MOVE.read_text()
    known = {*template["Parameters"], *template["Outputs"], "Functions"}
    for name in re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]*)+)(?:=[^`]*)?`", text):
        assert name in known, name
    assert set(template["Parameters"]) - {"StageName"} <= set(re.findall(r"\b[A-Z]\w+\b", text))
    for path in re.findall(r"\b((?:deploy|scripts|src|clients)/[\w./-]+\w)", text):
        assert (ROOT / path).exists(), path
    assert set(re.findall(r"^make ([\w-]+)", shell(PAGE, "make package-aws\n"), re.MULTILINE)) == {"package-aws"}
    assert (DEPLOY / "serverless" / "serverless.yml").exists()
