"""Writes serverless.yml files for tests and compiles them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubbub.emulator.template.serverless import Compiled, compile_serverless

SERVICES = Path(__file__).parent / "templates" / "serverless"
"""Whole services as their users write them."""

HEAD = """
service: chat
provider:
  name: aws
  runtime: python3.12
"""


def write_service(folder: Path, text: str, **files: str) -> Path:
    """A serverless.yml in a folder, with other files: `limits_yml` is `limits.yml`, `src__app_py` is `src/app.py`."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content), encoding="utf-8")
    path = folder / "serverless.yml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def compiled(
    folder: Path,
    text: str,
    *,
    options: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    head: str = HEAD,
    **files: str,
) -> Compiled:
    """A service of this text below `head`, compiled in an empty environment."""
    path = write_service(folder, head + textwrap.dedent(text), **files)
    return compile_serverless(path, options=options, parameters=parameters, environment=environment or {})


def properties(service: Compiled, logical_id: str) -> Any:
    """A resource's properties."""
    return service.template["Resources"][logical_id]["Properties"]


def named(service: Compiled) -> dict[str, str]:
    """What is said not to be done: the meaning by `logical id type`."""
    return {f"{entry.logical_id} {entry.type}": entry.meaning for entry in service.unsupported}
