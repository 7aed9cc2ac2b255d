"""The handlers of the WebSocket API's routes: API Gateway's event in, the chat's answer out.

The body of an answer reaches the client by the route's response; `$connect` is ruled by the status.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from hubbub.apigateway import Event, Response
from hubbub.aws.marshalling import Key
from hubbub.chat import Chat
from hubbub.errors import BadRequest, HubbubError, Internal
from hubbub.fanout.apigateway.keys import connection_key
from hubbub.lambdas.home import Home
from hubbub.lambdas.invocation import Document, Function, Invocation
from hubbub.lambdas.logs import ids_of
from hubbub.lambdas.measuring import measured
from hubbub.model import ConnectionId, UserId
from hubbub.protocol import Room_, decode_envelope, encode, error_reply
from hubbub.store.dynamodb.keys import room_key, seat_key, user_key

logger = logging.getLogger("hubbub.lambdas")

REPLY_MARGIN_S = 1.0
"""How long before the invocation ends a client is told that it failed."""

SETTLE_S = 5.0
"""How long hooks may keep an answer waiting: once it is given, the process may stand still."""


async def answer(home: Home, event: Event, call: Invocation) -> Document:
    """Answer an event of any route."""
    call.measures.said |= {"event": event.request_context.event_type, "route": event.request_context.route_key}
    try:
        async with asyncio.timeout(call.left_s(REPLY_MARGIN_S)):
            chat = await home.chat()
            home.read_ahead(_expected(event))
            with measured(chat, call.measures):
                response = await chat.handle(event)
                await chat.settle(min(SETTLE_S, call.left_s(2 * REPLY_MARGIN_S)))
    except HubbubError as error:
        logger.warning("the chat could not be opened: %s", error)
        return _refusal(event, error)
    except TimeoutError:
        if event.request_context.event_type != "MESSAGE":
            raise
        logger.error("the answer took too long")
        call.measures.counts["Failures"] += 1
        return _refusal(event, Internal())
    finally:
        home.read_ahead(())
    return _document(response)


class _About(msgspec.Struct):
    """What a message says of the room that it is about."""

    room: Room_


_about = msgspec.json.Decoder(_About)


def _expected(event: Event) -> list[Key]:
    """What answering a message will ask the table for, whatever it is: read at once, it takes one call and not four."""
    context = event.request_context
    if context.event_type != "MESSAGE":
        return []
    expected = [connection_key(ConnectionId(context.connection_id))]
    user = (context.authorizer or {}).get("principalId")
    if not isinstance(user, str):
        return expected
    expected.append(user_key(UserId(user)))
    try:
        room = _about.decode(event.body or "").room
    except (msgspec.DecodeError, RecursionError):
        return expected
    return [*expected, room_key(room), seat_key(UserId(user), room)]


def _refusal(event: Event, error: HubbubError) -> Document:
    """The answer where the chat could not give one; a client that asked learns which of its frames that was."""
    context = event.request_context
    if context.event_type != "MESSAGE":
        return _document(Response(status_code=error.status))
    try:
        ref = decode_envelope(event.body or "").ref
    except BadRequest:
        ref = None
    return _document(Response(body=encode(error_reply(error, ref, context.request_id))))


def _document(response: Response) -> Document:
    """The answer as API Gateway reads it (developer guide, "Set up a WebSocket API integration")."""
    document: Document = {"statusCode": response.status_code}
    if response.headers:
        document["headers"] = response.headers
    if response.body is not None:
        document["body"] = response.body.decode() if isinstance(response.body, bytes) else response.body
    return document


async def _warm(home: Home) -> Chat:
    return await home.chat()


handler = Function(answer, takes=Event, about=ids_of, warm=_warm)
"""Every route in one function: the environments that chat keeps warm also take the handshakes."""

connect = disconnect = message = handler
"""The same for templates with a function for each: they differ in memory, time-out and concurrency, not in code."""
