"""Puts several mappings together as the Serverless Framework does: `functions` and `resources` may be lists of them."""

from __future__ import annotations

from typing import Any

from hubbub.emulator.template.serverless.document import Listing, Place, Section, copy_of
from hubbub.emulator.template.serverless.expect import as_section


def merged_list(value: Any, place: Place, name: str) -> Section:  # Any: whatever a file holds
    """The mapping, or the list of them put together, first to last; an empty one for nothing.

    Raises:
        TemplateError: it is neither, or an item is no mapping.

    """
    if value is None:
        return Section(place)
    if not isinstance(value, Listing):
        return as_section(value, place, name)
    whole = Section(place)
    for item, where in zip(value, value.places, strict=True):
        if item is not None:
            merge(whole, as_section(item, where, f"an item of {name}"))
    return whole


def merge(target: Section, source: Section) -> None:
    """Put `source` into `target`: mappings key by key, lists item by item, anything else in place of what is there."""
    for key, value in source.items():
        place = source.place_of(key)
        old = target.get(key)
        if isinstance(old, Section) and isinstance(value, Section):
            merge(old, value)
        elif isinstance(old, Listing) and isinstance(value, Listing):
            _merge_items(old, value)
        else:
            target.put(key, copy_of(value), place)


def _merge_items(target: Listing, source: Listing) -> None:
    for index, (value, place) in enumerate(zip(source, source.places, strict=True)):
        if index >= len(target):
            target.put(copy_of(value), place)
            continue
        old = target[index]
        if isinstance(old, Section) and isinstance(value, Section):
            merge(old, value)
        elif isinstance(old, Listing) and isinstance(value, Listing):
            _merge_items(old, value)
        else:
            target[index], target.places[index] = copy_of(value), place
