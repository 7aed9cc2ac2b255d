"""REQUEST authorizers: when the function is asked, what its policy means, and what is made of everything else."""

from __future__ import annotations

import json
import time
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.apigateway import Event, Identity, Refused, RequestContext, Unauthorized
from hubbub.gateway.authorizers import MAX_RESULT_BYTES, request_authorizer
from hubbub.gateway.integrations import Invoked
from hubbub.gateway.integrations.failures import FunctionFailed
from hubbub.gateway.policies import Verdict, judge, matches

ARN = "arn:aws:execute-api:us-east-1:123456789012:abcdef1234/prod/$connect"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:auth"
Json = dict[str, Any]


def handshake(**changes: Any) -> Event:
    """What an authorizer is given for a handshake from 203.0.113.7."""
    context = RequestContext(
        route_key="$connect",
        event_type="CONNECT",
        extended_request_id="R0oXAdfD0kwCH6w=",
        request_time="19/Feb/2024:07:11:42 +0000",
        stage="prod",
        connected_at=1,
        request_time_epoch=1,
        identity=Identity("203.0.113.7", "curl/8"),
        request_id="R0oXAdfD0kwCH6w=",
        domain_name="example.com",
        connection_id="TXzPWdnOjoECGjA=",
        api_id="abcdef1234",
    )
    fields = {
        "type": "REQUEST",
        "method_arn": ARN,
        "headers": {"Authorization": "secret", "Empty": ""},
        "query_string_parameters": {"token": "t", "empty": ""},
        "stage_variables": {"table": "Users", "empty": ""},
        "request_context": context,
        **changes,
    }
    return Event(**fields)


def policy(effect: str = "Allow", resource: Any = ARN, action: Any = "execute-api:Invoke", **more: Any) -> Json:
    """A policy of one statement."""
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": effect, "Action": action, "Resource": resource, **more}],
    }


class Function:
    """The function behind an authorizer, which answers what a test says.

    Attributes:
        asked: the events that it was given.

    """

    def __init__(self, answer: object = None, error: str | None = None) -> None:
        self.asked: list[Json] = []
        self._payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self._error = error

    async def invoke(self, function: str, payload: bytes) -> Invoked:
        """Calls it."""
        assert function == FUNCTION
        self.asked.append(json.loads(payload))
        return Invoked(self._payload, self._error)


def says(policy_document: object, **more: Any) -> Function:
    """A function that answers with a policy."""
    return Function({"principalId": "ann", "policyDocument": policy_document, **more})


async def ask(function: Function, event: Event | None = None, *sources: str) -> Json:
    """The context that an authorizer with this function makes of a handshake."""
    return await request_authorizer(FUNCTION, function.invoke, identity_sources=sources)(event or handshake())


# What it is given and gives


async def test_the_function_is_given_the_whole_event():
    """Its payload is the event's JSON, which has the type and the method's ARN."""
    function = says(policy())
    await ask(function)
    assert function.asked == [json.loads(msgspec.json.encode(handshake()))]
    assert function.asked[0]["methodArn"] == ARN
    assert function.asked[0]["type"] == "REQUEST"


async def test_the_context_has_the_principal_and_all_that_the_function_adds():
    """Texts, numbers and booleans stay what they are; the usage plan's key is kept; the principal cannot be set."""
    context = {"name": "Ann", "age": 7, "share": 0.5, "admin": True, "principalId": "another"}
    function = says(policy(), context=context, usageIdentifierKey="key-1")
    assert await ask(function) == {**context, "principalId": "ann", "usageIdentifierKey": "key-1"}
    assert await ask(says(policy())) == {"principalId": "ann"}
    assert await ask(says(policy(), context=None)) == {"principalId": "ann"}


# Identity sources


@pytest.mark.parametrize(
    "source",
    [
        "route.request.header.authorization",
        "route.request.header.AUTHORIZATION",
        "route.request.querystring.token",
        "stageVariables.table",
        "context.connectionId",
        "context.identity.sourceIp",
    ],
)
async def test_the_function_is_asked_where_its_identity_source_is_there(source: str):
    """Headers are found in any spelling, the context also in its depth."""
    function = says(policy())
    await ask(function, None, source)
    assert len(function.asked) == 1


