"""The SAM transform: AWS::Serverless resources become CloudFormation's, by AWS's own translator and without AWS.

Local paths go through it as addresses in a bucket that does not exist, and come back in `Transformed.paths`.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.macros import SAM, transforms
from hubbub.emulator.template.scope import Scope
from hubbub.emulator.template.source import Located, Value, line_of

BUCKET: Final = "hubbub-local-files"

_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "Api": ("DefinitionUri",),
    "Function": ("CodeUri",),
    "GraphQLApi": ("SchemaUri",),
    "HttpApi": ("DefinitionUri",),
    "LayerVersion": ("ContentUri",),
    "StateMachine": ("DefinitionUri",),
}
"""The properties that SAM's command line replaces by addresses in S3, by resource, without AWS::Serverless::."""


class LocalPath(NamedTuple):
    """A path as the template has it, and what declares it.

    Attributes:
        path: relative to the template's folder, or absolute.
        logical_id: of the resource; empty for one in Globals.
        metadata: the resource's, with its BuildMethod.
        line: where the path is written.

    """

    path: str
    logical_id: str
    metadata: Mapping[str, Value]
    line: int | None


class Transformed(NamedTuple):
    """A template without AWS::Serverless types, and the local paths by what stands for them as key in `BUCKET`."""

    document: Mapping[str, Value]
    paths: Mapping[str, LocalPath]


def is_sam(document: Mapping[str, Value]) -> bool:
    """Whether a template asks for the SAM transform."""
    return SAM in transforms(document)


def transform(scope: Scope) -> Transformed:
    """The template of `scope`, transformed.

    Raises:
        TemplateError: the translator finds something wrong with it.

    """
    scope.section("Resources")
    document = copy.deepcopy(dict(scope.document))
    paths: dict[str, LocalPath] = {}
    _prepare(scope, document, paths)
    made = _translate(scope, document)
    _keep_lines(scope, made)
    return Transformed(made, paths)


def needs_sam(scope: Scope) -> TemplateError | None:
    """The error of a template that has AWS::Serverless types and does not ask for the transform."""
    resources = scope.section("Resources")
    for logical_id, body in resources.items():
        if isinstance(body, Mapping) and str(body.get("Type", "")).startswith("AWS::Serverless::"):
            line = line_of(resources, logical_id)
            return scope.error(line, f"{logical_id}: expected 'Transform: {SAM}' in a template with {body['Type']}")
    return None


def _prepare(scope: Scope, document: dict[str, Value], paths: dict[str, LocalPath]) -> None:
    """Put addresses where local paths are, and take out what the translator would call AWS for."""
    shared = document.get("Globals")
    for kind, body in shared.items() if isinstance(shared, dict) else ():
        if isinstance(body, dict):
            _replace_paths(scope, kind, "", body, {}, paths)
    with_code = isinstance(shared, dict) and "CodeUri" in (shared.get("Function") or {})
    for logical_id, body in document["Resources"].items():
        if not isinstance(body, dict) or not str(body.get("Type", "")).startswith("AWS::Serverless::"):
            continue
        kind = body["Type"].removeprefix("AWS::Serverless::")
        properties = body.setdefault("Properties", {})
        if not isinstance(properties, dict):
            continue  # the translator has words for that
        metadata: Value = body.get("Metadata")
        if kind == "Application":
            _as_nested_stack(body, properties)
        elif kind == "Function":
            _with_code(properties, shared, with_code)
        _replace_paths(scope, kind, logical_id, properties, metadata if isinstance(metadata, Mapping) else {}, paths)


def _with_code(properties: dict[str, Value], shared: Value, is_shared: bool) -> None:
    """A function without code is that of the template's folder, which is what SAM's command line packages."""
    function = shared.get("Function", {}) if isinstance(shared, dict) else {}
    package = properties.get("PackageType", function.get("PackageType") if isinstance(function, dict) else None)
    if package == "Image":
        properties.setdefault("ImageUri", "image")  # built from the function's Metadata
    elif not is_shared and not {"CodeUri", "InlineCode", "ImageUri"} & properties.keys():
        properties["CodeUri"] = "."


def _as_nested_stack(body: dict[str, Value], properties: dict[str, Value]) -> None:
    """The translator would ask the Serverless Application Repository; this is what it makes of a local template."""
    location = properties.pop("Location", None)
    if isinstance(location, Mapping) and "ApplicationId" in location:
        location = "sar:" + str(location["ApplicationId"])
    body["Type"] = "AWS::CloudFormation::Stack"
    properties["TemplateURL"] = location


