"""JSONPath as API Gateway reads it: what a path finds in a document.

AWS uses the Java library of Jayway: a path that can find one thing gives that thing, any other gives a list. Understood
are names, quoted names, indexes from both ends, unions, slices, `*`, `..`, filters, and functions at the end.
Source: github.com/json-path/JsonPath, README; developer guide, "mapping template reference".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

Json = Any
"""A JSON document of unknown shape."""


class PathError(ValueError):
    """A path that cannot be read."""


class _Missing:
    """There is nothing at the path, which is not the same as null."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()

Test = Callable[[Json, Json], bool]
"""Whether a filter takes a value; the second is the whole document."""


class _Step(NamedTuple):
    """One step down: names and indexes, or all there is, or what a filter takes; `deep` to look on every level.

    Attributes:
        keys: names and indexes; None for any.
        slice: for `[a:b]`; None for none.
        test: for a filter; None for none.
        deep: whether it follows `..`.
        merged: whether what the names find is put into one object, as at the end of `$['a','b']`.

    """

    keys: tuple[str | int, ...] | None = None
    slice: slice | None = None
    test: Test | None = None
    deep: bool = False
    merged: bool = False


class Path(NamedTuple):
    """A path that was read.

    Attributes:
        steps: what it does.
        simple: names and indexes one after the other, if that is all it is; None where it is more.
        definite: whether it finds one thing at most.
        function: what is done to what was found; None for nothing.

    """

    steps: tuple[_Step, ...]
    simple: tuple[str | int, ...] | None
    definite: bool
    function: Callable[[Json], Json] | None

    def find(self, document: Json) -> Json:
        """What there is at the path: one thing, or a list where the path may find many; `MISSING` for nothing."""
        if self.simple is not None:
            found = _walk(document, self.simple)
        else:
            found = [document]
            for step in self.steps:
                found = [value for each in found for value in _taken(step, each, document)]
            if self.definite:
                found = found[0] if found else MISSING
        return found if self.function is None or found is MISSING else self.function(found)


def find(path: str, document: Json) -> Json:
    """What there is at `path` in a document; see `Path.find`.

    Raises:
        PathError: the path cannot be read.

    """
    return read_path(path).find(document)


@lru_cache(maxsize=1_024)
def read_path(text: str) -> Path:
    """Read a path such as `$.a.b[0]`; the `$` may be absent, and so may the dot after it.

    Raises:
        PathError: it cannot be read; says where.

    """
    try:
        return _Reader(text).path()
    except RecursionError:
        raise PathError(f"expected a path with fewer parentheses in each other than {text[:40]!r}… has") from None


def _walk(document: Json, keys: tuple[str | int, ...]) -> Json:
    for key in keys:
        document = _child(document, key)
        if document is MISSING:
            break
    return document


def _child(value: Json, key: str | int) -> Json:
    if isinstance(key, str):
        return value.get(key, MISSING) if isinstance(value, dict) else MISSING
    if isinstance(value, list) and -len(value) <= key < len(value):
        return value[key]
    return MISSING


def _taken(step: _Step, value: Json, document: Json) -> Iterator[Json]:
    for each in _levels(value) if step.deep else (value,):
        if step.merged:
            yield {key: each[key] for key in step.keys or () if key in each} if isinstance(each, dict) else {}
        elif step.keys is not None:
            yield from (found for key in step.keys if (found := _child(each, key)) is not MISSING)
        elif step.slice is not None:
            yield from each[step.slice] if isinstance(each, list) else ()
        elif step.test is None:
            yield from _children(each)
        else:
            candidates = _children(each) if isinstance(each, list) or step.deep else (each,)
            yield from (child for child in candidates if step.test(child, document))