@pytest.mark.parametrize(
    "source",
    [
        "route.request.header.X-Token",
        "route.request.header.Empty",
        "route.request.querystring.Token",
        "route.request.querystring.empty",
        "stageVariables.Table",
        "stageVariables.empty",
        "context.messageId",
        "context.connectionId.x",
        "context.identity.nothing.there",
    ],
)
async def test_a_missing_or_empty_identity_source_is_401_without_asking(source: str):
    """One that lacks is enough; the client gets AWS's document."""
    function = says(policy())
    with pytest.raises(Unauthorized) as refused:
        await ask(function, None, "route.request.querystring.token", source)
    assert (refused.value.status, refused.value.body) == (401, b'{"message":"Unauthorized"}')
    assert function.asked == []


async def test_a_handshake_without_anything_lacks_every_identity_source():
    """No headers, no query and no variables are no error."""
    bare = handshake(headers=None, query_string_parameters=None, stage_variables=None)
    for source in ("route.request.header.a", "route.request.querystring.a", "stageVariables.a"):
        with pytest.raises(Unauthorized):
            await ask(says(policy()), bare, source)


@pytest.mark.parametrize("source", ["", "header.X", "method.request.header.X", "route.request.header.", "$context.x"])
def test_an_identity_source_that_is_none_is_named(source: str):
    """When the authorizer is made, not when somebody comes."""
    with pytest.raises(ValueError, match=r"identity source: expected route\.request\.header\.NAME") as refused:
        request_authorizer(FUNCTION, Function().invoke, identity_sources=[source])
    assert str(refused.value).endswith(f"got {source!r}")


# Policies


@pytest.mark.parametrize(
    "resource",
    [
        ARN,
        "*",
        "arn:aws:execute-api:*",
        "arn:aws:execute-api:*:*:*",
        "arn:aws:execute-api:us-east-?:*:abcdef1234/*",
        "arn:aws:execute-api:us-east-1:123456789012:abcdef1234/prod/*",
        "arn:aws:execute-api:us-east-1:123456789012:*/prod/$connect",
        ["arn:aws:s3:::bucket", ARN],
    ],
)
async def test_a_policy_that_allows_the_method_lets_in(resource: Any):
    """By its ARN, by wildcards, or by one of a list."""
    assert await ask(says(policy(resource=resource))) == {"principalId": "ann"}


@pytest.mark.parametrize("action", ["execute-api:Invoke", "EXECUTE-API:INVOKE", "execute-api:*", "*", ["s3:Get*", "*"]])
async def test_the_action_may_be_written_in_several_ways(action: Any):
    """IAM compares actions without case."""
    assert await ask(says(policy(action=action))) == {"principalId": "ann"}


@pytest.mark.parametrize(
    "document",
    [
        policy(resource="arn:aws:execute-api:us-east-1:123456789012:abcdef1234/prod/*/*"),
        policy(resource="arn:aws:execute-api:us-east-1:123456789012:abcdef1234/dev/*"),
        policy(resource=ARN.upper()),
        policy(action="execute-api:ManageConnections"),
        policy(resource=[]),
        {"Version": "2012-10-17", "Statement": []},
        policy(effect="Deny", resource="arn:aws:execute-api:*/dev/*"),
    ],
)
async def test_a_policy_that_does_not_allow_the_method_is_403(document: Json):
    """`prod/*/*` has one slash more than `prod/$connect`: the usual mistake."""
    with pytest.raises(Refused) as refused:
        await ask(says(document))
    assert refused.value.status == 403
    assert json.loads(refused.value.body) == {"Message": "User is not authorized to access this resource"}


async def test_an_explicit_deny_wins_and_says_so():
    """Whichever statement comes first."""
    statements = [policy("Allow", "*")["Statement"][0], policy("Deny", "*/prod/*")["Statement"][0]]
    for order in (statements, statements[::-1]):
        with pytest.raises(Refused) as refused:
            await ask(says({"Version": "2012-10-17", "Statement": order}))
        assert refused.value.status == 403
        assert json.loads(refused.value.body) == {
            "Message": "User is not authorized to access this resource"
            " with an explicit deny in an identity-based policy"
        }


async def test_one_statement_needs_no_list():
    """A policy's Statement may be the object itself."""
    (statement,) = policy()["Statement"]
    assert await ask(says({"Version": "2012-10-17", "Statement": statement})) == {"principalId": "ann"}


def decide(**statement: Any) -> Verdict:
    """What a policy of that statement says of the handshake."""
    facts = {"aws:sourceip": "203.0.113.7", "aws:useragent": "curl/8", "aws:epochtime": "1700000000"}
    facts |= {"aws:securetransport": "true", "aws:currenttime": "2023-11-14T22:13:20+00:00"}
    document = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", **statement}}
    return judge(document, action="execute-api:Invoke", resource=ARN, facts=facts)


