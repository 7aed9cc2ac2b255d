"""The WebSocket handlers: API Gateway's events in, Lambda's answers out, whatever goes wrong in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from hubbub.apigateway import Event
from hubbub.chat import Caller, Chat
from hubbub.config import SettingsError
from hubbub.errors import Unavailable
from hubbub.lambdas.handlers import connect, disconnect, handler, message
from hubbub.lambdas.home import Home
from hubbub.lambdas.invocation import Function, InvocationFailed
from hubbub.lambdas.logs import ids_of
from hubbub.lambdas.websocket import answer
from hubbub.model import Entry
from hubbub.protocol import Ask, Done
from lambdahome import Context, LabHome, Written, from_client, living, recorded, written

CONNECTION = "BFaT_fALIAMCKug="


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabHome]:
    with living(monkeypatch, LabHome()) as home:
        yield home


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    with written(monkeypatch) as log:
        yield log


def authorizer(user: str = "ann", expires_at: int = 4_000_000_000) -> dict[str, Any]:
    """What the authorizer put into the events of a user."""
    principal = {"user": user, "expires_at": expires_at, "issued_at": 1_600_000_000}
    return {"principalId": user, "principal": json.dumps(principal), "integrationLatency": 21}


def opened(home: LabHome, **fields: Any) -> dict[str, Any]:
    """A handshake, and what answered it."""
    event = recorded("connect")
    event["requestContext"] |= {"connectionId": CONNECTION, "authorizer": authorizer(**fields)}
    answer = handler(event, Context())
    assert answer is not None
    return answer


def asked(frame: dict[str, Any] | str, *, left_ms: int = 30_000, **fields: Any) -> dict[str, Any]:
    """A frame of the client's, and the frame that it is answered with."""
    body = frame if isinstance(frame, str) else json.dumps(frame)
    answer = handler(from_client(CONNECTION, authorizer(**fields), body), Context(left_ms))
    assert answer is not None
    assert answer["statusCode"] == 200
    return json.loads(answer["body"])


def test_a_client_connects_asks_and_goes(home: LabHome):
    """The three events of a connection are answered with what API Gateway takes: a status, and a body as text."""
    assert opened(home) == {"statusCode": 200}
    home.lab.sink.open(CONNECTION)
    synced = asked({"action": "sync", "ref": "1"})
    assert (synced["type"], synced["ref"], synced["user"], synced["connection_id"]) == ("ok", "1", "ann", CONNECTION)
    gone = recorded("disconnect_without_a_code")
    gone["requestContext"]["authorizer"] = authorizer()
    assert handler(gone, Context()) == {"statusCode": 200}
    assert home.run(home.lab.chat.directory.principal(CONNECTION)) is None


def test_the_chosen_subprotocol_is_answered(home: LabHome):
    """A browser that offers `hubbub.v1` beside its token gets it selected, and no part of the token back."""
    event = recorded("connect")
    event["requestContext"]["authorizer"] = authorizer()
    event["multiValueHeaders"]["Sec-WebSocket-Protocol"] = ["hubbub.v1, jwt.abc"]
    assert handler(event, Context()) == {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "hubbub.v1"}}


def test_a_banned_user_is_refused_with_a_status(home: LabHome):
    """What the chat refuses at the handshake is the handshake's status."""
    home.run(home.chat())
    home.run(home.lab.chat.ban("ann", 4_000_000_000))
    assert opened(home)["statusCode"] == 403


def test_a_client_that_asks_wrongly_is_told(home: LabHome):
    """A message that is none, and an unknown action, are answered with errors of the protocol."""
    opened(home)
    assert asked("{")["code"] == "bad_request"
    assert asked({"action": "fly", "ref": "7"}) | {"message": ""} == {
        "type": "error",
        "ref": "7",
        "code": "unknown_action",
        "message": "",
        "retry": False,
    }


def test_what_succeeds_in_silence_has_no_body(home: LabHome):
    """Without a `ref` a success is silent: the answer has no body, so that no empty frame is sent."""
    opened(home)
    event = from_client(CONNECTION, authorizer(), '{"action": "ping"}')
    assert message(event, Context()) == {"statusCode": 200}


