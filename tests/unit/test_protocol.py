"""The wire protocol's decoder and encoder: whatever comes is an `Ask` or a `BadRequest` that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from examples import examples
from hubbub import errors
from hubbub.errors import BadRequest, HubbubError, RateLimited
from hubbub.model import (
    MAX_PAGE,
    MAX_SEQ,
    Member,
    MessageCreated,
    MessageDeleted,
    Role,
    Room,
    RoomKind,
    RoomState,
    type_of,
)
from hubbub.protocol import (
    ACTIONS,
    CLOSE_CODES,
    SIGNALS,
    Appended,
    CloseAdvice,
    Done,
    ErrorReply,
    Joined,
    MemberPage,
    Notice,
    Pong,
    PresenceSignal,
    RoomPage,
    Send,
    Sent,
    Synced,
    TypingSignal,
    decode_ask,
    decode_envelope,
    encode,
    entry_decoder,
    error_reply,
    find_token,
    with_ref,
)

DECODERS: dict[str, msgspec.json.Decoder[Any]] = {name: msgspec.json.Decoder(ask) for name, ask in ACTIONS.items()}

ASKS: dict[str, list[dict[str, Any]]] = {
    "sync": [{}, {"rooms": {"general": 7, "a.b_c:d-e": 0}, "epoch": "e1"}],
    "send": [
        {"room": "r", "text": "hi"},
        {"room": "r", "data": {"vote": [1, None, True]}, "client_id": "c" * 64, "reply_to": 1, "thread": MAX_SEQ},
    ],
    "edit": [{"room": "r", "target": 1, "text": "ho"}, {"room": "r", "target": 1, "data": "x"}],
    "delete": [{"room": "r", "target": 1}],
    "react": [{"room": "r", "target": 1, "reaction": "👍"}],
    "unreact": [{"room": "r", "target": 1, "reaction": "👍"}],
    "history": [
        {"room": "r"},
        {"room": "r", "before": 5, "limit": 1},
        {"room": "r", "after": 0, "limit": MAX_PAGE},
        {"room": "r", "around": MAX_SEQ, "thread": 3},
    ],
    "create": [
        {"kind": "public"},
        {"kind": "private", "room": "r", "name": "n" * 128, "members": ["u" * 128]},
        {"kind": "direct", "members": ["bob"]},
    ],
    "join": [{"room": "r" * 64}],
    "leave": [{"room": "r"}],
    "invite": [{"room": "r", "user": "bob"}, {"room": "r", "user": "bob", "role": "moderator"}],
    "kick": [{"room": "r", "user": "bob"}],
    "role": [{"room": "r", "user": "bob", "role": role} for role in Role],
    "members": [{"room": "r"}, {"room": "r", "after": "alice", "limit": 200}],
    "rooms": [{}, {"after": "general", "limit": 1}],
    "subscribe": [{"room": "r"}],
    "unsubscribe": [{"room": "r"}],
    "typing": [{"room": "r"}, {"room": "r", "on": False}],
    "read": [{"room": "r", "seq": 0}],
    "presence": [{"room": "r"}],
    "auth": [{"token": "t" * 16_384}],
    "ping": [{}],
}
"""Good fields of every action: each field is there at least once."""

FIELDS = [(name, field) for name, ask in ACTIONS.items() for field in msgspec.structs.fields(ask)]


def refused(name: str, body: str | bytes) -> str:
    """What a client is told whose action's fields are no good."""
    with pytest.raises(BadRequest) as refusal:
        decode_ask(DECODERS[name], body)
    return refusal.value.message


def frame(name: str, /, **fields: Any) -> str:
    return json.dumps({"action": name, "ref": "r1", **fields})


# Anything at all

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELD_NAMES = sorted({field.name for _, field in FIELDS} | {"action", "ref"})
ALMOST_A_FRAME = st.dictionaries(
    st.sampled_from(FIELD_NAMES),
    ANY_JSON | st.sampled_from(["r", "public", "owner", 1, [], {}]),
    max_size=6,
)
ANYTHING = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40),
    st.text(st.characters(categories=["Cs", "L"]), max_size=20),  # lone surrogates among letters
    ANY_JSON.map(json.dumps),
    ALMOST_A_FRAME.map(json.dumps),
    ALMOST_A_FRAME.map(json.dumps).map(lambda text: text[:-3]),
    ALMOST_A_FRAME.map(json.dumps).map(str.encode).map(lambda body: body.replace(b"r", b"\xff")),
)


