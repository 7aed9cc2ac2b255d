"""Who may connect: what is asked of a request for a WebSocket, in API Gateway's order, and what a refusal says.

The account's quota, the signature or the authorizer, the API key, the parameters that must be there, and `$connect`.
Source: developer guide, "Controlling and managing access to a WebSocket API" and "Manage connected users".
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hubbub.apigateway import CONNECT, Api, ApiKey, Event, Refused, Response, checked_context
from hubbub.apigateway.selection import Variables, evaluate
from hubbub.gateway.deadlines import Deadlines
from hubbub.gateway.handshake import (
    Headers,
    Refusal,
    Request,
    authorizer_event,
    connect_event,
    said,
)
from hubbub.gateway.integrations import InProcess
from hubbub.gateway.integrations.calls import log_failure
from hubbub.gateway.queueing import RETRY_AFTER_S
from hubbub.sigv4 import Keys, Rejected, verify

if TYPE_CHECKING:
    from hubbub.gateway.sockets import Connection

FORBIDDEN = Refusal(403, said("Forbidden"))
TOO_MANY = Refusal(429, said("Too Many Requests"))


def refusal(status: int, body: bytes, retry_after_s: int | None = None) -> Refusal:
    """A refusal that says when to come back if that can help: in so many seconds, or in a few."""
    if status != 503:
        return Refusal(status, body)
    return Refusal(status, body, {"Retry-After": str(retry_after_s or random.choice(RETRY_AFTER_S))})  # noqa: S311  no secret


def full(retry_after_s: int | None = None) -> Refusal:
    """There is no room for a connection, or no time to decide whether there is until so many seconds have passed."""
    return refusal(503, said("No more connections just now."), retry_after_s)


class Admission:
    """Asks all who have a say in whether a client may connect.

    Args:
        integration: calls `$connect`.
        timeout_s: how long an authorizer may take.
        keys: what signed handshakes are checked with; None refuses them all.
        failed: told of each authorizer and `$connect` that failed.

    """

    def __init__(
        self, integration: InProcess, *, timeout_s: float, keys: Keys | None, failed: Callable[[], None]
    ) -> None:
        self._integration = integration
        self._timeout_s = timeout_s
        self._keys = keys
        self._failed = failed
        self._deadlines = Deadlines()

    async def decide(
        self, connection: Connection, request: Request, headers: Headers, late: Callable[[Response], None]
    ) -> Refusal | str | None:
        """A refusal, or the subprotocol that was chosen if one was.

        Args:
            connection: it is told who signed, what the authorizer said and which API key was shown.
            request: what the client asked.
            headers: its headers, as functions get them.
            late: told of what `$connect` answers after it was given up.

        """
        api = connection.api
        if api.iam:
            problem = self._check_signature(connection, request)
            if problem is not None:
                return problem
        context = connection.context("CONNECT", CONNECT)
        if api.authorizer is not None:
            problem = await self._ask_authorizer(connection, authorizer_event(context, api, request, headers))
            if problem is not None:
                return problem
        route = api.routes.get(CONNECT)
        if route is None:
            return None
        context = copy.copy(context)  # it is the authorizer's own
        context.authorizer = connection.authorizer
        event = connect_event(context, api, request, headers)
        if route.api_key_required:
            key = _api_key(api, event)
            if key is None:
                return FORBIDDEN
            connection.identify(api_key=key.value, api_key_id=key.id)
            context.identity = connection.identity
        if route.required_parameters:
            there = Variables(event).value_of
            absent = [name for name in route.required_parameters if not there(name)]
        else:
            absent = []
        if absent:
            names = ", ".join(name.rpartition(".")[2] for name in absent)
            return Refusal(400, said(f"Missing required request parameters: [{names}]"))
        try:
            response = await self._integration.call(route.handler, event, timeout_s=route.timeout_s, late=late)
            return _outcome(response, request)
        except Exception as error:
            self._failed()
            log_failure("$connect failed", error, connection.ids())
            return Refusal(502, said("Internal server error"))

    def _check_signature(self, connection: Connection, request: Request) -> Refusal | None:
        query = request.target.partition("?")[2]
        try:
            signer = verify(
                self._keys or Keys({}),
                method=request.method,
                path=request.path,
                query=query,
                fields=request.fields,
                body=b"",
                service="execute-api",
                now_s=time.time(),
            )
        except Rejected as rejected:
            return Refusal(rejected.status, said(rejected.message), {"x-amzn-ErrorType": rejected.type})
        account = connection.api.account
        connection.identify(
            access_key=signer.access_key,
            account_id=account,
            caller=signer.access_key,
            user=signer.access_key,
            user_arn=f"arn:aws:iam::{account}:user/{signer.access_key}",
        )
        return None

    async def _ask_authorizer(self, connection: Connection, event: Event) -> Refusal | None:
        authorizer = connection.api.authorizer
        assert authorizer is not None  # noqa: S101  it is asked where there is one
        started = time.perf_counter()
        try:
            with self._deadlines.within(self._timeout_s):
                said_of_it = await authorizer(event)
            took_ms = round((time.perf_counter() - started) * 1_000)
            connection.authorizer = {**checked_context(said_of_it), "integrationLatency": took_ms}
        except Refused as error:
            return refusal(error.status, error.body)
        except Exception as error:
            self._failed()
            log_failure("the authorizer failed", error, connection.ids())
            return Refusal(500, said("Internal server error"))
        return None


def _api_key(api: Api, event: Event) -> ApiKey | None:
    """The key that the client has shown; None for none of the API's."""
    shown = evaluate(api.api_key_selection_expression, Variables(event).value_of)
    return next((key for key in api.api_keys if shown and key.value == shown), None)


def _outcome(response: Response, request: Request) -> Refusal | str | None:
    """What `$connect` has decided: a refusal, or the subprotocol that it chose if it did.

    Raises:
        ValueError: the status is none that can be sent.

    """
    status = response.status_code
    if not 200 <= status <= 599:
        raise ValueError(f"expected a status from 200 to 599, got {status!r}")
    if status >= 300:
        body = response.body.encode() if isinstance(response.body, str) else response.body
        return refusal(status, body or b"")
    chosen = next((v for k, v in (response.headers or {}).items() if k.lower() == "sec-websocket-protocol"), None)
    return chosen if chosen in request.subprotocols() else None
