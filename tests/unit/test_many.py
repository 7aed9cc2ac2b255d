"""How many idle connections are shared out among processes and rooms."""

from __future__ import annotations

import pytest
from bench.many import rooms_of, split


@pytest.mark.parametrize("connections", [1, 17_500, 17_501, 100_000, 1_000_000])
def test_no_process_gets_more_than_it_may_have_open(connections: int) -> None:
    """All connections are shared out, evenly, to as few processes as can hold them."""
    sizes = split(connections)

    assert sum(sizes) == connections
    assert max(sizes) <= 17_500
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-connections // 17_500)


def test_every_connection_is_in_a_room_and_the_first_in_the_hall() -> None:
    """Rooms have as many as was said, and the hall has the first."""
    rooms = [rooms_of(number, room=3, team=2) for number in range(5)]

    assert rooms == [["team0", "hall"], ["team0", "hall"], ["team1", "hall"], ["team1"], ["team2"]]