@settings(max_examples=examples(250), deadline=None)
@given(body=ANYTHING, name=st.sampled_from(list(ACTIONS)))
@example(body="\ud800", name="send")
@example(body='{"action": "send", "room": "r", "text": "\ud800"}', name="send")
@example(body=b'{"action": "send", "room": "r", "data": "\xff"}', name="send")
def test_whatever_comes_is_taken_or_refused_and_the_refusal_can_be_told(body: str | bytes, name: str):
    """No bytes, no text and no JSON raise anything but a `BadRequest`, whose words fit into a frame."""
    for decode in (decode_envelope, lambda body: decode_ask(DECODERS[name], body)):
        try:
            taken = decode(body)
        except BadRequest as error:
            reply = json.loads(encode(error_reply(error, "r1")))
            assert (reply["type"], reply["code"], reply["retry"]) == ("error", "bad_request", False)
            assert reply["message"]
        else:
            assert json.loads(encode(taken)) is not None


@settings(max_examples=examples(120), deadline=None)
@given(fields=ALMOST_A_FRAME, name=st.sampled_from(list(ACTIONS)))
def test_what_is_taken_is_the_same_when_it_is_written_and_read_again(fields: dict[str, Any], name: str):
    """Nothing is lost, invented or rounded by decoding."""
    good = ASKS[name][-1] | {key: value for key, value in fields.items() if key not in ASKS[name][-1]}
    try:
        ask = decode_ask(DECODERS[name], frame(name, **{**good, "action": name, "ref": None}))
    except BadRequest:
        return
    again = decode_ask(DECODERS[name], encode(ask))
    assert msgspec.structs.asdict(again) == msgspec.structs.asdict(ask)


@pytest.mark.parametrize("bracket", ["[", "{"])
@pytest.mark.parametrize("depth", [1_000, 100_000])
@pytest.mark.parametrize("field", ["data", "unknown"])
def test_what_is_nested_too_deeply_is_refused(bracket, depth, field):
    """In a field that is read and in one that is passed over alike."""
    deep = '{"a":' * depth + "1" + "}" * depth if bracket == "{" else "[" * depth + "]" * depth
    body = f'{{"action":"send","room":"r","text":"x","{field}":{deep}}}'
    assert refused("send", body) == "The frame is nested too deeply."
    with pytest.raises(BadRequest, match="nested too deeply"):
        decode_envelope(body)


@pytest.mark.parametrize("number", ["1e400", "-1", "9007199254740992", "9" * 30, "9" * 5_000, "1.5", "1.0", "1e2"])
def test_a_seq_is_a_whole_number_that_every_client_can_hold(number):
    """Not negative, not beyond 2^53 - 1, and not written as a fraction."""
    assert "`$.seq`" in refused("read", f'{{"room":"r","seq":{number}}}')


def test_surrogates_are_no_text():
    """Neither raw, as some runtimes hand them over, nor escaped without their other half."""
    for text in ('"\ud800"', r'"\ud800"', r'"\ud800x"', r'"\udc00"'):
        refused("send", f'{{"room":"r","text":{text}}}')
    assert decode_ask(DECODERS["send"], r'{"room":"r","text":"\ud83d\udc4b"}').text == "👋"


@pytest.mark.parametrize("field", ["text", "data", "unknown"])
def test_what_is_not_utf_8_is_refused(field):
    """Also in a field that is only passed on: every reader of the room would choke on it."""
    body = b'{"action":"send","room":"r","text":"x","%s":"\xff"}' % field.encode()
    refused("send", body)
    with pytest.raises(BadRequest, match="not JSON"):
        decode_envelope(body)


@pytest.mark.parametrize(
    "data", ['"\x01"', '"\n"', r'"\q"', "NaN", "Infinity", "01", "1.", "[1,]", '{"a":1,}', "{1:2}", "'a'", "/**/1", ""]
)
def test_what_is_no_json_is_refused_also_where_it_is_only_passed_on(data):
    """`data` reaches other clients as it is, so it must be what their parsers take."""
    refused("send", f'{{"action":"send","room":"r","data":{data}}}')


