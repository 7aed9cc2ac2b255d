"""Functions in this process: what becomes of an event, an answer, a failure and of time."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from hubbub.apigateway import Event, Identity, RequestContext, Response, Route, server_error_document
from hubbub.gateway.integrations import InProcess

FAILED = server_error_document("c", "q")
TIMEOUT_S = 29.0


def event() -> Event:
    """A message's."""
    return Event(
        request_context=RequestContext(
            route_key="$default",
            event_type="MESSAGE",
            extended_request_id="q",
            request_time="",
            stage="local",
            connected_at=0,
            request_time_epoch=0,
            identity=Identity("127.0.0.1"),
            request_id="q",
            domain_name="localhost",
            connection_id="c",
            api_id="x",
        ),
        body="hello",
    )


class Function:
    """A function that ends when the test says so, and how."""

    def __init__(self) -> None:
        self.given: Event | None = None
        self.ended = False
        self._end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def __call__(self, event: Event) -> Any:
        self.given = event
        try:
            return await self._end
        finally:
            self.ended = True

    def returns(self, response: Any) -> None:
        self._end.set_result(response)

    def raises(self, error: BaseException) -> None:
        self._end.set_exception(error)

    def is_cancelled_from_within(self) -> None:
        self._end.cancel()


class Lab:
    """An integration, and what it said."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.failures = 0
        self.said: list[bytes | str] = []
        self.integration = InProcess(timeout_s, self.failed)

    def failed(self) -> None:
        self.failures += 1

    async def start(self, *, two_way: bool = True) -> Function:
        """Begin a function; its end is written down as `done`."""
        function = Function()
        self.integration.start(Route(function, two_way), event(), self.said.append, lambda: self.said.append("done"))
        await steps()
        assert function.given is not None
        return function

    def sweep_after(self, seconds: float) -> None:
        self.integration.sweep(asyncio.get_running_loop().time() + seconds)


async def steps() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def lab() -> Lab:
    return Lab()


def logged(caplog: pytest.LogCaptureFixture, message: str) -> list[Any]:
    """What was logged with these words."""
    return [record for record in caplog.records if record.message == message]


# Messages


@pytest.mark.parametrize("body", ["grüß Gott", "grüß Gott".encode()])
async def test_a_two_way_functions_body_is_answered(lab, body):
    """As bytes, once, and before it is told that the function has ended."""
    function = await lab.start()
    assert function.given.body == "hello"
    assert (lab.said, len(lab.integration)) == ([], 1)
    function.returns(Response(body=body))
    await steps()
    assert (lab.said, len(lab.integration), lab.failures) == (["grüß Gott".encode(), "done"], 0, 0)


@pytest.mark.parametrize(("two_way", "body"), [(True, None), (True, ""), (True, b""), (False, "x"), (False, None)])
async def test_what_is_no_answer_is_not_sent(lab, two_way, body):
    """No body, an empty one, and any body of a one-way route."""
    function = await lab.start(two_way=two_way)
    function.returns(Response(status_code=500, body=body))
    await steps()
    assert (lab.said, lab.failures) == (["done"], 0)


async def test_an_answer_is_written_in_the_step_in_which_the_function_returns(lab):
    """Nothing that the function has published can come between."""
    said: list[bytes | str] = []

    async def function(event: Event) -> Response:
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(said.append, "later")
        return Response(body="answer")

    lab.integration.start(Route(function, two_way=True), event(), said.append, lambda: None)
    await steps()
    assert said == [b"answer", "later"]


async def test_functions_begin_in_the_order_of_arrival_and_end_in_their_own(lab):
    """One that takes its time holds up no other."""
    begun: list[int] = []
    slow = asyncio.Event()

    def numbered(number: int) -> Any:
        async def function(event: Event) -> Response:
            begun.append(number)
            if number == 0:
                await slow.wait()
            return Response(body=str(number))

        return function

    for number in range(3):
        lab.integration.start(Route(numbered(number), two_way=True), event(), lab.said.append, lambda: None)
    await steps()
    slow.set()
    await steps()
    assert (begun, lab.said) == ([0, 1, 2], [b"1", b"2", b"0"])


@pytest.mark.parametrize("two_way", [True, False])
async def test_a_function_that_raises_is_answered_for(lab, caplog, two_way):
    """With API Gateway's document, on any route; the log has the traceback under the same request id."""
    function = await lab.start(two_way=two_way)
    function.raises(ValueError("secret"))
    await steps()
    assert (lab.said, lab.failures) == ([FAILED, "done"], 1)
    (record,) = logged(caplog, "a function failed")
    assert (record.connection_id, record.request_id, record.exc_info[0]) == ("c", "q", ValueError)


