"""Writes the variants of the deployment that have one function for each route of the WebSocket API.

    python scripts/function_per_route.py

deploy/sam/function-per-route.yaml is made of template.yaml beside it, deploy/serverless/functions/each.yml of one.yml;
a test holds both to be what this writes. See docs/adr/0016-one-function-or-one-per-route.md.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAM = ROOT / "deploy" / "sam" / "template.yaml"
SAM_VARIANT = SAM.with_name("function-per-route.yaml")
SERVERLESS = ROOT / "deploy" / "serverless" / "functions" / "one.yml"
SERVERLESS_VARIANT = SERVERLESS.with_name("each.yml")

HANDLERS = {"$connect": "connect", "$disconnect": "disconnect"}
"""The handlers of routes that have one of their own; all others have `message`."""

_NOTE = "# Written by scripts/function_per_route.py from {name}; change that, and run it again.\n"
_SHARED = ("ChatLambdaFunction", "ChatLogGroup", "ChatWebsocketsIntegration", "ChatLambdaPermissionWebsockets")
_BLOCK = re.compile(r"^  (\w+):.*\n(?:(?:    .*)?\n)*", re.MULTILINE)
_METRIC = re.compile(r"^        - Id: chat\n(?:          .*\n)+", re.MULTILINE)
_ROUTE = re.compile(r"^      - websocket: \{route: (\S+?)(?=[,}]).*\n", re.MULTILINE)


def function_of(route: str) -> str:
    """What a route's function is called: `connect` for `$connect`."""
    return route.removeprefix("$")


def sam_variant(template: str) -> str:
    """The text of template.yaml with one function for each route."""
    head, resources, tail = _sections(template)
    routes = re.findall(r"^      RouteKey: (\S+)$", resources.partition("\n  HttpApi:\n")[0], re.MULTILINE)
    made = _BLOCK.sub(lambda block: _resource(block, routes), resources)
    made = made.replace(
        "Resource: !GetAtt ChatLogGroup.Arn",
        "Resource: !Sub arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:"
        "/aws/lambda/${AWS::StackName}-chat-*",
    )
    made = _METRIC.sub("", made)  # failures of these functions are integration errors of the API, which has an alarm
    return _NOTE.format(name=SAM.name) + head + made + tail


def _sections(template: str) -> tuple[str, str, str]:
    """What is before the resources, they themselves, and what is after."""
    head, mark, rest = template.partition("\nResources:\n")
    resources, other, tail = rest.partition("\nOutputs:\n")
    return head + mark, resources, other + tail


def _resource(block: re.Match[str], routes: list[str]) -> str:
    """A resource's text, or that of its copies for all routes."""
    name, text = block[1], block[0]
    if name in _SHARED:
        return "".join(_copy(text, route) for route in routes)
    route = re.search(r"^      RouteKey: (\S+)$", text, re.MULTILINE)
    if route and name.endswith("WebsocketsRoute"):
        return text.replace("Chat", function_of(route[1]).capitalize())
    return text


def _copy(text: str, route: str) -> str:
    """The text of what all routes shared, for one of them."""
    name = function_of(route)
    keeping = re.sub(r"\bChat(Role|Memory)\b", r"@\1", text)
    copied = keeping.replace("Chat", name.capitalize()).replace("@", "Chat").replace("-chat", f"-chat-{name}")
    copied = copied.replace("handlers.handler", f"handlers.{HANDLERS.get(route, 'message')}")
    return copied.replace("Answers everything that clients send.", f"Answers {route}.")


def serverless_variant(text: str) -> str:
    """The text of one.yml with one function for each route."""
    functions, resources = ["functions:\n"], ["resources:\n  extensions:\n"]
    source = "${file(../sam/template.yaml):Resources.ChatLambdaPermissionWebsockets.Properties.SourceArn}"
    for event in _ROUTE.finditer(text):
        name = function_of(event[1])
        functions.append(
            f"  {name}:\n"
            f"    name: ${{self:service}}-${{sls:stage}}-chat-{name}\n"
            f"    description: Answers {event[1]}.\n"
            f"    handler: hubbub.lambdas.handlers.{HANDLERS.get(event[1], 'message')}\n"
            "    timeout: 29\n"
            "    role: ChatRole\n"
            "    events:\n" + event[0]
        )
        resources.append(
            f"    {name.capitalize()}LambdaPermissionWebsockets:\n      Properties:\n        SourceArn: {source}\n"
        )
    return _NOTE.format(name=SERVERLESS.name) + "".join([*functions, *resources])


def main() -> None:
    """Write both variants."""
    SAM_VARIANT.write_text(sam_variant(SAM.read_text()))
    SERVERLESS_VARIANT.write_text(serverless_variant(SERVERLESS.read_text()))


if __name__ == "__main__":
    main()
