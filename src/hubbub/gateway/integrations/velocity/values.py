"""Java's values in Python's: how they are written out, compared, counted, and what methods they have.

null is None, a map a dict, a list a list; all of them as `msgspec` reads JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

Value = Any
"""A value in a template: JSON's kinds, and the classes of this module."""


class ArrayList(list[Value]):
    """A list that the template made; one of JSON's is written out as JSON, and this is not."""


class Quiet(dict[str, Value]):
    """A map that is written out as nothing, as API Gateway's `$context` and the maps in it are."""


class Entry(NamedTuple):
    """A key of a map with its value."""

    key: Value
    value: Value


class Tool(NamedTuple):
    """Something that has methods and properties, and is no data: `$input`, `$util`, `$foreach`."""

    methods: Mapping[str, Callable[..., Value]] = {}
    properties: Mapping[str, Value] = {}


def text_of(value: Value) -> str:
    """A value as Java writes it, nothing for null.

    Maps are `{a=1, b=2}`; lists of JSON, and what is in them, are JSON: found to be so on AWS.
    """
    return "" if value is None else _written(value)


def _written(value: Value) -> str:
    match value:
        case None:
            return "null"
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return _double(value)
        case Quiet() | Tool():
            return ""
        case dict():
            return "{" + ", ".join(f"{_written(key)}={_written(each)}" for key, each in value.items()) + "}"
        case ArrayList():
            return "[" + ", ".join(map(_written, value)) + "]"
        case list():
            return msgspec.json.encode(value).decode()
        case Entry():
            return f"{_written(value.key)}={_written(value.value)}"
        case _:
            return str(value)


def _double(value: float) -> str:
    """As `Double.toString` does: digits on both sides of the point, E beyond 10^7 and below 10^-3."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    exact = Decimal(repr(value)).normalize()
    digits = "".join(map(str, exact.as_tuple().digits))
    return f"{'-' * (value < 0)}{digits[0]}.{digits[1:] or '0'}E{exact.adjusted()}"


def is_true(value: Value) -> bool:
    """Whether a condition holds: in Velocity 1.7 everything does that is neither false nor null, the empty too."""
    return value is not None and value is not False


def are_equal(left: Value, right: Value) -> bool:
    """As `==` has it: numbers by value, others of one kind likewise, else what is written out.

    null is equal to the empty string: found to be so on AWS, where it is none in Velocity.
    """
    if left is None or right is None:
        return left in (None, "") and right in (None, "")
    if is_number(left) and is_number(right):
        return bool(left == right)
    if type(left) is type(right):
        return bool(left == right)
    return _written(left) == _written(right)


def is_number(value: Value) -> bool:
    """Whether it is a number, which a boolean is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def get_property(value: Value, name: str) -> Value:
    """What `$value.name` is; None where there is none."""
    match value:
        case dict():
            found = value.get(name)
            return not value if found is None and name == "empty" and name not in value else found
        case Tool():
            return value.properties.get(name)
        case Entry():
            return {"key": value.key, "value": value.value}.get(name)
        case list() | str() if name == "empty":
            return not value
        case _:
            return None


def get_item(value: Value, key: Value) -> Value:
    """What `$value[key]` is; None where there is none."""
    if isinstance(value, list):
        return value[key] if type(key) is int and -len(value) <= key < len(value) else None
    if isinstance(value, dict):
        return value.get(key if key in value else _written(key))
    return get_property(value, key) if isinstance(key, str) else None


def set_item(value: Value, key: Value, to: Value) -> None:
    """Make `$value[key]` or `$value.key` something else; nothing happens where that cannot be."""
    if isinstance(value, dict):
        value[key if isinstance(key, str) else _written(key)] = to
    elif isinstance(value, list) and type(key) is int and -len(value) <= key < len(value):
        value[key] = to


def call_method(value: Value, name: str, arguments: Sequence[Value]) -> Value:
    """What `$value.name(…)` is; None where there is no such method, or none that takes these arguments.

    Raises:
        ValueError, IndexError, KeyError: it has thrown an exception.

    """
    method = value.methods.get(name) if isinstance(value, Tool) else _method(value, name)
    if method is None or value is None:
        return None
    try:
        return method(*arguments) if isinstance(value, Tool) else method(value, *arguments)
    except (TypeError, AttributeError):  # too many arguments, too few, or of the wrong kind
        return None


def items_of(value: Value) -> Sequence[Value]:
    """What `#foreach` goes through: a list, the values of a map, nothing of others."""
    match value:
        case list():
            return value
        case dict():
            return list(value.values())
        case _:
            return ()


def _method(value: Value, name: str) -> Callable[..., Value] | None:
    methods = next((table for kind, table in _METHODS if isinstance(value, kind)), {})
    return methods.get(name) or _ANY.get(name)


def _substring(text: str, start: int, end: int | None = None) -> str:
    last = len(text) if end is None else end
    if not 0 <= start <= last <= len(text):
        raise IndexError(f"expected positions from 0 to {len(text)}, got {start} to {last}")
    return text[start:last]


def _replacement(text: str) -> Callable[[re.Match[str]], str]:
    """A replacement as Java reads it: `$1` is a group, a backslash takes its meaning from what follows."""
    parts = re.findall(r"\\(.)|\$(\d)|\$\{(\w+)\}|([^\\$]+|[\\$])", text, re.DOTALL)

    def replace(match: re.Match[str]) -> str:
        return "".join(
            escaped or literal or (match[int(number)] if number else match[name]) or ""
            for escaped, number, name, literal in parts
        )

    return replace


