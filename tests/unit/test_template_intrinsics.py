from __future__ import annotations

import base64
import ipaddress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.emulator.definition import Surroundings
from hubbub.emulator.template import TemplateError
from hubbub.emulator.template.intrinsics import ABSENT
from hubbub.emulator.template.scope import Scope
from templatelab import failure_of, meaning_of, stack_of, value_of

REST = """\
Parameters:
  Stage: {Type: String, Default: dev}
  Count: {Type: Number, Default: 2}
  Names: {Type: CommaDelimitedList, Default: "a, b ,c"}
Mappings:
  Sizes:
    dev: {memory: 128, zones: [x, y]}
Conditions:
  IsDev: !Equals [!Ref Stage, dev]
  IsProd: !Equals [!Ref Stage, prod]
  Neither: !Not [!Or [!Condition IsDev, !Condition IsProd]]
  Both: !And [!Condition IsDev, !Not [!Condition IsProd]]
Resources:
  Queue: {Type: AWS::SQS::Queue, Properties: {QueueName: jobs}}
"""


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("!Ref Stage", "dev"),
        ("{Ref: Stage}", "dev"),
        ("!Ref Names", ["a", "b", "c"]),
        ("!Ref AWS::Region", "us-east-1"),
        ("!Ref AWS::AccountId", "123456789012"),
        ("!Ref AWS::StackName", "local"),
        ("!Ref AWS::Partition", "aws"),
        ("!Ref AWS::URLSuffix", "amazonaws.com"),
        ("!Ref AWS::NotificationARNs", []),
        ("!GetAtt Queue.Arn", "arn:aws:sqs:us-east-1:123456789012:jobs"),
        ("{'Fn::GetAtt': [Queue, Arn]}", "arn:aws:sqs:us-east-1:123456789012:jobs"),
        ("{'Fn::GetAtt': Queue.Arn}", "arn:aws:sqs:us-east-1:123456789012:jobs"),
        ("!GetAtt [Queue, !Sub 'Queue${Suffix}']", TemplateError),
        ("!Sub '${Stage}-${AWS::Region}-${Queue.QueueName}'", "dev-us-east-1-jobs"),
        ("!Sub '${!Stage} ${Stage} $ {x} ${Count}'", "${Stage} dev $ {x} 2"),
        ("!Sub ['${A}/${Stage}', {A: !Ref Count}]", "2/dev"),
        ("!Sub ['${Stage}', {Stage: own}]", "own"),
        ("!Sub ['${A}', {A: !Ref AWS::NoValue}]", ""),
        ("!Join ['-', [a, !Ref Stage, 3, true]]", "a-dev-3-true"),
        ("!Join ['', !Ref Names]", "abc"),
        ("!Join [',', !Split ['.', a.b.c]]", "a,b,c"),
        ("!Join [',', [a, !Ref AWS::NoValue, b]]", "a,b"),
        ("!Select [1, [a, b]]", "b"),
        ("!Select ['2', !Ref Names]", "c"),
        ("!Select [!Ref Count, [a, b, c]]", "c"),
        ("!Split [',', 'a,b']", ["a", "b"]),
        ("!Base64 'hä'", base64.b64encode("hä".encode()).decode()),
        ("!FindInMap [Sizes, !Ref Stage, memory]", 128),
        ("!FindInMap [Sizes, dev, zones]", ["x", "y"]),
        ("!FindInMap [Sizes, test, memory, {DefaultValue: !Ref Count}]", "2"),
        ("!If [IsDev, yes-it-is, no-it-is-not]", "yes-it-is"),
        ("!If [IsProd, a, !If [Both, b, c]]", "b"),
        ("!If [Neither, a, b]", "b"),
        ("!If [IsProd, a, !Ref AWS::NoValue]", None),
        ("[!If [IsProd, a, !Ref AWS::NoValue], b]", ["b"]),
        ("{a: !If [IsProd, a, !Ref AWS::NoValue], b: 1}", {"b": 1}),
        ("!GetAZs ''", ["us-east-1a", "us-east-1b", "us-east-1c"]),
        ("{'Fn::GetAZs': !Ref AWS::Region}", ["us-east-1a", "us-east-1b", "us-east-1c"]),
        ("{'Fn::GetAZs': null}", ["us-east-1a", "us-east-1b", "us-east-1c"]),
        ("!GetAZs eu-west-1", ["eu-west-1a", "eu-west-1b", "eu-west-1c"]),
        ("!Cidr [10.0.0.0/16, 2, 8]", ["10.0.0.0/24", "10.0.1.0/24"]),
        ("!Cidr [10.0.0.0/24, 1]", ["10.0.0.0/24"]),
        ("{'Fn::Length': !Ref Names}", 3),
        ("!ToJsonString {a: !Ref Count, b: [1, true]}", '{"a":"2","b":[1,true]}'),
        ("!ImportValue shared-table", "shared-table"),
    ],
)
def test_functions_give_what_cloudformation_gives(tmp_path: Path, expression: str, value: object) -> None:
    """Each intrinsic function, in its short and long forms and in one another, has CloudFormation's value."""
    if value is TemplateError:
        with pytest.raises(TemplateError):
            value_of(tmp_path, expression, rest=REST)
    else:
        assert value_of(tmp_path, expression, rest=REST) == value


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("!Ref Stagee", "expected the name of a parameter or resource, got 'Stagee'; did you mean Stage?"),
        ("!GetAtt Que.Arn", "expected the name of a parameter or resource, got 'Que'; did you mean Queue?"),
        ("!GetAtt Queue.Ann", "expected an attribute of Queue (AWS::SQS::Queue; it has Arn, QueueName, QueueUrl)"),
        ("!GetAtt Queue", "expected Fn::GetAtt of a resource's name and an attribute"),
        ("!Sub '${Nothing}'", "got 'Nothing'"),
        ("!Sub '${a b}'", "expected a name in Fn::Sub, got ${a b}; write ${!a b} to keep it"),
        ("!Sub '${Names}'", "expected text for ${Names} in Fn::Sub"),
        ("!Sub [a]", "expected Fn::Sub of [text, mapping of names to values]"),
        ("!Sub {a: b}", "expected Fn::Sub of a text"),
        ("!Join [a, b]", 'expected a list in Fn::Join, got "b"'),
        ("!Join [',', [{a: 1}]]", "expected text, got a mapping"),
        ("!Join [',']", "expected Fn::Join of [delimiter, list]"),
        ("!Select [3, [a]]", "expected an index into 1 elements in Fn::Select, got 3"),
        ("!Select [x, [a]]", "expected an index into 1 elements in Fn::Select, got x"),
        ("!Split ['', a]", "expected a delimiter in Fn::Split"),
        (
            "!FindInMap [Sizes, prod, memory]",
            "expected a key of Mappings.Sizes in Fn::FindInMap, got 'prod'; it has dev",
        ),
        ("!FindInMap [Sizs, dev, memory]", "expected a key of Mappings in Fn::FindInMap, got 'Sizs'"),
        ("!If [Never, a, b]", "expected one of the template's Conditions, got 'Never'"),
        ("!If [[a], a, b]", "expected a condition's name in Fn::If"),
        ("!Cidr [10.0.0.0/30, 8, 1]", "expected room for 8 blocks of 1 bits"),
        ("!Cidr [nowhere, 1, 1]", "expected an address block"),
        ("{'Fn::Sub': a, b: c}", "expected an intrinsic function on its own, got Fn::Sub: it stands beside other keys"),
        ("{'Fn::Subb': a}", "there is no such function"),
    ],
)
def test_a_misused_function_is_an_error_at_its_line(tmp_path: Path, expression: str, what: str) -> None:
    """What a function cannot do is said in one sentence, at the line where it stands."""
    failure = failure_of(tmp_path, f"{REST}Outputs:\n  It:\n    Value: {expression}\n")
    assert what in failure.what
    assert failure.line == REST.count("\n") + 3


