"""What a chat costs: against sums done by hand, and that more of anything never costs less."""

from __future__ import annotations

import heapq
import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from hubbub.client.actions import SendFrame, SetTimer
from hubbub.client.session import Session, Settings
from hubbub.cost.bills import Bill, bill
from hubbub.cost.catalogue import Price, Prices, read_prices, read_work
from hubbub.cost.lambdas import broadcasts
from hubbub.cost.scenario import DAYS, PRESETS, SHAPES, Scenario, scenario
from hubbub.cost.traffic import Flow, Traffic, pings, told_heads, traffic
from hubbub.model import MessageCreated, RoomId, UserId
from hubbub.protocol import encode

REGION = read_prices()["us-east-1"]
WORK = read_work()

PLAIN = Scenario(
    rooms=1,
    members=10,
    rooms_per_user=1,
    devices=1,
    online=1,
    connected_hours=24,
    active_hours=24,
    sessions=0,
    reconnects_per_hour=0,
    messages_per_s=0.1,
    size_bytes=820,
    backend_share=0,
    reactions=0,
    typing=0,
    reads=0,
    history_pages=0,
    peak=1,
    kept_months=0,
)
"""Ten people in one room, all day long; every ten seconds somebody says something."""


def of(shape: str, chat: Scenario) -> dict[str, tuple[float, float]]:
    """Quantity and dollars of each line of the bill."""
    return {item.what: (item.quantity, item.usd) for item in bill(shape, chat, REGION, WORK).items}


def load_of(chat: Scenario) -> Traffic:
    """What is to be done behind API Gateway."""
    return bill("serverless", chat, REGION, WORK).load


# By hand. A month has 365 / 12 days: 730 hours, 43,800 minutes, 2,628,000 seconds.


def test_entries_are_posted_to_everybody_who_listens() -> None:
    """An entry each ten seconds is 262,800 a month, to ten listeners 2,628,000 posts: $2.63 at a dollar a million."""
    quantity, usd = of("serverless", PLAIN)["API Gateway: posts of entries"]
    assert quantity == pytest.approx(2_628_000)
    assert usd == pytest.approx(2.628)


def test_minutes_are_paid_for_while_connected() -> None:
    """Ten connections all month are 438,000 minutes: 11 cents at a quarter dollar a million."""
    quantity, usd = of("serverless", PLAIN)["API Gateway: connection minutes"]
    assert quantity == pytest.approx(438_000)
    assert usd == pytest.approx(0.1095)


def test_a_connection_is_made_anew_every_two_hours() -> None:
    """Ten users all day make twelve connections a day each, 3,650 a month; where there is no such limit, none."""
    assert load_of(PLAIN).connects.month == pytest.approx(3_650)
    assert bill("instances", PLAIN, REGION, WORK).load.connects.month == 0


def test_every_action_has_a_reply_that_is_a_message_too() -> None:
    """What clients ask for is counted on its way in and, as the reply, on its way out."""
    found = of("serverless", PLAIN)
    actions = load_of(PLAIN).actions
    asked = actions["send"].month + actions["sync"].month + actions["ping"].month
    assert actions["send"].month == pytest.approx(262_800)
    assert actions["sync"].month == pytest.approx(3_650)
    assert found["API Gateway: messages of clients"][0] == pytest.approx(asked)
    assert found["API Gateway: replies"][0] == pytest.approx(asked)


def test_a_message_above_32_kb_counts_as_several() -> None:
    """An entry of 70,180 bytes is three messages of 32 KB, to each listener and from its author; its reply is one."""
    chat = msgspec.structs.replace(PLAIN, size_bytes=70_000)
    assert load_of(chat).entry_bytes == 70_180
    found = of("serverless", chat)
    assert found["API Gateway: posts of entries"][0] == pytest.approx(3 * 2_628_000)
    assert found["API Gateway: messages of clients"][0] - found["API Gateway: replies"][0] == pytest.approx(2 * 262_800)


def test_read_marks_grow_with_the_square_of_a_room() -> None:
    """If all nine others mark each message as read and nine hear each mark, that is 81 posts a message."""
    chat = msgspec.structs.replace(PLAIN, reads=1)
    assert of("serverless", chat)["API Gateway: posts of read marks"][0] == pytest.approx(81 * 262_800)


