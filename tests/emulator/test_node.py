"""Node.js functions: what Lambda's own runtime promises them, and connections that are led to the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from functionlab import Lab, Source, running

from hubbub.emulator.definition import Function
from live import until
from nodejs import NODE

RUNTIME = "nodejs22.x"


@pytest.fixture(autouse=True)
def node_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Node.js that the tests bring is the one on PATH."""
    folder = tmp_path / "node-bin"
    folder.mkdir()
    (folder / "node").symlink_to(NODE)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def node(source: Source, code: str = "", *, file: str = "app.js", **fields: Any) -> Function:
    """A Node.js function; `code` becomes its app.js."""
    if code:
        source.write(file, code)
    return source.function(**{"runtime": RUNTIME, "timeout_s": 20.0, "memory_mb": 256, **fields})


async def test_an_async_handler_returns(source: Source) -> None:
    """What the promise gives is the response; the context says what AWS's says."""
    function = node(
        source,
        """
        exports.handler = async (event, context) => ({
          event,
          id: context.awsRequestId,
          arn: context.invokedFunctionArn,
          name: [context.functionName, context.functionVersion, context.memoryLimitInMB, context.logGroupName],
          left: context.getRemainingTimeInMillis(),
          custom: context.clientContext.custom,
          trace: process.env._X_AMZN_TRACE_ID,
          cwd: process.cwd(),
        });
        """,
    )
    async with running(function) as lab:
        got = await lab.result({"ü": 1}, request_id="it", trace_id="Root=1-a", client_context='{"custom": "ä"}')
        assert 0 < got.pop("left") <= 20_000
        assert got == {
            "event": {"ü": 1},
            "id": "it",
            "arn": "arn:aws:lambda:us-east-1:123456789012:function:worker",
            "name": ["worker", "$LATEST", "256", "/aws/lambda/worker"],
            "custom": "ä",
            "trace": "Root=1-a",
            "cwd": str(source.folder),
        }
        warm = await lab.invoke({}, client_context='{"custom": 1}')
        assert warm.init_ms is None


@pytest.mark.parametrize(
    ("code", "response"),
    [
        ("async () => {}", None),
        ("async () => 'text'", "text"),
        ("() => Promise.resolve(1)", 1),
        ("(event, context, callback) => callback(null, 2)", 2),
        ("(event, context, callback) => setTimeout(() => callback(null, 3), 5)", 3),
        ("(event, context, callback) => { callback(null, 4); callback(new Error('late')); }", 4),
        ("(event, context) => context.succeed(5)", 5),
        ("(event, context) => context.done(null, 6)", 6),
        ("(event, context, callback) => {}", None),
        # Whoever calls back waits for the event loop to be empty, and what is done there still counts.
        (
            "(event, context, callback) => { const r = { n: 0 }; callback(null, r); setTimeout(() => r.n++, 20); }",
            {"n": 1},
        ),
        (
            """(event, context, callback) => {
              const r = { n: 0 };
              context.callbackWaitsForEmptyEventLoop = false;
              callback(null, r);
              setTimeout(() => r.n++, 600_000);
            }""",
            {"n": 0},
        ),
    ],
)
async def test_a_handler_answers_in_every_way_that_aws_knows(source: Source, code: str, response: object) -> None:
    """Promises, callbacks and the context's functions give the response, and the next invocation gets one too."""
    async with running(node(source, f"exports.handler = {code};")) as lab:
        assert await lab.result({}) == response
        assert await lab.result({}) == response


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("async () => { throw new TypeError('boom'); }", "TypeError", "boom"),
        ("() => { throw new RangeError('now'); }", "RangeError", "now"),
        ("async () => { throw 'text'; }", "string", "text"),
        ("(event, context, callback) => callback(new Error('said'))", "Error", "said"),
        ("(event, context) => context.fail(new Error('failed'))", "Error", "failed"),
        ("(event, context) => context.fail()", "string", "handled"),
        ("async () => ({ big: 1n })", "TypeError", "Do not know how to serialize a BigInt"),
        ("async () => await new Promise(() => {})", "Runtime.NodeJsExit", None),
    ],
)
async def test_an_error_has_its_type_and_stack_and_the_environment_lives_on(
    source: Source, code: str, kind: str, words: str | None
) -> None:
    """What a handler throws, says or never settles is the answer; the process goes on."""
    async with running(node(source, f"exports.handler = {code};")) as lab:
        outcome = await lab.invoke({})
        document = json.loads(outcome.payload)
        assert outcome.error == "Unhandled"
        assert document["errorType"] == kind
        assert words in (None, document["errorMessage"])
        assert isinstance(document["trace"], list)
        assert any("\tERROR\tInvoke Error" in text for text in lab.said("stdout"))
        assert (await lab.invoke({})).init_ms is None


