"""The Python client's session against the scripts that the JavaScript one must follow too."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub.protocol import CLOSE_CODES
from vectors import run, vectors

VECTORS = dict(vectors())


@pytest.mark.parametrize("name", VECTORS)
def test_the_session_follows_the_script(name: str) -> None:
    """What goes in gives exactly what the script says, in its order and at its time."""
    vector: dict[str, Any] = VECTORS[name]
    assert run(vector) > 0


def test_every_close_code_has_a_script() -> None:
    """Each code of the table is met by a script that shows what the client does then."""
    shown = {
        step["in"]["code"]
        for vector in VECTORS.values()
        for step in vector["steps"]
        if step.get("in", {}).get("on") == "closed"
    }
    assert shown >= {row.code for row in CLOSE_CODES}
