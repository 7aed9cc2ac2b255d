"""AWS's services behind routes, with no function between: requests as API Gateway makes them, signed, to emulators.

A service's `uri` names an action (`arn:aws:apigateway:{region}:dynamodb:action/PutItem`) or a path
(`arn:aws:apigateway:{region}:sqs:path/{account}/{queue}`).
Source: developer guide, "Integration request basic setup"; the services' own API references.
"""

from __future__ import annotations

import logging
import re
import time
import xml.etree.ElementTree as ElementTree
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from hubbub.apigateway import Event
from hubbub.apigateway.selection import Answer
from hubbub.gateway.integrations.definition import Integration, Services
from hubbub.gateway.integrations.endpoints import BODILESS, HttpClient, with_query
from hubbub.gateway.integrations.failures import IntegrationFailed
from hubbub.gateway.integrations.requests import Outgoing, resolve_uri
from hubbub.sigv4 import Credentials, sign

logger = logging.getLogger("hubbub.gateway")

EVERY_SERVICE = "*"
"""The name of the endpoint of services that have none of their own."""

_URI = re.compile(
    r"arn:[\w-]+:apigateway:(?P<region>[^:]*):(?:[^:]+\.)?(?P<service>[\w-]+):(?P<kind>path|action)/(?P<rest>.*)"
)


class _Json(NamedTuple):
    """A service that takes JSON: what its `X-Amz-Target` begins with, and its JSON version.

    `sets_target` is false where API Gateway leaves that header to whoever maps it.
    """

    target: str
    version: str
    sets_target: bool = True


_JSON = {
    "athena": _Json("AmazonAthena", "1.1"),
    "cognito-idp": _Json("AWSCognitoIdentityProviderService", "1.1"),
    "dynamodb": _Json("DynamoDB_20120810", "1.0"),
    "events": _Json("AWSEvents", "1.1", sets_target=False),
    "firehose": _Json("Firehose_20150804", "1.1"),
    "kinesis": _Json("Kinesis_20131202", "1.1"),
    "kms": _Json("TrentService", "1.1"),
    "logs": _Json("Logs_20140328", "1.1"),
    "secretsmanager": _Json("secretsmanager", "1.1"),
    "ssm": _Json("AmazonSSM", "1.1"),
    "states": _Json("AWSStepFunctions", "1.0"),
}
"""Any other service takes forms, with the action's name as `Action`, as SQS and SNS do."""

_FORM = "application/x-www-form-urlencoded"


class _Address(NamedTuple):
    """What a service's `uri` says; `action` and `path` are None where it is the other."""

    region: str
    service: str
    action: str | None
    path: str | None