@pytest.mark.parametrize("name", ["message_of_a_browser", "disconnect_of_a_browser"])
def test_recorded_events_without_an_authorizer_are_answered(home: LabHome, name: str):
    """Events of an API that has no authorizer are understood, and nobody is taken for anybody."""
    answer = handler(recorded(name), Context())
    assert answer is not None
    assert answer["statusCode"] == 200
    if name.startswith("message"):
        assert json.loads(answer["body"])["type"] == "error"


def test_a_table_that_is_away_is_told_to_the_client(home: LabHome, log: Written):
    """While the chat cannot be opened, clients are told to try again, handshakes refused with 503; later it works."""
    home.away = Unavailable("The table does not answer.")
    refused = asked({"action": "sync", "ref": "1"})
    assert (refused["code"], refused["ref"], refused["retry"]) == ("unavailable", "1", True)
    assert opened(home) == {"statusCode": 503}
    home.away = None
    assert opened(home) == {"statusCode": 200}


def test_a_defect_is_a_failed_invocation_without_its_words(home: LabHome, log: Written):
    """An unforeseen error is in the log with all ids; who invoked learns that it failed, and nothing of it."""
    home.away = RuntimeError("a secret of the house")
    event = recorded("connect")
    with pytest.raises(InvocationFailed) as failure:
        connect(event, Context())
    assert "secret of the house" not in str(failure.value)
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__ or failure.value.__context__ is None
    (line,) = [line for line in log.words if line["level"] == "ERROR"]
    assert "a secret of the house" in line["exception"]
    assert line["connection_id"] == event["requestContext"]["connectionId"]
    assert line["request_id"] == event["requestContext"]["requestId"]
    assert line["function_request_id"] == Context().aws_request_id
    assert log.metrics[-1]["Failures"] == 1


def test_an_event_that_is_none_fails(home: LabHome, log: Written):
    """An event of something else, from a template that wires it wrongly, is named in the log and fails."""
    with pytest.raises(InvocationFailed):
        handler({"version": "2.0", "rawPath": "/"}, Context())
    assert "requestContext" in log.words[-1]["message"]


def test_an_action_that_takes_too_long_is_answered(monkeypatch: pytest.MonkeyPatch):
    """Before Lambda ends the invocation, the client is told that it failed and may be tried again."""
    chat = Chat()

    @chat.action("wait")
    async def wait(chat: Chat, by: Caller, ask: Ask) -> Done:
        await asyncio.Event().wait()
        return Done()

    with living(monkeypatch, LabHome(chat)) as home:
        opened(home)
        failed = asked({"action": "wait", "ref": "9"}, left_ms=1_050)
    assert (failed["code"], failed["ref"], failed["retry"]) == ("internal", "9", True)


def test_hooks_are_waited_for(monkeypatch: pytest.MonkeyPatch):
    """What an entry sets off is done before the answer is given: afterwards the process may stand still."""
    chat, heard = Chat(), []

    @chat.on("message.created")
    async def hear(chat: Chat, entry: Entry) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        heard.append(entry.seq)

    with living(monkeypatch, LabHome(chat)) as home:
        opened(home)
        home.lab.sink.open(CONNECTION)
        asked({"action": "create", "ref": "1", "room": "tea", "kind": "public"})
        sent = asked({"action": "send", "ref": "2", "room": "tea", "text": "hello"})
        assert heard == [sent["seq"]]


def test_what_is_begun_goes_on_at_the_next_invocation(monkeypatch: pytest.MonkeyPatch):
    """All invocations share one loop: what one leaves under way goes on while the next one runs."""
    chat, done = Chat(), []
    tasks = set()

    @chat.action("begin")
    async def begin(chat: Chat, by: Caller, ask: Ask) -> Done:
        async def slowly() -> None:
            for _ in range(200):
                await asyncio.sleep(0)
            done.append(asyncio.get_running_loop())

        tasks.add(asyncio.create_task(slowly()))
        return Done()

    with living(monkeypatch, LabHome(chat)) as home:
        opened(home)
        asked({"action": "begin", "ref": "1"})
        for _ in range(200):
            if done:
                break
            asked({"action": "ping", "ref": "2"})
        assert len(done) == 1


