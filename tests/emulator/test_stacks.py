"""The three examples, unmodified and from end to end: each a chat that is written the way AWS's users write them."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest
from stacklab import EXAMPLES, GONE, Client, Record, aws, background, client, refused

from hubbub.emulator import BackgroundStack
from live import until

JWT_SECRET = "a-secret-for-development-only-0123"

Running = tuple[BackgroundStack, Record]


@pytest.fixture(scope="module")
def sam() -> Iterator[Running]:
    """The example in SAM."""
    with background(EXAMPLES / "sam-python") as running:
        yield running


@pytest.fixture(scope="module")
def serverless() -> Iterator[Running]:
    """The example in serverless.yml."""
    with background(EXAMPLES / "serverless-python") as running:
        yield running


@pytest.fixture(scope="module")
def node_example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example for Node.js as it is in the repository, where nobody has run npm: what it needs is in a cache."""
    if shutil.which("npm") is None:
        pytest.fail("this test needs Node.js and npm: scripts/setup system nodejs npm")
    folder = tmp_path_factory.mktemp("node") / "cloudformation-node"
    left_out = shutil.ignore_patterns("node_modules", "package-lock.json")
    shutil.copytree(EXAMPLES / "cloudformation-node", folder, ignore=left_out)
    cache = request.config.cache
    assert cache is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache.mkdir("hubbub")))
        yield folder


@pytest.fixture(scope="module")
def node(node_example: Path) -> Iterator[Running]:
    """The example in plain CloudFormation for Node.js."""
    with background(node_example) as running:
        yield running


def items(stack: BackgroundStack, table: str) -> list[dict[str, Any]]:
    """What is in a table, as DynamoDB writes it."""
    dynamodb = aws("dynamodb", stack.environment)
    (name,) = [each for each in dynamodb.list_tables()["TableNames"] if each.lower().endswith(table)]
    found: list[dict[str, Any]] = dynamodb.scan(TableName=name)["Items"]
    return found


def put(stack: BackgroundStack, table: str, **item: str) -> None:
    """Put an item of strings into a table."""
    dynamodb = aws("dynamodb", stack.environment)
    (name,) = [each for each in dynamodb.list_tables()["TableNames"] if each.lower().endswith(table)]
    dynamodb.put_item(TableName=name, Item={key: {"S": value} for key, value in item.items()})


def ids(stack: BackgroundStack, table: str, key: str) -> set[str]:
    """The values of a key in a table."""
    return {item[key]["S"] for item in items(stack, table)}


def token(user: str, **claims: Any) -> str:
    """A token as the API backend of the example would sign it."""
    return jwt.encode({"sub": user, "room": "general", "iss": "https://backend.example.com", **claims}, JWT_SECRET)


async def joined(someone: Client, room: str) -> None:
    assert await someone.ask(action="join", room=room) == {"type": "joined", "room": room}


# SAM


async def test_who_does_not_say_a_name_is_refused_by_the_sam_example(sam: Running) -> None:
    """The function's status is the handshake's, whether there is no query at all or an empty name."""
    stack, _ = sam
    assert await refused(stack.url) == 400
    assert await refused(stack.url, name="") == 400
    assert await refused(stack.url.removesuffix("/dev"), name="ann") == 404


async def test_a_message_reaches_all_in_the_room_and_nobody_else(sam: Running) -> None:
    """Five clients in a room hear each message once and in the sender's order; one in another room hears none."""
    stack, _ = sam
    async with AsyncExitStack() as clients:
        ann, *others = [await clients.enter_async_context(client(stack.url, name=f"n{n}")) for n in range(5)]
        apart = await clients.enter_async_context(client(stack.url, name="eve"))
        await asyncio.gather(*(joined(each, "general") for each in (ann, *others)), joined(apart, "elsewhere"))
        for text in ("one", "two"):
            assert (await ann.ask(action="send", text=text))["text"] == text
        for each in others:
            heard = [await each.hear(), await each.hear()]
            assert [(one["type"], one["name"], one["text"]) for one in heard] == [
                ("message", "n0", "one"),
                ("message", "n0", "two"),
            ]
        history = await apart.ask(action="history", room="general")
        assert [said["text"] for said in history["messages"]] == ["one", "two"]
        await apart.say(action="send", text="three")
        assert (await apart.hear())["room"] == "elsewhere"


async def test_who_sends_before_joining_is_told(sam: Running) -> None:
    """A function can post to the connection that called it, by `https://{domainName}/{stage}`."""
    stack, _ = sam
    async with client(stack.url, name="ann") as ann:
        assert await ann.ask(action="send", text="hello") == {"type": "error", "message": "Join a room first."}


async def test_an_action_without_a_route_is_forbidden_and_the_connection_stays(sam: Running) -> None:
    """API Gateway's own document comes, with the connection's id."""
    stack, _ = sam
    async with client(stack.url, name="ann") as ann:
        answer = await ann.ask(action="dance")
        assert answer["message"] == "Forbidden"
        assert {"connectionId", "requestId"} < answer.keys()
        await joined(ann, "lobby")


