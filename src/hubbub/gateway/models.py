"""Models: whether a message's body is what its route asks for, before anything is called with it.

Source: developer guide, "Request validation for WebSocket APIs" and "Data models for REST APIs" (JSON schema draft 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.apigateway import DEFAULT, evaluate_selection

if TYPE_CHECKING:
    from jsonschema.protocols import Validator
    from referencing._core import Resolver
    from referencing.jsonschema import SchemaRegistry, SchemaResource

Schema = dict[str, Any]  # Any: JSON

ADDRESS = "https://apigateway.amazonaws.com/restapis/{api}/models/{name}"
"""How a model's schema refers to another of its API, in `$ref`."""


def body_validator(
    models: Mapping[str, Schema],
    selection_expression: str | None,
    *,
    named: Mapping[str, Schema] | None = None,
    api: str = "",
) -> Callable[[str], bool]:
    """Whether a body is what the model says that the selection expression chooses, as a function.

    The expression's value is a key of `models`, `$default` stands for what is none. Where there is no such model
    either, and for a body that is not JSON, the answer is no. Without an expression nothing is validated.

    Args:
        models: schemas by the keys of the route's `RequestModels`.
        selection_expression: the route's `ModelSelectionExpression`.
        named: all models of the API by their names, for `$ref`.
        api: the API's id, as `$ref` has it.

    Raises:
        ValueError: a model is no schema, or refers to something that is not there; its key is named.

    """
    registry = _registry(named or {}, api)
    validators = {key: _validator(f"the model {key!r}", schema, registry) for key, schema in models.items()}
    if selection_expression is None:
        return lambda body: True

    def accepts(body: str) -> bool:
        key = evaluate_selection(selection_expression, body)
        if key is None:
            return False
        validator = validators.get(key) or validators.get(DEFAULT)
        if validator is None:
            return False
        try:
            return validator.is_valid(msgspec.json.decode(body))
        except RecursionError:  # nested deeper than can be looked at, or a schema that refers to nothing but itself
            return False

    return accepts


def _registry(named: Mapping[str, Schema], api: str) -> SchemaRegistry:
    """What `$ref` can name: the API's models and draft 4 itself; nothing is fetched from anywhere."""
    from jsonschema import Draft4Validator
    from referencing.jsonschema import DRAFT4, EMPTY_REGISTRY

    known = {ADDRESS.format(api=api, name=name): _checked(f"the model {name!r}", it) for name, it in named.items()}
    known["http://json-schema.org/draft-04/schema"] = dict(Draft4Validator.META_SCHEMA)
    return EMPTY_REGISTRY.with_resources((address, DRAFT4.create_resource(it)) for address, it in known.items())


def _checked(what: str, schema: object) -> Schema:
    """The schema.

    Raises:
        ValueError: it is none.

    """
    from jsonschema import Draft4Validator, SchemaError

    if not isinstance(schema, dict):
        raise ValueError(f"{what}: expected a JSON schema, got {type(schema).__name__}")
    try:
        Draft4Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"{what}: expected a JSON schema of draft 4: {error.message} at {error.json_path}") from None
    return schema


def _validator(what: str, schema: object, registry: SchemaRegistry) -> Validator:
    from jsonschema import Draft4Validator
    from referencing.jsonschema import DRAFT4

    resource = DRAFT4.create_resource(_checked(what, schema))
    _follow(what, resource, registry.resolver_with_root(resource), set())
    return Draft4Validator(resource.contents, registry=registry)


def _follow(what: str, resource: SchemaResource, resolver: Resolver[Any], seen: set[int]) -> None:
    """Look up every `$ref` in a schema and in what it refers to, so that none is missed when a message comes.

    Raises:
        ValueError: one leads nowhere, or to what is no schema.

    """
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT4

    if id(resource.contents) in seen or not isinstance(resource.contents, dict):
        return
    seen.add(id(resource.contents))
    reference = resource.contents.get("$ref")
    if isinstance(reference, str):
        try:
            found = resolver.lookup(reference)
        except (Unresolvable, ValueError):  # the latter for what is no address
            raise ValueError(f"{what}: there is no {reference!r} that it refers to") from None
        there = DRAFT4.create_resource(_checked(f"{what}: {reference!r}", found.contents))
        _follow(what, there, found.resolver, seen)
        return  # in draft 4 nothing beside `$ref` counts
    for part in resource.subresources():
        _follow(what, part, resolver.in_subresource(part), seen)