def test_data_is_passed_on_as_it_is_written():
    """Also numbers that no program here could hold."""
    for data in ("1e999", "123456789012345678901234567890", '{"b":1, "a":2}', r'"\u0041"', "null"):
        ask = decode_ask(DECODERS["send"], f'{{"room":"r","data":{data}}}')
        assert bytes(ask.data).decode() == data


def test_a_repeated_key_means_its_last_value():
    """For what the frame is and for what it asks, so that both speak of the same action."""
    body = '{"action":"ping","ref":"1","room":"a","action":"send","ref":"2","room":"b","text":"x"}'
    envelope = decode_envelope(body)
    assert (envelope.action, envelope.ref) == ("send", "2")
    assert decode_ask(DECODERS["send"], body).room == "b"


# Envelopes


@pytest.mark.parametrize(
    "body", ["", " ", "hello", "{", '{"action":"ping"} x', '\ufeff{"action":"ping"}', "{'action':1}"]
)
def test_what_is_not_json_is_refused_as_that(body):
    """Half a frame, two frames, a byte order mark."""
    with pytest.raises(BadRequest, match=r"^The frame is not JSON: "):
        decode_envelope(body)


@pytest.mark.parametrize(
    "body", ["[]", "null", "7", '"ping"', "{}", '{"action":null}', '{"action":7}', '{"Action":"a"}']
)
def test_a_frame_is_an_object_with_an_action(body):
    """Anything else that is JSON is refused with these words."""
    with pytest.raises(BadRequest, match=r"^A frame is a JSON object with a string `action`: "):
        decode_envelope(body)


@pytest.mark.parametrize("ref", [7, True, [], {}, "x" * 65])
def test_a_ref_is_a_short_string(ref):
    """At most 64 characters; the refusal names it."""
    with pytest.raises(BadRequest, match=r"`\$\.ref`"):
        decode_envelope(json.dumps({"action": "ping", "ref": ref}))


def test_a_ref_may_be_missing():
    """Or null, or empty, which is one."""
    assert decode_envelope('{"action":"ping"}').ref is None
    assert decode_envelope('{"action":"ping","ref":null}').ref is None
    assert decode_envelope('{"action":"ping","ref":""}').ref == ""
    assert decode_envelope(json.dumps({"action": "a", "ref": "é" * 64})).ref == "é" * 64


# Actions


def test_every_action_has_examples():
    """The table above has every action and every field."""
    assert list(ASKS) == list(ACTIONS)
    lacking = [(name, field.name) for name, field in FIELDS if not any(field.name in good for good in ASKS[name])]
    assert not lacking


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_is_read_as_it_is_written(name):
    """What it has is in the struct, what it has not has its default, and unknown fields are ignored."""
    for good in ASKS[name]:
        ask = decode_ask(DECODERS[name], frame(name, **good, unknown={"a": [1]}))
        assert isinstance(ask, ACTIONS[name])
        written = json.loads(encode(ask))
        assert {key: value for key, value in written.items() if key in good} == good
        for field in msgspec.structs.fields(ask):
            if field.name not in good and field.default is not msgspec.NODEFAULT:
                assert getattr(ask, field.name) is field.default


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[f"{name}-{field.name}" for name, field in FIELDS])
def test_every_refusal_names_its_field(name, field):
    """A field of the wrong type, and one that is missing."""
    good = ASKS[name][-1]
    if field.name != "data":  # which may be anything
        wrong = [] if field.name != "members" else {}
        assert f"`$.{field.name}`" in refused(name, frame(name, **{**good, field.name: wrong}))
    if field.required:
        rest = {key: value for key, value in good.items() if key != field.name}
        assert f"missing required field `{field.name}`" in refused(name, frame(name, **rest))


