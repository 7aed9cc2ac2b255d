"""Takes values of the kind that a place in the file must have, or says what came instead."""

from __future__ import annotations

from typing import Any

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless.document import Listing, Place, Section, Text, name_of


def section_at(holder: Section, key: str) -> Section:
    """A mapping; an empty one where there is nothing.

    Raises:
        TemplateError: there is something else.

    """
    value = holder.get(key)
    return Section(holder.place_of(key)) if value is None else as_section(value, holder.place_of(key), key)


def as_section(value: Any, place: Place, name: str) -> Section:  # Any: whatever a file holds
    """The value, if it is a mapping.

    Raises:
        TemplateError: it is none.

    """
    if not isinstance(value, Section):
        raise TemplateError(*place, f"expected a mapping as {name}, got {name_of(value)}")
    return value


def listing_at(holder: Section, key: str) -> Listing:
    """A list; an empty one where there is nothing.

    Raises:
        TemplateError: there is something else.

    """
    value = holder.get(key)
    if value is None:
        return Listing(holder.place_of(key))
    if not isinstance(value, Listing):
        raise TemplateError(*holder.place_of(key), f"expected a list as {key}, got {name_of(value)}")
    return value


def text_at(holder: Section, key: str) -> str | None:
    """A string; None where there is nothing.

    Raises:
        TemplateError: there is something else.

    """
    value = holder.get(key)
    if value is not None and not isinstance(value, Text):
        raise TemplateError(*holder.place_of(key), f"expected a string as {key}, got {name_of(value)}")
    return value


def number_at(holder: Section, key: str) -> int | Section | None:
    """A whole number, which variables may give as a string, or a function of CloudFormation; None for nothing.

    Raises:
        TemplateError: there is something else.

    """
    value = holder.get(key)
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if value is None or isinstance(value, Section) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise TemplateError(*holder.place_of(key), f"expected a whole number as {key}, got {name_of(value)}")
