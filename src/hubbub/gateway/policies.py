"""IAM policies as authorizers answer with them: what they say of one action on one resource.

Source: docs.aws.amazon.com/IAM/latest/UserGuide, "IAM JSON policy elements reference" and "Condition operators".
Policy variables (`${aws:username}`) and `Principal` have no meaning here and are not looked at.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

Facts = Mapping[str, str]
"""What is known of a request, by condition key in small letters, such as `aws:sourceip`."""

Compare = Callable[[str, str], bool]
"""Whether a request's value is what a condition's value asks for."""

_Test = Callable[[Facts], bool]


class Verdict(enum.Enum):
    """What a policy says of a request."""

    ALLOWED = "allowed"
    DENIED = "explicitly denied"
    NOT_ALLOWED = "not allowed"


def judge(policy: object, *, action: str, resource: str, facts: Facts) -> Verdict:
    """What a policy document says of an action on a resource; an explicit Deny wins over every Allow.

    Args:
        policy: the document as decoded JSON. Its whole is looked at, also what does not concern this request.
        action: such as `execute-api:Invoke`; compared without case, as IAM does.
        resource: an ARN; `*` and `?` in the policy's stand for any characters, also `/` and `:`.
        facts: what conditions can ask for.

    Raises:
        ValueError: it is no policy.

    """
    if not isinstance(policy, dict):
        raise ValueError(f"expected a policy document, got {_shown(policy)}")
    said = policy.get("Statement")
    statements = [_statement(each) for each in (said if isinstance(said, list) else [said])]
    effects = {each.effect for each in statements if each.concerns(action, resource, facts)}
    if "Deny" in effects:
        return Verdict.DENIED
    return Verdict.ALLOWED if "Allow" in effects else Verdict.NOT_ALLOWED


class _Statement(NamedTuple):
    """One statement, read: `but` says that it speaks of all but those that are listed."""

    effect: str
    actions: list[str]
    all_actions_but: bool
    resources: list[str]
    all_resources_but: bool
    tests: list[_Test]

    def concerns(self, action: str, resource: str, facts: Facts) -> bool:
        """Whether it speaks of this request."""
        named = any(matches(each.lower(), action.lower()) for each in self.actions)
        there = any(matches(each, resource) for each in self.resources)
        return (
            named is not self.all_actions_but
            and there is not self.all_resources_but
            and all(test(facts) for test in self.tests)
        )


def _statement(said: object) -> _Statement:
    if not isinstance(said, dict):
        raise ValueError(f"expected a statement of a policy, got {_shown(said)}")
    effect = said.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise ValueError(f"expected Allow or Deny as a statement's Effect, got {_shown(effect)}")
    actions, all_actions_but = _either(said, "Action", "NotAction")
    resources, all_resources_but = _either(said, "Resource", "NotResource")
    return _Statement(effect, actions, all_actions_but, resources, all_resources_but, _tests(said.get("Condition", {})))


def _either(said: dict[str, object], name: str, opposite: str) -> tuple[list[str], bool]:
    """The texts under one of two names, and whether it was the second."""
    if (name in said) is (opposite in said):
        raise ValueError(f"expected {name} or {opposite} in a statement, got {'both' if name in said else 'neither'}")
    negated = opposite in said
    given = said[opposite if negated else name]
    listed = given if isinstance(given, list) else [given]
    texts = [text for text in listed if isinstance(text, str)]
    if len(texts) < len(listed):
        raise ValueError(f"expected a text or a list of texts as {name}, got {_shown(given)}")
    return texts, negated


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is what a pattern with `*` (any characters) and `?` (one) says.

    Takes time in proportion to the lengths' product: a pattern comes from a function, and must not hold anybody up.
    """
    at = star = 0
    position, anew = 0, -1  # anew: where the last `*` begins to match once more; -1 before there was one
    while position < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, anew = at, position
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[position]):
            at += 1
            position += 1
        elif anew >= 0:
            anew += 1
            at, position = star + 1, anew
        else:
            return False
    return set(pattern[at:]) <= {"*"}


