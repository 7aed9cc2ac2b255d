"""Finds the values of a service's variables, each when it is asked for, in the order the framework asks its sources.

Differences to the framework, all to let more run: only what is asked for is looked up; where a stage or region is asked
for and nobody says one, the default one is taken; a parameter may stand in for any variable.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless.document import Listing, Place, Section, Text, name_of
from hubbub.emulator.template.serverless.sources import Outside, SourceFault, Unavailable, name_of_stand_in
from hubbub.emulator.template.serverless.syntax import Literal, Parts, Source, SyntaxFault, Variable, parse

_DEPTH = 10  # as the framework: how often a value may be found in a value

_SAID = {"opt:stage": "stage", "opt:region": "region", "self:provider.stage": "stage", "self:provider.region": "region"}

Keys = tuple[str, ...]


class Note(NamedTuple):
    """A default that was taken because a source cannot be asked here: the variable, its place and why."""

    written: str
    place: Place
    why: str


class Resolver:
    """Values of one service's file.

    Attributes:
        root: the file; variables are replaced in it as they are asked for.
        outside: what is around it.
        notes: defaults that were taken for what cannot be had here.

    """

    def __init__(self, root: Section, outside: Outside) -> None:
        self.root = root
        self.outside = outside
        self.notes: list[Note] = []
        self._asked: list[Keys] = []  # what is being looked up, each for the one before

    def at(self, *keys: str) -> Any:  # Any: whatever a file holds
        """What the file holds at `keys`, without any variable left; None for nothing.

        Raises:
            TemplateError: a variable has no value or is not written as one; further ones are named in it.

        """
        faults: list[TemplateError] = []
        value = self._whole(self.found(*keys), keys, 0, faults)
        if faults:
            raise put_together(faults)
        return value

    def place_of(self, *keys: str) -> Place:
        """Where `keys` are in the file, or as much of them as there is."""
        value: Any = self.root  # Any: whatever a file holds
        place = self.root.place
        for key in keys:
            if not isinstance(value, Section) or key not in value:
                return place
            place, value = value.place_of(key), value[key]
        return place

    def stage(self) -> str:
        """The stage: of the options, else the provider's, else `dev`."""
        return self._chosen("stage")

    def region(self) -> str:
        """The region: of the options, else the provider's, else that of what is around."""
        return self._chosen("region")

    def _chosen(self, name: str) -> str:
        if name in self.outside.options:
            return self.outside.options[name]
        default = "dev" if name == "stage" else self.outside.region
        is_asked = ("provider", name) in self._asked  # then the provider's is what a default is sought for
        return default if is_asked else str(self.at("provider", name) or default)

    def found(self, *keys: str) -> Any:  # Any: whatever a file holds
        """What is at `keys`, its own variables and those of all before it replaced; those below it are not."""
        value: Any = self.root  # Any: whatever a file holds
        for depth, key in enumerate(keys, 1):
            if isinstance(value, Section) and key in value:
                value[key] = self._shallow(value[key], keys[:depth])
                value = value[key]
            elif isinstance(value, Listing) and key.isdecimal() and int(key) < len(value):
                value[int(key)] = self._shallow(value[int(key)], keys[:depth])
                value = value[int(key)]
            else:
                return None
        return value

    def _whole(self, value: Any, keys: Keys, depth: int, faults: list[TemplateError] | None) -> Any:  # Any: a file's
        """The value with all variables in it replaced, in place; faults are raised where there is no list for them."""
        if isinstance(value, Text):
            found = self._shallow(value, keys)
            if depth > _DEPTH:
                raise TemplateError(*value.place, f"{'.'.join(keys)} is found in itself again and again")
            return found if isinstance(found, str) else self._whole(found, keys, depth + 1, faults)
        if isinstance(value, Section):
            for key in list(value):
                self._settle(value, key, (*keys, key), depth, faults)
        elif isinstance(value, Listing):
            for index in range(len(value)):
                self._settle(value, index, (*keys, str(index)), depth, faults)
        return value

    def _settle(self, holder: Any, key: Any, keys: Keys, depth: int, faults: list[TemplateError] | None) -> None:
        # Any: a section and a key of it, or a listing and an index
        try:
            holder[key] = self._whole(holder[key], keys, depth, faults)
        except TemplateError as fault:
            if faults is None:
                raise
            faults.append(fault)

    def _shallow(self, value: Any, keys: Keys) -> Any:  # Any: whatever a file holds
        """The value of a text; variables in what it stands for are left."""
        if not isinstance(value, Text) or value.is_final or "${" not in value:
            return value
        if keys in self._asked:
            chain = [*self._asked[self._asked.index(keys) :], keys]
            raise TemplateError(*value.place, f"a variable refers to itself: {' → '.join(map('.'.join, chain))}")
        self._asked.append(keys)
        try:
            return self._evaluated(value, value.place, 0)
        finally:
            self._asked.pop()

    def _evaluated(self, text: str, place: Place, depth: int) -> Any:  # Any: whatever a file holds
        if depth > _DEPTH:
            raise TemplateError(*place, f"the value of {text!r} is a variable again and again")
        try:
            parts = parse(text)
        except SyntaxFault as fault:
            raise TemplateError(*place, str(fault)) from fault
        if len(parts) == 1 and isinstance(parts[0], Variable):
            return self._piece(parts[0], place, depth)
        return self._text(parts, place, depth)

    def _text(self, parts: Parts, place: Place, depth: int = 0) -> Text:
        """The text that consists of these parts."""
        pieces = [part if isinstance(part, str) else self._written(part, place, depth) for part in parts]
        return Text("".join(pieces), place, is_final=True)

    def _written(self, variable: Variable, place: Place, depth: int) -> str:
        value = self._piece(variable, place, depth)
        match value:
            case bool():
                return str(value).lower()
            case str():
                return value
            case int() | float():
                return f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)
        raise TemplateError(
            *place, f"{variable.written} stands in a text: expected a string or a number, got {name_of(value)}"
        )

    def _piece(self, variable: Variable, place: Place, depth: int) -> Any:  # Any: whatever a file holds
        """The value of a variable; of a variable that is its value, and so on."""
        value = self._value(variable, place)
        if not isinstance(value, str):
            return value
        if isinstance(value, Text) and value.is_final:
            return value
        if "${" in value:
            return self._evaluated(value, value.place if isinstance(value, Text) else place, depth + 1)
        return Text(value, place, is_final=True)

    def _value(self, variable: Variable, place: Place) -> Any:  # Any: whatever a file holds
        """What the first of a variable's sources that has a value says."""
        why = ""
        for source in variable.sources:
            if isinstance(source, Literal):
                self._note(variable, place, why)
                return source.value
            try:
                value = self._asked_for(source, place)
            except Unavailable as unavailable:
                why, value = str(unavailable), None
            except SourceFault as fault:
                raise TemplateError(*place, f"{variable.written}: {fault}") from fault
            if value is not None:
                self._note(variable, place, why)
                return value
        return self._default(variable, place, why)

    def _note(self, variable: Variable, place: Place, why: str) -> None:
        note = Note(variable.written, place, why)
        if why and note not in self.notes:
            self.notes.append(note)

    def _default(self, variable: Variable, place: Place, why: str) -> str:
        """The stage or region where one is asked for and none is said, which the framework holds for a fault."""
        last = variable.sources[-1]
        if isinstance(last, Source) and last.address is not None:
            name = _SAID.get(f"{last.type}:{self._text(last.address, place)}")
            if name and last.type == "opt":
                self._note(variable, place, f"no {name} was given; give one as the parameter 'opt:{name}=…'")
            if name:
                return self._chosen(name)
        raise TemplateError(*place, f"{variable.written} has no value{f': {why}' if why else self._hint(last, place)}")

    def _hint(self, source: Source | Literal, place: Place) -> str:
        if isinstance(source, Literal):
            return ""
        address = self._text(source.address, place) if source.address else ""
        match source.type:
            case "env":
                return f": the environment has no {address}"
            case "opt" | "param":
                return f"; give one as the parameter '{'opt:' if source.type == 'opt' else ''}{address}=…'"
            case "self":
                return f": there is no {address} in {self.root.place.path.name}"
            case "file":
                return f": there is no such file{', or it has no ' + repr(str(address)) if address else ''}"
        return ""

    def _asked_for(self, source: Source, place: Place) -> Any:  # Any: whatever a file holds
        """What one source has; None for nothing."""
        address = None if source.address is None else str(self._text(source.address, place))
        arguments = None if source.parameters is None else tuple(self._argument(p, place) for p in source.parameters)
        if source.type != "self" and (given := self.outside.stand_in(source.type, arguments, address)) is not None:
            return given
        try:
            return self._found_at(source.type, arguments or (), address)
        except Unavailable as unavailable:
            name = name_of_stand_in(source.type, arguments, address)
            raise Unavailable(f"{unavailable}; give it as the parameter '{name}=…'") from unavailable

    def _found_at(self, kind: str, arguments: tuple[object, ...], address: str | None) -> Any:  # Any: a source's value
        match kind:
            case "self":
                keys = tuple(address.split(".")) if address else ()
                return self._whole(self.found(*keys), keys, 0, None)
            case "sls" if address == "stage":
                return self.stage()
            case "aws" if address == "region":
                return self.region()
            case "param":
                return self._parameter(address or "")
            case "file":
                return self._in_file(self.outside.document(arguments), address)
        return self.outside.value(kind, arguments, address)

    def _argument(self, parameter: Parts | Literal, place: Place) -> object:
        if isinstance(parameter, Literal):
            return parameter.value
        if len(parameter) == 1 and isinstance(parameter[0], Variable):
            return self._piece(parameter[0], place, 0)
        return str(self._text(parameter, place))

    def _in_file(self, value: Any, address: str | None) -> Any:  # Any: whatever a file holds
        """What is at a dotted address in another file; variables in that are left."""
        for key in address.split(".") if address else ():
            if isinstance(value, Text) and not value.is_final:
                value = self._evaluated(value, value.place, 0)
            if isinstance(value, Section):
                value = value.get(key)
            elif isinstance(value, Listing) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            else:
                return None
        return value

    def _parameter(self, name: str) -> Any:  # Any: whatever a file holds
        """A parameter: the user's, else the stage's, else that of all stages, of `stages` (version 4) and `params`."""
        if (given := self.outside.parameter(name)) is not None:
            return given
        for stage in (self.stage(), "default"):
            for keys in (("stages", stage, "params", name), ("params", stage, name)):
                value = self._whole(self.found(*keys), keys, 0, None)
                if value is not None:
                    return value
        return None


def put_together(faults: list[TemplateError]) -> TemplateError:
    """One error that names all: each once, the first as the error's own."""
    first, *others = {str(fault): fault for fault in faults}.values()
    if not others:
        return first
    return TemplateError(first.path, first.line, "\n".join([first.what, *map(str, others)]))
