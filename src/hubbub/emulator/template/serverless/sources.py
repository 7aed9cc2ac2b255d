"""Where variables get values from outside the file: options, environment, other files, AWS.

What would have to be asked for on AWS, or computed by a program, cannot be had here: a parameter of the variable's own
name stands in for it (`ssm:/path/name`, `cf:stack.output`, `s3:bucket/key`).
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hubbub.emulator.template.serverless.document import (
    Place,
    Text,
    name_of,
    parse_yaml,
    read_document,
    read_text,
)

_OPTIONS = ("stage", "region")  # parameters of these names are the command line's options, too
_PROGRAMS = (".js", ".cjs", ".mjs", ".ts", ".mts", ".cts")
_DOCUMENTS = (".yml", ".yaml", ".json", ".tfstate")

_EXPORT = re.compile(
    r"""\s*(?:["']use\ strict["'];?\s*)?(?:module\.exports\s*=|export\s+default)\s*(?P<value>\{.*\})\s*;?\s*""",
    re.DOTALL | re.VERBOSE,
)

_ELSEWHERE = {
    "ssm": "a value of SSM",
    "cf": "another stack's output",
    "s3": "an object in S3",
    "output": "another service's output",
    "git": "what git says",
}

_PLAIN = re.compile(r"true|false|null|-?[0-9]+(?:\.[0-9]+)?")

_TRUE, _FALSE = ("true", "1"), ("false", "0")


class Unavailable(Exception):
    """A source cannot be asked here; its text says why."""


class SourceFault(Exception):
    """A source cannot be asked for that; its text says what was expected and what came."""


class Outside:
    """Everything around the file that variables may refer to.

    Attributes:
        folder: of the service; paths are relative to it.
        options: the command line's, such as `stage` and `region`.
        parameters: the user's own, and stand-ins by the name of a variable.
        environment: environment variables; those of `.env` files are added.
        account: the account's number.
        region: where everything is if nobody says another.
        files: those that were read.
        used: names of the parameters that something asked for.

    """

    def __init__(
        self,
        folder: Path,
        *,
        options: Mapping[str, str],
        parameters: Mapping[str, str],
        environment: Mapping[str, str],
        account: str,
        region: str,
    ) -> None:
        self.folder = folder
        said = {key.removeprefix("opt:"): parameters[key] for key in parameters if key in _OPTIONS or key[:4] == "opt:"}
        self.options = {**said, **options}
        self.parameters = dict(parameters)
        self.environment = dict(environment)
        self.account = account
        self.region = region
        self.files: list[Path] = []
        self.used = set(_OPTIONS)
        self._read: dict[Path, Any] = {}  # Any: whatever a file holds

    def stand_in(self, kind: str, arguments: tuple[object, ...] | None, address: str | None) -> object:
        """What the user gave in place of a variable; None for nothing.

        It is found by the variable's name with or without what is in its brackets. As the framework does, a value from
        SSM that is a JSON object is taken for one.
        """
        written = ", ".join(map(str, arguments or ()))
        names = (f"{kind}({written}):{address}", f"{kind}:{address}", f"{kind}({written})")
        value = next((self.parameter(name) for name in names if name in self.parameters), None)
        if value is None or kind != "ssm" or "raw" in (arguments or ()) or not value.startswith("{"):
            return value
        try:
            json.loads(value)
        except json.JSONDecodeError:
            return value
        return parse_yaml(value, Path(names[1]))

    def parameter(self, name: str) -> str | None:
        """A parameter of the user's; None for none."""
        self.used.add(name)
        return self.parameters.get(name)

    def value(self, kind: str, arguments: tuple[object, ...], address: str | None) -> Any:  # Any: a source's value
        """What a source has at an address; None for nothing.

        Raises:
            Unavailable: the source cannot be asked here.
            SourceFault: it cannot be asked for that.
            TemplateError: a file cannot be read.

        """
        match kind:
            case "env":
                return self.environment.get(_needed(kind, address))
            case "opt":
                return self.options.get(_needed(kind, address))
            case "strToBool":
                return _boolean(arguments)
            case "aws" if address == "accountId":
                return self.account
            case "sls" if address == "instanceId":
                return uuid.uuid5(uuid.NAMESPACE_URL, str(self.folder)).hex  # the same at every start
            case "sls":
                raise SourceFault(f"expected sls:stage or sls:instanceId, got sls:{address}")
        raise Unavailable(f"{_ELSEWHERE.get(kind, f'a value of the source {kind!r}')} cannot be had here")

    def document(self, arguments: tuple[object, ...]) -> Any:  # Any: whatever a file holds
        """What the file of `${file(path)}` holds; None where there is none.

        Raises:
            Unavailable: the file is a program.
            SourceFault: no path was given.
            TemplateError: the file cannot be read.

        """
        if not arguments or arguments[0] is None:
            raise SourceFault("expected the path of a file in the brackets, got none")
        path = (self.folder / str(arguments[0])).resolve()
        if path not in self._read:
            self._read[path] = self._load(path) if path.is_file() else None
        return self._read[path]

    def _load(self, path: Path) -> Any:  # Any: whatever a file holds
        self.files.append(path)
        if path.suffix in _DOCUMENTS:
            return read_document(path)
        if path.suffix in _PROGRAMS:
            return _literal_of(path)
        return Text(read_text(path), Place(path, 1))


def _needed(kind: str, address: str | None) -> str:
    if not address:
        raise SourceFault(f"expected a name after {kind}:, got none")
    return address


def _boolean(arguments: tuple[object, ...]) -> bool:
    value = str(arguments[0]).strip().lower() if arguments else ""
    if value not in _TRUE + _FALSE:
        raise SourceFault(
            f"expected true, false, 1 or 0 in strToBool, got {name_of(arguments[0] if arguments else None)}"
        )
    return value in _TRUE


def name_of_stand_in(kind: str, arguments: tuple[object, ...] | None, address: str | None) -> str:
    """What a parameter has to be called to stand in for a variable."""
    brackets = f"({', '.join(map(str, arguments))})" if arguments else ""
    return f"{kind}{brackets}:{address}" if address else f"{kind}{brackets}"


def _literal_of(path: Path) -> Any:  # Any: whatever a file holds
    """What a JavaScript file exports, where that is an object that is written out.

    Raises:
        Unavailable: it would have to be run.

    """
    found = _EXPORT.fullmatch(read_text(path))
    try:
        node = yaml.compose(found["value"], Loader=yaml.SafeLoader) if found else None
        if found and node and _is_literal(node):
            return parse_yaml(found["value"], path)
    except yaml.YAMLError:
        pass
    raise Unavailable(f"{path.name} is a program, and only YAML, JSON and objects written out are read here")


def _is_literal(node: yaml.Node) -> bool:
    """Whether a node of flow YAML says the same in JavaScript: whatever is no number, boolean or null is in quotes."""
    if isinstance(node, yaml.MappingNode):
        return all(_is_literal(value) and isinstance(key, yaml.ScalarNode) for key, value in node.value)
    if isinstance(node, yaml.ScalarNode):
        return node.style in ("'", '"') or bool(_PLAIN.fullmatch(node.value))
    return all(map(_is_literal, node.value))