def _children(value: Json) -> list[Json]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _levels(value: Json) -> Iterator[Json]:
    """The value and all that is in it, outermost first."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        yield value
        waiting.extend(reversed(_children(value)))


def _numbers(found: Json) -> list[float]:
    values = found if isinstance(found, list) else [found]
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


_FUNCTIONS: dict[str, Callable[[Json], Json]] = {
    "length": lambda found: len(found) if isinstance(found, list | dict | str) else MISSING,
    "size": lambda found: len(found) if isinstance(found, list | dict | str) else MISSING,
    "keys": lambda found: list(found) if isinstance(found, dict) else MISSING,
    "min": lambda found: min(_numbers(found), default=MISSING),
    "max": lambda found: max(_numbers(found), default=MISSING),
    "sum": lambda found: sum(_numbers(found)),
    "avg": lambda found: sum(_numbers(found)) / len(_numbers(found)) if _numbers(found) else MISSING,
}

_NAME = re.compile(r"[^\s.\[\]()'\"*]+")
_FILTERED_NAME = re.compile(r"[^\s.\[\]()'\"*=!<>~&|,]+")
_FUNCTION = re.compile(rf"\.({'|'.join(_FUNCTIONS)})\(\)\s*$")
_QUOTED = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*""")
_INDEX = re.compile(r"\s*(-?[0-9]{1,9})\s*")
_SLICE = re.compile(r"\s*(-?[0-9]{1,9})?\s*:\s*(-?[0-9]{1,9})?\s*(?::\s*([1-9][0-9]{0,8})?\s*)?\]")
_ESCAPE = re.compile(r"\\(.)")
_OPERATOR = re.compile(r"\s*(==|!=|<=|>=|=~|<|>|in\b|nin\b|contains\b|empty\b|size\b)\s*")
_LITERAL = re.compile(r"\s*(true|false|null|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![\w.])\s*")
_REGEX = re.compile(r"\s*/((?:[^/\\]|\\.)*)/(i?)\s*")


