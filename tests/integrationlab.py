"""Events for integrations, and a Lambda service that is none, for tests with and without a gateway."""

from __future__ import annotations

import json
from typing import Any

from hubbub.apigateway import Event, Handler, Identity, RequestContext
from hubbub.gateway.integrations import Integration, Invoked, Services
from hubbub.gateway.integrations.build import Integrations

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:chat"
INVOCATION = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{FUNCTION}/invocations"


def an_event(body: str | None = "{}", *, connect: bool = False, **fields: Any) -> Event:
    """A message, or a handshake with headers and a query."""
    context = RequestContext(
        route_key="$connect" if connect else "send",
        event_type="CONNECT" if connect else "MESSAGE",
        extended_request_id="R=",
        request_id="R=",
        request_time="19/Feb/2024:07:11:42 +0000",
        stage="dev",
        connected_at=1_708_326_702_000,
        request_time_epoch=1_708_326_702_367,
        identity=Identity("192.0.2.1"),
        domain_name="api.example.test",
        connection_id="C=",
        api_id="abc",
        message_id=None if connect else "M=",
        authorizer={"principalId": "ann", "level": 3, "ratio": 0.5, "trusted": True},
    )
    if connect:
        fields = {
            "headers": {"X-Token": "t", "Accept": "b"},
            "multi_value_headers": {"X-Token": ["t"], "Accept": ["a", "b"]},
            "query_string_parameters": {"room": "two"},
            "multi_value_query_string_parameters": {"room": ["one", "two"]},
            **fields,
        }
        return Event(request_context=context, is_base64_encoded=False, **fields)
    return Event(request_context=context, body=body, is_base64_encoded=False, **fields)


class Lambda:
    """A Lambda service that answers one thing, and keeps what it was called with."""

    def __init__(self, payload: Any = None, function_error: str | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._answer = Invoked(json.dumps(payload).encode(), function_error)

    async def __call__(self, function: str, payload: bytes) -> Invoked:
        self.calls.append((function, json.loads(payload)))
        return self._answer

    def handler(self, *, two_way: bool = True, **integration: Any) -> Handler:
        """A handler of an integration with a function, this service's if it names none."""
        return Integrations(Services(invoke=self)).handler(
            Integration(**{"uri": INVOCATION, **integration}), two_way=two_way
        )
