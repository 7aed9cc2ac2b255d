"""AWS's services behind routes with no function between: messages land in a real moto, where boto3 finds them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from endpointlab import Endpoint, integrated, listening, say
from motolab import ACCOUNT, REGION, Moto, emulating
from rawpeer import Peer, request

from hubbub.gateway.integrations import Integration, IntegrationResponse, Services
from hubbub.sigv4 import Keys, verify
from integrationlab import FUNCTION, INVOCATION, Lambda
from live import until

FORM = {"integration.request.header.Content-Type": "'application/x-www-form-urlencoded'"}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """An emulator that the tests of this module share."""
    with emulating(tmp_path_factory.mktemp("moto")) as moto:
        yield moto


@pytest.fixture
def moto(emulator: Moto) -> Moto:
    """The same with nothing in it."""
    emulator.reset()
    return emulator


@pytest.fixture
def services(moto: Moto) -> Services:
    """All services at the emulator."""
    return Services(invoke=Lambda(), endpoints={"*": moto.url})


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """A server that takes itself for a service."""
    async with listening() as endpoint:
        yield endpoint


def aws(service_and_what: str, template: str | None = None, **fields: Any) -> Integration:
    """An integration with a service: `sqs:path/…` or `dynamodb:action/…`."""
    templates = {} if template is None else {"$default": template}
    uri = f"arn:aws:apigateway:{REGION}:{service_and_what}"
    return Integration(type="AWS", uri=uri, request_templates=templates, **fields)


def mapped(key: str, template: str) -> IntegrationResponse:
    return IntegrationResponse(key=key, templates={"$default": template})


# SQS and SNS


async def test_a_message_goes_into_a_queue(moto: Moto, services: Services) -> None:
    """SendMessage of the body as a form; the service's answer is JSON for the response's template, as on AWS."""
    queue = moto.queue("chat")
    send = aws(
        f"sqs:path/{ACCOUNT}/chat",
        "Action=SendMessage&MessageBody=$util.urlEncode($input.body)\n",
        passthrough="NEVER",
        request_parameters=FORM,
        responses=(mapped("/200/", '{"id":"$input.path(\'$.SendMessageResponse.SendMessageResult.MessageId\')"}'),),
    )
    async with integrated(services, {"$default": send}) as lab, await Peer.open(lab.port) as peer:
        await say(peer, '{"text": "a & b = ü"}')
        answer = await peer.json()
    [message] = moto.messages(queue)
    assert message["Body"] == '{"text": "a & b = ü"}'
    assert message["MessageId"] == answer["id"]


async def test_a_message_goes_into_a_fifo_queue_with_attributes(moto: Moto, services: Services) -> None:
    """The template that AWS's own pattern for WebSockets and SQS has: group, deduplication, two attributes."""
    queue = moto.queue("chat.fifo")
    send = aws(
        f"sqs:path/{ACCOUNT}/chat.fifo",
        "Action=SendMessage&MessageGroupId=$input.path('$.MessageGroupId')&MessageDeduplicationId=$context.requestId"
        "&MessageAttribute.1.Name=connectionId&MessageAttribute.1.Value.StringValue=$context.connectionId"
        "&MessageAttribute.1.Value.DataType=String&MessageAttribute.2.Name=requestId"
        "&MessageAttribute.2.Value.StringValue=$context.requestId&MessageAttribute.2.Value.DataType=String"
        "&MessageBody=$util.urlEncode($input.json($util.escapeJavaScript('$').replaceAll(\"\\\\'\",\"'\")))",
        passthrough="NEVER",
        request_parameters=FORM,
        template_selection_expression=r"\$default",
    )
    async with (
        integrated(services, {"$default": send}, one_way=True) as lab,
        await Peer.open(lab.port) as peer,
    ):
        await say(peer, '{"MessageGroupId":"room-7","text":"it\'s"}')
        found: list[dict[str, Any]] = []

        def arrived() -> bool:
            found.extend(moto.messages(queue))
            return bool(found)

        await until(arrived, "the message is in the queue")
    [message] = found
    assert message["Body"] == '{"MessageGroupId":"room-7","text":"it\'s"}'
    assert message["Attributes"]["MessageGroupId"] == "room-7"
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert message["Attributes"]["MessageDeduplicationId"] == attributes["requestId"]
    assert len(attributes["connectionId"]) == 16


async def test_a_queue_takes_json_too(moto: Moto, services: Services) -> None:
    """SQS's newer protocol, where its target and content type are mapped."""
    queue = moto.queue("chat")
    send = aws(
        f"sqs:path/{ACCOUNT}/chat",
        '{"QueueUrl": "' + queue + '", "MessageBody": "$util.escapeJavaScript($input.json(\'$.text\'))"}',
        request_parameters={
            "integration.request.header.Content-Type": "'application/x-amz-json-1.0'",
            "integration.request.header.X-Amz-Target": "'AmazonSQS.SendMessage'",
        },
    )
    async with integrated(services, {"$default": send}) as lab, await Peer.open(lab.port) as peer:
        await say(peer, '{"text":"hi"}')
        answer = await peer.json()
    [message] = moto.messages(queue)
    assert (message["Body"], message["MessageId"]) == ('"hi"', answer["MessageId"])


