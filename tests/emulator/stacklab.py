"""Stacks that tests run: their clients, what they said, templates written on the spot, and that nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import textwrap
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import pytest
from functionlab import PYTHON, Others, marked
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from botolab import session
from hubbub.emulator import BackgroundStack
from hubbub.emulator.functions import LogLine, Report
from live import BOUND_S, until

Json = dict[str, Any]

EXAMPLES = Path(__file__).parents[2] / "examples"

URI = "arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${%s.Arn}/invocations"

GONE = "AAAAAAAAAAAAAAA="
"""A connection id as it should be, of nobody."""


class Client:
    """A WebSocket client that speaks JSON.

    Attributes:
        socket: its connection.

    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, **document: Any) -> None:
        """Send a message."""
        await self.socket.send(json.dumps(document))

    async def hear(self) -> Json:
        """The next message."""
        async with asyncio.timeout(BOUND_S):
            heard: Json = json.loads(await self.socket.recv())
        return heard

    async def ask(self, **document: Any) -> Json:
        """Send a message, and the next one that comes."""
        await self.say(**document)
        return await self.hear()

    async def closed(self) -> int:
        """The close code, once the connection ends; nothing else may come."""
        with pytest.raises(ConnectionClosed) as end:
            async with asyncio.timeout(BOUND_S):
                await self.socket.recv()
        return end.value.rcvd.code if end.value.rcvd else 1006


@asynccontextmanager
async def client(
    url: str, headers: Mapping[str, str] | None = None, *, port: int | None = None, **query: str
) -> AsyncIterator[Client]:
    """A client that is connected; with a port, there on this machine, whatever the URL calls it."""
    address = f"{url}?{urlencode(query)}" if query else url
    where: Json = {} if port is None else {"host": "127.0.0.1", "port": port}
    async with connect(
        address, additional_headers=headers, proxy=None, open_timeout=BOUND_S, max_size=None, compression=None, **where
    ) as socket:
        yield Client(socket)


async def refused(url: str, headers: Mapping[str, str] | None = None, **query: str) -> int:
    """The status with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as refusal:
        async with client(url, headers, **query):
            pass
    return refusal.value.response.status_code


class Record:
    """What a stack said while it ran: its options `on_log`, `on_report` and `say`.

    Attributes:
        lines, reports, said: in order.

    """

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.reports: list[Report] = []
        self.said: list[str] = []

    def options(self) -> dict[str, Any]:
        """For the stack."""
        return {"on_log": self.lines.append, "on_report": self.reports.append, "say": self.said.append}

    def printed(self, label: str) -> list[str]:
        """What a function has printed, and what was said of it; a stack's name may be in front of the label."""
        return [line.text for line in self.lines if line.function.endswith(label)]

    async def tells(self, words: str, *, after: int = 0) -> str:
        """What the stack says of something, once it does; `after` so many other things."""
        await until(lambda: any(words in said for said in self.said[after:]), f"word of {words!r}; {self.said[after:]}")
        return next(said for said in self.said[after:] if words in said)


@contextmanager
def background(path: Path, **options: Any) -> Iterator[tuple[BackgroundStack, Record]]:
    """A stack in a thread, and its record; afterwards no process and no file of it is left."""
    record = Record()
    others = Others()
    with BackgroundStack(path, **{**record.options(), **options}) as stack:
        running = stack._running
        mark, folders = running.functions.mark, [running._work.parent, running.functions.folder]
        yield stack, record
    assert not any(folder.exists() for folder in folders if folder)
    assert others.besides() == []
    assert marked(mark) == []


def aws(service: str, environment: Mapping[str, str], **options: Any) -> Any:
    """A boto3 client with a stack's environment: what a program beside it would have."""
    word = service.upper().replace("-", "_")
    url = environment.get(f"AWS_ENDPOINT_URL_{word}", environment["AWS_ENDPOINT_URL"])
    keys = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    own = session(*keys, region=environment["AWS_REGION"])
    return own.client(service, **{"endpoint_url": url, "verify": environment["AWS_CA_BUNDLE"], **options})


