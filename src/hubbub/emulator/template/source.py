"""A template's text as a document: YAML with CloudFormation's tags, or JSON, each mapping with the lines it came from.

Short tags become their long forms (`!Ref A` is `{"Ref": "A"}`); dates stay text, and so do numbers that YAML 1.1 would
read as octal or base 60, since account ids and times are meant; a key that comes twice is an error.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from json.scanner import py_make_scanner  # type: ignore[attr-defined]  # older than the stubs, and not in them
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from hubbub.emulator.template.errors import TemplateError

Value: TypeAlias = Any  # Any: text, a number, a boolean, None, or a list or mapping of them: what JSON and YAML hold

_PLAIN = ("Ref", "Condition")
_FUNCTIONS = (
    *("And", "Base64", "Cidr", "Contains", "EachMemberEquals", "EachMemberIn", "Equals", "FindInMap", "GetAtt"),
    *("GetAZs", "If", "ImportValue", "Join", "Length", "Not", "Or", "RefAll", "Select", "Split", "Sub"),
    *("ToJsonString", "Transform", "ValueOf", "ValueOfAll"),
)
_TAGS = {f"!{name}": name for name in _PLAIN} | {f"!{name}": f"Fn::{name}" for name in _FUNCTIONS}
_YAML = "tag:yaml.org,2002:"
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)")
_DEEPEST = 200
"""How many levels a document may have; more than anybody writes and fewer than Python can walk."""

_MOST = 500_000
"""How many values a document may have once its aliases are written out; far more than CloudFormation's 1 MB allows."""


class Located(dict[str, Any]):  # Any: see Value
    """A mapping that knows where it stands.

    Attributes:
        line: where it begins, from 1.
        lines: where each of its keys stands, as far as that is known.

    """

    __slots__ = ("line", "lines")
    line: int
    lines: dict[str, int]

    @classmethod
    def at(cls, line: int, items: dict[str, Value], lines: dict[str, int] | None = None) -> Located:
        """These items, at that line."""
        made = cls(items)
        made.line = line
        made.lines = lines or {}
        return made


def line_of(node: Value, key: str | None = None) -> int | None:
    """Where a mapping stands, or one of its keys; None for what did not come from a file."""
    if not isinstance(node, Located) or not hasattr(node, "line"):
        return None
    if key is None:
        return node.line
    return node.lines.get(key) or line_of(node.get(key)) or node.line


