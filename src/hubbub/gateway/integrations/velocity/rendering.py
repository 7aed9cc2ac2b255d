"""What becomes of a template: its tree, and the values of its variables, made into text."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

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
from hubbub.gateway.integrations.velocity.values import (
    ArrayList,
    Tool,
    Value,
    are_equal,
    call_method,
    get_item,
    get_property,
    is_number,
    is_true,
    items_of,
    set_item,
    text_of,
)

MAX_ITERATIONS = 1_000
"""How often `#foreach` goes round: an API Gateway quota. What comes after is left out."""

MAX_STEPS = 100_000
"""How often all loops of a template go round together."""

MAX_CHARS = 10_000_000
"""How long what a template makes may be: API Gateway's limit of a payload."""

MAX_DEFINED = 20
"""How deep blocks of `#define` may stand in each other."""


def render(block: Block, variables: dict[str, Value]) -> str:
    """Render a template; its `#set` may change what the variables hold, and the variables.

    Raises:
        TemplateError: a method threw an exception, or a limit of this module was reached.

    """
    renderer = _Renderer(variables)
    with contextlib.suppress(_Broken, _Stopped):  # a #break outside of loops ends the template too
        renderer.block(block)
    return "".join(renderer.output)


class _Broken(Exception):
    """`#break`."""


class _Stopped(Exception):
    """`#stop`."""