class Sketch:
    """A stack that is written on the spot: a template in plain CloudFormation, and a folder for each function.

    Attributes:
        folder: where it is.
        path: the template.
        document: what the next `write` writes there.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "template.json"
        self.document: Json = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": {}}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def resources(self) -> Json:
        found: Json = self.document["Resources"]
        return found

    def code(self, name: str, text: str, file: str = "app.py") -> Path:
        """Write a file of a function's, at once as `write` does: nobody sees one that is half written."""
        path = self.folder / name.lower() / file
        path.parent.mkdir(parents=True, exist_ok=True)
        made = self.folder / f"{name.lower()}.new"
        made.write_text(textwrap.dedent(text))
        return made.replace(path)

    def function(self, name: str, text: str = "", **properties: Any) -> Self:
        """A function with this as its app.py."""
        if text:
            self.code(name, text)
        variables = properties.pop("Variables", None)
        self.resources[name] = {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": PYTHON,
                "Handler": "app.handler",
                "Code": f"./{name.lower()}",
                "Timeout": 10,
                **({"Environment": {"Variables": variables}} if variables else {}),
                **properties,
            },
        }
        return self

    def api(self, name: str, *, stages: tuple[str, ...] = ("test",), **routes: str) -> Self:
        """An API whose routes call functions and answer with what these return; `connect` is `$connect`."""
        self.resources[name] = {
            "Type": "AWS::ApiGatewayV2::Api",
            "Properties": {
                "Name": name.lower(),
                "ProtocolType": "WEBSOCKET",
                "RouteSelectionExpression": "$request.body.action",
            },
        }
        for stage in stages:
            self.resources[f"{name}{stage.title()}"] = {
                "Type": "AWS::ApiGatewayV2::Stage",
                "Properties": {"ApiId": {"Ref": name}, "StageName": stage, "AutoDeploy": True},
            }
        for key, function in routes.items():
            self.route(name, key, function)
        return self

    def route(self, api: str, key: str, function: str, **properties: Any) -> Self:
        """A route of an API."""
        of = f"{api}{key.title()}"
        own = f"${key}" if key in ("connect", "disconnect", "default") else key
        self.resources[f"{of}Integration"] = {
            "Type": "AWS::ApiGatewayV2::Integration",
            "Properties": {
                "ApiId": {"Ref": api},
                "IntegrationType": "AWS_PROXY",
                "IntegrationUri": {"Fn::Sub": URI % function},
            },
        }
        self.resources[f"{of}Route"] = {
            "Type": "AWS::ApiGatewayV2::Route",
            "Properties": {
                "ApiId": {"Ref": api},
                "RouteKey": own,
                "Target": {"Fn::Sub": f"integrations/${{{of}Integration}}"},
                **({} if own in ("$connect", "$disconnect") else {"RouteResponseSelectionExpression": "$default"}),
                **properties,
            },
        }
        if own not in ("$connect", "$disconnect"):
            self.resources[f"{of}Response"] = {
                "Type": "AWS::ApiGatewayV2::RouteResponse",
                "Properties": {
                    "ApiId": {"Ref": api},
                    "RouteId": {"Ref": f"{of}Route"},
                    "RouteResponseKey": "$default",
                },
            }
        return self

    def write(self) -> Path:
        """Write the template in the way of editors: a new file gets the name of the old one."""
        made = self.path.with_suffix(".new")
        made.write_text(json.dumps(self.document, indent=1))
        made.replace(self.path)
        return self.path


ECHO = """\
    import json, os
    def handler(event, context):
        return {"statusCode": 200, "body": json.dumps({"body": event.get("body"), "context": event["requestContext"]})}
"""
"""A function that says what it got."""


def clean_environment(**more: str) -> dict[str, str]:
    """This process's variables without those that would change what is tested."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "HUBBUB_", "NO_COLOR"))}
    return {**kept, **more}
