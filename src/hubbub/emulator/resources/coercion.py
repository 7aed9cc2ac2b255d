"""CloudFormation's property values made what an API takes, by the API's own description in botocore.

CloudFormation is lax: numbers and booleans may be strings, and a document may stand where an API wants its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_WORDS = {"true": True, "false": False}


def coerced(shape: Any, value: Any, where: str) -> Any:  # Any: a shape of botocore's, which has no types; JSON
    """`value` as `shape` has it.

    Members of a structure that the API does not know are left out: CloudFormation has more than the call takes.

    Args:
        shape: botocore's, such as an operation's `input_shape`.
        value: JSON.
        where: what it is, for errors, such as `BillingMode` or `KeySchema[0].KeyType`.

    Raises:
        ValueError: it cannot be; the message says where, what was expected and what came.

    """
    match shape.type_name:
        case "structure":
            return _structure(shape, value, where)
        case "list":
            values = value if isinstance(value, list | tuple) else [value]  # CloudFormation takes one for a list
            return [coerced(shape.member, each, f"{where}[{index}]") for index, each in enumerate(values)]
        case "map":
            return {
                str(key): coerced(shape.value, each, f"{where}.{key}") for key, each in _mapping(value, where).items()
            }
        case "boolean":
            return _boolean(value, where)
        case "integer" | "long":
            return _number(value, where, int, "a whole number")
        case "float" | "double":
            return _number(value, where, float, "a number")
        case "string":
            return text_of(value)
        case "blob":
            return value if isinstance(value, bytes) else text_of(value).encode()
        case _:
            return value


def text_of(value: Any) -> str:  # Any: JSON
    """`value` as a string: documents become JSON, booleans `true` and `false`."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


def _structure(shape: Any, value: Any, where: str) -> dict[str, Any]:  # Any: as in `coerced`
    # Properties are `KeySchema` in CloudFormation, and `keySchema` in some APIs.
    names = {name.lower(): name for name in shape.members}
    found = {}
    for key, each in _mapping(value, where).items():
        name = names.get(str(key).lower())
        if name is not None and each is not None:
            found[name] = coerced(shape.members[name], each, f"{where}.{key}".removeprefix("."))
    return found


def _mapping(value: Any, where: str) -> Mapping[Any, Any]:  # Any: JSON
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected an object, got {value!r}")
    return value


def _boolean(value: Any, where: str) -> bool:  # Any: JSON
    found = _WORDS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError(f"{where}: expected true or false, got {value!r}")
    return found


def _number(value: Any, where: str, kind: type[int] | type[float], words: str) -> int | float:  # Any: JSON
    whole = kind is float or not isinstance(value, float) or value.is_integer()
    if whole and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return kind(value)
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"{where}: expected {words}, got {value!r}")
