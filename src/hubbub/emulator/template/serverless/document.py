"""YAML and JSON files as the Serverless Framework reads them, with the file and line of everything in them.

The framework reads YAML 1.2 by js-yaml: `yes`, `010` and dates are not what YAML 1.1 makes of them. Tags such as `!Ref`
become CloudFormation's long forms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hubbub.emulator.template.errors import TemplateError

_DEEPEST = 200
"""How many levels a document may have; more than anybody writes and fewer than Python can walk."""

_MOST = 500_000
"""How many values a document may have once its aliases are written out."""

_TAG = "tag:yaml.org,2002:"

_SCALARS = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|[0-9][0-9_]*)(?<!_)"),
    "float": re.compile(
        r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9_]+(?:[eE][-+]?[0-9]+)?)(?<!_)"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
    "merge": re.compile(r"<<"),
}

_FUNCTION = re.compile(
    r"!(And|Base64|Cidr|Condition|Equals|FindInMap|ForEach|GetAtt|GetAZs|If|ImportValue|Join|Length|Not|Or|Ref|Select"
    r"|Split|Sub|ToJsonString|Transform)"
)


class Place(NamedTuple):
    """Where something was written: a file and a line from 1."""

    path: Path
    line: int | None


class Text(str):
    """A string and its place; `is_final` where no variable is to be looked for in it any more."""

    __slots__ = ("is_final", "place")

    def __new__(cls, value: str, place: Place, *, is_final: bool = False) -> Text:
        """A string of a file."""
        text = super().__new__(cls, value)
        text.place = place
        text.is_final = is_final
        return text

    place: Place
    is_final: bool


class Section(dict[str, Any]):  # Any: whatever a file holds
    """A mapping of a file, its own place and those of its keys."""

    __slots__ = ("place", "places")

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: dict[str, Place] = {}

    def put(self, key: str, value: Any, place: Place) -> None:  # Any: whatever a file holds
        """Set a key that was written at `place`."""
        self[key] = value
        self.places[key] = place

    def place_of(self, key: str) -> Place:
        """Where a key is; where the whole is, for keys that are not in it."""
        return self.places.get(key, self.place)


class Listing(list[Any]):  # Any: whatever a file holds
    """A sequence of a file, its own place and those of its items."""

    __slots__ = ("place", "places")

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: list[Place] = []

    def put(self, value: Any, place: Place) -> None:  # Any: whatever a file holds
        """Add an item that was written at `place`."""
        self.append(value)
        self.places.append(place)


def read_document(path: Path) -> Any:  # Any: whatever a file holds
    """What a `.yml`, `.yaml` or `.json` file holds: `Section`, `Listing`, `Text`, numbers, booleans and None.

    Raises:
        TemplateError: it cannot be read or is not what its name says.

    """
    text = read_text(path)
    if path.suffix not in (".yml", ".yaml"):
        _check_json(text, path)
        text = text.replace("\t", " ")  # between JSON's values a tab is a blank, and inside them it cannot be
    return parse_yaml(text, path)


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        TemplateError: it is not there, cannot be read or is not UTF-8.

    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(path, None, f"the file cannot be read: {error}") from error


def parse_yaml(text: str, path: Path) -> Any:  # Any: whatever a file holds
    """What a YAML text holds, see `read_document`; `path` is what it is said to be from."""
    try:
        node = _composed(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise TemplateError(path, line, f"the YAML cannot be read: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise TemplateError(path, None, f"the YAML cannot be read: {error}") from error
    except RecursionError as error:
        raise TemplateError(path, None, "the YAML is nested too deeply") from error
    return None if node is None else _Builder(path).value(node)


def _composed(text: str) -> yaml.Node | None:
    """The text's nodes. In brackets PyYAML lets no plain scalar have a question mark, as cron's have; libyaml does."""
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError:
        if _Fallback is None or not _is_shallow(text):
            raise
        try:
            return yaml.compose(text, Loader=_Fallback)
        except yaml.YAMLError:
            pass  # what PyYAML says of it is easier to understand
        raise


def _is_shallow(text: str) -> bool:
    """Whether libyaml can read a text without running out of stack, which ends the process."""
    depth, deepest = 0, 0
    try:
        for event in yaml.parse(text, Loader=_Fallback or _Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            deepest = max(depth, deepest)
    except yaml.YAMLError:
        return False
    return deepest <= _DEEPEST


def copy_of(value: Any) -> Any:  # Any: whatever a file holds
    """A copy that shares no container with `value`, with the same places."""
    if isinstance(value, Section):
        section = Section(value.place)
        for key, item in value.items():
            section.put(key, copy_of(item), value.place_of(key))
        return section
    if isinstance(value, Listing):
        listing = Listing(value.place)
        for item, place in zip(value, value.places, strict=True):
            listing.put(copy_of(item), place)
        return listing
    return value


def plain(value: Any) -> Any:  # Any: whatever a file holds
    """The same as ordinary dicts, lists and strings, without places."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Text) else value


def name_of(value: Any) -> str:  # Any: whatever a file holds
    """What a value is called in errors."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return repr(str(value))
        case dict():
            return "a mapping"
        case list():
            return "a list"
    return str(value)


_Resolvers = dict[str | None, list[tuple[str, re.Pattern[str]]]]

_RESOLVERS: _Resolvers = {
    None: [(_TAG + name, re.compile(f"(?:{pattern.pattern})\\Z")) for name, pattern in _SCALARS.items()]  # any start
}


class _Loader(yaml.SafeLoader):
    """Composes nodes with js-yaml's idea of what a plain scalar is."""

    yaml_implicit_resolvers = _RESOLVERS


