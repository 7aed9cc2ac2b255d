"""A collection that mostly has few elements."""

from __future__ import annotations

import random

from hubbub.few import FEW, Few, added, removed


def test_it_has_what_was_added_and_not_removed_in_that_order() -> None:
    """Whatever comes and goes, it is what an ordered set would be."""
    chance = random.Random(7)
    few: Few[int] = ()
    model: dict[int, None] = {}
    sizes: set[int] = set()
    for step in range(4_000):
        element = chance.randrange(3 * FEW)
        if chance.random() < (0.7 if step // 500 % 2 else 0.3):
            few = added(few, element)
            model.setdefault(element)
        else:
            few = removed(few, element)
            model.pop(element, None)
        assert list(few) == list(model)
        assert len(few) == len(model)
        assert (element in few) == (element in model)
        sizes.add(len(few))
    assert {0, 1, FEW, FEW + 1, 2 * FEW} <= sizes


def test_few_are_a_tuple_and_many_a_dict() -> None:
    """The form follows the number, and who holds the old tuple still has it as it was."""
    few: Few[int] = ()
    for element in range(FEW):
        few = added(few, element)
    assert isinstance(few, tuple)
    many = added(few, FEW)
    assert isinstance(many, dict)
    assert few == tuple(range(FEW))
    for element in range(FEW // 2 + 1):
        many = removed(many, element)
    assert many == tuple(range(FEW // 2 + 1, FEW + 1))
