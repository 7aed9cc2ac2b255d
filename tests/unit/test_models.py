"""Models: which one a body is held against, and what that decides."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from hubbub.gateway.models import body_validator

Json = dict[str, Any]

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "maxLength": 5}}}
NUMBER = {"type": "object", "required": ["number"], "properties": {"number": {"type": "integer"}}}


def body(**fields: Any) -> str:
    return json.dumps(fields)


def test_the_expression_chooses_the_model():
    """Each key has its own; the body is read for the choice and for the check."""
    accepts = body_validator({"text": TEXT, "number": NUMBER}, "$request.body.kind")
    assert accepts(body(kind="text", text="hello"))
    assert not accepts(body(kind="text", number=1))
    assert accepts(body(kind="number", number=1))
    assert not accepts(body(kind="number", text="hello"))


def test_a_static_expression_chooses_always_the_same():
    """As do those that set `$default`."""
    for expression in ("text", "$default", r"\$default"):
        accepts = body_validator({expression.removeprefix("\\"): TEXT}, expression)
        assert accepts(body(text="hello"))
        assert not accepts(body(text="too long"))


def test_the_default_model_stands_for_what_there_is_none_for():
    """A kind that is unknown, or not given at all."""
    accepts = body_validator({"$default": TEXT, "number": NUMBER}, "$request.body.kind")
    for kind in ({"kind": "other"}, {"kind": ""}, {}):
        assert accepts(body(text="hello", **kind))
        assert not accepts(body(number=1, **kind))


def test_where_no_model_is_chosen_the_body_is_refused():
    """The developer guide: without a matching model and without `$default` the validation fails."""
    accepts = body_validator({"text": TEXT}, "$request.body.kind")
    assert not accepts(body(kind="other", text="hello"))
    assert not accepts(body(text="hello"))


def test_without_an_expression_nothing_is_validated():
    """Models alone do nothing, as the developer guide says; they must still be schemas."""
    accepts = body_validator({"$default": TEXT}, None)
    assert accepts(body())
    assert accepts("no JSON")
    with pytest.raises(ValueError, match="the model 'text'"):
        body_validator({"text": {"type": "words"}}, None)


@pytest.mark.parametrize("text", ["", "hello", "{", '{"kind": "any"} x', "NaN", '{"a": 1e999}'])
def test_a_body_that_is_not_json_is_refused(text: str):
    """Also where the model would take everything."""
    assert not body_validator({"$default": {}}, "$default")(text)


@pytest.mark.parametrize("text", ['"a"', "[]", "null", "0", "true"])
def test_a_body_need_not_be_an_object(text: str):
    """The model says what it must be."""
    assert body_validator({"$default": {}}, "$default")(text)
    assert not body_validator({"$default": {"type": "object"}}, "$default")(text)


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        ({"minimum": 5, "exclusiveMinimum": True}, 6, 5),
        ({"type": "integer"}, 1, 1.0),
        ({"enum": [1, "a", None]}, None, True),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, ["a", "b"], ["a", "a"]),
        ({"pattern": "^a+$"}, "aaa", "aab"),
        ({"oneOf": [{"type": "string"}, {"maximum": 3}]}, 2, 4),
        ({"required": ["a"], "additionalProperties": False, "properties": {"a": {}}}, {"a": 1}, {"a": 1, "b": 2}),
        ({"const": 1}, 2, None),
        ({"properties": {"a": {"$ref": "#/definitions/b"}}, "definitions": {"b": {"type": "null"}}}, {"a": None}, None),
    ],
)
def test_schemas_are_of_draft_4(schema: Json, yes: object, no: object):
    """`exclusiveMinimum` is a boolean there, 1.0 no integer, and `const` unknown."""
    accepts = body_validator({"$default": schema}, "$default")
    assert accepts(json.dumps(yes))
    if no is not None:
        assert not accepts(json.dumps(no))


# References


def test_a_model_may_refer_to_another_of_its_api():
    """By the address that AWS gives it, also over several steps and into a part."""
    address = "https://apigateway.amazonaws.com/restapis/abcdef1234/models"
    named = {
        "Message": {"type": "object", "required": ["to"], "properties": {"to": {"$ref": f"{address}/User"}}},
        "User": {"type": "string", "minLength": 2, "definitions": {"age": {"type": "integer"}}},
    }
    models = {"send": {"$ref": f"{address}/Message"}, "age": {"$ref": f"{address}/User#/definitions/age"}}
    sends = body_validator(models, "send", named=named, api="abcdef1234")
    assert sends(body(to="ann"))
    assert not sends(body(to="a"))
    assert not sends(body())
    ages = body_validator(models, "age", named=named, api="abcdef1234")
    assert ages("5")
    assert not ages('"5"')


def test_a_model_may_refer_to_itself():
    """A tree is held against its model down to the leaves."""
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}}, "additionalProperties": False}
    accepts = body_validator({"$default": tree}, "$default")
    assert accepts('{"left": {"left": {}}}')
    assert not accepts('{"left": {"left": {"right": 1}}}')
    assert not accepts('{"left":' * 900 + "{}" + "}" * 900)  # deeper than can be looked at


def test_a_model_that_is_nothing_but_itself_accepts_nothing():
    """It says nothing, and nobody is held up by it."""
    assert not body_validator({"$default": {"$ref": "#"}}, "$default")("{}")
    assert not body_validator({"$default": {"allOf": [{"$ref": "#"}]}}, "$default")("{}")


def test_a_part_that_is_called_ref_is_no_reference():
    """Names of properties and values to choose from are not followed."""
    schema = {"properties": {"$ref": {"type": "string"}}, "enum": [{"$ref": "nowhere"}]}
    assert body_validator({"$default": schema}, "$default")('{"$ref": "nowhere"}')


def test_what_stands_beside_a_reference_means_nothing():
    """So says draft 4; it need not even lead anywhere."""
    schema = {"$ref": "#/definitions/a", "items": {"$ref": "nowhere"}, "maxItems": 0, "definitions": {"a": {}}}
    assert body_validator({"$default": schema}, "$default")("[1]")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "words"}, "the model 'm': expected a JSON schema of draft 4: 'words' is not valid"),
        ({"pattern": "("}, "the model 'm': expected a JSON schema of draft 4: '(' is not a 'regex' at $.pattern"),
        ({"required": []}, "at $.required"),
        ({"minimum": 1, "exclusiveMinimum": 5}, "5 is not of type 'boolean' at $.exclusiveMinimum"),
        (["no"], "the model 'm': expected a JSON schema, got list"),
        ("{}", "the model 'm': expected a JSON schema, got str"),
        (True, "the model 'm': expected a JSON schema, got bool"),
        ({"$ref": "#/definitions/a"}, "the model 'm': there is no '#/definitions/a' that it refers to"),
        ({"items": {"$ref": "https://example.com/x"}}, "there is no 'https://example.com/x' that it refers to"),
        ({"$ref": "http://[x"}, "there is no 'http://[x' that it refers to"),
        ({"$ref": "#/required/x", "required": ["a"]}, "there is no '#/required/x' that it refers to"),
        ({"items": {"$ref": "#/title"}, "title": "t"}, "the model 'm': '#/title': expected a JSON schema, got str"),
        ({"items": {"$ref": "#/x"}, "x": {"type": "words"}}, "the model 'm': '#/x': expected a JSON schema of draft 4"),
    ],
)
def test_a_model_that_is_no_schema_is_named_when_it_is_made(schema: Any, words: str, monkeypatch: pytest.MonkeyPatch):
    """With what is wrong and where; nothing is fetched to find out."""
    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(ValueError) as refused:
        body_validator({"good": {}, "m": schema}, "m")
    assert words in str(refused.value)


def test_a_named_model_that_is_no_schema_is_named():
    """Also if nothing refers to it yet."""
    with pytest.raises(ValueError, match="the model 'User': expected a JSON schema"):
        body_validator({}, None, named={"User": {"type": "words"}}, api="a")