class _Renderer:
    """One rendering."""

    def __init__(self, variables: dict[str, Value]) -> None:
        self.output: list[str] = []
        self._chars = 0
        self._steps = 0
        self._defined = 0  # how many blocks of `#define` are being rendered
        self._variables = variables

    def block(self, block: Block) -> None:
        """Render nodes one after the other."""
        for node in block:
            match node:
                case Text():
                    self._write(node.text)
                case Reference():
                    self._write(self._shown(node), node.line)
                case If():
                    self._if(node)
                case Set():
                    self._set(node)
                case Foreach():
                    self._foreach(node)
                case Define():
                    self._variables[node.name] = node
                case Break():
                    raise _Broken
                case Stop():
                    raise _Stopped

    def _write(self, text: str, line: int = 0) -> None:
        self._chars += len(text)
        if self._chars > MAX_CHARS:
            raise TemplateError(f"what the template makes has more than {MAX_CHARS} characters", line)
        self.output.append(text)

    def _shown(self, reference: Reference) -> str:
        return text_of(self._value(reference))

    def _if(self, node: If) -> None:
        for condition, block in node.branches:
            if is_true(self._value(condition)):
                self.block(block)
                return
        self.block(node.otherwise)

    def _set(self, node: Set) -> None:
        value = self._value(node.value)
        *steps, last = node.target.steps or (None,)
        if last is None:
            self._variables[node.target.name] = value
            return
        holder = self._value(node.target._replace(steps=tuple(steps)))
        if isinstance(last, Call):
            raise TemplateError("a method's result cannot be set", node.target.line)
        set_item(holder, last.name if isinstance(last, Property) else self._value(last.key), value)

    def _foreach(self, node: Foreach) -> None:
        items = items_of(self._value(node.items))[:MAX_ITERATIONS]
        names = (node.name, "foreach", "velocityCount")
        before = {name: self._variables[name] for name in names if name in self._variables}
        try:
            for index, item in enumerate(items):
                self._count(node.line)
                loop = _loop(index, len(items), before.get("foreach"))
                self._variables.update({node.name: item, "foreach": loop, "velocityCount": index + 1})
                self.block(node.block)
        except _Broken:
            pass
        for name in names:
            self._variables.pop(name, None)
        self._variables.update(before)

    def _count(self, line: int) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise TemplateError(f"the template's loops go round more than {MAX_STEPS} times", line)

    # Values

    def _value(self, expression: Expression) -> Value:
        match expression:
            case Literal():
                return expression.value
            case Reference():
                return self._referred(expression)
            case Operation():
                return self._operation(expression)
            case Not():
                return not is_true(self._value(expression.operand))
            case Interpolated():
                return self._apart(expression.block)
            case Listing():
                return ArrayList(map(self._value, expression.items))
            case Range():
                return self._range(expression)
            case Mapping():
                return {text_of(self._value(key)): self._value(each) for key, each in expression.items}

    def _apart(self, block: Block) -> str:
        """What a block makes, without writing it."""
        output, self.output = self.output, []
        try:
            self.block(block)
            return "".join(self.output)
        finally:
            self.output = output

    def _referred(self, reference: Reference) -> Value:
        value = self._variables.get(reference.name)
        if isinstance(value, Define):
            value = self._block_of(value, reference.line)
        for step in reference.steps:
            if value is None:
                return None
            value = self._stepped(value, step, reference.line)
        return value

    def _block_of(self, defined: Define, line: int) -> str:
        self._defined += 1
        if self._defined > MAX_DEFINED:
            raise TemplateError(f"${defined.name} stands in itself more than {MAX_DEFINED} times", line)
        text = self._apart(defined.block)
        self._defined -= 1
        return text

    def _stepped(self, value: Value, step: Step, line: int) -> Value:
        match step:
            case Property():
                return get_property(value, step.name)
            case Item():
                return get_item(value, self._value(step.key))
            case Call():
                arguments = [self._value(argument) for argument in step.arguments]
                try:
                    return call_method(value, step.name, arguments)
                except (ValueError, LookupError, ArithmeticError) as error:
                    raise TemplateError(f".{step.name}(…) failed: {error}", line) from error

    def _range(self, node: Range) -> Value:
        first, last = self._value(node.first), self._value(node.last)
        if type(first) is not int or type(last) is not int:
            return None
        numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        if abs(last - first) >= MAX_STEPS:
            raise TemplateError(f"a range has more than {MAX_STEPS} numbers", node.line)
        return ArrayList(numbers)

    def _joined(self, left: str, right: str, line: int) -> str:
        if len(left) + len(right) > MAX_CHARS:
            raise TemplateError(f"a string has more than {MAX_CHARS} characters", line)
        return left + right

    def _operation(self, node: Operation) -> Value:
        left = self._value(node.left)
        match node.operator:
            case "||":
                return is_true(left) or is_true(self._value(node.right))
            case "&&":
                return is_true(left) and is_true(self._value(node.right))
            case "==":
                return are_equal(left, self._value(node.right))
            case "!=":
                return not are_equal(left, self._value(node.right))
        right = self._value(node.right)
        if node.operator == "+" and (isinstance(left, str) or isinstance(right, str)):
            return self._joined(text_of(left), text_of(right), node.line)
        if not (is_number(left) and is_number(right)):
            return False if node.operator in _ORDER else None
        return (
            _ORDER[node.operator](left, right) if node.operator in _ORDER else _calculated(node.operator, left, right)
        )


def _loop(index: int, length: int, parent: Value) -> Tool:
    """`$foreach` in a loop; what it knows is there as a property and, as in `$foreach.hasNext()`, as a method."""
    known = {
        "count": index + 1,
        "index": index,
        "hasNext": index + 1 < length,
        "first": index == 0,
        "last": index + 1 == length,
    }
    methods = {name: lambda value=value: value for name, value in known.items()}
    return Tool({**methods, "isFirst": methods["first"], "isLast": methods["last"]}, {**known, "parent": parent})


_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


def _calculated(operator: str, left: float, right: float) -> float | None:
    """As Java does: whole numbers stay whole, in 64 bits, and their division drops what is left over.

    None for what has no result, such as a division by zero.
    """
    if isinstance(left, int) and isinstance(right, int):
        result = _calculated_whole(operator, left, right)
        return None if result is None else (result + 2**63) % 2**64 - 2**63
    try:
        match operator:
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
            case "/":
                return left / right
            case _:
                return math.fmod(left, right)
    except (ArithmeticError, ValueError):
        return None


def _calculated_whole(operator: str, left: int, right: int) -> int | None:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    if right == 0:
        return None
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    return quotient if operator == "/" else left - quotient * right
