"""What a CloudFormation template's resources are for the emulator: the parts put together into one stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hubbub.emulator.definition import Stack, Surroundings, Unsupported


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
    """The stack that a CloudFormation template defines; no AWS::Serverless type is left in it.

    Args:
        template: the document, intrinsic functions in their long forms (`{"Fn::Sub": …}`, `{"Ref": …}`).
        path: the file it came from, for errors, and whose folder local paths are relative to.
        language: what the file was written in.
        surroundings: what pseudo parameters, names and addresses are made of.
        work: a folder of the caller's for what must be written: inline code, unpacked archives.
        parameters: values of its parameters by name.
        code: folders (or zip archives) of functions and layers by logical id; they win over `Code` and `Content`.
        watched: files besides `path` that it was made of.
        unsupported: what the caller left out already; put before what is found here.

    Raises:
        TemplateError: it cannot be understood.

    """
    raise NotImplementedError
