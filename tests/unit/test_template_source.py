from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.emulator.template import TemplateError
from hubbub.emulator.template.source import line_of, parse_document, read_document

YAML = Path("template.yaml")
JSON = Path("template.json")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("!Ref Table", {"Ref": "Table"}),
        ("!Condition IsProd", {"Condition": "IsProd"}),
        ("!GetAtt Table.Arn", {"Fn::GetAtt": ["Table", "Arn"]}),
        ("!GetAtt Nested.Outputs.Url", {"Fn::GetAtt": ["Nested", "Outputs.Url"]}),
        ("!GetAtt [Table, Arn]", {"Fn::GetAtt": ["Table", "Arn"]}),
        ("!Sub 'x-${Table}'", {"Fn::Sub": "x-${Table}"}),
        ("!Join ['-', [a, !Ref B]]", {"Fn::Join": ["-", ["a", {"Ref": "B"}]]}),
        ("!If [C, 1, !Ref AWS::NoValue]", {"Fn::If": ["C", 1, {"Ref": "AWS::NoValue"}]}),
        ("!FindInMap [A, b, c]", {"Fn::FindInMap": ["A", "b", "c"]}),
        ("!Select [0, !GetAZs '']", {"Fn::Select": [0, {"Fn::GetAZs": ""}]}),
        ("!Split [',', 'a,b']", {"Fn::Split": [",", "a,b"]}),
        ("!Base64 text", {"Fn::Base64": "text"}),
        ("!Cidr [10.0.0.0/16, 2, 8]", {"Fn::Cidr": ["10.0.0.0/16", 2, 8]}),
        ("!ImportValue other", {"Fn::ImportValue": "other"}),
        ("!Not [!Equals [a, b]]", {"Fn::Not": [{"Fn::Equals": ["a", "b"]}]}),
        ("!And [!Condition A, !Or [!Condition B, !Condition C]]", None),
        ("!Transform {Name: AWS::Include, Parameters: {Location: a.yaml}}", None),
        ("!Length [a]", {"Fn::Length": ["a"]}),
        ("!ToJsonString {a: 1}", {"Fn::ToJsonString": {"a": 1}}),
    ],
)
def test_short_tags_are_their_long_forms(written: str, meant: object) -> None:
    """Each tag of CloudFormation's is the mapping that its long form is."""
    found = parse_document(f"It: {written}", YAML)["It"]
    if meant is None:
        assert next(iter(found)).startswith("Fn::")
    else:
        assert found == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2010-09-09", "2010-09-09"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("012345678901", "012345678901"),
        ("12:30:45", "12:30:45"),
        ("12", 12),
        ("-7", -7),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("true", True),
        ("'true'", "true"),
        ("no", False),
        ("~", None),
        ("'012'", "012"),
    ],
)
def test_dates_and_account_ids_stay_text(written: str, meant: object) -> None:
    """Plain values are what AWS takes them for: dates, times of day and digits with a zero in front are text."""
    found = parse_document(f"It: {written}", YAML)["It"]
    assert found == meant
    assert type(found) is type(meant)


def test_anchors_and_merges_are_written_out() -> None:
    """An alias is what its anchor has, and a mapping's own keys win over those that it merges."""
    found = parse_document("a: &it {x: 1, y: !Ref Z}\nb:\n  <<: *it\n  x: 2\nc: [*it]\n", YAML)
    assert found["b"] == {"x": 2, "y": {"Ref": "Z"}}
    assert found["c"] == [found["a"]]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("Resources:\n  A: {Type: x\n  B: {}\n", 3, "expected ',' or '}'"),
        ("Resources:\n\tA: 1\n", 2, r"'\t' that cannot start any token"),
        ("A: 1\nB: 2\nA: 3\n", 3, "the key 'A' is there twice; first in line 1"),
        ("A:\n  B: {C: 1,\n    C: 2}\n", 3, "the key 'C' is there twice; first in line 2"),
        ("A: !Reff B\n", 1, "expected a tag of CloudFormation's such as !Ref, got !Reff"),
        ("A: 1\n---\nB: 1\n", 2, "expected a single document"),
        ("A: &x [1, *x]\n", 1, "an alias leads back into what it stands in"),
        ("- A\n- B\n", 1, "expected a mapping with Resources, got a list"),
        ("just words\n", 1, "expected a mapping with Resources, got a text"),
        ("? [a, b]\n: 1\n", 1, "expected a name as the key"),
        ("A:\n  <<: [1]\n", 2, "expected a mapping, or a list of them, after <<"),
        ("# nothing\n", None, "expected a template, got an empty file"),
        ("A: \x07\n", None, "not YAML"),
        ("A: " + "[" * 400 + "]" * 400, 1, "nested too deeply"),
        pytest.param("A: " + "[" * 4000, None, "nested too deeply", marks=pytest.mark.slow),
    ],
)
def test_a_syntax_error_names_file_line_and_what(text: str, line: int | None, what: str) -> None:
    """What is no YAML document of one mapping gets an error that says where and what."""
    with pytest.raises(TemplateError) as failure:
        parse_document(text, YAML)
    assert failure.value.path == YAML
    assert failure.value.line == line
    assert what in failure.value.what
    assert str(failure.value).startswith(f"template.yaml:{line}: " if line else "template.yaml: ")