@pytest.mark.parametrize(
    ("name", "field", "wrong"),
    [
        *[("join", "room", room) for room in ("", "a b", "ü", "a/b", "room\n", "\nroom", "r" * 65, None)],
        *[("kick", "user", user) for user in ("", "u" * 129, None)],
        *[("delete", "target", target) for target in (0, -1, MAX_SEQ + 1, "1", True, None)],
        *[("history", "limit", limit) for limit in (0, MAX_PAGE + 1, None)],
        *[("history", name, -1) for name in ("before", "after", "around")],
        ("history", "thread", 0),
        *[("send", "client_id", client_id) for client_id in ("", "c" * 65)],
        *[("send", name, 0) for name in ("reply_to", "thread")],
        *[("react", "reaction", reaction) for reaction in ("", "r" * 33)],
        *[("create", "kind", kind) for kind in ("", "PUBLIC", "secret")],
        ("create", "name", "n" * 129),
        ("create", "members", ["u"] * 201),
        *[("role", "role", role) for role in ("", "Owner", "admin")],
        *[("auth", "token", token) for token in ("", "t" * 16_385)],
        ("typing", "on", "yes"),
    ],
)
def test_a_value_outside_its_limits_is_refused_by_name(name, field, wrong):
    """Each limit that the protocol names."""
    assert f"`$.{field}`" in refused(name, frame(name, **{**ASKS[name][0], field: wrong}))


def test_what_is_wrong_inside_a_field_is_named_too():
    """A member of a list, a key and a value of a map."""
    assert "`$.members[1]`" in refused("create", frame("create", kind="public", members=["bob", 7]))
    assert "`$.rooms[...]`" in refused("sync", frame("sync", rooms={"a": 1, "b": -1}))
    assert "`$.rooms`" in refused("sync", frame("sync", rooms={"no room": 1}))


# Results, entries, errors


def test_what_is_absent_is_left_out():
    """Of results, entries and signals alike; what has a meaning when it is empty, false or 0 is there."""
    message = MessageCreated(room="r", seq=1, id="i", at=2, by="bob", text="hi")
    cases = [
        (Done(), {"type": "ok"}),
        (Sent(room="r", seq=1, id="i", at=2), {"type": "ok", "room": "r", "seq": 1, "id": "i", "at": 2}),
        (Appended(room="r", seq=0), {"type": "ok", "room": "r", "seq": 0}),
        (
            Joined(room="r", kind=RoomKind.PUBLIC, name="", head=0),
            {"type": "ok", "room": "r", "kind": "public", "name": "", "head": 0},
        ),
        (RoomPage(rooms=[Room("r", RoomKind.PUBLIC)], has_more=False),
         {"type": "ok", "rooms": [{"id": "r", "kind": "public"}], "has_more": False}),
        (MemberPage(room="r", members=[Member("bob", Role.READER)], count=1, has_more=False),
         {"type": "ok", "room": "r", "members": [{"user": "bob", "role": "reader"}], "count": 1, "has_more": False}),
        (message, {"type": "message.created", "room": "r", "seq": 1, "id": "i", "at": 2, "by": "bob", "text": "hi"}),
        (MessageDeleted(room="r", seq=3, id="i", at=2, by="bob", target=1),
         {"type": "message.deleted", "room": "r", "seq": 3, "id": "i", "at": 2, "by": "bob", "target": 1}),
        (TypingSignal(room="r", by="bob", on=False), {"type": "typing", "room": "r", "by": "bob", "on": False}),
        (PresenceSignal(room="r", count=0), {"type": "presence", "room": "r", "count": 0}),
        (Notice(code="going_away", message="soon"), {"type": "notice", "code": "going_away", "message": "soon"}),
    ]  # fmt: skip
    for struct, expected in cases:
        assert json.loads(encode(struct)) == expected


def test_a_synced_client_is_told_everything_even_if_it_is_nothing():
    """Lists are there when they are empty, and rooms say all there is to say of them."""
    state = RoomState("r", RoomKind.PRIVATE, "", Role.OWNER, 0, 0, 0)
    synced = Synced(epoch="e", user="bob", connection_id="c", rooms=[state], entries=[], more=[], reset=[])
    told = json.loads(with_ref(synced, "r1"))
    assert (told["type"], told["ref"], told["entries"], told["more"], told["reset"]) == ("ok", "r1", [], [], [])
    assert told["rooms"] == [
        {"room": "r", "kind": "private", "name": "", "role": "owner", "head": 0, "read": 0, "unread": 0}
    ]


def test_an_entry_is_the_same_whichever_way_it_comes():
    """What was encoded decodes to the same entry, data included, by its `type`."""
    message = MessageCreated(room="r", seq=1, id="i", at=2, by="bob", data=msgspec.Raw(b'{"a":[1]}'), client_id="c")
    decoded = entry_decoder.decode(encode(message))
    assert isinstance(decoded, MessageCreated)
    assert encode(decoded) == encode(message)
    with pytest.raises(msgspec.ValidationError):
        entry_decoder.decode(b'{"type":"message.eaten","room":"r","by":"bob"}')