async def test_a_failing_function_is_told_to_the_client_and_in_the_log(sam: Running) -> None:
    """A message that the function cannot read gets Internal server error, and its traceback is in the log."""
    stack, record = sam
    async with client(stack.url, name="ann") as ann:
        answer = await ann.ask(action="join")
        assert answer["message"] == "Internal server error"
    assert any("KeyError: 'room'" in text for text in record.printed("Join"))


async def test_a_connection_that_is_gone_is_forgotten(sam: Running) -> None:
    """boto3 raises GoneException for an id of nobody, and the example deletes its item; the others hear the message."""
    stack, _ = sam
    put(stack, "connections", connectionId=GONE, name="ghost", room="haunted")
    async with client(stack.url, name="ann") as ann:
        await joined(ann, "haunted")
        assert (await ann.ask(action="send", text="boo"))["text"] == "boo"
        await until(lambda: GONE not in ids(stack, "connections", "connectionId"), "the ghost's end")


async def test_disconnect_cleans_the_table_however_a_client_leaves(sam: Running) -> None:
    """After a close with a code, and after a connection that just breaks, nothing of them is left in the table."""
    stack, record = sam
    before = ids(stack, "connections", "connectionId")
    async with client(stack.url, name="ann") as ann, client(stack.url, name="bob") as bob:
        await until(lambda: len(ids(stack, "connections", "connectionId") - before) == 2, "both in the table")
        await ann.socket.close(4001, "enough of this")
        bob.socket.transport.abort()
    await until(lambda: ids(stack, "connections", "connectionId") <= before, "an empty table")
    await until(lambda: "gone: enough of this" in record.printed("Disconnect"), "the reason in the log")


async def test_many_clients_come_talk_and_leave_at_once(sam: Running) -> None:
    """Twenty clients that join, send and leave at the same time all get what is theirs."""
    stack, _ = sam

    async def visit(number: int) -> None:
        async with client(stack.url, name=f"visitor {number}") as visitor:
            room = f"room {number}"
            await joined(visitor, room)
            assert (await visitor.ask(action="send", text="hi"))["room"] == room

    await asyncio.gather(*(visit(number) for number in range(20)))
    await until(lambda: not items(stack, "connections"), "an empty table")


def test_what_is_not_as_on_aws_is_said_once(sam: Running) -> None:
    """For both tables together."""
    _, record = sam
    told = [said for said in record.said if "items do not expire" in said]
    assert len(told) == 1
    assert told[0].startswith("Connections, Messages: ")


# serverless.yml


async def test_a_token_decides_who_may_connect(serverless: Running) -> None:
    """None is 401 without asking the authorizer; a wrong one is 403; one that has expired is 401 by the function."""
    stack, record = serverless
    asked = len(record.reports)
    assert await refused(stack.url) == 401
    assert await refused(stack.url, token="") == 401
    assert len(record.reports) == asked
    assert await refused(stack.url, token="nonsense") == 403
    assert await refused(stack.url, token=jwt.encode({"sub": "eve"}, "another secret, which is as long")) == 403
    assert await refused(stack.url, token=token("eve", iss="https://elsewhere.example.com")) == 403
    assert await refused(stack.url, token=token("eve", exp=int(time.time()) - 60)) == 401


async def test_whoami_is_answered_by_what_the_function_returns(serverless: Running) -> None:
    """A route with a route response answers with the function's body, and the authorizer's context reaches it."""
    stack, _ = serverless
    async with client(stack.url, token=token("ann", room="attic")) as ann:
        assert await ann.ask(action="whoami") == {"user": "ann", "room": "attic"}


async def test_rooms_come_from_tokens(serverless: Running) -> None:
    """A message reaches those whose tokens name the room."""
    stack, _ = serverless
    async with (
        client(stack.url, token=token("ann")) as ann,
        client(stack.url, token=token("bob")) as bob,
        client(stack.url, token=token("eve", room="attic")) as eve,
    ):
        mine = await ann.ask(action="send", text="hello")
        assert (mine["from"], mine["room"], mine["text"]) == ("ann", "general", "hello")
        assert await bob.hear() == mine
        assert (await eve.ask(action="send", text="alone"))["from"] == "eve"


async def test_what_no_route_takes_goes_to_default(serverless: Running) -> None:
    """An unknown action, and what is not JSON at all."""
    stack, _ = serverless
    async with client(stack.url, token=token("ann")) as ann:
        assert await ann.ask(action="dance") == {"error": "actions: send, whoami"}
        await ann.socket.send("hello?")
        assert await ann.hear() == {"error": "actions: send, whoami"}