class _Reader:
    """Reads one path from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def path(self) -> Path:
        """The whole text as a path."""
        text = self._text.strip()
        function = _FUNCTION.search(text)
        self._text = text[: function.start()] if function else text
        self._skip("$")
        steps = self._steps(_NAME)
        if self._at < len(self._text):
            raise self._wrong("a step such as .name, [0] or [*]")
        return _path(steps, _FUNCTIONS[function[1]] if function else None)

    def _steps(self, name: re.Pattern[str]) -> list[_Step]:
        steps: list[_Step] = []
        while True:
            deep = self._skip("..")
            dotted = deep or self._skip(".")
            if self._text.startswith("[", self._at):
                steps.append(self._bracket()._replace(deep=deep))
            elif self._skip("*"):
                steps.append(_Step(deep=deep))
            elif (dotted or not steps) and (found := self._match(name)):
                steps.append(_Step((found[0],), deep=deep))
            elif dotted:
                raise self._wrong("a name")
            else:
                return steps

    def _bracket(self) -> _Step:
        self._skip("[")
        self._blanks()
        if self._skip("*"):
            step = _Step()
        elif self._skip("?"):
            self._need("(")
            step = _Step(test=self._either())
            self._need(")")
        elif sliced := self._match(_SLICE):
            ends = [int(each) if each else None for each in sliced.groups()]
            return _Step(slice=slice(*ends))
        else:
            keys = [self._key()]
            while self._skip(","):
                keys.append(self._key())
            step = _Step(tuple(keys))
        self._need("]")
        return step

    def _key(self) -> str | int:
        if (name := self._quoted()) is not None:
            return name
        if index := self._match(_INDEX):
            return int(index[1])
        if bare := self._match(_NAME):  # `[name]`, which Jayway refuses and selection expressions are written with
            return bare[0]
        raise self._wrong("a quoted name or an index")

    def _quoted(self) -> str | None:
        quoted = self._match(_QUOTED)
        if quoted is None:
            return None
        return _ESCAPE.sub(r"\1", quoted[1] if quoted[1] is not None else quoted[2])

    def _either(self) -> Test:
        tests = [self._both()]
        while self._skip("||"):
            tests.append(self._both())
        return lambda value, document: any(test(value, document) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self._skip("&&"):
            tests.append(self._one())
        return lambda value, document: all(test(value, document) for test in tests)

    def _one(self) -> Test:
        self._blanks()
        if self._skip("!"):
            test = self._one()
            return lambda value, document: not test(value, document)
        if self._skip("("):
            test = self._either()
            self._need(")")
            return test
        left = self._operand()
        operator = self._match(_OPERATOR)
        if operator is None:
            return lambda value, document: left(value, document) is not MISSING
        if operator[1] == "=~":
            return self._like(left)
        right = self._operand()
        compare = _COMPARISONS[operator[1]]
        return lambda value, document: compare(left(value, document), right(value, document))

    def _like(self, left: Callable[[Json, Json], Json]) -> Test:
        pattern = self._match(_REGEX)
        if pattern is None:
            raise self._wrong("a /regular expression/")
        try:
            compiled = re.compile(pattern[1], re.IGNORECASE if pattern[2] else 0)
        except re.error as error:
            raise PathError(f"{self._text!r} has a regular expression that cannot be read: {error}") from error

        def like(value: Json, document: Json) -> bool:
            found = left(value, document)
            return isinstance(found, str) and compiled.fullmatch(found) is not None

        return like

    def _operand(self) -> Callable[[Json, Json], Json]:
        self._blanks()
        if self._skip("@"):
            path = self._inner()
            return lambda value, document: path.find(value)
        if self._skip("$"):
            path = self._inner()
            return lambda value, document: path.find(document)
        literal = self._literal()
        return lambda value, document: literal

    def _inner(self) -> Path:
        steps = self._steps(_FILTERED_NAME) if self._text[self._at : self._at + 1] in (".", "[") else []
        self._blanks()
        return _path(steps, None)

    def _literal(self) -> Json:
        if (text := self._quoted()) is not None:
            return text
        if literal := self._match(_LITERAL):
            words = {"true": True, "false": False, "null": None}
            return words[literal[1]] if literal[1] in words else float(literal[1])
        if not self._skip("["):
            raise self._wrong("@, $, a string, a number, true, false, null or a list")
        values: list[Json] = []
        while not self._skip("]"):
            values.append(self._literal())
            self._skip(",")
            self._blanks()
        self._blanks()
        return values

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        if match:
            self._at = match.end()
        return match

    def _skip(self, text: str) -> bool:
        """Go past `text` and what blanks follow it, if it is there."""
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        if text in ("&&", "||", ",", ")"):
            self._blanks()
        return True

    def _blanks(self) -> None:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1

    def _need(self, text: str) -> None:
        self._blanks()
        if not self._skip(text):
            raise self._wrong(text)

    def _wrong(self, expected: str) -> PathError:
        rest = self._text[self._at : self._at + 20]
        return PathError(f"expected {expected} at character {self._at + 1} of {self._text!r}, got {rest!r}")


def _path(steps: list[_Step], function: Callable[[Json], Json] | None) -> Path:
    if steps and len(names := steps[-1].keys or ()) > 1 and not steps[-1].deep and all(type(n) is str for n in names):
        steps[-1] = steps[-1]._replace(merged=True)
    keys = [step.keys[0] for step in steps if step.keys is not None and len(step.keys) == 1 and not step.deep]
    definite = len(keys) + (bool(steps) and steps[-1].merged) == len(steps)
    return Path(tuple(steps), tuple(keys) if len(keys) == len(steps) else None, definite, function)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Json, Json], bool]:  # Any: two of one type
    def ordered(left: Json, right: Json) -> bool:
        numbers = _is_number(left) and _is_number(right)
        return (numbers or (isinstance(left, str) and isinstance(right, str))) and compare(left, right)

    return ordered


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(left: Json, right: Json) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _among(left: Json, right: Json) -> bool:
    return isinstance(right, list) and any(_equal(left, each) for each in right)


_COMPARISONS: dict[str, Callable[[Json, Json], bool]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": _ordered(lambda left, right: left < right),
    "<=": _ordered(lambda left, right: left <= right),
    ">": _ordered(lambda left, right: left > right),
    ">=": _ordered(lambda left, right: left >= right),
    "in": _among,
    "nin": lambda left, right: not _among(left, right),
    "contains": lambda left, right: (
        _among(right, left)
        if isinstance(left, list)
        else isinstance(left, str) and isinstance(right, str) and right in left
    ),
    "empty": lambda left, right: isinstance(left, list | dict | str) and (not left) == right,
    "size": lambda left, right: isinstance(left, list | str) and len(left) == right,
}
