"""WebSocket APIs as the gateway serves them: AWS::ApiGatewayV2 resources, put together by the ids they refer to.

A route that a stage's deployment does not depend on is served and named: on AWS the stage may lack it.
Source: the AWS::ApiGatewayV2 and AWS::ApiGateway types in the CloudFormation template reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, get_args

from hubbub.apigateway import CONNECT, Rate
from hubbub.emulator.definition import (
    ApiDefinition,
    DomainMapping,
    RequestAuthorizer,
    RouteDefinition,
    StageDefinition,
)
from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.intrinsics import as_text
from hubbub.emulator.template.keys import api_keys
from hubbub.emulator.template.resources import Template
from hubbub.emulator.template.source import Value
from hubbub.gateway.integrations import Integration, IntegrationResponse

V2: Final = "AWS::ApiGatewayV2::"

_Authorization = Literal["NONE", "AWS_IAM", "CUSTOM"]
_IntegrationType = Literal["AWS_PROXY", "AWS", "HTTP", "HTTP_PROXY", "MOCK"]
_Passthrough = Literal["WHEN_NO_MATCH", "WHEN_NO_TEMPLATES", "NEVER"]
_Handling = Literal["CONVERT_TO_TEXT", "CONVERT_TO_BINARY"]

_FUNCTION_IN_URI = re.compile(r"functions/(.+)/invocations")
_ACCOUNT_RATE: Final = Rate(10_000, 5_000)
_SHORTEST_MS, _LONGEST_MS = 50, 29_000


def apis_of(templates: Sequence[Template]) -> tuple[ApiDefinition, ...]:
    """The WebSocket APIs of a stack and the stacks nested in it.

    Raises:
        TemplateError: an API's parts do not fit together.

    """
    found = [of for template in templates for of in template.of_type(f"{V2}Api") if is_websocket(of)]
    return tuple(_Assembly(of, templates).definition() for of in found)


def is_websocket(api: Declared) -> bool:
    """Whether an AWS::ApiGatewayV2::Api is one of the kind that runs here."""
    return api.text("ProtocolType", "HTTP") == "WEBSOCKET"


def ids_of(templates: Sequence[Template]) -> Mapping[str, Declared]:
    """All AWS::ApiGatewayV2::Api resources by their id."""
    return {template.returned(of).ref: of for template in templates for of in template.of_type(f"{V2}Api")}


class Parts:
    """What belongs to one API, WebSocket or HTTP.

    Attributes:
        api: its resource.
        id: its id.
        templates: the stack's and those nested in it.

    """

    def __init__(self, api: Declared, templates: Sequence[Template]) -> None:
        self.api = api
        self.id = _ref(api)
        self.templates = templates

    def parts(self, kind: str) -> list[Declared]:
        """The resources of a kind, `Route` or another, that belong to the API."""
        declared = [of for template in self.templates for of in template.of_type(V2 + kind)]
        return [of for of in declared if of.text("ApiId") == self.id]

    def by_id(self, kind: str) -> dict[str, Declared]:
        """The same by their ids."""
        return {_ref(of): of for of in self.parts(kind)}

    def domains(self, stages: set[str]) -> Iterator[DomainMapping]:
        """The custom domains that lead to these stages.

        Raises:
            TemplateError: one leads to a stage that is none of them.

        """
        for of in self.parts("ApiMapping"):
            stage = of.text("Stage")
            if stage not in stages:
                raise of.error("Stage", f"expected a stage of its API ({', '.join(stages) or 'none'}), got {stage!r}")
            yield DomainMapping(host=of.text("DomainName"), path=of.text("ApiMappingKey", ""), stage=stage)


class _Assembly(Parts):
    """Puts one WebSocket API together."""

    def definition(self) -> ApiDefinition:
        if self.api.flag("DisableExecuteApiEndpoint"):
            self.api.note("DisableExecuteApiEndpoint has no effect: the API is reachable without its custom domain")
        stages = [stage_of(of) for of in self.parts("Stage")]
        if not stages:
            self.api.note("it has no AWS::ApiGatewayV2::Stage, so nobody can connect to it")
        self._say_what_is_not_deployed()
        return ApiDefinition(
            logical_id=self.api.shown_id,
            id=self.id,
            name=self.api.text("Name", self.api.logical_id),
            route_selection_expression=self._route_selection(),
            api_key_selection_expression=self.api.text("ApiKeySelectionExpression", "$request.header.x-api-key"),
            api_keys=api_keys(self.id, self.templates),
            models={model.text("Name", model.logical_id): _schema(model) for model in self.parts("Model")},
            routes=tuple(self._routes()),
            stages=tuple(stages),
            domains=tuple(self.domains({stage.name for stage in stages})),
        )

    def _route_selection(self) -> str:
        if "RouteSelectionExpression" not in self.api.raw:
            example = "such as $request.body.action"
            raise self.api.error(None, f"expected a RouteSelectionExpression, {example}: a WebSocket API must have one")
        return self.api.text("RouteSelectionExpression")

    def _routes(self) -> Iterator[RouteDefinition]:
        integrations = {id_: self._integration(of) for id_, of in self.by_id("Integration").items()}
        answered = {
            of.text("RouteId")
            for of in self.parts("RouteResponse")
            if of.text("RouteResponseKey", "$default") == "$default"
        }
        seen: set[str] = set()
        for of in self.parts("Route"):
            key = of.text("RouteKey")
            if key in seen:
                raise of.error("RouteKey", f"expected a key of its own, and {key!r} is another route's")
            seen.add(key)
            yield self._route(of, key, integrations, _ref(of) in answered)

    def _route(
        self, of: Declared, key: str, integrations: Mapping[str, Integration], is_answered: bool
    ) -> RouteDefinition:
        answers = "RouteResponseSelectionExpression" in of.raw
        if answers and not is_answered:
            of.note(
                "it has a RouteResponseSelectionExpression and no AWS::ApiGatewayV2::RouteResponse, so as on AWS "
                "clients are not sent what its function returns"
            )
        authorization = self._authorization(of, key)
        return RouteDefinition(
            key=key,
            integration=self._target(of, integrations),
            authorization=authorization,
            authorizer=self._authorizer(of) if authorization == "CUSTOM" else None,
            api_key_required=of.flag("ApiKeyRequired"),
            two_way=answers and is_answered,
            models=self._models(of),
            model_selection_expression=as_text(of.get("ModelSelectionExpression")),
            required_parameters=tuple(_required(of)),
        )

    def _target(self, of: Declared, integrations: Mapping[str, Integration]) -> Integration | None:
        target = of.get("Target")
        if target is None:
            return None
        found = integrations.get(str(target).removeprefix("integrations/"))
        if found is None or not str(target).startswith("integrations/"):
            raise of.error("Target", f"expected integrations/ and the id of an integration of its API, got {target!r}")
        return found

    def _authorization(self, of: Declared, key: str) -> _Authorization:
        kind = of.text("AuthorizationType", "NONE")
        if kind != "NONE" and key != CONNECT:
            of.note(f"AuthorizationType {kind} has no effect: a WebSocket API authorizes at $connect only")
            return "NONE"
        return _one_of(of, "AuthorizationType", kind, get_args(_Authorization))  # type: ignore[return-value]  # of those

    def _authorizer(self, of: Declared) -> RequestAuthorizer:
        id_ = of.text("AuthorizerId")
        found = self.by_id("Authorizer").get(id_)
        if found is None:
            raise of.error("AuthorizerId", f"expected the id of an authorizer of its API, got {id_!r}")
        if found.text("AuthorizerType", "REQUEST") != "REQUEST":
            raise found.error("AuthorizerType", f"expected REQUEST, got {found.text('AuthorizerType')!r}")
        return RequestAuthorizer(
            name=found.text("Name", found.logical_id),
            function=function_in(found.text("AuthorizerUri")),
            identity_sources=tuple(str(source) for source in found.listed("IdentitySource")),
        )

    def _models(self, of: Declared) -> dict[str, dict[str, Value]]:
        """Schemas by the key that selects them; a model is named, or referred to by its id."""
        asked = of.texts("RequestModels")
        if not asked:
            return {}
        models = {
            name: model for model in self.parts("Model") for name in (model.text("Name", model.logical_id), _ref(model))
        }
        unknown = [name for name in asked.values() if name not in models]
        if unknown:
            raise of.error("RequestModels", f"expected models of its API, got {', '.join(unknown)}")
        return {key: _schema(models[name]) for key, name in asked.items()}

    def _integration(self, of: Declared) -> Integration:
        kind = _one_of(of, "IntegrationType", of.text("IntegrationType"), get_args(_IntegrationType))
        if of.text("ConnectionType", "INTERNET") == "VPC_LINK":
            of.note("its VPC link is left out: the address must be reachable from this machine")
        timeout_ms = int(of.number("TimeoutInMillis", _LONGEST_MS))
        if not _SHORTEST_MS <= timeout_ms <= _LONGEST_MS:
            expected = f"expected {_SHORTEST_MS} to {_LONGEST_MS} as its TimeoutInMillis"
            raise of.error("TimeoutInMillis", f"{expected}, got {timeout_ms}")
        if "IntegrationUri" not in of.raw and kind != "MOCK":
            raise of.error(None, f"expected an IntegrationUri, which {kind} must have")
        passthrough = of.text("PassthroughBehavior", "WHEN_NO_MATCH")
        return Integration(
            type=kind,  # type: ignore[arg-type]  # one of those
            uri=of.text("IntegrationUri", ""),
            method=of.text("IntegrationMethod", "POST"),
            request_templates=_templates(of, "RequestTemplates"),
            template_selection_expression=as_text(of.get("TemplateSelectionExpression")),
            request_parameters=of.texts("RequestParameters"),
            passthrough=_one_of(of, "PassthroughBehavior", passthrough, get_args(_Passthrough)),  # type: ignore[arg-type]  # one of those
            content_handling=_handling(of),
            timeout_ms=timeout_ms,
            responses=tuple(self._responses(of)),
        )

    def _responses(self, of: Declared) -> Iterator[IntegrationResponse]:
        for response in self.parts("IntegrationResponse"):
            if response.text("IntegrationId") == _ref(of):
                yield IntegrationResponse(
                    key=response.text("IntegrationResponseKey"),
                    templates=_templates(response, "ResponseTemplates"),
                    template_selection_expression=as_text(response.get("TemplateSelectionExpression")),
                    parameters=response.texts("ResponseParameters"),
                    content_handling=_handling(response),
                )

    def _say_what_is_not_deployed(self) -> None:
        deployments = self.by_id("Deployment")
        for stage in self.parts("Stage"):
            deployment = deployments.get(str(stage.get("DeploymentId")))
            if stage.flag("AutoDeploy"):
                continue
            if deployment is None:
                stage.note("it has neither AutoDeploy nor a DeploymentId of this template: on AWS it has no routes")
                continue
            deployed = deployment.template.needed_by(deployment.logical_id)
            for route in self.parts("Route"):
                if route.template is deployment.template and route.logical_id not in deployed:
                    route.note(
                        f"it is served here, and on AWS the stage {stage.text('StageName')} may lack it: "
                        f"{deployment.logical_id} does not depend on it (DependsOn)"
                    )


def _ref(of: Declared) -> str:
    return of.template.returned(of).ref


def _one_of(of: Declared, key: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise of.error(key, f"expected {', '.join(allowed)} as its {key}, got {value!r}")
    return value


def _required(of: Declared) -> Iterator[str]:
    """The names of the request parameters that must be there."""
    for name, rule in of.mapping("RequestParameters").items():
        if as_text(rule.get("Required") if isinstance(rule, dict) else rule) in ("true", "True"):
            yield name


def _schema(model: Declared) -> dict[str, Value]:
    """A model's schema, written as a mapping or as JSON text."""
    schema = model.get("Schema")
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except json.JSONDecodeError as failure:
            raise model.error("Schema", f"expected a JSON schema as its Schema: {failure}") from failure
    if not isinstance(schema, dict):
        raise model.error("Schema", f"expected a JSON schema as its Schema, got {schema!r}")
    return schema


