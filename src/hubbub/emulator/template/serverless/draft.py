"""A CloudFormation template in the making, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubbub.emulator.definition import Unsupported

Document = dict[str, Any]
"""A piece of CloudFormation."""


class Draft:
    """A template, the folders of its code and what is not done here.

    Attributes:
        resources, outputs: by logical id.
        code: folders or archives of functions and layers by logical id.
        unsupported: what was left out, and what that means.

    """

    def __init__(self) -> None:
        self.resources: dict[str, Document] = {}
        self.outputs: dict[str, Document] = {}
        self.code: dict[str, Path] = {}
        self.unsupported: list[Unsupported] = []

    def put(self, logical_id: str, kind: str, properties: Document, **more: object) -> None:
        """Set a resource; properties and further keys that are None are left out."""
        resource: Document = {"Type": kind, "Properties": present(properties)}
        self.resources[logical_id] = resource | present(more)

    def name(self, logical_id: str, kind: str, meaning: str) -> None:
        """Say what is not done here; once."""
        entry = Unsupported(logical_id=logical_id, type=kind, meaning=meaning)
        if entry not in self.unsupported:
            self.unsupported.append(entry)


def present(properties: Document) -> Document:
    """Those that are not None."""
    return {key: value for key, value in properties.items() if value is not None}


def ref(logical_id: str) -> Document:
    """What a resource is referred to by."""
    return {"Ref": logical_id}


def arn_of(logical_id: str) -> Document:
    """A resource's ARN."""
    return {"Fn::GetAtt": [logical_id, "Arn"]}


def join(*parts: object, by: str = "") -> Document:
    """The parts as one string."""
    return {"Fn::Join": [by, list(parts)]}
