"""Selection expressions: what `$request.body.action` and its like are for a message, a handshake or an answer.

Source: developer guide, "WebSocket selection expressions", "Setting up data transformations for WebSocket APIs" and
"Setting up data mapping for WebSocket APIs", whose sources are named alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import msgspec

from hubbub.apigateway.events import Event
from hubbub.apigateway.jsonpath import MISSING, Path, PathError, read_path

_SOURCE = (
    r"(?:request\.(?:body|header|multivalueheader|querystring|multivaluequerystring|basepath)"
    r"|(?:integration\.)?response\.(?:body|header|multivalueheader|statuscode)|context|stageVariables)(?!\w)"
)

_VARIABLE = re.compile(
    rf"\$\{{(?P<braced>(?:{_SOURCE})[^}}]*)\}}|\$(?P<bare>(?:{_SOURCE})(?:[\w.\-]|\[[^\]]*\])*)|\\(?P<escaped>\$)"
)

_PARTS = re.compile(rf"(?:route\.)?(?P<kind>{_SOURCE})(?P<rest>.*)", re.DOTALL)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an integration answered.

    Attributes:
        status: HTTP's; 200 for functions that returned.
        headers: names and values as they came.
        body: as it came.

    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


class Variables:
    """What the variables of an expression stand for.

    Args:
        event: the event; None where there is none.
        context: instead of the event's `requestContext`, in AWS's names.
        headers: instead of the event's.
        answer: the integration's; None before there is one.
        base_path: what a custom domain's path selects by.

    """

    def __init__(
        self,
        event: Event | None = None,
        *,
        context: Mapping[str, Any] | None = None,  # Any: as in an event's JSON
        headers: Mapping[str, str] | None = None,
        answer: Answer | None = None,
        base_path: str = "",
    ) -> None:
        self.event = event
        self.answer = answer
        self.base_path = base_path
        self._context = context
        self._headers = headers

    @cached_property
    def context(self) -> Mapping[str, Any]:  # Any: as in an event's JSON
        """What `context.…` is: the event's `requestContext` in AWS's names."""
        if self._context is not None:
            return self._context
        built: dict[str, Any] = msgspec.to_builtins(self.event.request_context) if self.event else {}
        return built

    @cached_property
    def body(self) -> Any:  # Any: a JSON document of unknown shape
        """The message's body, read as JSON; `MISSING` where it is none."""
        return _document(self.event.body if self.event else None)

    @cached_property
    def answer_body(self) -> Any:  # Any: a JSON document of unknown shape
        """The answer's body, read as JSON; `MISSING` where it is none."""
        return _document(self.answer.body if self.answer else None)

    @cached_property
    def headers(self) -> dict[str, list[str]]:
        """The values of headers by name in lower case."""
        multi = self.event.multi_value_headers if self.event else None
        if self._headers is None and multi is not None:
            return {name.lower(): values for name, values in multi.items()}
        single = self._headers if self._headers is not None else self.event.headers if self.event else None
        return {name.lower(): [value] for name, value in (single or {}).items()}

    @cached_property
    def queries(self) -> dict[str, list[str]]:
        """The values of query parameters by name."""
        if self.event is None:
            return {}
        multi = self.event.multi_value_query_string_parameters
        if multi is not None:
            return multi
        return {name: [value] for name, value in (self.event.query_string_parameters or {}).items()}

    @cached_property
    def answer_headers(self) -> dict[str, list[str]]:
        """The values of the answer's headers by name in lower case."""
        values: dict[str, list[str]] = {}
        for name, value in self.answer.headers if self.answer else ():
            values.setdefault(name.lower(), []).append(value)
        return values

    def value_of(self, source: str) -> str | None:
        """What a variable of an expression, or a source of a parameter mapping, stands for; None for nothing.

        `route.request.header.X`, `route.request.querystring.X`, `route.request.body.a.b` (all also without `route.`),
        `context.a.b`, `stageVariables.X`, `integration.response.header.X` and their like, and `'static'`. Several
        values are joined with commas.

        Raises:
            ValueError: there is no such source; names those there are.

        """
        if len(source) >= 2 and source[0] == source[-1] == "'":
            return source[1:-1]
        found = _read(source).value(self)
        if found is MISSING or found is None:
            return None
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return ",".join(found)
        return _stringified(found)

    @property
    def stage_variables(self) -> Mapping[str, str]:
        """The stage's variables."""
        return (self.event.stage_variables if self.event else None) or {}


