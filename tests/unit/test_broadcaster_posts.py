"""Requests to `@connections`: how they are signed, what their answers mean, what is tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from hubbub.aws.credentials import Fixed
from hubbub.aws.http import Broken, HttpResponse, Unreached
from hubbub.fanout.apigateway.posts import LOGGED_PER_S, Frame, Outcome, Posts
from hubbub.model import ConnectionId
from hubbub.sigv4 import Credentials, Keys, verify
from virtual import VirtualLoop, run_virtually

KEYS = Credentials("AKID", "secret", "a token")
STAGE = "https://api.execute-api.eu-west-1.amazonaws.com/prod"
CONNECTION = ConnectionId("R0oX_d-D0kwCH6w=")

Answer = int | HttpResponse | Exception


class Recorder:
    """An HTTP client that gives the answers it is told to, the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.calls: list[tuple[str, str, Sequence[tuple[str, str]], bytes]] = []
        self._answers = list(answers or (200,))

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        timeout_s: float,
        repeat: bool = False,
    ) -> HttpResponse:
        await asyncio.sleep(0.01)
        self.calls.append((method, url, headers, body))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, HttpResponse) else HttpResponse(answer, [], b"")


def virtually(http: Recorder, ask: Callable[[Posts], Any], endpoint: str = STAGE, **options: Any) -> Any:
    """What is answered to `ask` on virtual time."""
    loop = VirtualLoop()

    async def main() -> Any:
        posts = Posts(http, endpoint, region="eu-west-1", credentials=Fixed(KEYS), clock=loop.clock, **options)
        return await ask(posts)

    return run_virtually(main(), loop)


def post(http: Recorder, **options: Any) -> Outcome:
    """What becomes of a post."""
    outcome: Outcome = virtually(http, lambda posts: posts.post(CONNECTION, Frame(b"hello")), **options)
    return outcome


@pytest.mark.parametrize("endpoint", [STAGE, "http://127.0.0.1:8000/ws", "https://chat.example.com:443"])
def test_a_post_is_signed_as_api_gateway_checks_it(endpoint: str):
    """With the connection's id encoded in the path, and no host of its own."""
    http = Recorder()
    virtually(http, lambda posts: posts.post(CONNECTION, Frame(b"hello")), endpoint)
    [(method, url, headers, body)] = http.calls
    path = f"{endpoint.split('/', 3)[3] if endpoint.count('/') > 2 else ''}/@connections/R0oX_d-D0kwCH6w%3D"
    assert (method, body) == ("POST", b"hello")
    assert url.endswith(path)
    host = endpoint.split("/")[2].removesuffix(":443")
    fields = [("host", host), *headers]
    path = path if path.startswith("/") else f"/{path}"
    keys = Keys({KEYS.access_key: KEYS.secret_key})
    verify(keys, method="POST", path=path, query="", fields=fields, body=body, service="execute-api", now_s=1.7e9)
    assert dict(headers)["X-Amz-Security-Token"] == "a token"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.DELIVERED),
        (410, Outcome.GONE),
        (400, Outcome.REFUSED),
        (403, Outcome.REFUSED),
        (404, Outcome.REFUSED),
        (413, Outcome.REFUSED),
    ],
)
def test_an_answer_that_would_be_the_same_again_is_taken_at_once(status: int, outcome: Outcome):
    """One request, one outcome."""
    http = Recorder(status)
    assert (post(http), len(http.calls)) == (outcome, 1)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (429, Outcome.THROTTLED),
        (500, Outcome.FAILED),
        (503, Outcome.FAILED),
        (408, Outcome.FAILED),
        (Broken("lost"), Outcome.FAILED),
        (Unreached("no route"), Outcome.FAILED),
    ],
)
def test_what_may_pass_is_tried_again_until_patience_ends(answer: Answer, outcome: Outcome):
    """Several times, and with success as soon as there is one."""
    http = Recorder(answer)
    assert post(http, patience_s=3) is outcome
    assert 3 <= len(http.calls) <= 60
    http = Recorder(answer, answer, 200)
    assert (post(http), len(http.calls)) == (Outcome.DELIVERED, 3)


def test_a_single_try_is_a_single_try():
    """With no patience at all."""
    http = Recorder(429)
    outcome = virtually(http, lambda posts: posts.post(CONNECTION, Frame(b"x"), patience_s=0))
    assert (outcome, len(http.calls)) == (Outcome.THROTTLED, 1)


