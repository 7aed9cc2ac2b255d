"""The logical ids that the Serverless Framework gives, so that a service's own `resources` can refer to them.

Source: the framework's documentation, "AWS CloudFormation Resource Reference", and what osls 3 and 4 generate.
"""

from __future__ import annotations

import re

API = "WebsocketsApi"
STAGE = "WebsocketsDeploymentStage"
HTTP_API = "HttpApi"
HTTP_STAGE = "HttpApiStage"
ROLE = "IamRoleLambdaExecution"

_ROUTE = {"$": "S", "/": "Slash", "-": "Dash", "_": "Underscore", ".": "Period"}


def normalized(name: str) -> str:
    """`my-fn_2` as `MyDashfnUnderscore2`."""
    return _capital(name.replace("-", "Dash").replace("_", "Underscore"))


def alphanumeric(name: str) -> str:
    """`my-topic` as `Mytopic`."""
    return _capital(re.sub(r"[^0-9A-Za-z]", "", name))


def function_id(function: str) -> str:
    """The function."""
    return f"{normalized(function)}LambdaFunction"


def log_group_id(function: str) -> str:
    """Its log group."""
    return f"{normalized(function)}LogGroup"


def invoke_config_id(function: str) -> str:
    """What becomes of its Event invocations."""
    return f"{normalized(function)}LambdaEvConf"


def layer_id(layer: str) -> str:
    """The layer."""
    return f"{normalized(layer)}LambdaLayer"


def route_id(route: str) -> str:
    """The route: `$connect` as `SconnectWebsocketsRoute`."""
    return f"{''.join(_ROUTE.get(char, char) for char in route)}WebsocketsRoute"


def integration_id(function: str) -> str:
    """The integration that the function's routes share."""
    return f"{normalized(function)}WebsocketsIntegration"


def authorizer_id(name: str) -> str:
    """The authorizer."""
    return f"{normalized(name)}WebsocketsAuthorizer"


def permission_id(function: str) -> str:
    """The permission to call the function for the WebSocket API."""
    return f"{normalized(function)}LambdaPermissionWebsockets"


def http_integration_id(function: str) -> str:
    """The integration that the function's routes of the HTTP API share."""
    return f"HttpApiIntegration{normalized(function)}"


def http_route_id(key: str) -> str:
    """A route of the HTTP API: `GET /rooms/{room}` as `HttpApiRouteGetRoomsRoomVar`, `*` as `HttpApiRouteDefault`."""
    if key == "*":
        return "HttpApiRouteDefault"
    return f"HttpApiRoute{''.join(_path_part(part) for part in key.split('/'))}"


def deployment_id(digest: str) -> str:
    """The deployment; `digest` tells one from another."""
    return f"WebsocketsDeployment{digest}"


def queue_mapping_id(function: str, queue: str) -> str:
    """The mapping of a queue to the function."""
    return f"{normalized(function)}EventSourceMappingSQS{alphanumeric(queue)}"


def stream_mapping_id(function: str, kind: str, stream: str) -> str:
    """The mapping of a stream to the function."""
    return f"{normalized(function)}EventSourceMapping{_capital(kind)}{alphanumeric(stream)}"


def bucket_id(bucket: str) -> str:
    """A bucket that the function's event makes."""
    return f"S3Bucket{alphanumeric(bucket)}"


def topic_id(topic: str) -> str:
    """A topic that the function's event makes."""
    return f"SNSTopic{alphanumeric(topic)}"


def subscription_id(function: str, topic: str) -> str:
    """The function's subscription to a topic."""
    return f"{normalized(function)}SnsSubscription{alphanumeric(topic)}"


def rule_id(function: str, number: int) -> str:
    """The rule of the function's schedule of this number, from 1."""
    return f"{normalized(function)}EventsRuleSchedule{number}"


def scheduler_id(function: str, number: int) -> str:
    """The schedule of EventBridge Scheduler of this number, from 1."""
    return f"{normalized(function)}SchedulerSchedule{number}"


def event_rule_id(rule: str) -> str:
    """A rule of EventBridge."""
    return f"{alphanumeric(rule)}EventBridgeRule"


def _path_part(part: str) -> str:
    named = re.sub(r"\{(.*)\}", r"\1Var", part.lower().replace("-", "Dash"))
    return _capital(re.sub(r"[^0-9A-Za-z]", "", named))


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
