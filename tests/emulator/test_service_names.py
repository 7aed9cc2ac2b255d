"""AWS's own names for its services: SDKs that heed no `AWS_ENDPOINT_URL` reach the services here all the same."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import hubbub.emulator.functions.bootstrap as bootstrap
from hubbub.emulator.service_names import ServiceNames, service_of
from hubbub.emulator.trust import Authority
from live import BOUND_S
from nodejs import NODE

NETWORK = Path(bootstrap.__file__).parent / "node" / "network.mjs"


@pytest.mark.parametrize(
    ("host", "service"),
    [
        ("dynamodb.eu-west-1.amazonaws.com", "dynamodb"),
        ("DynamoDB.us-gov-west-1.amazonaws.com:443", "dynamodb"),
        ("streams.dynamodb.us-east-1.amazonaws.com", "dynamodb"),
        ("pictures.of.cats.s3.eu-central-1.amazonaws.com", "s3"),
        ("s3.amazonaws.com", "s3"),
        ("sts.amazonaws.com", "sts"),
        ("sqs.cn-north-1.amazonaws.com.cn", "sqs"),
        ("amazonaws.com", None),
        ("us-east-1.amazonaws.com", None),
        ("dynamodb.us-east-1.amazonaws.com.evil.example", None),
        ("localhost", None),
    ],
)
def test_a_name_of_awss_says_which_service_is_meant(host: str, service: str | None) -> None:
    """Regions, buckets and streams are not part of it; other names mean none."""
    assert service_of(host) == service


@asynccontextmanager
async def backend(name: str) -> AsyncIterator[str]:
    """An HTTP server that says its name, and what it was asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            length = next((int(x.split(":")[1]) for x in head.split("\r\n") if x.lower().startswith("content-le")), 0)
            asked = (await reader.readexactly(length)).decode()
            body = f"{name} {head.split()[1]} {asked}".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

    async def until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the function has gone
        finally:
            writer.close()

    server = await asyncio.start_server(until_gone, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def names() -> AsyncIterator[tuple[ServiceNames, Authority]]:
    """AWS's names, in front of a DynamoDB and of everything else."""
    with Authority() as authority:
        async with backend("dynamodb") as tables, backend("others") as others:
            urls = {"dynamodb": tables}
            async with ServiceNames(authority.service_context, lambda service: urls.get(service, others)) as made:
                yield made, authority


SCRIPT = """
import "%s";
const said = [];
for (const [service, path] of [["dynamodb", "/one"], ["sqs", "/two"], ["dynamodb", "/three"]]) {
  const answer = await fetch(`https://${service}.eu-west-1.amazonaws.com${path}`, { method: "POST", body: "hello" });
  said.push(await answer.text());
}
console.log(said.join("|"));
"""


async def test_node_functions_reach_services_by_awss_names(
    names: tuple[ServiceNames, Authority], tmp_path: Path
) -> None:
    """Over TLS that they check, each service at its own place, several requests on one connection."""
    made, authority = names
    script = tmp_path / "script.mjs"
    script.write_text(SCRIPT % NETWORK.as_uri())
    environment = {"PATH": os.environ["PATH"], "_HUBBUB_AWS": made.address, **authority.environment()}
    process = await asyncio.create_subprocess_exec(
        str(NODE), str(script), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), BOUND_S)
    assert process.returncode == 0, errors.decode()
    assert output.decode().strip() == "dynamodb /one hello|others /two hello|dynamodb /three hello"


async def test_names_that_are_not_awss_are_cut_off(names: tuple[ServiceNames, Authority]) -> None:
    """Whatever the certificate said: the request's own host decides, and nothing answers for others."""
    made, authority = names
    host, _, port = made.address.rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=authority.client_context(), server_hostname="dynamodb.eu-west-1.amazonaws.com"
    )
    writer.write(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
    with contextlib.suppress(ConnectionError, ssl.SSLError):  # cut off without a farewell
        assert await asyncio.wait_for(reader.read(), BOUND_S) == b""
    writer.close()


def test_who_comes_at_the_very_end_is_dropped() -> None:
    """A connection that is accepted just before the end is closed as well, whatever has begun for it."""

    async def story(authority: Authority, ticks: int) -> None:
        async with ServiceNames(authority.service_context, lambda service: "http://127.0.0.1:1") as made:
            host, _, port = made.address.rpartition(":")
            name = "dynamodb.eu-west-1.amazonaws.com"
            opening = asyncio.ensure_future(
                asyncio.open_connection(host, int(port), ssl=authority.client_context(), server_hostname=name)
            )
            for _ in range(ticks):
                await asyncio.sleep(0)
        for outcome in await asyncio.gather(opening, return_exceptions=True):
            if isinstance(outcome, tuple):
                outcome[1].transport.abort()

    with Authority() as authority:
        for ticks in range(30):
            asyncio.run(story(authority, ticks))
            gc.collect()  # what was left open is found now, and fails this test