async def test_actions_take_their_parameters_from_the_query(moto: Moto, services: Services) -> None:
    """`sqs:action/SendMessage` and `sns:action/Publish` with mapped query parameters; SNS hands on to a queue."""
    queue = moto.queue("chat")
    with moto.boto("sns") as sns:
        topic = sns.create_topic(Name="rooms")["TopicArn"]
        sns.subscribe(
            TopicArn=topic,
            Protocol="sqs",
            Endpoint=f"arn:aws:sqs:{REGION}:{ACCOUNT}:chat",
            Attributes={"RawMessageDelivery": "true"},
        )
    to_queue = aws(
        "sqs:action/SendMessage",
        request_parameters={
            "integration.request.querystring.QueueUrl": f"'{queue}'",
            "integration.request.querystring.MessageBody": "route.request.body.text",
        },
    )
    to_topic = aws(
        "sns:action/Publish",
        request_parameters={
            "integration.request.querystring.TopicArn": f"'{topic}'",
            "integration.request.querystring.Message": "route.request.body.text",
        },
        responses=(mapped("$default", "$input.path('$.PublishResponse.PublishResult.MessageId').length()"),),
    )
    form = aws(
        "sns:path//",
        f"Action=Publish&TopicArn=$util.urlEncode('{topic}')&Message=$util.urlEncode($input.path('$.text'))",
        request_parameters=FORM,
        responses=(mapped("$default", "$input.path('$.PublishResponse.PublishResult.MessageId').length()"),),
    )
    routes = {"queue": to_queue, "topic": to_topic, "form": form}
    async with integrated(services, routes) as lab, await Peer.open(lab.port) as peer:
        await say(peer, '{"action":"queue","text":"one & ü"}')
        assert "SendMessageResponse" in await peer.json()
        for action, text in (("topic", "two & ü"), ("form", "three & ü")):
            await say(peer, json.dumps({"action": action, "text": text}))
            assert await peer.text() == "36"
    assert [message["Body"] for message in moto.messages(queue)] == ["one & ü", "two & ü", "three & ü"]


async def test_a_service_that_refuses_is_an_answer(moto: Moto, services: Services) -> None:
    """Its status selects the response, and its error is there for the template."""
    publish = aws(
        "sns:path//",
        "Action=Publish&TopicArn=arn:aws:sns:us-east-1:123456789012:none&Message=hi",
        request_parameters=FORM,
        responses=(mapped("/404/", "$input.path('$.Error.Code')"), mapped("$default", "?")),
    )
    get = aws(
        "dynamodb:action/GetItem",
        '{"TableName":"none","Key":{"id":{"S":"a"}}}',
        responses=(mapped("/400/", "$input.path('$.__type').split('#')[1]"), mapped("$default", "?")),
    )
    async with integrated(services, {"publish": publish, "get": get}) as lab, await Peer.open(lab.port) as peer:
        await say(peer, '{"action":"publish"}')
        assert await peer.text() == "NotFound"
        await say(peer, '{"action":"get"}')
        assert await peer.text() == "ResourceNotFoundException"


# DynamoDB