def test_a_crowd_is_told_entries_and_heads_alone() -> None:
    """Above the limit for crowds nothing is told of read marks, typing, comings and goings."""
    chat = msgspec.structs.replace(PLAIN, reads=1, typing=1, sessions=1, crowd=9)
    assert load_of(chat).told.keys() == {"entries", "heads"}
    calm = msgspec.structs.replace(chat, crowd=10)
    assert load_of(calm).told.keys() == {"entries", "heads", "read marks", "typing", "comings and goings"}


def test_comings_and_goings_are_told_in_each_room() -> None:
    """A day has a coming and a going for each of ten users, in his one room, to ten listeners: 200 posts."""
    chat = msgspec.structs.replace(PLAIN, sessions=1)
    assert load_of(chat).told["comings and goings"].month == pytest.approx(200 * DAYS)


def test_heads_are_told_once_a_minute_in_a_busy_room() -> None:
    """A room that is written to all the time is told its head each minute, one that is not never."""
    assert told_heads(1, Flow(1e9, 1_000), 60_000, 60).month == pytest.approx(1_000)
    assert told_heads(1, Flow(0, 0), 60_000, 60) == Flow(0, 0)
    quiet = told_heads(10, Flow(5, 5 / 60_000), 60_000, 60).month
    assert quiet == pytest.approx(5, rel=0.01)  # each of the few entries has its own


def test_functions_are_paid_for_by_request_and_time() -> None:
    """By hand, for a function that runs 100 ms with 512 MB, ten times a second: 50 GB-s and 1,000 requests in 100 s."""
    each = msgspec.structs.replace(WORK.actions.send, cpu_ms=40, round_trips=10)
    work = msgspec.structs.replace(
        WORK,
        functions=msgspec.structs.replace(WORK.functions, round_trip_ms=6, message_memory_mb=512),
        actions=msgspec.structs.replace(WORK.actions, send=each),
    )
    base = msgspec.structs.replace(WORK, actions=msgspec.structs.replace(WORK.actions, send=_idle(each)))
    took = bill("serverless", PLAIN, REGION, work).functions
    without = bill("serverless", PLAIN, REGION, base).functions
    assert took is not None and without is not None
    assert took.gb_seconds - without.gb_seconds == pytest.approx(262_800 * 0.1 * 0.5)
    assert took.concurrency - without.concurrency == pytest.approx(0.1 * 0.1)
    usd = {item.what: item.usd for item in bill("serverless", PLAIN, REGION, work).items}["Lambda: time"]
    assert usd == pytest.approx(took.gb_seconds * 0.0000133334)


def _idle(action: Any) -> Any:
    return msgspec.structs.replace(action, cpu_ms=0, round_trips=0)


def test_units_are_those_of_the_work() -> None:
    """A chat that only sends takes the units of sending, and those of its broadcasts, heads, connections and sweeps."""
    some = msgspec.structs.replace(PLAIN, size_bytes=500)  # below 1 KB with all that comes to it
    twice = msgspec.structs.replace(some, messages_per_s=0.2)
    more = of("serverless", twice)["DynamoDB: writes"][0] - of("serverless", some)["DynamoDB: writes"][0]
    heads = load_of(twice).jobs["heads"].month - load_of(some).jobs["heads"].month
    each = WORK.broadcaster.write_units
    assert more == pytest.approx(262_800 * (WORK.actions.send.write_units + each) + heads * each)


def test_signals_need_no_lease() -> None:
    """Typing is delivered without writing anything, beyond the permits of a room of more than fifty."""
    quiet, chatty = (msgspec.structs.replace(PLAIN, typing=value) for value in (0, 5))
    assert of("serverless", quiet)["DynamoDB: writes"][0] == pytest.approx(
        of("serverless", chatty)["DynamoDB: writes"][0]
    )
    large, larger = (msgspec.structs.replace(chat, members=100) for chat in (quiet, chatty))
    more = of("serverless", larger)["DynamoDB: writes"][0] - of("serverless", large)["DynamoDB: writes"][0]
    assert more == pytest.approx(5 * 262_800 * 99 * WORK.broadcaster.write_units_per_post)


def test_functions_wait_where_the_quota_makes_them() -> None:
    """The posts that the quota allows at once take a function little, each of the rest as long as its permit takes."""
    for listeners, ms in ((3_500, 0.33), (7_000, (0.33 + 1.9) / 2)):
        load = load_of(msgspec.structs.replace(PLAIN, members=listeners, crowd=0))
        took = broadcasts(load, WORK, REGION.quota.requests_burst.value)
        job_s = (WORK.broadcaster.cpu_ms + WORK.broadcaster.round_trips * WORK.functions.round_trip_ms) / 1_000
        posts_s = took.concurrency - took.jobs.peak * job_s
        assert posts_s / load.posts.peak * 1_000 == pytest.approx(ms)
        free = broadcasts(load, WORK, None)
        assert (free.concurrency - free.jobs.peak * job_s) / load.posts.peak * 1_000 == pytest.approx(0.33)


