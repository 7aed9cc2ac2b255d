"""WebSocket APIs of a stack as the gateway serves them: definitions in, routes with handlers at their addresses out."""

from __future__ import annotations

import re

from hubbub.apigateway import CONNECT, DISCONNECT, Api, ApiKey, Event, Handler, Response, Route
from hubbub.emulator.definition import ACCOUNT, ApiDefinition, RouteDefinition, StageDefinition
from hubbub.gateway import Gateway, Sites
from hubbub.gateway.authorizers import request_authorizer
from hubbub.gateway.integrations import Invoke
from hubbub.gateway.integrations.build import Integrations
from hubbub.gateway.models import body_validator


class RunningApi:
    """A WebSocket API of a running stack.

    Attributes:
        definition: what the template says of it.
        host: `host:port`, where it is.
        gateway: what serves it.

    """

    def __init__(self, definition: ApiDefinition, host: str, gateway: Gateway) -> None:
        self.definition = definition
        self.host = host
        self.gateway = gateway

    def __repr__(self) -> str:
        return f"<RunningApi {self.definition.name} at {self.host}>"

    @property
    def urls(self) -> list[str]:
        """Where clients connect, stage by stage; `wss://` is at the same port for who trusts the stack's authority."""
        return [f"ws://{self.host}/{stage.name}" for stage in self.definition.stages]

    @property
    def domain_urls(self) -> list[str]:
        """Where clients connect by custom domains, once such a name leads to this machine."""
        port = self.host.rpartition(":")[2]
        return [f"ws://{mapping.host}:{port}/{mapping.path}".rstrip("/") for mapping in self.definition.domains]

    @property
    def url(self) -> str:
        """Where clients of the first stage connect.

        Raises:
            LookupError: it has no stage.

        """
        return f"ws://{self.host}/{self._first_stage}"

    @property
    def callback_url(self) -> str:
        """Where the management API of the first stage is, as boto3 wants it for `endpoint_url`.

        Raises:
            LookupError: it has no stage.

        """
        return f"http://{self.host}/{self._first_stage}"

    @property
    def _first_stage(self) -> str:
        if not self.definition.stages:
            raise LookupError(f"the API {self.definition.logical_id} has no stage, so nobody can connect to it")
        return self.definition.stages[0].name

    def here(self, address: str) -> str | None:
        """Where an address of the API on AWS leads to on this machine; None for what is none of its addresses."""
        on_aws = rf"(ws|http)s://{re.escape(self.definition.id)}\.execute-api\.[a-z0-9-]+\.amazonaws\.com(\.cn)?(?=/|$)"
        local, found = re.subn(on_aws, rf"\1://{self.host}", address)
        return local if found else None


class Wiring:
    """What routes are connected to.

    Args:
        invoke: calls Lambda functions, for authorizers.
        integrations: makes handlers of integrations.
        region, account: of everything.

    """

    def __init__(
        self,
        *,
        invoke: Invoke,
        integrations: Integrations,
        region: str,
        account: str = ACCOUNT,
    ) -> None:
        self._invoke = invoke
        self._integrations = integrations
        self._region = region
        self._account = account

    def sites(self, definition: ApiDefinition, *, host: str) -> Sites:
        """An API's stages at `/{stage}`, and at its custom domains.

        Args:
            definition: the API.
            host: `host:port` where it is, for the events' `domainName`; who comes by a custom domain finds that there.

        Raises:
            ValueError: a model, an identity source or an integration is none.

        """
        apis = {f"/{stage.name}": self._deployed(definition, stage, host) for stage in definition.stages}
        stages = {stage.name: stage for stage in definition.stages}
        domains: dict[str, dict[str, Api]] = {}
        for mapping in definition.domains:
            api = self._deployed(definition, stages[mapping.stage], mapping.host)
            domains.setdefault(mapping.host, {})[f"/{mapping.path}"] = api
        return Sites(apis, domains)

    def _deployed(self, definition: ApiDefinition, stage: StageDefinition, host: str) -> Api:
        connect = next((route for route in definition.routes if route.key == CONNECT), None)
        authorizer = connect.authorizer if connect is not None and connect.authorization == "CUSTOM" else None
        return Api(
            id=definition.id,
            stage=stage.name,
            routes={route.key: self._route(definition, route, stage) for route in definition.routes},
            route_selection_expression=definition.route_selection_expression,
            authorizer=None
            if authorizer is None
            else request_authorizer(authorizer.function, self._invoke, identity_sources=authorizer.identity_sources),
            iam=connect is not None and connect.authorization == "AWS_IAM",
            api_keys=tuple(ApiKey(id, value) for id, value in definition.api_keys),  # noqa: A001  AWS's word
            api_key_selection_expression=definition.api_key_selection_expression,
            stage_variables=stage.variables,
            rate=stage.rate,
            domain_name=host,
            region=self._region,
            account=self._account,
        )

    def _route(self, definition: ApiDefinition, route: RouteDefinition, stage: StageDefinition) -> Route:
        integration = route.integration
        return Route(
            _not_integrated(route.key)
            if integration is None
            else self._integrations.handler(integration, two_way=route.two_way or route.key == CONNECT),
            two_way=route.two_way,
            timeout_s=None if integration is None else integration.timeout_ms / 1_000,
            accepts=body_validator(
                route.models, route.model_selection_expression, named=definition.models, api=definition.id
            )
            if route.models
            else None,
            rate=stage.route_rates.get(route.key),
            api_key_required=route.api_key_required,
            required_parameters=route.required_parameters,
        )


def _not_integrated(key: str) -> Handler:
    """What becomes of a route without an integration: it lets a client in and out, and fails for messages."""

    async def handle(event: Event) -> Response:
        if key not in (CONNECT, DISCONNECT):
            raise LookupError(f"the route {key!r} has no integration")
        return Response()

    return handle