def _replace_paths(
    scope: Scope,
    kind: str,
    logical_id: str,
    properties: dict[str, Value],
    metadata: Mapping[str, Value],
    paths: dict[str, LocalPath],
) -> None:
    for name in _PATHS.get(kind, ()):
        written = properties.get(name)
        line = line_of(properties, name)
        if isinstance(written, Mapping) and not {"Bucket", "Key"} <= written.keys():
            written = scope.text(written, line)  # of parameters, that is: no resource has a path
        if isinstance(written, str) and not written.startswith("s3://"):
            key = str(len(paths))
            paths[key] = LocalPath(written, logical_id, metadata, line)
            written = f"s3://{BUCKET}/{key}"
        if written is not None:
            properties[name] = written


class _Session:
    """All that the translator asks of a boto3 session: so that it reads neither environment nor configuration."""

    def __init__(self, region: str) -> None:
        self.region_name = region


def _translate(scope: Scope, document: dict[str, Value]) -> Value:
    from samtranslator.metrics.metrics import (  # type: ignore[import-untyped]  # it has no types
        DummyMetricsPublisher,
        Metrics,
    )
    from samtranslator.model.exceptions import InvalidDocumentException  # type: ignore[import-untyped]  # it has no types
    from samtranslator.parser.parser import Parser  # type: ignore[import-untyped]  # it has no types
    from samtranslator.translator.arn_generator import ArnGenerator  # type: ignore[import-untyped]  # it has no types
    from samtranslator.translator.translator import Translator  # type: ignore[import-untyped]  # it has no types

    around = scope.surroundings
    parameters = {
        **{name: ",".join(value) if isinstance(value, list) else value for name, value in scope.parameters.items()},
        "AWS::AccountId": around.account,
        "AWS::Partition": "aws",
        "AWS::Region": around.region,
        "AWS::StackName": around.stack_name,
        "AWS::URLSuffix": "amazonaws.com",
    }
    metrics = Metrics("ServerlessTransform", DummyMetricsPublisher())
    before = ArnGenerator.BOTO_SESSION_REGION_NAME
    logger = logging.getLogger("samtranslator")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # it logs what it raises as well
    try:
        translator = Translator(None, Parser(), boto_session=_Session(around.region), metrics=metrics)
        return translator.translate(
            document, parameters, passthrough_metadata=True, get_managed_policy_map=lambda: _ManagedPolicies()
        )
    except InvalidDocumentException as failure:
        raise _explained(scope, [str(cause.message) for cause in failure.causes]) from failure
    except Exception as failure:  # whatever its code makes of shapes that it does not expect: raised on, as ours
        what = f"the SAM translator failed with {type(failure).__name__}: {failure}"
        raise scope.error(None, what) from failure
    finally:
        metrics.publish()  # nowhere; it complains in the end where this was not called
        ArnGenerator.BOTO_SESSION_REGION_NAME = before
        logger.setLevel(level)


class _ManagedPolicies(dict[str, str]):
    """AWS's managed policies: every name is one, since nothing here reads them."""

    def get(self, name: str, default: object = None) -> str:
        return f"arn:aws:iam::aws:policy/{name}"

    def __bool__(self) -> bool:
        return True


def _explained(scope: Scope, causes: list[str]) -> TemplateError:
    """The error of all causes, at the line of the first resource that they name."""
    resources = scope.section("Resources")
    named = [name for cause in causes for name in re.findall(r"\[([A-Za-z0-9]+)\]", cause) if name in resources]
    line = line_of(resources, named[0]) if named else None
    return scope.error(line, "; ".join(causes))


def _keep_lines(scope: Scope, document: dict[str, Value]) -> None:
    """Put what the translator made in the template's order, at the lines it comes from.

    It comes from the resource whose logical id is the longest that its own begins with.
    """
    written = scope.section("Resources")
    order = {logical_id: index for index, logical_id in enumerate(written)}
    made = document["Resources"]
    origins = {logical_id: max(_origins(logical_id, written), key=len, default="") for logical_id in made}
    lines = {logical_id: line for logical_id, origin in origins.items() if (line := line_of(written, origin))}
    ordered = sorted(made, key=lambda logical_id: order.get(origins[logical_id], len(order)))
    items = {logical_id: made[logical_id] for logical_id in ordered}
    document["Resources"] = Located.at(line_of(scope.document, "Resources") or 1, items, lines)


def _origins(logical_id: str, written: Mapping[str, Value]) -> Iterator[str]:
    return (origin for origin in written if logical_id.startswith(origin))
