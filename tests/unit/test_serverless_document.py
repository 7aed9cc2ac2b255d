"""Files are read as js-yaml reads them, with the place of everything in them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless.document import parse_yaml, plain, read_document

HERE = Path("serverless.yml")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("", None),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b101", 5),
        ("-3", -3),
        ("1_000", 1000),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("12:30:45", "12:30:45"),
        ("2012-10-17", "2012-10-17"),
        ("123456789012", 123456789012),
        ("'1'", "1"),
        ("rate(5 minutes)", "rate(5 minutes)"),
    ],
)
def test_plain_scalars_are_what_js_yaml_makes_of_them(written: str, value: object) -> None:
    """A plain scalar has YAML 1.2's type, and dates stay text."""
    assert plain(parse_yaml(f"a: {written}", HERE)) == {"a": value}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("!Ref Table", {"Ref": "Table"}),
        ("!GetAtt Table.Stream.Arn", {"Fn::GetAtt": ["Table", "Stream.Arn"]}),
        ("!GetAtt [Table, Arn]", {"Fn::GetAtt": ["Table", "Arn"]}),
        ("!Sub 1", {"Fn::Sub": "1"}),
        ("!Sub ['${x}', {x: !Ref Y}]", {"Fn::Sub": ["${x}", {"x": {"Ref": "Y"}}]}),
        ("!Condition Big", {"Condition": "Big"}),
        ("!Join [',', [a, !Select [0, [b]]]]", {"Fn::Join": [",", ["a", {"Fn::Select": [0, ["b"]]}]]}),
    ],
)
def test_tags_become_the_long_forms_of_functions(written: str, value: object) -> None:
    """CloudFormation's short tags are read as its long forms."""
    assert plain(parse_yaml(f"a: {written}", HERE)) == {"a": value}


def test_plain_scalars_in_brackets_may_have_a_question_mark() -> None:
    """As schedules of cron and addresses have; PyYAML alone would refuse them."""
    assert plain(parse_yaml("a: [cron(0 12 * * ? *), http://x?y]", HERE)) == {"a": ["cron(0 12 * * ? *)", "http://x?y"]}


def test_merge_keys_give_what_is_not_there_yet() -> None:
    """`<<` takes the keys of other mappings, the mapping's own before them."""
    text = "base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}"
    assert plain(parse_yaml(text, HERE))["other"] == {"a": 1, "b": 3}


def test_everything_knows_its_place() -> None:
    """Keys, items and texts carry the file and line they were written in."""
    document = parse_yaml("a:\n  - x\n  -\n    b: y\n", HERE)
    assert document.place_of("a") == (HERE, 1)
    assert document["a"].places[0].line == 2
    assert document["a"][1]["b"].place == (HERE, 4)


def test_json_is_read_with_its_escapes_and_places(tmp_path: Path) -> None:
    """A JSON file has lines too, tabs between values and surrogate pairs in texts."""
    path = tmp_path / "config.json"
    path.write_text('{\n\t"a": "\\ud83d\\ude00",\n\t"b": [1.5, true, null]\n}')
    document = read_document(path)
    assert plain(document) == {"a": "😀", "b": [1.5, True, None]}
    assert document.place_of("b") == (path, 3)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: [1", 2, "cannot be read"),
        ("a: 1\nb: 2\na: 3", 3, "'a' is there twice"),
        ("a:\n  b: !Foo x", 2, "!Foo"),
        ("b: 1\na: &a\n  - *a", 2, "holds itself"),
        ("a: b: c", 1, "cannot be read"),
        ("? [1]\n: 2", 1, "expected a key, got a list"),
        ("a: {<<: 5}", 1, "expected a mapping after '<<'"),
        ("a: !!int x", 1, "expected a value of tag:yaml.org,2002:int"),
        pytest.param("[" * 20_000, None, "nested too deeply", marks=pytest.mark.slow),
        pytest.param("[" * 20_000 + "]" * 20_000, None, "nested too deeply", marks=pytest.mark.slow),
        ("[?x, " * 250 + "]" * 250, None, "cannot be read|nested too deeply"),
        pytest.param(
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n"
                for before, name in zip("abcdefg", "bcdefgh", strict=True)
            ),
            None,
            "too large",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_file_that_is_no_yaml_gets_an_error_with_its_line(text: str, line: int | None, what: str) -> None:
    """Whatever is wrong with a file is said with the file and, where there is one, the line."""
    with pytest.raises(TemplateError, match=what) as raised:
        parse_yaml(text, HERE)
    assert raised.value.path == HERE
    assert line is None or raised.value.line == line


def test_a_hundred_levels_are_no_more_than_somebody_may_write() -> None:
    """Only what no one writes is too deep."""
    assert parse_yaml("[" * 100 + "]" * 100, HERE) is not None


def test_a_file_that_is_no_json_gets_an_error_with_its_line(tmp_path: Path) -> None:
    """What YAML would let pass in a .json file is an error."""
    path = tmp_path / "config.json"
    path.write_text('{\n"a": yes\n}')
    with pytest.raises(TemplateError, match="JSON cannot be read") as raised:
        read_document(path)
    assert raised.value.line == 2
