"""Selection expressions: what `$request.body.action` and its like are for a message.

Source: developer guide, "WebSocket selection expressions".
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import msgspec

_VARIABLE = re.compile(r"\$\{request\.body(?P<braced>[^}]*)\}|\$request\.body(?P<bare>[\w.\[\]\-]*)|\\(?P<escaped>\$)")

_INDEX = re.compile(r"[0-9]{1,9}")


def evaluate_selection(expression: str, body: str) -> str | None:
    r"""The value of a selection expression for a message's body; None when the body is not JSON.

    `$request.body.action`, `${request.body.a}/${request.body.b[0]}` and static text, `\$` for a literal dollar. A
    missing path is the empty string; what is found is made a string; nothing is evaluated twice.
    Source: developer guide, "WebSocket selection expressions".
    """
    try:
        document = msgspec.json.decode(body)
        return _VARIABLE.sub(partial(_value_of, document), expression)
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # the last for JSON of a thousand levels
        return None


def _value_of(document: Any, variable: re.Match[str]) -> str:  # Any: a JSON document of unknown shape
    if variable["escaped"]:
        return "$"
    return _stringified(_walk(document, variable["braced"] or variable["bare"] or ""))


def _walk(document: Any, path: str) -> Any:  # Any: a JSON document of unknown shape
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(document, dict):
            document = document.get(part)
        elif isinstance(document, list) and _INDEX.fullmatch(part) and int(part) < len(document):
            document = document[int(part)]
        else:
            return None
    return document


def _stringified(value: Any) -> str:  # Any: a JSON value
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
