"""What a template is, as a tree: text, references, directives, expressions. Each knows the line that it is on."""

from __future__ import annotations

from typing import NamedTuple

from hubbub.gateway.integrations.velocity.values import Value


class TemplateError(Exception):
    """A template that cannot be read, or whose rendering failed, and on which line."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(f"line {line}: {problem}")
        self.problem = problem
        self.line = line


class Text(NamedTuple):
    """Itself."""

    text: str


class Property(NamedTuple):
    """`.name`."""

    name: str


class Call(NamedTuple):
    """`.name(…)`."""

    name: str
    arguments: tuple[Expression, ...]


class Item(NamedTuple):
    """`[…]`."""

    key: Expression


Step = Property | Call | Item


class Reference(NamedTuple):
    """`$name`, with what follows it."""

    name: str
    steps: tuple[Step, ...]
    line: int


class Literal(NamedTuple):
    """A value that is written out."""

    value: Value


class Interpolated(NamedTuple):
    """A string in double quotes that has references or directives in it."""

    block: Block


class Listing(NamedTuple):
    """`[a, b]`."""

    items: tuple[Expression, ...]


class Range(NamedTuple):
    """`[a..b]`."""

    first: Expression
    last: Expression
    line: int


class Mapping(NamedTuple):
    """`{a: b}`."""

    items: tuple[tuple[Expression, Expression], ...]


class Not(NamedTuple):
    """`!a`."""

    operand: Expression


class Operation(NamedTuple):
    """`a + b`; the operator is one of `|| && == != < <= > >= + - * / %`."""

    operator: str
    left: Expression
    right: Expression
    line: int


class If(NamedTuple):
    """`#if`: conditions with their blocks, and what is rendered where none holds."""

    branches: tuple[tuple[Expression, Block], ...]
    otherwise: Block


class Set(NamedTuple):
    """`#set`."""

    target: Reference
    value: Expression


class Foreach(NamedTuple):
    """`#foreach`."""

    name: str
    items: Expression
    block: Block
    line: int


class Define(NamedTuple):
    """`#define`: the block is rendered where the name is."""

    name: str
    block: Block


class Break(NamedTuple):
    """`#break`."""


class Stop(NamedTuple):
    """`#stop`."""


Expression = Reference | Literal | Interpolated | Listing | Range | Mapping | Not | Operation

Node = Text | Reference | If | Set | Foreach | Define | Break | Stop

Block = tuple[Node, ...]
