"""What a template's parameters are: what was given or their default, if it is what their declaration allows.

Source: CloudFormation user guide, "Parameters".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.source import Value, line_of

_SSM = re.compile(r"AWS::SSM::Parameter::Value<(.+)>")


def parameter_values(declared: Mapping[str, Value], given: Mapping[str, str], path: Path) -> dict[str, str | list[str]]:
    """The values of all parameters.

    Keys of `given` with a colon are no parameters: they stand for what AWS looks up elsewhere (see `Scope`).

    Raises:
        TemplateError: a value is missing, unknown, or not what its declaration allows.

    """
    unknown = [name for name in given if name not in declared and ":" not in name]
    if unknown:
        raise TemplateError(
            path, None, f"{_named(unknown)} not in the template's Parameters: {', '.join(declared) or 'it has none'}"
        )
    missing = [name for name, of in declared.items() if name not in given and "Default" not in _mapping(of, name, path)]
    if missing:
        line = line_of(declared, missing[0])
        raise TemplateError(path, line, f"expected values, for there are no defaults: {_named(missing)} not given")
    return {name: _value(name, of, given, path) for name, of in declared.items()}


def is_looked_up(type_: str) -> bool:
    """Whether AWS reads the values of parameters of this type from the parameter store; what is given is a name."""
    return _SSM.fullmatch(type_) is not None


def _mapping(declaration: Value, name: str, path: Path) -> Mapping[str, Value]:
    if not isinstance(declaration, Mapping):
        raise TemplateError(path, None, f"expected a mapping with a Type as parameter {name}, got {declaration!r}")
    return declaration


def _value(name: str, of: Mapping[str, Value], given: Mapping[str, str], path: Path) -> str | list[str]:
    text = given.get(name, _text(of.get("Default")))
    kind = str(of.get("Type", "String"))
    looked_up = _SSM.fullmatch(kind)
    kind = looked_up[1] if looked_up else kind
    is_list = kind == "CommaDelimitedList" or kind.startswith("List<")
    elements = [element.strip() for element in text.split(",")] if is_list else [text]
    try:
        wrongs = list(_wrongs(elements, of, "Number" in kind))
    except (TypeError, ValueError) as failure:
        raise TemplateError(path, line_of(of), f"parameter {name}: its declaration is none: {failure}") from failure
    for wrong in wrongs:
        hint = of.get("ConstraintDescription")
        shown = "(NoEcho)" if of.get("NoEcho") in (True, "true") else repr(text)
        raise TemplateError(path, line_of(of), f"parameter {name} {wrong}, got {shown}{f': {hint}' if hint else ''}")
    return elements if is_list else text


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _wrongs(elements: list[str], of: Mapping[str, Value], is_number: bool) -> Iterator[str]:
    """What is wrong with the elements of one value."""
    if not isinstance(listed := of.get("AllowedValues") or [], list):
        raise TypeError(f"expected a list as AllowedValues, got {listed!r}")
    allowed = [_text(value) for value in listed]
    for element in elements:
        if allowed and element not in allowed:
            yield f"must be one of {', '.join(allowed)}"
        if is_number and not re.fullmatch(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", element):
            yield "must be a number"
        elif is_number and not _number(of, "MinValue", float("-inf")) <= float(element):
            yield f"must be at least {of['MinValue']}"
        elif is_number and not float(element) <= _number(of, "MaxValue", float("inf")):
            yield f"must be at most {of['MaxValue']}"
        if not is_number and not _number(of, "MinLength", 0) <= len(element):
            yield f"must have at least {of['MinLength']} characters"
        if not is_number and not len(element) <= _number(of, "MaxLength", float("inf")):
            yield f"must have at most {of['MaxLength']} characters"
        if "AllowedPattern" in of and not _matches(str(of["AllowedPattern"]), element):
            yield f"must match {of['AllowedPattern']}"


def _number(of: Mapping[str, Value], key: str, default: float) -> float:
    return float(of.get(key, default))


def _matches(pattern: str, text: str) -> bool:
    """Whether a Java pattern matches; one that Python does not know is taken as matched."""
    try:
        return re.fullmatch(pattern, text) is not None
    except re.error:
        return True


def _named(names: list[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"
