"""A resource as its template declares it: its properties, resolved when they are asked for, and as what is expected."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.intrinsics import ABSENT, as_text
from hubbub.emulator.template.source import Value, line_of

if TYPE_CHECKING:
    from hubbub.emulator.template.resources import Template

_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


class Declared:
    """One resource of one template.

    Attributes:
        template: which that is.
        logical_id: its name in it.
        type: such as `AWS::Lambda::Function`.
        raw: its properties as they are written.
        metadata: its `Metadata`, as it is written.
        depends_on: logical ids.
        line: where it stands; None where that is not known.

    """

    def __init__(self, template: Template, logical_id: str, body: Mapping[str, Value], line: int | None) -> None:
        self.template = template
        self.logical_id = logical_id
        self.line = line
        self.type = self._typed(body)
        self.raw: Mapping[str, Value] = self._mapping(body, "Properties")
        self.metadata: Mapping[str, Value] = self._mapping(body, "Metadata")
        self.depends_on = self._named(body.get("DependsOn") or [])

    def _typed(self, body: Mapping[str, Value]) -> str:
        found = body.get("Type")
        if not isinstance(found, str):
            raise self.error(None, f"expected a Type such as AWS::Lambda::Function, got {found!r}")
        return found

    def _named(self, depends_on: Value) -> tuple[str, ...]:
        listed = depends_on if isinstance(depends_on, list) else [depends_on]
        if not all(isinstance(one, str) for one in listed):
            raise self.error(None, f"expected logical ids as its DependsOn, got {depends_on!r}")
        return tuple(listed)

    def _mapping(self, body: Mapping[str, Value], key: str) -> Mapping[str, Value]:
        found = body.get(key)
        if found is None:
            return {}
        if not isinstance(found, Mapping):
            raise self.template.error(
                line_of(body, key) or self.line, f"{self.logical_id}: expected a mapping as its {key}, got {found!r}"
            )
        return found

    def __repr__(self) -> str:
        return f"<{self.type} {self.logical_id}>"

    @property
    def shown_id(self) -> str:
        """Its logical id, after those of the nested stacks that it stands in."""
        return self.template.prefix + self.logical_id

    def error(self, key: str | None, what: str) -> TemplateError:
        """An error in it, at one of its properties where that is said."""
        line = (line_of(self.raw, key) if key else None) or self.line
        return self.template.error(line, f"{self.logical_id}: {what}")

    def note(self, meaning: str) -> None:
        """Name what it asks for that is not done here."""
        self.template.note(self.logical_id, self.type, meaning)

    def get(self, key: str, default: Value = None) -> Value:
        """A property without intrinsic functions; `default` where it is absent.

        Raises:
            TemplateError: it cannot be resolved.

        """
        found = self.template.property_of(self, key)
        return default if found is ABSENT else found

    def properties(self) -> dict[str, Value]:
        """All of them, without intrinsic functions."""
        found = {key: self.template.property_of(self, key) for key in self.raw}
        return {key: value for key, value in found.items() if value is not ABSENT}

    def text(self, key: str, default: str | None = None) -> str:
        """A property as text.

        Raises:
            TemplateError: it is absent and has no default, or is a list or a mapping.

        """
        found = self.get(key, default)
        made = as_text(found)
        if made is None:
            raise self.error(key, f"expected text as its {key}, got {'nothing' if found is None else repr(found)}")
        return made

    def number(self, key: str, default: float) -> float:
        """A property as a number.

        Raises:
            TemplateError: it is none.

        """
        found = self.text(key, str(default))
        try:
            return float(found)
        except ValueError as failure:
            raise self.error(key, f"expected a number as its {key}, got {found!r}") from failure

    def flag(self, key: str, default: bool = False) -> bool:
        """A property as a boolean.

        Raises:
            TemplateError: it is none.

        """
        found = self.text(key, str(default)).lower()
        if found not in ("true", "false"):
            raise self.error(key, f"expected true or false as its {key}, got {found!r}")
        return found == "true"

    def mapping(self, key: str) -> dict[str, Value]:
        """A property as a mapping; empty where it is absent.

        Raises:
            TemplateError: it is something else.

        """
        found = self.get(key, {})
        if not isinstance(found, dict):
            raise self.error(key, f"expected a mapping as its {key}, got {found!r}")
        return found

    def listed(self, key: str) -> list[Value]:
        """A property as a list; empty where it is absent, and of one element where there is just that.

        Raises:
            TemplateError: it is a mapping.

        """
        found = self.get(key, [])
        if isinstance(found, dict):
            raise self.error(key, f"expected a list as its {key}, got {found!r}")
        return found if isinstance(found, list) else [found]

    def texts(self, key: str) -> dict[str, str]:
        """A property as a mapping of names to text.

        Raises:
            TemplateError: it is something else.

        """
        made = {}
        for name, value in self.mapping(key).items():
            text = as_text(value)
            if text is None:
                raise self.error(key, f"expected text as {name} in its {key}, got {value!r}")
            made[name] = text
        return made

    def generated_name(self, limit: int = 64, suffix: str = "") -> str:
        """What it is called where the template leaves that open: the stack's name and its own.

        AWS adds random letters; here the name is the same at each start.
        """
        name = f"{self.template.surroundings.stack_name}-{self.logical_id}"
        if len(name) + len(suffix) > limit:
            name = f"{name[: limit - 9 - len(suffix)]}-{self.generated_id(8)}"
        return name + suffix

    def generated_id(self, length: int, letters: str = _ID_LETTERS) -> str:
        """An id that AWS would choose: of stack and logical id alone, so the same at each start."""
        seed = f"{self.template.surroundings.stack_name}/{self.type}/{self.logical_id}"
        number = int.from_bytes(hashlib.sha512(seed.encode()).digest(), "big")
        made = ""
        for _ in range(length):
            number, index = divmod(number, len(letters))
            made += letters[index]
        return made

    def arn(self, service: str, resource: str) -> str:
        """An ARN of the surroundings' region and account."""
        around = self.template.surroundings
        return f"arn:aws:{service}:{around.region}:{around.account}:{resource}"
