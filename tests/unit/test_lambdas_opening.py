"""What an environment has when it has started: it reads whom to trust then, and not while a client waits."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from endpoint import response
from hubbub.aws import http
from hubbub.config import Settings
from hubbub.lambdas import backend, broadcast, sweep, websocket
from hubbub.lambdas import home as homes
from hubbub.lambdas.home import Home
from hubbub.lambdas.invocation import Function
from hubbub.lambdas.place import Place
from lambdahome import SECRET
from live import BOUND_S

ANSWERS = {
    "DynamoDB_20120810.GetItem": {"Item": {"word": {"S": "epoch"}}},
    "AmazonSSM.GetParameter": {"Parameter": {"Value": SECRET}},
    "": {"keys": []},
}
"""What AWS, and an identity provider, say to what environments ask while they start; by `X-Amz-Target`."""


class Secure:
    """All of AWS at one port with TLS, on the loop of the home that asks.

    Attributes:
        url: where it is.
        asked: the targets of what was asked.

    """

    url: str

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.bundle = folder / "bundle.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.bundle)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._context)

    async def start(self) -> None:
        """Listen from now on."""
        self._server = await asyncio.start_server(self._talk, "localhost", 0, ssl=self._context)
        self.url = f"https://localhost:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Listen no more."""
        self._server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                await reader.readexactly(int(fields["content-length"]))
                self.asked.append(fields.get("x-amz-target", ""))
                target = next(name for name in ANSWERS if name.lower() == self.asked[-1])
                writer.write(response(200, json.dumps(ANSWERS[target])))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side went away
        finally:
            writer.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Each time that certificates were read."""
    found: list[object] = []
    real = http.trusting

    def trusting(environment: Any) -> ssl.SSLContext:
        found.append(environment)
        return real(environment)

    monkeypatch.setattr(http, "trusting", trusting)
    return found


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Secure]:
    """AWS, and an environment that finds it."""
    home = Home(Place(region="eu-west-1", settings=Settings(secret=SECRET), table="talk", broadcaster="broadcaster"))
    monkeypatch.setattr(homes, "_current", home)
    made = Secure(tmp_path)
    home.run(made.start())
    for name, value in {
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "AWS_ENDPOINT_URL": made.url,
        "AWS_CA_BUNDLE": str(made.bundle),
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": "a secret",
    }.items():
        monkeypatch.setenv(name, value)
    yield made
    home.run(made.stop())
    home.close()


def start(warm: Any, **place: Any) -> Home:
    """Load a handler as Lambda does while an environment starts; the environment's home."""
    home = homes.current()
    home.place = Place(**{name: getattr(home.place, name) for name in home.place.__struct_fields__} | place)
    Function(websocket.answer, takes=object, warm=warm)
    return home


WARM = {
    "the chat's": (websocket._warm, {}),
    "the broadcaster's": (broadcast._warm, {}),
    "the sweeper's": (sweep._warm, {}),
    "the backend's": (backend._backend.warm, {}),
    "an authorizer's with a secret of AWS's": (
        Home.warm_tokens,
        {"settings": Settings(), "secret_parameter": "/chat/secret"},
    ),
}


@pytest.mark.parametrize("whose", WARM)
def test_certificates_are_read_while_an_environment_starts(whose: str, aws: Secure, read: list[object]):
    """It takes 20 ms of CPU, which no client waits for, since each function asks AWS something when it starts."""
    warm, place = WARM[whose]
    home = start(warm, endpoint=f"{aws.url}/live", **place)
    assert (len(aws.asked), len(read)) == (1, 1)

    async def ask() -> int:
        return (await (await home.http()).request("GET", f"{aws.url}/live", timeout_s=BOUND_S)).status

    assert (home.run(ask()), len(read)) == (200, 1)


def test_an_identity_providers_keys_are_fetched_while_an_environment_starts(aws: Secure, read: list[object]):
    """The first handshake waits neither for them nor for certificates to be read."""
    start(Home.warm_tokens, settings=Settings(jwks_url=f"{aws.url}/jwks.json"))
    assert (aws.asked, len(read)) == ([""], 1)


def test_who_asks_nobody_reads_no_certificates(aws: Secure, read: list[object]):
    """As an authorizer that has its secret."""
    start(Home.warm_tokens)
    assert (aws.asked, read) == ([], [])
