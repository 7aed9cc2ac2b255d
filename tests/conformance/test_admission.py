"""Who may connect where signatures, API keys or parameters are asked for: who is refused how, and what events say."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from gatewaylab import Functions, running, still_works
from rawpeer import TEXT, Answer, frame, request

from hubbub.apigateway import CONNECT, Api, ApiKey, Event, Route, Unauthorized
from hubbub.sigv4 import Credentials, Keys, sign

ALICE = Credentials("AKIDALICE", "alices-secret")
KEYS = Keys({ALICE.access_key: ALICE.secret_key})
API_KEYS = (ApiKey("key1", "a" * 20), ApiKey("key2", "b" * 20))


def signed(credentials: Credentials = ALICE, *, target: str = "/ws", age_s: float = 0.0) -> bytes:
    """A handshake that is signed in its headers."""
    fields = sign(
        credentials,
        method="GET",
        url=f"http://chat.example{target}",
        headers={},
        body=b"",
        service="execute-api",
        region="us-east-1",
        now_s=time.time() - age_s,
    )
    return request(target, extra=tuple(f"{name}: {value}" for name, value in fields.items() if name.lower() != "host"))


def presigned(credentials: Credentials = ALICE) -> bytes:
    """A handshake that is signed in its query, as browsers do it that cannot set headers."""
    asked = AWSRequest(method="GET", url="http://chat.example/ws?room=7")
    known = BotocoreCredentials(credentials.access_key, credentials.secret_key)
    SigV4QueryAuth(known, "execute-api", "us-east-1", expires=60).add_auth(asked)
    parts = urlsplit(str(asked.url))
    return request(f"{parts.path}?{parts.query}")


async def answer_to(head: bytes, functions: Functions, api: Api, **options: Any) -> Answer:
    """How a gateway of its own answers a handshake."""
    async with running(functions, api=api, **options) as lab, await lab.dial(head) as peer:
        return await peer.answer()


def of(functions: Functions, **options: Any) -> Api:
    """The functions' API with other options."""
    return Api(routes=functions.api().routes, **options)


@pytest.mark.parametrize("make", [signed, partial(signed, target="/ws?b=2&a=1%20x"), presigned])
async def test_a_signed_handshake_is_let_in_and_its_events_say_who(make: Callable[[], bytes]) -> None:
    """The signature may stand in the headers or in the query; `identity` names the account and the key's user."""
    functions = Functions()
    assert (await answer_to(make(), functions, of(functions, iam=True), keys=KEYS)).status == 101
    (event,) = functions.of("CONNECT")
    identity = event["requestContext"]["identity"]
    assert {name: identity[name] for name in ("accessKey", "accountId", "user", "caller", "userArn")} == {
        "accessKey": "AKIDALICE",
        "accountId": "123456789012",
        "user": "AKIDALICE",
        "caller": "AKIDALICE",
        "userArn": "arn:aws:iam::123456789012:user/AKIDALICE",
    }


@pytest.mark.parametrize(
    ("make", "words", "kind"),
    [
        (request, "Missing Authentication Token", "MissingAuthenticationTokenException"),
        (
            partial(signed, Credentials("AKIDALICE", "wrong")),
            "The request signature we calculated",
            "InvalidSignatureException",
        ),
        (partial(signed, Credentials("NOBODY", "x")), "The security token included", "UnrecognizedClientException"),
        (partial(signed, age_s=400), "Signature expired", "InvalidSignatureException"),
        (partial(request, extra=("Authorization: Bearer x",)), "", "IncompleteSignatureException"),
    ],
)
async def test_an_unsigned_or_wrongly_signed_handshake_is_refused_with_403(
    make: Callable[[], bytes], words: str, kind: str
) -> None:
    """The error's type and message are AWS's, and no function is asked."""
    functions = Functions()
    answer = await answer_to(make(), functions, of(functions, iam=True), keys=KEYS)
    assert answer.status == 403
    assert words in answer.message
    assert answer.headers["x-amzn-errortype"] == kind
    assert functions.events == []


async def test_without_known_keys_no_signed_handshake_is_let_in() -> None:
    """A gateway that knows nobody's secret cannot check one."""
    functions = Functions()
    assert (await answer_to(signed(), functions, of(functions, iam=True))).status == 403


