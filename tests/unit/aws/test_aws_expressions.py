"""How items, conditions and ranges are said to DynamoDB: pure."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.aws.expressions import conditional, projection, range_of
from hubbub.aws.marshalling import item_of, key_of, pack, unpack

VALUES = st.recursive(
    st.text() | st.integers() | st.binary() | st.booleans() | st.none() | st.sets(st.text(min_size=1), min_size=1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(deadline=None)  # a busy machine is no defect
@given(VALUES)
def test_values_come_back_as_they_were(value: Any) -> None:
    """What DynamoDB's JSON says of a value is that value, of the same type."""
    packed = json.loads(msgspec.json.encode(pack(value)))
    found = unpack(packed)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", [1.5, set(), {1}, object(), {"a": 0.1}, [set()], (1,)])
def test_what_cannot_be_kept_is_refused(value: Any) -> None:
    """Values of other types, and empty sets, are errors that say what was expected."""
    with pytest.raises((TypeError, ValueError), match="value: expected"):
        pack(value)


@pytest.mark.parametrize("packed", [{"NS": ["1"]}, {"BS": []}, {"X": 1}])
def test_kinds_that_are_never_written_are_not_read(packed: dict[str, Any]) -> None:
    """A kind of value that no item of ours has is an error that names it."""
    with pytest.raises(ValueError, match=f"value: expected S, N, .* got {next(iter(packed))}"):
        unpack(packed)


@pytest.mark.parametrize("item", [{}, {"pk": "a"}, {"pk": "a", "sk": ""}, {"pk": 1, "sk": "b"}, {"pk": "", "sk": "b"}])
def test_items_have_keys(item: dict[str, Any]) -> None:
    """An item without a whole key is refused before it is sent."""
    for use in (item_of, key_of):
        with pytest.raises(ValueError, match="item: expected pk and sk"):
            use(item)


def test_names_and_values_are_found_in_expressions() -> None:
    """What stands as `#name` and `:name` in a change and its condition is named once."""
    said = conditional(
        "#state = :old AND attribute_exists(pk)", {"old": "x", "new": 1}, "SET #state = :new, a.#b = :old"
    )
    assert said == {
        "UpdateExpression": "SET #state = :new, a.#b = :old",
        "ConditionExpression": "#state = :old AND attribute_exists(pk)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        "ExpressionAttributeNames": {"#state": "state", "#b": "b"},
        "ExpressionAttributeValues": {":old": {"S": "x"}, ":new": {"N": "1"}},
    }
    assert conditional(None, {}) == {}


@pytest.mark.parametrize("values", [{}, {"old": 1, "more": 2}, {"new": 1}])
def test_values_are_those_that_are_written(values: dict[str, Any]) -> None:
    """A value that is missing, or that nobody asks for, is an error that names what was expected and what came."""
    with pytest.raises(ValueError, match=r"values: expected \['old'\] for '#n = :old', got"):
        conditional("#n = :old", values)


def test_attributes_that_are_wanted_may_have_any_name() -> None:
    """Reserved words and names with odd characters can be asked for."""
    assert projection(["name", "a-b.c"]) == {
        "ProjectionExpression": "#o0, #o1",
        "ExpressionAttributeNames": {"#o0": "name", "#o1": "a-b.c"},
    }
    assert projection([]) == {}


WORDS = st.none() | st.text(st.sampled_from("ab\uffff\U0001f600"), max_size=3)


@settings(deadline=None)  # a busy machine is no defect
@given(WORDS, WORDS, WORDS, WORDS, st.booleans(), st.lists(st.text(st.sampled_from("ab\uffff\U0001f600"), min_size=1)))
def test_ranges_are_what_they_say(
    low: str | None, high: str | None, prefix: str | None, start: str | None, descending: bool, line: list[str]
) -> None:
    """Whatever the bounds, what DynamoDB is asked for are the items between them that begin so and come after."""
    start = start or None
    expected = sorted(
        sk
        for sk in line
        if (low is None or sk >= low)
        and (high is None or sk <= high)
        and sk.startswith(prefix or "")
        and (start is None or (sk < start if descending else sk > start))
    )
    asked = range_of(low, high, prefix, start, descending=descending)
    if asked is None:
        assert expected == []
        return
    values = {name: value["S"] for name, value in asked.values.items()}
    assert "" not in values.values()
    match asked.condition.split():
        case []:
            within = line
        case ["AND", "begins_with(sk,", ":prefix)"]:
            within = [sk for sk in line if sk.startswith(values[":prefix"])]
        case ["AND", "sk", "BETWEEN", ":low", "AND", ":high"]:
            assert values[":low"] <= values[":high"]
            within = [sk for sk in line if values[":low"] <= sk <= values[":high"]]
        case ["AND", "sk", ">=", ":low"]:
            within = [sk for sk in line if sk >= values[":low"]]
        case ["AND", "sk", "<=", ":high"]:
            within = [sk for sk in line if sk <= values[":high"]]
        case other:
            pytest.fail(f"not known: {other}")
    if asked.start is not None:
        within = [sk for sk in within if (sk < asked.start if descending else sk > asked.start)]
    assert sorted(within) == expected
