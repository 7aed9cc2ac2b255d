"""Text as PostgreSQL can keep it: everything but the character NUL, which people may well send."""

from __future__ import annotations


def packed(text: str) -> str:
    """`text` without NULs: other texts are packed otherwise, and packed they have the order that they had."""
    if "\x00" in text or "\x01" in text:
        return text.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01")
    return text


def unpacked(text: str) -> str:
    """What was packed."""
    if "\x01" in text:
        return text.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01")
    return text


def packed_or_none(text: str | None) -> str | None:
    """`packed`, for what may be missing."""
    return None if text is None else packed(text)


def unpacked_or_none(text: str | None) -> str | None:
    """`unpacked`, for what may be missing."""
    return None if text is None else unpacked(text)
