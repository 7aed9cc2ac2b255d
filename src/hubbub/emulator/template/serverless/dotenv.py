"""`.env` files as the Serverless Framework reads them, by the packages dotenv and dotenv-expand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hubbub.emulator.template.serverless.document import read_text

_ENTRY = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(?P<key>[\w.-]+)[ \t]*(?:=|:[ \t])[ \t]*
        (?P<value>'(?:\\'|[^'])*'|"(?:\\"|[^"])*"|`(?:\\`|[^`])*`|[^#\r\n]*)""",
    re.MULTILINE | re.VERBOSE,
)

_REFERENCE = re.compile(
    r"\\(?P<escaped>\$)|\$\{(?P<braced>[^{}]+)\}|\$(?P<bare>[A-Za-z_][A-Za-z0-9_]*)",
)

_CHOICE = re.compile(r":-|-|:\+|\+")


def read_dotenv(path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    r"""The variables of a `.env` file.

    `${OTHER}`, `$OTHER`, `${OTHER:-default}` and `${OTHER:+alternative}` are replaced by what `environment` has, else
    by what was before in the file; `\$` is a dollar.

    Raises:
        TemplateError: the file cannot be read.

    """
    values: dict[str, str] = {}
    for entry in _ENTRY.finditer(read_text(path)):
        values[entry["key"]] = _expanded(_unquoted(entry["value"].strip()), {**values, **environment})
    return values


def _unquoted(written: str) -> str:
    quote = written[:1]
    if len(written) < 2 or quote not in ("'", '"', "`") or not written.endswith(quote):
        return written
    inner = written[1:-1]
    return inner.replace("\\n", "\n").replace("\\r", "\r") if quote == '"' else inner


def _expanded(value: str, known: Mapping[str, str]) -> str:
    def replaced(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        name, otherwise, chosen = found["bare"] or found["braced"], "", ""
        if found["braced"] and (choice := _CHOICE.search(name)):
            name, otherwise, chosen = name[: choice.start()], name[choice.end() :], choice[0]
        if "+" in chosen:
            return otherwise if known.get(name) else ""
        return known.get(name) or otherwise

    return _REFERENCE.sub(replaced, value)
