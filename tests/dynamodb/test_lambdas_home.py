"""An environment made of its variables: handlers over a real table; Lambda and API Gateway are stood in for."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

from dynamolab import REGION, Server, service
from hubbub.aws.http import HttpClient
from hubbub.aws.table import Table
from hubbub.clock import SystemClock
from hubbub.config import SettingsError
from hubbub.fanout.apigateway.transports import LambdaTransport
from hubbub.lambdas import home as homes
from hubbub.lambdas import place
from hubbub.lambdas.handlers import authorize, broadcast, handler, sweep
from hubbub.lambdas.home import Home
from hubbub.lambdas.invocation import InvocationFailed
from hubbub.model import new_ulid
from lambdahome import SECRET, Context, Written, from_client, recorded, written
from tokens import forged

ENDS = 4_000_000_000


class Aws:
    """Lambda's Invoke and `@connections`, written down.

    Attributes:
        invoked: the payloads of asynchronous invocations that nobody has taken yet.
        posted: the frames of each connection.

    """

    def __init__(self) -> None:
        self.invoked: list[Any] = []
        self.posted: dict[str, list[Any]] = {}
        self.url = ""

    def answer(self, path: str, body: bytes) -> int:
        if path.startswith("/2015-03-31/functions/talk-broadcaster/invocations"):
            self.invoked.append(json.loads(body))
            return 202
        connection = self.named(path)
        if connection not in self.posted:
            return 410
        self.posted[connection].append(json.loads(body))
        return 200

    def named(self, path: str) -> str:
        """The connection of which a request is."""
        return unquote(path).removeprefix("/live/@connections/")

    def deliver(self) -> None:
        """Invoke the broadcaster with what was handed over, as Lambda does a moment later."""
        while self.invoked:
            broadcast(self.invoked.pop(0), Context())


@pytest.fixture
def aws() -> Iterator[Aws]:
    aws = Aws()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.answer(aws.answer(self.path, self.rfile.read(int(self.headers.get("Content-Length", 0)))))

        def do_GET(self) -> None:
            self.answer(200 if aws.named(self.path) in aws.posted else 410)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.daemon_threads = True
        aws.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield aws
        server.shutdown()
        thread.join(20)


@pytest.fixture
def variables(dynamodb: Server, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """What a template gives its functions; the environment is made anew, and ends with the test."""

    async def make() -> str:
        async with HttpClient() as http:
            table = Table(service(http, dynamodb), f"talk-{new_ulid(0)}")
            await table.create()
            return table.name

    for name, value in {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL_DYNAMODB": dynamodb.url,
        "AWS_ENDPOINT_URL_LAMBDA": aws.url,
        "HUBBUB_TABLE": asyncio.run(make()),
        "HUBBUB_ENDPOINT": f"{aws.url}/live",
        "HUBBUB_BROADCASTER": "talk-broadcaster",
        "HUBBUB_SECRET": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "DYNAMODB_LOCAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(homes, "_current", None)
    yield monkeypatch
    if homes._current is not None:
        homes._current.close()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    with written(monkeypatch) as log:
        monkeypatch.setattr("hubbub.lambdas.logs.configure", lambda level: None)
        yield log


class Tab:
    """One connection, from its token on."""

    def __init__(self, aws: Aws, user: str) -> None:
        self.connection = f"{user.upper()}AAAAAAAAAAAA="
        handshake = recorded("authorizer")
        handshake["queryStringParameters"] = {"token": forged(SECRET, {"sub": user, "exp": ENDS, "name": user})}
        handshake["multiValueHeaders"].pop("Authorization")
        policy = authorize(handshake, Context())
        assert policy is not None
        self.authorizer = {"principalId": policy["principalId"], **policy["context"]}
        event = recorded("connect")
        event["requestContext"] |= {"connectionId": self.connection, "authorizer": self.authorizer}
        assert handler(event, Context()) == {"statusCode": 200}
        self.frames = aws.posted.setdefault(self.connection, [])

    def ask(self, action: str, within_ms: int = 30_000, **fields: Any) -> dict[str, Any]:
        body = json.dumps({"action": action, "ref": "r", **fields})
        answer = handler(from_client(self.connection, self.authorizer, body), Context(left_ms=within_ms))
        assert answer is not None
        return json.loads(answer["body"])

    def gone(self) -> None:
        event = recorded("disconnect_of_a_browser")
        event["requestContext"] |= {"connectionId": self.connection, "authorizer": self.authorizer}
        assert handler(event, Context()) == {"statusCode": 200}

    @property
    def said(self) -> list[tuple[int, str]]:
        """The messages that it got."""
        return [(frame["seq"], frame["text"]) for frame in self.frames if frame["type"] == "message.created"]


def test_two_people_talk(variables: pytest.MonkeyPatch, aws: Aws, log: Written):
    """Authorizer, handshakes, `sync`, a room, messages in order to both, a resume that misses nothing, an end."""
    ann, bob = Tab(aws, "ann"), Tab(aws, "bob")
    assert ann.ask("sync")["user"] == "ann"
    assert bob.ask("sync")["rooms"] == []
    assert ann.ask("create", room="tea", kind="public")["type"] == "ok"
    assert bob.ask("join", room="tea")["type"] == "ok"
    aws.deliver()
    first = ann.ask("send", room="tea", text="one", client_id="k1")
    assert ann.ask("send", room="tea", text="one", client_id="k1")["seq"] == first["seq"]
    second = bob.ask("send", room="tea", text="two")
    aws.deliver()
    expected = [(first["seq"], "one"), (second["seq"], "two")]
    assert ann.said == bob.said == expected
    bob.gone()
    third = ann.ask("send", room="tea", text="three")
    aws.deliver()
    assert bob.said == expected
    again = Tab(aws, "bob")
    missed = again.ask("sync", rooms={"tea": second["seq"]})["entries"]
    assert [entry["seq"] for entry in missed] == [third["seq"]]
    assert not [line for line in log.words if line["level"] in ("ERROR", "CRITICAL")], log.text


def test_the_sweeper_finds_the_table_in_order(variables: pytest.MonkeyPatch, aws: Aws, log: Written):
    """A minute's background work is done over the same table, and nothing of it fails."""
    Tab(aws, "ann").ask("create", room="tea", kind="public")
    assert sweep({"source": "aws.events"}, Context()) is None
    assert {"tick_ms", "connections_ms", "directory_ms", "retention_ms"} <= log.metrics[-1].keys()


