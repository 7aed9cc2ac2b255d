"""Mapping templates: what `$input`, `$context`, `$stageVariables` and `$util` are in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hubbub.apigateway.selection import Variables
from hubbub.gateway.integrations.failures import MappingFailed
from hubbub.gateway.integrations.mapping import MappingTemplate, context_of
from integrationlab import an_event


def rendered(template: str, body: str | None = "{}", **event: Any) -> str:
    """What a request template makes of a message, or of a handshake."""
    variables = Variables(an_event(body, **event))
    return MappingTemplate("template", template).render(body or "", context_of(variables), variables)


@pytest.mark.parametrize(
    ("template", "body", "text"),
    [
        ("$input.body", '{"some": "value"}', '{"some": "value"}'),
        ("$input.body", "some raw data", "some raw data"),
        ("$input.body", "", "{}"),
        ("[$input.body.missing]", '{"missing":1}', "[]"),
        ("$input.json('$')", '{"a": {"b": [1, 2]}}', '{"a":{"b":[1,2]}}'),
        ("$input.json('$.a.b[1]')", '{"a": {"b": [1, 2]}}', "2"),
        ("$input.json('$.a')", '{"a":"ü/\\"x"}', '"ü/\\"x"'),
        ("$input.json('$.missing')", "{}", '""'),
        ("$input.json('$')", "no JSON", '""'),
        ("$input.path('$')", '{"foo":"bar","to":"test"}', "{foo=bar, to=test}"),
        ("$input.path('$')", '[{"foo":"bar"}]', '[{"foo":"bar"}]'),
        ("$input.path('$').foo", '{"foo":{"a":1}}', "{a=1}"),
        ("#set($r = $input.path('$'))$r[0]", '[{"foo":"bar"}]', "{foo=bar}"),
        ("#set($r = $input.path('$'))$r", '{"foo":[{"nested":"bar"}]}', '{foo=[{"nested":"bar"}]}'),
        ("$input.path('$').toString()", '{"list":[{"foo":"bar"}]}', '{list=[{"foo":"bar"}]}'),
        ("$input.path('$.items').size()-$input.path('$.items').count()", '{"items":[1,2,3]}', "3-3"),
        ("$input.path('$.items[?(@.n > 1)].k')", '{"items":[{"n":1,"k":"a"},{"n":2,"k":"b"}]}', '["b"]'),
        ("[$input.path('$.missing')][$input.path('$.a')]", '{"a":null}', "[][]"),
        ("[$input.path('$.x')]", "no JSON", "[]"),
        ("[$input.params('room')][$input.params().header]", "{}", "[][{}]"),
        ("$input.path(\"$.list[${input.path('$.at')}]\")", '{"list":["a","b"],"at":1}', "b"),
    ],
)
def test_input_is_the_body(template: str, body: str, text: str) -> None:
    """`$input` has the body as it came, as JSON and as values; what AWS made of these very cases is what is made."""
    assert rendered(template, body) == text


def test_input_compares_as_it_does_on_aws() -> None:
    """A missing path and null are null and the empty string at once; an empty list is neither."""
    template = (
        '#set($result = $input.path("$.v")){"body": $result, "nested": $result.nested, '
        '"isNull": #if( $result == $null )"true"#else"false"#end, '
        '"isEmpty": #if( $result == "" )"true"#else"false"#end}'
    )
    nothing = '{"body": , "nested": , "isNull": "true", "isEmpty": "true"}'
    assert rendered(template, "") == nothing
    assert rendered(template, '{"v":null}') == nothing
    assert rendered(template, '{"v":[]}') == '{"body": [], "nested": , "isNull": "false", "isEmpty": "false"}'


def test_params_are_those_of_the_handshake() -> None:
    """Query parameters before headers, headers in any case; all of them as maps; nothing for what is absent."""
    template = (
        "$input.params('room') $input.params('x-token') [$input.params('none')] $input.params().get('querystring') "
        "$input.params().header.get('X-Token') #foreach($kind in $input.params().keySet())$kind #end"
    )
    assert rendered(template, None, connect=True) == "two t [] {room=two} t path querystring header "
    both = {"headers": {"room": "header"}, "multi_value_headers": {"room": ["header"]}}
    assert rendered("$input.params('room')", None, connect=True, **both) == "two"


def test_context_is_the_request_context() -> None:
    """Strings and numbers of the event; an authorizer's values as strings; maps in it are written as nothing."""
    template = (
        "#set($by = $context.authorizer)#if($by.level == '3' && $by.trusted.length() == 4)$by.level#end "
        "$context.connectionId $context.connectedAt $context.domainName $context.eventType $context.messageId "
        "$context.routeKey $context.stage $context.apiId $context.identity.sourceIp $context.requestTime "
        "$context.authorizer.trusted $context.authorizer.ratio [$context][$context.identity][$context.identity.user]"
    )
    assert rendered(template) == (
        "3 C= 1708326702000 api.example.test MESSAGE M= send dev abc 192.0.2.1 19/Feb/2024:07:11:42 +0000 "
        "true 0.5 [][][]"
    )
    assert rendered("#set($ttl = $context.requestTimeEpoch + 86400)$ttl") == "1708326788767"