async def test_a_stack_leads_to_the_users_code(source: Source) -> None:
    """An error's trace names the file and line that threw."""
    async with running(node(source, "exports.handler = async () => {\n  throw new Error('here');\n};")) as lab:
        trace = json.loads((await lab.invoke({})).payload)["trace"]
    assert trace[0] == "Error: here"
    assert f"{source.folder}/app.js:2:" in trace[1]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("Promise.reject(new Error('nobody'))", "Runtime.UnhandledPromiseRejection", "Error: nobody"),
        ("setTimeout(() => { throw new Error('later'); }, 1)", "Error", "later"),
    ],
)
async def test_what_nobody_catches_fails_the_invocation_and_ends_the_process(
    source: Source, code: str, kind: str, words: str
) -> None:
    """Unhandled rejections and exceptions are told to the invocation under way; the next is cold."""
    code = f"exports.handler = async (e) => {{ if (e) {{ {code}; await new Promise(r => setTimeout(r, 60_000)); }} }};"
    async with running(node(source, code)) as lab:
        assert await lab.error("x") == (kind, words)
        assert (await lab.invoke(None)).init_ms is not None


async def test_an_exception_between_invocations_costs_none(source: Source) -> None:
    """A process that dies while it waits is replaced, and no invocation fails."""
    code = "exports.handler = async () => { setTimeout(() => { throw new Error('between'); }, 10); return 1; };"
    async with running(node(source, code)) as lab:
        assert await lab.result() == 1
        await until(lambda: not lab.functions.environments("worker"), "the end of the process")
        assert await lab.result() == 1


@pytest.mark.parametrize(
    ("files", "handler"),
    [
        ({"src/deep/app.js": "exports.handler = async () => 'found'"}, "src/deep/app.handler"),
        ({"app.cjs": "exports.handler = async () => 'found'"}, "app.handler"),
        ({"app.mjs": "export const handler = async () => 'found'"}, "app.handler"),
        ({"app.mjs": "export default { on: { message: async () => 'found' } }"}, "app.default.on.message"),
        ({"package.json": '{"type": "module"}', "app.js": "export const handler = async () => 'found'"}, "app.handler"),
        (
            {"app.js": "exports.handler = async () => 'found'", "app.mjs": "export const handler = async () => 'no'"},
            "app.handler",
        ),
        ({"app/index.js": "exports.handler = async () => 'found'"}, "app.handler"),
        (
            {"app.mjs": "const v = await Promise.resolve('found'); export const handler = async () => v"},
            "app.handler",
        ),
        (
            {
                "app.mjs": "import { v } from 'lib'; export const handler = async () => v",
                "node_modules/lib/package.json": '{"name": "lib", "exports": "./l.mjs"}',
                "node_modules/lib/l.mjs": "export const v = 'found'",
            },
            "app.handler",
        ),
    ],
)
async def test_a_handler_is_found_where_lambda_finds_it(source: Source, files: dict[str, str], handler: str) -> None:
    """CommonJS and ES modules, in subfolders, nested exports, with top-level await."""
    for name, text in files.items():
        source.write(name, text)
    async with running(node(source, handler=handler)) as lab:
        assert await lab.result() == "found"


