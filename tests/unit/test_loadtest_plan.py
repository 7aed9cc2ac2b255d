"""What a load test can be asked for, and what is said of what it cannot."""

from __future__ import annotations

import resource
from collections import Counter
from pathlib import Path

import pytest

from hubbub.loadtest import plan as planning
from hubbub.loadtest.plan import Plan, PlanError, plan

URL = "ws://127.0.0.1:8000/ws"
SECRET = "a secret that is long enough for HS256"


def made(url: str = URL, settings: str | None = SECRET, **given: object) -> Plan:
    """A plan of these flags, where the settings have this secret."""
    return plan(url, given, secret=settings)


def test_nothing_but_the_url_is_enough() -> None:
    """Everything has a default, and the run has a name of its own."""
    first, second = made(), made()
    assert (first.connections, len(first.rooms), first.rate, first.duration_s, first.size_bytes) == (
        100,
        1,
        10,
        30,
        200,
    )
    assert first.senders == 100
    assert first.processes == 1
    assert first.sources == []
    assert first.bench != second.bench
    assert first.rooms == [f"bench-{first.bench}-0"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"connections": "many"}, r"connections: expected a whole number from 1 to 2,000,000, got 'many'"),
        ({"connections": "0"}, r"connections: expected a whole number from 1"),
        ({"connections": "1.5"}, r"connections: expected a whole number"),
        ({"rate": "-1"}, r"rate: expected a number from 0 to 1,000,000, got '-1'"),
        ({"rate": "nan"}, r"rate: expected a number"),
        ({"duration": "0"}, r"duration: expected a time up to a day such as 30, 30s, 5m or 1h, got '0'"),
        ({"duration": "25h"}, r"duration: expected a time up to a day"),
        ({"duration": "5 parsecs"}, r"duration: .*got '5 parsecs'"),
        ({"settle": "soon"}, r"settle: expected a time"),
        ({"rooms": "2", "rooms_each": "3"}, r"rooms-each: expected at most the number of rooms \(2\), got 3"),
        ({"connections": "5", "rooms": "11", "rooms_each": "2"}, r"rooms: expected at most 10 rooms, so .* got 11"),
        ({"connections": "1", "room": "a,b"}, r"room: expected at most 1 rooms, so that each has a listener .* got 2"),
        ({"room": "a b"}, r"room: expected 1 to 64 characters .* got 'a b'"),
        ({"room": "a,a"}, r"room: expected each room once, got 'a,a'"),
        ({"room": "a", "rooms": "2"}, r"rooms: expected no number of rooms beside"),
        ({"connections": "5", "slow": "5"}, r"slow: expected fewer than the connections \(5\), got 5"),
        ({"connections": "5", "slow": "2", "senders": "4"}, r"senders: expected at most .* \(3\), got 4"),
        ({"storm_share": "50"}, r"storm-share: expected --storm beside it"),
        ({"storm": True, "storm_share": "101"}, r"storm-share: expected a number from 1 to 100, got '101'"),
        ({"secret": "s" * 32, "tokens": "f"}, r"tokens: expected one way to tokens, got --secret too"),
        ({"secret": "short"}, r"secret: expected at least 32 bytes"),
        ({"token_url": "ftp://x"}, r"token-url: expected http://… or https://…, got 'ftp://x'"),
        ({"token_header": "A: b"}, r"token-header: expected --token-url beside it"),
        ({"token_url": "http://x", "token_header": "A\nb"}, r"token-header: expected NAME: VALUE"),
        ({"tokens": "/no/such"}, r"tokens: expected a file that can be read, got '/no/such': No such file"),
        ({"ca": "/no/such"}, r"ca: expected a file that can be read"),
        ({"pid": "1,x"}, r"pid: expected process ids of this machine with commas between, got '1,x'"),
        ({"connections": "2", "processes": "3"}, r"processes: expected at most the connections \(2\), got 3"),
        ({"allow": "doubled,lost"}, r"allow: expected doubled, disordered, refused, .* got 'lost'"),
        ({"max_ack": "0"}, r"max-ack: expected a number from 0.001"),
    ],
)
def test_what_cannot_be_is_refused(flags: dict[str, object], words: str) -> None:
    """A flag that cannot be is an error that names it, what it expects and what came."""
    with pytest.raises(PlanError, match=words):
        made(**flags)


