"""A Flask view as the function behind WebSockets: one chat room, whose members are in a SQLite file.

Make a secret for the calls of the gateway and a key for ours, and start both with them:

    export HUBBUB_HANDLER_SECRET=whsec_$(openssl rand -base64 32)
    export AWS_ACCESS_KEY_ID=chat AWS_SECRET_ACCESS_KEY=$(openssl rand -hex 20)
    export HUBBUB_MANAGEMENT_KEYS=$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY
    flask --app examples/flask_view.py run &
    hubbub serve --handler http://127.0.0.1:5000/events

Then be somebody: python -m websockets "ws://127.0.0.1:8000/ws?name=Ann", and write {"text": "hello"}.
It needs flask, boto3 and standardwebhooks. The same function in Lambda would be written almost alike.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from typing import Any

import boto3
from flask import Flask, abort, request
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

DATABASE = os.environ.get("CHAT_DATABASE", "chat.db")

app = Flask(__name__)
calls = Webhook(os.environ["HUBBUB_HANDLER_SECRET"])
# Our own knowledge of where the gateway is: an event's domainName is what the client called it, and so anything.
gateway = boto3.client(
    "apigatewaymanagementapi",
    endpoint_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000"),
    region_name="us-east-1",
)


def ask(statement: str, *values: str) -> list[Any]:
    """Run one statement of SQL; the rows that it returns."""
    with closing(sqlite3.connect(DATABASE)) as database, database:
        return database.execute(statement, values).fetchall()


ask("CREATE TABLE IF NOT EXISTS members (connection TEXT PRIMARY KEY, name TEXT NOT NULL, since INTEGER NOT NULL)")


@app.post("/events")
def events() -> Any:
    """Every event of every connection."""
    try:
        event = calls.verify(request.get_data(), dict(request.headers))
    except (WebhookVerificationError, ValueError):
        abort(403)
    context = event["requestContext"]
    match context["eventType"]:
        case "CONNECT":
            return come(context["connectionId"], event.get("queryStringParameters", {}).get("name", ""))
        case "MESSAGE":
            return say(context["connectionId"], event["body"])
        case _:
            return leave(context["connectionId"])


def come(connection: str, name: str) -> Any:
    """Let somebody in who says who he is; what is not 2xx is what the handshake is answered with."""
    if not name.strip():
        return {"message": "Say who you are: /ws?name=…"}, 400
    ask("INSERT INTO members VALUES (?, ?, unixepoch())", connection, name)
    tell_all({"type": "come", "name": name}, but=connection)  # he himself is not there before we have answered
    return ""


def say(connection: str, body: str) -> Any:
    """Give everybody what somebody says. What is returned goes to him alone, nothing if it is empty."""
    try:
        text = json.loads(body)["text"]
    except (ValueError, TypeError, KeyError):
        return {"error": 'expected {"text": "…"}'}  # with 200: any other status is a failure of this function
    for (name,) in ask("SELECT name FROM members WHERE connection = ?", connection):
        tell_all({"type": "said", "name": name, "text": text})
    return ""


def leave(connection: str) -> Any:
    """Forget somebody; usually he is gone already."""
    for (name,) in ask("DELETE FROM members WHERE connection = ? RETURNING name", connection):
        tell_all({"type": "left", "name": name})
    return ""


def tell_all(message: dict[str, str], but: str = "") -> None:
    """Send to every connection but one, and forget those that are not there any more.

    Who is not there may be one whose `$connect` is not answered yet: a minute's patience keeps him on the list.
    """
    for (connection,) in ask("SELECT connection FROM members WHERE connection != ?", but):
        try:
            gateway.post_to_connection(ConnectionId=connection, Data=json.dumps(message))
        except gateway.exceptions.GoneException:
            ask("DELETE FROM members WHERE connection = ? AND since < unixepoch() - 60", connection)