def test_a_statement_may_speak_of_all_but_something():
    """NotAction and NotResource are the opposites of what they replace."""
    base = {"Effect": "Allow"}
    for action, resource, allowed in [
        ({"NotAction": "s3:*"}, {"Resource": "*"}, True),
        ({"NotAction": "execute-api:*"}, {"Resource": "*"}, False),
        ({"Action": "*"}, {"NotResource": "*/dev/*"}, True),
        ({"Action": "*"}, {"NotResource": ["*/dev/*", "*/prod/*"]}, False),
    ]:
        document = {"Statement": {**base, **action, **resource}}
        verdict = judge(document, action="execute-api:Invoke", resource=ARN, facts={})
        assert (verdict is Verdict.ALLOWED) is allowed, document


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({}, True),
        ({"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}, True),
        ({"IpAddress": {"AWS:SOURCEIP": ["10.0.0.0/8", "203.0.113.7"]}}, True),
        ({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "2001:db8::/32"]}}, False),
        ({"NotIpAddress": {"aws:SourceIp": ["10.0.0.0/8", "203.0.113.7/32"]}}, False),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, True),
        ({"StringEquals": {"aws:UserAgent": "curl/8"}}, True),
        ({"StringEquals": {"aws:UserAgent": "CURL/8"}}, False),
        ({"StringEqualsIgnoreCase": {"aws:UserAgent": "CURL/8"}}, True),
        ({"StringNotEqualsIgnoreCase": {"aws:UserAgent": "CURL/8"}}, False),
        ({"StringNotEquals": {"aws:UserAgent": ["curl/8", "x"]}}, False),
        ({"StringLike": {"aws:UserAgent": "curl/*"}}, True),
        ({"StringNotLike": {"aws:UserAgent": "curl/?"}}, False),
        ({"Bool": {"aws:SecureTransport": True}}, True),
        ({"Bool": {"aws:SecureTransport": "false"}}, False),
        ({"NumericLessThan": {"aws:EpochTime": 1700000001}}, True),
        ({"NumericGreaterThanEquals": {"aws:EpochTime": "1700000001"}}, False),
        ({"NumericNotEquals": {"aws:EpochTime": "1700000000.0"}}, False),
        ({"DateGreaterThan": {"aws:CurrentTime": "2023-11-14T22:13:19Z"}}, True),
        ({"DateLessThanEquals": {"aws:CurrentTime": "2023-11-14T22:13:20Z"}}, True),
        ({"DateLessThan": {"aws:CurrentTime": "1700000000"}}, False),
        ({"DateEquals": {"aws:CurrentTime": "2023-11-14T23:13:20+01:00"}}, True),
        ({"IpAddress": {"aws:SourceIp": "203.0.113.7"}, "StringEquals": {"aws:UserAgent": "x"}}, False),
        ({"StringEquals": {"aws:UserAgent": "curl/8", "aws:Referer": "x"}}, False),
        ({"StringEquals": {"aws:Referer": "x"}}, False),
        ({"StringNotEquals": {"aws:Referer": "x"}}, True),
        ({"StringEqualsIfExists": {"aws:Referer": "x"}}, True),
        ({"StringEqualsIfExists": {"aws:UserAgent": "x"}}, False),
        ({"ForAllValues:StringEquals": {"aws:Referer": "x"}}, True),
        ({"ForAnyValue:StringNotEquals": {"aws:Referer": "x"}}, False),
        ({"ForAnyValue:StringLike": {"aws:UserAgent": ["x", "curl*"]}}, True),
        ({"Null": {"aws:Referer": "true", "aws:UserAgent": "false"}}, True),
        ({"Null": {"aws:UserAgent": True}}, False),
        ({"ArnLike": {"aws:SourceArn": "*"}}, False),
    ],
)
def test_a_statement_counts_where_its_condition_holds(condition: Json, holds: bool):
    """All operators and keys must hold, one value of each will do, and what is missing fails what is not negated."""
    assert (decide(Condition=condition) is Verdict.ALLOWED) is holds
    assert (decide(Condition=condition, Effect="Deny") is Verdict.DENIED) is holds