async def test_any_key_signs_where_that_is_wanted() -> None:
    """As on a laptop, where functions have made-up credentials; a known key is still checked."""
    functions = Functions()
    keys = Keys(KEYS.known, accept_unknown=True)
    api = of(functions, iam=True)
    assert (await answer_to(signed(Credentials("NOBODY", "x")), functions, api, keys=keys)).status == 101
    assert (await answer_to(signed(Credentials("AKIDALICE", "wrong")), functions, api, keys=keys)).status == 403


async def test_an_api_key_in_the_header_lets_in_and_is_told() -> None:
    """`identity` has the key and its id; without one, and with a wrong one, the client is refused with 403."""
    functions = Functions()
    routes = functions.api(connect=Route(functions.connect, api_key_required=True)).routes
    api = Api(routes=routes, api_keys=API_KEYS)
    assert (await answer_to(request(X_Api_Key="b" * 20), functions, api)).status == 101
    identity = functions.of("CONNECT")[0]["requestContext"]["identity"]
    assert (identity["apiKey"], identity["apiKeyId"]) == ("b" * 20, "key2")
    for head in (request(), request(X_Api_Key="c" * 20), request(X_Api_Key="")):
        answer = await answer_to(head, functions, api)
        assert (answer.status, answer.message) == (403, "Forbidden")
    assert len(functions.of("CONNECT")) == 1


async def test_an_api_key_may_come_from_the_authorizer() -> None:
    """With the other key selection expression it is the authorizer's `usageIdentifierKey` that counts."""

    async def authorize(event: Event) -> Any:
        return {"principalId": "ann", "usageIdentifierKey": (event.query_string_parameters or {}).get("key", "")}

    functions = Functions()
    api = Api(
        routes=functions.api(connect=Route(functions.connect, api_key_required=True)).routes,
        api_keys=API_KEYS,
        authorizer=authorize,
        api_key_selection_expression="$context.authorizer.usageIdentifierKey",
    )
    assert (await answer_to(request("/ws?key=" + "a" * 20), functions, api)).status == 101
    assert functions.of("CONNECT")[0]["requestContext"]["identity"]["apiKeyId"] == "key1"
    assert (await answer_to(request("/ws?key=x", X_Api_Key="a" * 20), functions, api)).status == 403


async def test_a_required_parameter_that_is_missing_is_named_with_400() -> None:
    """Headers are found in any case; an empty value is none."""
    functions = Functions()
    required = ("route.request.querystring.room", "route.request.header.X-Device")
    api = functions.api(connect=Route(functions.connect, required_parameters=required))
    assert (await answer_to(request("/ws?room=7", X_DEVICE="phone"), functions, api)).status == 101
    answer = await answer_to(request("/ws?room="), functions, api)
    assert (answer.status, answer.message) == (400, "Missing required request parameters: [room, X-Device]")


async def test_the_authorizer_is_asked_before_keys_and_parameters() -> None:
    """Whoever is nobody is told so first."""

    async def refuse(event: Event) -> Any:
        raise Unauthorized

    functions = Functions()
    route = Route(functions.connect, api_key_required=True, required_parameters=("route.request.querystring.room",))
    api = Api(routes={CONNECT: route}, authorizer=refuse)
    assert (await answer_to(request(), functions, api)).status == 401


async def test_a_message_that_is_not_what_its_model_says_gets_the_document_for_it() -> None:
    """The function is not called, and the connection stays."""
    functions = Functions()

    def accepts(body: str) -> bool:
        return "forty-two" in body

    api = functions.api(strict=Route(functions.echo, two_way=True, accepts=accepts))
    async with running(functions, api=api) as lab, await lab.open() as peer:
        await peer.send(frame(TEXT, b'{"action": "strict", "answer": 41}'))
        document = await peer.text()
        message_id = document.split('"messageId": "')[1][:-2]
        assert document == (
            f'{{"message" : "Bad request body", "connectionId": "{peer.id}", "messageId": "{message_id}"}}'
        )
        assert len(message_id) == 16
        assert functions.of("MESSAGE") == []
        await peer.send(frame(TEXT, b'{"action": "strict", "answer": "forty-two"}'))
        assert await peer.text() == '{"action": "strict", "answer": "forty-two"}'
        await still_works(peer)
