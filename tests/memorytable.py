"""A `Table` in memory, faithful in what conditional writes promise: each is one step, and answers with what is there.

It reads DynamoDB's expressions, as far as the directory and the broadcaster write them, and refuses what else comes.
Calls take time, so that others come between; a call that is cancelled or fails was done or not, as with the real one.
"""

from __future__ import annotations

import asyncio
import copy
import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from hubbub.aws.service import AwsError
from hubbub.aws.table import ConditionFailed, QueryPage, Table, Usage

Item = dict[str, Any]
Key = tuple[str, str]
Fault = Callable[[str, Key], str | None]

_TOKENS = re.compile(r"\s*(<>|<=|>=|[()=<>,+]|:\w+|#?\w+(?:\.#?\w+)*|-)")
PAGE_BYTES = 1_000_000


class MemoryTable(Table):
    """The table.

    Args:
        latency_s: the least and greatest time that a call takes.
        seed: of the times.

    Attributes:
        items: what is there.
        used: requests by operation, and capacity units as DynamoDB counts them for items below a kilobyte.
        fault: asked before each call with its operation and key: `throttle` refuses it, `before` and `after` lose
            the connection before it is done or after, None lets it be.
        calls: how many there were.

    """

    def __init__(self, *, latency_s: tuple[float, float] = (0.004, 0.008), seed: int = 1) -> None:
        self.name = "memory"
        self.used = Usage()
        self.items: dict[Key, Item] = {}
        self.fault: Fault | None = None
        self.calls = 0
        self._latency_s = latency_s
        self._random = random.Random(seed)
        self._sorted: dict[str, list[str]] = {}
        self._by_pk: dict[str, set[str]] = defaultdict(set)

    async def get(self, key: Key, *, consistent: bool = True, only: Sequence[str] = ()) -> Item | None:
        fault = await self._begin("GetItem", key)
        item = self.items.get(key)
        self._read(1 if item is None else _size(item), consistent)
        found = copy.deepcopy(item)
        await self._end(fault)
        return found and {name: value for name, value in found.items() if not only or name in only}

    async def get_many(
        self, keys: Sequence[Key], *, consistent: bool = True, only: Sequence[str] = ()
    ) -> dict[Key, Item]:
        found = {key: await self.get(key, consistent=consistent, only=only) for key in dict.fromkeys(keys)}
        return {key: item for key, item in found.items() if item is not None}

    async def query(
        self,
        pk: str,
        *,
        low: str | None = None,
        high: str | None = None,
        prefix: str | None = None,
        limit: int | None = None,
        descending: bool = False,
        consistent: bool = True,
        start: str | None = None,
        only: Sequence[str] = (),
        count_only: bool = False,
    ) -> QueryPage:
        assert not descending and low is None and high is None, "not needed here"
        assert start != "", "DynamoDB takes no empty key"
        fault = await self._begin("Query", (pk, start or ""))
        if pk not in self._sorted:
            self._sorted[pk] = sorted(self._by_pk[pk])
        keys = [
            sk for sk in self._sorted[pk] if (start is None or sk > start) and (prefix is None or sk.startswith(prefix))
        ]
        taken, size = [], 0
        for sk in keys[:limit]:
            taken.append(sk)
            size += _size(self.items[pk, sk])
            if size > PAGE_BYTES:
                break
        self._read(max(1, size), consistent)
        items = [] if count_only else [dict(self.items[pk, sk]) for sk in taken]
        more = taken and (len(taken) < len(keys) or limit == len(taken))
        page = QueryPage(items, len(taken), taken[-1] if more else None)
        await self._end(fault)
        return page

    async def put(self, item: Item, *, condition: str | None = None, values: Mapping[str, Any] | None = None) -> None:
        key = (item["pk"], item["sk"])
        fault = await self._begin("PutItem", key)
        self._check(key, condition, values or {})
        self._write(key, copy.deepcopy(item))
        await self._end(fault)

    async def update(
        self,
        key: Key,
        expression: str,
        *,
        condition: str | None = None,
        values: Mapping[str, Any] | None = None,
        returns: Literal["NONE", "ALL_NEW", "ALL_OLD"] = "NONE",
        repeat: bool = False,
    ) -> Item:
        values = values or {}
        written = set(re.findall(r":(\w+)", f"{expression} {condition or ''}"))
        assert written == set(values), f"expected values for {written}, got {set(values)}"
        fault = await self._begin("UpdateItem", key)
        self._check(key, condition, values)
        old = self.items.get(key)
        new = _changed(old or {"pk": key[0], "sk": key[1]}, expression, values)
        self._write(key, new)
        found = copy.deepcopy({"ALL_NEW": new, "ALL_OLD": old, "NONE": {}}[returns])
        await self._end(fault)
        return found or {}

    async def delete(
        self,
        key: Key,
        *,
        condition: str | None = None,
        values: Mapping[str, Any] | None = None,
        returns_old: bool = False,
    ) -> Item | None:
        fault = await self._begin("DeleteItem", key)
        self._check(key, condition, values or {})
        old = self.items.pop(key, None)
        self._by_pk[key[0]].discard(key[1])
        self._sorted.pop(key[0], None)
        self.used.write_units += 1
        await self._end(fault)
        return old if returns_old else None

    async def write_many(self, puts: Sequence[Item] = (), deletes: Sequence[Key] = ()) -> None:
        for item in puts:
            await self.put(item)
        for key in deletes:
            await self.delete(key)

    def place(self, *items: Item) -> None:
        """Put items at once."""
        for item in items:
            self._write((item["pk"], item["sk"]), dict(item))

    def forget_usage(self) -> None:
        """Begin to count anew."""
        self.used = Usage()

    # One call

    async def _begin(self, operation: str, key: Key) -> str | None:
        self.calls += 1
        fault = self.fault(operation, key) if self.fault else None
        await self._pass()
        if fault == "throttle":
            raise AwsError("ThrottlingException", "Rate exceeded", status=400)
        if fault == "before":
            raise AwsError("Broken", "the connection broke", is_in_doubt=True)
        self.used.requests[operation] += 1
        return fault

    async def _end(self, fault: str | None) -> None:
        await self._pass()
        if fault == "after":
            raise AwsError("Broken", "the connection broke", is_in_doubt=True)

    async def _pass(self) -> None:
        low, high = self._latency_s
        await asyncio.sleep(self._random.uniform(low, high) / 2)

    def _check(self, key: Key, condition: str | None, values: Mapping[str, Any]) -> None:
        item = self.items.get(key)
        if condition is not None and not _Condition(condition, item or {}, values).holds():
            self.used.write_units += 1
            failed = ConditionFailed("ConditionalCheckFailedException", "The conditional request failed", status=400)
            failed.item = copy.deepcopy(item)
            raise failed

    def _write(self, key: Key, item: Item) -> None:
        if key not in self.items:
            self._by_pk[key[0]].add(key[1])
            self._sorted.pop(key[0], None)
        self.items[key] = item
        self.used.write_units += -(-_size(item) // 1_024)

    def _read(self, size: int, consistent: bool) -> None:
        self.used.read_units += -(-size // 4_096) * (1.0 if consistent else 0.5)


def _size(item: Item) -> int:
    """About what DynamoDB counts: names and values in UTF-8."""
    return sum(len(name) + (len(value.encode()) if isinstance(value, str) else 8) for name, value in item.items())


class _Condition:
    """A condition being read: `or` of `and`s of comparisons, functions and brackets."""

    def __init__(self, text: str, item: Item, values: Mapping[str, Any]) -> None:
        self._tokens = _TOKENS.findall(text)
        assert "".join(self._tokens) == re.sub(r"\s", "", text), f"cannot read {text!r}"
        self._item = item
        self._values = values
        self._at = 0

    def holds(self) -> bool:
        result = self._either()
        assert self._at == len(self._tokens), f"left over: {self._tokens[self._at :]}"
        return result

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        return self._tokens[self._at].upper() if self._at < len(self._tokens) else ""

    def _either(self) -> bool:
        result = self._both()
        while self._peek() == "OR":
            self._next()
            other = self._both()
            result = result or other
        return result

    def _both(self) -> bool:
        result = self._one()
        while self._peek() == "AND":
            self._next()
            other = self._one()
            result = result and other
        return result

    def _one(self) -> bool:
        if self._peek() == "NOT":
            self._next()
            return not self._one()
        if self._peek() == "(":
            self._next()
            result = self._either()
            assert self._next() == ")"
            return result
        if self._peek() in ("ATTRIBUTE_EXISTS", "ATTRIBUTE_NOT_EXISTS"):
            is_wanted = self._next().lower() == "attribute_exists"
            assert self._next() == "("
            found = _value(self._next(), self._item, self._values)
            assert self._next() == ")"
            return (found is not None) == is_wanted
        left = _value(self._next(), self._item, self._values)
        operator = self._next()
        right = _value(self._next(), self._item, self._values)
        if left is None or right is None or type(left) is not type(right):
            return operator == "<>"
        return {
            "=": left == right,
            "<>": left != right,
            "<": left < right,
            "<=": left <= right,
            ">": left > right,
            ">=": left >= right,
        }[operator]


def _value(token: str, item: Item, values: Mapping[str, Any]) -> Any:
    if token.startswith(":"):
        return values[token[1:]]
    found: Any = item
    for name in token.split("."):
        found = found.get(name.removeprefix("#")) if isinstance(found, dict) else None
    return found


def _changed(old: Item, expression: str, values: Mapping[str, Any]) -> Item:
    """The item after `SET … REMOVE … ADD …`; all of it sees what was there before."""
    new = copy.deepcopy(old)
    for clause, rest in re.findall(r"\b(SET|REMOVE|ADD)\b(.*?)(?=\bSET\b|\bREMOVE\b|\bADD\b|$)", expression):
        for each in re.split(r",(?![^(]*\))", rest):
            words = each.split()
            if clause == "REMOVE":
                new.pop(words[0].removeprefix("#"), None)
            elif clause == "ADD":
                name = words[0].removeprefix("#")
                new[name] = old.get(name, 0) + values[words[1][1:]]
            else:
                assert words[1] == "=", each
                new[words[0].removeprefix("#")] = _sum(" ".join(words[2:]), old, values)
    return new


def _sum(text: str, old: Item, values: Mapping[str, Any]) -> Any:
    parts = [part.strip() for part in text.split("+")]
    found = []
    for part in parts:
        fallback = re.fullmatch(r"if_not_exists\((\S+), (\S+)\)", part)
        if fallback:
            value = _value(fallback[1], old, values)
            found.append(_value(fallback[2], old, values) if value is None else value)
        else:
            found.append(_value(part, old, values))
    if None in found:
        raise AwsError("ValidationException", "The provided expression refers to an attribute that does not exist")
    return found[0] if len(found) == 1 else sum(found)
