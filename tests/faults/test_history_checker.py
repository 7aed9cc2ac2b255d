"""The checker believes a history in which everything is right, and finds each thing that can be wrong in one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from history.checker import check, describe
from history.record import (
    Answered,
    AnyEvent,
    Asked,
    Heard,
    History,
    Known,
    Log,
    Paged,
    Present,
    Quiet,
    Recorder,
    Reset,
    Saw,
    Synced,
)
from history.story import CLIENTS, ROOMS, STREAM, Story
from history.verdict import Kind, Violation
from hypothesis import given, settings
from hypothesis import strategies as st

WITHIN_S = 1.0
Events = list[AnyEvent]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("send", "again", "edit", "delete", "read", "page", "hear", "reconnect", "stream")),
        st.sampled_from(list(CLIENTS)),
        st.sampled_from(ROOMS),
        st.sampled_from(("ok", "ok", "stored", "dropped", "refused")),
    ),
    max_size=60,
)


def judge(events: Events) -> list[Violation]:
    return check(History(events), converged_within_s=WITHIN_S)


def tell(steps: list[tuple[str, str, str, str]], seed: int) -> Story:
    """A story of these steps, not finished."""
    story = Story(seed)
    for action, client, room, fate in steps:
        match action:
            case "send":
                story.send(client, room, fate)
            case "reconnect":
                story.reconnect(client)
            case "stream":
                story.hear(STREAM, room)
            case _:
                getattr(story, action)(client, room)
    return story


@given(STEPS, st.integers(0, 1000))
@settings(deadline=None, max_examples=150)
def test_a_history_in_which_everything_is_right_has_no_violations(
    steps: list[tuple[str, str, str, str]], seed: int
) -> None:
    """Whatever clients do, in whatever order, when all is done right nothing is found."""
    assert judge(tell(steps, seed).finish()) == []


# Each of these spoils one thing in a history.


def _logs(events: Events) -> dict[str, Log]:
    return {event.room: event for event in events if isinstance(event, Log)}


def _contents(events: Events) -> dict[int, Known]:
    return {event.number: event for event in events if isinstance(event, Known)}


def _first(events: Events, which: Callable[[AnyEvent], bool]) -> int:
    """Where the first such event is, of the latter half of the history."""
    return next(place for place, event in enumerate(events) if place > len(events) // 2 and which(event))


def _is_deleted(events: Events, ulid: str) -> bool:
    return any(known.entry["id"] == ulid and known.entry.get("deleted") for known in _contents(events).values())


def _acked_send(events: Events) -> tuple[Asked, Answered, int]:
    """A message that was acknowledged, with its place in the log's list."""
    answers = {event.op: event for event in events if isinstance(event, Answered)}
    asked = next(
        event
        for event in events
        if isinstance(event, Asked)
        and event.action == "send"
        and answers[event.op].outcome == "ok"
        and event.fields["text"] == f"word {event.op}"
        and not _is_deleted(events, str(answers[event.op].result["id"]))
    )
    return asked, answers[asked.op], answers[asked.op].result["seq"] - 1


def lose_the_last(events: Events) -> None:
    """A log ends before an acknowledged message that was its last, and nobody has seen it."""
    answered = next(event for event in reversed(events) if isinstance(event, Answered) and event.result.get("id"))
    room, seq = str(answered.result["id"]).rsplit("-", 1)
    _logs(events)[room].contents = _logs(events)[room].contents[: int(seq) - 1]


def store_twice(events: Events) -> None:
    asked, _, place = _acked_send(events)
    log, known = _logs(events)[asked.room], _contents(events)
    entry = dict(known[log.contents[place]].entry)
    entry |= {"seq": len(log.contents) + 1, "id": "another"}
    events.insert(0, Known(t=0.0, number=10_000, entry=entry))
    log.contents = [*log.contents, 10_000]


def store_what_was_refused(events: Events) -> None:
    refused = {event.op for event in events if isinstance(event, Answered) and event.outcome == "refused"}
    asked = next(event for event in events if isinstance(event, Asked) and event.op in refused)
    log = _logs(events)[asked.room]
    entry = {"room": asked.room, "seq": len(log.contents) + 1, "id": "x", "type": "message.created", "by": asked.user}
    events.insert(0, Known(t=0.0, number=10_000, entry={**entry, **asked.fields}))
    log.contents = [*log.contents, 10_000]


