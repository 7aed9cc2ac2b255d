"""The chat's routes: join a room, send a message to all in it, read what was said."""

import json
import os
import time
from datetime import UTC, datetime

import boto3
from boto3.dynamodb.conditions import Key

dynamodb = boto3.resource("dynamodb")
connections = dynamodb.Table(os.environ["CONNECTIONS_TABLE"])
messages = dynamodb.Table(os.environ["MESSAGES_TABLE"])
HISTORY_S = int(os.environ["HISTORY_DAYS"]) * 86400


def join(event, context):
    body = json.loads(event["body"])
    me = event["requestContext"]["connectionId"]
    connections.update_item(
        Key={"connectionId": me},
        UpdateExpression="SET room = :room",
        ExpressionAttributeValues={":room": body["room"]},
    )
    post(client(event), me, {"type": "joined", "room": body["room"]})
    return {"statusCode": 200}


def send(event, context):
    body = json.loads(event["body"])
    me = connections.get_item(Key={"connectionId": event["requestContext"]["connectionId"]})["Item"]
    if "room" not in me:
        post(client(event), me["connectionId"], {"type": "error", "message": "Join a room first."})
        return {"statusCode": 400}
    message = {
        "room": me["room"],
        "sentAt": datetime.now(UTC).isoformat(timespec="microseconds"),
        "name": me["name"],
        "text": body["text"],
    }
    messages.put_item(Item={**message, "expiresAt": int(time.time()) + HISTORY_S})
    api = client(event)
    for member in members(me["room"]):
        post(api, member["connectionId"], {"type": "message", **message})
    return {"statusCode": 200}


def history(event, context):
    me = event["requestContext"]["connectionId"]
    room = json.loads(event["body"])["room"]
    found = messages.query(KeyConditionExpression=Key("room").eq(room), ScanIndexForward=False, Limit=50)
    said = [{key: item[key] for key in ("sentAt", "name", "text")} for item in reversed(found["Items"])]
    post(client(event), me, {"type": "history", "room": room, "messages": said})
    return {"statusCode": 200}


def client(event):
    """The management API of the very stage that the event came from."""
    context = event["requestContext"]
    return boto3.client("apigatewaymanagementapi", endpoint_url=f"https://{context['domainName']}/{context['stage']}")


def post(api, connection_id, document):
    try:
        api.post_to_connection(ConnectionId=connection_id, Data=json.dumps(document).encode())
    except api.exceptions.GoneException:
        connections.delete_item(Key={"connectionId": connection_id})


def members(room):
    pages = {"IndexName": "by-room", "KeyConditionExpression": Key("room").eq(room)}
    while True:
        found = connections.query(**pages)
        yield from found["Items"]
        if "LastEvaluatedKey" not in found:
            return
        pages["ExclusiveStartKey"] = found["LastEvaluatedKey"]
