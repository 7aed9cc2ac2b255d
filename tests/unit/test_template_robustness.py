from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest

from hubbub.emulator.definition import Surroundings
from hubbub.emulator.template import TemplateError, stack_from_template
from hubbub.emulator.template.source import Value, read_document
from templatelab import TEMPLATES

SAMPLES = (
    TEMPLATES / "sam-classic" / "template.yaml",
    TEMPLATES / "cfn-services" / "template.json",
    TEMPLATES / "nested" / "template.yaml",
    TEMPLATES / "cdk-out" / "ChatStack.template.json",
    TEMPLATES / "sam-chat" / "template.yaml",
)

WRONG: tuple[Value, ...] = (
    *(None, [], {}, 5, -1.5, "", "x", True, ["a"], {"a": 1}, [[]], [None], {"": ""}, "{{resolve:ssm:x}}"),
    *({"Ref": "zzz"}, {"Ref": ["x"]}, {"Ref": None}, {"Ref": "AWS::NoValue"}, {"Fn::Sub": "${zzz}"}),
    *(
        {"Fn::GetAtt": [1, 2]},
        {"Fn::GetAtt": {}},
        {"Fn::If": ["a"]},
        {"Fn::ForEach::a": 1},
        {"Condition": {"Condition": 1}},
    ),
    {"Fn::Transform": {"Name": "AWS::Include"}},
)

BREAKS = 60
"""How many times each sample is broken; with thousands of them nothing else was found."""


def places(node: Value) -> list[tuple[Value, Value]]:
    """Each place in a document: what holds it, and its key or index."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
    return [(node, key) for key in keys] + [place for key in keys for place in places(node[key])]


@pytest.mark.slow
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.parent.name)
def test_a_broken_template_is_a_stack_or_an_error_and_nothing_else(sample: Path, tmp_path: Path) -> None:
    """Whatever stands in whatever place of a template, it loads or is a TemplateError with the template's file."""
    chance = random.Random(sample.parent.name)
    document = read_document(sample)
    refused = 0
    for _ in range(BREAKS):
        broken = copy.deepcopy(document)
        holder, key = chance.choice(places(broken))
        holder[key] = chance.choice(WRONG)
        try:
            stack_from_template(
                broken,
                path=sample,
                language="cloudformation",
                surroundings=Surroundings(api_hosts=("127.0.0.1:1",)),
                work=tmp_path / "work",
            )
        except TemplateError as failure:
            refused += 1
            assert failure.what
            assert failure.path.is_relative_to(TEMPLATES)
    assert 0 < refused < BREAKS
