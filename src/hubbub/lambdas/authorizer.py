"""The REQUEST authorizer of `$connect`: a token in, an IAM policy out.

API Gateway shows a client a status and no more: 401 where the function fails with the word `Unauthorized`, 403 where
the policy denies, 500 for everything else. WebSocket APIs have no gateway responses with which that could be changed,
so why a token is refused stands in the log alone. Source: docs.aws.amazon.com/apigateway/latest/developerguide,
"Control access to WebSocket APIs with AWS Lambda REQUEST authorizers".
"""

from __future__ import annotations

import logging

import msgspec

from hubbub.apigateway import AuthorizerContext, Event, Refused, Unauthorized
from hubbub.lambdas.home import Home
from hubbub.lambdas.invocation import AnswerByError, Document, Function, Invocation
from hubbub.lambdas.logs import ids_of
from hubbub.lambdas.measuring import measured

logger = logging.getLogger("hubbub.lambdas")

MAX_RESULT_BYTES = 8 * 1024
"""The longest answer of an authorizer ("Quotas for WebSocket APIs")."""


async def decide(home: Home, event: Event, call: Invocation) -> Document:
    """Let the handshake's token in, or not.

    Raises:
        AnswerByError: 401, the token is missing, bad or expired.

    """
    if event.method_arn is None:
        raise ValueError("expected an event with a methodArn, which only authorizers are given")
    chat = await home.doorman()
    try:
        with measured(chat, call.measures):
            context = await chat.authorize(event)
    except Unauthorized as error:
        logger.info("handshake refused: %s", error.body.decode(errors="replace"))
        raise AnswerByError("Unauthorized") from None
    except Refused as error:
        logger.warning("handshake refused with %d: %s", error.status, error.body.decode(errors="replace"))
        raise AnswerByError("Unavailable") from None  # the client sees 500, and comes back
    policy = _policy(event, context, allow=True)
    if len(msgspec.json.encode(policy)) > MAX_RESULT_BYTES:
        logger.error("handshake refused: the token's claims are more than the %d bytes of a policy", MAX_RESULT_BYTES)
        call.measures.counts["Errors"] += 1
        return _policy(event, {"principalId": context["principalId"]}, allow=False)
    return policy


def _policy(event: Event, context: AuthorizerContext, *, allow: bool) -> Document:
    """The answer for this one handshake; what of `context` is not the principal's id comes with every later event."""
    statement = {
        "Action": "execute-api:Invoke",
        "Effect": "Allow" if allow else "Deny",
        "Resource": event.method_arn,
    }
    return {
        "principalId": str(context["principalId"]),
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": {name: value for name, value in context.items() if name != "principalId"},
    }


authorize = Function(decide, takes=Event, about=ids_of, warm=Home.warm_tokens)
"""The authorizer."""