def read_document(path: Path) -> Located:
    """The document in a file: JSON where it begins with a brace, else YAML.

    Raises:
        TemplateError: there is no such file, or it holds no document, or something else than one mapping.

    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as failure:
        raise TemplateError(path, None, f"expected a template, and it cannot be read: {failure.strerror}") from failure
    except UnicodeDecodeError as failure:
        raise TemplateError(path, None, f"expected UTF-8 text: {failure.reason} at byte {failure.start}") from failure
    return parse_document(text, path)


def parse_document(text: str, path: Path) -> Located:
    """The document in a text; `path` is for errors.

    Raises:
        TemplateError: it is not one mapping in JSON or YAML.

    """
    if text.lstrip().startswith("{"):
        try:
            return _Json(text, path).document()
        except json.JSONDecodeError as failure:
            if path.suffix not in (".yaml", ".yml"):  # a YAML file may begin with a brace too
                raise TemplateError(path, failure.lineno, f"not JSON: {failure.msg}") from failure
    return _Yaml(path).document(text)


class _Yaml:
    """Builds one file's document."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: list[yaml.Node] = []  # from the root to what is being built: an alias may not lead back into it
        self.built = 0

    def document(self, text: str) -> Located:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as failure:
            mark = failure.problem_mark or failure.context_mark
            where = f"{failure.context}: " if failure.context else ""
            raise self.error(mark.line + 1 if mark else None, f"not YAML: {where}{failure.problem}") from failure
        except yaml.YAMLError as failure:  # a character that YAML forbids
            raise self.error(None, f"not YAML: {failure}") from failure
        except RecursionError as failure:
            raise self.error(None, "expected a template, got one nested too deeply") from failure
        if root is None:
            raise self.error(None, "expected a template, got an empty file")
        if not isinstance(root, yaml.MappingNode):
            kind = "list" if isinstance(root, yaml.SequenceNode) else "text"
            raise self.error(1, f"expected a mapping with Resources, got a {kind}")
        made = self.value(root)
        assert isinstance(made, Located)  # noqa: S101  for the type checker: a mapping without a tag is one
        return made

    def error(self, line: int | None, what: str) -> TemplateError:
        return TemplateError(self.path, line, what)

    def value(self, node: yaml.Node) -> Value:
        line = node.start_mark.line + 1
        if node in self.open:
            raise self.error(line, "an alias leads back into what it stands in")
        if len(self.open) > _DEEPEST:
            raise self.error(line, "expected a template, got one nested too deeply")
        self.built += 1
        if self.built > _MOST:
            raise self.error(line, "expected a template, got one too large, aliases written out")
        self.open.append(node)
        try:
            return self.tagged(node, line) if node.tag.startswith("!") else self.untagged(node, line)
        finally:
            self.open.pop()

    def tagged(self, node: yaml.Node, line: int) -> Value:
        function = _TAGS.get(node.tag)
        if function is None:
            raise self.error(line, f"expected a tag of CloudFormation's such as !Ref, got {node.tag}")
        argument: Value = node.value if isinstance(node, yaml.ScalarNode) else self.untagged(node, line)
        if function == "Fn::GetAtt" and isinstance(argument, str):
            argument = argument.split(".", 1)
        return Located.at(line, {function: argument}, {function: line})

    def untagged(self, node: yaml.Node, line: int) -> Value:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, line)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        return _scalar(node.tag.removeprefix(_YAML), str(node.value))

    def mapping(self, node: yaml.MappingNode, line: int) -> Located:
        made: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            if key_node.tag == f"{_YAML}merge":
                for mapping in self.merged(value_node, at):
                    merged = mapping | merged  # the first that has a key wins
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.error(at, "expected a name as the key, got a list or a mapping")
            key = str(key_node.value)
            if key in made:
                raise self.error(at, f"the key {key!r} is there twice; first in line {lines[key]}")
            made[key] = self.value(value_node)
            lines[key] = at
        return Located.at(line, {**{k: v for k, v in merged.items() if k not in made}, **made}, lines)

    def merged(self, node: yaml.Node, line: int) -> list[dict[str, Value]]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        mappings = [self.value(one) for one in nodes]
        if not all(isinstance(one, dict) for one in mappings):
            raise self.error(line, "expected a mapping, or a list of them, after <<")
        return mappings


def _scalar(kind: str, text: str) -> Value:
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in ("yes", "true", "on")
    if kind == "int":
        return int(text.replace("_", ""), 0) if _NUMBER.fullmatch(text) else text
    if kind == "float" and not re.search(r":|inf|nan", text.lower()):
        return float(text.replace("_", ""))
    return text


class _Json:
    """Builds one text's document with the decoder of the standard library, told where each object stands."""

    def __init__(self, text: str, path: Path) -> None:
        self.text = text
        self.path = path
        self.begins = [0, *(match.end() for match in re.finditer("\n", text))]
        decoder: Any = json.JSONDecoder()  # Any: its hooks are not in its type
        self.objects = decoder.parse_object
        decoder.parse_object = self.object
        decoder.scan_once = py_make_scanner(decoder)  # the scanner in C does not call parse_object
        self.decode = decoder.decode

    def document(self) -> Located:
        try:
            made = self.decode(self.text)
        except RecursionError as failure:
            raise TemplateError(self.path, None, "expected a template, got one nested too deeply") from failure
        assert isinstance(made, Located)  # noqa: S101  for the type checker: the text begins with a brace
        return made

    def object(self, text_and_end: tuple[str, int], *rest: Value) -> tuple[Value, int]:
        """What the scanner calls at a brace: `rest` is strictness, the scanner, two hooks and a memo."""
        strict, scan_once, _, _, *memo = rest
        begin = text_and_end[1]
        pairs, end = self.objects(text_and_end, strict, scan_once, None, list, *memo)
        made: dict[str, Value] = {}
        lines: dict[str, int] = {}
        seek = begin
        for key, value in pairs:
            found = self.text.find(json.dumps(key, ensure_ascii=False), seek, end)
            seek = found + 1 if found > 0 else seek
            lines[key] = line_of(value) or self.line(seek)
            if key in made:
                raise TemplateError(self.path, lines[key], f"the key {key!r} is there twice")
            made[key] = value
        return Located.at(self.line(begin), made, lines), end

    def line(self, position: int) -> int:
        return bisect_right(self.begins, position)
