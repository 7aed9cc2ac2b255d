"""CloudFormation's intrinsic functions, by name.

Source: CloudFormation template reference, "Intrinsic function reference".
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final, Protocol

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.source import Value


class Names(Protocol):
    """What functions need to know of the template that they stand in; see `Scope`, which has it all."""

    given: Mapping[str, str]

    def resolve(self, value: Value, line: int | None = None) -> Value:
        """A value without intrinsic functions."""

    def text(self, value: Value, line: int | None = None) -> str:
        """A value as text."""

    def truth(self, value: Value, line: int | None = None) -> bool:
        """Whether a condition is true."""

    def holds(self, name: str, line: int | None = None) -> bool:
        """Whether the condition of that name holds."""

    def reference(self, name: str, line: int | None) -> Value:
        """What `Ref` is."""

    def attribute(self, logical_id: str, name: str, line: int | None) -> Value:
        """What `Fn::GetAtt` is."""

    def section(self, name: str) -> Mapping[str, Value]:
        """One of the template's sections."""

    def error(self, line: int | None, what: str) -> TemplateError:
        """An error in the template."""

    def note(self, logical_id: str, type_: str, meaning: str) -> None:
        """Name what cannot be done."""


class Absent:
    """The type of `ABSENT`."""

    def __repr__(self) -> str:
        return "AWS::NoValue"


ABSENT: Final = Absent()
"""What `AWS::NoValue` is: the property, or the element, is not there."""


class MadeUp(str):
    """What stands for a value that only AWS would know; lists are seen in it where lists are expected."""

    __slots__ = ()


Line = int | None

_VARIABLE = re.compile(r"\$\{(!?)([^{}]*)\}")


