"""A stack as its template defines it, whatever language that was written in: functions, APIs, resources, sources.

Everything is resolved: no intrinsic function, no parameter and no condition is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from hubbub.apigateway import Rate
from hubbub.gateway.integrations import Integration

ACCOUNT = "123456789012"
"""The account that everything here belongs to; moto's as well."""

Arn = str


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A Lambda function.

    Attributes:
        logical_id: its name in the template.
        name: its name in Lambda.
        runtime: such as `python3.12`, `nodejs22.x`, `provided.al2023`.
        handler: such as `app.handler`.
        code: the folder that is its `LAMBDA_TASK_ROOT`.
        environment: its own variables.
        memory_mb, timeout_s: its limits.
        layers: folders that would be merged into `/opt`, first to last.
        reserved_concurrency: how many may run at a time; None for what the account has left.
        max_retries, max_age_s: of Event invocations that fail.
        on_success, on_failure, dead_letter: where the outcomes of Event invocations go.

    """

    logical_id: str
    name: str
    runtime: str
    handler: str
    code: Path
    environment: dict[str, str] = {}
    memory_mb: int = 128
    timeout_s: float = 3.0
    layers: tuple[Path, ...] = ()
    reserved_concurrency: int | None = None
    max_retries: int = 2
    max_age_s: int = 21_600
    on_success: Arn | None = None
    on_failure: Arn | None = None
    dead_letter: Arn | None = None


class RequestAuthorizer(msgspec.Struct, frozen=True, kw_only=True):
    """A REQUEST authorizer: its name, its function's ARN and what must be there for it to be asked."""

    name: str
    function: Arn
    identity_sources: tuple[str, ...] = ()


class RouteDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A route.

    Attributes:
        key: its key.
        integration: what it calls; None where it has none.
        authorization: what a handshake needs; `$connect` only.
        authorizer: for CUSTOM.
        api_key_required: whether a client must send an API key; `$connect` only.
        two_way: whether it has a `RouteResponseSelectionExpression` and a route response `$default`.
        models: JSON schemas by the key that `model_selection_expression` gives.
        model_selection_expression: None where nothing is validated.
        required_parameters: as `route.request.querystring.NAME`; `$connect` only.

    """

    key: str
    integration: Integration | None = None
    authorization: Literal["NONE", "AWS_IAM", "CUSTOM"] = "NONE"
    authorizer: RequestAuthorizer | None = None
    api_key_required: bool = False
    two_way: bool = False
    models: dict[str, dict[str, Any]] = {}  # Any: JSON schemas
    model_selection_expression: str | None = None
    required_parameters: tuple[str, ...] = ()


class StageDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A stage: its variables, the rate of all its routes together, and those of single ones by route key."""

    name: str
    variables: dict[str, str] = {}
    rate: Rate | None = None
    route_rates: dict[str, Rate] = {}


class DomainMapping(msgspec.Struct, frozen=True, kw_only=True):
    """A custom domain's host, the path in it that leads to an API (empty for all of it) and the stage."""

    host: str
    path: str = ""
    stage: str


class ApiDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A WebSocket API with its stages; `api_keys` are pairs of id and value, `models` schemas by name."""

    logical_id: str
    id: str
    name: str
    route_selection_expression: str
    api_key_selection_expression: str = "$request.header.x-api-key"
    api_keys: tuple[tuple[str, str], ...] = ()
    models: dict[str, dict[str, Any]] = {}  # Any: JSON schemas
    routes: tuple[RouteDefinition, ...] = ()
    stages: tuple[StageDefinition, ...] = ()
    domains: tuple[DomainMapping, ...] = ()


class HttpRouteDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A route of an HTTP API.

    Attributes:
        key: such as `GET /rooms/{room}`, `ANY /{proxy+}` or `$default`.
        function: what it calls; None where that is nothing that runs here.
        payload: in which format the function gets a request and returns a response.
        timeout_ms: how long it may take.

    """

    key: str
    function: Arn | None
    payload: Literal["1.0", "2.0"] = "2.0"
    timeout_ms: int = 30_000


class HttpApiDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP API with its stages, of which `$default` is at the root."""

    logical_id: str
    id: str
    name: str
    routes: tuple[HttpRouteDefinition, ...] = ()
    stages: tuple[StageDefinition, ...] = ()
    domains: tuple[DomainMapping, ...] = ()


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """Something stateful: a table, a queue, a topic, a parameter, a secret; `properties` as in CloudFormation.

    `name` is what it is called at its service; names that the template leaves open are made of stack and logical id.
    """

    logical_id: str
    type: str
    name: str
    properties: dict[str, Any]  # Any: CloudFormation's properties


class EventSource(msgspec.Struct, frozen=True, kw_only=True):
    """Something whose records a function is invoked with.

    Attributes:
        logical_id: of the mapping, the subscription or the SAM event.
        function: the function's name.
        kind: where the records come from.
        source: the ARN of the queue, stream or topic; for a schedule its expression.
        batch_size, batch_window_s, enabled, report_batch_item_failures, starting_position, filters: as in
            AWS::Lambda::EventSourceMapping; filters are the patterns, one of which must match.
        input: a schedule's constant payload; None for the event that AWS would make.
        properties: whatever else the template says of it.

    """

    logical_id: str
    function: str
    kind: Literal["sqs", "dynamodb", "sns", "schedule"]
    source: str
    batch_size: int = 10
    batch_window_s: float = 0.0
    enabled: bool = True
    report_batch_item_failures: bool = False
    starting_position: str = "LATEST"
    filters: tuple[str, ...] = ()
    input: str | None = None
    properties: dict[str, Any] = {}  # Any: CloudFormation's properties


class Unsupported(msgspec.Struct, frozen=True, kw_only=True):
    """What a template has and this emulator does not do, and what that means for who runs it here."""

    logical_id: str
    type: str
    meaning: str


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a template is resolved in.

    Attributes:
        stack_name: also the prefix of names that the template leaves open.
        region, account: of everything.
        api_hosts: `host:port` of each WebSocket API in the template's order, for what would be
            `{api}.execute-api.{region}.amazonaws.com`, when it is asked for as an attribute (ApiEndpoint).
        http_hosts: the same for HTTP APIs.
        sqs_url: where SQS is, for the URLs of queues.

    """

    stack_name: str = "local"
    region: str = "us-east-1"
    account: str = ACCOUNT
    api_hosts: tuple[str, ...] = ()
    http_hosts: tuple[str, ...] = ()
    sqs_url: str = "http://127.0.0.1:4566"


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        path: the template's file.
        language: what it was written in.
        apis, http_apis: the WebSocket APIs and the HTTP APIs, each in the template's order.
        surroundings: what it was resolved in; serverless.yml itself says what its stack is called and where it is.
        ignored: logical ids of what nothing here needs: permissions, logs, alarms.
        outputs: values of the template's outputs by name.
        watched: files besides the functions' code that it was made of.

    """

    path: Path
    language: Literal["sam", "cloudformation", "serverless"]
    surroundings: Surroundings = Surroundings()
    functions: tuple[Function, ...] = ()
    apis: tuple[ApiDefinition, ...] = ()
    http_apis: tuple[HttpApiDefinition, ...] = ()
    resources: tuple[Resource, ...] = ()
    sources: tuple[EventSource, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()
    ignored: tuple[str, ...] = ()
    outputs: dict[str, Any] = {}  # Any: strings mostly
    watched: tuple[Path, ...] = ()
