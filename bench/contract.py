"""What the contract costs beyond a chat of one's own: `python -m bench.contract`.

Messages a second through a function in the gateway's process, an HTTP endpoint and a warm Lambda function in Python.
Posts to `@connections` a second from boto3 and from a bare HTTP client. One post to a group of 1,000 beside 1,000
posts. Servers run in processes of their own; wall time, since the other ends are part of what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import uvloop
from botocore.config import Config

from bench import saving
from bench.load import Client, Server, connect, connect_many, free_port, running, until
from hubbub import ManagementClient
from hubbub.sigv4 import Credentials, sign

IN_FLIGHT = 16
"""How many messages are under way at a time: enough to keep a server busy, and few enough to tell what one costs."""

KEYS = Credentials("bench", "a secret that only these benches know")

BODY = b"x" * 200

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Api:
    Type: AWS::ApiGatewayV2::Api
    Properties: {Name: bench, ProtocolType: WEBSOCKET, RouteSelectionExpression: $request.body.action}
  Route:
    Type: AWS::ApiGatewayV2::Route
    Properties:
      ApiId: !Ref Api
      RouteKey: $default
      RouteResponseSelectionExpression: $default
      Target: !Sub integrations/${Integration}
  Answer:
    Type: AWS::ApiGatewayV2::RouteResponse
    Properties: {ApiId: !Ref Api, RouteId: !Ref Route, RouteResponseKey: $default}
  Integration:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref Api
      IntegrationType: AWS_PROXY
      IntegrationUri: !Sub arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${Echo.Arn}/invocations
  Stage:
    Type: AWS::ApiGatewayV2::Stage
    Properties: {ApiId: !Ref Api, StageName: bench, AutoDeploy: true}
  Echo:
    Type: AWS::Serverless::Function
    Properties: {Runtime: python3.11, Handler: app.handler, CodeUri: ., MemorySize: 128, Timeout: 20}
"""

FUNCTION = "def handler(event, context):\n    return {'statusCode': 200, 'body': event['body']}\n"

IN_PROCESS = """
import sys
import uvicorn
from hubbub.apigateway import Api, Event, Response, Route
from hubbub.gateway import Gateway, Hub
from hubbub.sigv4 import Keys

async def echo(event: Event) -> Response:
    return Response(body=event.request_context.connection_id if event.body == "who" else event.body)

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})

api = Api(routes={"$default": Route(echo, two_way=True)})
gateway = Gateway(api, hub=Hub(), keys=Keys({sys.argv[2]: sys.argv[3]}))
uvicorn.Server(gateway.config(app, port=int(sys.argv[1]))).run()
"""


class Echo(BaseHTTPRequestHandler):
    """An HTTP endpoint that answers with the body of the message that it is told of."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment

    def do_POST(self) -> None:
        """Answer an event."""
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = (event.get("body") or "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextmanager
def endpoint() -> Iterator[str]:
    """Python's own HTTP server with a thread for each connection, as a stand-in for somebody's web backend."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@asynccontextmanager
async def handler_server() -> AsyncIterator[Server]:
    """`hubbub serve --handler` before such an endpoint."""
    with endpoint() as url:
        port = free_port()
        command = [sys.executable, "-m", "hubbub", "serve", "--handler", url, "--port", str(port)]
        async with running(command, port, f"ws://127.0.0.1:{port}/ws", {"HUBBUB_DRAIN_S": "0"}) as server:
            yield server


@asynccontextmanager
async def in_process_server() -> AsyncIterator[Server]:
    """A gateway with a function in its own process, and `@connections`."""
    port = free_port()
    command = [sys.executable, "-c", IN_PROCESS, str(port), KEYS.access_key, KEYS.secret_key]
    async with running(command, port, f"ws://127.0.0.1:{port}/ws", {}) as server:
        yield server


@asynccontextmanager
async def lambda_server() -> AsyncIterator[Server]:
    """`hubbub local` with one function in Python."""
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
        Path(folder, "template.yaml").write_text(TEMPLATE)
        Path(folder, "app.py").write_text(FUNCTION)
        port = free_port()
        command = [sys.executable, "-m", "hubbub", "local", folder, "--once", "--port", str(port)]
        async with running(command, port, f"ws://127.0.0.1:{port}/bench", {}, pinned=False) as server:
            yield server


async def events_per_s(server: Server, seconds: float) -> float:
    """Messages that were answered in a second, on one connection each, `IN_FLIGHT` at a time."""
    clients = await connect_many(server, [None] * IN_FLIGHT)
    answered = 0
    ends_at = time.perf_counter() + seconds

    def drive(client: Client) -> None:
        def next_one(reply: bytes) -> None:
            nonlocal answered
            if reply != BODY:
                raise RuntimeError(f"expected what was sent, got {reply!r}")
            answered += 1
            if time.perf_counter() < ends_at:
                client.send(BODY)

        client.on_frame = next_one
        client.send(BODY)

    for client in clients:
        drive(client)
    await asyncio.sleep(seconds)
    rate = answered / seconds
    await asyncio.sleep(0.3)
    for client in clients:
        assert client.transport is not None
        client.transport.disconnect()
    return rate


async def id_of(client: Client) -> str:
    """A connection's id, which the function tells."""
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    client.on_frame = told.set_result
    client.send(b"who")
    connection = (await told).decode()
    client.on_frame = None
    return connection


