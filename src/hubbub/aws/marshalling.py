"""Items as Python has them and as DynamoDB's JSON has them, where each value says its type.

Source: "AttributeValue" in the DynamoDB API reference.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

Value = str | int | bytes | bool | None | dict[str, Any] | list[Any] | set[str]  # Any: a Value; types cannot recur here
"""What an attribute can be; numbers are whole."""

Item = dict[str, Value]
"""An item by attribute; `pk` and `sk` are attributes like others."""

Key = tuple[str, str]
"""`pk` and `sk`."""


def quoted(text: str) -> str:
    """An id as it stands in a key before something else: so that none can reach into another's items."""
    return text.replace("%", "%25").replace("#", "%23")


def unquoted(text: str) -> str:
    """The id of which `quoted` made this."""
    return text.replace("%23", "#").replace("%25", "%")


def pack(value: Value) -> dict[str, Any]:  # Any: JSON
    """A value as DynamoDB's JSON has it.

    Raises:
        TypeError: it is none of the kinds; floats are not.
        ValueError: it is an empty set, which DynamoDB does not keep.

    """
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case None:
            return {"NULL": True}
        case bytes():
            return {"B": b64encode(value).decode()}
        case dict():
            return {"M": {name: pack(each) for name, each in value.items()}}
        case list():
            return {"L": [pack(each) for each in value]}
        case set():
            if not value:
                raise ValueError("value: expected a set with members, got an empty one: leave the attribute out")
            if all(isinstance(each, str) for each in value):
                return {"SS": sorted(value)}
    raise TypeError(f"value: expected str, int, bytes, bool, None, dict, list or set of str, got {value!r}")


def unpack(packed: Mapping[str, Any]) -> Value:  # Any: JSON
    """The value that DynamoDB's JSON tells of.

    Raises:
        ValueError: it is of a kind that Hubbub does not write.

    """
    [(kind, value)] = packed.items()
    match kind:
        case "S" | "BOOL":
            found: Value = value
        case "N":
            found = int(value)
        case "NULL":
            found = None
        case "B":
            found = b64decode(value)
        case "M":
            found = unpack_item(value)
        case "L":
            found = [unpack(each) for each in value]
        case "SS":
            found = set(value)
        case _:
            raise ValueError(f"value: expected S, N, B, BOOL, NULL, M, L or SS, got {kind}")
    return found


def item_of(item: Item) -> dict[str, Any]:  # Any: JSON
    """An item as DynamoDB's JSON has it.

    Raises:
        ValueError: it has no key.

    """
    key_of(item)
    return {name: pack(value) for name, value in item.items()}


def unpack_item(packed: Mapping[str, Any]) -> Item:  # Any: JSON
    """An item, or what is in a map."""
    return {name: unpack(value) for name, value in packed.items()}


def key_of(item: Item) -> Key:
    """An item's key.

    Raises:
        ValueError: it has none.

    """
    pk, sk = item.get("pk"), item.get("sk")
    if not (isinstance(pk, str) and pk and isinstance(sk, str) and sk):
        raise ValueError(f"item: expected pk and sk, two strings that are not empty, got {pk!r} and {sk!r}")
    return pk, sk


def pack_key(key: Key) -> dict[str, Any]:  # Any: JSON
    """A key as DynamoDB's JSON has it."""
    pk, sk = key
    return {"pk": {"S": pk}, "sk": {"S": sk}}