class AwsService:
    """AWS with a service.

    Args:
        integration: its definition.
        services: where services are, and what calls to them are signed with.
        client: calls them.

    Raises:
        ValueError: the `uri` is none of a service.

    """

    def __init__(self, integration: Integration, services: Services, client: HttpClient) -> None:
        _address(integration.uri)
        self._integration = integration
        self._services = services
        self._client = client
        self._warned = False  # whether it was said that a header should be mapped

    async def __call__(self, outgoing: Outgoing, event: Event) -> Answer:
        """Call the service; a refusal of its is an answer.

        Raises:
            IntegrationFailed: there is no endpoint for it, or it could not be reached in time.

        """
        address = _address(resolve_uri(self._integration.uri, event, outgoing.path))
        method = "POST" if self._integration.method == "ANY" else self._integration.method
        headers = {_spelled(name): value for name, value in outgoing.headers.items()}
        query = list(outgoing.query.items())
        body = b"" if method in BODILESS else outgoing.body
        if (spoken := _JSON.get(address.service)) is not None:
            self._speak_json(address, spoken, headers)
        elif address.action is not None:
            query = [("Action", address.action), *query]
            if not headers.get("Content-Type", "").startswith(_FORM) and method == "POST":
                # AWS takes both the query and JSON as content type; emulators want it all in the form.
                headers["Content-Type"], body, query = _FORM, urlencode(query).encode(), []
        elif address.service in ("sqs", "sns") and "Content-Type" not in headers:
            self._warn("Content-Type", _FORM)
        headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
        if headers["Content-Type"].startswith(_FORM):
            body = body.strip()  # a template's last line feed is no part of a form's last value
        url = with_query(f"{self._endpoint(address.service)}/{address.path or ''}", query)
        headers |= sign(
            Credentials(self._services.access_key, self._services.secret_key),
            method=method,
            url=url,
            headers=headers,
            body=body,
            service=address.service,
            region=address.region,
            now_s=time.time(),
        )
        answer = await self._client.call(
            method, url, headers=list(headers.items()), body=body, timeout_s=self._integration.timeout_ms / 1_000
        )
        return answer if "xml" in headers.get("Accept", "") else _as_json(answer)

    def _endpoint(self, service: str) -> str:
        endpoints = self._services.endpoints
        endpoint = endpoints.get(service) or endpoints.get(EVERY_SERVICE)
        if endpoint is None:
            known = ", ".join(sorted(endpoints)) or "none"
            raise IntegrationFailed(
                f"no endpoint is known for {service!r}, which {self._integration.uri} needs: name one in "
                f"Services.endpoints; there are: {known}"
            )
        return endpoint.rstrip("/")

    def _speak_json(self, address: _Address, spoken: _Json, headers: dict[str, str]) -> None:
        """Add what API Gateway adds to an action of a service that takes JSON; a path says everything itself."""
        if address.action is None:
            return
        target = f"{spoken.target}.{address.action}"
        if "X-Amz-Target" not in headers and not spoken.sets_target:
            self._warn("X-Amz-Target", target)
        headers.setdefault("X-Amz-Target", target)
        headers.setdefault("Content-Type", f"application/x-amz-json-{spoken.version}")

    def _warn(self, header: str, value: str) -> None:
        if not self._warned:
            self._warned = True
            uri = self._integration.uri
            logger.warning("%s: AWS wants integration.request.header.%s to be mapped, to '%s'", uri, header, value)


def _address(uri: str) -> _Address:
    match = _URI.fullmatch(uri)
    if match is None:
        raise ValueError(
            "expected arn:aws:apigateway:REGION:SERVICE:action/ACTION or …:path/PATH as the uri of AWS, "
            f"or the ARN of a Lambda function, got {uri!r}"
        )
    is_action = match["kind"] == "action"
    return _Address(
        match["region"] or "us-east-1",
        match["service"],
        match["rest"] if is_action else None,
        None if is_action else match["rest"].lstrip("/"),
    )


def _spelled(name: str) -> str:
    """The usual spelling of a header: `X-Amz-Target`."""
    return "-".join(part.capitalize() for part in name.split("-"))


def _as_json(answer: Answer) -> Answer:
    """An answer of a service that speaks XML, as the JSON that it answers with when API Gateway asks for that.

    Emulators know only XML. SQS's `SendMessageResponse` is in an object under that name, errors are not.
    """
    kind = next((value for name, value in answer.headers if name.lower() == "content-type"), "")
    if "xml" not in kind and not answer.body.lstrip().startswith((b"<?xml", b"<ErrorResponse")):
        return answer
    try:
        root = ElementTree.fromstring(answer.body)  # noqa: S314  from an endpoint that the user named
    except ElementTree.ParseError:
        return answer
    name = root.tag.rpartition("}")[2]
    document = _json_of(root)
    body = msgspec.json.encode(document if name == "ErrorResponse" else {name: document})
    headers = [pair for pair in answer.headers if pair[0].lower() not in ("content-type", "content-length")]
    return Answer(status=answer.status, headers=[*headers, ("Content-Type", "application/json")], body=body)


def _json_of(element: ElementTree.Element) -> Any:  # Any: JSON of a shape that the service decides
    """An element's text, or its children by name; those of one name, and `member`s, are a list."""
    if not len(element):
        return element.text
    children: dict[str, list[Any]] = {}
    for child in element:
        children.setdefault(child.tag.rpartition("}")[2], []).append(_json_of(child))
    if children.keys() == {"member"}:
        return children["member"]
    return {name: values[0] if len(values) == 1 else values for name, values in children.items()}
