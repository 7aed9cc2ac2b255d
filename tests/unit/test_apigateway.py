"""The contract without sockets: route selection, ids, times, documents, and what is absent from JSON."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubbub.apigateway import (
    CONNECT,
    DEFAULT,
    DISCONNECT,
    Api,
    Event,
    Identity,
    RequestContext,
    Response,
    Route,
    checked_context,
    evaluate_selection,
    forbidden_document,
    new_id,
    request_time,
    select_route,
    server_error_document,
)

BODY = json.dumps(
    {
        "action": "send",
        "service": {"name": "chat", "ports": [80, 443], "tags": [{"id": "a-b"}]},
        "n": 7,
        "f": 1.5,
        "yes": True,
        "none": None,
        "empty": "",
        "dash-ed": "d",
        "tricky": "$request.body.action",
        "ä": "ü",
    }
)

SELECTIONS = [
    ("$request.body.action", "send"),
    ("${request.body.action}", "send"),
    ("${request.body.service.name}/${request.body.action}", "chat/send"),
    ("$request.body.service.name", "chat"),
    ("v1-${request.body.action}-end", "v1-send-end"),
    ("${request.body.service.ports[1]}", "443"),
    ("${request.body.service.tags[0].id}", "a-b"),
    ("$request.body.service.ports[0]", "80"),
    ("${request.body.service.ports}", "[80,443]"),
    ("${request.body.service.tags}", '[{"id":"a-b"}]'),
    ("${request.body.n}", "7"),
    ("${request.body.f}", "1.5"),
    ("${request.body.yes}", "true"),
    ("${request.body.none}", ""),
    ("${request.body.empty}", ""),
    ("${request.body.missing}", ""),
    ("join-${request.body.missing}", "join-"),
    ("${request.body.action.deeper}", ""),
    ("${request.body.service.ports[2]}", ""),
    ("${request.body.service.ports[-1]}", "443"),
    ("${request.body.service.ports.name}", ""),
    ("${request.body.service.ports[²]}", ""),
    (f"${{request.body.service.ports[{'9' * 5_000}]}}", ""),
    ("${request.body.dash-ed}", "d"),
    ("${request.body.ä}", "ü"),
    ("${request.body.tricky}", "$request.body.action"),
    ("static", "static"),
    (r"\$default", "$default"),
    (r"\$request.body.action", "$request.body.action"),
    ("", ""),
]


@pytest.mark.parametrize(("expression", "value"), SELECTIONS, ids=[expression[:40] for expression, _ in SELECTIONS])
def test_a_selection_expression_has_a_value(expression: str, value: str) -> None:
    """Variables, paths, indexes and static text; what is missing is empty, what is found is a string, once."""
    assert evaluate_selection(expression, BODY) == value


@pytest.mark.parametrize(
    "body", ["", "no JSON", "{", '{"a":1}x', '{"action":"\\ud800"}', "\ud800", "[" * 100_000, "NaN"]
)
def test_a_body_that_is_not_json_has_no_value(body: str) -> None:
    """Not JSON, JSON with rubbish behind it, and JSON of absurd depth have no value, and do not raise."""
    assert evaluate_selection("$request.body.action", body) is None


@pytest.mark.parametrize("body", ["[1,2]", '"text"', "7", "null", "true"])
def test_json_that_is_no_object_has_no_fields(body: str) -> None:
    """Every path into JSON that is no object is empty, other than an index into an array."""
    assert evaluate_selection("$request.body.action", body) == ""
    assert evaluate_selection("${request.body[0]}", body) == ("1" if body.startswith("[") else "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
EXPRESSIONS = st.text(max_size=40) | st.lists(
    st.sampled_from(["$request.body", "${request.body", "}", ".action", ".a", "[0]", "[", "]", r"\$", "$", "-", "x"]),
    max_size=8,
).map("".join)


@given(EXPRESSIONS, JSON.map(json.dumps) | st.text() | st.text(alphabet='{}[]",:\\u0d8 a1'))
@example("${request.body.a}", '{"a":' * 997 + "1" + "}" * 997)
@example("${request.body}", "[" * 998 + "]" * 998)
def test_no_expression_and_no_body_make_it_raise(expression: str, body: str) -> None:
    """Whatever the expression and whatever a client sends, the value is a string or there is none."""
    assert isinstance(evaluate_selection(expression, body), str | None)


@given(JSON.filter(lambda value: not isinstance(value, float)))
def test_what_is_found_reads_back(value: Any) -> None:
    """A value that is found is its own text if it is a string, nothing if it is null, else its JSON."""
    found = evaluate_selection("${request.body.a}", json.dumps({"a": value}))
    assert found is not None
    if value is None or isinstance(value, str):
        assert found == (value or "")
    else:
        assert json.loads(found) == value


async def nothing(event: Event) -> Response:
    return Response()


def api(*keys: str, expression: str = "$request.body.action") -> Api:
    return Api(routes={key: Route(nothing) for key in keys}, route_selection_expression=expression)


def test_an_exact_match_wins_else_default() -> None:
    """The route of that very key takes the message, else `$default`, else none."""
    routes = api(CONNECT, DISCONNECT, DEFAULT, "send", "Send")
    assert select_route(routes, '{"action":"send"}') == "send"
    assert select_route(routes, '{"action":"Send"}') == "Send"
    for body in ('{"action":"SEND"}', '{"action":"send "}', "{}", "no JSON", '{"action":["send"]}', ""):
        assert select_route(routes, body) == DEFAULT
        assert select_route(api(CONNECT, DISCONNECT, "send"), body) is None
    assert select_route(routes, '{"action":"$default"}') == DEFAULT
    assert select_route(api(CONNECT, DISCONNECT), '{"action":"$default"}') is None


@given(st.sampled_from([CONNECT, DISCONNECT]), st.booleans())
def test_no_body_selects_connect_or_disconnect(key: str, with_default: bool) -> None:
    """A body that names them goes to `$default`, or nowhere."""
    keys = (CONNECT, DISCONNECT, "send", *([DEFAULT] if with_default else []))
    expected = DEFAULT if with_default else None
    assert select_route(api(*keys), json.dumps({"action": key})) == expected
    assert select_route(api(*keys, expression=key), "{}") == expected


@given(st.text() | JSON.map(json.dumps))
def test_every_message_has_a_route_that_there_is(body: str) -> None:
    """What is selected is a key of the API, and never one of the two that are not for messages."""
    assert select_route(api(CONNECT, DISCONNECT, DEFAULT, "send", "a"), body) in (DEFAULT, "send", "a")


@pytest.mark.parametrize(
    ("epoch_s", "text"),
    [
        (0, "01/Jan/1970:00:00:00 +0000"),
        (1_708_326_702, "19/Feb/2024:07:11:42 +0000"),
        (1_708_326_702.999, "19/Feb/2024:07:11:42 +0000"),
        (1_735_689_599, "31/Dec/2024:23:59:59 +0000"),
        (253_402_300_799, "31/Dec/9999:23:59:59 +0000"),
    ],
)
def test_times_are_in_common_log_format(epoch_s: float, text: str) -> None:
    """Day, month in English and year, with two digits each where there are fewer, in UTC."""
    assert request_time(epoch_s) == text


def test_times_do_not_depend_on_the_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time zone of the machine does not show in an event."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert time.localtime(0).tm_hour == 9
        assert request_time(1_717_200_000) == "01/Jun/2024:00:00:00 +0000"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_ids_have_api_gateways_shape() -> None:
    """Fifteen characters of URL-safe base64 and `=`; they differ."""
    ids = [new_id() for _ in range(2_000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{15}=", each) for each in ids)
    assert any("-" in each for each in ids) and any("_" in each for each in ids)


def test_documents_are_api_gateways_byte_for_byte() -> None:
    """A blank after the first colon and the commas, none after the other colons, as API Gateway writes them."""
    assert forbidden_document("XDmENcnwIE0CFEQ=", "XDmGEE2RoE0FRdQ=") == (
        b'{"message": "Forbidden", "connectionId":"XDmENcnwIE0CFEQ=", "requestId":"XDmGEE2RoE0FRdQ="}'
    )
    assert server_error_document("XDmENcnwIE0CFEQ=", "XDmGEE2RoE0FRdQ=") == (
        b'{"message": "Internal server error", "connectionId":"XDmENcnwIE0CFEQ=", "requestId":"XDmGEE2RoE0FRdQ="}'
    )


def context(**more: Any) -> RequestContext:
    return RequestContext(
        route_key="$default",
        event_type="MESSAGE",
        extended_request_id="r=",
        request_time="19/Feb/2024:07:11:42 +0000",
        stage="local",
        connected_at=1,
        request_time_epoch=2,
        identity=Identity("127.0.0.1"),
        request_id="r=",
        domain_name="localhost",
        connection_id="c=",
        api_id="a",
        **more,
    )


def test_what_does_not_apply_is_absent_from_json() -> None:
    """An event's JSON has no field for what there is none of, and `messageDirection` though it never changes."""
    event = json.loads(msgspec.json.encode(Event(request_context=context(), body="", is_base64_encoded=False)))
    assert event == {
        "requestContext": {
            "routeKey": "$default",
            "eventType": "MESSAGE",
            "extendedRequestId": "r=",
            "requestTime": "19/Feb/2024:07:11:42 +0000",
            "messageDirection": "IN",
            "stage": "local",
            "connectedAt": 1,
            "requestTimeEpoch": 2,
            "identity": {"sourceIp": "127.0.0.1"},
            "requestId": "r=",
            "domainName": "localhost",
            "connectionId": "c=",
            "apiId": "a",
        },
        "body": "",
        "isBase64Encoded": False,
    }


def test_an_event_reads_back() -> None:
    """The JSON of an event is an event again, as a function elsewhere needs it."""
    event = Event(
        type="REQUEST",
        method_arn="arn:x",
        headers={"A": "1"},
        multi_value_headers={"A": ["1"]},
        query_string_parameters={},
        multi_value_query_string_parameters={},
        stage_variables={},
        request_context=context(authorizer={"principalId": "ann", "n": 1, "f": 1.5, "yes": True}, message_id="m="),
    )
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event


@pytest.mark.parametrize(
    "said",
    [None, [], "ann", {}, {"principalId": ""}, {"principalId": "ann", "a": []}, {"principalId": "ann", "a": None}],
    ids=str,
)
def test_what_an_authorizer_may_not_say_is_refused(said: object) -> None:
    """An answer without a principal, or with a value that has parts, is no answer."""
    with pytest.raises(ValueError, match="expected"):
        checked_context(said)


def test_what_an_authorizer_may_say_is_taken_as_it_is() -> None:
    """Strings, numbers and booleans are kept as they are."""
    said = {"principalId": "ann", "n": 1, "f": 1.5, "no": False, "text": ""}
    assert checked_context(said) is said
