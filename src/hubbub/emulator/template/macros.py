"""What CloudFormation does to a template before anything else: local `AWS::Include` files and `Fn::ForEach` loops.

Source: CloudFormation template reference, "AWS::Include transform" and "AWS::LanguageExtensions transform".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hubbub.emulator.template.scope import Scope
from hubbub.emulator.template.source import Located, Value, line_of, read_document

SAM = "AWS::Serverless-2016-10-31"
_HARMLESS = ("AWS::LanguageExtensions", "AWS::Include", "AWS::CodeDeployBlueGreen", "AWS::SecretsManager-")
_LOOP = "Fn::ForEach::"


def transforms(document: Mapping[str, Value]) -> list[str]:
    """The names of the template's transforms, in their order."""
    found = document.get("Transform") or []
    listed = found if isinstance(found, list) else [found]
    return [str(one.get("Name")) if isinstance(one, Mapping) else str(one) for one in listed]


def expand(scope: Scope, watched: list[Path]) -> Value:
    """The scope's document with its includes and loops written out; files that were included are added to `watched`.

    Macros that run on AWS are named and left out.

    Raises:
        TemplateError: a file to include is not there or not readable, or a loop is not one.

    """
    for name in transforms(scope.document):
        if name != SAM and not name.startswith(_HARMLESS):
            scope.note(name, "Transform", "this macro runs on AWS only: the template is read as it stands")
    whole = [
        {"Name": one.get("Name"), "Parameters": one.get("Parameters")}
        for one in _listed(scope.document.get("Transform"))
        if isinstance(one, Mapping) and one.get("Name") == "AWS::Include"
    ]
    document: Value = scope.document
    for include in whole:
        document = _merged(document, _included(scope, include, line_of(document, "Transform"), watched))
    return _expanded(scope, document, watched, {})


def _listed(value: Value) -> list[Value]:
    return value if isinstance(value, list) else [value]


def _merged(document: Mapping[str, Value], included: Value) -> Located:
    """A template and what is included into it as a whole, section by section; the template's own keys win."""
    made = Located.at(line_of(document) or 1, dict(document), dict(getattr(document, "lines", {})))
    for section, value in included.items() if isinstance(included, Mapping) else ():
        own = made.get(section)
        if isinstance(own, Mapping) and isinstance(value, Mapping):
            lines = {**getattr(value, "lines", {}), **getattr(own, "lines", {})}
            value = Located.at(line_of(own) or 1, {**value, **own}, lines)
        elif own is not None:
            continue
        made[section] = value
    return made


def _expanded(scope: Scope, value: Value, watched: list[Path], loop: Mapping[str, str]) -> Value:
    """A value with includes and loops written out; `loop` has the variables of the loops that it stands in."""
    if isinstance(value, str):
        return _replaced(value, loop)
    if isinstance(value, list):
        return [_expanded(scope, item, watched, loop) for item in value]
    if not isinstance(value, Mapping):
        return value
    if list(value) == ["Ref"] and isinstance(value["Ref"], str) and value["Ref"] in loop:
        return loop[value["Ref"]]
    made: dict[str, Value] = {}
    lines: dict[str, int] = {}
    for key, item in value.items():
        at = line_of(value, key)
        for name, one in _entries(scope, key, item, watched, loop, at):
            if name in made and not (key == "Fn::Transform"):
                raise scope.error(at, f"the key {name!r} is there twice, once loops are written out")
            made.setdefault(name, one)
            if at:
                lines.setdefault(name, at)
    return Located.at(line_of(value) or 1, made, lines) if line_of(value) else made


def _entries(
    scope: Scope, key: str, item: Value, watched: list[Path], loop: Mapping[str, str], line: int | None
) -> Iterator[tuple[str, Value]]:
    """What one key of a mapping becomes: itself, what a file has, or one entry for each turn of a loop."""
    if key.startswith(_LOOP):
        yield from _turns(scope, key, item, watched, loop, line)
    elif key == "Fn::Transform" and isinstance(item, Mapping) and item.get("Name") == "AWS::Include":
        included = _included(scope, item, line, watched)
        if isinstance(included, Mapping):
            yield from _expanded(scope, included, watched, loop).items()
    else:
        yield _replaced(key, loop), _expanded(scope, item, watched, loop)


def _turns(
    scope: Scope, key: str, item: Value, watched: list[Path], loop: Mapping[str, str], line: int | None
) -> Iterator[tuple[str, Value]]:
    if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], str) or not isinstance(item[2], Mapping):
        raise scope.error(line, f"expected {key} of [identifier, collection, {{key: value}}]")
    identifier, collection, body = item
    turns = scope.resolve(_expanded(scope, collection, watched, loop), line)
    if not isinstance(turns, list):
        raise scope.error(line, f"expected a list as the collection of {key}, got {turns!r}")
    for turn in turns:
        yield from _expanded(scope, body, watched, {**loop, identifier: scope.text(turn, line)}).items()


def _replaced(text: str, loop: Mapping[str, str]) -> str:
    """A text with the loops' variables: `${X}` as it is, `&{X}` without what a logical id may not have."""
    for name, value in loop.items():
        text = text.replace(f"${{{name}}}", value).replace(f"&{{{name}}}", re.sub(r"[^A-Za-z0-9]", "", value))
    return text


def _included(scope: Scope, include: Mapping[str, Value], line: int | None, watched: list[Path]) -> Value:
    """The document of a local file; None for one that is in S3, which is named."""
    parameters = include.get("Parameters")
    location = scope.text(parameters.get("Location", "") if isinstance(parameters, Mapping) else "", line)
    if re.match(r"s3:|https?:", location):
        scope.note(location, "AWS::Include", "the file is in S3 and what it has is left out; name a local file")
        return None
    path = scope.path.parent / location
    if not location or not path.is_file():
        raise scope.error(line, f"expected a file to include, and there is no {location or 'Location'}")
    watched.append(path)
    return _relocated(read_document(path), line or 1)


def _relocated(value: Value, line: int) -> Value:
    """What a file has, at the line that includes it: errors name the template's own lines."""
    if isinstance(value, list):
        return [_relocated(item, line) for item in value]
    if not isinstance(value, Mapping):
        return value
    return Located.at(line, {key: _relocated(item, line) for key, item in value.items()})
