"""Which quota breaks first, how long a broadcast takes at best, and where one home becomes cheaper than another."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from hubbub.cost.bills import bill
from hubbub.cost.capacity import Use, broadcast, storm, uses
from hubbub.cost.catalogue import Quotas, read_prices, read_work
from hubbub.cost.lambdas import duration_s
from hubbub.cost.scenario import PRESETS, SHAPES, Scenario, scenario
from hubbub.cost.sweep import crossings, point

REGION = read_prices()["us-east-1"]
WORK = read_work()


def found(chat: Scenario, shape: str = "serverless") -> list[Use]:
    """The quotas of that home for this chat."""
    return uses(bill(shape, chat, REGION, WORK), chat, REGION, WORK)


def first(chat: Scenario, shape: str = "serverless") -> str:
    """The one that breaks first."""
    return found(chat, shape)[0].what


def used(chat: Scenario, what: str, shape: str = "serverless") -> float:
    """How much of one is used."""
    return next(use.used for use in found(chat, shape) if use.what == what)


def test_large_rooms_break_the_quota_of_requests_first() -> None:
    """An audience of 10,000 takes 10,000 requests for each entry: more than a second's."""
    stream = scenario("stream")
    assert first(stream) == "requests_per_s"
    assert found(stream)[0].headroom < 1
    posts = 0.5 * 3 * stream.members * stream.online  # entries a second, peak, listeners
    assert used(stream, "requests_per_s") >= posts


def test_many_who_come_and_go_break_the_quota_of_new_connections_first() -> None:
    """Rooms in which nothing is said, and users who come for a minute."""
    chat = scenario("team", {"rooms": 100_000, "sessions": 200, "messages_per_hour": 0, "crowd": 0, "history_pages": 0})
    assert first(chat) == "new_connections_per_s"


def test_one_hot_room_breaks_its_own_log_first() -> None:
    """Sixty entries a second in one small room are more than its log takes, and far from AWS's quotas."""
    chat = scenario("team", {"rooms": 1, "rooms_per_user": 1, "messages_per_s": 50, "peak": 1, "crowd": 0})
    assert first(chat) == "room_appends_per_s"
    assert used(chat, "room_appends_per_s") == pytest.approx(50 * 1.2)  # reactions are entries, too


def test_what_is_asked_breaks_the_throttle_of_the_stage_first() -> None:
    """Where nobody listens but the author, clients reach the stage's throttle before the account's."""
    chat = scenario("team", {"members": 1, "rooms": 100_000, "online": 0.001, "history_pages": 5_000, "crowd": 0})
    assert first(chat) == "stage_requests_per_s"


def test_a_heartbeat_beyond_the_idle_limit_does_not_fit() -> None:
    """A client that pings each 700 s is closed by API Gateway's 10 minutes first, and that comes first in the list."""
    broken = found(scenario("team", {"heartbeat_s": 700}))[0]
    assert (broken.what, broken.raisable) == ("idle_s", False)
    assert broken.headroom < 1
    assert found(scenario("team"))[0].grows, "what is only a setting is not called the first to break"


def test_a_message_may_not_be_larger_than_a_post() -> None:
    """An entry of the largest text still fits into one message."""
    assert used(scenario("team", {"size_bytes": 100_000}), "message_bytes") == 100_180


def test_our_gateway_knows_no_quota_of_api_gateway() -> None:
    """On instances and in the mix there is none of requests, connections, idleness or size; in the mix Lambda's are."""
    chat = scenario("stream")
    for shape in ("instances", "mix"):
        names = {use.what for use in found(chat, shape)}
        assert not names & {
            "requests_per_s",
            "new_connections_per_s",
            "idle_s",
            "message_bytes",
            "stage_requests_per_s",
        }
    assert {"lambda_concurrency", "dynamodb_table_write_units"} <= {use.what for use in found(chat, "mix")}
    assert not {"lambda_concurrency"} & {use.what for use in found(chat, "instances")}


def test_a_table_behind_instances_has_its_quotas() -> None:
    """With DynamoDB as their store, instances meet the quotas of tables and partitions."""
    names = {use.what for use in found(scenario("team", {"database": "dynamodb"}), "instances")}
    assert {"dynamodb_table_write_units", "dynamodb_partition_write_units"} <= names


def test_every_quota_counts_somewhere() -> None:
    """Each quota of the file is looked at for some home, or in what is told of broadcasts and of connections."""
    seen = {use.what for shape in SHAPES for use in found(scenario("team"), shape)}
    elsewhere = {"requests_burst", "connection_s"}  # the floor of a broadcast; how often connections are made
    assert seen >= set(Quotas.__struct_fields__) - elsewhere
    low = msgspec.structs.replace(REGION.quota.requests_burst, value=0.0)
    region = msgspec.structs.replace(REGION, quota=msgspec.structs.replace(REGION.quota, requests_burst=low))
    assert broadcast(1_000, region, WORK, size=300).floor_s > broadcast(1_000, REGION, WORK, size=300).floor_s


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_first_to_break_has_the_least_headroom(preset: str, shape: str) -> None:
    """Broken ones come first, then those that grow with use by headroom, then settings."""
    order = [(use.headroom >= 1 and not use.grows, use.headroom) for use in found(scenario(preset), shape)]
    assert order == sorted(order)


