"""A delivery needs no more instructions than it did when they were last recorded, whatever else the machine does."""

from __future__ import annotations

import functools
import shutil

import pytest
from bench import regress


@functools.cache
def counted(accelerated: bool) -> dict[str, float]:
    """The instructions of a delivery, counted once for all tests here."""
    if shutil.which("valgrind") is None:
        pytest.fail("expected valgrind to count instructions, got none: scripts/setup system valgrind")
    return regress.count(accelerated=accelerated)


@pytest.fixture(scope="module")
def known() -> dict[str, float]:
    """What was recorded for this Python and this machine."""
    known = regress.recorded().get(regress.here())
    if known is None:
        pytest.skip(f"NO INSTRUCTIONS ARE RECORDED FOR {regress.here()}: python -m bench.regress --record")
    return known


@pytest.mark.timeout(400)
@pytest.mark.parametrize("accelerated", [True, False], ids=["accelerator", "Python"])
def test_a_delivery_needs_no_more_instructions_than_before(known, accelerated):
    """By a tenth at most, for libraries that differ; whoever needs more on purpose records it."""
    found = counted(accelerated)
    way = "accelerator" if accelerated else "Python"
    worse = {
        name: (figure, known[f"{name}, {way}"])
        for name, figure in found.items()
        if figure > known[f"{name}, {way}"] * (1 + regress.TOLERANCE)
    }
    assert worse == {}, "more instructions than recorded; on purpose: python -m bench.regress --record"


@pytest.mark.timeout(800)
@pytest.mark.parametrize("name", ["one_room", "several_rooms"])
def test_the_accelerator_is_worth_it(name):
    """It needs less than half of what plain Python does, where a frame goes to many and where connections differ."""
    assert counted(True)[name] < counted(False)[name] / 2
