"""The HTTP API that a service's `httpApi` events make: routes, integrations, a stage at the root.

Source: the framework's documentation, "HTTP API (API Gateway v2)" under "AWS Lambda Events", and what osls 4 generates.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless import naming
from hubbub.emulator.template.serverless.document import Section, Text, name_of
from hubbub.emulator.template.serverless.draft import Draft, arn_of, join, ref
from hubbub.emulator.template.serverless.expect import as_section, section_at, text_at
from hubbub.emulator.template.serverless.service import Event, FunctionEntry, Service

_METHODS = "ANY|GET|POST|PUT|PATCH|OPTIONS|HEAD|DELETE"
_METHOD_AND_PATH = re.compile(rf"({_METHODS}) (/\S*)", re.IGNORECASE)

_OPEN_TO_ALL = "its authorizer is not asked here: whoever calls is let through to the function"


class _Route(NamedTuple):
    function: FunctionEntry
    key: str  # `*` for what no other takes


def put_http_api(service: Service, draft: Draft) -> None:
    """Put the API of all `httpApi` events into the draft; none where there are none.

    Raises:
        TemplateError: an event is not described as one.

    """
    routes = [
        _Route(function, _key(function, event, draft))
        for function in service.functions.values()
        for event in function.events
        if event.kind == "httpApi" and event.value
    ]
    if not routes:
        return
    settings = section_at(service.provider, "httpApi")
    _put_api(service, settings, draft)
    for route in routes:
        _put_route(route, settings, draft)


def _key(function: FunctionEntry, event: Event, draft: Draft) -> str:
    if isinstance(event.value, Text):
        method, path = None, str(event.value)
        if match := _METHOD_AND_PATH.fullmatch(path):
            method, path = match[1], match[2]
    else:
        section = as_section(event.value, event.place, "httpApi")
        method, path = text_at(section, "method"), str(text_at(section, "path") or "")
        if section.get("authorizer"):
            draft.name(naming.function_id(function.key), "httpApi", _OPEN_TO_ALL)
    if path == "*" and method in (None, "*"):
        return "*"
    name = "ANY" if method == "*" else (method or "").upper()
    if not _METHOD_AND_PATH.fullmatch(f"{name} {path}"):
        what = "*, or a method and a path such as GET /rooms/{room}"
        raise TemplateError(*event.place, f"expected {what} in the httpApi event, got {name_of(event.value)}")
    return f"{name} {path}"


def _put_api(service: Service, settings: Section, draft: Draft) -> None:
    before = settings.get("shouldStartNameWithService")
    named = f"{service.name}-{service.stage}" if before else f"{service.stage}-{service.name}"
    cors = settings.get("cors")
    draft.put(
        naming.HTTP_API,
        "AWS::ApiGatewayV2::Api",
        {
            "Name": text_at(settings, "name") or named,
            "Description": text_at(settings, "description"),
            "ProtocolType": "HTTP",
            "DisableExecuteApiEndpoint": settings.get("disableDefaultEndpoint"),
            "CorsConfiguration": {"AllowOrigins": ["*"]} if cors else None,
        },
    )
    if settings.get("id"):
        meaning = (
            "it names an API of another stack, which is not here: the service gets an API with its own routes alone"
        )
        draft.name(naming.HTTP_API, "provider.httpApi.id", meaning)
    draft.put(
        naming.HTTP_STAGE,
        "AWS::ApiGatewayV2::Stage",
        {
            "ApiId": ref(naming.HTTP_API),
            "StageName": "$default",
            "AutoDeploy": True,
            "DefaultRouteSettings": {"DetailedMetricsEnabled": settings.get("metrics") or False},
        },
    )
    host = ("https://", ref(naming.HTTP_API), ".execute-api.", ref("AWS::Region"), ".", ref("AWS::URLSuffix"))
    draft.outputs["HttpApiId"] = {"Description": "Id of the HTTP API", "Value": ref(naming.HTTP_API)}
    draft.outputs["HttpApiUrl"] = {"Description": "URL of the HTTP API", "Value": join(*host)}


def _put_route(route: _Route, settings: Section, draft: Draft) -> None:
    integration = naming.http_integration_id(route.function.key)
    own = section_at(route.function.section, "httpApi")
    draft.put(
        integration,
        "AWS::ApiGatewayV2::Integration",
        {
            "ApiId": ref(naming.HTTP_API),
            "IntegrationType": "AWS_PROXY",
            "IntegrationUri": arn_of(naming.function_id(route.function.key)),
            "PayloadFormatVersion": text_at(own, "payload") or text_at(settings, "payload") or "2.0",
            "TimeoutInMillis": 30_000,
        },
    )
    draft.put(
        naming.http_route_id(route.key),
        "AWS::ApiGatewayV2::Route",
        {
            "ApiId": ref(naming.HTTP_API),
            "RouteKey": "$default" if route.key == "*" else route.key,
            "Target": join("integrations", ref(integration), by="/"),
        },
        DependsOn=integration,
    )