def test_a_result_carries_the_ref_it_answers():
    """And none when there was none."""
    assert json.loads(with_ref(Pong(at=7), "r1")) == {"type": "ok", "ref": "r1", "at": 7}
    assert json.loads(with_ref(Pong(at=7), None)) == {"type": "ok", "at": 7}


@pytest.mark.parametrize("error", errors.ERRORS, ids=lambda error: error.code)
def test_every_error_is_told_with_its_code_and_whether_to_try_again(error: type[HubbubError]):
    """Its own sentence when the raiser had nothing more exact to say."""
    assert json.loads(encode(error_reply(error()))) == {
        "type": "error",
        "code": error.code,
        "message": error.sentence,
        "retry": error.retry,
    }


def test_an_error_tells_what_it_knows():
    """The ref, how long to wait, and under which reference the log has it."""
    reply = error_reply(RateLimited("slow down", retry_after_ms=250), "r1", "q")
    assert reply == ErrorReply(
        ref="r1", code="rate_limited", message="slow down", retry=True, retry_after_ms=250, request_id="q"
    )


def test_names_on_the_wire_mean_one_thing():
    """No two close codes, signals or entries share a name."""
    codes = [close.code for close in CLOSE_CODES]
    assert len(set(codes)) == len(codes)
    assert {close.advice for close in CLOSE_CODES} == set(CloseAdvice)
    tags = [signal.__struct_config__.tag for signal in SIGNALS]
    assert len(set(tags)) == len(tags)
    assert not {"ok", "error"} & set(tags)
    assert type_of(MessageCreated) == "message.created"


# Tokens


@pytest.mark.parametrize(
    ("headers", "query", "token"),
    [
        ({}, {}, None),
        ({"Sec-WebSocket-Protocol": "hubbub.v1, jwt.A"}, {}, "A"),
        ({"sec-websocket-protocol": "jwt.A,hubbub.v1"}, {}, "A"),
        ({"SEC-WEBSOCKET-PROTOCOL": " hubbub.v1 ,  jwt.A.B-c_d "}, {}, "A.B-c_d"),
        ({"Sec-WebSocket-Protocol": "hubbub.v1, jwt.A", "Authorization": "Bearer B"}, {"token": "C"}, "A"),
        ({"Sec-WebSocket-Protocol": "hubbub.v1", "Authorization": "Bearer B"}, {"token": "C"}, "B"),
        ({"authorization": "bearer   B "}, {}, "B"),
        ({"Authorization": "Basic B"}, {"token": "C"}, "C"),
        ({"Authorization": "Bearer"}, {"token": "C"}, "C"),
        ({"Authorization": "Bearer "}, {"token": "C"}, "C"),
        ({"Authorization": "B"}, {}, None),
        ({}, {"token": "C"}, "C"),
        ({}, {"token": ""}, None),
        ({"Sec-WebSocket-Protocol": "xjwt.A, hubbub.v1"}, {}, None),
    ],
)
def test_a_token_is_found_in_the_first_of_three_places(headers, query, token):
    """The subprotocol, then `Authorization: Bearer`, then `?token=`."""
    assert find_token(headers, query) == token


@given(headers=st.dictionaries(st.text(max_size=8), st.text(max_size=20)), value=st.text(max_size=30))
def test_any_headers_can_be_looked_through(headers: dict[str, str], value: str):
    """Whatever they hold, a token is a string or there is none."""
    for name in ("Sec-WebSocket-Protocol", "Authorization"):
        found = find_token({**headers, name: value}, {})
        assert found is None or isinstance(found, str)


def test_the_struct_of_an_action_is_what_a_function_gets():
    """Fields are attributes, data is raw JSON, and what is absent is told from null."""
    ask = decode_ask(DECODERS["send"], '{"room":"r","text":"x"}')
    assert ask == Send(room="r", text="x")
    assert ask.data is msgspec.UNSET
    assert bytes(decode_ask(DECODERS["send"], '{"room":"r","data":null}').data) == b"null"
