"""The whole template of a service: what its functions and events make, and its own resources put into that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless.document import Listing, Place, Section, Text, copy_of, walk
from hubbub.emulator.template.serverless.draft import Draft
from hubbub.emulator.template.serverless.expect import as_section, section_at
from hubbub.emulator.template.serverless.merging import merge
from hubbub.emulator.template.serverless.packaged import BUCKET
from hubbub.emulator.template.serverless.service import Service
from hubbub.emulator.template.source import Located

_REPLACED = ("Condition", "CreationPolicy", "DeletionPolicy", "UpdatePolicy", "UpdateReplacePolicy")


def assembled(service: Service, draft: Draft) -> Located:
    """The draft with the service's own resources put into it.

    Raises:
        TemplateError: `resources` is not what it should be.

    """
    place = Place(service.path, 1)
    exports = {
        key: output | {"Export": {"Name": f"sls-{service.name}-{service.stage}-{key}"}}
        for key, output in draft.outputs.items()
    }
    whole = _with_places({"Resources": draft.resources, "Outputs": exports}, place)
    own = copy_of(service.resources)
    extensions = section_at(own, "extensions")
    own.pop("extensions", None)
    merge(whole, own)
    resources = section_at(whole, "Resources")
    _extend(resources, extensions)
    for key, resource in resources.items():
        _strip(as_section(resource, resources.place_of(key), f"the resource {key}").get("Properties"))
    if BUCKET not in resources and any(value == BUCKET for value in walk(whole)):
        resources.put(BUCKET, _with_places({"Type": "AWS::S3::Bucket"}, place), place)
    if "serverless-pseudo-parameters" in service.plugins:
        whole = _with_pseudo_parameters(whole)
    located = _located(whole, service.path)
    assert isinstance(located, Located)  # noqa: S101  for the type checker: the whole is of the service's own file
    return located


def _with_places(value: Any, place: Place) -> Any:  # Any: CloudFormation's document
    """The value as if it had been read from a place; what was read keeps its own."""
    if isinstance(value, Section | Listing):
        return copy_of(value)
    if isinstance(value, dict):
        section = Section(place)
        for key, item in value.items():
            section.put(key, _with_places(item, place), place)
        return section
    if isinstance(value, list):
        listing = Listing(place)
        for item in value:
            listing.put(_with_places(item, place), place)
        return listing
    return value


def _extend(resources: Section, extensions: Section) -> None:
    """Apply `resources.extensions`, which changes what the framework has made."""
    for name, extension in extensions.items():
        place = extensions.place_of(name)
        if name not in resources:
            raise TemplateError(*place, f"there is no resource {name} that extensions could change")
        for key, value in as_section(extension, place, f"the extension of {name}").items():
            _extend_key(resources[name], key, value, extension.place_of(key))


def _extend_key(resource: Section, key: str, value: Any, place: Place) -> None:  # Any: CloudFormation's document
    if key in _REPLACED:
        resource.put(key, value, place)
    elif key in ("Properties", "Metadata"):
        target = section_at(resource, key)
        for name, item in as_section(value, place, key).items():
            target.put(name, item, value.place_of(name))
        resource.put(key, target, resource.place_of(key))
    elif key == "DependsOn":
        listing = Listing(place)
        for item in (*_items(resource.get(key)), *_items(value)):
            listing.put(item, place)
        resource.put(key, listing, place)
    else:
        raise TemplateError(*place, f"extensions cannot change {key}")


def _items(value: Any) -> list[Any]:  # Any: CloudFormation's document
    return value if isinstance(value, list) else [] if value is None else [value]


def _strip(value: Any) -> None:  # Any: CloudFormation's document
    """Leave out whatever is null."""
    if isinstance(value, dict):
        for key in [key for key, item in value.items() if item is None]:
            del value[key]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _strip(item)


def _with_pseudo_parameters(value: Any) -> Any:  # Any: CloudFormation's document
    """The value as serverless-pseudo-parameters would leave it: `#{AWS::Region}` in a text makes Fn::Sub of it."""
    if isinstance(value, Section):
        for key, item in value.items():
            is_template = key == "Fn::Sub" and isinstance(item, Text)
            value[key] = Text(item.replace("#{", "${"), item.place) if is_template else _with_pseudo_parameters(item)
        return value
    if isinstance(value, Listing):
        value[:] = [_with_pseudo_parameters(item) for item in value]
        return value
    if not isinstance(value, Text) or "#{" not in value:
        return value
    section = Section(value.place)
    section.put("Fn::Sub", Text(value.replace("#{", "${"), value.place), value.place)
    return section


def _located(value: Any, path: Path) -> Any:  # Any: CloudFormation's document
    """The value as the mapping to a stack takes it: lines of the service's own file, plain strings."""
    if isinstance(value, Section):
        items = {key: _located(item, path) for key, item in value.items()}
        places = {key: value.place_of(key) for key in value}
        lines = {key: place.line for key, place in places.items() if place.line and place.path == path}
        line = value.place.line if value.place.path == path else None
        return Located.at(line, items, lines) if line else items
    if isinstance(value, list):
        return [_located(item, path) for item in value]
    return str(value) if isinstance(value, Text) else value
