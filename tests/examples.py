"""How many examples a property is tried with where it is not the profile's number: `make check` takes a tenth."""

from __future__ import annotations

import hypothesis

FULL = 100
"""How many examples the profile of `make test` has."""


def examples(full: int) -> int:
    """The number for the profile in use, of one that `make test` takes whole.

    >>> from hypothesis import settings
    >>> @settings(max_examples=examples(150))
    ... def test_anything() -> None: ...
    """
    return max(5, full * hypothesis.settings().max_examples // FULL)
