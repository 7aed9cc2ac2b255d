"""The scripts that bring a store's tables from one version to the next: `0001.sql`, `0002.sql`, … in its package."""

from __future__ import annotations

from importlib.resources import files


def migrations(package: str) -> list[tuple[int, str]]:
    """The scripts of a package by number, each of which leads from the version before to its own."""
    return sorted(
        (int(file.name.removesuffix(".sql")), file.read_text(encoding="utf-8"))
        for file in files(package).iterdir()
        if file.name.endswith(".sql")
    )