def post_with_boto3(url: str, connection: str, seconds: float, threads: int) -> float:
    """Posts a second from one process with boto3, one after the other in each of its threads."""
    options = Config(max_pool_connections=threads, retries={"max_attempts": 1})
    client = boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEYS.access_key,
        aws_secret_access_key=KEYS.secret_key,
        config=options,
    )
    counts = [0] * threads
    ends_at = time.perf_counter() + seconds

    def post(n: int) -> None:
        while time.perf_counter() < ends_at:
            client.post_to_connection(ConnectionId=connection, Data=BODY)
            counts[n] += 1

    workers = [threading.Thread(target=post, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / seconds


def post_raw(url: str, connection: str, seconds: float) -> float:
    """Posts a second from a bare HTTP client: signed once, written to one socket, `IN_FLIGHT` at a time."""
    target = f"{url}/@connections/{connection.replace('=', '%3D')}"
    parts = urlsplit(target)
    signed = sign(
        KEYS,
        method="POST",
        url=target,
        headers={},
        body=BODY,
        service="execute-api",
        region="us-east-1",
        now_s=time.time(),
    )
    fields = {"Host": parts.netloc, **signed, "Content-Length": str(len(BODY))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    request = f"POST {parts.path} HTTP/1.1\r\n{lines}\r\n".encode() + BODY
    done = 0
    with socket.create_connection((parts.hostname or "", parts.port or 80)) as connected:
        answers = connected.makefile("rb")
        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            connected.sendall(request * IN_FLIGHT)
            for _ in range(IN_FLIGHT):
                status = answers.readline()
                if b" 200 " not in status:
                    raise RuntimeError(f"expected 200, got {status!r}")
                length = 0
                while (line := answers.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                answers.read(length)
                done += 1
    return done / seconds


async def to_a_thousand(server: Server, url: str, rounds: int) -> tuple[float, float]:
    """Milliseconds until 1,000 connections have one body: by a post to their group, and by a post to each."""
    clients = await connect_many(server, [None] * 1_000)
    ids = [await id_of(client) for client in clients]
    by_group: list[float] = []
    one_by_one: list[float] = []

    async def all_have_it(before: list[int]) -> None:
        await until(lambda: all(c.frames > n for c, n in zip(clients, before, strict=True)))

    async with ManagementClient(url, KEYS, region="us-east-1") as management:
        for connection in ids:
            await management.join("bench", connection)
        for _ in range(rounds):
            before = [client.frames for client in clients]
            started = time.perf_counter()
            await management.publish("bench", BODY)
            await all_have_it(before)
            by_group.append(time.perf_counter() - started)
            before = [client.frames for client in clients]
            started = time.perf_counter()
            gate = asyncio.Semaphore(IN_FLIGHT)

            async def post(connection: str, gate: asyncio.Semaphore = gate) -> None:
                async with gate:
                    await management.post(connection, BODY)

            await asyncio.gather(*[post(connection) for connection in ids])
            await all_have_it(before)
            one_by_one.append(time.perf_counter() - started)
    return statistics.median(by_group) * 1e3, statistics.median(one_by_one) * 1e3


async def main(rounds: int, seconds: float) -> dict[str, object]:
    """Print the tables, and return what they say."""
    events: list[dict[str, object]] = []
    posted: list[dict[str, object]] = []
    servers: dict[str, Callable[[], AbstractAsyncContextManager[Server]]] = {
        "in the gateway's process": in_process_server,
        "HTTP endpoint (http.server)": handler_server,
        "Python Lambda, warm": lambda_server,
    }
    print(f"{'function':<30}  {'events/s':>9}  (medians of {rounds}, {IN_FLIGHT} in flight)")
    for name, make in servers.items():
        async with make() as server:
            await events_per_s(server, 1)
            rates = [await events_per_s(server, seconds) for _ in range(rounds)]
        print(f"{name:<30}  {statistics.median(rates):>9,.0f}", flush=True)
        events.append({"function": name, "per_s": statistics.median(rates)})
    async with in_process_server() as server:
        url = f"http://127.0.0.1:{server.port}/ws"
        client = await connect(server)
        connection = await id_of(client)
        posts = {
            "boto3, 1 thread": lambda: post_with_boto3(url, connection, seconds, 1),
            "boto3, 10 threads": lambda: post_with_boto3(url, connection, seconds, 10),
            f"bare HTTP, {IN_FLIGHT} in flight": lambda: post_raw(url, connection, seconds),
        }
        print(f"\n{'one process posts with':<30}  {'posts/s':>9}  {'server CPU us each':>18}")
        for name, post in posts.items():
            figures = []
            for _ in range(rounds):
                cpu = server.cpu_s()
                rate = await asyncio.to_thread(post)
                figures.append((rate, (server.cpu_s() - cpu) / (rate * seconds) * 1e6))
            rate, cpu = (statistics.median(column) for column in zip(*figures, strict=True))
            print(f"{name:<30}  {rate:>9,.0f}  {cpu:>18.1f}", flush=True)
            posted.append({"client": name, "per_s": rate, "cpu_us": cpu})
        by_group, one_by_one = await to_a_thousand(server, url, rounds)
        print(f"\none body to 1,000 connections: {by_group:,.1f} ms by one post to their group,")
        print(f"{one_by_one:,.1f} ms by 1,000 posts, {IN_FLIGHT} at a time: {one_by_one / by_group:,.0f} times as long")
    thousand = {"by_group_ms": by_group, "one_by_one_ms": one_by_one}
    return {"events": events, "posts": posted, "to_a_thousand": thousand}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    saving.add_argument(parser)
    chosen = parser.parse_args()
    figures = uvloop.run(main(chosen.rounds, chosen.seconds))
    if chosen.save:
        saving.save("contract", figures)
