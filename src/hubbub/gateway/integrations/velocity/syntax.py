"""How a template is read, made into its tree."""

from __future__ import annotations

import re

from hubbub.gateway.integrations.velocity.tree import (
    Block,
    Break,
    Call,
    Define,
    Expression,
    Foreach,
    If,
    Interpolated,
    Item,
    Listing,
    Literal,
    Mapping,
    Node,
    Not,
    Operation,
    Property,
    Range,
    Reference,
    Set,
    Step,
    Stop,
    TemplateError,
    Text,
)

MAX_DEPTH = 50
"""How deep blocks and expressions may lie in each other."""


def parse(template: str) -> Block:
    """Read a template.

    Raises:
        TemplateError: it cannot be read; says what was expected and what was there.

    """
    return _Parser(template, 1).template()


_NAME = re.compile(r"[A-Za-z_][\w\-]*", re.ASCII)
_REFERENCE = re.compile(r"\$(?P<quiet>!?)(?P<brace>\{?)(?P<name>[A-Za-z_][\w\-]*)", re.ASCII)
_DIRECTIVE = re.compile(
    r"#(?P<brace>\{)?(?P<word>(?:if|elseif|set|foreach|define|macro|parse|include|evaluate)(?=\}?[ \t]*\()"
    r"|else|end|break|stop)(?(brace)\}|(?![A-Za-z]))"
)
_PLAIN = re.compile(r"[^$#\\]+")
_BACKSLASHES = re.compile(r"\\+")
_COMMENT = re.compile(r"##[^\n]*(?:\n|$)|#\*.*?\*#", re.DOTALL)
_VERBATIM = re.compile(r"#\[\[(.*?)\]\]#", re.DOTALL)
_REST_OF_LINE = re.compile(r"[ \t]*\r?\n")
_BLANKS = re.compile(r"\s*")
_STRING = re.compile(r'"((?:[^"]|"")*)"|\'((?:[^\']|\'\')*)\'')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_ITEM = re.compile(r"\[\s*[\d\-$\"'(]")
_WORD = re.compile(r"(true|false|null)\b")
_NOT = re.compile(r"!|not\b")
_UNICODE = re.compile(r"\\u([0-9a-fA-F]{4})")

_OPERATORS = tuple(
    re.compile(rf"\s*({alternatives})\s*")
    for alternatives in (
        r"\|\||or\b",
        r"&&|and\b",
        r"==|!=|eq\b|ne\b",
        r"<=|>=|<|>|le\b|lt\b|ge\b|gt\b",
        r"\+|-",
        r"\*|/|%",
    )
)
"""The loosest first."""

_SYMBOLS = {"or": "||", "and": "&&", "eq": "==", "ne": "!=", "le": "<=", "lt": "<", "ge": ">=", "gt": ">"}

_ENDS = ("end", "else", "elseif")


