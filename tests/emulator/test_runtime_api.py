"""The Runtime API, byte by byte: what runtimes that are not ours may send, and what they get for what is wrong."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator

import pytest

from hubbub.emulator.functions.runtime_api import MAX_PAYLOAD_BYTES, Answer, Delivery, RuntimeApi
from live import BOUND_S, until

PREFIX = "/2018-06-01/runtime"
DELIVERY = Delivery(
    request_id="r1", payload=b'{"a":1}', arn="arn:x", deadline_ms=17, trace_id="Root=1", client_context="{}"
)


class Recorder:
    """Stands behind a Runtime API and writes down what it is told."""

    def __init__(self) -> None:
        self.asks = 0
        self.answers: list[Answer] = []
        self.failures: list[Answer] = []

    def asked(self) -> None:
        self.asks += 1

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)

    def init_failed(self, answer: Answer) -> None:
        self.failures.append(answer)


class Runtime:
    """A runtime's connection, which sends just what a test says."""

    def __init__(self, api: RuntimeApi, host: Recorder) -> None:
        self.api = api
        self.host = host
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> None:
        """Open a connection."""
        host, _, port = self.api.address.partition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))

    async def close(self) -> None:
        """Close it."""
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    def send(self, text: str | bytes) -> None:
        """Send bytes."""
        self._writer.write(text.encode() if isinstance(text, str) else text)

    async def receive(self) -> tuple[int, dict[str, str], bytes]:
        """A response: status, headers, body."""
        async with asyncio.timeout(BOUND_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self._reader.readexactly(int(headers.get("Content-Length", 0)))
        return int(first.split()[1]), headers, body

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """A request and its response's status and body."""
        named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{named}\r\n".encode() + body)
        status, _, said = await self.receive()
        return status, said

    async def given(self) -> None:
        """Ask for an invocation and be given one."""
        asks = self.host.asks
        self.send(f"GET {PREFIX}/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: self.host.asks > asks, "the request for an invocation")
        self.api.give(DELIVERY)
        await self.receive()

    async def is_dropped(self) -> bool:
        """Whether the other end has closed the connection."""
        async with asyncio.timeout(BOUND_S):
            try:
                return await self._reader.read() == b""
            except ConnectionError:
                return True


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    """A runtime that is connected."""
    host = Recorder()
    api = RuntimeApi(host)
    await api.open()
    made = Runtime(api, host)
    await made.connect()
    try:
        yield made
    finally:
        await made.close()
        api.close()


async def test_an_invocation_is_given_to_who_asks(runtime: Runtime) -> None:
    """The request for the next invocation waits until there is one, and gets all of its headers."""
    runtime.send(f"GET {PREFIX}/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: runtime.host.asks == 1, "the request")
    assert runtime.api.is_asked()
    runtime.api.give(DELIVERY)
    status, headers, body = await runtime.receive()
    assert (status, body) == (200, b'{"a":1}')
    assert headers == {
        "Content-Type": "application/json",
        "Content-Length": "7",
        "Lambda-Runtime-Aws-Request-Id": "r1",
        "Lambda-Runtime-Deadline-Ms": "17",
        "Lambda-Runtime-Invoked-Function-Arn": "arn:x",
        "Lambda-Runtime-Trace-Id": "Root=1",
        "Lambda-Runtime-Client-Context": "{}",
    }
    assert not runtime.api.is_asked()
    assert await runtime.ask("POST", f"{PREFIX}/invocation/r1/response", b'"ok"') == (202, b'{"status":"OK"}\n')
    assert runtime.host.answers == [Answer(b'"ok"')]


async def test_nothing_can_be_given_to_a_runtime_that_went(runtime: Runtime) -> None:
    """A runtime that asked and closed its connection does not wait any more."""
    runtime.send(f"GET {PREFIX}/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: runtime.host.asks == 1, "the request")
    await runtime.close()
    await until(lambda: not runtime.api.is_asked(), "the end of the connection")
    with pytest.raises(RuntimeError, match="expected a runtime"):
        runtime.api.give(DELIVERY)
    await runtime.connect()


async def test_a_chunked_response_is_taken_whole(runtime: Runtime) -> None:
    """A response may come in chunks, however they are cut."""
    await runtime.given()
    runtime.send(f"POST {PREFIX}/invocation/r1/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for part in ("3\r\nabc\r\n", "2;x=y\r\nd", "e\r\n0\r\n\r\n"):
        runtime.send(part)
    assert (await runtime.receive())[0] == 202
    assert runtime.host.answers == [Answer(b"abcde")]


@pytest.mark.parametrize(
    ("trailer", "document"),
    [
        ("eyJhIjoxfQ==", b'{"a":1}'),
        ("no base64!", b'{"errorType":"Late","errorMessage":""}'),
        ("", b'{"errorType":"Late","errorMessage":""}'),
    ],
)
async def test_a_streamed_response_may_end_in_an_error(runtime: Runtime, trailer: str, document: bytes) -> None:
    """Trailers make an error of a response that has begun."""
    await runtime.given()
    runtime.send(
        f"POST {PREFIX}/invocation/r1/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        "Lambda-Runtime-Function-Response-Mode: streaming\r\nTrailer: Lambda-Runtime-Function-Error-Type\r\n\r\n"
        "3\r\nabc\r\n0\r\nLambda-Runtime-Function-Error-Type: Late\r\n"
        f"Lambda-Runtime-Function-Error-Body: {trailer}\r\n\r\n"
    )
    assert (await runtime.receive())[0] == 202
    assert runtime.host.answers == [Answer(document, "Late")]


async def test_who_waits_for_100_continue_gets_it(runtime: Runtime) -> None:
    """A client that asks whether it may send a body, as curl does, is told so at once."""
    await runtime.given()
    runtime.send(
        f"POST {PREFIX}/invocation/r1/response HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    assert (await runtime.receive())[0] == 100
    runtime.send("ok")
    assert (await runtime.receive())[0] == 202


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_response_that_is_too_long_gets_413(runtime: Runtime, chunked: bool) -> None:
    """Over 6 MB the runtime is told 413, the invocation what was wrong; then the runtime may go on."""
    await runtime.given()
    size = MAX_PAYLOAD_BYTES + 1
    head = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    runtime.send(f"POST {PREFIX}/invocation/r1/response HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n")
    runtime.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size) if chunked else b"x" * size)
    status, _, said = await runtime.receive()
    assert status == 413
    assert said == (
        b'{"errorMessage":"Exceeded maximum allowed payload size (6291556 bytes).","errorType":"RequestEntityTooLarge"}'
    )
    assert runtime.host.answers[0].error_type == "Function.ResponseSizeTooLarge"
    await runtime.given()


@pytest.mark.parametrize(
    ("body", "header", "answer"),
    [
        (b'{"errorType":"A","errorMessage":"m"}', "B", Answer(b'{"errorType":"A","errorMessage":"m"}', "A")),
        (b"no JSON", "B", Answer(b"no JSON", "B")),
        (b"[1]", None, Answer(b"[1]", "Unhandled")),
        (b"", "B", Answer(b'{"errorType":"B","errorMessage":""}', "B")),
    ],
)
async def test_an_error_has_the_type_that_it_says(
    runtime: Runtime, body: bytes, header: str | None, answer: Answer
) -> None:
    """The type is in the document, else in the header; the document is passed on as it is."""
    await runtime.given()
    headers = {"Lambda_Runtime_Function_Error_Type": header} if header else {}
    assert (await runtime.ask("POST", f"{PREFIX}/invocation/r1/error", body, **headers))[0] == 202
    assert runtime.host.answers == [answer]
    assert (await runtime.ask("POST", f"{PREFIX}/init/error", body, **headers))[0] == 202
    assert runtime.host.failures == [answer]


async def test_an_invocation_is_answered_once_and_by_its_id(runtime: Runtime) -> None:
    """Another id, and a second answer, are errors; so is asking for more before answering."""
    await runtime.given()
    wrong = b'{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}'
    assert await runtime.ask("POST", f"{PREFIX}/invocation/r2/response", b"1") == (400, wrong)
    status, said = await runtime.ask("GET", f"{PREFIX}/invocation/next")
    assert status == 403
    assert b"InvalidStateTransition" in said
    assert (await runtime.ask("POST", f"{PREFIX}/invocation/r1/response", b"1"))[0] == 202
    assert await runtime.ask("POST", f"{PREFIX}/invocation/r1/error", b"1") == (400, wrong)
    assert runtime.host.answers == [Answer(b"1")]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{PREFIX}/restore/next", 200),
        ("POST", f"{PREFIX}/restore/error", 202),
        ("GET", f"{PREFIX}/invocation/next/", 404),
        ("POST", f"{PREFIX}/invocation/next", 404),
        ("POST", "/2020-01-01/extension/register", 404),
        ("GET", "/", 404),
    ],
)
async def test_other_paths_have_an_answer(runtime: Runtime, method: str, path: str, status: int) -> None:
    """SnapStart's paths are there, those of extensions and unknown ones are not."""
    assert (await runtime.ask(method, path, b"{}"))[0] == status


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\nA: " + b"x" * 3_000_000, b"GET\r\n\r\n"]
)
async def test_what_is_no_request_is_dropped(runtime: Runtime, garbage: bytes) -> None:
    """Garbage and endless heads end the connection, and another works."""
    runtime.send(garbage)
    assert await runtime.is_dropped()
    await runtime.close()
    await runtime.connect()
    await runtime.given()


async def test_a_connection_that_asks_to_be_closed_is(runtime: Runtime) -> None:
    """Clients that open a connection for each request are served and let go."""
    runtime.send(f"GET {PREFIX}/invocation/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await until(lambda: runtime.host.asks == 1, "the request")
    runtime.api.give(DELIVERY)
    assert (await runtime.receive())[2] == b'{"a":1}'
    assert await runtime.is_dropped()
    await runtime.close()
    await runtime.connect()
    assert (await runtime.ask("POST", f"{PREFIX}/invocation/r1/response", b"1", Connection="close"))[0] == 202
    assert await runtime.is_dropped()


# The end


@pytest.mark.parametrize("ticks", range(8))
def test_who_comes_at_the_very_end_is_dropped(ticks: int) -> None:
    """A connection that is accepted just before the end, and told of just after it, is closed as well."""

    async def story() -> None:
        api = RuntimeApi(Recorder())
        await api.open()
        host, _, port = api.address.partition(":")
        with socket.create_connection((host, int(port)), BOUND_S):
            for _ in range(ticks):
                await asyncio.sleep(0)
            api.close()
            for _ in range(4):
                await asyncio.sleep(0)

    asyncio.run(story())
    gc.collect()  # what was left open is found now, and fails this test