def _split(text: str, pattern: str, limit: int = 0) -> ArrayList:
    parts = re.split(pattern, text, maxsplit=limit - 1 if limit > 0 else 0)
    while limit == 0 and len(parts) > 1 and not parts[-1]:
        parts.pop()
    return ArrayList(parts)


def _replaced(text: str, pattern: str, by: str, count: int) -> str:
    try:
        return re.sub(pattern, _replacement(by), text, count=count)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None


def _matches(text: str, pattern: str) -> bool:
    try:
        return re.fullmatch(pattern, text) is not None
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None


def _put(into: dict[Value, Value], key: Value, value: Value) -> Value:
    before = into.get(key)
    into[key] = value
    return before


def _set(into: list[Value], index: int, value: Value) -> Value:
    before = into[index]
    into[index] = value
    return before


def _add(into: list[Value], first: Value, *rest: Value) -> Value:
    if rest:
        into.insert(first, rest[0])
        return None
    into.append(first)
    return True


def _remove(of: list[Value], which: Value) -> Value:
    if type(which) is int:
        return of.pop(which)
    if which in of:
        of.remove(which)
        return True
    return False


def _parsed_int(_: Value, text: str, radix: int = 10) -> int:
    return int(text.strip(), radix)


def _compared(left: Value, right: Value) -> int:
    return int(left > right) - int(left < right)


_ANY: dict[str, Callable[..., Value]] = {
    "toString": lambda value: _written(value),
    "equals": lambda value, other: type(value) is type(other) and value == other,
}

_STRING: dict[str, Callable[..., Value]] = {
    "charAt": lambda text, index: _substring(text, index, index + 1),
    "compareTo": _compared,
    "concat": lambda text, other: text + other,
    "contains": lambda text, other: other in text,
    "endsWith": lambda text, other: text.endswith(other),
    "equalsIgnoreCase": lambda text, other: isinstance(other, str) and text.lower() == other.lower(),
    "indexOf": lambda text, other, start=0: text.find(other, start),
    "isBlank": lambda text: not text.strip(),
    "isEmpty": lambda text: not text,
    "lastIndexOf": lambda text, other: text.rfind(other),
    "length": lambda text: len(text),
    "matches": _matches,
    "replace": lambda text, old, new: text.replace(old, new),
    "replaceAll": lambda text, pattern, by: _replaced(text, pattern, by, 0),
    "replaceFirst": lambda text, pattern, by: _replaced(text, pattern, by, 1),
    "split": _split,
    "startsWith": lambda text, other, start=0: text.startswith(other, start),
    "strip": lambda text: text.strip(),
    "substring": _substring,
    "toLowerCase": lambda text: text.lower(),
    "toUpperCase": lambda text: text.upper(),
    "trim": lambda text: text.strip(),
}

_LIST: dict[str, Callable[..., Value]] = {
    "add": _add,
    "addAll": lambda into, values: into.extend(items_of(values)) or True,
    "clear": lambda values: values.clear(),
    "contains": lambda values, value: value in values,
    "containsAll": lambda values, others: all(each in values for each in others),
    "count": lambda values: len(values),
    "get": lambda values, index: values[index],
    "indexOf": lambda values, value: values.index(value) if value in values else -1,
    "isEmpty": lambda values: not values,
    "remove": _remove,
    "set": _set,
    "size": lambda values: len(values),
    "subList": lambda values, start, end: type(values)(values[start:end]),
}

_MAP: dict[str, Callable[..., Value]] = {
    "clear": lambda values: values.clear(),
    "containsKey": lambda values, key: key in values,
    "containsValue": lambda values, value: value in values.values(),
    "count": lambda values: len(values),
    "entrySet": lambda values: ArrayList(Entry(key, value) for key, value in values.items()),
    "get": lambda values, key: get_item(values, key),
    "getOrDefault": lambda values, key, other: values.get(key, other),
    "isEmpty": lambda values: not values,
    "keySet": lambda values: ArrayList(values),
    "put": _put,
    "putAll": lambda into, values: into.update(values),
    "putIfAbsent": lambda into, key, value: _put(into, key, value) if into.get(key) is None else into[key],
    "remove": lambda values, key: values.pop(key, None),
    "size": lambda values: len(values),
    "values": lambda values: ArrayList(values.values()),
}

_NUMBER: dict[str, Callable[..., Value]] = {
    "compareTo": _compared,
    "doubleValue": float,
    "floatValue": float,
    "intValue": int,
    "longValue": int,
    # Templates have no classes, so they call what belongs to one on a number: `#set($Integer = 0)`.
    "parseDouble": lambda _, text: float(text),
    "parseInt": _parsed_int,
    "parseLong": _parsed_int,
    "valueOf": lambda number, text: type(number)(text),
}

_ENTRY: dict[str, Callable[..., Value]] = {
    "getKey": lambda entry: entry.key,
    "getValue": lambda entry: entry.value,
}

_METHODS: tuple[tuple[type, dict[str, Callable[..., Value]]], ...] = (
    (str, _STRING),
    (bool, {}),
    (int, _NUMBER),
    (float, _NUMBER),
    (dict, _MAP),
    (Entry, _ENTRY),
    (list, _LIST),
)
