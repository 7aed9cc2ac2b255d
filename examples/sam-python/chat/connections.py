"""`$connect` and `$disconnect`: who is there."""

import os
import time

import boto3

TWO_HOURS_S = 2 * 3600

connections = boto3.resource("dynamodb").Table(os.environ["CONNECTIONS_TABLE"])


def connect(event, context):
    query = event.get("queryStringParameters", {})
    name = query.get("name", "").strip()
    if not name:
        return {"statusCode": 400, "body": "Say who you are: ?name=…"}
    connections.put_item(
        Item={
            "connectionId": event["requestContext"]["connectionId"],
            "name": name,
            "expiresAt": int(time.time()) + TWO_HOURS_S,
        }
    )
    return {"statusCode": 200}


def disconnect(event, context):
    connections.delete_item(Key={"connectionId": event["requestContext"]["connectionId"]})
    print(f"gone: {event['requestContext'].get('disconnectReason')}")
    return {"statusCode": 200}
