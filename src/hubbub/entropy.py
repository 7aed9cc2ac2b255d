"""Random bytes for ids, fetched from the system many at a time: a message needs three ids, and a call costs a while."""

from __future__ import annotations

import os

BLOCK = 16
"""The most bytes that are given at once."""

_FETCHED = 4_096

_blocks: list[bytes] = []

_ALPHABET = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ" * 8
"""A character for every byte, each for as many: what is random stays so."""

_words: list[str] = []


def random_bytes(count: int) -> bytes:
    """`count` bytes, at most `BLOCK`, from the system's generator; nobody gets the same ones. Any thread may ask."""
    while True:
        try:
            return _blocks.pop()[:count]
        except IndexError:
            fetched = os.urandom(_FETCHED)
            _blocks.extend([fetched[start : start + BLOCK] for start in range(0, _FETCHED, BLOCK)])


def random_word() -> str:
    """`BLOCK` random characters of Crockford's base 32; nobody gets the same ones. Any thread may ask."""
    while True:
        try:
            return _words.pop()
        except IndexError:
            fetched = os.urandom(_FETCHED).translate(_ALPHABET).decode("ascii")
            _words.extend([fetched[start : start + BLOCK] for start in range(0, _FETCHED, BLOCK)])


def forget() -> None:
    """Give none of those that have been fetched so far: for a process that is about to be one of several copies."""
    _blocks.clear()
    _words.clear()


os.register_at_fork(after_in_child=forget)
