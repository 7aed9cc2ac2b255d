"""What is said of a template that cannot be read: the file, the line, what was expected and what came."""

from __future__ import annotations

from pathlib import Path


class TemplateError(Exception):
    """A template cannot be understood.

    Attributes:
        path: its file.
        line: from 1; None where no line is to blame, or none is known.
        what: what was expected and what came.

    """

    def __init__(self, path: Path, line: int | None, what: str) -> None:
        super().__init__(f"{path}:{line}: {what}" if line else f"{path}: {what}")
        self.path = path
        self.line = line
        self.what = what