def as_text(value: Value) -> str | None:
    """A text, number or boolean as CloudFormation writes it; None for anything else."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else None


def _arguments(names: Names, function: str, value: Value, line: Line, *expected: str) -> list[Value]:
    """The list that a function is given, not resolved; as long as `expected` says, which names its elements."""
    if not isinstance(value, list) or len(value) != len(expected):
        raise names.error(line, f"expected {function} of [{', '.join(expected)}], got {_shown(value)}")
    return value


def _shown(value: Value) -> str:
    shown = json.dumps(value, default=str)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _list(names: Names, function: str, value: Value, line: Line) -> list[Value]:
    made = names.resolve(value, line)
    if isinstance(made, MadeUp):
        return [made]
    if not isinstance(made, list):
        raise names.error(line, f"expected a list in {function}, got {_shown(made)}")
    return made


def _ref(names: Names, value: Value, line: Line) -> Value:
    return names.reference(names.text(value, line), line)


def _get_att(names: Names, value: Value, line: Line) -> Value:
    if isinstance(value, str):
        value = value.split(".", 1)
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(part, str) for part in value[:1]):
        raise names.error(line, f"expected Fn::GetAtt of a resource's name and an attribute, got {_shown(value)}")
    return names.attribute(value[0], ".".join(names.text(part, line) for part in value[1:]), line)


def _sub(names: Names, value: Value, line: Line) -> Value:
    own: Mapping[str, Value] = {}
    if isinstance(value, list):
        value, own = _arguments(names, "Fn::Sub", value, line, "text", "mapping of names to values")
    if not isinstance(value, str) or not isinstance(own, Mapping):
        raise names.error(line, f"expected Fn::Sub of a text, or of a text and a mapping, got {_shown(value)}")

    def replaced(variable: re.Match[str]) -> str:
        literal, name = variable[1], variable[2].strip()
        if literal:
            return f"${{{variable[2]}}}"
        if name in own:
            found = names.resolve(own[name], line)
            return _substituted(names, name, found, line)
        if not re.fullmatch(r"[\w.:]+", name):
            hint = f"write ${{!{name}}} to keep it as it is"
            raise names.error(line, f"expected a name in Fn::Sub, got ${{{name}}}; {hint}")
        logical_id, dot, attribute = name.partition(".")
        found = names.attribute(logical_id, attribute, line) if dot else names.reference(name, line)
        return _substituted(names, name, found, line)

    return _VARIABLE.sub(replaced, value)


def _substituted(names: Names, name: str, value: Value, line: Line) -> str:
    made = "" if value is ABSENT else as_text(value)
    if made is None:
        raise names.error(line, f"expected text for ${{{name}}} in Fn::Sub, got {_shown(value)}")
    return made


def _join(names: Names, value: Value, line: Line) -> Value:
    delimiter, elements = _arguments(names, "Fn::Join", value, line, "delimiter", "list")
    listed = _list(names, "Fn::Join", elements, line)
    return names.text(delimiter, line).join(names.text(element, line) for element in listed)


def _split(names: Names, value: Value, line: Line) -> Value:
    delimiter, text = _arguments(names, "Fn::Split", value, line, "delimiter", "text")
    between = names.text(delimiter, line)
    if not between:
        raise names.error(line, "expected a delimiter in Fn::Split, got an empty text")
    whole = names.text(text, line)
    kind = MadeUp if isinstance(whole, MadeUp) else str
    return [kind(part) for part in whole.split(between)]


def _select(names: Names, value: Value, line: Line) -> Value:
    index, elements = _arguments(names, "Fn::Select", value, line, "index", "list")
    position = names.text(index, line)
    listed = _list(names, "Fn::Select", elements, line)
    if position.isdecimal() and any(isinstance(one, MadeUp) for one in listed):
        return listed[min(int(position), len(listed) - 1)]
    if not position.isdecimal() or int(position) >= len(listed):
        raise names.error(line, f"expected an index into {len(listed)} elements in Fn::Select, got {position}")
    return listed[int(position)]


def _base64(names: Names, value: Value, line: Line) -> Value:
    return base64.b64encode(names.text(value, line).encode()).decode()


def _cidr(names: Names, value: Value, line: Line) -> Value:
    if isinstance(value, list) and len(value) == 2:
        value = [*value, "8"]
    block, count, bits = (
        names.text(one, line) for one in _arguments(names, "Fn::Cidr", value, line, "ipBlock", "count", "cidrBits")
    )
    try:
        network = ipaddress.ip_network(block, strict=False)
        made = [str(part) for part in islice(network.subnets(new_prefix=network.max_prefixlen - int(bits)), int(count))]
    except ValueError as failure:
        raise names.error(line, f"expected an address block, a count and bits in Fn::Cidr: {failure}") from failure
    if len(made) < int(count):
        raise names.error(line, f"expected room for {count} blocks of {bits} bits in {block}, got {len(made)}")
    return made


def _get_azs(names: Names, value: Value, line: Line) -> Value:
    region = (value and names.text(value, line)) or names.reference("AWS::Region", line)
    return [f"{region}{zone}" for zone in "abc"]


def _find_in_map(names: Names, value: Value, line: Line) -> Value:
    default: Value = ABSENT
    if isinstance(value, list) and len(value) == 4 and isinstance(value[3], Mapping) and "DefaultValue" in value[3]:
        default, value = value[3]["DefaultValue"], value[:3]
    keys = [
        names.text(one, line)
        for one in _arguments(names, "Fn::FindInMap", value, line, "mapping", "first key", "second key")
    ]
    found: Value = names.section("Mappings")
    for depth, key in enumerate(keys):
        if not isinstance(found, Mapping) or key not in found:
            if default is not ABSENT:
                return names.resolve(default, line)
            where = ".".join(["Mappings", *keys[:depth]])
            known = ", ".join(found) if isinstance(found, Mapping) else "nothing"
            raise names.error(line, f"expected a key of {where} in Fn::FindInMap, got {key!r}; it has {known}")
        found = found[key]
    return names.resolve(found, line)


def _if(names: Names, value: Value, line: Line) -> Value:
    condition, then, otherwise = _arguments(names, "Fn::If", value, line, "condition", "if true", "if false")
    if not isinstance(condition, str):
        raise names.error(line, f"expected a condition's name in Fn::If, got {_shown(condition)}")
    return names.resolve(then if names.holds(condition, line) else otherwise, line)


def _equals(names: Names, value: Value, line: Line) -> Value:
    one, other = (names.resolve(side, line) for side in _arguments(names, "Fn::Equals", value, line, "one", "other"))
    return _comparable(one) == _comparable(other)


def _comparable(value: Value) -> Value:
    text = as_text(value)
    return value if text is None else text


def _not(names: Names, value: Value, line: Line) -> Value:
    (condition,) = _arguments(names, "Fn::Not", value, line, "condition")
    return not names.truth(condition, line)


def _all_of(names: Names, function: str, value: Value, line: Line) -> list[bool]:
    if not isinstance(value, list) or not 1 <= len(value) <= 10:
        raise names.error(line, f"expected {function} of a list of conditions, got {_shown(value)}")
    return [names.truth(condition, line) for condition in value]


def _and(names: Names, value: Value, line: Line) -> Value:
    return all(_all_of(names, "Fn::And", value, line))


def _or(names: Names, value: Value, line: Line) -> Value:
    return any(_all_of(names, "Fn::Or", value, line))


def _import_value(names: Names, value: Value, line: Line) -> Value:
    name = names.text(value, line)
    key = f"import:{name}"
    if key not in names.given:
        meaning = f"another stack exports it, so its value is the text {name!r}; give --parameter {key}=VALUE"
        names.note(name, "Fn::ImportValue", meaning)
    return names.given.get(key, name)


def _transform(names: Names, value: Value, line: Line) -> Value:
    macro = str(value.get("Name")) if isinstance(value, Mapping) else _shown(value)
    names.note(macro, "Fn::Transform", "this macro runs on AWS only: what it would put into the template is left out")
    return ABSENT


def _length(names: Names, value: Value, line: Line) -> Value:
    return len(_list(names, "Fn::Length", value, line))


def _to_json_string(names: Names, value: Value, line: Line) -> Value:
    return json.dumps(names.resolve(value, line), separators=(",", ":"), ensure_ascii=False)


FUNCTIONS: Final[Mapping[str, Callable[[Names, Value, Line], Value]]] = {
    "Ref": _ref,
    "Fn::And": _and,
    "Fn::Base64": _base64,
    "Fn::Cidr": _cidr,
    "Fn::Equals": _equals,
    "Fn::FindInMap": _find_in_map,
    "Fn::GetAZs": _get_azs,
    "Fn::GetAtt": _get_att,
    "Fn::If": _if,
    "Fn::ImportValue": _import_value,
    "Fn::Join": _join,
    "Fn::Length": _length,
    "Fn::Not": _not,
    "Fn::Or": _or,
    "Fn::Select": _select,
    "Fn::Split": _split,
    "Fn::Sub": _sub,
    "Fn::ToJsonString": _to_json_string,
    "Fn::Transform": _transform,
}
"""Each takes the names that it stands among, its argument as it is written, and its line."""
