"""What calls of DynamoDB say of conditions, changes, ranges and the attributes that are wanted; pure.

Names that are reserved words are written `#name` in expressions; values are written `:name` and given as
`values={"name": …}`. Source: "Expressions" and "Query" in DynamoDB's developer guide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hubbub.aws.marshalling import Item, Key, Value, item_of, pack, pack_key

NO_VALUES: Mapping[str, Value] = {}

_NAME = re.compile(r"#([A-Za-z_][A-Za-z0-9_]*)")
_VALUE = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)")

_HIGHEST = "\U0010ffff"
"""What comes after all that follows a prefix: DynamoDB orders by UTF-8, as Python does by code points."""


class Put(NamedTuple):
    """An item to be written in a transaction, in place of what is there."""

    item: Item
    condition: str | None = None
    values: Mapping[str, Value] = NO_VALUES


class Update(NamedTuple):
    """An item to be changed in a transaction."""

    key: Key
    expression: str
    condition: str | None = None
    values: Mapping[str, Value] = NO_VALUES


class Delete(NamedTuple):
    """An item to be deleted in a transaction."""

    key: Key
    condition: str | None = None
    values: Mapping[str, Value] = NO_VALUES


class Check(NamedTuple):
    """A condition that must hold for a transaction to be done, of an item that it does not write."""

    key: Key
    condition: str
    values: Mapping[str, Value] = NO_VALUES


Action = Put | Update | Delete | Check


def action_of(action: Action, table: str) -> dict[str, Any]:  # Any: JSON
    """An action as a transaction has it.

    Raises:
        ValueError: the values given are not those that are written.

    """
    match action:
        case Put(item, condition, values):
            about: dict[str, Any] = {"Item": item_of(item), **conditional(condition, values)}  # Any: JSON
        case Update(key, expression, condition, values):
            about = {"Key": pack_key(key), **conditional(condition, values, expression)}
        case Delete(key, condition, values) | Check(key, condition, values):
            about = {"Key": pack_key(key), **conditional(condition, values)}
    kind = "ConditionCheck" if isinstance(action, Check) else type(action).__name__
    return {kind: {"TableName": table, **about}}


def conditional(
    condition: str | None, values: Mapping[str, Value], expression: str | None = None
) -> dict[str, Any]:  # Any: JSON
    """What a write says of its condition and change.

    Raises:
        ValueError: the values given are not those that are written.

    """
    text = f"{expression or ''} {condition or ''}"
    written = set(_VALUE.findall(text))
    if written != values.keys():
        raise ValueError(f"values: expected {sorted(written)} for {text.strip()!r}, got {sorted(values)}")
    request: dict[str, Any] = {}  # Any: JSON
    if expression is not None:
        request["UpdateExpression"] = expression
    if condition is not None:
        request["ConditionExpression"] = condition
        request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    if names := set(_NAME.findall(text)):
        request["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
    if values:
        request["ExpressionAttributeValues"] = {f":{name}": pack(value) for name, value in values.items()}
    return request


def projection(only: Sequence[str]) -> dict[str, Any]:  # Any: JSON
    """Which attributes are wanted; all if none are named."""
    if not only:
        return {}
    names = {f"#o{n}": name for n, name in enumerate(only)}
    return {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}


class Range(NamedTuple):
    """A part of the items with one `pk`.

    Attributes:
        condition: what follows `pk = :pk` in the key condition.
        values: those in it.
        start: the `sk` after which to begin; None for the beginning.

    """

    condition: str
    values: dict[str, Any]  # Any: JSON
    start: str | None


def range_of(
    low: str | None, high: str | None, prefix: str | None, start: str | None, *, descending: bool = False
) -> Range | None:
    """The range between two `sk`, which belong to it, and with a prefix; None if nothing can be in it.

    DynamoDB takes an empty range for an error, and so it does a start that lies outside.
    """
    condition, values = "", {}
    if prefix and low is None and high is None:
        condition, values = " AND begins_with(sk, :prefix)", {":prefix": {"S": prefix}}
    if prefix:
        low = max(low or "", prefix)
        high = prefix + _HIGHEST if high is None else min(high, prefix + _HIGHEST)
    low = low or None  # all that is there is greater than nothing
    if high is not None and (low or "") >= high and low != high:
        return None
    if start is not None:
        near, far = (high, low) if descending else (low, high)
        if far is not None and not _is_before(start, far, descending):
            return None
        if near is not None and _is_before(start, near, descending):
            start = None
    if not condition:
        condition, values = _between(low, high)
    return Range(condition, values, start)


def _is_before(one: str, other: str, descending: bool) -> bool:
    return one > other if descending else one < other


def _between(low: str | None, high: str | None) -> tuple[str, dict[str, Any]]:  # Any: JSON
    if low is not None and high is not None:
        return " AND sk BETWEEN :low AND :high", {":low": {"S": low}, ":high": {"S": high}}
    if low is not None:
        return " AND sk >= :low", {":low": {"S": low}}
    if high is not None:
        return " AND sk <= :high", {":high": {"S": high}}
    return "", {}