async def test_the_serverless_example_forgets_who_is_gone(serverless: Running) -> None:
    """`$disconnect` still knows the authorizer's context, and a callback to nobody deletes its item."""
    stack, _ = serverless
    put(stack, "connections", room="general", connectionId=GONE, user="ghost")
    async with client(stack.url, token=token("ann")) as ann:
        assert len(ids(stack, "connections", "connectionId")) == 2
        await ann.ask(action="send", text="boo")
        await until(lambda: GONE not in ids(stack, "connections", "connectionId"), "the ghost's end")
    await until(lambda: not items(stack, "connections"), "an empty table")


def test_a_serverless_stack_is_where_its_file_says(serverless: Running) -> None:
    """Name, stage and region are those of serverless.yml, and functions and tables are there."""
    stack, _ = serverless
    assert stack.environment["AWS_REGION"] == "eu-central-1"
    assert stack.url.endswith("/dev")
    assert aws("dynamodb", stack.environment).list_tables()["TableNames"] == ["chat-dev-connections"]
    names = {function.name for function in stack.stack.functions}
    assert names == {f"chat-dev-{each}" for each in ("authorizer", "connection", "send", "whoami", "default")}


# CloudFormation and Node.js


async def test_node_functions_call_back_by_the_apis_id(node: Running) -> None:
    """`https://{apiId}.execute-api.{region}.amazonaws.com/{stage}` leads to the API here, over TLS, with npm's SDK."""
    stack, _ = node
    async with client(stack.url, name="ann") as ann, client(stack.url) as bob:
        said = {"type": "message", "name": "ann", "text": "hello"}
        assert await ann.ask(type="message", text="hello") == said
        assert await bob.hear() == said
        assert (await bob.ask(type="message", text="hi"))["name"] == "somebody"


async def test_a_mock_integration_answers_pings(node: Running) -> None:
    """The response template sees the connection."""
    stack, _ = node
    async with client(stack.url, name="ann") as ann:
        answer = await ann.ask(type="ping")
        assert answer["type"] == "pong"
        assert answer["connection"] in ids(stack, "table", "sk")


@pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": "x" * 1_001}, {"text": 5}])
async def test_a_body_that_is_not_as_its_model_is_refused(node: Running, body: dict[str, Any]) -> None:
    """API Gateway's document comes, and no function runs."""
    stack, _ = node
    async with client(stack.url, name="ann") as ann:
        answer = await ann.ask(type="message", **body)
        assert answer["message"] == "Bad request body"
        assert {"connectionId", "messageId"} < answer.keys()


async def test_the_node_example_forgets_who_is_gone(node: Running) -> None:
    """The SDK throws GoneException for an id of nobody; `$disconnect` deletes the rest."""
    stack, _ = node
    put(stack, "table", pk="connections", sk=GONE, name="ghost")
    async with client(stack.url, name="ann") as ann:
        await ann.ask(type="message", text="boo")
        await until(lambda: GONE not in ids(stack, "table", "sk"), "the ghost's end")
    await until(lambda: not items(stack, "table"), "an empty table")


# All of them, under AWS's quotas


async def test_the_sam_example_keeps_to_aws_quotas() -> None:
    """With parameters of its own and another port for callbacks, a whole visit works."""
    with background(EXAMPLES / "sam-python", quotas="aws", parameters={"Stage": "prod"}) as (stack, _):
        assert stack.url.endswith("/prod")
        async with client(stack.url, name="ann") as ann:
            await joined(ann, "general")
            assert (await ann.ask(action="send", text="x" * 20_000))["text"] == "x" * 20_000
            await ann.socket.send(b"binary")
            assert await ann.closed() == 1003
        await until(lambda: not items(stack, "connections"), "an empty table")


async def test_the_serverless_example_keeps_to_aws_quotas() -> None:
    """With the option of another stage, a whole visit works."""
    options = {"quotas": "aws,idle_s=8", "parameters": {"stage": "prod"}}
    with background(EXAMPLES / "serverless-python", **options) as (stack, _):
        assert stack.url.endswith("/prod")
        async with client(stack.url, token=token("ann")) as ann:
            assert (await ann.ask(action="send", text="hello"))["from"] == "ann"
            assert await ann.closed() == 1001
        await until(lambda: not items(stack, "chat-prod-connections"), "an empty table")


async def test_the_node_example_keeps_to_aws_quotas(node_example: Path) -> None:
    """A whole visit works, and its stage's throttle holds."""
    with background(node_example, quotas="aws", parameters={"StageName": "dev"}) as (stack, _):
        assert stack.url.endswith("/dev")
        async with client(stack.url, name="ann") as ann:
            assert (await ann.ask(type="message", text="hello"))["text"] == "hello"
            for _ in range(60):
                await ann.say(type="ping")
            answers = [await ann.hear() for _ in range(60)]
            assert sum(answer.get("message") == "Too Many Requests" for answer in answers) > 0
            assert sum(answer.get("type") == "pong" for answer in answers) >= 49