class _Parser:
    """Reads one template, or one string with references in it."""

    def __init__(self, text: str, line: int) -> None:
        self._text = text
        self._at = 0
        self._line = line  # of the beginning
        self._depth = 0

    def template(self) -> Block:
        """All of it."""
        block, end = self._block()
        if end:
            raise self._wrong(f"#{end} without an #if, #foreach or #define before it")
        return block

    # Blocks

    def _block(self) -> tuple[Block, str]:
        """What comes until `#end`, `#else` or `#elseif`, and which of them ended it; empty for the template's end."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong(f"blocks and expressions lie more than {MAX_DEPTH} deep in each other")
        nodes: list[Node] = []
        texts: list[str] = []  # that have not become a node
        end = ""
        while self._at < len(self._text) and not end:
            if (text := self._plain()) is not None:
                texts.append(text)
                continue
            directive = _DIRECTIVE.match(self._text, self._at)
            if directive and directive["word"] == "set" and texts:
                texts[-1] = texts[-1].rstrip(" \t")  # as Velocity 1.7 does, for the looks of it
            if texts:
                nodes.append(Text("".join(texts)))
                texts = []
            if directive is None:
                nodes.append(self._reference())
            elif directive["word"] in _ENDS:
                self._at = directive.end()
                end = directive["word"]
            else:
                nodes.append(self._directive(directive))
        if texts:
            nodes.append(Text("".join(texts)))
        self._depth -= 1
        return tuple(nodes), end

    def _plain(self) -> str | None:
        """Text, a comment's nothing among it; None where a reference or a directive begins."""
        if plain := self._match(_PLAIN):
            return plain[0]
        if backslashes := _BACKSLASHES.match(self._text, self._at):
            return self._escaped(backslashes[0])
        if self._match(_COMMENT):
            return ""
        if verbatim := self._match(_VERBATIM):
            return verbatim[1]
        if self._begins():
            return None
        self._at += 1
        return self._text[self._at - 1]

    def _begins(self) -> bool:
        return bool(_REFERENCE.match(self._text, self._at) or _DIRECTIVE.match(self._text, self._at))

    def _escaped(self, backslashes: str) -> str:
        """Backslashes are themselves, but before a reference or a directive: two for one, the last to hide it."""
        self._at += len(backslashes)
        if not self._begins():
            return backslashes
        hidden = ""
        if len(backslashes) % 2:
            hidden = self._text[self._at]
            self._at += 1
        return "\\" * (len(backslashes) // 2) + hidden

    # Directives

    def _directive(self, directive: re.Match[str]) -> Node:
        start = self._at
        line = self._line_now()
        self._at = directive.end()
        match directive["word"]:
            case "if":
                return self._if(line)
            case "set":
                return self._set()
            case "foreach":
                return self._foreach(line)
            case "define":
                return self._define()
            case "break":
                return Break()
            case "stop":
                return Stop()
            case word:
                self._at = start
                raise self._wrong(f"#{word} is not supported here")

    def _if(self, line: int) -> If:
        branches = []
        otherwise: Block = ()
        end = "if"
        while end in ("if", "elseif"):
            condition = self._condition()
            block, end = self._block()
            branches.append((condition, block))
        if end == "else":
            self._match(_REST_OF_LINE)
            otherwise, end = self._block()
        self._ended(end, "#if", line)
        return If(tuple(branches), otherwise)

    def _condition(self) -> Expression:
        self._need("(")
        condition = self._expression()
        self._need(")")
        self._match(_REST_OF_LINE)
        return condition

    def _set(self) -> Set:
        self._need("(")
        target = self._referred()
        self._need("=")
        value = self._expression()
        self._need(")")
        self._match(_REST_OF_LINE)
        return Set(target, value)

    def _foreach(self, line: int) -> Foreach:
        self._need("(")
        name = self._variable()
        self._need("in")
        items = self._expression()
        self._need(")")
        self._match(_REST_OF_LINE)
        block, end = self._block()
        self._ended(end, "#foreach", line)
        return Foreach(name, items, block, line)

    def _define(self) -> Define:
        line = self._line_now()
        self._need("(")
        name = self._variable()
        self._need(")")
        self._match(_REST_OF_LINE)
        block, end = self._block()
        self._ended(end, "#define", line)
        return Define(name, block)

    def _ended(self, end: str, what: str, line: int) -> None:
        if not end:
            raise TemplateError(f"{what} has no #end", line)
        if end != "end":
            raise self._wrong(f"#{end} does not belong to {what}")
        self._match(_REST_OF_LINE)

    # References

    def _variable(self) -> str:
        reference = self._referred()
        if reference.steps:
            raise self._wrong("expected a name alone")
        return reference.name

    def _referred(self) -> Reference:
        self._blanks()
        if not _REFERENCE.match(self._text, self._at):
            raise self._wrong("expected a reference such as $name")
        return self._reference()

    def _reference(self) -> Reference:
        line = self._line_now()
        start = self._match(_REFERENCE)
        assert start is not None  # noqa: S101  it was looked at before
        steps: list[Step] = []
        while True:
            if self._text.startswith("[", self._at) and self._is_item():
                self._need("[")
                steps.append(Item(self._expression()))
                self._need("]")
            elif self._text.startswith(".", self._at) and (name := _NAME.match(self._text, self._at + 1)):
                self._at = name.end()
                steps.append(self._property_or_call(name[0]))
            else:
                break
        if start["brace"]:
            self._need("}")
        return Reference(start["name"], tuple(steps), line)

    def _is_item(self) -> bool:
        """Whether a bracket behind a reference asks for an item, and is not just text."""
        return _ITEM.match(self._text, self._at) is not None

    def _property_or_call(self, name: str) -> Property | Call:
        if not self._text.startswith("(", self._at):
            return Property(name)
        self._at += 1
        return Call(name, self._sequence(")"))

    def _sequence(self, end: str) -> tuple[Expression, ...]:
        """Expressions between commas, and the `end` of them."""
        items: list[Expression] = []
        self._blanks()
        while not self._skip(end):
            if items:
                self._need(",")
            items.append(self._expression())
            self._blanks()
        return tuple(items)

    # Expressions

    def _expression(self, looseness: int = 0) -> Expression:
        if looseness == len(_OPERATORS):
            return self._operand()
        left = self._expression(looseness + 1)
        while operator := self._match(_OPERATORS[looseness]):
            line = self._line_now()
            right = self._expression(looseness + 1)
            left = Operation(_SYMBOLS.get(operator[1], operator[1]), left, right, line)
        return left

    def _operand(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong(f"blocks and expressions lie more than {MAX_DEPTH} deep in each other")
        self._blanks()
        operand = self._simple()
        self._depth -= 1
        return operand

    def _simple(self) -> Expression:
        if _REFERENCE.match(self._text, self._at):
            return self._reference()
        line = self._line_now()
        if string := self._match(_STRING):
            return _string(string, line)
        if number := self._match(_NUMBER):
            return Literal(float(number[0]) if re.search(r"[.eE]", number[0]) else int(number[0]))
        if word := self._match(_WORD):
            return Literal({"true": True, "false": False, "null": None}[word[1]])
        if self._match(_NOT):
            return Not(self._operand())
        if self._skip("("):
            inner = self._expression()
            self._need(")")
            return inner
        if self._skip("["):
            return self._list(line)
        if self._skip("{"):
            return self._map()
        raise self._wrong("expected a value")

    def _list(self, line: int) -> Expression:
        self._blanks()
        if self._skip("]"):
            return Listing(())
        first = self._expression()
        self._blanks()
        if self._skip(".."):
            last = self._expression()
            self._need("]")
            return Range(first, last, line)
        if self._skip("]"):
            return Listing((first,))
        self._need(",")
        return Listing((first, *self._sequence("]")))

    def _map(self) -> Mapping:
        items: list[tuple[Expression, Expression]] = []
        self._blanks()
        while not self._skip("}"):
            if items:
                self._need(",")
            key = self._expression()
            self._need(":")
            items.append((key, self._expression()))
            self._blanks()
        return Mapping(tuple(items))

    # The text

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        if match:
            self._at = match.end()
        return match

    def _skip(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _blanks(self) -> None:
        self._match(_BLANKS)

    def _need(self, text: str) -> None:
        self._blanks()
        if not self._skip(text):
            raise self._wrong(f"expected {text}")

    def _line_now(self) -> int:
        return self._line + self._text.count("\n", 0, self._at)

    def _wrong(self, problem: str) -> TemplateError:
        rest = self._text[self._at :].partition("\n")[0][:40]
        return TemplateError(f"{problem}, at {rest!r}" if rest else f"{problem}, at the end", self._line_now())


def _string(string: re.Match[str], line: int) -> Expression:
    """A string: no backslash means anything in it, a quote is written twice; one in double quotes is a template."""
    if string[1] is None:
        return Literal(string[2].replace("''", "'"))
    text = _UNICODE.sub(lambda code: chr(int(code[1], 16)), string[1]).replace('""', '"')
    if not re.search(r"[$#\\]", text):
        return Literal(text)
    block = _Parser(text, line).template()
    if all(isinstance(node, Text) for node in block):
        return Literal("".join(node.text for node in block if isinstance(node, Text)))
    return Interpolated(block)
