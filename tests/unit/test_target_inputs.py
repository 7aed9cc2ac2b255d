"""What a rule's target gets of an event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hubbub.emulator.sources.inputs import InputInvalid, TargetInput

EVENT = {
    "time": "2026-01-01T00:00:00Z",
    "resources": ["arn:one", "arn:two"],
    "detail": {"state": "on", "n": 3, "words": 'a "b"'},
}
VARIABLES = {"aws.events.rule-name": "nightly"}


def made(**properties: Any) -> Any:
    return json.loads(TargetInput(properties).of(EVENT, VARIABLES))


def transformed(template: str, **paths: str) -> Any:
    return made(InputTransformer={"InputPathsMap": paths, "InputTemplate": template})


def test_without_a_word_about_it_a_target_gets_the_event() -> None:
    """A target gets the whole event by default."""
    assert made() == EVENT


@pytest.mark.parametrize(
    ("path", "expected"), [("$.detail", EVENT["detail"]), ("$.resources[1]", "arn:two"), ("$.no", None)]
)
def test_a_path_picks_a_part(path: str, expected: Any) -> None:
    """An InputPath is the part of the event that the target gets; null where there is none."""
    assert made(InputPath=path) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{"s": <state>, "n": <n>}', {"s": "on", "n": 3}),
        ('{"s": "is <state>, <n>"}', {"s": "is on, 3"}),
        ('{"s": "<words>"}', {"s": 'a "b"'}),
        ('{"s": "\\"<state>\\""}', {"s": '"on"'}),
        ('{"s": "<detail>"}', {"s": json.dumps(EVENT["detail"])}),
        ('{"s": "x<missing>y"}', {"s": "xy"}),
        ('"the state is <state>"', "the state is on"),
        ("the state is <state>", 'the state is "on"'),
        ('{"rule": <aws.events.rule-name>}', {"rule": "nightly"}),
        ('{"all": <aws.events.event.json>}', {"all": EVENT}),
        ('{"e": <aws.events.event>}', {"e": {"time": EVENT["time"], "resources": EVENT["resources"]}}),
    ],
)
def test_a_template_has_parts_of_the_event_in_it(template: str, expected: Any) -> None:
    """A placeholder stands for JSON, and within quotes for text; a text that is no JSON becomes a JSON string."""
    paths = {"state": "$.detail.state", "n": "$.detail.n", "words": "$.detail.words", "missing": "$.detail.missing"}
    assert transformed(template, detail="$.detail", **paths) == expected


@pytest.mark.parametrize(
    "properties",
    [{"InputPath": "$.["}, {"InputTransformer": {"InputPathsMap": {"a": "$.["}, "InputTemplate": "<a>"}}],
)
def test_a_path_that_is_none_is_refused(properties: dict[str, Any]) -> None:
    """A path that cannot be read is refused before there is an event."""
    with pytest.raises(InputInvalid, match="expected a JSONPath"):
        TargetInput(properties)


def test_a_transformer_needs_a_template() -> None:
    """An InputTransformer without its template is refused."""
    with pytest.raises(InputInvalid, match="InputTemplate"):
        TargetInput({"InputTransformer": {"InputPathsMap": {"a": "$.a"}}})