def test_an_entry_above_a_kilobyte_takes_more_units() -> None:
    """A text of 3,000 bytes needs four times the write units of one that fits into 1 KB."""
    small, large = msgspec.structs.replace(PLAIN, size_bytes=100), msgspec.structs.replace(PLAIN, size_bytes=3_000)
    more = of("serverless", large)["DynamoDB: writes"][0] - of("serverless", small)["DynamoDB: writes"][0]
    assert more == pytest.approx(262_800 * 3 * WORK.actions.send.write_units)


def test_a_queue_takes_three_requests_a_broadcast() -> None:
    """Handing over by SQS costs a request to send, one to receive and one to delete; FIFO's are a quarter dearer."""
    by_sqs = of("serverless", msgspec.structs.replace(PLAIN, transport="sqs"))["SQS: broadcasts"]
    by_fifo = of("serverless", msgspec.structs.replace(PLAIN, transport="fifo"))["SQS: broadcasts"]
    assert by_sqs[0] == by_fifo[0] == pytest.approx(3 * sum(flow.month for flow in load_of(PLAIN).jobs.values()))
    assert by_fifo[1] == pytest.approx(by_sqs[1] * 1.25)
    assert of("serverless", PLAIN)["SQS: broadcasts"] == (0, 0)


def test_two_instances_and_what_stands_beside_them() -> None:
    """By hand: 2 x 730 h of c7g.large, an NLB, 2 addresses, 3 x 730 h with NATS, PostgreSQL in 2 zones with 20 GB."""
    found = {what: round(usd, 2) for what, (_, usd) in of("instances", PLAIN).items()}
    assert found["Gateway: instances"] == 105.85
    assert found["Gateway: volumes"] == 3.20
    assert found["Load balancer"] == 16.43
    assert found["Public addresses"] == 7.30
    assert found["NATS: instances"] == 36.79
    assert found["PostgreSQL: instances"] == 94.90
    assert found["PostgreSQL: storage"] == 4.60


def test_instances_are_as_many_as_connections_and_processor_need() -> None:
    """120,000 connections need three instances of 50,000; a million deliveries a second need more for their work."""
    many = msgspec.structs.replace(PLAIN, rooms=12_000, messages_per_s=0.001)
    assert bill("instances", many, REGION, WORK).instances == 3
    busy = msgspec.structs.replace(PLAIN, rooms=10_000, messages_per_s=100_000)
    seconds = 1e6 * WORK.instances.delivery_us / 1e6 + 1e5 * WORK.instances.action_us / 1e6
    assert bill("instances", busy, REGION, WORK).instances >= seconds / (WORK.instances.cores * WORK.instances.target)


def test_one_gateway_needs_no_nats() -> None:
    """An instance alone has nobody to tell."""
    alone = msgspec.structs.replace(WORK, instances=msgspec.structs.replace(WORK.instances, at_least=1))
    found = {item.what: item.usd for item in bill("instances", PLAIN, REGION, alone).items}
    assert found["NATS: instances"] == found["NATS: volumes"] == 0
    assert found["Gateway: instances"] == pytest.approx(730 * 0.0725)


def test_an_application_load_balancer_counts_connections_more_dearly() -> None:
    """30,000 connections are a third of an NLB's unit and ten of an ALB's."""
    nlb = msgspec.structs.replace(PLAIN, rooms=3_000, messages_per_s=0.001, heartbeat_s=86_400)
    alb = msgspec.structs.replace(nlb, balancer="alb")
    assert of("instances", nlb)["Load balancer: units"][0] == pytest.approx(730 * 0.3)
    assert of("instances", alb)["Load balancer: units"] == (pytest.approx(7_300), pytest.approx(58.4))


def test_a_busy_database_is_a_larger_one() -> None:
    """Above what the small size bears, the large one is paid for."""
    busy = msgspec.structs.replace(PLAIN, rooms=1_000, messages_per_s=101)
    assert of("instances", PLAIN)["PostgreSQL: instances"][1] == pytest.approx(2 * 730 * 0.065)
    assert of("instances", busy)["PostgreSQL: instances"][1] == pytest.approx(2 * 730 * 0.168)


