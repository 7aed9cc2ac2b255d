"""Filter patterns of event source mappings, operator by operator."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hubbub.emulator.sources.filters import Pattern, PatternInvalid
from hubbub.emulator.sources.queues import is_wanted

TAKEN: list[tuple[Any, Any]] = [
    ({"a": ["x"]}, {"a": "x", "b": 1}),
    ({"a": ["x", "y"]}, {"a": "y"}),
    ({"a": [1]}, {"a": 1.0}),
    ({"a": [True]}, {"a": True}),
    ({"a": [None]}, {"a": None}),
    ({"a": [""]}, {"a": ""}),
    ({"a": {"b": {"c": ["x"]}}}, {"a": {"b": {"c": "x"}}}),
    ({"a": ["x"], "b": ["y"]}, {"a": "x", "b": "y"}),
    ({"a": ["x"]}, {"a": ["w", "x"]}),
    ({"a": {"b": ["x"]}}, {"a": [{"b": "w"}, {"b": "x"}]}),
    ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"a": "no", "b": "y"}),
    ({"a": [{"prefix": "ab"}]}, {"a": "abc"}),
    ({"a": [{"prefix": {"equals-ignore-case": "AB"}}]}, {"a": "abc"}),
    ({"a": [{"suffix": "bc"}]}, {"a": "abc"}),
    ({"a": [{"suffix": {"equals-ignore-case": "BC"}}]}, {"a": "abc"}),
    ({"a": [{"equals-ignore-case": "ABC"}]}, {"a": "abc"}),
    ({"a": [{"wildcard": "a*c"}]}, {"a": "abbbc"}),
    ({"a": [{"exists": True}]}, {"a": 0}),
    ({"a": [{"exists": True}]}, {"a": None}),
    ({"a": [{"exists": False}]}, {"b": 1}),
    ({"a": {"b": [{"exists": False}]}}, {}),
    ({"a": [{"anything-but": "x"}]}, {"a": "y"}),
    ({"a": [{"anything-but": ["x", 1]}]}, {"a": 2}),
    ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "yx"}),
    ({"a": [{"anything-but": {"suffix": ["x", "y"]}}]}, {"a": "xz"}),
    ({"a": [{"numeric": ["=", 3]}]}, {"a": 3}),
    ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}),
    ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.0.255"}),
    ({"a": ["x", {"numeric": [">=", 3]}]}, {"a": 3}),
]

NOT_TAKEN: list[tuple[Any, Any]] = [
    ({"a": ["x"]}, {"a": "X"}),
    ({"a": ["x"]}, {"b": "x"}),
    ({"a": [1]}, {"a": True}),
    ({"a": [1]}, {"a": "1"}),
    ({"a": [None]}, {}),
    ({"a": ["x"]}, {"a": {"x": "x"}}),
    ({"a": {"b": ["x"]}}, {"a": "x"}),
    ({"a": ["x"], "b": ["y"]}, {"a": "x", "b": "z"}),
    ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"a": "y", "b": "x"}),
    ({"a": [{"prefix": "ab"}]}, {"a": "ABC"}),
    ({"a": [{"prefix": "ab"}]}, {"a": 1}),
    ({"a": [{"suffix": "bc"}]}, {"a": "bcd"}),
    ({"a": [{"wildcard": "a*c"}]}, {"a": "abcd"}),
    ({"a": [{"exists": True}]}, {}),
    ({"a": [{"exists": True}]}, {"a": {"b": 1}}),
    ({"a": [{"exists": False}]}, {"a": None}),
    ({"a": [{"anything-but": "x"}]}, {"a": "x"}),
    ({"a": [{"anything-but": "x"}]}, {}),
    ({"a": [{"anything-but": {"suffix": ["x", "y"]}}]}, {"a": "zy"}),
    ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 0}),
    ({"a": [{"numeric": [">", 0]}]}, {"a": "1"}),
    ({"a": [{"numeric": [">", 0]}]}, {"a": True}),
    ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.1.0"}),
    ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "here"}),
]


@pytest.mark.parametrize(("rules", "document"), TAKEN)
def test_a_pattern_takes_what_it_says(rules: Any, document: Any) -> None:
    """A record is taken where each field of the pattern has an alternative that holds."""
    assert Pattern(json.dumps(rules)).takes(document)


@pytest.mark.parametrize(("rules", "document"), NOT_TAKEN)
def test_a_pattern_takes_nothing_else(rules: Any, document: Any) -> None:
    """A record is not taken where one field has no alternative that holds."""
    assert not Pattern(json.dumps(rules)).takes(document)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "must be JSON"),
        ("[]", "must be a JSON object"),
        ("{}", "empty object"),
        ('{"a": "x"}', "list of alternatives at a"),
        ('{"a": []}', "list of alternatives at a"),
        ('{"a": {"b": [{"like": "x"}]}}', "unknown operator 'like' at a.b"),
        ('{"a": [{"prefix": 1}]}', "prefix takes a string at a"),
        ('{"a": [{"prefix": "x", "suffix": "y"}]}', "expected one operator at a"),
        ('{"a": [{"numeric": [">"]}]}', "numeric takes one or two comparisons at a"),
        ('{"a": [{"numeric": ["~", 1]}]}', "numeric cannot take"),
        ('{"a": [{"exists": "yes"}]}', "exists takes true or false at a"),
        ('{"a": [{"cidr": "here"}]}', "cidr cannot take"),
        ('{"a": [{"anything-but": []}]}', "anything-but takes at least one value"),
        ('{"a": [{"anything-but": {"numeric": [">", 1]}}]}', "anything-but cannot take"),
        ('{"$or": [{"a": ["x"]}]}', "$or takes a list"),
    ],
)
def test_what_is_no_pattern_is_refused_with_the_place(text: str, words: str) -> None:
    """A pattern that cannot be says where it is wrong and what was expected."""
    with pytest.raises(PatternInvalid) as refused:
        Pattern(text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("rules", "body", "wanted"),
    [
        ({"body": {"kind": ["a"]}}, '{"kind": "a"}', True),
        ({"body": {"kind": ["a"]}}, '{"kind": "b"}', False),
        ({"body": {"kind": ["a"]}}, "kind a", False),
        ({"body": ["kind a"]}, "kind a", True),
        ({"body": [{"prefix": "{"}]}, '{"kind": "a"}', False),
        ({"attributes": {"SenderId": ["me"]}}, "whatever", True),
        ({"attributes": {"SenderId": ["you"]}}, '{"kind": "a"}', False),
    ],
)
def test_a_message_s_body_is_read_as_the_pattern_reads_it(rules: Any, body: str, wanted: bool) -> None:
    """A pattern for JSON takes no text, one for text takes no JSON, and one for neither does not look."""
    record = {"body": body, "attributes": {"SenderId": "me"}}
    assert is_wanted(Pattern(json.dumps(rules)), record) is wanted
