"""Which file is meant when a stack is named, and which language it is written in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from hubbub.emulator.definition import Stack, Surroundings
from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.sam import is_sam
from hubbub.emulator.template.serverless import PACKAGED, PROGRAMS, load_serverless
from hubbub.emulator.template.source import Value, read_document
from hubbub.emulator.template.stack import stack_from_template

NAMES: Final = (
    *("template.yaml", "template.yml", "template.json"),
    *("serverless.yml", "serverless.yaml", "serverless.json"),
)
"""What is looked for in a folder, the first that is there; `sam build`'s template is used where it is named itself."""

Language = Literal["sam", "cloudformation", "serverless"]


def find_template(path: Path) -> Path:
    """The template at a path: the file itself, or the first of `NAMES` in a folder.

    Raises:
        TemplateError: there is none.

    """
    if not path.exists():
        raise TemplateError(path, None, "expected a template, or a folder with one, and there is no such path")
    if not path.is_dir():
        return path
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    packaged = path / PACKAGED
    if packaged.is_file():
        return packaged
    for suffix in PROGRAMS:
        if (path / f"serverless{suffix}").is_file():
            return path / f"serverless{suffix}"  # which says what has to be done with it
    raise TemplateError(path, None, f"expected one of {', '.join(NAMES)} in this folder, and there is none")


def load(
    path: Path,
    *,
    surroundings: Surroundings,
    work: Path,
    parameters: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Stack:
    """The stack of a template, whatever it is written in.

    Args:
        path: a SAM or CloudFormation template, a serverless.yml, or a folder with one of them.
        surroundings: what it is resolved in.
        work: a folder of the caller's for what must be written: inline code, unpacked archives. It has to be there as
            long as the functions run, and can be kept from one run to the next.
        parameters: values of its parameters, and of what AWS would look up elsewhere (see `stack_from_template`).
        options, environment: of serverless.yml alone; see `load_serverless`.

    Raises:
        TemplateError: it cannot be understood.

    """
    path = find_template(path).resolve()
    if path.stem == "serverless" or path.name == PACKAGED.name:
        language: Language = "serverless"
    else:
        document = read_document(path)
        language = _language(document)
    if language == "serverless":
        return load_serverless(
            path,
            surroundings=surroundings,
            work=work,
            options=options,
            parameters=parameters,
            environment=environment,
        )
    return stack_from_template(
        document, path=path, language=language, surroundings=surroundings, work=work, parameters=parameters
    )


def _language(document: Mapping[str, Value]) -> Language:
    """What a document is: one with a provider and no Resources is the Serverless Framework's, whatever its name."""
    if is_sam(document):
        return "sam"
    return "serverless" if "provider" in document and "Resources" not in document else "cloudformation"