@pytest.mark.parametrize(
    ("conditions", "what"),
    [
        ("A: !Not [!Condition B]\n  B: !Not [!Condition A]", "the condition A depends on itself"),
        ("A: !Condition A", "the condition A depends on itself"),
        (
            "A: !Condition Bee\n  Be: !Equals [1, 1]",
            "expected one of the template's Conditions, got 'Bee'; did you mean Be?",
        ),
        ("A: !And []", "expected Fn::And of a list of conditions"),
        ("A: maybe", "expected a condition that is true or false, got 'maybe'"),
        ("A: !Equals [1]", "expected Fn::Equals of [one, other]"),
        ("A: !Equals [!Ref T, x]", "got the resource 'T': there are none yet here"),
        ("A: !Equals [!GetAtt T.TopicName, x]", "got the resource 'T': there are none yet here"),
        ("A: !Equals [!Ref Ts, x]", "expected the name of a parameter, got 'Ts'"),
    ],
)
def test_conditions_that_cannot_be_decided_are_errors(tmp_path: Path, conditions: str, what: str) -> None:
    """A condition without end, of an unknown name or of the wrong shape is an error."""
    text = f"Conditions:\n  {conditions}\nResources:\n  T: {{Type: AWS::SNS::Topic, Condition: A}}\n"
    assert what in failure_of(tmp_path, text).what


@pytest.mark.parametrize(("one", "other"), [("true", "'true'"), ("1", "'1'"), ("[a]", "[a]"), ("1.5", "'1.5'")])
def test_equals_compares_what_is_written(tmp_path: Path, one: str, other: str) -> None:
    """A boolean or number equals the text that it is written as, since parameters are text."""
    rest = f"Conditions: {{C: !Equals [{one}, {other}]}}\nResources: {{T: {{Type: AWS::SNS::Topic}}}}"
    assert value_of(tmp_path, "!If [C, same, other]", rest=rest) == "same"


