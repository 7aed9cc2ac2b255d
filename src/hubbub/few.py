"""A collection that mostly has few elements: a tuple as long as it has, and a dict when it has more.

For what exists once for each connection: a set takes 216 bytes however little is in it, a tuple of one takes 48. With
many elements adding, removing and looking up cost the same however many there are, and the order stays that of adding.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

Few = tuple[T, ...] | dict[T, None]
"""Elements without doubles, in the order in which they were added. `()` is the empty one; iterate, `in`, `len`."""

FEW = 8
"""How many elements a tuple has at most."""


def added(few: Few[T], element: T) -> Few[T]:
    """The collection with the element; a dict may be changed in place."""
    if isinstance(few, dict):
        few[element] = None
        return few
    if element in few:
        return few
    return (*few, element) if len(few) < FEW else dict.fromkeys((*few, element))


def removed(few: Few[T], element: T) -> Few[T]:
    """The collection without the element, if it was there; a dict may be changed in place."""
    if isinstance(few, dict):
        few.pop(element, None)
        return few if len(few) > FEW // 2 else tuple(few)
    return tuple(each for each in few if each != element) if element in few else few
