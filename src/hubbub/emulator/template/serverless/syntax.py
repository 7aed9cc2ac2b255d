"""The grammar of the Serverless Framework's variables: `${source(parameters):address, another source, 'a literal'}`.

What begins with anything but a small letter, or has no colon, is not the framework's (`${AWS::Region}`, `${Name}`) and
is left as it is. A backslash before `${` keeps it from being read.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

_BACKSLASHES = re.compile(r"\\*\Z")
_TYPE = re.compile(r"[a-z][a-zA-Z0-9.-]*")
_LITERAL = re.compile(r"[a-zA-Z0-9.\- ]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_QUOTED = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)

Value = str | int | float | bool | None
"""What a literal in a variable is."""


class Literal(NamedTuple):
    """A value that is written in the variable itself."""

    value: Value


class Source(NamedTuple):
    """Where a value is looked for.

    Attributes:
        type: such as `self`, `env`, `file`.
        parameters: what is in brackets; None without brackets.
        address: what is after the colon; None for nothing.

    """

    type: str
    parameters: tuple[Parts | Literal, ...] | None
    address: Parts | None


class Variable(NamedTuple):
    """A variable: the sources to ask, first to last, and how it was written."""

    sources: tuple[Source | Literal, ...]
    written: str


Parts = tuple["str | Variable", ...]
"""A text: what is taken as it is, and what is looked up."""


class SyntaxFault(ValueError):
    """A variable is not written as variables are; its text says what was expected."""


def parse(text: str) -> Parts:
    """The text's parts; one string, or none for an empty text, where there is no variable in it.

    Raises:
        SyntaxFault: a variable begins and does not go on as one.

    """
    if "${" not in text:
        return (text,) if text else ()
    return _Reader(text).parts()


class _Reader:
    """Reads one text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parts(self) -> Parts:
        parts: list[str | Variable] = []
        while (start := self._text.find("${", self._at)) >= 0:
            before = self._text[self._at : start]
            slashes = _BACKSLASHES.search(before)
            count = len(slashes[0]) if slashes else 0
            parts.append(before[: len(before) - count] + "\\" * (count // 2))
            self._at = start
            variable = None if count % 2 else self._variable(is_nested=False)
            if variable is None:  # escaped, or not the framework's; one of its own may be inside
                parts.append("${")
                self._at = start + 2
            else:
                parts.append(variable)
        parts.append(self._text[self._at :])
        return _joined(parts)

    def _variable(self, *, is_nested: bool) -> Variable | None:
        """The variable that begins here; None, having read nothing, where it is not the framework's."""
        start = self._at
        self._at += 2
        first = self._match(_TYPE)
        if first is None or self._peek() not in (":", "("):
            if is_nested:
                raise self._fault("the name of a source and a colon")
            self._at = start
            return None
        if self._text.startswith("::", self._at) and not is_nested:
            self._at = start
            return None
        sources: list[Source | Literal] = [self._source(first)]
        while self._takes(","):
            sources += self._further()
        if not self._takes("}"):
            raise self._fault("a closing }")
        return Variable(tuple(sources), self._text[start : self._at])

    def _takes(self, char: str) -> bool:
        """Whether the next character that is no blank is this one, which is then read."""
        self._skip_blanks()
        if self._peek() != char:
            return False
        self._at += 1
        return True

    def _further(self) -> tuple[Source | Literal, ...]:
        """The source after a comma. A variable may stand there too, which version 4 of the framework reads."""
        self._skip_blanks()
        if (quoted := self._quoted()) is not None:
            return (Literal(quoted),)
        if self._text.startswith("${", self._at):
            nested = self._variable(is_nested=True)
            return nested.sources if nested else ()
        start = self._at
        kind = self._match(_TYPE)
        if kind is not None and self._peek() in (":", "("):
            return (self._source(kind),)
        self._at = start
        written = (self._match(_LITERAL) or "").strip()
        return (Literal(self._literal(written)),)

    def _source(self, kind: str) -> Source:
        parameters = self._parameters() if self._peek() == "(" else None
        self._skip_blanks()
        if self._peek() != ":":
            return Source(kind, parameters, None)
        self._at += 1
        self._skip_blanks()
        quoted = self._quoted()
        address = self._until(",}") if quoted is None else (quoted,)
        return Source(kind, parameters, address or None)

    def _parameters(self) -> tuple[Parts | Literal, ...]:
        self._at += 1
        found: list[Parts | Literal] = []
        while True:
            self._skip_blanks()
            quoted = self._quoted()
            parameter: Parts | Literal = Literal(quoted) if quoted is not None else self._until(",)")
            if parameter:
                found.append(_literal_or_parts(parameter))
            if self._takes(")"):
                return tuple(found)
            if not self._takes(","):
                raise self._fault("a closing )")

    def _until(self, ends: str) -> Parts:
        """What is before one of `ends`, blanks around it left out, with the variables in it."""
        parts: list[str | Variable] = []
        begin = self._at
        while (char := self._peek()) and char not in ends and not (char == "}" and "}" not in ends):
            if self._text.startswith("${", self._at):
                parts.append(self._text[begin : self._at])
                variable = self._variable(is_nested=True)
                parts += [variable] if variable else []
                begin = self._at
            else:
                self._at += 1
        parts.append(self._text[begin : self._at])
        if isinstance(parts[0], str):
            parts[0] = parts[0].lstrip()
        if isinstance(parts[-1], str):
            parts[-1] = parts[-1].rstrip()
        return _joined(parts)

    def _quoted(self) -> str | None:
        written = self._match(_QUOTED)
        if written is None:
            return None
        if written[0] == "'":
            return written[1:-1]
        try:
            return str(json.loads(written))
        except json.JSONDecodeError as error:
            raise self._fault(f"a string in double quotes as JSON has it ({error.msg})") from error

    def _literal(self, written: str) -> Value:
        if written in _WORDS:
            return _WORDS[written]
        number = _number(written)
        if number is None:
            raise self._fault("a source, a number, true, false, null or a string in quotes")
        return number

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found[0]

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip_blanks(self) -> None:
        while self._peek().isspace():
            self._at += 1

    def _fault(self, expected: str) -> SyntaxFault:
        came = self._text[self._at : self._at + 20] or "the end"
        return SyntaxFault(f"expected {expected} in the variable, got {came!r} in {self._text!r}")


_WORDS: dict[str, Value] = {"true": True, "false": False, "null": None}


def _number(written: str) -> int | float | None:
    if not _NUMBER.fullmatch(written):
        return None
    return float(written) if set(written) & set(".eE") else int(written)


def _literal_or_parts(parameter: Parts | Literal) -> Parts | Literal:
    """A parameter without quotes and variables is a number or a word where it looks like one."""
    if isinstance(parameter, Literal) or len(parameter) != 1 or not isinstance(parameter[0], str):
        return parameter
    written = parameter[0]
    if written in _WORDS:
        return Literal(_WORDS[written])
    number = _number(written)
    return parameter if number is None else Literal(number)


def _joined(parts: list[str | Variable]) -> Parts:
    """The parts with neighbouring strings put together and empty ones left out."""
    joined: list[str | Variable] = []
    for part in parts:
        if part == "":
            continue
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)
