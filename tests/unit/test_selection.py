"""Selection expressions and mapping sources of every kind, and the JSONPath behind them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.apigateway import Event, Identity, RequestContext, evaluate_selection
from hubbub.apigateway.jsonpath import MISSING, PathError, find
from hubbub.apigateway.selection import Answer, Variables, evaluate

CONTEXT = RequestContext(
    route_key="$connect",
    event_type="CONNECT",
    extended_request_id="R=",
    request_id="R=",
    request_time="19/Feb/2024:07:11:42 +0000",
    stage="dev",
    connected_at=1,
    request_time_epoch=2,
    identity=Identity("192.0.2.1", "tester"),
    domain_name="example.test",
    connection_id="C=",
    api_id="abc",
    authorizer={"principalId": "ann", "level": 3, "trusted": True, "usage-key": "k"},
)

CONNECT = Event(
    request_context=CONTEXT,
    headers={"X-Api-Key": "secret", "Accept": "b"},
    multi_value_headers={"X-Api-Key": ["secret"], "Accept": ["a", "b"]},
    query_string_parameters={"room": "two"},
    multi_value_query_string_parameters={"room": ["one", "two"]},
    stage_variables={"env": "test", "my-var": "v"},
)

MESSAGE = Event(request_context=CONTEXT, body='{"action":"send","to":{"ids":[1,2]}}')

ANSWER = Answer(
    status=404,
    headers=[("Content-Type", "application/json"), ("Set-Cookie", "a"), ("set-cookie", "b")],
    body=b'{"errorMessage":"no such room","list":["x"]}',
)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("$request.header.x-api-key", "secret"),
        ("${request.header.X-API-KEY}", "secret"),
        ("$request.header.accept", "b"),
        ("$request.multivalueheader.Accept", "a,b"),
        ("$request.header.missing", ""),
        ("room-$request.querystring.room", "room-two"),
        ("${request.multivaluequerystring.room}", "one,two"),
        ("${request.querystring.ROOM}", ""),
        ("$context.authorizer.principalId", "ann"),
        ("$context.authorizer.level/$context.authorizer.trusted", "3/true"),
        ("$context.authorizer.usage-key", "k"),
        ("$context.identity.sourceIp", "192.0.2.1"),
        ("$context.nothing.here", ""),
        ("${stageVariables.env}-$stageVariables.my-var", "test-v"),
        ("${stageVariables['my-var']}", "v"),
        ("$stageVariables.missing", ""),
        ("$request.body.action", ""),
        ("$request.basepath", "v1"),
        ("$integration.response.statuscode", "404"),
        ("${response.statuscode}", "404"),
        ("$integration.response.body.errorMessage", "no such room"),
        ("${integration.response.body.list[0]}", "x"),
        ("${integration.response.header.content-type}", "application/json"),
        ("${integration.response.header.SET-COOKIE}", "b"),
        ("${integration.response.multivalueheader.Set-Cookie}", "a,b"),
        (r"\$default", "$default"),
        (r"\$context.stage is $context.stage", "$context.stage is dev"),
        ("static", "static"),
        ("$contextual ${nothing} $requestbody", "$contextual ${nothing} $requestbody"),
    ],
)
def test_an_expression_has_what_its_variables_stand_for(expression: str, value: str) -> None:
    """Headers in any case, query, context, stage variables, the answer's status, headers and body; else nothing."""
    assert evaluate(expression, Variables(CONNECT, answer=ANSWER, base_path="v1").value_of) == value


def test_a_message_has_its_body_and_no_headers() -> None:
    """Paths reach into the body; what only a handshake has is empty."""
    of_message = Variables(MESSAGE).value_of
    assert evaluate("${request.body.action}:${request.body.to.ids[1]}", of_message) == "send:2"
    assert evaluate("$request.header.accept$request.querystring.a$integration.response.statuscode", of_message) == ""
    assert evaluate("$request.body.action", Variables(Event(request_context=CONTEXT, body="no JSON")).value_of) == ""


