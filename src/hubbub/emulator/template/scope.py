"""What names mean in one template, resources aside: its parameters, mappings and conditions, and pseudo parameters."""

from __future__ import annotations

import difflib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from hubbub.emulator.definition import Surroundings, Unsupported
from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.intrinsics import ABSENT, FUNCTIONS, as_text
from hubbub.emulator.template.parameters import is_looked_up
from hubbub.emulator.template.source import Located, Value, line_of

SECTIONS: Final = ("Parameters", "Mappings", "Conditions", "Resources", "Outputs")

_DYNAMIC = re.compile(r"\{\{(resolve:(ssm|ssm-secure|secretsmanager):([^{}]+))\}\}")


class Scope:
    """One template's names, and the values of what is written with them.

    What AWS would look up elsewhere can be given: `parameters` with keys such as `resolve:ssm:/name`, which is what a
    dynamic reference has between its braces, or `import:NAME` for the export of another stack.

    Attributes:
        path: the file, for errors; local paths are relative to its folder.
        document: the whole template.
        surroundings: what pseudo parameters are made of.
        prefix: what logical ids are shown with: empty but for nested stacks.
        parameters: values by name.
        given: what was given, the above and what else AWS would look up.
        unsupported: what was met and cannot be done; shared with nested stacks.

    """

    def __init__(
        self,
        document: Mapping[str, Value],
        *,
        path: Path,
        surroundings: Surroundings,
        parameters: Mapping[str, str | list[str]],
        given: Mapping[str, str],
        unsupported: list[Unsupported],
        prefix: str = "",
    ) -> None:
        self.path = path
        self.document = document
        self.surroundings = surroundings
        self.prefix = prefix
        self.parameters = parameters
        self.given = given
        self.unsupported = unsupported
        self._truths: dict[str, bool | None] = {}  # conditions by name; None while one is being found out
        self.is_deciding = False  # whether a condition is being found out, which knows no resource
        stack = f"{surroundings.stack_name}/{uuid.uuid5(uuid.NAMESPACE_DNS, surroundings.stack_name)}"
        self._pseudo: dict[str, Value] = {
            "AWS::AccountId": surroundings.account,
            "AWS::NoValue": ABSENT,
            "AWS::NotificationARNs": [],
            "AWS::Partition": "aws",
            "AWS::Region": surroundings.region,
            "AWS::StackId": f"arn:aws:cloudformation:{surroundings.region}:{surroundings.account}:stack/{stack}",
            "AWS::StackName": surroundings.stack_name,
            "AWS::URLSuffix": "amazonaws.com",
        }

    def section(self, name: str) -> Mapping[str, Value]:
        """One of the template's sections; empty where it is absent or left empty.

        Raises:
            TemplateError: it is no mapping.

        """
        found = self.document.get(name)
        if found is None:
            return {}
        if not isinstance(found, Mapping):
            raise self.error(line_of(self.document, name), f"expected a mapping as {name}, got {_kind(found)}")
        return found

    def error(self, line: int | None, what: str) -> TemplateError:
        """An error in this template."""
        return TemplateError(self.path, line, what)

    def note(self, logical_id: str, type_: str, meaning: str) -> None:
        """Name once what cannot be done here."""
        found = Unsupported(logical_id=self.prefix + logical_id, type=type_, meaning=meaning)
        if found not in self.unsupported:
            self.unsupported.append(found)

    def resolve(self, value: Value, line: int | None = None) -> Value:
        """A value without intrinsic functions; ABSENT where it is `AWS::NoValue`, which lists and mappings drop.

        Raises:
            TemplateError: a function is not used as it must be, or names what there is not.

        """
        if isinstance(value, str):
            return self._looked_up(value, line) if "{{resolve:" in value else value
        if isinstance(value, list):
            return [made for item in value if (made := self.resolve(item, line)) is not ABSENT]
        if isinstance(value, Mapping):
            return self._resolved_mapping(value, line_of(value) or line)
        return ABSENT if value is None else value

    def _resolved_mapping(self, value: Mapping[str, Value], line: int | None) -> Value:
        name = next(iter(value), "")
        if len(value) == 1 and name in FUNCTIONS:
            made = FUNCTIONS[name](self, value[name], line_of(value, name) or line)
            return self._looked_up(made, line) if isinstance(made, str) and "{{resolve:" in made else made
        made = {}
        for key, item in value.items():
            at = line_of(value, key) or line
            if key.startswith("Fn::"):
                hint = "it stands beside other keys" if key in FUNCTIONS else "there is no such function"
                raise self.error(at, f"expected an intrinsic function on its own, got {key}: {hint}")
            resolved = self.resolve(item, at)
            if resolved is not ABSENT:
                made[key] = resolved
        return Located.at(line, made, dict(getattr(value, "lines", {}))) if line else made

    def text(self, value: Value, line: int | None = None) -> str:
        """A value without intrinsic functions, as text.

        Raises:
            TemplateError: it is a list or a mapping.

        """
        made = as_text(self.resolve(value, line))
        if made is None:
            raise self.error(line_of(value) or line, f"expected text, got {_kind(value)}")
        return made

    def holds(self, name: str, line: int | None = None) -> bool:
        """Whether a condition holds.

        Raises:
            TemplateError: there is none of that name, or it depends on itself.

        """
        conditions = self.section("Conditions")
        if name not in conditions:
            hint = closest(name, conditions)
            raise self.error(line, f"expected one of the template's Conditions, got {name!r}{hint}")
        at = line_of(conditions, name)
        if name not in self._truths:
            self._truths[name] = None
            was_deciding, self.is_deciding = self.is_deciding, True
            self._truths[name] = self.truth(conditions[name], at)
            self.is_deciding = was_deciding
        truth = self._truths[name]
        if truth is None:
            raise self.error(at, f"the condition {name} depends on itself")
        return truth

    def truth(self, value: Value, line: int | None = None) -> bool:
        """Whether what stands in a condition is true: a condition function, a condition's name, or a value.

        Raises:
            TemplateError: it is neither true nor false.

        """
        line = line_of(value) or line
        if isinstance(value, Mapping) and len(value) == 1 and "Condition" in value:
            named = value["Condition"]  # which the SAM translator puts into one another
            return self.holds(named, line) if isinstance(named, str) else self.truth(named, line)
        made = as_text(self.resolve(value, line))
        if made not in ("true", "false"):
            raise self.error(line, f"expected a condition that is true or false, got {made!r}")
        return made == "true"

    def reference(self, name: str, line: int | None) -> Value:
        """What `Ref` is.

        Raises:
            TemplateError: nothing has that name, or what has it is a resource, and this is needed before there are any.

        """
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self.parameters:
            self._say_if_looked_up(name)
            return self.parameters[name]
        if name in self.section("Resources"):
            raise self._too_early(name, line)
        known = [*self.parameters, *self._pseudo]
        raise self.error(line, f"expected the name of a parameter, got {name!r}{closest(name, known)}")

    def _too_early(self, name: str, line: int | None) -> TemplateError:
        return self.error(line, f"expected the name of a parameter, got the resource {name!r}: there are none yet here")

    def _say_if_looked_up(self, name: str) -> None:
        """Name a parameter whose value is its default here, and on AWS what the parameter store has of that name."""
        kind = str(self.section("Parameters")[name].get("Type"))
        if is_looked_up(kind) and name not in self.given:
            default = self.parameters[name]
            self.note(
                name,
                kind,
                f"AWS reads it from the parameter store; here it is its default, {default!r}, unless you give "
                f"--parameter {name}=VALUE",
            )

    def attribute(self, logical_id: str, name: str, line: int | None) -> Value:
        """What `Fn::GetAtt` is.

        Raises:
            TemplateError: there is no such resource, or it has no such attribute.

        """
        raise self._too_early(logical_id, line)

    def stored(self, service: str, name: str) -> str | None:
        """The value of a parameter (`ssm`) or secret (`secretsmanager`) of this template; None where it has none."""
        return None

    def _looked_up(self, text: str, line: int | None) -> str:
        """A text whose dynamic references are what they stand for, where that is known."""
        return _DYNAMIC.sub(lambda found: self._dynamic(found, line), text)

    def _dynamic(self, found: re.Match[str], line: int | None) -> str:
        key, service, rest = found[1], found[2], found[3]
        if key in self.given:
            return self.given[key]
        name, json_key = _secret_parts(rest) if service == "secretsmanager" else (rest.split(":")[0], "")
        value = self.stored("ssm" if service.startswith("ssm") else service, name)
        if value is not None and json_key:
            value = _member(value, json_key)
        if value is None:
            self.note(
                f"{{{{{key}}}}}",
                f"{service} reference",
                f"nothing in the template holds it, so the text stays as it is; give --parameter {key}=VALUE",
            )
            return found[0]
        return value


def closest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for what is written almost like one of those known, else nothing."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _secret_parts(rest: str) -> tuple[str, str]:
    """A secret's id, which is a name or an ARN, and the key in its JSON; empty for the whole secret."""
    parts = rest.split(":")
    length = 7 if parts[0] == "arn" else 1
    return ":".join(parts[:length]), parts[length + 1] if len(parts) > length + 1 else ""


def _member(text: str, key: str) -> str | None:
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return None
    return as_text(document.get(key)) if isinstance(document, dict) else None


def _kind(value: Value) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(value)
