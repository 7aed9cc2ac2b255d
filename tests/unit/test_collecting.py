"""The garbage collector is kept from looking at everything there is, and its pauses are noted."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from hubbub.collecting import FULL, MIDDLE, YOUNG, Pauses, SettingAside


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The collector is left as it was."""
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    is_frozen = gc.get_freeze_count() > 0  # conftest.py has set aside the tests themselves
    gc.unfreeze()
    yield
    if is_frozen:
        gc.freeze()
    assert (gc.get_threshold(), gc.callbacks) == (thresholds, callbacks)


@pytest.mark.slow
def test_pauses_are_noted_while_they_are_watched() -> None:
    """Each collection counts, with its length; those before and after do not."""
    with Pauses() as pauses:
        gc.collect()
        gc.collect()
        assert pauses.count >= 2
        assert 0 < pauses.longest_s <= pauses.total_s
    known = (pauses.count, pauses.total_s)
    gc.collect()
    assert (pauses.count, pauses.total_s) == known
    pauses.forget()
    assert (pauses.count, pauses.longest_s, pauses.total_s) == (0, 0.0, 0.0)


def test_what_was_there_and_what_survives_is_set_aside() -> None:
    """So a later full collection does not look at it again; it is freed all the same when nobody needs it."""
    with SettingAside():
        frozen = gc.get_freeze_count()
        assert frozen > 1_000
        kept = [[] for _ in range(1_000)]
        gc.collect()
        assert gc.get_freeze_count() >= frozen + 1_000
        assert not any(each is kept for each in gc.get_objects()), "it is still looked at"
        with_them = gc.get_freeze_count()
        del kept
        assert gc.get_freeze_count() <= with_them - 1_000
    assert gc.get_freeze_count() == 0


@pytest.mark.slow
def test_a_full_collection_looks_at_a_bounded_number_however_much_there_is() -> None:
    """While more and more objects come and stay, the collector never has more before it than between two full ones."""
    most = 0

    def look(phase: str, info: dict[str, int]) -> None:
        nonlocal most
        if phase == "start" and info["generation"] == 2:
            most = max(most, len(gc.get_objects()))

    before = [[number] for number in range(600_000)]  # what was there before makes no difference
    kept: list[list[int]] = []
    with SettingAside():
        gc.callbacks.insert(0, look)
        kept += [[number] for number in range(600_000)]
        gc.callbacks.remove(look)
    assert 0 < most < 2 * YOUNG * (MIDDLE + 1) * (FULL + 1)
    assert len(before) == len(kept)


def test_cycles_that_die_young_are_still_collected() -> None:
    """Nothing is lost by it but what forms a cycle after it was set aside."""

    class Knot:
        freed = 0

        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            Knot.freed += 1

    with SettingAside():
        for _ in range(100):
            Knot()
        gc.collect()
    assert Knot.freed == 100
