"""The chat's functions. Each knows who sends from the authorizer's context, and nothing of the backend."""

import json
import os
import time

import boto3
from boto3.dynamodb.conditions import Key
from botocore.exceptions import ClientError

table = boto3.resource("dynamodb").Table(os.environ["CONNECTIONS_TABLE"])


def connection(event, context):
    """`$connect` and `$disconnect`."""
    request = event["requestContext"]
    key = {"room": request["authorizer"]["room"], "connectionId": request["connectionId"]}
    if request["eventType"] == "CONNECT":
        table.put_item(Item={**key, "user": request["authorizer"]["principalId"], "expiresAt": int(time.time()) + 7500})
    else:
        table.delete_item(Key=key)
    return {"statusCode": 200}


def send(event, context):
    request = event["requestContext"]
    room, user = request["authorizer"]["room"], request["authorizer"]["principalId"]
    text = json.loads(event["body"]).get("text", "")
    data = json.dumps({"room": room, "from": user, "text": text, "id": request["messageId"]}).encode()
    api = boto3.client("apigatewaymanagementapi", endpoint_url=f"https://{request['domainName']}/{request['stage']}")
    for item in table.query(KeyConditionExpression=Key("room").eq(room))["Items"]:
        try:
            api.post_to_connection(ConnectionId=item["connectionId"], Data=data)
        except ClientError as error:
            if error.response["Error"]["Code"] != "GoneException":
                raise
            table.delete_item(Key={"room": room, "connectionId": item["connectionId"]})
    return {"statusCode": 200}


def whoami(event, context):
    authorizer = event["requestContext"]["authorizer"]
    return {"statusCode": 200, "body": json.dumps({"user": authorizer["principalId"], "room": authorizer["room"]})}


def default(event, context):
    request = event["requestContext"]
    api = boto3.client("apigatewaymanagementapi", endpoint_url=f"https://{request['domainName']}/{request['stage']}")
    api.post_to_connection(ConnectionId=request["connectionId"], Data=b'{"error": "actions: send, whoami"}')
    return {"statusCode": 200}
