"""One template's resources: those whose condition holds, what they return to one another, and what depends on what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hubbub.emulator.definition import Surroundings, Unsupported
from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.intrinsics import ABSENT, MadeUp
from hubbub.emulator.template.returns import Returned, is_known, returned
from hubbub.emulator.template.sam import LocalPath
from hubbub.emulator.template.scope import Scope, closest
from hubbub.emulator.template.secrets import secret_text
from hubbub.emulator.template.source import Value, line_of

NESTED = "AWS::CloudFormation::Stack"

Nested = Callable[[Declared], "Template | None"]
"""Reads the template of a nested stack; None for one that is not on this machine."""


class Template(Scope):
    """A template with its resources; everything that is asked for is resolved then, and once.

    Attributes:
        resources: by logical id, in the template's order, without those whose condition does not hold.
        paths: local paths by what stands for them after the SAM transform.

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
        hosts: dict[str, str],
        nested: Nested,
        paths: Mapping[str, LocalPath],
        prefix: str = "",
    ) -> None:
        super().__init__(
            document,
            path=path,
            surroundings=surroundings,
            parameters=parameters,
            given=given,
            unsupported=unsupported,
            prefix=prefix,
        )
        self.paths = paths
        self.resources = dict(self._declared())
        self._properties: dict[tuple[str, str], Value] = {}
        self._open: list[tuple[str, str]] = []  # properties that are being resolved, outermost first
        self._returned: dict[str, Returned] = {}
        self._needs: dict[str, set[str]] = defaultdict(set)  # what each resource refers to
        self._read_nested = nested
        self._nested: dict[str, Template | None] = {}
        self._hosts = hosts
        for declared in self.of_type("AWS::ApiGatewayV2::Api"):
            is_websocket = declared.get("ProtocolType") == "WEBSOCKET"
            free = surroundings.api_hosts if is_websocket else surroundings.http_hosts
            host = next((host for host in free if host not in hosts.values()), None)
            if host is not None:
                hosts[declared.shown_id] = host

    def _declared(self) -> Iterator[tuple[str, Declared]]:
        section = self.section("Resources")
        for logical_id, body in section.items():
            line = line_of(section, logical_id)
            if not isinstance(body, Mapping):
                raise self.error(line, f"{logical_id}: expected a mapping with a Type, got {body!r}")
            condition = body.get("Condition")
            if condition is None or self.holds(str(condition), line_of(body, "Condition")):
                yield logical_id, Declared(self, logical_id, body, line)

    def of_type(self, *types: str) -> list[Declared]:
        """The resources of these types, in the template's order."""
        return [declared for declared in self.resources.values() if declared.type in types]

    def api_host(self, api: Declared) -> str | None:
        """The `host:port` of an API on this machine; None where it has none."""
        return self._hosts.get(api.shown_id)

    def position(self, of: Declared, key: str) -> int:
        """The how-manieth of its type it is with that value of that property, from 1: versions are counted so."""
        value = of.get(key)
        same = [other for other in self.of_type(of.type) if value is not None and other.get(key) == value]
        return same.index(of) + 1 if of in same else 1

    def property_of(self, of: Declared, key: str) -> Value:
        """A property without intrinsic functions; ABSENT where there is none.

        Raises:
            TemplateError: it cannot be resolved, or depends on itself.

        """
        place = (of.logical_id, key)
        if place not in self._properties:
            if key not in of.raw:
                return ABSENT
            if place in self._open:
                circle = [*(logical_id for logical_id, _ in self._open[self._open.index(place) :]), of.logical_id]
                raise of.error(key, f"circular reference: {' -> '.join(dict.fromkeys(circle))} -> {circle[0]}")
            self._open.append(place)
            try:
                self._properties[place] = self.resolve(of.raw[key], line_of(of.raw, key) or of.line)
            finally:
                self._open.pop()
        return self._properties[place]

    def returned(self, of: Declared) -> Returned:
        """What a resource is called and returns."""
        if of.logical_id not in self._returned:
            self._returned[of.logical_id] = returned(of)
        return self._returned[of.logical_id]

    def reference(self, name: str, line: int | None) -> Value:
        """What `Ref` is: as in `Scope`, and a resource's."""
        if self.is_deciding or name in self._pseudo or name in self.parameters:
            return super().reference(name, line)
        return self.returned(self._referred(name, line)).ref

    def attribute(self, logical_id: str, name: str, line: int | None) -> Value:
        """What `Fn::GetAtt` is.

        Raises:
            TemplateError: there is no such resource, or it has no such attribute.

        """
        if self.is_deciding:
            return super().attribute(logical_id, name, line)
        of = self._referred(logical_id, line)
        if of.type == NESTED and name.startswith("Outputs."):
            return self._output(of, name.removeprefix("Outputs."), line)
        attributes = self.returned(of).attributes
        if name in attributes:
            return attributes[name]
        if is_known(of.type):
            has = ", ".join(attributes) or "none"
            raise self.error(line, f"expected an attribute of {logical_id} ({of.type}; it has {has}), got {name!r}")
        return MadeUp(f"{of.logical_id}.{name}")

    def _referred(self, logical_id: str, line: int | None) -> Declared:
        """The resource of that name, noted as what the one being resolved needs."""
        found = self.resources.get(logical_id)
        if found is None:
            if logical_id in self.section("Resources"):
                raise self.error(line, f"{logical_id} is referred to, and the condition that it has does not hold")
            known = [*self.parameters, *self.resources]
            hint = closest(logical_id, known)
            raise self.error(line, f"expected the name of a parameter or resource, got {logical_id!r}{hint}")
        if self._open:
            self._needs[self._open[-1][0]].add(logical_id)
        return found

    def stored(self, service: str, name: str) -> str | None:
        """The value of a parameter or secret of this template, by name, logical id or ARN; see `Scope.stored`."""
        if self.is_deciding:
            return None
        type_ = {"ssm": "AWS::SSM::Parameter", "secretsmanager": "AWS::SecretsManager::Secret"}[service]
        for of in self.of_type(type_):
            if any(logical_id == of.logical_id for logical_id, _ in self._open):
                continue  # its own properties cannot be made of its value
            made = self.returned(of)
            if name in (made.name, made.ref):
                return of.text("Value", "") if service == "ssm" else secret_text(of)
        return None

    def nested(self, of: Declared) -> Template | None:
        """The template of a nested stack; None where it is not on this machine."""
        if of.logical_id not in self._nested:
            self._nested[of.logical_id] = self._read_nested(of)
        return self._nested[of.logical_id]

    def _output(self, of: Declared, name: str, line: int | None) -> Value:
        inner = self.nested(of)
        if inner is None:
            return MadeUp(f"{of.logical_id}.Outputs.{name}")
        outputs = inner.outputs()
        if name not in outputs:
            has = ", ".join(outputs) or "none"
            raise self.error(
                line, f"expected an output of the nested stack {of.logical_id} (it has {has}), got {name!r}"
            )
        return outputs[name]

    def outputs(self) -> dict[str, Value]:
        """The values of the outputs whose condition holds, by name.

        Raises:
            TemplateError: one cannot be resolved, or has no Value.

        """
        made = {}
        section = self.section("Outputs")
        for name, body in section.items():
            line = line_of(section, name)
            if not isinstance(body, Mapping) or "Value" not in body:
                raise self.error(line, f"expected a mapping with a Value as the output {name}, got {body!r}")
            condition = body.get("Condition")
            if condition is None or self.holds(str(condition), line):
                made[name] = self.resolve(body["Value"], line)
        return {name: value for name, value in made.items() if value is not ABSENT}

    def resolve_all(self) -> None:
        """Resolve every property, and see that no resource depends on itself.

        Raises:
            TemplateError: one cannot be resolved, or there is a circle.

        """
        for of in self.resources.values():
            of.properties()
            for needed in of.depends_on:
                if needed not in self.section("Resources"):
                    hint = closest(needed, self.resources)
                    raise of.error(None, f"expected resources in its DependsOn, got {needed!r}{hint}")
        done: set[str] = set()
        for of in self.resources.values():
            self._follow(of.logical_id, [], done)

    def _follow(self, logical_id: str, path: list[str], done: set[str]) -> None:
        if logical_id in path:
            circle = path[path.index(logical_id) :]
            raise self.resources[circle[0]].error(
                None, f"circular dependency between resources: {' -> '.join([*circle, circle[0]])}"
            )
        if logical_id in done:
            return
        for needed in sorted(self._direct(logical_id)):
            self._follow(needed, [*path, logical_id], done)
        done.add(logical_id)

    def _direct(self, logical_id: str) -> set[str]:
        named = self.resources[logical_id].depends_on
        return self._needs[logical_id] | {needed for needed in named if needed in self.resources}

    def needed_by(self, logical_id: str) -> set[str]:
        """The logical ids of all that a resource refers to or depends on, at however many removes."""
        found: set[str] = set()
        waiting = [logical_id]
        while waiting:
            for needed in self._direct(waiting.pop()) - found:
                found.add(needed)
                waiting.append(needed)
        return found