@pytest.mark.parametrize(
    ("file", "text", "handler", "kind", "words"),
    [
        ("app.js", "require('nope')", "app.handler", "Runtime.ImportModuleError", "Cannot find module 'nope'"),
        ("other.js", "", "app.handler", "Runtime.ImportModuleError", "Cannot find module './app'"),
        ("app.js", "exports.handler = (", "app.handler", "Runtime.UserCodeSyntaxError", "SyntaxError"),
        ("app.js", "throw new RangeError('at load')", "app.handler", "RangeError", "at load"),
        ("app.mjs", "await Promise.reject(new Error('late'))", "app.handler", "Error", "late"),
        ("app.js", "", "app.handler", "Runtime.HandlerNotFound", "app.handler is undefined or not exported"),
        ("app.js", "exports.handler = 1", "app.handler", "Runtime.HandlerNotFound", "app.handler is not a function"),
        ("app.js", "", "app", "Runtime.MalformedHandlerName", "Bad handler 'app'"),
        ("app.js", "", "../app.handler", "Runtime.MalformedHandlerName", "is not a valid handler name"),
        ("app.ts", "", "app.handler", "Runtime.ImportModuleError", "app.ts is TypeScript: build it"),
        (
            "app.js",
            "require('@aws-sdk/client-dynamodb')",
            "app.handler",
            "Runtime.ImportModuleError",
            "npm install @aws-sdk/client-dynamodb",
        ),
        (
            "app.mjs",
            "import '@aws-sdk/lib-dynamodb/x'",
            "app.handler",
            "Runtime.ImportModuleError",
            "npm install @aws-sdk/lib-dynamodb",
        ),
    ],
)
async def test_a_handler_that_cannot_be_loaded_says_why(
    source: Source, file: str, text: str, handler: str, kind: str, words: str
) -> None:
    """Each way in which a handler does not load has its own error, for every invocation."""
    source.write(file, text)
    async with running(node(source, handler=handler)) as lab:
        for _ in range(2):
            got_kind, got_words = await lab.error()
            assert got_kind == kind
            assert words in got_words


async def test_node_24_takes_no_callbacks(source: Source) -> None:
    """A handler with three parameters fails under nodejs24.x as it does on AWS, and a streaming one does not."""
    code = """
        exports.handler = (event, context, callback) => callback(null, 1);
        exports.stream = awslambda.streamifyResponse(async (event, out, context) => out.end("s"));
        """
    old = node(source, code, runtime="nodejs24.x")
    stream = node(source, name="stream", handler="app.stream", runtime="nodejs24.x")
    async with running(old, stream) as lab:
        kind, words = await lab.error()
        assert kind == "Runtime.CallbackHandlerDeprecated"
        assert "removed support for callback-based function handlers" in words
        assert (await lab.invoke(name="stream")).payload == b"s"


async def test_console_is_lambdas(source: Source) -> None:
    """Each entry has its time, invocation and level; its lines stay together and in order."""
    function = node(
        source,
        """
        console.log("up");
        exports.handler = async () => {
          console.log("a %s", { b: 1 });
          console.error("two\\nlines");
          console.warn(new Error("bad").message);
          process.stderr.write("raw\\n");
        };
        """,
    )
    async with running(function) as lab:
        await lab.invoke(request_id="it")
        said = [text.split("\t", 1)[1] for text in lab.said("stdout") if "\t" in text]
        assert said == ["undefined\tINFO\tup", "it\tINFO\ta { b: 1 }", "it\tERROR\ttwo", "it\tWARN\tbad"]
        assert "lines" in lab.said("stdout")
        assert lab.said("stderr") == ["raw"]


async def test_log_entries_can_be_json(source: Source) -> None:
    """With the JSON log format an entry is a document."""
    code = "exports.handler = async () => { console.info('hi\\nthere'); throw new Error('no'); };"
    async with running(node(source, code, environment={"AWS_LAMBDA_LOG_FORMAT": "JSON"})) as lab:
        await lab.invoke(request_id="it")
        info, error = map(json.loads, lab.said("stdout"))
    assert {**info, "timestamp": ""} == {"timestamp": "", "level": "INFO", "requestId": "it", "message": "hi\nthere"}
    assert error["message"]["errorMessage"] == "no"