def _tests(condition: object) -> list[_Test]:
    if not isinstance(condition, dict):
        raise ValueError(f"expected an object as a Condition, got {_shown(condition)}")
    tests: list[_Test] = []
    for operator, keys in condition.items():
        if not isinstance(keys, dict):
            raise ValueError(f"expected an object in the Condition {operator}, got {_shown(keys)}")
        tests += [_test(operator, key.lower(), _texts(operator, values)) for key, values in keys.items()]
    return tests


def _test(operator: str, key: str, expected: list[str]) -> _Test:
    """One key of a condition: any of its values will do, with a negated operator none may."""
    quantifier, _, rest = operator.rpartition(":")
    name = rest.removesuffix("IfExists")
    if name == "Null" and not quantifier and name == rest:
        return lambda facts: str(key not in facts).lower() in expected
    if name not in _OPERATORS or quantifier not in ("", "ForAllValues", "ForAnyValue"):
        raise ValueError(f"expected a Condition's operator, got {operator!r}")
    compare, negated = _OPERATORS[name]
    absent = negated  # what a key that the request does not have is worth
    if quantifier:
        absent = quantifier == "ForAllValues"
    elif name != rest:
        absent = True
    for value in expected:
        compare(value, value)  # raises what there is to raise

    def holds(facts: Facts) -> bool:
        actual = facts.get(key)
        if actual is None:
            return absent
        return any(compare(actual, value) for value in expected) is not negated

    return holds


def _texts(operator: str, values: object) -> list[str]:
    texts: list[str] = []
    for value in values if isinstance(values, list) else [values]:
        if isinstance(value, bool):
            texts.append(str(value).lower())
        elif isinstance(value, str | int | float):
            texts.append(str(value))
        else:
            raise ValueError(f"expected texts in the Condition {operator}, got {_shown(value)}")
    return texts


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number in a Condition, got {text!r}") from None


def _moment(text: str) -> float:
    """Epoch seconds of a date in ISO 8601, or of what is that already."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return _number(text)
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _is_within(address: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("/")[0]) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        raise ValueError(f"expected addresses or networks in a Condition, got {network!r}") from None


def _compared(value_of: Callable[[str], float], how: Callable[[float, float], bool]) -> Compare:
    return lambda actual, expected: how(value_of(actual), value_of(expected))


_ORDERS: dict[str, tuple[Callable[[float, float], bool], bool]] = {
    "Equals": (lambda actual, expected: actual == expected, False),
    "NotEquals": (lambda actual, expected: actual == expected, True),
    "LessThan": (lambda actual, expected: actual < expected, False),
    "LessThanEquals": (lambda actual, expected: actual <= expected, False),
    "GreaterThan": (lambda actual, expected: actual > expected, False),
    "GreaterThanEquals": (lambda actual, expected: actual >= expected, False),
}

_OPERATORS: dict[str, tuple[Compare, bool]] = {
    "StringEquals": (lambda actual, expected: actual == expected, False),
    "StringNotEquals": (lambda actual, expected: actual == expected, True),
    "StringEqualsIgnoreCase": (lambda actual, expected: actual.lower() == expected.lower(), False),
    "StringNotEqualsIgnoreCase": (lambda actual, expected: actual.lower() == expected.lower(), True),
    "StringLike": (lambda actual, expected: matches(expected, actual), False),
    "StringNotLike": (lambda actual, expected: matches(expected, actual), True),
    "ArnEquals": (lambda actual, expected: matches(expected, actual), False),
    "ArnNotEquals": (lambda actual, expected: matches(expected, actual), True),
    "ArnLike": (lambda actual, expected: matches(expected, actual), False),
    "ArnNotLike": (lambda actual, expected: matches(expected, actual), True),
    "Bool": (lambda actual, expected: actual.lower() == expected.lower(), False),
    "IpAddress": (_is_within, False),
    "NotIpAddress": (_is_within, True),
    **{f"Numeric{name}": (_compared(_number, how), negated) for name, (how, negated) in _ORDERS.items()},
    **{f"Date{name}": (_compared(_moment, how), negated) for name, (how, negated) in _ORDERS.items()},
}
"""By name: how two values are compared, and whether the condition holds where they are not so."""


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)[:100]
