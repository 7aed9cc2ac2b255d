"""Filter criteria of event source mappings: which records a function wants to see.

Source: docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html and
docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

Matches = Callable[[Any], bool]
"""Whether a value is what a rule says; `ABSENT` where there is none. Any: a JSON value."""

ABSENT = object()
"""What a field is that is not there; null is there."""


class PatternInvalid(ValueError):
    """A pattern is not one; the message says where and what was expected."""


class Pattern:
    """A filter pattern, such as `{"body": {"kind": ["a", {"prefix": "b"}]}}`.

    All fields must match, each by one of its alternatives. Raises `PatternInvalid`.

    Args:
        text: the pattern, as JSON.

    """

    def __init__(self, text: str) -> None:
        try:
            rules = json.loads(text)
        except ValueError as error:
            raise PatternInvalid(f"a filter pattern must be JSON: {error}: {text[:200]}") from None
        if not isinstance(rules, dict):
            raise PatternInvalid(f"a filter pattern must be a JSON object, got {text[:200]}")
        self.rules: dict[str, Any] = rules  # Any: JSON
        self._matches = _object(rules, "")

    def takes(self, document: dict[str, Any]) -> bool:  # Any: a record
        """Whether a record is what the pattern says."""
        return self._matches(document)


def _object(rules: dict[str, Any], path: str) -> Matches:  # Any: JSON
    if not rules:
        raise PatternInvalid(f"a filter pattern must not have an empty object{_at(path)}")
    fields = [_field(key, rule, path) for key, rule in rules.items()]

    def matches(value: Any) -> bool:  # Any: JSON
        if isinstance(value, list):
            return any(matches(each) for each in value if isinstance(each, dict))
        document = value if isinstance(value, dict) else {}
        return all(field(document) for field in fields)

    return matches


def _field(key: str, rule: Any, path: str) -> Matches:  # Any: JSON
    here = f"{path}.{key}" if path else key
    if key == "$or":
        if not isinstance(rule, list) or len(rule) < 2 or not all(isinstance(each, dict) for each in rule):
            raise PatternInvalid(f"$or takes a list of two or more objects{_at(path)}")
        return _any_of([_object(each, here) for each in rule])
    if isinstance(rule, dict):
        inner = _object(rule, here)
    elif isinstance(rule, list) and rule:
        inner = _leaf([_alternative(each, here) for each in rule])
    else:
        raise PatternInvalid(f"expected an object or a list of alternatives{_at(here)}, got {json.dumps(rule)[:100]}")
    return lambda document: inner(document.get(key, ABSENT))


def _any_of(rules: list[Matches]) -> Matches:
    return lambda value: any(rule(value) for rule in rules)


def _leaf(alternatives: list[Matches]) -> Matches:
    """One of the alternatives holds for the value, or for an element of it where it is an array."""
    rule = _any_of(alternatives)

    def matches(value: Any) -> bool:  # Any: JSON
        if isinstance(value, list):
            return any(rule(each) for each in value) if value else rule(ABSENT)
        return rule(ABSENT if isinstance(value, dict) else value)  # only leaves are compared, and exist

    return matches


def _alternative(rule: Any, path: str) -> Matches:  # Any: JSON
    if isinstance(rule, dict):
        if len(rule) != 1:
            raise PatternInvalid(f"expected one operator{_at(path)}, got {json.dumps(rule)[:100]}")
        operator, operand = next(iter(rule.items()))
        if (build := _OPERATORS.get(operator)) is None:
            raise PatternInvalid(f"unknown operator {operator!r}{_at(path)}; there are {', '.join(_OPERATORS)}")
        try:
            return build(operand, path)
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, PatternInvalid):
                raise
            raise PatternInvalid(f"{operator} cannot take {json.dumps(operand)[:100]}{_at(path)}") from error
    if isinstance(rule, list):
        raise PatternInvalid(f"an alternative must not be a list{_at(path)}")
    return partial(_equals, rule)


def _equals(wanted: object, value: object) -> bool:
    """Equality of JSON's values: true is not 1."""
    return isinstance(wanted, bool) == isinstance(value, bool) and wanted == value