def test_stage_variables_are_there() -> None:
    """By name or by key; none where the stage has none."""
    template = "$stageVariables.env $stageVariables['env'] ${stageVariables['env']} $stageVariables.get('env')"
    assert rendered(template, stage_variables={"env": "test"}) == "test test test test"
    assert rendered("[$stageVariables.env]") == "[]"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("$util.escapeJavaScript($input.path('$.s'))", r"it\'s \"a\\b\"\/\n\t\u00FC\uD83D\uDE00\u007F"),
        ("""$util.escapeJavaScript($input.path('$.q')).replaceAll("\\\\'","'")""", "it's"),
        ("$util.escapeJavaScript($input.json('$.o'))", r"{\"k\":1}"),
        ("[$util.escapeJavaScript($missing)]", "[]"),
        ("$util.escapeJavaScript(5)", "5"),
        ("$util.urlEncode($input.path('$.u'))", "a+b%26c%3D%7E%2F*%C3%BC"),
        ("$util.urlDecode('a+b%26%C3%BC')", "a b&ü"),
        ("$util.urlEncode($input.body.missing)", ""),
        ("$util.base64Encode('ü')", "w7w="),
        ("$util.base64Decode('w7w=')$util.base64Decode('w7w')", "üü"),
        ("$util.parseJson($input.path('$.j')).key2.arr[0]", "1"),
        ("#set($e = $util.parseJson('[1]'))$e.size()", "1"),
        ('$util.urlEncode($input.json($util.escapeJavaScript("$").replaceAll("\\\\\'","\'")))', None),
        ("[$util.toJson($input.path('$'))]", "[]"),
    ],
)
def test_util_has_awss_functions(template: str, text: str | None) -> None:
    """Escaping, URLs, base64 and JSON as in the reference; a function that there is not is nothing."""
    body = json.dumps(
        {
            "s": 'it\'s "a\\b"/\n\tü😀\x7f',
            "q": "it's",
            "o": {"k": 1},
            "u": "a b&c=~/*ü",
            "j": '{"key1":"var1","key2":{"arr":[1,2,3]}}',
        }
    )
    made = rendered(template, body)
    if text is None:
        assert made.startswith("%7B%22s%22%3A%22it%27s+")
    else:
        assert made == text


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("\n\n$util.parseJson('{')", "the template, line 3: .parseJson(…) failed: expected JSON, got '{'"),
        ("$util.base64Decode('a!')", "expected base64, got 'a!'"),
        ("a\n$input.path('$[')", "the template, line 2: .path(…) failed"),
        ("#if(", "the template, line 1: expected a value"),
        ("x" * (300 * 1024 + 1), "the template has 307201 bytes; at most 307200 are allowed"),
    ],
)
def test_a_template_that_fails_names_itself_and_its_line(template: str, problem: str) -> None:
    """The error has the template's name, the line and what was wrong."""
    with pytest.raises(MappingFailed) as caught:
        rendered(template)
    assert problem in str(caught.value)


def test_the_passthrough_template_of_the_console_makes_json() -> None:
    """The template that AWS's console offers, of maps, loops and defaults, makes JSON of a handshake."""
    template = """#set($allParams = $input.params())
{
"body-json" : $input.json('$'),
"params" : {
#foreach($type in $allParams.keySet())
    #set($params = $allParams.get($type))
"$type" : {
    #foreach($paramName in $params.keySet())
    "$paramName" : "$util.escapeJavaScript($params.get($paramName))"
        #if($foreach.hasNext),#end
    #end
}
    #if($foreach.hasNext),#end
#end
},
"stage-variables" : {
#foreach($key in $stageVariables.keySet())
"$key" : "$util.escapeJavaScript($stageVariables.get($key))"
    #if($foreach.hasNext),#end
#end
},
"context" : {
    "stage" : "$context.stage",
    "cognito-identity-id" : "$context.identity.cognitoIdentityId",
    "source-ip" : "$context.identity.sourceIp"
    }
}
"""
    made = json.loads(rendered(template, None, connect=True, stage_variables={"a": "1", "b": '"2"'}))
    assert made == {
        "body-json": "",
        "params": {"path": {}, "querystring": {"room": "two"}, "header": {"X-Token": "t", "Accept": "b"}},
        "stage-variables": {"a": "1", "b": '"2"'},
        "context": {"stage": "dev", "cognito-identity-id": "", "source-ip": "192.0.2.1"},
    }