def test_an_invocation_leaves_one_line_of_metrics(home: LabHome, log: Written):
    """Each invocation ends with one line in the embedded metric format: what was asked, and how long it took."""
    opened(home)
    asked({"action": "ping", "ref": "1"})
    first, second = log.metrics
    assert first["ColdStarts"] == 1
    assert "ColdStarts" not in second
    assert (second["event"], second["action"], second["Actions"]) == ("MESSAGE", "ping", 1)
    assert second["connection_id"] == CONNECTION
    (directive,) = second["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"], second["Function"]) == (
        "Hubbub",
        [["Function"]],
        "talk-socket",
    )
    assert {metric["Name"] for metric in directive["Metrics"]} == {"Actions", "Took"}
    assert all(isinstance(second[metric["Name"]], int | float) for metric in directive["Metrics"])


def test_the_log_has_neither_words_nor_tokens(home: LabHome, log: Written):
    """What people say and what they prove themselves with is in no line, whatever happens to it."""
    opened(home)
    home.lab.sink.open(CONNECTION)
    asked({"action": "create", "ref": "1", "room": "tea", "kind": "public"})
    asked({"action": "send", "ref": "2", "room": "tea", "text": "hush-hush"})
    asked({"action": "send", "ref": "2", "room": "no such room", "text": "hush-hush"})
    asked({"action": "auth", "ref": "2", "token": "hush-hush"})
    asked("hush-hush")
    assert log.lines
    assert "hush" not in log.text


def test_a_handler_for_each_route_answers_alike(home: LabHome):
    """Templates with a function for each route name `connect`, `message` and `disconnect`."""
    event = recorded("connect")
    event["requestContext"] |= {"connectionId": CONNECTION, "authorizer": authorizer()}
    assert connect(event, Context()) == {"statusCode": 200}
    answer = message(from_client(CONNECTION, authorizer(), '{"action": "ping", "ref": "1"}', "ping"), Context())
    assert answer is not None
    assert json.loads(answer["body"])["type"] == "ok"
    assert disconnect(recorded("disconnect_of_a_browser"), Context()) == {"statusCode": 200}


def test_an_unknown_handler_is_named():
    """A template that names a handler that is not there is told which there are."""
    from hubbub.lambdas import handlers

    with pytest.raises(AttributeError, match=r"no handler 'conect'; there are authorize, backend"):
        _ = handlers.conect


def starting(monkeypatch: pytest.MonkeyPatch, warm: Any) -> Any:
    """A handler that is loaded while Lambda starts an environment."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    return Function(answer, takes=Event, about=ids_of, warm=warm)


def test_an_environment_gets_ready_while_it_starts(home: LabHome, monkeypatch: pytest.MonkeyPatch):
    """What can be opened before the first event is, on the loop that all invocations have."""
    starting(monkeypatch, Home.chat)
    assert home.lab.chat is home.run(home.chat())


def test_what_is_away_at_the_start_is_asked_for_later(home: LabHome, log: Written, monkeypatch: pytest.MonkeyPatch):
    """A table that does not answer just then keeps no environment from starting: the first event tries again."""
    home.away = Unavailable("The table does not answer.")
    loaded = starting(monkeypatch, Home.chat)
    assert "not ready yet: Unavailable: The table does not answer." in [line["message"] for line in log.words]
    home.away = None
    event = recorded("connect")
    event["requestContext"] |= {"connectionId": CONNECTION, "authorizer": authorizer()}
    assert loaded(event, Context()) == {"statusCode": 200}


def test_wrong_settings_keep_an_environment_from_starting(home: LabHome, monkeypatch: pytest.MonkeyPatch):
    """Where no invocation could succeed, the start fails with the words that say why."""
    home.away = SettingsError("table: expected the variable HUBBUB_TABLE, it is not set")
    with pytest.raises(SettingsError, match="HUBBUB_TABLE"):
        starting(monkeypatch, Home.chat)