@settings(deadline=None, max_examples=examples(40))
@given(st.integers(1, 5_000), st.integers(1, 2_000), st.floats(0, 1), st.sampled_from(list(SHAPES)))
def test_twice_as_many_rooms_leave_no_more_room(rooms: int, members: int, online: float, shape: str) -> None:
    """Twice as many rooms use at least as much of every quota."""
    given_ = {"members": members, "online": online}
    few = {use.what: use.used for use in found(scenario("team", {**given_, "rooms": rooms}), shape)}
    many = {use.what: use.used for use in found(scenario("team", {**given_, "rooms": 2 * rooms}), shape)}
    assert all(many[what] >= few[what] * (1 - 1e-9) for what in few)


# Broadcasts, by hand: 10,000 requests a second, 5,000 in the full bucket, of which broadcasts take seven tenths


@pytest.mark.parametrize(
    "listeners, floor_s, paced_s", [(1_000, 0, 0), (10_000, 0.5, 0.928571), (100_000, 9.5, 13.785714)]
)
def test_a_broadcast_takes_as_long_as_its_requests(listeners: int, floor_s: float, paced_s: float) -> None:
    """The bucket's 5,000 go at once, the rest at 10,000 a second; with the share 3,500, and 7,000 a second."""
    found = broadcast(listeners, REGION, WORK, size=300)
    assert found.floor_s == pytest.approx(floor_s)
    assert found.paced_s == pytest.approx(paced_s, abs=1e-6)
    assert found.per_s * found.listeners == pytest.approx(7_000)
    assert found.usd == pytest.approx(listeners / 1e6)


def test_everybody_is_back_at_500_a_second() -> None:
    """10,000 connections that were cut off need 20 seconds, and what 500 of them take each second meanwhile."""
    chat, actions = scenario("stream"), WORK.actions
    found = storm(bill("serverless", chat, REGION, WORK), chat, REGION, WORK)
    assert found.seconds == pytest.approx(20)
    reads = actions.connect.read_units + actions.sync.read_units + actions.sync.read_units_per_room  # one room
    assert found.read_units == pytest.approx(500 * reads)
    writes = actions.connect.write_units + actions.sync.write_units + actions.sync.write_units_per_room
    assert found.write_units == pytest.approx(500 * writes)
    seconds = sum(duration_s(action, chat, WORK) for action in (actions.authorize, actions.connect, actions.sync))
    assert found.concurrency == pytest.approx(500 * seconds)


def test_few_are_back_within_a_second() -> None:
    """A team of 144 connections takes what these take, and not what 500 would."""
    chat = scenario("team")
    found = storm(bill("serverless", chat, REGION, WORK), chat, REGION, WORK)
    each = WORK.actions.connect.write_units + WORK.actions.sync.write_units + 5 * WORK.actions.sync.write_units_per_room
    assert found.write_units == pytest.approx(144 * each)
    assert found.seconds < 1


def test_more_rooms_of_a_user_make_coming_back_dearer() -> None:
    """Each room of a user is read and written to when he comes back."""
    few, many = (scenario("team", {"rooms": 10_000, "rooms_per_user": count}) for count in (1, 20))
    storms = [storm(bill("serverless", chat, REGION, WORK), chat, REGION, WORK) for chat in (few, many)]
    assert storms[1].read_units - storms[0].read_units == pytest.approx(
        500 * 19 * WORK.actions.sync.read_units_per_room
    )
    assert storms[1].concurrency > storms[0].concurrency


# Sweeps


def test_small_chats_are_cheapest_serverless_and_large_ones_on_instances() -> None:
    """Ten members a room cost least without servers, ten thousand with them; between them the model names the point."""
    values: list[float | str] = [10, 10_000]
    points = [point("team", {}, "members", value, REGION, WORK) for value in values]
    assert [each.cheapest for each in points] == ["serverless", "instances"]
    crossing, *others = crossings(points, "team", {}, "members", REGION, WORK)
    assert crossing.before == "serverless"
    assert [other.after for other in others][-1:] == ["instances"], "each change in between is named"
    at = point("team", {}, "members", int(crossing.value), REGION, WORK)
    below = point("team", {}, "members", int(crossing.value) - 1, REGION, WORK)
    assert at.cheapest == crossing.after
    assert at.cheapest != "serverless"
    assert below.cheapest == "serverless"


def test_words_have_no_point_between_them() -> None:
    """A sweep over processors shows both and no crossing."""
    points = [point("team", {}, "architecture", value, REGION, WORK) for value in ("arm64", "x86")]
    assert crossings(points, "team", {}, "architecture", REGION, WORK) == []
    assert points[0].usd["serverless"] < points[1].usd["serverless"]
    assert points[0].usd["instances"] == points[1].usd["instances"]
