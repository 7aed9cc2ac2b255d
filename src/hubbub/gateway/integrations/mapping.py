"""Mapping templates: what `$input`, `$context`, `$stageVariables` and `$util` are in them.

Source: developer guide, "API Gateway WebSocket API mapping template reference"; what it leaves open is as seen on AWS's
REST APIs, whose templates are the same: what is missing is written as nothing, an absent body is `{}`, `$input.json` of
a missing path is `""`, maps are written as Java writes them.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import quote_plus, unquote_plus

import msgspec

from hubbub.apigateway.jsonpath import MISSING, read_path
from hubbub.apigateway.selection import Variables
from hubbub.gateway.integrations.failures import MappingFailed
from hubbub.gateway.integrations.velocity import Block, Quiet, TemplateError, Tool, parse, render, text_of

MAX_TEMPLATE_BYTES = 300 * 1024
"""How long a template may be: an API Gateway quota."""

Context = Quiet
"""`$context` of one event. Templates may change it: what the request's sets, the response's finds."""


class MappingTemplate:
    """One template.

    Args:
        name: what it is called in errors, such as `request template '$default'`.
        text: the template.

    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._text = text
        self._block: Block | None = None  # None until it is first rendered

    def render(self, body: str, context: Context, variables: Variables) -> str:
        """What the template makes.

        Args:
            body: what `$input` is about: the message, or the integration's answer.
            context: see `context_of`.
            variables: of the event.

        Raises:
            MappingFailed: it could not be read or rendered; names the template and the line.

        """
        try:
            if self._block is None:
                self._block = self._read()
            return render(
                self._block,
                {
                    "input": _input(body, variables),
                    "context": context,
                    "stageVariables": dict(variables.stage_variables),
                    "util": _UTIL,
                },
            )
        except TemplateError as error:
            raise MappingFailed(f"the {self.name}, {error}") from error

    def _read(self) -> Block:
        size = len(self._text.encode())
        if size > MAX_TEMPLATE_BYTES:
            raise MappingFailed(f"the {self.name} has {size} bytes; at most {MAX_TEMPLATE_BYTES} are allowed")
        return parse(self._text)


def context_of(variables: Variables) -> Context:
    """`$context` for an event.

    It is the event's `requestContext`, with what an authorizer said as strings, and empty places for overrides, which
    are documented for REST APIs only.
    """
    context = _quiet(msgspec.to_builtins(variables.context))
    authorizer = context.get("authorizer")
    if isinstance(authorizer, dict):
        context["authorizer"] = Quiet({key: text_of(value) for key, value in authorizer.items()})
    context["requestOverride"] = Quiet(header=Quiet(), querystring=Quiet(), path=Quiet())
    context["responseOverride"] = Quiet(header=Quiet())
    return context


def _quiet(values: dict[str, Any]) -> Quiet:  # Any: as in an event's JSON
    return Quiet({key: _quiet(value) if isinstance(value, dict) else value for key, value in values.items()})


def _input(body: str, variables: Variables) -> Tool:
    """`$input`."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        document = MISSING

    def path(text: str) -> Any:  # Any: a JSON value
        found = MISSING if document is MISSING else read_path(text).find(document)
        return None if found is MISSING else found

    def json(text: str) -> str:
        found = path(text)
        return msgspec.json.encode("" if found is None else found).decode()

    def params(name: str | None = None) -> Any:  # Any: a string or a map
        return _all_params(variables) if name is None else _param(variables, name)

    return Tool({"path": path, "json": json, "params": params}, {"body": body or "{}"})


def _all_params(variables: Variables) -> dict[str, dict[str, str]]:
    event = variables.event
    return {
        "path": {},
        "querystring": dict((event.query_string_parameters if event else None) or {}),
        "header": dict((event.headers if event else None) or {}),
    }


def _param(variables: Variables, name: str) -> str:
    """A query parameter, else a header, else nothing: messages have neither."""
    found = variables.queries.get(name) or variables.headers.get(name.lower())
    return found[-1] if found else ""


_ESCAPES = {"'": r"\'", '"': r"\"", "\\": r"\\", "/": r"\/", "\b": r"\b", "\n": r"\n", "\t": r"\t"} | {
    "\f": r"\f",
    "\r": r"\r",
}


def _escape_javascript(value: Any) -> str | None:  # Any: a value in a template
    """As Apache Commons Lang does, which quotes slashes too, and all that is not ASCII."""
    if value is None:
        return None
    return re.sub(r"""['"\\/]|[^ -~]""", lambda match: _escaped(match[0]), text_of(value))


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    units = character.encode("utf-16-be", "surrogatepass").hex().upper()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _parse_json(text: Any) -> Any:  # Any: a value in a template, and one of JSON
    try:
        return msgspec.json.decode(text_of(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"expected JSON, got {text_of(text)[:80]!r}: {error}") from error


def _base64_decode(value: Any) -> str:  # Any: a value in a template
    text = text_of(value)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode("utf-8", "replace")
    except binascii.Error as error:
        raise ValueError(f"expected base64, got {text[:80]!r}: {error}") from error


_UTIL = Tool(
    {
        "escapeJavaScript": _escape_javascript,
        "parseJson": _parse_json,
        "urlEncode": lambda value: quote_plus(text_of(value), safe="*").replace("~", "%7E"),
        "urlDecode": lambda value: unquote_plus(text_of(value)),
        "base64Encode": lambda value: base64.b64encode(text_of(value).encode("utf-8", "surrogatepass")).decode(),
        "base64Decode": _base64_decode,
    }
)
"""`$util`."""