def _text(operand: Any, path: str, operator: str) -> tuple[str, bool]:  # Any: JSON
    """A text that is looked for, and whether its case matters."""
    folded = isinstance(operand, dict) and list(operand) == ["equals-ignore-case"]
    text = operand["equals-ignore-case"] if folded else operand
    if not isinstance(text, str):
        raise PatternInvalid(f"{operator} takes a string{_at(path)}, got {json.dumps(operand)[:100]}")
    return (text.casefold(), True) if folded else (text, False)


def _prefix(operand: Any, path: str) -> Matches:  # Any: JSON
    text, folded = _text(operand, path, "prefix")
    return lambda value: isinstance(value, str) and (value.casefold() if folded else value).startswith(text)


def _suffix(operand: Any, path: str) -> Matches:  # Any: JSON
    text, folded = _text(operand, path, "suffix")
    return lambda value: isinstance(value, str) and (value.casefold() if folded else value).endswith(text)


def _equals_ignore_case(operand: Any, path: str) -> Matches:  # Any: JSON
    text = _text(operand, path, "equals-ignore-case")[0].casefold()
    return lambda value: isinstance(value, str) and value.casefold() == text


def _wildcard(operand: Any, path: str) -> Matches:  # Any: JSON
    text, _ = _text(operand, path, "wildcard")
    expression = re.compile(".*".join(re.escape(part) for part in text.split("*")), re.DOTALL)
    return lambda value: isinstance(value, str) and expression.fullmatch(value) is not None


def _exists(operand: Any, path: str) -> Matches:  # Any: JSON
    if not isinstance(operand, bool):
        raise PatternInvalid(f"exists takes true or false{_at(path)}, got {json.dumps(operand)[:100]}")
    return lambda value: (value is not ABSENT) == operand


def _anything_but(operand: Any, path: str) -> Matches:  # Any: JSON
    """A value that is there and none of these."""
    excluded = operand if isinstance(operand, list) else [operand]
    if not excluded:
        raise PatternInvalid(f"anything-but takes at least one value{_at(path)}")
    rules: list[Matches] = []
    for each in excluded:
        if isinstance(each, dict) and not each.keys() <= {"prefix", "suffix", "equals-ignore-case", "wildcard"}:
            raise PatternInvalid(f"anything-but cannot take {json.dumps(each)[:100]}{_at(path)}")
        inner = each[next(iter(each))] if isinstance(each, dict) and each else None
        if isinstance(inner, list):
            operator = next(iter(each))
            rules += [_alternative({operator: one}, path) for one in inner]
        else:
            rules.append(_alternative(each, path))
    one = _any_of(rules)
    return lambda value: value is not ABSENT and not one(value)


_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda value, bound: value == bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}


def _numeric(operand: Any, path: str) -> Matches:  # Any: JSON
    """`["=", 1]`, `[">", 0, "<=", 5]`."""
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        raise PatternInvalid(f"numeric takes one or two comparisons{_at(path)}, got {json.dumps(operand)[:100]}")
    pairs = list(zip(operand[::2], operand[1::2], strict=True))
    for sign, bound in pairs:
        if sign not in _COMPARISONS or isinstance(bound, bool) or not isinstance(bound, int | float):
            raise PatternInvalid(f"numeric cannot take {json.dumps(operand)[:100]}{_at(path)}")

    def matches(value: Any) -> bool:  # Any: JSON
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and all(_COMPARISONS[sign](value, bound) for sign, bound in pairs)

    return matches


def _cidr(operand: Any, path: str) -> Matches:  # Any: JSON
    network = ipaddress.ip_network(operand, strict=False)

    def matches(value: Any) -> bool:  # Any: JSON
        try:
            return isinstance(value, str) and ipaddress.ip_address(value) in network
        except ValueError:
            return False

    return matches


_OPERATORS: dict[str, Callable[[Any, str], Matches]] = {  # Any: JSON
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": _wildcard,
    "anything-but": _anything_but,
    "exists": _exists,
    "numeric": _numeric,
    "cidr": _cidr,
}


def _at(path: str) -> str:
    return f" at {path}" if path else ""