@pytest.mark.parametrize("response", [None, {"statusCode": 200}, "text", Response(body="\ud800")], ids=repr)
async def test_a_response_that_is_none_is_a_failure(lab, caplog, response):
    """Something that is no `Response`, and text that cannot be sent."""
    function = await lab.start()
    function.returns(response)
    await steps()
    assert (lab.said, lab.failures) == ([FAILED, "done"], 1)
    assert logged(caplog, "a function failed")


async def test_a_function_that_is_cancelled_from_within_is_a_failure(lab, caplog):
    """Something it waited for was cancelled: the client is not left without an answer."""
    function = await lab.start()
    function.is_cancelled_from_within()
    await steps()
    assert (lab.said, lab.failures) == ([FAILED, "done"], 1)
    assert logged(caplog, "a function failed")


async def test_a_function_that_is_cancelled_from_without_is_not_answered_for(lab):
    """That is how a loop ends; there is nobody to answer."""
    function = await lab.start()
    for task in list(lab.integration._calls):
        task.cancel()
    await steps()
    assert (function.ended, lab.said, lab.failures, len(lab.integration)) == (True, ["done"], 0, 0)


# Time


async def test_a_function_that_takes_too_long_is_answered_for_once(lab, caplog):
    """At its time and not before; it still runs, and it is told that it has ended when it has."""
    function = await lab.start()
    lab.sweep_after(TIMEOUT_S - 1)
    assert lab.said == []
    lab.sweep_after(TIMEOUT_S)
    lab.sweep_after(TIMEOUT_S + 1)
    assert (lab.said, lab.failures, len(lab.integration), function.ended) == ([FAILED], 1, 1, False)
    (record,) = logged(caplog, "a function took longer than 29 s")
    assert (record.connection_id, record.request_id) == ("c", "q")
    function.returns(Response(body="late"))
    await steps()
    assert (lab.said, lab.failures, len(lab.integration)) == ([FAILED, "done"], 1, 0)


async def test_a_late_failure_is_logged_and_counted_once(lab, caplog):
    """It was counted when it took too long, and the client was told then."""
    function = await lab.start()
    lab.sweep_after(TIMEOUT_S)
    function.raises(ValueError("late"))
    await steps()
    assert (lab.said, lab.failures) == ([FAILED, "done"], 1)
    assert logged(caplog, "a function failed")


async def test_each_function_has_its_own_time(lab):
    """One that is overdue does not take others with it."""
    first = await lab.start()
    first_at = next(iter(lab.integration._calls.values())).overdue_at
    second = await lab.start()
    lab.integration.sweep(first_at)
    assert lab.said == [FAILED]
    second.returns(Response(body="2"))
    await steps()
    first.returns(Response(body="1"))
    await steps()
    assert lab.said == [FAILED, b"2", "done", "done"]


# Handshakes and ends


async def test_a_call_returns_the_response(lab):
    """Or raises what the function raised; the caller sees to the failure."""
    function = Function()
    function.returns(Response(status_code=403))
    assert (await lab.integration.call(function, event())).status_code == 403
    function = Function()
    function.raises(KeyError("x"))
    with pytest.raises(KeyError):
        await lab.integration.call(function, event())
    assert (lab.failures, len(lab.integration)) == (0, 0)


async def test_a_call_takes_any_awaitable(lab):
    """A function need not be a coroutine function."""

    def function(event: Event) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result(Response(status_code=201))
        return future

    assert (await lab.integration.call(function, event())).status_code == 201


async def test_a_call_raises_for_what_is_no_response(lab):
    """Whatever else came back, and a cancellation from within, which would otherwise end the caller too."""
    function = Function()
    function.returns(None)
    with pytest.raises(TypeError, match="expected a Response from the function, got NoneType"):
        await lab.integration.call(function, event())
    function = Function()
    function.is_cancelled_from_within()
    with pytest.raises(RuntimeError, match="cancelled from within"):
        await lab.integration.call(function, event())


async def test_a_call_that_takes_too_long_is_given_up_and_runs_to_its_end(caplog):
    """The function is kept until then, and a failure that nobody waits for is logged."""
    lab = Lab(timeout_s=0.001)
    functions = [Function(), Function()]
    for function in functions:
        with pytest.raises(TimeoutError):
            await lab.integration.call(function, event())
    gc.collect()
    assert (len(lab.integration), [function.ended for function in functions]) == (2, [False, False])
    functions[0].returns(Response())
    functions[1].raises(ValueError("late"))
    await steps()
    assert len(lab.integration) == 0
    (record,) = logged(caplog, "a function failed after it was given up")
    assert (record.connection_id, record.exc_info[0]) == ("c", ValueError)


async def test_a_call_whose_caller_is_cancelled_runs_to_its_end(lab):
    """It may be in the midst of a write."""
    function = Function()
    caller = asyncio.create_task(lab.integration.call(function, event()))
    await steps()
    caller.cancel()
    await steps()
    assert (caller.cancelled(), function.ended, len(lab.integration)) == (True, False, 1)
    function.returns(Response())
    await steps()
    assert (function.ended, len(lab.integration)) == (True, 0)