@pytest.mark.parametrize(
    ("body", "payload", "error"),
    [
        ("out.write('a'); await 1; out.write('b'); out.end();", b"ab", None),
        ("awslambda.HttpResponseStream.from(out, { s: 2 }).end('b');", b'{"s":2}' + bytes(8) + b"b", None),
        ("throw new Error('early');", None, "early"),
        ("out.write('a'); await new Promise(r => setTimeout(r, 30)); throw new Error('mid');", None, "mid"),
        ("out.write('a');", None, "Response stream is not finished."),
        ("await new Promise(() => {});", None, "The response stream was never ended."),
    ],
)
async def test_a_streaming_handler_writes_its_response(
    source: Source, body: str, payload: bytes | None, error: str | None
) -> None:
    """What is written is the response; an error before or in the midst of it is the invocation's, and no other's."""
    code = f"exports.handler = awslambda.streamifyResponse(async (event, out, context) => {{ {body} }});"
    async with running(node(source, code)) as lab:
        for _ in range(2):
            if payload is None:
                assert (await lab.error())[1] == error
            else:
                assert (await lab.invoke()).payload == payload
        assert [report.init_ms is None for report in lab.reports] == [False, True]


async def test_layers_are_searched_for_modules(source: Source, tmp_path: Path) -> None:
    """`require` finds what a layer has in nodejs/node_modules, after the function's own."""
    first, second = Source(tmp_path / "first"), Source(tmp_path / "second")
    first.write("nodejs/node_modules/shared/index.js", "module.exports = 'first'")
    first.write("nodejs/node_modules/own/index.js", "module.exports = 'first'")
    second.write("nodejs/node_modules/shared/index.js", "module.exports = 'second'")
    second.write("nodejs/node22/node_modules/versioned/index.js", "module.exports = require('shared')")
    source.write("node_modules/own/index.js", "module.exports = 'own'")
    code = "exports.handler = async () => [require('shared'), require('own'), require('versioned')];"
    async with running(node(source, code, layers=(first.folder, second.folder))) as lab:
        assert await lab.result() == ["second", "own", "second"]


async def test_a_function_that_hangs_or_takes_too_much_memory_is_ended(source: Source) -> None:
    """A busy loop times out; memory outside of the heap counts too."""
    code = """
        const kept = [];
        exports.handler = async (event) => {
          if (event === "loop") for (;;) {}
          if (event === "hog") for (;;) { kept.push(Buffer.alloc(5e6, 1)); await new Promise(r => setTimeout(r, 5)); }
          return 1;
        };
        """
    async with running(node(source, code, timeout_s=1.0)) as lab:
        assert (await lab.error("loop"))[0] == "Sandbox.Timedout"
        await lab.functions.replace(node(source, timeout_s=60.0))
        assert (await lab.error("hog"))[0] == "Runtime.OutOfMemory"
        assert await lab.result(None) == 1


async def test_another_node_than_the_function_wants_is_told(source: Source) -> None:
    """The Node.js that is here runs every version's functions, with a warning where it is another."""
    async with running(node(source, "exports.handler = async () => process.execPath", runtime="nodejs18.x")) as lab:
        assert await lab.result() == str(Path(NODE).resolve())
        assert [text for text in lab.said("platform") if text.startswith("There is no Node.js 18:")]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "There is no `node` on PATH"),
        ("echo /usr/bin/node; echo 16.20.0", "Node.js 16.20.0: functions need 18 or later"),
        ("echo broken; exit 1", "does not run: broken"),
    ],
)
async def test_a_node_that_cannot_be_used_is_told(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, words: str
) -> None:
    """Without a Node.js that is new enough the function answers so; once there is one it runs."""
    folder = Source(tmp_path / "path")
    if script is not None:
        folder.write("node", f"#!/bin/sh\n{script}\n").chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(folder.folder))
    async with running(node(source, "exports.handler = async () => 1")) as lab:
        kind, said = await lab.error()
        assert kind == "Runtime.InvalidEntrypoint"
        assert words in said
        monkeypatch.setenv("PATH", path)
        await lab.functions.reload("worker")
        assert await lab.result() == 1


API = "abc123.execute-api.eu-west-1.amazonaws.com"