def test_a_message_longer_than_any_post_is_not_sent():
    """API Gateway would refuse it with 413."""
    http = Recorder()
    outcome = virtually(http, lambda posts: posts.post(CONNECTION, Frame(b"x" * 131_073)))
    assert (outcome, http.calls) == (Outcome.REFUSED, [])


def test_a_connection_is_closed_with_a_notice_of_the_code_where_the_gateway_has_no_codes():
    """API Gateway closes with 1000, whatever the reason."""
    http = Recorder(200, 204)
    assert virtually(http, lambda posts: posts.close(CONNECTION, 4401, "token expired")) is Outcome.DELIVERED
    (posted, url, _, body), (deleted, other, _, nothing) = http.calls
    notice = {"type": "notice", "code": "closing", "close": 4401, "message": "token expired"}
    assert (posted, msgspec.json.decode(body), deleted, nothing) == ("POST", notice, "DELETE", b"")
    assert url == other


def test_the_notice_of_a_code_is_tried_again():
    """Without it a client would take its removal for a cut, and come back."""
    http = Recorder(429, 200, 204)
    assert virtually(http, lambda posts: posts.close(CONNECTION, 4403, "removed")) is Outcome.DELIVERED
    assert [method for method, *_ in http.calls] == ["POST", "POST", "DELETE"]


def test_a_connection_that_is_gone_is_not_closed():
    """One request tells."""
    http = Recorder(410)
    assert virtually(http, lambda posts: posts.close(CONNECTION, 4401, "x")) is Outcome.GONE
    assert len(http.calls) == 1


def test_a_gateway_with_codes_is_told_the_code():
    """Ours; in the query, which is signed."""
    http = Recorder(503, 204)
    outcome = virtually(
        http, lambda posts: posts.close(CONNECTION, 4403, "banned & gone"), close_codes=True, endpoint=STAGE
    )
    assert outcome is Outcome.DELIVERED
    [_, (method, url, headers, body)] = http.calls
    assert (method, url.partition("?")[2]) == ("DELETE", "code=4403&reason=banned%20%26%20gone")
    host, path = STAGE.split("/")[2], url.partition("?")[0].split("/", 3)[3]
    keys = Keys({KEYS.access_key: KEYS.secret_key})
    verify(
        keys,
        method="DELETE",
        path=f"/{path}",
        query=url.partition("?")[2],
        fields=[("host", host), *headers],
        body=body,
        service="execute-api",
        now_s=1.7e9,
    )


def test_a_connection_can_be_looked_for():
    """It is there, or gone."""
    assert virtually(Recorder(200), lambda posts: posts.look(CONNECTION)) is Outcome.DELIVERED
    assert virtually(Recorder(410), lambda posts: posts.look(CONNECTION)) is Outcome.GONE


def test_a_403_that_has_nothing_to_do_with_the_clock_is_not_tried_again():
    """The gateway's time is ours."""
    same = HttpResponse(403, [(b"Date", b"Tue, 14 Nov 2023 22:13:20 GMT")], b"")
    http = Recorder(same)
    assert (post(http), len(http.calls)) == (Outcome.REFUSED, 1)


def test_a_403_of_a_clock_that_is_off_is_mended_by_the_gateways_time():
    """The second request says it."""
    later = HttpResponse(403, [(b"Date", b"Tue, 14 Nov 2023 23:13:20 GMT")], b"")
    http = Recorder(later, 200)
    assert post(http) is Outcome.DELIVERED
    assert [dict(call[2])["X-Amz-Date"] for call in http.calls] == ["20231114T221320Z", "20231114T231320Z"]


def test_refusals_are_logged_but_do_not_flood_the_log(caplog: pytest.LogCaptureFixture):
    """Some in each second, and how many more there were."""

    async def ask(posts: Posts) -> None:
        for n in range(150):
            await posts.post(ConnectionId(f"c{n}"), Frame(b"x"))

    virtually(Recorder(403), ask)
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum("was refused" in line.message for line in lines) == 2 * LOGGED_PER_S
    assert [line.message for line in lines if "more" in line.message] == ["80 more posts were refused"]


def test_an_endpoint_that_is_none_is_refused():
    """The error says what was expected and what came."""
    for wrong in ("", "wss://api/prod", "https://", "https://api/prod?x=1"):
        with pytest.raises(ValueError, match="expected an address such as https://host/stage"):
            virtually(Recorder(), lambda posts: posts.look(CONNECTION), wrong)