def test_a_table_instead_of_postgresql() -> None:
    """Instances can keep the log in DynamoDB: then its units are paid for, and no database."""
    found = of("instances", msgspec.structs.replace(PLAIN, database="dynamodb", size_bytes=500))
    assert not any(what.startswith("PostgreSQL") for what in found)
    assert found["DynamoDB: writes"][0] == pytest.approx(262_800 * WORK.actions.send.write_units)


def test_a_bill_is_the_sum_of_its_lines() -> None:
    """Nothing is in the sum that is not in a line."""
    for shape in SHAPES:
        whole = bill(shape, scenario("community"), REGION, WORK)
        assert whole.usd == pytest.approx(sum(item.usd for item in whole.items))
        assert len({item.what for item in whole.items}) == len(whole.items)


# Sizes


def test_the_overhead_of_an_entry_is_that_of_a_real_one() -> None:
    """A message as it is sent has about as many bytes beside its text as `work.toml` says."""
    entry = MessageCreated(
        room=RoomId("general"),
        seq=123_456,
        id="01JDT3Y8Q4ZV6Y2M4K9V7C5B1A",
        at=1_796_000_000_000,
        by=UserId("user-42"),
        name="Ada Lovelace",
        text="",
        client_id="c-1f8a2b3c",
    )
    assert len(encode(entry)) == pytest.approx(WORK.frames.entry_overhead_bytes, rel=0.15)


# Heartbeats


def test_silent_connections_ping_at_each_heartbeat() -> None:
    """Where nothing is heard, a connection-hour has 120 pings of 30 seconds."""
    assert pings(Flow(0, 0), 1_000, 50, 30).month == pytest.approx(120_000)
    assert pings(Flow(0, 0), 1_000, 60, 30).peak == pytest.approx(2)
    assert pings(Flow(0, 0), 0, 0, 30) == Flow(0, 0)


def test_busy_connections_do_not_ping() -> None:
    """Whoever hears something every second never asks whether the server is there."""
    assert pings(Flow(3_600_000, 1_000), 1_000, 1_000, 30).month == pytest.approx(0, abs=1e-3)
    assert pings(Flow(1e12, 1e6), 1_000, 1_000, 540).month == 0


@pytest.mark.slow
@pytest.mark.parametrize("every_s", [5, 30, 120])
def test_heartbeats_are_as_many_as_the_client_sends(every_s: int) -> None:
    """The client's own session, given frames at random moments for 100 hours, pings as often as the model says."""
    hours, rate = 100, 1 / every_s
    sent = _pings_of_a_client(rate, hours)
    expected = pings(Flow(rate * hours * 3600, rate), hours, 1, 30).month
    assert sent == pytest.approx(expected, rel=0.05, abs=30)


def _pings_of_a_client(rate: float, hours: int) -> int:
    """How often a client asks that hears frames at random moments, `rate` a second, and gets answers at once."""
    session, chance, now = Session(Settings(heartbeat_ms=30_000)), random.Random(7), 0
    session.start(0)
    session.token(0, "t")
    session.opened(0)
    timers: dict[str, int] = {}
    events: list[tuple[int, str]] = []
    count, at = 0, 0.0
    while at < hours * 3_600_000:
        at += chance.expovariate(rate) * 1_000
        heapq.heappush(events, (int(at), "signal"))
    while True:
        for action in session.take():
            if isinstance(action, SetTimer):
                timers[action.name] = now + action.ms
            elif isinstance(action, SendFrame):
                count += action.frame["action"] == "ping"
                session.frame(now, _answer(action.frame))
        due = timers.get("heartbeat", math.inf)
        if events and events[0][0] <= due:
            now, _ = heapq.heappop(events)
            if now > hours * 3_600_000:
                return count
            session.frame(now, b'{"type":"typing","room":"general","by":"bob","on":true}')
        else:
            now = int(due)
            timers.pop("heartbeat")
            session.timer(now, "heartbeat")


def _answer(frame: dict[str, Any]) -> bytes:
    answers = {
        "sync": {"epoch": "e", "user": "u", "connection_id": "c", "rooms": [], "entries": [], "more": [], "reset": []},
        "ping": {"at": 1},
    }
    return msgspec.json.encode({"type": "ok", "ref": frame["ref"], **answers[frame["action"]]})


# Whatever the chat is