@asynccontextmanager
async def gateway(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """An HTTPS server for `API` on a port of this machine; the variables that lead functions there."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(API).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            host = next(line for line in head.decode().lower().split("\r\n") if line.startswith("host:"))
            body = f"{head.split()[1].decode()} {host}".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side went away
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield {"_HUBBUB_EXECUTE_API": f"127.0.0.1:{port}", "NODE_EXTRA_CA_CERTS": str(tmp_path / "ca.pem")}


WAYS = {
    "https": """
        const https = require("node:https");
        const get = (url) => new Promise((resolve, reject) => https.get(url, (response) => {
          response.on("data", (data) => resolve(String(data)));
        }).on("error", reject));
        """,
    "https agent": """
        const https = require("node:https");
        const agent = new https.Agent({ keepAlive: true });
        const get = (url) => new Promise((resolve, reject) => https.get(url, { agent }, (response) => {
          response.on("data", (data) => resolve(String(data)));
        }).on("error", reject));
        """,
    "fetch": "const get = async (url) => (await fetch(url)).text();",
    "tls": """
        const tls = require("node:tls");
        const get = (url) => new Promise((resolve, reject) => {
          const { hostname, pathname } = new URL(url);
          const socket = tls.connect(443, hostname, { servername: hostname }, () => {
            socket.write(`GET ${pathname} HTTP/1.1\\r\\nHost: ${hostname}\\r\\n\\r\\n`);
          });
          socket.on("error", reject).on("data", (data) => resolve(String(data).split("\\r\\n\\r\\n")[1]));
        });
        """,
}


async def _asks(lab: Lab, url: str) -> str:
    return str(await lab.result(url))


@pytest.mark.parametrize("way", WAYS)
async def test_connections_to_execute_api_are_led_to_the_gateway(source: Source, tmp_path: Path, way: str) -> None:
    """Code that names an API's host at AWS reaches the gateway, by its name and with a certificate that is checked."""
    code = WAYS[way] + "exports.handler = async (url) => get(url);"
    async with gateway(tmp_path) as variables, running(node(source, code), environment=variables) as lab:
        for _ in range(2):
            assert await _asks(lab, f"https://{API}/prod/@connections/x") == f"/prod/@connections/x host: {API}"


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("other.execute-api.eu-west-1.amazonaws.com", "ERR_TLS_CERT_ALTNAME_INVALID"),
        ("execute-api.invalid", "ENOTFOUND"),
        ("abc123.execute-api.eu-west-1.amazonaws.com.invalid", "ENOTFOUND"),
    ],
)
async def test_no_other_connection_is_led_there(source: Source, tmp_path: Path, host: str, code: str) -> None:
    """A name that is not in the certificate is refused by the client, and other hosts are not touched."""
    handler = """
        const https = require("node:https");
        exports.handler = (url) => new Promise((resolve) => {
          https.get(url, () => resolve("reached")).on("error", (error) => resolve(error.code));
        });
        """
    async with gateway(tmp_path) as variables, running(node(source, handler), environment=variables) as lab:
        assert await _asks(lab, f"https://{host}/") in (code, "EAI_AGAIN")


@pytest.mark.parametrize("kind", ["module", "commonjs"])
async def test_packages_of_layers_are_found_by_modules_of_both_kinds(source: Source, tmp_path: Path, kind: str) -> None:
    """As Lambda's SDK and its layers are: by NODE_PATH, heeding the package's `exports`."""
    package = tmp_path / "layer" / "nodejs" / "node_modules" / "greeting"
    package.mkdir(parents=True)
    (package / "package.json").write_text(
        json.dumps({"name": "greeting", "exports": {"import": "./esm.mjs", "require": "./cjs.cjs"}})
    )
    (package / "esm.mjs").write_text("export const said = 'imported';")
    (package / "cjs.cjs").write_text("exports.said = 'required';")
    if kind == "module":
        code = "import { said } from 'greeting'; export const handler = async () => said;"
    else:
        code = "const { said } = require('greeting'); exports.handler = async () => said;"
    function = node(source, code, file=f"app.{'mjs' if kind == 'module' else 'js'}", layers=(tmp_path / "layer",))
    async with running(function) as lab:
        assert (await lab.invoke()).payload == (b'"imported"' if kind == "module" else b'"required"')