@pytest.mark.parametrize(
    "url",
    ["http://x/ws", "127.0.0.1:8000", "ws://", "ws://x:99999/ws", "ws://x:0/", "ws://x/ws#a", "ws://x/a b", "ws://x/é"],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """What is no WebSocket URL is an error that shows what one looks like."""
    with pytest.raises(PlanError, match=r"url: expected ws://HOST\[:PORT\]/PATH"):
        made(url)


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    """Users and passwords have no place in the URL, and the message does not repeat them."""
    with pytest.raises(PlanError) as told:
        made("ws://me:hunter2@x/ws")
    assert "hunter2" not in str(told.value)


def test_without_a_way_to_tokens_all_ways_are_named() -> None:
    """Who has given no way to tokens is told which there are."""
    with pytest.raises(PlanError, match=r"--secret or HUBBUB_SECRET.*--token-url.*--tokens"):
        made(settings=None)


def test_a_flag_goes_before_what_the_settings_have() -> None:
    """Tokens that are fetched or read are not made too."""
    assert made(token_url="https://app.example/token").secret is None
    assert made(secret="another secret of thirty-two bytes or more").secret != SECRET


def test_all_rooms_have_equally_many_listeners() -> None:
    """Connections are spread evenly, each in as many different rooms as asked for."""
    what = made(connections="120", rooms="8", rooms_each="3")
    assert all(len(set(what.rooms_of(member))) == 3 for member in range(120))
    listeners = Counter(room for member in range(120) for room in what.rooms_of(member))
    assert set(listeners.values()) == {45}
    for connections, rooms, each in ((5, 10, 4), (7, 9, 2), (10, 10, 7), (11, 6, 5)):
        what = made(connections=str(connections), rooms=str(rooms), rooms_each=str(each))
        listeners = Counter(room for member in range(connections) for room in what.rooms_of(member))
        assert len(listeners) == rooms
        assert max(listeners.values()) - min(listeners.values()) <= 1
        assert all(what.rooms[room] in what.rooms_of(what.first_in(room)) for room in range(rooms))


def test_every_connection_is_of_one_process() -> None:
    """The processes share the connections without remainder."""
    what = made(connections="10", processes="3")
    assert sorted(member for process in range(3) for member in what.members_of(process)) == list(range(10))


def test_the_storm_cuts_its_share_and_leaves_slow_readers() -> None:
    """A share of the connections is cut, spread over all, and none of those that do not read."""
    what = made(connections="1000", storm=True, storm_share="30", slow="100")
    cut = [member for member in range(1000) if what.storms(member)]
    assert len(cut) == 270
    assert not any(what.is_slow(member) for member in cut)
    assert sum(what.is_slow(member) for member in range(1000)) == 100
    assert not any(made().storms(member) for member in range(100))


def test_who_must_become_a_member_first_sends_little() -> None:
    """Where tokens grant nothing, as few as stay below rate limits become members, but one in each room."""
    assert made(settings=None, token_url="http://x", connections="1000", rate="95").senders == 10
    assert made(settings=None, token_url="http://x", connections="1000", rooms="30").senders == 30
    assert made(connections="1000", rooms="50", rooms_each="40").grants is False


def test_many_connections_on_loopback_come_from_many_addresses() -> None:
    """Beyond the ports of one address there are more, all different; elsewhere the system chooses."""
    assert made(connections="20000").sources == []
    many = made(connections="1000000").sources
    assert len(set(many)) == 50
    assert all(address.startswith("127.1.") for address in many)
    assert made("wss://chat.example.invalid/prod", connections="100000").sources == []
    assert len(set(made(source_addresses="10000").sources)) == 10_000
    with pytest.raises(PlanError, match=r"source-addresses: expected a URL on 127"):
        made("wss://chat.example.invalid/prod", source_addresses="2")


def test_more_processes_are_started_where_one_may_not_open_enough_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many processes as the limit of open files asks for; fewer are refused with the limit."""
    monkeypatch.setattr(planning.resource, "getrlimit", lambda which: (1_024, 10_064))
    assert made(connections="25000").processes == 3
    with pytest.raises(PlanError, match=r"processes: expected at least 3 for 25,000 connections.*10,064 files.*got 2"):
        made(connections="25000", processes="2")
    monkeypatch.setattr(planning.resource, "getrlimit", lambda which: (1_024, resource.RLIM_INFINITY))
    assert made(connections="25000").processes == 1


def test_files_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's path is made absolute: the load test's processes need not be in the same folder."""
    (tmp_path / "tokens").write_text("a.b.c", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    assert made(tokens="tokens").tokens == str(tmp_path / "tokens")