async def test_connections_are_kept_in_a_table_without_a_function(moto: Moto, services: Services) -> None:
    """`$connect` puts an item with headers, query and a time to live, `$disconnect` deletes it: AWS's own sample."""
    with moto.boto("dynamodb") as dynamodb:
        dynamodb.create_table(
            TableName="sessions",
            AttributeDefinitions=[{"AttributeName": "connectionid", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "connectionid", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        put = aws(
            "dynamodb:action/PutItem",
            """#set($ttl = $context.requestTimeEpoch + 86400)
            {
                "TableName": "sessions",
                "Item": {
                    "connectionid": {"S": "$context.connectionId"},
                    "path": {"S": "$input.params('ws-uri')"},
                    "querystring": {"S": "$input.params().get('querystring')"},
                    "ttl": {"N": "$ttl"}
                }
            }""",
            template_selection_expression=r"\$default",
            responses=(IntegrationResponse(key="/200/", template_selection_expression=r"\$default"),),
        )
        delete = aws(
            "dynamodb:action/DeleteItem",
            '{"TableName": "sessions", "Key": {"connectionid": {"S": "$context.connectionId"}}}',
            responses=(IntegrationResponse(key="/200/"),),
        )

        def items() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = dynamodb.scan(TableName="sessions")["Items"]
            return found

        async with integrated(services, {"$connect": put, "$disconnect": delete}) as lab:
            peer = await Peer.open(lab.port, request("/ws?room=a&kind=b", ws_uri="/rooms/a"))
            [item] = items()
            assert len(item["connectionid"]["S"]) == 16
            assert item["path"] == {"S": "/rooms/a"}
            assert item["querystring"] == {"S": "{room=a, kind=b}"}
            assert abs(int(item["ttl"]["N"]) - time.time() * 1_000 - 86_400) < 60_000
            peer.cut()
            await until(lambda: not items(), "the item is deleted")


async def test_nobody_gets_in_whom_the_table_does_not_take(moto: Moto, services: Services) -> None:
    """Where no response is for the service's refusal, the handshake fails."""
    put = aws(
        "dynamodb:action/PutItem",
        '{"TableName": "none", "Item": {"id": {"S": "$context.connectionId"}}}',
        responses=(IntegrationResponse(key="/200/"),),
    )
    async with integrated(services, {"$connect": put}) as lab, await lab.dial(request()) as peer:
        assert (await peer.answer()).status == 502


async def test_a_query_is_answered_from_a_table(moto: Moto, services: Services) -> None:
    """A loop over the items that were found makes the message for the client."""
    with moto.boto("dynamodb") as dynamodb:
        dynamodb.create_table(
            TableName="messages",
            AttributeDefinitions=[
                {"AttributeName": "room", "AttributeType": "S"},
                {"AttributeName": "at", "AttributeType": "N"},
            ],
            KeySchema=[{"AttributeName": "room", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for at, text in enumerate(("one", 'two "quoted"', "it's three")):
            item = {"room": {"S": "a"}, "at": {"N": str(at)}, "text": {"S": text}}
            dynamodb.put_item(TableName="messages", Item=item)
    query = aws(
        "dynamodb:action/Query",
        """{"TableName": "messages", "KeyConditionExpression": "room = :room",
            "ExpressionAttributeValues": {":room": {"S": "$input.path('$.room')"}}}""",
        responses=(
            mapped(
                "/200/",
                """{"messages": [
                #foreach($item in $input.path('$.Items'))
                    {"at": $item.at.N, "text": "$util.escapeJavaScript($item.text.S).replaceAll("\\\\'","'")"}
                    #if($foreach.hasNext),#end
                #end
                ], "more": #if($input.path('$.LastEvaluatedKey'))true#{else}false#end}""",
            ),
        ),
    )
    async with integrated(services, {"$default": query}) as lab, await Peer.open(lab.port) as peer:
        await say(peer, '{"room":"a"}')
        assert await peer.json() == {
            "messages": [
                {"at": 0, "text": "one"},
                {"at": 1, "text": 'two "quoted"'},
                {"at": 2, "text": "it's three"},
            ],
            "more": False,
        }


# Step Functions, EventBridge, Kinesis


async def test_an_execution_is_started(moto: Moto, services: Services) -> None:
    """`states:action/StartExecution` with the escaped message as input."""
    with moto.boto("stepfunctions") as states:
        definition = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}
        machine = states.create_state_machine(
            name="machine", definition=json.dumps(definition), roleArn=f"arn:aws:iam::{ACCOUNT}:role/any"
        )["stateMachineArn"]
        start = aws(
            "states:action/StartExecution",
            """#set($sfn_input=$util.escapeJavaScript($input.json("$.data")).replaceAll("\\\\'","'"))
            {
              "input": "{\\"data\\":$sfn_input, \\"ConnectionID\\":\\"$context.connectionId\\"}",
              "stateMachineArn": "MACHINE"
            }""".replace("MACHINE", machine),
            responses=(IntegrationResponse(key="$default"),),
        )
        async with integrated(services, {"$default": start}) as lab, await Peer.open(lab.port) as peer:
            await say(peer, '{"data":{"text":"it\'s \\"here\\""}}')
            execution = (await peer.json())["executionArn"]
        given = json.loads(states.describe_execution(executionArn=execution)["input"])
        assert given["data"] == {"text": 'it\'s "here"'}
        assert len(given["ConnectionID"]) == 16


async def test_events_and_records_are_put(moto: Moto, services: Services, caplog: pytest.LogCaptureFixture) -> None:
    """EventBridge needs its target to be mapped, and the log says so where it is not; Kinesis does not."""
    entries = (
        '{"Entries": [{"Source": "chat", "DetailType": "message", '
        '"Detail": "$util.escapeJavaScript($input.body).replaceAll("\\\\\'","\'")"}]}'
    )
    by_template = aws(
        "events:action/PutEvents",
        "#set($context.requestOverride.header.X-Amz-Target = 'AWSEvents.PutEvents')"
        "#set($context.requestOverride.header.Content-Type = 'application/x-amz-json-1.1')" + entries,
    )
    record = aws(
        "kinesis:action/PutRecord",
        '{"StreamName": "log", "Data": "$util.base64Encode($input.body)", "PartitionKey": "$context.connectionId"}',
    )
    routes = {"events": by_template, "unmapped": aws("events:action/PutEvents", entries), "record": record}
    with moto.boto("kinesis") as kinesis:
        kinesis.create_stream(StreamName="log", ShardCount=1)
        async with integrated(services, routes) as lab, await Peer.open(lab.port) as peer:
            await say(peer, '{"action":"events","text":"hi"}')
            assert (await peer.json())["FailedEntryCount"] == 0
            assert "X-Amz-Target" not in caplog.text
            for _ in range(2):
                await say(peer, '{"action":"unmapped"}')
                assert (await peer.json())["FailedEntryCount"] == 0
            assert caplog.text.count("X-Amz-Target to be mapped, to 'AWSEvents.PutEvents'") == 1
            await say(peer, '{"action":"record","n":1}')
            shard = (await peer.json())["ShardId"]
        iterator = kinesis.get_shard_iterator(StreamName="log", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        [found] = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
        assert found["Data"] == b'{"action":"record","n":1}'
        assert len(found["PartitionKey"]) == 16


# What is sent


async def test_calls_are_signed(endpoint: Endpoint) -> None:
    """Each call is signed with the services' key, for the region and the service of the uri."""
    services = Services(
        invoke=Lambda(), endpoints={"dynamodb": f"{endpoint.url}/"}, access_key="AKID", secret_key="a-secret"
    )
    uri = "arn:aws:apigateway:eu-west-1:dynamodb:action/PutItem"
    integration = Integration(
        type="AWS",
        uri=uri,
        request_templates={"$default": '{"TableName":"ü"}'},
        request_parameters={"integration.request.querystring.q": "'a b/ü'"},
    )
    async with integrated(services, {"$default": integration}) as lab, await Peer.open(lab.port) as peer:
        await say(peer, "{}")
        assert await peer.text() == "{}"
    asked = await endpoint.take()
    assert asked.header("x-amz-target") == "DynamoDB_20120810.PutItem"
    assert asked.header("content-type") == "application/x-amz-json-1.0"
    path, _, query = asked.path.partition("?")
    signer = verify(
        Keys({"AKID": "a-secret"}),
        method=asked.method,
        path=path,
        query=query,
        fields=list(asked.headers.items()),
        body=asked.body,
        service="dynamodb",
        region="eu-west-1",
        now_s=time.time(),
    )
    assert signer.checked


async def test_a_function_is_invoked_without_waiting_for_it(endpoint: Endpoint) -> None:
    """A mapped invocation type goes to Lambda's own API, whose answer is an empty 202."""
    endpoint.answer = (202, {}, b"")
    functions = Lambda()
    event = Integration(
        type="AWS",
        uri=INVOCATION,
        request_parameters={"integration.request.header.X-Amz-Invocation-Type": "'Event'"},
        responses=(mapped("$default", "taken"),),
    )
    services = Services(invoke=functions, endpoints={"lambda": endpoint.url})
    async with integrated(services, {"$default": event}) as lab, await Peer.open(lab.port) as peer:
        await say(peer, '{"a":1}')
        assert await peer.text() == "taken"
    asked = await endpoint.take()
    assert urlsplit(asked.path).path == f"/2015-03-31/functions/{FUNCTION}/invocations"
    assert asked.header("x-amz-invocation-type") == "Event"
    assert asked.body == b'{"a":1}'
    assert functions.calls == []


async def test_a_service_that_nobody_named_is_a_failure(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    """The client is told that something failed, the log which service, and where to name it."""
    services = Services(invoke=Lambda(), endpoints={"sqs": endpoint.url})
    async with (
        integrated(services, {"$default": aws("dynamodb:action/PutItem")}) as lab,
        await Peer.open(lab.port) as peer,
    ):
        await say(peer, "{}")
        assert (await peer.json())["message"] == "Internal server error"
    assert "no endpoint is known for 'dynamodb'" in caplog.text
    assert "Services.endpoints; there are: sqs" in caplog.text


async def test_a_form_that_says_not_that_it_is_one_is_pointed_out(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """SQS and SNS want their content type mapped, on AWS as well; it is sent as it is, and said once."""
    services = Services(invoke=Lambda(), endpoints={"sqs": endpoint.url})
    async with (
        integrated(services, {"$default": aws("sqs:path/1/q", "Action=SendMessage&MessageBody=x")}) as lab,
        await Peer.open(lab.port) as peer,
    ):
        for _ in range(2):
            await say(peer, "{}")
            assert await peer.text() == "{}"
    assert (await endpoint.take()).header("content-type") == "application/json"
    assert caplog.text.count("Content-Type to be mapped, to 'application/x-www-form-urlencoded'") == 1