def evaluate_selection(expression: str, body: str) -> str | None:
    r"""The value of a selection expression for a message's body; None when the body is not JSON.

    `$request.body.action`, `${request.body.a}/${request.body.b[0]}` and static text, `\$` for a literal dollar. After
    `request.body` there may be any JSONPath. A missing path is the empty string, and so is a variable that a message
    does not have; what is found is made a string; nothing is evaluated twice.
    Source: developer guide, "WebSocket selection expressions".
    """
    try:
        document = msgspec.json.decode(body)
        return "".join(
            [
                part
                if isinstance(part, str)
                else _stringified(part.path.find(document))
                if part.path is not None and part.kind == "request.body"
                else ""
                for part in _compiled(expression)
            ]
        )
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # the last for JSON of a thousand levels
        return None


def evaluate(expression: str, value_of: Callable[[str], str | None]) -> str:
    r"""The value of any selection expression.

    `$request.header.x-api-key`, `${request.querystring.room}`, `$context.authorizer.usageIdentifierKey`,
    `$stageVariables.x`, `$integration.response.statuscode`, `${integration.response.body.errorMessage}`, besides what
    `evaluate_selection` knows. What is missing is the empty string, and a body that is not JSON has nothing.

    Args:
        expression: the expression.
        value_of: what a variable stands for, given without its `$`, such as `request.header.x-api-key`; None for
            nothing: `Variables.value_of`, or a function of one's own.

    """
    return "".join([part if isinstance(part, str) else value_of(part.source) or "" for part in _compiled(expression)])


class _Variable(NamedTuple):
    """One variable: how it is written, where it is found, the path there, or the name."""

    source: str
    kind: str
    path: Path | None
    name: str

    def value(self, variables: Variables) -> Any:  # Any: a JSON value
        """What it stands for; `MISSING` for nothing."""
        kind = self.kind.removeprefix("integration.")
        if kind == "request.body":
            return MISSING if self.path is None else self.path.find(variables.body)
        if kind == "response.body":
            return MISSING if self.path is None else self.path.find(variables.answer_body)
        if kind == "context":
            return MISSING if self.path is None else self.path.find(variables.context)
        if kind == "response.statuscode":
            return variables.answer.status if variables.answer else MISSING
        if kind == "request.basepath":
            return variables.base_path
        if kind == "stageVariables":
            return variables.stage_variables.get(self.name, MISSING)
        return self._named(kind, variables)

    def _named(self, kind: str, variables: Variables) -> Any:  # Any: as `value`
        if kind.endswith("querystring"):
            values = variables.queries.get(self.name)
        elif kind.startswith("response"):
            values = variables.answer_headers.get(self.name.lower())
        else:
            values = variables.headers.get(self.name.lower())
        if not values:
            return MISSING
        return values if "multivalue" in kind else values[-1]


@lru_cache(maxsize=1_024)
def _compiled(expression: str) -> tuple[str | _Variable, ...]:
    parts: list[str | _Variable] = []
    at = 0
    for match in _VARIABLE.finditer(expression):
        parts.append(expression[at : match.start()])
        parts.append("$" if match["escaped"] else _read(match["braced"] or match["bare"]))
        at = match.end()
    parts.append(expression[at:])
    return tuple(part for part in parts if part != "")


@lru_cache(maxsize=1_024)
def _read(source: str) -> _Variable:
    match = _PARTS.fullmatch(source)
    if match is None:
        raise ValueError(
            "expected route.request.header.NAME, .querystring.NAME or .body.PATH, context.NAME, stageVariables.NAME, "
            f"integration.response.header.NAME or .body.PATH, or 'static' in single quotes, got {source!r}"
        )
    kind, rest = match["kind"], match["rest"]
    name = rest.removeprefix(".")
    if name.startswith(("['", '["')) and name.endswith(("']", '"]')):
        name = name[2:-2]
    path = None
    if kind.endswith("body") or kind == "context":
        try:
            path = read_path(rest)
        except PathError:
            path = None  # what cannot be found is missing
    return _Variable(source, kind, path, name)


def _document(body: str | bytes | None) -> Any:  # Any: a JSON document of unknown shape
    if body is None:
        return MISSING
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return MISSING


def _stringified(value: Any) -> str:  # Any: a JSON value
    if value is None or value is MISSING:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