def test_a_context_and_headers_may_be_given_without_an_event() -> None:
    """What an authorizer said before there was an event counts where it is given."""
    variables = Variables(context={"authorizer": {"usageIdentifierKey": "k1"}}, headers={"X-Api-Key": "k2"})
    assert evaluate("$context.authorizer.usageIdentifierKey", variables.value_of) == "k1"
    assert evaluate("$request.header.x-api-key", variables.value_of) == "k2"


def test_an_expression_asks_a_function_for_its_variables() -> None:
    """Any function can say what variables stand for; they are named as written, without the dollar."""
    asked: list[str] = []

    def value_of(source: str) -> str | None:
        asked.append(source)
        return None if source.endswith("b") else source.upper()

    expected = "REQUEST.HEADER.A//"
    assert evaluate("$request.header.a/${context.b}/", value_of) == expected
    assert asked == ["request.header.a", "context.b"]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("context.connectionId", "C="),
        ("route.request.header.x-api-key", "secret"),
        ("route.request.querystring.room", "two"),
        ("route.request.multivaluequerystring.room", "one,two"),
        ("stageVariables.env", "test"),
        ("integration.response.header.Content-Type", "application/json"),
        ("integration.response.body.errorMessage", "no such room"),
        ("'it''s'", "it''s"),
        ("''", ""),
        ("route.request.header.absent", None),
        ("context.authorizer.absent", None),
        ("route.request.body.a", None),
    ],
)
def test_a_mapping_source_has_a_value_or_none(source: str, value: str | None) -> None:
    """Sources of parameter mappings are named as in API Gateway, static ones in single quotes; absent is None."""
    assert Variables(CONNECT, answer=ANSWER).value_of(source) == value


@pytest.mark.parametrize("source", ["", "static", "route.request.cookie.a", "$context.stage", "'"])
def test_an_unknown_source_is_named(source: str) -> None:
    """A source that there is not is an error that says what was given and what there is."""
    with pytest.raises(ValueError, match=r"stageVariables\.NAME.* got"):
        Variables(CONNECT).value_of(source)


def test_a_route_may_be_selected_with_any_path() -> None:
    """After `request.body` there may be wildcards, filters and quoted names; a variable without a body is empty."""
    body = json.dumps({"items": [{"k": "a"}, {"k": "b", "on": True}], "a b": "c"})
    assert evaluate_selection("${request.body.items[-1].k}", body) == "b"
    assert evaluate_selection("${request.body.items[*].k}", body) == '["a","b"]'
    assert evaluate_selection("${request.body['a b']}", body) == "c"
    assert evaluate_selection("$request.body['a b']", body) == "c"
    assert evaluate_selection("${request.body.items[?(@.on)].k}", body) == '["b"]'
    assert evaluate_selection("x-$context.stage", body) == "x-"
    assert evaluate_selection("${request.body.items[}", body) == ""