def test_a_date_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch):
    """Wherever the machine is."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert decide(Condition={"DateEquals": {"aws:CurrentTime": "2023-11-14T22:13:20"}}) is Verdict.ALLOWED
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_conditions_are_asked_of_the_handshake_itself():
    """Address, program, referer and time are the client's and the moment's."""
    soon = int(time.time()) + 100
    condition = {
        "IpAddress": {"aws:SourceIp": "203.0.113.7"},
        "StringEquals": {"aws:UserAgent": "curl/8", "aws:Referer": "https://example.com/"},
        "NumericLessThan": {"aws:EpochTime": soon},
        "DateLessThan": {"aws:CurrentTime": soon},
        "DateGreaterThan": {"aws:CurrentTime": soon - 200},
        "Bool": {"aws:SecureTransport": "true"},
    }
    event = handshake(headers={"REFERER": "https://example.com/"})
    assert await ask(says(policy(Condition=condition)), event) == {"principalId": "ann"}
    with pytest.raises(Refused):
        await ask(says(policy(Condition=condition)))


# Against a model that is written in another way


def model_matches(pattern: str, text: str) -> bool:
    """Wildcards by their definition."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(model_matches(pattern[1:], text[cut:]) for cut in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and model_matches(pattern[1:], text[1:])


def words(letters: str, longest: int) -> list[str]:
    """All words of these letters up to a length."""
    return ["".join(word) for length in range(longest + 1) for word in product(letters, repeat=length)]


def test_wildcards_match_as_they_are_defined():
    """`*` stands for any characters, `?` for exactly one: in every short pattern, for every short text."""
    for pattern in words("ab*?", 4):
        for text in words("ab", 4):
            assert matches(pattern, text) is model_matches(pattern, text), (pattern, text)


def test_a_pattern_of_many_wildcards_holds_nobody_up():
    """What would take a backtracking matcher for ever is decided at once."""
    assert not matches("a*" * 2_000 + "b", "a" * 4_000)


ACTIONS = st.sampled_from(["*", "execute-api:Invoke", "execute-api:*", "s3:GetObject"])
RESOURCES = st.sampled_from(["*", ARN, "*/prod/*", "*/dev/*", "*/prod/*/*"])