def invent(events: Events) -> None:
    log = _logs(events)["tea"]
    entry = {
        "room": "tea",
        "seq": len(log.contents) + 1,
        "id": "x",
        "type": "message.created",
        "by": "ann",
        "text": "?",
    }
    events.insert(0, Known(t=0.0, number=10_000, entry=entry))
    log.contents = [*log.contents, 10_000]


def leave_a_gap(events: Events) -> None:
    log = _logs(events)["tea"]
    log.contents = [*log.contents[:3], *log.contents[4:]]


def alter_a_message(events: Events) -> None:
    edits = {number: known for number, known in _contents(events).items() if known.entry["type"] == "message.edited"}
    for known in edits.values():
        known.entry = {**known.entry, "target": known.entry["target"] + 1} if "text" in known.entry else known.entry


def alter_words(events: Events) -> None:
    asked, _, place = _acked_send(events)
    number = _logs(events)[asked.room].contents[place]
    events.insert(0, Known(t=0.0, number=10_000, entry={**_contents(events)[number].entry, "text": "other words"}))
    log = _logs(events)[asked.room]
    log.contents = [10_000 if each == number else each for each in log.contents]


def tell_another_place(events: Events) -> None:
    _, answered, _ = _acked_send(events)
    answered.result = {**answered.result, "seq": answered.result["seq"] + 1}


def tell_another_id_when_asked_again(events: Events) -> None:
    answers = {event.op: event for event in events if isinstance(event, Answered)}
    again = next(
        event
        for event in events
        if isinstance(event, Asked) and event.action == "send" and event.fields["text"] != f"word {event.op}"
    )
    answers[again.op].result = {**answers[again.op].result, "id": "another"}


def lose_one_live(events: Events) -> None:
    place, _ = _two_live(events)
    del events[place]


def _two_live(events: Events) -> tuple[int, int]:
    """Two that came live one after the other, on one connection."""
    saws: dict[tuple[str, int, str], list[int]] = {}
    for place, event in enumerate(events):
        if isinstance(event, Saw) and event.how == "live":
            saws.setdefault((event.client, event.connection, event.room), []).append(place)
    one, other, *_ = next(places for places in saws.values() if len(places) > 1)
    return one, other


def lose_one_of_a_stream(events: Events) -> None:
    place = _first(events, lambda event: isinstance(event, Saw) and event.how == "stream")
    del events[place]


def lose_one_at_sync(events: Events) -> None:
    place = next(
        place
        for place, event in enumerate(events)
        if isinstance(event, Saw) and event.how == "sync" and not isinstance(events[place + 1], Known | Saw)
    )
    del events[place]


def give_twice(events: Events) -> None:
    place = _first(events, lambda event: isinstance(event, Saw) and event.how == "live")
    events.insert(place, copy.copy(events[place]))


def swap_two(events: Events) -> None:
    one, other = _two_live(events)
    events[one], events[other] = events[other], events[one]


def show_other_words(events: Events) -> None:
    place = _first(events, lambda event: isinstance(event, Saw) and event.how == "live")
    saw = events[place]
    assert isinstance(saw, Saw)
    entry = {**_contents(events)[saw.content].entry, "by": "mallory"}
    events.insert(0, Known(t=0.0, number=10_000, entry=entry))
    saw.content = 10_000


def skip_in_a_page(events: Events) -> None:
    page = next(event for event in events if isinstance(event, Paged) and len(event.seqs) == 3)
    page.seqs = [page.seqs[0], page.seqs[2]]


def end_a_page_too_soon(events: Events) -> None:
    page = next(event for event in events if isinstance(event, Paged) and event.has_more)
    page.has_more = False


def begin_anew(events: Events) -> None:
    events.append(Reset(t=1.0, client=STREAM, room="tea"))


def overtake(events: Events) -> None:
    asked, _, _ = _acked_send(list(reversed(events)))
    asked.t = max(event.t for event in events)


def read_a_stale_head(events: Events) -> None:
    end = events[-1].t
    head = len(_logs(events)["tea"].contents) - 1
    page = Paged(t=end, client="wire-1", room="tea", after=head, began=end, head=head, seqs=[], has_more=False)
    events.append(page)


def sync_stale(events: Events) -> None:
    synced = next(event for event in reversed(events) if isinstance(event, Synced))
    for standing in synced.rooms.values():
        standing.head -= 1


def move_a_mark_back(events: Events) -> None:
    log = _logs(events)["tea"]
    log.marks = {user: mark - 1 for user, mark in log.marks.items()}


def show_a_mark_gone_back(events: Events) -> None:
    synced = next(event for event in reversed(events) if isinstance(event, Synced) and event.client == "wire-1")
    for standing in synced.rooms.values():
        standing.read = 0


