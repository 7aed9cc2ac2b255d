"""When the Python client comes back after a refusal: not before the server wants it, and not with all the others."""

from __future__ import annotations

import random
import time

import pytest

from hubbub.client import connect
from hubbub.client.actions import StateChanged
from hubbub.client.session import Session, Settings
from scripted import BOUND_S, Scripted

BASE_MS, CAP_MS = 250, 20_000


def waits(session: Session, retry_after_ms: int | None) -> int:
    """How long a client waits that is refused now."""
    session.start(0)
    session.token(0, "T")
    session.take()
    session.closed(0, 1006, "HTTP 503", 503, retry_after_ms)
    (state,) = [action for action in session.take() if isinstance(action, StateChanged)]
    assert isinstance(state.retry_in_ms, int)
    return state.retry_in_ms


@pytest.mark.parametrize(
    ("said_ms", "least_ms"), [(None, 0), (0, 0), (2_000, 2_000), (CAP_MS, CAP_MS), (10**12, CAP_MS)]
)
def test_it_waits_as_long_as_it_is_told_and_a_little_more(said_ms: int | None, least_ms: int) -> None:
    """What Retry-After says comes before the client's own jittered wait, and is bounded by its longest."""
    settings = Settings(backoff_base_ms=BASE_MS, backoff_cap_ms=CAP_MS)
    found = {waits(Session(settings, rand=random.Random(seed).random), said_ms) for seed in range(200)}
    assert least_ms <= min(found)
    assert max(found) < least_ms + BASE_MS
    assert len(found) > 50, "they come back together"


@pytest.mark.slow
async def test_a_refused_handshake_tells_when_to_come_back() -> None:
    """The header of a 503 is read: the next handshake is not before."""
    async with Scripted() as server:
        server.statuses, server.retry_after = [503], "1"
        began = time.monotonic()
        async with connect(server.url, token=lambda: "T", backoff_base_s=0.01, open_timeout_s=BOUND_S):
            assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("said", ["Fri, 31 Dec 2100 23:59:59 GMT", "soon", "-1", "", "1.5", "99999999999999999999"])
async def test_what_is_no_number_of_seconds_is_passed_over(said: str) -> None:
    """The client comes back when it would anyway."""
    async with Scripted() as server:
        server.statuses, server.retry_after = [503], said
        async with connect(server.url, token=lambda: "T", backoff_base_s=0.01, open_timeout_s=BOUND_S) as chat:
            assert len(server.handshakes) == 2
            assert chat.state == "live"