def chats() -> st.SearchStrategy[Scenario]:
    """Chats of all sizes."""
    return st.builds(
        Scenario,
        rooms=st.integers(1, 10_000),
        members=st.integers(1, 20_000),
        rooms_per_user=st.floats(1, 10),
        online=st.floats(0, 1),
        connected_hours=st.floats(0, 24),
        active_hours=st.floats(1, 24),
        messages_per_hour=st.floats(0, 5_000),
        size_bytes=st.floats(1, 100_000),
        reads=st.floats(0, 1),
        reactions=st.floats(0, 5),
        peak=st.floats(1, 20),
        kept_months=st.floats(0, 60),
        transport=st.sampled_from(["lambda", "sqs", "fifo"]),
        database=st.sampled_from(["postgres", "dynamodb"]),
        balancer=st.sampled_from(["nlb", "alb"]),
    )


MORE = ["rooms", "messages_per_hour", "size_bytes", "reactions", "history_pages", "kept_months", "sessions"]
"""Inputs of which more is more work, whatever the rest. More members can be less: a crowd is told less."""


@settings(deadline=None, max_examples=examples(60))
@given(chats(), st.sampled_from(MORE), st.sampled_from(list(SHAPES)))
def test_more_never_costs_less(chat: Scenario, name: str, shape: str) -> None:
    """Twice as many rooms, messages, bytes, reactions, pages, months or sessions cost at least as much.

    More frames can make heartbeats unnecessary, so these are not counted here.
    """
    chat = msgspec.structs.replace(chat, heartbeat_s=86_400)
    double = min(2 * (getattr(chat, name) or 1), 100_000)
    more = msgspec.structs.replace(chat, **{name: double})
    assert bill(shape, more, REGION, WORK).usd >= bill(shape, chat, REGION, WORK).usd * (1 - 1e-9) - 0.01


@settings(deadline=None, max_examples=examples(60))
@given(chats(), st.sampled_from(list(SHAPES)))
def test_nothing_is_negative_or_endless(chat: Scenario, shape: str) -> None:
    """Every quantity and every amount is a number from 0 up."""
    for item in bill(shape, chat, REGION, WORK).items:
        assert 0 <= item.quantity < math.inf, item.what
        assert 0 <= item.usd < math.inf, item.what


# Prices


def test_tiers_hold_for_what_lies_in_them() -> None:
    """By hand: 1.5 billion messages are 1,000 million at $1 and 500 million at 80 cents."""
    assert REGION.price.apigateway_message.cost(1.5e9) == pytest.approx(1_400)
    assert REGION.price.transfer_out_gb.cost(10_240 + 40_960 + 102_400 + 1_000) == pytest.approx(
        921.6 + 3_481.6 + 7_168 + 50
    )
    assert REGION.price.http_api_request.cost(1e9) == pytest.approx(300 + 630)


class Noting(Price, frozen=True, kw_only=True):
    """A price that says when it is asked."""

    asked: list[str]
    name: str

    def cost(self, quantity: float) -> float:
        """Dollars, noted."""
        self.asked.append(self.name)
        return super().cost(quantity)


def test_every_price_is_used() -> None:
    """Each price of the file is in some bill of some chat."""
    asked: list[str] = []
    noting = {
        name: Noting(name=name, asked=asked, **msgspec.structs.asdict(getattr(REGION.price, name)))
        for name in Prices.__struct_fields__
    }
    region = msgspec.structs.replace(REGION, price=Prices(**noting))
    for preset in PRESETS:
        for chosen in (
            {},
            {"database": "dynamodb", "balancer": "alb", "transport": "sqs", "architecture": "x86"},
            {"transport": "fifo", "messages_per_s": 500},
        ):
            for shape in SHAPES:
                bill(shape, scenario(preset, chosen), region, WORK)
    assert set(asked) == set(Prices.__struct_fields__)


def test_heads_differ_by_home() -> None:
    """A room's head is told each minute where a sweeper does it, and each five seconds where a process does."""
    assert load_of(PLAIN).told["heads"].month < bill("instances", PLAIN, REGION, WORK).load.told["heads"].month


def test_what_is_to_be_done_is_the_same_in_every_home() -> None:
    """Entries, deliveries and users do not depend on where the chat runs."""

    def same(each: Bill) -> tuple[float, ...]:
        return each.load.users, each.load.entries.month, each.load.told["entries"].month, each.load.connection_hours

    assert len({same(bill(shape, PLAIN, REGION, WORK)) for shape in SHAPES}) == 1
    assert traffic(PLAIN, WORK, connection_s=None, head_every_s=60).entries.month == pytest.approx(262_800)
