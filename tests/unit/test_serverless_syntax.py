"""Variables are told from what only looks like them."""

from __future__ import annotations

import pytest

from hubbub.emulator.template.serverless.syntax import Literal, Source, SyntaxFault, Variable, parse


def only(text: str) -> Variable:
    """The one variable that a text consists of."""
    (variable,) = parse(text)
    assert isinstance(variable, Variable)
    return variable


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text",
        "${AWS::Region}",
        "${Table}",
        "${Table.Arn}",
        "${table}",
        "${context.id}",
        "${}",
        "$x",
        "${aws::x}",
        "${ self:a}",
    ],
)
def test_what_is_no_variable_is_left_as_it_is(text: str) -> None:
    """CloudFormation's own and whatever has no source are no variables."""
    assert "".join(map(str, parse(text))) == text
    assert not any(isinstance(part, Variable) for part in parse(text))


def test_a_variable_has_a_source_and_an_address() -> None:
    """The part before the colon says where, the part after it what."""
    assert only("${self:custom.table}").sources == (Source("self", None, ("custom.table",)),)


def test_sources_are_asked_from_left_to_right_with_a_literal_last() -> None:
    """Commas part sources; the last may be a string, a number, a boolean or null."""
    variable = only("${opt:stage, self:provider.stage, 'a, b}'}")
    assert [source.type for source in variable.sources[:2]] == ["opt", "self"]  # type: ignore[union-attr]
    assert variable.sources[2] == Literal("a, b}")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12", 12),
        ("-1.5", -1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("null", None),
        ("''", ""),
        ('"a\\n"', "a\n"),
        ("'${x}'", "${x}"),
    ],
)
def test_literals_have_their_types(written: str, value: object) -> None:
    """A literal is what it looks like."""
    assert only(f"${{opt:x, {written}}}").sources[1] == Literal(value)


def test_variables_stand_in_addresses_parameters_and_in_place_of_sources() -> None:
    """A variable may be a part of another."""
    inner = only("${opt:stage}")
    assert only("${self:custom.${opt:stage}.x}").sources[0] == Source("self", None, ("custom.", inner, ".x"))
    assert only("${file(./c.${opt:stage}.yml):a}").sources[0] == Source("file", (("./c.", inner, ".yml"),), ("a",))
    assert only("${env:x, ${opt:stage}}").sources[1:] == inner.sources


def test_texts_around_variables_are_kept() -> None:
    """A text may consist of several variables and what is between them."""
    first, a, middle, b, last = parse("a-${self:a}-${AWS::Region}-${self:b}!")
    assert (first, middle, last) == ("a-", "-${AWS::Region}-", "!")
    assert isinstance(a, Variable)
    assert isinstance(b, Variable)


def test_variables_are_found_inside_what_is_no_variable() -> None:
    """A variable in CloudFormation's braces is one."""
    assert parse("${AWS::${self:a}}")[0] == "${AWS::"


@pytest.mark.parametrize(
    ("text", "begin"),
    [(r"\${self:a}", "${self:a}"), (r"x\\\${self:a}", r"x\${self:a}"), (r"\\${self:a}", "\\")],
)
def test_a_backslash_keeps_a_variable_from_being_read(text: str, begin: str) -> None:
    """An odd number of backslashes escapes; half of an even number stays."""
    parts = parse(text)
    assert parts[0] == begin
    assert len(parts) == (2 if text.startswith(r"\\$") else 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${self:a", "a closing }"),
        ("${self:a, foo bar}", "a string in quotes"),
        ("${opt:a, }", "a string in quotes"),
        ("${file(x:a}", r"a closing \)"),
        ("${self:${AWS::Region}}", "the name of a source"),
        ("${opt:a, 'b' c}", "a closing }"),
        ('${opt:a, "\\q"}', "double quotes"),
    ],
)
def test_a_variable_that_goes_wrong_is_said_with_what_was_expected(text: str, expected: str) -> None:
    """What begins as a variable must end as one."""
    with pytest.raises(SyntaxFault, match=f"expected .*{expected}"):
        parse(text)
