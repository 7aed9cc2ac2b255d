"""HTTP APIs as they are served here: from AWS::ApiGatewayV2 resources, an OpenAPI document in `Body`, or quick create.

Source: AWS::ApiGatewayV2::Api, Route and Integration in the CloudFormation template reference; developer guide,
"Working with OpenAPI definitions for HTTP APIs" and "Create routes for HTTP APIs".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from hubbub.emulator.definition import HttpApiDefinition, HttpRouteDefinition, StageDefinition
from hubbub.emulator.template.apis import V2, Parts, function_in, is_websocket, stage_of
from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.intrinsics import as_text
from hubbub.emulator.template.resources import Template
from hubbub.emulator.template.source import Value

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "ANY")
_KEY = re.compile(rf"\$default|(?:{'|'.join(_METHODS)}) /\S*")
_ANY_METHOD: Final = "x-amazon-apigateway-any-method"
_INTEGRATION: Final = "x-amazon-apigateway-integration"

_SHORTEST_MS, _LONGEST_MS = 50, 30_000
_OPEN_TO_ALL: Final = (
    "is not checked here: whoever calls is let through to the function, without an authorizer's claims"
)


def http_apis_of(templates: Sequence[Template]) -> tuple[HttpApiDefinition, ...]:
    """The HTTP APIs of a stack and the stacks nested in it.

    Raises:
        TemplateError: an API's parts do not fit together.

    """
    found = [of for template in templates for of in template.of_type(f"{V2}Api") if not is_websocket(of)]
    return tuple(_HttpAssembly(of, templates).definition() for of in found)


class _HttpAssembly(Parts):
    """Puts one HTTP API together."""

    def definition(self) -> HttpApiDefinition:
        stages = [stage_of(of) for of in self.parts("Stage")]
        if not stages and "Target" in self.api.raw:
            stages = [StageDefinition(name="$default")]  # quick create makes it
        if not stages:
            self.api.note("it has no AWS::ApiGatewayV2::Stage, so nobody can call it")
        if "CorsConfiguration" in self.api.raw or self._body().get("x-amazon-apigateway-cors"):
            self.api.note("its CORS settings have no effect: pages of other origins cannot call it here")
        return HttpApiDefinition(
            logical_id=self.api.shown_id,
            id=self.id,
            name=self.api.text("Name", self._title()),
            routes=tuple(self._routes()),
            stages=tuple(stages),
            domains=tuple(self.domains({stage.name for stage in stages})),
        )

    def _body(self) -> Mapping[str, Value]:
        if "BodyS3Location" in self.api.raw:
            self.api.note("its OpenAPI document is in S3: the routes in it are not served")
        return self.api.mapping("Body")

    def _title(self) -> str:
        info = self._body().get("info")
        return (as_text(info.get("title")) if isinstance(info, Mapping) else None) or self.api.logical_id

    def _routes(self) -> Iterator[HttpRouteDefinition]:
        seen: set[str] = set()
        for of, route in self._all_routes():
            if not _KEY.fullmatch(route.key):
                expected = f"$default or a method of {', '.join(_METHODS)} and a path"
                raise of.error("RouteKey", f"expected {expected} as a route's key, got {route.key!r}")
            if route.key in seen:
                raise of.error("RouteKey", f"expected a key of its own, and {route.key!r} is another route's")
            seen.add(route.key)
            yield route

    def _all_routes(self) -> Iterator[tuple[Declared, HttpRouteDefinition]]:
        integrations = self.by_id("Integration")
        for of in self.parts("Route"):
            kind = of.text("AuthorizationType", "NONE")
            if kind != "NONE":
                of.note(f"AuthorizationType {kind} {_OPEN_TO_ALL}")
            yield of, self._route(of, integrations)
        for route in self._described():
            yield self.api, route
        if "Target" in self.api.raw:
            key, target = self.api.text("RouteKey", "$default"), self.api.text("Target")
            yield self.api, HttpRouteDefinition(key=key, function=self._function(self.api, "AWS_PROXY", target))

    def _route(self, of: Declared, integrations: Mapping[str, Declared]) -> HttpRouteDefinition:
        key, target = of.text("RouteKey"), of.get("Target")
        if target is None:
            return HttpRouteDefinition(key=key, function=None)
        found = integrations.get(str(target).removeprefix("integrations/"))
        if found is None or not str(target).startswith("integrations/"):
            raise of.error("Target", f"expected integrations/ and the id of an integration of its API, got {target!r}")
        kind = found.text("IntegrationSubtype", "") or found.text("IntegrationType")
        return HttpRouteDefinition(
            key=key,
            function=self._function(found, kind, found.text("IntegrationUri", "")),
            payload=_payload(found, found.text("PayloadFormatVersion", "1.0")),
            timeout_ms=_timeout_ms(found, found.number("TimeoutInMillis", _LONGEST_MS)),
        )

    def _described(self) -> Iterator[HttpRouteDefinition]:
        """The routes of the OpenAPI document."""
        paths = self._body().get("paths") or {}
        if not isinstance(paths, Mapping):
            raise self.api.error("Body", f"expected a mapping as paths of the OpenAPI document, got {paths!r}")
        secured = False
        for path, operations in paths.items():
            for method, operation in operations.items() if isinstance(operations, Mapping) else ():
                if method != _ANY_METHOD and method.upper() not in _METHODS:
                    continue  # parameters, summary and the like
                secured |= isinstance(operation, Mapping) and bool(operation.get("security"))
                name = "ANY" if method == _ANY_METHOD else method.upper()
                yield self._operation("$default" if path == "$default" else f"{name} {path}", operation)
        if secured:
            self.api.note(f"the security that its OpenAPI document asks for {_OPEN_TO_ALL}")

    def _operation(self, key: str, operation: Value) -> HttpRouteDefinition:
        integration = operation.get(_INTEGRATION) if isinstance(operation, Mapping) else None
        if not isinstance(integration, Mapping):
            return HttpRouteDefinition(key=key, function=None)
        kind = as_text(integration.get("type")) or ""
        return HttpRouteDefinition(
            key=key,
            function=self._function(self.api, kind.upper(), as_text(integration.get("uri")) or ""),
            payload=_payload(self.api, as_text(integration.get("payloadFormatVersion")) or "1.0"),
            timeout_ms=_timeout_ms(self.api, float(integration.get("timeoutInMillis") or _LONGEST_MS)),
        )

    def _function(self, of: Declared, kind: str, uri: str) -> str | None:
        """What an integration calls, if that is a function; what it is else is named."""
        function = function_in(uri)
        if kind == "AWS_PROXY" and function.startswith("arn:"):
            return function
        of.note(f"an HTTP API's integration of type {kind} is not made here, only Lambda functions are called: 500")
        return None


def _payload(of: Declared, version: str) -> Literal["1.0", "2.0"]:
    if version not in ("1.0", "2.0"):
        raise of.error("PayloadFormatVersion", f"expected 1.0 or 2.0 as its PayloadFormatVersion, got {version!r}")
    return version  # type: ignore[return-value]  # one of those


def _timeout_ms(of: Declared, value: float) -> int:
    if not _SHORTEST_MS <= value <= _LONGEST_MS:
        expected = f"expected {_SHORTEST_MS} to {_LONGEST_MS} as its TimeoutInMillis"
        raise of.error("TimeoutInMillis", f"{expected}, got {value:g}")
    return int(value)