def come_late(events: Events) -> None:
    quiet = next(event for event in events if isinstance(event, Quiet))
    quiet.t -= 10.0


def stay_behind(events: Events) -> None:
    last = max(
        (place for place, event in enumerate(events) if isinstance(event, Saw) and event.how == "live"), default=0
    )
    del events[last]


def see_a_ghost(events: Events) -> None:
    events.append(Present(t=1.0, client="wire-1", room="tea", told=["ann", "bob"], online=["ann"]))


def hear_what_is_private(events: Events) -> None:
    events.append(Heard(t=1.0, client="wire-1", room="den", seq=3, may=False, does=True))


def give_up(events: Events) -> None:
    quiet = next(event for event in events if isinstance(event, Quiet))
    quiet.unanswered = 1


def break_off(events: Events) -> None:
    del events[next(place for place, event in enumerate(events) if isinstance(event, Quiet)) :]


SPOILT: list[tuple[Callable[[Events], None], Kind]] = [
    (lose_the_last, Kind.LOST),
    (store_twice, Kind.DOUBLED),
    (store_what_was_refused, Kind.REFUSED),
    (invent, Kind.INVENTED),
    (leave_a_gap, Kind.GAP),
    (alter_words, Kind.ALTERED),
    (alter_a_message, Kind.LOST),
    (tell_another_place, Kind.WRONG_ACK),
    (tell_another_id_when_asked_again, Kind.WRONG_ACK),
    (lose_one_live, Kind.HOLE),
    (lose_one_of_a_stream, Kind.HOLE),
    (lose_one_at_sync, Kind.HOLE),
    (give_twice, Kind.AGAIN),
    (swap_two, Kind.DISORDER),
    (show_other_words, Kind.DIFFERS),
    (show_other_words, Kind.DISAGREE),
    (skip_in_a_page, Kind.HOLE),
    (end_a_page_too_soon, Kind.HOLE),
    (begin_anew, Kind.RESET),
    (overtake, Kind.OVERTAKEN),
    (read_a_stale_head, Kind.STALE),
    (sync_stale, Kind.STALE),
    (move_a_mark_back, Kind.MARK),
    (show_a_mark_gone_back, Kind.MARK),
    (come_late, Kind.APART),
    (stay_behind, Kind.APART),
    (see_a_ghost, Kind.PRESENCE),
    (hear_what_is_private, Kind.ADMITTED),
    (give_up, Kind.UNANSWERED),
    (break_off, Kind.UNFINISHED),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("spoil", "kind"), SPOILT, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_wrong_is_found(spoil: Callable[[Events], None], kind: Kind, seed: int) -> None:
    """A history in which one thing is wrong is found guilty of it, and the evidence says where."""
    events = Story.long(seed).finish()
    assert judge(events) == []
    spoil(events)
    found = judge(events)
    assert kind in {violation.kind for violation in found}, describe(found)
    assert all(violation.evidence for violation in found)


def test_every_kind_of_violation_can_be_found() -> None:
    """None of the kinds is a word only."""
    assert {kind for _, kind in SPOILT} == set(Kind)


def test_a_write_in_doubt_may_be_stored_or_not() -> None:
    """What nobody was told of is no violation either way, as long as it is there at most once."""
    story = Story()
    story.send("wire-1", "tea", "stored")
    story.send("wire-1", "tea", "dropped")
    assert judge(story.finish()) == []


def test_words_seen_before_they_were_deleted_are_no_difference() -> None:
    """A client that saw a message while it had words has seen the same entry as the log keeps without them."""
    story = Story()
    story.send("wire-1", "tea")
    story.hear("wire-2", "tea")
    story.delete("wire-1", "tea")
    story.hear("wire-3", "tea")
    assert judge(story.finish()) == []


def test_a_history_is_read_from_its_file_as_far_as_it_got(tmp_path: Path) -> None:
    """A run that was broken off in the middle of a line can be looked into up to there."""
    with Recorder(tmp_path / "history.jsonl") as recorder:
        number = recorder.number({"seq": 1, "room": "tea"})
        assert recorder.number({"room": "tea", "seq": 1}) == number
        recorder.write(Saw(t=recorder.now(), client="one", room="tea", seq=1, how="live", content=number))
    with (tmp_path / "history.jsonl").open("ab") as file:
        file.write(b'{"event":"saw","t":1.0,')
    history = History.read(tmp_path / "history.jsonl")
    assert [history.contents[saw.content] for saw in history.saw] == [{"seq": 1, "room": "tea"}]