# The end


async def test_finish_waits_for_all_that_is_under_way(lab):
    """Messages, calls, and what began while it waited."""
    first, called = await lab.start(), Function()
    caller = asyncio.create_task(lab.integration.call(called, event()))
    await steps()
    finishing = asyncio.create_task(lab.integration.finish(60.0))
    await steps()
    second = await lab.start()
    first.returns(Response(body="1"))
    await steps()
    assert not finishing.done()
    second.returns(Response(body="2"))
    await steps()
    assert not finishing.done()
    called.returns(Response())
    await caller
    await steps()
    assert finishing.done()
    assert lab.said == [b"1", "done", b"2", "done"]


async def test_finish_waits_no_longer_than_it_was_told(lab):
    """What has not ended by then goes on."""
    function = await lab.start()
    await lab.integration.finish(0.001)
    assert (function.ended, len(lab.integration)) == (False, 1)
    function.returns(Response())
    await steps()
    assert lab.said == ["done"]


async def test_finish_returns_at_once_when_nothing_is_under_way(lab):
    """However long it might have waited."""
    finishing = asyncio.create_task(lab.integration.finish(60.0))
    await steps()
    assert finishing.done()


# Shortcuts


class Shortcut:
    """A shortcut that takes what is said with a capital, and answers when the test says so."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.ends: list[Any] = []

    def __call__(self, connection_id: str, body: str, answer: Any) -> bool:
        if not body[0].isupper():
            return False
        self.taken.append(f"{connection_id} {body}")
        self.ends.append(answer)
        return True

    def route(self, handler: Any) -> Route:
        return Route(handler, two_way=True, shortcut=self)


def shorten(lab: Lab, route: Route, body: str, connection_id: str = "c") -> bool:
    now = asyncio.get_running_loop().time()
    return lab.integration.shorten(route, connection_id, body, lab.said.append, lambda: lab.said.append("done"), now)


async def test_a_shortcut_takes_what_it_will_and_leaves_the_rest_untouched(lab):
    """Its answer is sent when it comes, and then it is done."""
    shortcut, function = Shortcut(), Function()
    route = shortcut.route(function)
    assert not shorten(lab, route, "small")
    assert shorten(lab, route, "Tall")
    assert (lab.said, len(lab.integration)) == ([], 1)
    shortcut.ends[0](b"yes")
    assert (lab.said, len(lab.integration), lab.failures) == ([b"yes", "done"], 0, 0)


async def test_a_shortcut_that_has_nothing_to_say_is_done_all_the_same(lab):
    """None and an empty body are no answers."""
    shortcut = Shortcut()
    for body in (None, b""):
        assert shorten(lab, shortcut.route(Function()), "Tall")
        shortcut.ends.pop()(body)
    assert lab.said == ["done", "done"]


async def test_a_shortcut_waits_for_functions_of_its_connection_that_have_yet_to_begin(lab):
    """What came before shall begin before; other connections have nothing to do with it."""
    shortcut, function = Shortcut(), Function()
    route = shortcut.route(function)
    lab.integration.start(route, event(), lab.said.append, lambda: None)
    assert not shorten(lab, route, "Tall")
    assert shorten(lab, route, "Tall", connection_id="other")
    await steps()
    assert function.given is not None
    assert shorten(lab, route, "Tall"), "it has begun, and need not have ended"
    assert shortcut.taken == ["other Tall", "c Tall"]
    function.returns(Response())


async def test_a_shortcut_that_takes_too_long_is_answered_for_once(lab, caplog):
    """Its late answer is not sent; it is done when it ends."""
    shortcut = Shortcut()
    assert shorten(lab, shortcut.route(Function()), "Tall")
    lab.sweep_after(TIMEOUT_S - 1)
    assert lab.said == []
    lab.sweep_after(TIMEOUT_S + 1)
    lab.sweep_after(TIMEOUT_S + 2)
    [line] = logged(caplog, f"a function took longer than {TIMEOUT_S:g} s")
    assert (line.connection_id, lab.failures) == ("c", 1)
    assert lab.said == [server_error_document("c", line.request_id)]
    shortcut.ends[0](b"late")
    assert lab.said[1:] == ["done"]
    assert len(lab.integration) == 0


async def test_finishing_waits_for_what_shortcuts_have_taken(lab):
    """As long as it is given, and no longer."""
    shortcut = Shortcut()
    assert shorten(lab, shortcut.route(Function()), "Tall")
    await lab.integration.finish(0.01)
    assert len(lab.integration) == 1
    finishing = asyncio.create_task(lab.integration.finish(20))
    await steps()
    assert not finishing.done()
    shortcut.ends[0](b"yes")
    await asyncio.wait_for(finishing, 5)