def test_an_import_is_named_unless_it_is_given(tmp_path: Path) -> None:
    """What another stack exports is its name as text, which is said; `import:NAME` gives it a value."""
    text = REST + "Outputs:\n  It:\n    Value: !ImportValue network-id\n"
    stack = stack_of(tmp_path, text)
    assert stack.outputs == {"It": "network-id"}
    assert "--parameter import:network-id=VALUE" in meaning_of(stack, "network-id")
    given_it = stack_of(tmp_path, text, parameters={"import:network-id": "n-1"})
    assert given_it.outputs == {"It": "n-1"}
    assert given_it.unsupported == ()


def test_a_macro_in_the_template_is_named_and_left_out(tmp_path: Path) -> None:
    """A macro that runs on AWS is named, and what it stands for is not there."""
    text = REST + "Outputs:\n  It:\n    Value: {a: 1, b: !Transform {Name: Mine}}\n"
    stack = stack_of(tmp_path, "Transform: [Other]\n" + text)
    assert stack.outputs == {"It": {"a": 1}}
    assert "runs on AWS only" in meaning_of(stack, "Mine")
    assert "runs on AWS only" in meaning_of(stack, "Other")


def scope(parameters: dict[str, str | list[str]] | None = None) -> Scope:
    """Names without any resource."""
    document = {"Parameters": {name: {"Type": "String"} for name in parameters or {}}}
    return Scope(
        document, path=Path("t"), surroundings=Surroundings(), parameters=parameters or {}, given={}, unsupported=[]
    )


_WORDS = st.text(st.characters(exclude_characters="|${}", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(_WORDS, min_size=1, max_size=6))
@settings(deadline=None)
def test_splitting_undoes_joining(words: list[str]) -> None:
    """Fn::Split of what Fn::Join made is what was joined, where the delimiter is in none of it."""
    assert scope().resolve({"Fn::Split": ["|", {"Fn::Join": ["|", words]}]}) == words


@given(st.lists(_WORDS, min_size=1, max_size=6), st.data())
@settings(deadline=None)
def test_selecting_takes_one_of_the_list(words: list[str], data: st.DataObject) -> None:
    """Fn::Select of each index is the element there, whether the index is a number or text."""
    index = data.draw(st.integers(0, len(words) - 1))
    assert scope().resolve({"Fn::Select": [index, words]}) == words[index]
    assert scope().resolve({"Fn::Select": [str(index), words]}) == words[index]


@given(_WORDS, _WORDS)
@settings(deadline=None)
def test_sub_and_join_say_the_same(before: str, value: str) -> None:
    """`${X}` in a text is X joined into it, and nothing in the value is a variable again."""
    text = value + "${Y}"
    names = scope({"X": text})
    assert names.resolve({"Fn::Sub": f"{before}${{X}}"}) == names.resolve({"Fn::Join": ["", [before, {"Ref": "X"}]]})


@given(st.integers(0, 2**32 - 1), st.integers(16, 24), st.integers(1, 5), st.integers(3, 8))
@settings(deadline=None)
def test_address_blocks_lie_within_their_block(address: int, prefix: int, count: int, bits: int) -> None:
    """Fn::Cidr gives as many blocks as are asked for, of that size, next to one another, inside of the whole."""
    whole = ipaddress.ip_network((address, prefix), strict=False)
    if whole.num_addresses < count * 2**bits:
        return
    blocks = [ipaddress.ip_network(one) for one in scope().resolve({"Fn::Cidr": [str(whole), count, bits]})]
    assert [int(one.network_address) - int(whole.network_address) for one in blocks] == [
        n * 2**bits for n in range(count)
    ]
    assert all(one.subnet_of(whole) for one in blocks)


@given(st.binary(max_size=30).map(lambda raw: raw.hex()))
@settings(deadline=None)
def test_base64_can_be_decoded(text: str) -> None:
    """Fn::Base64 is what decodes to the text."""
    assert base64.b64decode(scope().resolve({"Fn::Base64": text})).decode() == text


_NAMES = _WORDS.filter(lambda word: word != "Ref" and not word.startswith("Fn::"))
"""Of nothing that would be a function, which hypothesis finds in the source and tries."""

_PLAIN = st.recursive(
    st.booleans() | st.integers() | _WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=15,
)


@given(_PLAIN)
@settings(deadline=None)
def test_what_has_no_function_stays_as_it_is(value: object) -> None:
    """Plain values come back equal, and what is no value leaves lists and mappings without a trace."""
    names = scope()
    assert names.resolve(value) == value
    assert names.resolve([value, None, {"Ref": "AWS::NoValue"}]) == [value]
    assert names.resolve({"it": value, "not": {"Ref": "AWS::NoValue"}}) == {"it": value}
    assert names.resolve({"Ref": "AWS::NoValue"}) is ABSENT