@pytest.mark.slow
def test_aliases_that_multiply_are_refused() -> None:
    """A document that aliases make enormous is an error and not the end of the memory."""
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 8)
    )
    with pytest.raises(TemplateError, match="too large"):
        parse_document(bomb, YAML)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('{"A": 1,\n "B" 2}', 2, "not JSON: Expecting ':' delimiter"),
        ('{"A": 1,\n "A": 2}', 2, "the key 'A' is there twice"),
        ('{"A": {"B": 1,\n\n "C": {}, "B": 2}}', 3, "the key 'B' is there twice"),
        ('{"A": ' + "[" * 100_000, None, "nested too deeply"),
    ],
)
def test_a_mistake_in_json_names_its_line(text: str, line: int | None, what: str) -> None:
    """JSON gets errors of the same kind as YAML."""
    with pytest.raises(TemplateError) as failure:
        parse_document(text, JSON)
    assert (failure.value.line, what in failure.value.what) == (line, True)


def test_json_may_be_indented_with_tabs() -> None:
    """JSON is read as JSON, whatever YAML thinks of tabs, and knows the lines of its keys."""
    found = parse_document('\n{\n\t"A": {\n\t\t"B": [1, {"C": "\\ud83d\\ude00"}]\n\t},\n\t"D": "x"\n}', JSON)
    assert found == {"A": {"B": [1, {"C": "😀"}]}, "D": "x"}
    assert (line_of(found, "A"), line_of(found["A"], "B"), line_of(found, "D")) == (3, 4, 6)


def test_a_yaml_file_may_begin_with_a_brace() -> None:
    """Flow style YAML in a .yaml file is YAML."""
    assert parse_document("{A: !Ref B}", YAML) == {"A": {"Ref": "B"}}


def test_mappings_know_their_lines() -> None:
    """Each mapping, and each key of it, knows the line that it stands in."""
    found = parse_document("Resources:\n  A:\n    Type: T\n    Properties:\n      X: !Sub a\n", YAML)
    resource = found["Resources"]["A"]
    assert line_of(found["Resources"], "A") == 2
    assert line_of(resource, "Properties") == 4
    assert line_of(resource["Properties"]["X"]) == 5
    assert line_of({"plain": 1}, "plain") is None


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A file that is not there, is a folder, or is not UTF-8 gets an error with its name."""
    with pytest.raises(TemplateError, match="No such file"):
        read_document(tmp_path / "absent.yaml")
    with pytest.raises(TemplateError, match="cannot be read"):
        read_document(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"A: \xe9\n")
    with pytest.raises(TemplateError, match="UTF-8"):
        read_document(tmp_path / "latin.yaml")


def test_a_byte_order_mark_is_no_part_of_the_template(tmp_path: Path) -> None:
    """A file that an editor began with a byte order mark reads as if it had none."""
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfA: 1\n")
    assert read_document(tmp_path / "bom.yaml") == {"A": 1}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=10), _VALUES, max_size=5), st.sampled_from([None, 2, "\t"]))
@settings(deadline=None)
def test_every_json_document_is_read_as_it_is(document: dict[str, object], indent: int | str | None) -> None:
    """A JSON document comes back as the standard library would read it, however it is indented."""
    assert parse_document(json.dumps(document, indent=indent), JSON) == document