STORE = {
    "book": [
        {"kind": "reference", "by": "Nigel Rees", "price": 8.95},
        {"kind": "fiction", "by": "Evelyn Waugh", "price": 12.5, "isbn": "x"},
        {"kind": "fiction", "by": "Herman Melville", "price": 9, "isbn": "y"},
    ],
    "bicycle": {"colour": "red", "price": 20},
    "limit": 10,
    "flags": [True, 1, 0, False],
    "null": None,
    "a-b": True,
    "odd 'name'": 1,
    "length": "own",
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", STORE),
        ("", STORE),
        ("$.bicycle.colour", "red"),
        ("bicycle.colour", "red"),
        (".bicycle['colour']", "red"),
        ("$.['bicycle'].colour", "red"),
        ('$["bicycle"]["colour"]', "red"),
        (r"$['odd \'name\'']", 1),
        ("$.a-b", True),
        ("$.length", "own"),
        ("$.book[0].by", "Nigel Rees"),
        ("$.book[-1].by", "Herman Melville"),
        ("$.book[3]", MISSING),
        ("$.book[-4]", MISSING),
        ("$.book.by", MISSING),
        ("$.bicycle[0]", MISSING),
        ("$.null", None),
        ("$.null.deeper", MISSING),
        ("$.missing", MISSING),
        ("$.book[*].price", [8.95, 12.5, 9]),
        ("$.bicycle.*", ["red", 20]),
        ("$..price", [8.95, 12.5, 9, 20]),
        ("$..book[1].by", ["Evelyn Waugh"]),
        ("$.book..by", ["Nigel Rees", "Evelyn Waugh", "Herman Melville"]),
        ("$.book[0,2].price", [8.95, 9]),
        ("$.book[:2].price", [8.95, 12.5]),
        ("$.book[-2:].price", [12.5, 9]),
        ("$.book[::2].price", [8.95, 9]),
        ("$.bicycle[0:1]", []),
        ("$.bicycle['colour','none']", {"colour": "red"}),
        ("$.book[0]['by','kind']", {"by": "Nigel Rees", "kind": "reference"}),
        ("$.book[*]['price','isbn']", [{"price": 8.95}, {"price": 12.5, "isbn": "x"}, {"price": 9, "isbn": "y"}]),
        ("$.book[?(@.isbn)].price", [12.5, 9]),
        ("$.book[?(!@.isbn)].price", [8.95]),
        ("$.book[?(@.price<10)].price", [8.95, 9]),
        ("$.book[?(@.price <= $.limit && @.kind == 'fiction')].price", [9]),
        ("$.book[?(@.price>12||(@.kind!='fiction' && @['price']>=8))].price", [8.95, 12.5]),
        ("$.book[?(@.by =~ /.*rees/i)].price", [8.95]),
        ("$.book[?(@.by =~ /rees/)].price", []),
        ('$.book[?(@.kind in ["reference", "x"])].price', [8.95]),
        ("$.book[?(@.kind nin ['reference'])].price", [12.5, 9]),
        ("$.book[?(@.by contains 'Waugh')].price", [12.5]),
        ("$.book[?(@.by size 10)].price", [8.95]),
        ("$.book[?(@.isbn empty false)].price", [12.5, 9]),
        ("$.bicycle[?(@.colour == 'red')].price", [20]),
        ("$..[?(@.price == 20)].colour", ["red"]),
        ("$.flags[?(@ == true)]", [True]),
        ("$.flags[?(@ == 1)]", [1]),
        ("$.flags[?(@ < 1)]", [0]),
        ("$.book.length()", 3),
        ("$.book.size()", 3),
        ("$.bicycle.keys()", ["colour", "price"]),
        ("$.book[*].price.max()", 12.5),
        ("$.book[*].price.min()", 8.95),
        ("$.book[1:].price.sum()", 21.5),
        ("$.book[1:].price.avg()", 10.75),
        ("$.missing.length()", MISSING),
        ("$.limit.length()", MISSING),
    ],
)
def test_a_path_finds_what_is_there(path: str, found: Any) -> None:
    """A path that can find one thing gives it or nothing, any other gives a list; functions come last."""
    assert find(path, STORE) == found


@pytest.mark.parametrize(
    "path",
    ["$.", "$..", "$[", "$[]", "$['a", "$.a b", "$[?(@.a", "$[?(@.a ==)]", "$[?(@.a =~ x)]", "$[?(@.a =~ /(/)]", "$a["],
)
def test_a_path_that_cannot_be_read_says_where(path: str) -> None:
    """The error has the path in it."""
    with pytest.raises(PathError) as caught:
        find(path, {})
    assert repr(path) in str(caught.value)


def test_a_path_of_absurd_depth_cannot_be_read() -> None:
    """A filter of thousands of parentheses is an error as any other."""
    with pytest.raises(PathError, match="fewer parentheses"):
        find("$[?(" + "(" * 5_000 + "@.a" + ")" * 5_000 + ")]", {})


@given(st.text(alphabet="$.[]'*?(@)=ab0-:,!&|/ ", max_size=25), st.sampled_from([STORE, [1, [2]], "text", None]))
def test_no_path_fails_otherwise(path: str, document: Any) -> None:
    """Whatever a path is, it finds something, finds nothing, or cannot be read."""
    with contextlib.suppress(PathError):
        find(path, document)