def _templates(of: Declared, key: str) -> dict[str, str]:
    """Mapping templates; one written as a mapping is that mapping's JSON."""
    return {
        name: json.dumps(value) if isinstance(value, dict | list) else str(value)
        for name, value in of.mapping(key).items()
    }


def _handling(of: Declared) -> _Handling | None:
    value = of.get("ContentHandlingStrategy")
    if value is None:
        return None
    return _one_of(of, "ContentHandlingStrategy", str(value), get_args(_Handling))  # type: ignore[return-value]  # of those


def function_in(uri: str) -> str:
    """The function's ARN in a URI by which API Gateway calls it; the URI itself where it is that already."""
    found = _FUNCTION_IN_URI.search(uri)
    return found[1] if found else uri


def stage_of(of: Declared) -> StageDefinition:
    """An AWS::ApiGatewayV2::Stage.

    Raises:
        TemplateError: its throttling limits are no numbers.

    """
    default = of.mapping("DefaultRouteSettings")
    return StageDefinition(
        name=of.text("StageName"),
        variables=of.texts("StageVariables"),
        rate=_rate(of, "DefaultRouteSettings", default),
        route_rates={
            key: rate
            for key, settings in of.mapping("RouteSettings").items()
            if (rate := _rate(of, "RouteSettings", settings)) is not None
        },
    )


def _rate(of: Declared, key: str, settings: Value) -> Rate | None:
    """The rate that route settings have; None where they have none. Half of one is completed by the account's."""
    if not isinstance(settings, dict):
        raise of.error(key, f"expected a mapping in its {key}, got {settings!r}")
    per_s, burst = settings.get("ThrottlingRateLimit"), settings.get("ThrottlingBurstLimit")
    if per_s is None and burst is None:
        return None
    try:
        return Rate(
            _ACCOUNT_RATE.per_s if per_s is None else float(per_s), _ACCOUNT_RATE.burst if burst is None else int(burst)
        )
    except (TypeError, ValueError) as failure:
        raise of.error(key, f"expected numbers as its throttling limits, got {settings!r}") from failure
