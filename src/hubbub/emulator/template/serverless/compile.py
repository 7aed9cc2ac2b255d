"""Makes CloudFormation of a service, as the framework's `package` would, and a stack of that.

Left out is what only concerns deploying: the bucket, versions and aliases of functions, permissions of other services.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hubbub.emulator.definition import ACCOUNT, Stack, Surroundings, Unsupported
from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless.assembly import assembled
from hubbub.emulator.template.serverless.draft import Draft
from hubbub.emulator.template.serverless.events import put_events
from hubbub.emulator.template.serverless.functions import put_functions
from hubbub.emulator.template.serverless.http_api import put_http_api
from hubbub.emulator.template.serverless.meanings import put_meanings
from hubbub.emulator.template.serverless.packaged import PACKAGED, load_packaged, those_of
from hubbub.emulator.template.serverless.service import read_service
from hubbub.emulator.template.serverless.websockets import put_websockets
from hubbub.emulator.template.stack import stack_from_template

PROGRAMS = (".ts", ".js", ".mjs", ".cjs", ".mts", ".cts")
"""What a service that has to be run to be read may end in."""


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A service as CloudFormation.

    Attributes:
        template: the document; its mappings know their lines where they come from the service's own file.
        stack_name, stage, region: what the stack is called and where it is.
        code: folders or archives of functions and layers by logical id.
        watched: files besides the service's own that it was made of.
        unsupported: what is not done here, and what that means.

    """

    template: dict[str, Any]  # Any: CloudFormation's document
    stack_name: str
    stage: str
    region: str
    code: dict[str, Path]
    watched: tuple[Path, ...]
    unsupported: tuple[Unsupported, ...]


def compile_serverless(
    path: Path,
    *,
    options: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    account: str = ACCOUNT,
    region: str = "us-east-1",
) -> Compiled:
    """A serverless.yml, .yaml or .json as CloudFormation.

    Args:
        path: the file.
        options: what the framework's command line would be given: `stage`, `region` and others for `${opt:…}`.
        parameters: for `${param:…}`, and by a variable's own name (`ssm:/path`, `cf:stack.output`, `opt:stage`) for any
            other; `stage` and `region` are taken for these options, too.
        environment: for `${env:…}`; the process's own by default. `.env` files are added.
        account: for `${aws:accountId}`.
        region: where it is if neither the file nor the options say.

    Raises:
        TemplateError: it cannot be understood; with the file, the line and the variable.

    """
    path = path.resolve()
    if path.suffix in PROGRAMS:
        raise TemplateError(
            path,
            None,
            f"{path.name} is a program and is not run here: run `npx osls package` and give"
            f" {PACKAGED} instead, or `npx osls print > resolved.yml` and give that",
        )
    service = read_service(
        path,
        options=options or {},
        parameters=parameters or {},
        environment=os.environ if environment is None else environment,
        account=account,
        region=region,
    )
    draft = Draft()
    put_functions(service, draft)
    put_websockets(service, draft)
    put_http_api(service, draft)
    put_events(service, draft)
    put_meanings(service, draft)
    return Compiled(
        template=assembled(service, draft),
        stack_name=service.stack_name,
        stage=service.stage,
        region=service.region,
        code=draft.code,
        watched=service.files,
        unsupported=tuple(draft.unsupported),
    )


def load_serverless(
    path: Path,
    *,
    surroundings: Surroundings,
    work: Path,
    options: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Stack:
    """The stack of a serverless.yml, .yaml or .json, or of what the framework has packaged.

    Args:
        path: the file; or `.serverless/cloudformation-template-update-stack.json`, see `load_packaged`.
        surroundings: what it is resolved in; the service's own stack name and region come before these.
        work: a folder for what must be written.
        options, parameters, environment: see `compile_serverless`.

    Raises:
        TemplateError: it cannot be understood.

    """
    if path.name == PACKAGED.name:
        return load_packaged(path, surroundings=surroundings, work=work, parameters=parameters)
    compiled = compile_serverless(
        path,
        options=options,
        parameters=parameters,
        environment=environment,
        account=surroundings.account,
        region=surroundings.region,
    )
    service = msgspec.structs.replace(surroundings, stack_name=compiled.stack_name, region=compiled.region)
    return stack_from_template(
        compiled.template,
        path=path.resolve(),
        language="serverless",
        surroundings=service,
        work=work,
        parameters=those_of(compiled.template, parameters or {}),
        code=compiled.code,
        watched=compiled.watched,
        unsupported=compiled.unsupported,
    )
