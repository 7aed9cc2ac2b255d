"""What a rule's target gets of an event: all of it, a part of it, or a text with parts of it inserted.

Source: docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from hubbub.apigateway.jsonpath import MISSING, PathError, read_path

Event = dict[str, Any]
"""An event of EventBridge. Any: JSON."""

_PLACEHOLDER = re.compile(r"<([\w.-]+)>")


class InputInvalid(ValueError):
    """What is to be made of events cannot be; the message says what was expected."""


class TargetInput:
    """What a target gets. Raises `InputInvalid`.

    Args:
        properties: of the target: `InputPath`, or `InputTransformer` with `InputPathsMap` and `InputTemplate`; neither
            for whole events.

    """

    def __init__(self, properties: Mapping[str, Any]) -> None:  # Any: CloudFormation's properties
        transformer = properties.get("InputTransformer") or {}
        paths = transformer.get("InputPathsMap") or {}
        self._template: str | None = transformer.get("InputTemplate")
        try:
            self._paths = {str(name): read_path(str(path)) for name, path in paths.items()}
            self._path = read_path(str(properties["InputPath"])) if properties.get("InputPath") else None
        except PathError as error:
            raise InputInvalid(f"expected a JSONPath in what its target gets: {error}") from None
        if transformer and not isinstance(self._template, str):
            raise InputInvalid("expected an InputTemplate in its InputTransformer")

    def of(self, event: Event, variables: Mapping[str, str]) -> str:
        """The payload for an event, as JSON.

        Args:
            event: the event.
            variables: EventBridge's own, such as `aws.events.rule-arn`.

        """
        if self._template is not None:
            return self._filled(self._template, event, variables)
        if self._path is None:
            return json.dumps(event)
        found = self._path.find(event)
        return json.dumps(None if found is MISSING else found)

    def _filled(self, template: str, event: Event, variables: Mapping[str, str]) -> str:
        """The template with its placeholders replaced; a text that is no JSON then is a JSON string.

        A value stands as JSON, and within quotes as it reads; what is not in the event leaves nothing behind.
        """
        values: dict[str, Any] = {name: path.find(event) for name, path in self._paths.items()}  # Any: JSON
        values |= variables
        values["aws.events.event.json"] = event
        values["aws.events.event"] = {name: value for name, value in event.items() if name != "detail"}

        def inserted(placeholder: re.Match[str]) -> str:
            value = values.get(placeholder[1], MISSING)
            if value is MISSING:
                return ""
            if not _is_quoted(template, placeholder.start()):
                return json.dumps(value)
            return json.dumps(value if isinstance(value, str) else json.dumps(value))[1:-1]

        text = _PLACEHOLDER.sub(inserted, template)
        try:
            json.loads(text)
        except ValueError:
            return json.dumps(text)
        return text


def _is_quoted(text: str, position: int) -> bool:
    """Whether a position is within a JSON string."""
    return len(re.findall(r'(?<!\\)"', text[:position])) % 2 == 1