class Day(SystemClock):
    """The machine's time, which tests may put forward."""

    def __init__(self, second: int) -> None:
        self.ahead_s = second - time.time() % 60

    def now_ms(self) -> int:
        return super().now_ms() + round(self.ahead_s * 1_000)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


def test_who_went_without_a_word_is_offline_ten_minutes_later(variables: pytest.MonkeyPatch, aws: Aws, log: Written):
    """Though nothing is said in the room, and API Gateway has told nobody of the end; others stay."""
    clock = Day(0)
    with environments(variables, clock) as another:
        another()
        ann, bob = Tab(aws, "ann"), Tab(aws, "bob")
        assert ann.ask("create", room="tea", kind="public")["type"] == "ok"
        assert bob.ask("join", room="tea")["type"] == "ok"
        del aws.posted[bob.connection]
        for _ in range(11):
            clock.ahead_s += 60
            sweep({"source": "aws.events"}, Context())
            aws.deliver()
        assert ann.ask("presence", room="tea")["online"] == ["ann"]


@pytest.mark.parametrize(
    ("second", "phase", "halts"), [(0, 1, False), (54, 58, False), (56, 58, False), (0, 1, True), (56, 58, True)]
)
def test_what_was_stored_is_delivered_within_two_minutes_though_nobody_handed_it_over(
    variables: pytest.MonkeyPatch, aws: Aws, log: Written, second: int, phase: int, halts: bool
):
    """The function that stored it is ended before it can say so; the sweeper finds it, whenever in a minute it runs.

    If the sweeper is ended as well, the one a minute later does.
    """
    clock = Day(second)
    with environments(variables, clock) as another:
        another()
        ann, bob = Tab(aws, "ann"), Tab(aws, "bob")
        assert ann.ask("create", room="tea", kind="public")["type"] == "ok"
        assert bob.ask("join", room="tea")["type"] == "ok"
        aws.deliver()
        clock.ahead_s += 600  # what is due of that is none of this test
        another()
        sweep({"source": "aws.events"}, Context())
        aws.deliver()
        ann.ask("ping")
        with halting(variables) as halted:
            assert ann.ask("send", room="tea", text="one", within_ms=2_500)["code"] == "internal"
        assert halted
        sent_ms = clock.now_ms()
        halted = [] if halts else halted
        while not bob.said:
            # Sweepers come a minute apart, so that half a minute is for the machine.
            assert clock.now_ms() - sent_ms < (60_000 if halts else 0) + 150_000
            clock.ahead_s += (phase - clock.now_ms() / 1_000) % 60 or 60
            another()
            if halted:
                sweep({"source": "aws.events"}, Context())
            else:
                with halting(variables) as halted, suppress(InvocationFailed):
                    sweep({"source": "aws.events"}, Context(left_ms=5_000))
            aws.deliver()
        assert [text for _, text in bob.said] == ["one"]


@contextmanager
def environments(variables: pytest.MonkeyPatch, clock: Day) -> Iterator[Callable[[], None]]:
    """What lets functions run from then on in an environment that knows nothing."""
    begun: list[Home] = []

    def another() -> None:
        begun.append(Home(place.read(os.environ), clock=clock))
        variables.setattr(homes, "_current", begun[-1])

    try:
        yield another
    finally:
        variables.setattr(homes, "_current", None)
        for home in begun:
            home.close()


@contextmanager
def halting(variables: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Who hands something over to the broadcaster comes no further; what that would have been."""
    halted: list[Any] = []

    async def hand(self: Any, jobs: list[Any]) -> None:
        halted.extend(jobs)
        await asyncio.Event().wait()

    with variables.context() as patch:
        patch.setattr(LambdaTransport, "hand", hand)
        yield halted


def test_a_table_that_is_missing_is_named(variables: pytest.MonkeyPatch, log: Written):
    """The invocation fails, and the log names the table."""
    variables.setenv("HUBBUB_TABLE", "nobody-made-this")
    with pytest.raises(InvocationFailed):
        handler(recorded("message"), Context())
    assert "nobody-made-this" in log.text


@pytest.mark.parametrize("name", ["HUBBUB_TABLE", "HUBBUB_ENDPOINT", "HUBBUB_BROADCASTER"])
def test_a_missing_variable_is_named(variables: pytest.MonkeyPatch, log: Written, name: str):
    """A function that lacks a part of its stack says which variable was expected."""
    variables.delenv(name)
    home = homes.current()
    with pytest.raises(SettingsError, match=f"expected the variable {name}"):
        home.run(home.chat())