def listed(values: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return values | st.lists(values, max_size=3)


STATEMENTS = st.fixed_dictionaries(
    {"Effect": st.sampled_from(["Allow", "Deny"]), "Action": listed(ACTIONS), "Resource": listed(RESOURCES)}
)


def model_judge(statements: list[Json]) -> Verdict:
    """Policies by their definition, for the actions and resources above."""
    verdict = Verdict.NOT_ALLOWED
    for statement in statements:
        actions, resources = (
            [statement[name]] if isinstance(statement[name], str) else statement[name]
            for name in ("Action", "Resource")
        )
        if set(actions) - {"s3:GetObject"} and set(resources) & {"*", ARN, "*/prod/*"}:
            if statement["Effect"] == "Deny":
                return Verdict.DENIED
            verdict = Verdict.ALLOWED
    return verdict


@given(st.lists(STATEMENTS, max_size=5))
def test_policies_mean_what_they_mean_by_definition(statements: list[Json]):
    """Deny wins, then Allow, and without either it is no."""
    document = {"Version": "2012-10-17", "Statement": statements}
    assert judge(document, action="execute-api:Invoke", resource=ARN, facts={}) is model_judge(statements)
    if len(statements) == 1:
        single = {"Statement": statements[0]}
        assert judge(single, action="execute-api:Invoke", resource=ARN, facts={}) is model_judge(statements)


# What is wrong


async def test_the_error_unauthorized_is_401():
    """The exact text, as a Lambda function raises it."""
    error = Function({"errorMessage": "Unauthorized", "errorType": "Exception"}, error="Unhandled")
    with pytest.raises(Unauthorized) as refused:
        await ask(error)
    assert refused.value.body == b'{"message":"Unauthorized"}'


@pytest.mark.parametrize(
    "payload",
    [
        {"errorMessage": "unauthorized", "errorType": "Exception"},
        {"errorMessage": "Unauthorized.", "errorType": "Exception"},
        {"errorMessage": "Task timed out after 3.00 seconds"},
        {"errorType": "Unauthorized"},
        ["Unauthorized"],
        "Unauthorized",
    ],
)
async def test_any_other_error_of_the_function_is_a_failure(payload: object):
    """The gateway makes 500 of it; what is raised is no refusal."""
    with pytest.raises(FunctionFailed, match="failed with"):
        await ask(Function(payload, error="Unhandled"))


async def test_what_a_function_returns_is_no_error():
    """Who returns what looks like the error has not raised it."""
    with pytest.raises(ValueError, match="principalId"):
        await ask(Function({"errorMessage": "Unauthorized"}))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "expected JSON from an authorizer, got b''"),
        (b"\xff", "expected JSON from an authorizer"),
        (b"[" * 5_000, "expected JSON from an authorizer"),
        (None, "expected an object from an authorizer, got b'null'"),
        ("ann", "expected an object from an authorizer"),
        ({}, "expected a text as an authorizer's principalId, got None"),
        ({"policyDocument": policy()}, "expected a text as an authorizer's principalId, got None"),
        ({"principalId": 42, "policyDocument": policy()}, "expected a text as an authorizer's principalId, got 42"),
        ({"principalId": "", "policyDocument": policy()}, "principalId"),
        ({"principalId": "ann"}, "expected a policy document, got nothing"),
        ({"principalId": "ann", "policyDocument": "{}"}, "expected a policy document, got '{}'"),
        ({"principalId": "ann", "policyDocument": {}}, "expected a statement of a policy, got nothing"),
    ],
)
async def test_an_answer_that_is_none_is_a_failure(answer: object, words: str):
    """It is said what was expected."""
    with pytest.raises(ValueError) as failed:
        await ask(Function(answer))
    assert words in str(failed.value)
    assert not isinstance(failed.value, Refused)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"context": {"roles": ["a"]}}, "expected a string, a number or a boolean as 'roles', got list"),
        ({"context": {"user": {"id": 1}}}, "expected a string, a number or a boolean as 'user', got dict"),
        ({"context": {"user": None}}, "as 'user', got NoneType"),
        ({"context": ["a"]}, "expected an object as an authorizer's context, got list"),
        ({"usageIdentifierKey": 5}, "expected a text as an authorizer's usageIdentifierKey, got int"),
    ],
)
async def test_a_context_with_parts_is_a_failure(more: Json, words: str):
    """AWS takes texts, numbers and booleans, and answers 500 for everything else."""
    with pytest.raises(ValueError) as failed:
        await ask(says(policy(), **more))
    assert words in str(failed.value)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ({"Effect": "allow"}, "expected Allow or Deny as a statement's Effect, got 'allow'"),
        ({"Effect": None}, "expected Allow or Deny as a statement's Effect, got nothing"),
        ({"Action": 5}, "expected a text or a list of texts as Action, got 5"),
        ({"Resource": [None]}, "expected a text or a list of texts as Resource, got [None]"),
        ({"NotAction": "x"}, "expected Action or NotAction in a statement, got both"),
        ({"Condition": "x"}, "expected an object as a Condition, got 'x'"),
        ({"Condition": {"IpAddress": "x"}}, "expected an object in the Condition IpAddress, got 'x'"),
        ({"Condition": {"StringIs": {"a": "b"}}}, "expected a Condition's operator, got 'StringIs'"),
        ({"Condition": {"NullIfExists": {"a": "true"}}}, "expected a Condition's operator, got 'NullIfExists'"),
        ({"Condition": {"ForSome:Bool": {"a": "true"}}}, "expected a Condition's operator, got 'ForSome:Bool'"),
        ({"Condition": {"Bool": {"a": {}}}}, "expected texts in the Condition Bool, got {}"),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "300.1.1.1"}}}, "addresses or networks in a Condition"),
        ({"Condition": {"NumericEquals": {"a": "x"}}}, "expected a number in a Condition, got 'x'"),
        ({"Condition": {"DateEquals": {"a": "yesterday"}}}, "expected a number in a Condition, got 'yesterday'"),
    ],
)
async def test_a_statement_that_is_none_is_a_failure(statement: Json, words: str):
    """Also where another statement would have let the client in."""
    broken = policy()["Statement"][0] | statement
    document = {"Version": "2012-10-17", "Statement": [policy()["Statement"][0], broken]}
    with pytest.raises(ValueError) as failed:
        await ask(says(document))
    assert words in str(failed.value)


async def test_an_answer_over_8_kb_is_a_failure():
    """One byte less is none."""
    answer = {"principalId": "ann", "policyDocument": policy(), "context": {"pad": ""}}
    room = MAX_RESULT_BYTES - len(json.dumps(answer))
    answer["context"] = {"pad": "x" * room}
    assert (await ask(Function(answer)))["pad"] == "x" * room
    answer["context"] = {"pad": "x" * (room + 1)}
    with pytest.raises(ValueError, match="expected at most 8192 bytes from an authorizer, got 8193"):
        await ask(Function(answer))
