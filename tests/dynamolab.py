"""Real DynamoDB servers for tests: moto's in a process of its own, and Amazon's DynamoDB Local where it can be had.

A suite can be parametrised over `SERVERS` by a fixture of its conftest:

    from dynamolab import SERVERS, Server, fresh_table, running

    @pytest.fixture(scope="session", params=SERVERS)
    def dynamodb(request: pytest.FixtureRequest) -> Iterator[Server]:
        with running(request.param) as server:
            yield server

    async def test_something(dynamodb: Server) -> None:
        async with fresh_table(dynamodb) as table:
            await table.put({"pk": "a", "sk": "b"})
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import IO, NamedTuple

import pytest

from hubbub.aws.credentials import Fixed
from hubbub.aws.http import HttpClient
from hubbub.aws.service import Service
from hubbub.aws.table import Table
from hubbub.emulator.resources import dynamodb_local
from hubbub.emulator.resources.backends import MOTO
from hubbub.sigv4 import Credentials

SERVERS = ("moto", "dynamodb-local")
"""Names for `running`."""

REGION = "us-east-1"
KEYS = Credentials("test", "test")

WITHIN_S = 90.0
"""How long a server may take to answer."""

PATIENCE_S = 60.0
"""How long a call may take: a busy machine is no defect."""

_numbers = count(1)


class Server(NamedTuple):
    """A server of DynamoDB's API.

    Attributes:
        url: where it is.
        name: which it is: one of `SERVERS`.

    """

    url: str
    name: str


@contextmanager
def running(name: str) -> Iterator[Server]:
    """One of `SERVERS` for the length of a block; skips the test, and says what is missing, if it is not here."""
    with _moto() if name == "moto" else _dynamodb_local() as url:
        yield Server(url, name)


def service(http: HttpClient, server: Server) -> Service:
    """A client of a server."""
    return Service(
        http, "dynamodb", region=REGION, credentials=Fixed(KEYS), endpoint=server.url, environment={}, try_s=PATIENCE_S
    )


@asynccontextmanager
async def fresh_table(server: Server, *, measure: bool = False) -> AsyncIterator[Table]:
    """An empty table that nobody else uses, with an HTTP client of its own, for the length of a block."""
    async with HttpClient() as http:
        table = Table(
            service(http, server), f"test-{os.getpid()}-{next(_numbers)}", measure=measure, deadline_s=PATIENCE_S
        )
        await table.create()
        yield table
        await table.drop()


@contextmanager
def _moto() -> Iterator[str]:
    """Moto on a socket that listens before it runs: who calls early waits."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        command = [sys.executable, "-P", str(MOTO), str(listener.fileno())]
        with _process(command, listener.fileno()):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def _dynamodb_local() -> Iterator[str]:
    # tests/conftest.py sets an empty setting, for all tests but these.
    folder = dynamodb_local.find({name: value for name, value in os.environ.items() if value})
    if folder is None:
        pytest.skip("DynamoDB Local is not here, so nothing is known of it: run scripts/dynamodb-local")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with _process(dynamodb_local.command(folder, port)) as (process, output):
        deadline = time.monotonic() + WITHIN_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() >= deadline:
                output.seek(0)
                said = output.read()[-4_000:].decode(errors="replace")
                pytest.fail(f"DynamoDB Local does not answer; it has ended with {process.poll()}, and said: {said!r}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _process(command: Sequence[str], *passed: int) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MOTO_"))}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**kept, **dynamodb_local.ENVIRONMENT}, pass_fds=passed
        )
        try:
            yield process, output
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
