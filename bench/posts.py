"""What a post to `@connections` costs whoever makes it: `python -m bench.posts`.

Posts per second of the client's CPU time, from one process with each of several HTTP clients and signers, against our
own gateway, which checks each signature. Each runs in a process of its own, in turn, round after round, so that what
else the machine does falls on all alike. And what importing each client costs. awscrt is measured if it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import uvloop

from bench import saving
from bench.contract import BODY, KEYS, id_of, in_process_server
from bench.load import connect

REGION = "us-east-1"
SERVICE = "execute-api"

IN_FLIGHT = 50
"""How many posts are under way at a time from the clients that are asynchronous."""

WARM_S = 0.5

Post = Callable[[str], Awaitable[None]]


def main(rounds: int, seconds: float) -> dict[str, object]:
    """Print the tables, and return what they say."""
    return {"posts": uvloop.run(_posts(rounds, seconds)), "imports": _imports(rounds)}


async def _posts(rounds: int, seconds: float) -> list[dict[str, object]]:
    said: list[dict[str, object]] = []
    names = [name for name in CLIENTS if "awscrt" not in name or find_spec("awscrt")]
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    async with in_process_server() as server:
        url = f"http://127.0.0.1:{server.port}/ws"
        connection = await id_of(await connect(server))
        for _ in range(rounds):
            for name in names:
                figures[name].append(await asyncio.to_thread(_in_a_process, name, url, connection, seconds))
    print(f"{'one process posts with':<44}  {'posts/CPU-s':>11}  {'posts/s':>8}  (medians of {rounds})")
    for name, rows in figures.items():
        per_cpu_s, per_s = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:<44}  {per_cpu_s:>11,.0f}  {per_s:>8,.0f}", flush=True)
        said.append({"client": name, "per_cpu_s": per_cpu_s, "per_s": per_s})
    return said


def _in_a_process(name: str, url: str, connection: str, seconds: float) -> tuple[float, float]:
    command = [sys.executable, "-m", "bench.posts", "--one", name, url, connection, "--seconds", str(seconds)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds + 60).stdout
    per_cpu_s, per_s = json.loads(said)
    return per_cpu_s, per_s


# One client, in a process of its own


def one(name: str, url: str, connection: str, seconds: float) -> tuple[float, float]:
    """Posts per second of CPU time, and of the clock, with the client of that name."""
    client, loop_factory = CLIENTS[name]
    if loop_factory is None:
        return client(url, connection, seconds)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_asynchronously(client, url, connection, seconds))


async def _asynchronously(client: Any, url: str, connection: str, seconds: float) -> tuple[float, float]:
    async with client(url) as post:
        count = 0
        ends_at = 0.0

        async def drive() -> None:
            nonlocal count
            while time.perf_counter() < ends_at:
                await post(connection)
                count += 1

        async def drive_all(for_s: float) -> None:
            nonlocal ends_at
            ends_at = time.perf_counter() + for_s
            await asyncio.gather(*[drive() for _ in range(IN_FLIGHT)])

        await drive_all(WARM_S)
        count, cpu, began = 0, time.process_time(), time.perf_counter()
        await drive_all(seconds)
        return count / (time.process_time() - cpu), count / (time.perf_counter() - began)


@asynccontextmanager
async def _hubbub(url: str) -> AsyncIterator[Post]:
    from hubbub.aws.credentials import Fixed
    from hubbub.aws.http import HttpClient
    from hubbub.aws.service import Service

    async with HttpClient() as http:
        service = Service(http, SERVICE, region=REGION, credentials=Fixed(KEYS), endpoint=url)

        async def post(connection: str) -> None:
            path = f"/@connections/{connection.replace('=', '%3D')}"
            answer = await service.send("POST", path, body=BODY, timeout_s=5)
            _check(answer.status)

        yield post


@asynccontextmanager
async def _hubbub_awscrt(url: str) -> AsyncIterator[Post]:
    from awscrt import auth, http

    from hubbub.aws.http import HttpClient

    provider = auth.AwsCredentialsProvider.new_static(KEYS.access_key, KEYS.secret_key)
    begin = url.index("/", len("https://"))
    host = url[:begin].partition("://")[2]

    async with HttpClient() as client:

        async def post(connection: str) -> None:
            target = f"{url}/@connections/{connection.replace('=', '%3D')}"
            fields = http.HttpHeaders([("Host", host)])
            request = http.HttpRequest("POST", target[begin:], fields, BytesIO(BODY))
            config = auth.AwsSigningConfig(
                auth.AwsSigningAlgorithm.V4,
                auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
                credentials_provider=provider,
                region=REGION,
                service=SERVICE,
            )
            auth.aws_sign_request(request, config).result()  # at once, where the credentials are there
            fields.remove("Host")
            answer = await client.request("POST", target, headers=list(fields), body=BODY, timeout_s=5)
            _check(answer.status)

        yield post


@asynccontextmanager
async def _aiohttp(url: str) -> AsyncIterator[Post]:
    import aiohttp
    import yarl

    from hubbub.sigv4 import sign

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:

        async def post(connection: str) -> None:
            target = f"{url}/@connections/{connection.replace('=', '%3D')}"
            signed = sign(
                KEYS,
                method="POST",
                url=target,
                headers={},
                body=BODY,
                service=SERVICE,
                region=REGION,
                now_s=time.time(),
            )
            async with session.post(yarl.URL(target, encoded=True), headers=signed, data=BODY) as answer:
                await answer.read()
                _check(answer.status)

        yield post


@asynccontextmanager
async def _management(url: str) -> AsyncIterator[Post]:
    from hubbub import ManagementClient

    async with ManagementClient(url, KEYS, region=REGION) as client:

        async def post(connection: str) -> None:
            await client.post(connection, BODY)

        yield post


def _boto3(threads: int) -> Callable[[str, str, float], tuple[float, float]]:
    def run(url: str, connection: str, seconds: float) -> tuple[float, float]:
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "apigatewaymanagementapi",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=KEYS.access_key,
            aws_secret_access_key=KEYS.secret_key,
            config=Config(max_pool_connections=threads, retries={"max_attempts": 1}),
        )

        def posted(for_s: float) -> int:
            counts = [0] * threads
            ends_at = time.perf_counter() + for_s

            def post(n: int) -> None:
                while time.perf_counter() < ends_at:
                    client.post_to_connection(ConnectionId=connection, Data=BODY)
                    counts[n] += 1

            workers = [threading.Thread(target=post, args=(n,)) for n in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            return sum(counts)

        posted(WARM_S)
        cpu, began = time.process_time(), time.perf_counter()
        count = posted(seconds)
        return count / (time.process_time() - cpu), count / (time.perf_counter() - began)

    return run


def _check(status: int) -> None:
    if status != 200:
        raise RuntimeError(f"expected 200, got {status}")


CLIENTS: dict[str, tuple[Any, Any]] = {
    "hubbub.aws, signed by hubbub.sigv4, uvloop": (_hubbub, uvloop.new_event_loop),
    "hubbub.aws, signed by hubbub.sigv4, asyncio": (_hubbub, asyncio.new_event_loop),
    "hubbub.aws, signed by awscrt, uvloop": (_hubbub_awscrt, uvloop.new_event_loop),
    "aiohttp, signed by hubbub.sigv4, uvloop": (_aiohttp, uvloop.new_event_loop),
    "ManagementClient, uvloop": (_management, uvloop.new_event_loop),
    "boto3, 10 threads": (_boto3(10), None),
    "boto3, 50 threads": (_boto3(50), None),
}


# What importing costs

IMPORTS = {
    "hubbub.aws, ready for DynamoDB": (
        "from hubbub.aws import credentials, http, service, table\n"
        "h = http.HttpClient()\n"
        "s = service.Service(h, 'dynamodb', region='us-east-1', credentials=credentials.find())\n"
        "t = table.Table(s, 'chat')\n"
    ),
    "boto3, a client of DynamoDB": "import boto3\nboto3.client('dynamodb', region_name='us-east-1')\n",
    "boto3, a client of DynamoDB and one to post": (
        "import boto3\nboto3.client('dynamodb', region_name='us-east-1')\n"
        "boto3.client('apigatewaymanagementapi', region_name='us-east-1', endpoint_url='https://x')\n"
    ),
}


def _imports(rounds: int) -> list[dict[str, object]]:
    """Milliseconds of CPU time until a client is ready, beyond those of an empty process with asyncio."""
    print(f"\n{'until it is ready':<44}  {'CPU ms':>11}  (medians of {rounds})")
    figures: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, code in IMPORTS.items():
            figures[name].append(_ready_ms(code))
    for name, row in figures.items():
        print(f"{name:<44}  {statistics.median(row):>11,.0f}", flush=True)
    return [{"client": name, "cpu_ms": statistics.median(row)} for name, row in figures.items()]


def _ready_ms(code: str) -> float:
    measured = f"import asyncio, time\nbegan = time.process_time()\n{code}print((time.process_time() - began) * 1e3)"
    keys = {"AWS_ACCESS_KEY_ID": KEYS.access_key, "AWS_SECRET_ACCESS_KEY": KEYS.secret_key}
    said = subprocess.run(
        [sys.executable, "-c", measured], check=True, stdout=subprocess.PIPE, env={**os.environ, **keys}
    ).stdout
    return float(said)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--one", nargs=3, metavar=("CLIENT", "URL", "CONNECTION"), help=argparse.SUPPRESS)
    saving.add_argument(parser)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(one(*chosen.one, chosen.seconds)))
    else:
        found = main(chosen.rounds, chosen.seconds)
        if chosen.save:
            saving.save("posts", found)
