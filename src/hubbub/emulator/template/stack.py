"""What a CloudFormation template's resources are for the emulator: the parts put together into one stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from hubbub.emulator.definition import Stack, Surroundings, Unsupported
from hubbub.emulator.template.apis import apis_of
from hubbub.emulator.template.code import CodeFinder
from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.events import sources_of
from hubbub.emulator.template.functions import functions_of
from hubbub.emulator.template.http_apis import http_apis_of
from hubbub.emulator.template.intrinsics import as_text
from hubbub.emulator.template.macros import expand
from hubbub.emulator.template.meanings import name_the_rest
from hubbub.emulator.template.parameters import parameter_values
from hubbub.emulator.template.resources import NESTED, Template
from hubbub.emulator.template.sam import LocalPath, is_sam, needs_sam, transform
from hubbub.emulator.template.scope import Scope
from hubbub.emulator.template.source import Value, line_of, read_document
from hubbub.emulator.template.stateful import resources_of

_DEEPEST: Final = 10
"""How many stacks may be nested in one another."""


def stack_from_template(
    template: Mapping[str, Any],  # Any: CloudFormation's document
    *,
    path: Path,
    language: Literal["sam", "cloudformation", "serverless"],
    surroundings: Surroundings,
    work: Path,
    parameters: Mapping[str, str] | None = None,
    code: Mapping[str, Path] | None = None,
    watched: Sequence[Path] = (),
    unsupported: Sequence[Unsupported] = (),
) -> Stack:
    """The stack that a template defines; the SAM transform runs where the template asks for it.

    Args:
        template: the document, intrinsic functions in their long forms (`{"Fn::Sub": …}`, `{"Ref": …}`).
        path: the file it came from, for errors, and whose folder local paths are relative to.
        language: what the file was written in.
        surroundings: what pseudo parameters, names and addresses are made of.
        work: a folder of the caller's for what must be written: inline code, unpacked archives.
        parameters: values of its parameters by name; with keys such as `resolve:ssm:/name` and `import:NAME`, of what
            AWS would look up elsewhere.
        code: folders (or zip archives) of functions and layers by logical id; they win over `Code` and `Content`.
        watched: files besides `path` that it was made of.
        unsupported: what the caller left out already; put before what is found here.

    Raises:
        TemplateError: it cannot be understood.

    """
    opening = _Opening(surroundings, list(unsupported), [path, *watched])
    root = opening.open(template, path, surroundings, parameters or {})
    for opened in _whole(root):
        opened.resolve_all()
    templates = opening.templates
    finder = CodeFinder(path.parent, work, code or {})
    functions = functions_of(templates, finder)
    stack = Stack(
        path=path,
        language=language,
        surroundings=surroundings,
        functions=functions,
        apis=apis_of(templates),
        http_apis=http_apis_of(templates),
        resources=resources_of(templates),
        sources=sources_of(templates, (function.name for function in functions)),
        outputs=root.outputs(),
        ignored=name_the_rest(templates),
    )
    return msgspec.structs.replace(
        stack, unsupported=tuple(opening.unsupported), watched=tuple(dict.fromkeys(opening.watched))
    )


def _whole(template: Template) -> list[Template]:
    """A template and all that are nested in it."""
    inner = [template.nested(of) for of in template.of_type(NESTED)]
    return [template, *(one for nested in inner if nested is not None for one in _whole(nested))]


class _Opening:
    """Opens a template and those nested in it, in the order in which their APIs are given hosts."""

    def __init__(self, surroundings: Surroundings, unsupported: list[Unsupported], watched: list[Path]) -> None:
        self.surroundings = surroundings
        self.unsupported = unsupported
        self.watched = watched
        self.templates: list[Template] = []
        self.hosts: dict[str, str] = {}

    def open(
        self,
        document: Mapping[str, Value],
        path: Path,
        surroundings: Surroundings,
        given: Mapping[str, str],
        prefix: str = "",
    ) -> Template:
        if not document.get("Resources"):
            raise TemplateError(path, line_of(document, "Resources"), "expected Resources, got a template without")
        bare = _scope(document, path, surroundings, given, self.unsupported, prefix)
        expanded = _scope(expand(bare, self.watched), path, surroundings, given, self.unsupported, prefix)
        paths: Mapping[str, LocalPath] = {}
        final: Mapping[str, Value] = expanded.document
        if is_sam(document):
            final, paths = transform(expanded)
        elif (error := needs_sam(expanded)) is not None:
            raise error
        template = Template(
            final,
            path=path,
            surroundings=surroundings,
            parameters=expanded.parameters,
            given=given,
            unsupported=self.unsupported,
            hosts=self.hosts,
            nested=self.nested,
            paths=paths,
            prefix=prefix,
        )
        self.templates.append(template)
        return template

    def nested(self, of: Declared) -> Template | None:
        """The template of an AWS::CloudFormation::Stack; None, and it is named, where it is in S3."""
        asset = of.metadata.get("aws:asset:path")
        location = asset if isinstance(asset, str) else as_text(of.get("TemplateURL"))
        if location is None or location.startswith(("http:", "https:", "s3:", "sar:")):
            where = (location or "nowhere").removeprefix("sar:")
            of.note(f"its template is not on this machine ({where}): nothing of it runs, its outputs are made up")
            return None
        if of.shown_id.count(".") >= _DEEPEST:
            raise of.error("TemplateURL", f"expected at most {_DEEPEST} stacks within one another")
        path = of.template.path.parent / location
        if not path.is_file():
            raise of.error("TemplateURL", f"expected a template at its TemplateURL, and there is no {path}")
        self.watched.append(path)
        outer = of.template.surroundings
        inner = msgspec.structs.replace(outer, stack_name=f"{outer.stack_name}-{of.logical_id}")
        beyond = {key: value for key, value in of.template.given.items() if ":" in key}
        return self.open(read_document(path), path, inner, {**beyond, **_given(of)}, f"{of.shown_id}.")


def _given(of: Declared) -> dict[str, str]:
    """What a nested stack is given as parameters; lists as they are written there."""
    made = {}
    for name, value in of.mapping("Parameters").items():
        text = ",".join(map(str, value)) if isinstance(value, list) else as_text(value)
        if text is None:
            raise of.error("Parameters", f"expected text as its parameter {name}, got {value!r}")
        made[name] = text
    return made


def _scope(
    document: Mapping[str, Value],
    path: Path,
    surroundings: Surroundings,
    given: Mapping[str, str],
    unsupported: list[Unsupported],
    prefix: str,
) -> Scope:
    declared = document.get("Parameters") or {}
    if not isinstance(declared, Mapping):
        raise TemplateError(path, line_of(document, "Parameters"), "expected a mapping as Parameters")
    return Scope(
        document,
        path=path,
        surroundings=surroundings,
        parameters=parameter_values(declared, given, path),
        given=given,
        unsupported=unsupported,
        prefix=prefix,
    )