def _fallback() -> type[yaml.SafeLoader] | None:
    """The same by libyaml, where PyYAML comes with it."""
    base = getattr(yaml, "CSafeLoader", None)
    return base and type("_LibraryLoader", (base,), {"yaml_implicit_resolvers": _RESOLVERS})


_Fallback = _fallback()


class _Builder:
    """Makes values of YAML nodes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: set[int] = set()  # from the root to what is being made: an alias may not lead back into it
        self._made = 0

    def value(self, node: yaml.Node) -> Any:  # Any: whatever a file holds
        """The value of a node, with everything below it."""
        place = self._place(node)
        if id(node) in self._open:
            raise TemplateError(self._path, place.line, "the YAML holds itself by an alias")
        self._made += 1
        if len(self._open) > _DEEPEST or self._made > _MOST:
            what = "the YAML is nested too deeply or, with its aliases written out, too large"
            raise TemplateError(self._path, place.line, what)
        self._open.add(id(node))
        try:
            if node.tag.startswith("!") and node.tag != "!":
                return self._function(node, place)
            return self._untagged(node, place)
        finally:
            self._open.discard(id(node))

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._path, node.start_mark.line + 1)

    def _untagged(self, node: yaml.Node, place: Place) -> Any:  # Any: whatever a file holds
        if isinstance(node, yaml.MappingNode):
            return self._section(node, place)
        if isinstance(node, yaml.SequenceNode):
            listing = Listing(place)
            for item in node.value:
                listing.put(self.value(item), self._place(item))
            return listing
        return self._scalar(node, place)

    def _section(self, node: yaml.MappingNode, place: Place) -> Section:
        section, merged = Section(place), list[yaml.Node]()
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            key, key_place = self._key(key_node), self._place(key_node)
            if key in section:
                raise TemplateError(self._path, key_place.line, f"the key {key!r} is there twice")
            section.put(key, self.value(value_node), key_place)
        for other in map(self.value, merged):
            if not isinstance(other, Section):
                raise TemplateError(self._path, place.line, f"expected a mapping after '<<', got {name_of(other)}")
            for key in other.keys() - section.keys():
                section.put(key, other[key], other.place_of(key))
        return section

    def _key(self, node: yaml.Node) -> str:
        value = self.value(node)
        match value:
            case bool():
                return str(value).lower()
            case None:
                return "null"
            case str() | int() | float():
                return str(value)
        raise TemplateError(self._path, self._place(node).line, f"expected a key, got {name_of(value)}")

    def _function(self, node: yaml.Node, place: Place) -> Section:
        known = _FUNCTION.fullmatch(node.tag)
        if not known:
            raise TemplateError(self._path, place.line, f"the tag {node.tag} is none of CloudFormation's functions")
        name, argument = known[1], self._untagged(_without_tag(node), place)
        if name == "GetAtt" and isinstance(argument, Text):
            argument = _split_attribute(argument)
        section = Section(place)
        section.put(name if name in ("Ref", "Condition") else f"Fn::{name}", argument, place)
        return section

    def _scalar(self, node: yaml.Node, place: Place) -> Any:  # Any: a scalar
        kind, text = node.tag.removeprefix(_TAG), node.value
        make = {"null": _null, "bool": _boolean, "int": _integer, "float": _float}.get(kind, partial(Text, place=place))
        try:
            return make(_paired(text) if kind == "str" else text)
        except ValueError as error:
            raise TemplateError(self._path, place.line, f"expected a value of {node.tag}, got {text!r}") from error


def _without_tag(node: yaml.Node) -> yaml.Node:
    """The node as it would be without its tag; strings stay strings (`!Sub 1` has none of YAML's types)."""
    if isinstance(node, yaml.MappingNode):
        return yaml.MappingNode(f"{_TAG}map", node.value, node.start_mark, node.end_mark)
    if isinstance(node, yaml.SequenceNode):
        return yaml.SequenceNode(f"{_TAG}seq", node.value, node.start_mark, node.end_mark)
    return yaml.ScalarNode(f"{_TAG}str", node.value, node.start_mark, node.end_mark)


def _split_attribute(text: Text) -> Listing:
    resource, _, attribute = text.partition(".")
    listing = Listing(text.place)
    listing.put(Text(resource, text.place), text.place)
    listing.put(Text(attribute, text.place), text.place)
    return listing


def _paired(text: str) -> str:
    """The text with the surrogate pairs that JSON writes put together, which PyYAML leaves apart."""
    if not any("\ud800" <= char <= "\udfff" for char in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _null(_text: str) -> None:
    return None


def _boolean(text: str) -> bool:
    return text.lower() == "true"


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    unsigned = digits.lstrip("+-").lower()
    base = {"0b": 2, "0x": 16, "0o": 8}.get(unsigned[:2], 10)
    return int(unsigned, base) * (-1 if digits.startswith("-") else 1)


def _float(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _check_json(text: str, path: Path) -> None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise TemplateError(path, error.lineno, f"the JSON cannot be read: {error.msg}") from error
    except RecursionError as error:
        raise TemplateError(path, None, "the JSON is nested too deeply") from error


def walk(value: Any) -> Iterator[Any]:  # Any: whatever a file holds
    """The value and everything below it."""
    yield value
    if isinstance(value, dict):
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)
