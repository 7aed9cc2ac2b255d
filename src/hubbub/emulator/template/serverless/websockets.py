"""The WebSocket API that a service's `websocket` events make: routes, integrations, authorizers, a stage.

Source: the framework's documentation, "Websocket" under "AWS Lambda Events", and what osls 3 and 4 generate.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless import naming
from hubbub.emulator.template.serverless.document import Listing, Place, Section, Text, name_of
from hubbub.emulator.template.serverless.draft import Document, Draft, arn_of, join, ref
from hubbub.emulator.template.serverless.expect import as_section, text_at
from hubbub.emulator.template.serverless.service import Event, FunctionEntry, Service

_DEFAULT_EXPRESSION = "$request.body.action"
_DEFAULT_DESCRIPTION = "Serverless Websockets"
_DEFAULT_SOURCE = "route.request.header.Auth"

_DEFAULT_LOG_FORMAT = (
    "$context.identity.sourceIp $context.identity.caller $context.identity.user [$context.requestTime]"
    ' "$context.eventType $context.routeKey $context.connectionId" $context.requestId'
)


class _Authorizer(NamedTuple):
    name: str
    target: Any  # Any: an ARN as CloudFormation writes it
    sources: list[Any]
    is_own: bool  # whether it is one of the service's functions


class _Route(NamedTuple):
    function: str
    key: str
    response: str | None
    authorizer: _Authorizer | None


def put_websockets(service: Service, draft: Draft) -> None:
    """Put the API of all `websocket` events into the draft; none where there are none.

    Raises:
        TemplateError: an event is not described as one.

    """
    routes = [
        _route(service, function, event)
        for function in service.functions.values()
        for event in function.events
        if event.kind == "websocket" and event.value
    ]
    if not routes:
        return
    _put_api(service, draft)
    for route in routes:
        _put_route(route, draft)
    _put_stage(service, draft, routes)


def _route(service: Service, function: FunctionEntry, event: Event) -> _Route:
    if isinstance(event.value, Text):
        return _Route(function.key, str(event.value), None, None)
    section = as_section(event.value, event.place, "websocket")
    key = text_at(section, "route")
    if not key:
        raise TemplateError(*event.place, f"expected a route in the websocket event, got {name_of(key)}")
    authorizer = section.get("authorizer")
    return _Route(
        function.key,
        str(key),
        text_at(section, "routeResponseSelectionExpression"),
        _authorizer(service, authorizer, section.place_of("authorizer")) if authorizer else None,
    )


def _authorizer(service: Service, value: Any, place: Place) -> _Authorizer:  # Any: whatever a file holds
    if isinstance(value, Text):
        target = _target(service, value, place)
        return _Authorizer(_last_part(value), target, [_DEFAULT_SOURCE], ":" not in value)
    section = as_section(value, place, "authorizer")
    name, arn = text_at(section, "name"), section.get("arn")
    if arn and not isinstance(arn, Text) and not name:
        raise TemplateError(*place, "expected a name beside an authorizer's arn that is no string, got none")
    if not arn and not name:
        raise TemplateError(*place, "expected a name or an arn in authorizer, got neither")
    sources = section.get("identitySource")
    if sources is None or sources == "":
        sources = _DEFAULT_SOURCE
    return _Authorizer(
        _last_part(arn) if isinstance(arn, Text) else str(name),
        arn or _target(service, str(name), place),
        list(sources) if isinstance(sources, Listing) else [sources],
        not arn,
    )


def _target(service: Service, name: str, place: Place) -> Any:  # Any: an ARN as CloudFormation writes it
    if ":" in name:
        return name
    if name not in service.functions:
        raise TemplateError(*place, f"the authorizer {str(name)!r} is none of the service's functions")
    return arn_of(naming.function_id(name))


def _last_part(arn: str) -> str:
    return arn.rsplit(":", 1)[-1]


def _put_api(service: Service, draft: Draft) -> None:
    provider = service.provider
    draft.put(
        naming.API,
        "AWS::ApiGatewayV2::Api",
        {
            "Name": text_at(provider, "websocketsApiName") or f"{service.stage}-{service.name}-websockets",
            "RouteSelectionExpression": text_at(provider, "websocketsApiRouteSelectionExpression")
            or _DEFAULT_EXPRESSION,
            "Description": _description(service),
            "ProtocolType": "WEBSOCKET",
        },
    )
    if provider.get("websocketApiId"):
        draft.name(
            naming.API,
            "provider.apiGateway.websocketApiId",
            "it names an API of another stack, which is not here: the service gets an API of its own, with its own"
            " routes alone",
        )


def _put_route(route: _Route, draft: Draft) -> None:
    function = naming.function_id(route.function)
    draft.put(
        naming.integration_id(route.function),
        "AWS::ApiGatewayV2::Integration",
        {"ApiId": ref(naming.API), "IntegrationType": "AWS_PROXY", "IntegrationUri": _invocation(arn_of(function))},
    )
    draft.put(
        naming.permission_id(route.function),
        "AWS::Lambda::Permission",
        _permission(arn_of(function)),
        DependsOn=[naming.API, function],
    )
    if route.authorizer:
        _put_authorizer(route.authorizer, draft)
    draft.put(
        naming.route_id(route.key),
        "AWS::ApiGatewayV2::Route",
        {
            "ApiId": ref(naming.API),
            "RouteKey": route.key,
            "AuthorizationType": "CUSTOM" if route.authorizer else "NONE",
            "AuthorizerId": ref(naming.authorizer_id(route.authorizer.name)) if route.authorizer else None,
            "RouteResponseSelectionExpression": route.response,
            "Target": join("integrations", ref(naming.integration_id(route.function)), by="/"),
        },
    )
    if route.response:
        draft.put(
            f"{naming.route_id(route.key)}Response",
            "AWS::ApiGatewayV2::RouteResponse",
            {"ApiId": ref(naming.API), "RouteId": ref(naming.route_id(route.key)), "RouteResponseKey": "$default"},
        )


def _put_authorizer(authorizer: _Authorizer, draft: Draft) -> None:
    draft.put(
        naming.authorizer_id(authorizer.name),
        "AWS::ApiGatewayV2::Authorizer",
        {
            "ApiId": ref(naming.API),
            "Name": authorizer.name,
            "AuthorizerType": "REQUEST",
            "AuthorizerUri": _invocation(authorizer.target),
            "IdentitySource": authorizer.sources,
        },
    )
    draft.put(
        naming.permission_id(authorizer.name),
        "AWS::Lambda::Permission",
        _permission(authorizer.target),
        DependsOn=[naming.API, *([authorizer.target["Fn::GetAtt"][0]] if authorizer.is_own else [])],
    )


def _invocation(target: object) -> Document:
    region, partition = ref("AWS::Region"), ref("AWS::Partition")
    path = ":lambda:path/2015-03-31/functions/"
    return join("arn:", partition, ":apigateway:", region, path, target, "/invocations")


def _permission(target: object) -> Document:
    return {"FunctionName": target, "Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com"}


def _put_stage(service: Service, draft: Draft, routes: list[_Route]) -> None:
    parts = [part for route in routes for part in _parts(route)]
    digest = hashlib.sha256(json.dumps([draft.resources[part] for part in parts], default=str).encode()).hexdigest()
    deployment = naming.deployment_id(digest[:40])
    draft.put(
        naming.STAGE,
        "AWS::ApiGatewayV2::Stage",
        {
            "ApiId": ref(naming.API),
            "StageName": service.stage,
            "Description": _description(service),
            "DeploymentId": ref(deployment),
            **_logging(service, draft),
        },
    )
    draft.put(
        deployment,
        "AWS::ApiGatewayV2::Deployment",
        {"ApiId": ref(naming.API), "Description": _description(service)},
        DependsOn=parts,
    )
    host = ("wss://", ref(naming.API), ".execute-api.", ref("AWS::Region"), ".", ref("AWS::URLSuffix"))
    draft.outputs["ServiceEndpointWebsocket"] = {
        "Description": "URL of the service endpoint",
        "Value": join(*host, f"/{service.stage}"),
    }


def _parts(route: _Route) -> list[str]:
    """What a deployment waits for."""
    logical_id = naming.route_id(route.key)
    return [f"{logical_id}Response", logical_id] if route.response else [logical_id]


def _description(service: Service) -> str:
    return text_at(service.provider, "websocketsDescription") or _DEFAULT_DESCRIPTION


def _logging(service: Service, draft: Draft) -> Document:
    """What `provider.logs.websocket` (true, or a mapping) makes of the stage."""
    logs = service.provider.get("websocketLogs")
    if not logs:
        return {}
    given = logs if isinstance(logs, Section) else {}
    level = given.get("level") or "INFO"
    settings: Document = {
        "DefaultRouteSettings": {
            "DataTraceEnabled": _said(given, "fullExecutionData"),
            "LoggingLevel": level if _said(given, "executionLogging") else "OFF",
        }
    }
    group = "WebsocketsLogGroup"
    draft.put(group, "AWS::Logs::LogGroup", {"LogGroupName": f"/aws/websocket/{service.name}-{service.stage}"})
    if _said(given, "accessLogging"):
        prefix = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:"
        destination = {"Fn::Sub": f"{prefix}${{{group}}}"}
        settings["AccessLogSettings"] = {
            "DestinationArn": destination,
            "Format": given.get("format") or _DEFAULT_LOG_FORMAT,
        }
    return settings


def _said(given: Document, key: str) -> bool:
    return True if given.get(key) is None else bool(given[key])
