"""Makes the documents that come from the code: `docs/asyncapi.json`, tables, and what `hubbub cost` prints.

python scripts/docs.py           writes them
python scripts/docs.py --check   writes nothing and fails if they are not what the code says
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import shlex
import sys
import typing
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import inspect as fields_of
from typer.testing import CliRunner

import hubbub
from hubbub import cli, config, errors, model, protocol
from hubbub.chat import ChatLimits
from hubbub.chat.registry import BUILT_IN
from hubbub.loadtest import flags as bench_flags
from hubbub.loadtest import result as bench_result
from hubbub.loadtest import telling as bench_telling
from hubbub.store import SqliteStore

ROOT = Path(__file__).resolve().parent.parent
ASYNCAPI = ROOT / "docs" / "asyncapi.json"
PROTOCOL = ROOT / "docs" / "protocol.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
COST = ROOT / "docs" / "explanation" / "cost.md"
BENCH = ROOT / "docs" / "reference" / "bench.md"

Json = dict[str, Any]

ENTRY_ALWAYS = ("room", "seq", "id", "at", "by")
"""What every entry on the wire has, although the struct has defaults for what the store fills in."""

WORDS: dict[Any, str] = {
    model.Member: "member",
    model.Room: "room",
    model.RoomState: "room state",
    model.Role: "role",
    model.RoomKind: "room kind",
}
"""What the tables call the types that frames are made of."""


# What the code says


def results(action: str) -> tuple[type[protocol.Result], ...]:
    """The structs that an action's function returns, from its annotation."""
    function = BUILT_IN.actions[action].function
    annotation = function.__annotations__["return"]
    if isinstance(annotation, str):
        annotation = eval(annotation, {**vars(typing), **function.__globals__})  # our own annotation
    return get_args(annotation) or (annotation,)


def sentence(kind: type) -> str:
    """The first paragraph of a docstring, on one line, without references to code."""
    paragraph = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    return re.sub(r"; see `[^`]+`", "", paragraph)


def attributes(kind: type) -> dict[str, str]:
    """The `Attributes:` of a docstring, by name."""
    _, _, block = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    described: dict[str, str] = {}
    for found in re.finditer(r"^    (\w[\w, ]*): (.+(?:\n {8}.+)*)", block, re.MULTILINE):
        for name in found[1].split(", "):
            described[name] = re.sub(r"\s+", " ", found[2])
    return described


def tag(kind: type[msgspec.Struct]) -> str:
    """What a frame of this struct has as `type`."""
    return str(kind.__struct_config__.tag)


# The AsyncAPI document


def asyncapi() -> Json:
    """The wire protocol as an AsyncAPI 3.0 document."""
    replies = {reply.__name__: reply for action in protocol.ACTIONS for reply in results(action)}
    structs = [
        *protocol.ACTIONS.values(),
        *replies.values(),
        *model.ENTRY_TYPES,
        *protocol.SIGNALS,
        protocol.ErrorReply,
    ]
    schemas = _schemas(structs)
    messages: Json = {}
    operations: Json = {}
    for action, ask in protocol.ACTIONS.items():
        schemas[ask.__name__] = _framed(schemas[ask.__name__], action)
        messages[ask.__name__] = _message(ask, action, f"ask to {action}", correlated=True)
        operations[action] = {
            "action": "receive",
            "channel": {"$ref": "#/channels/chat"},
            "summary": sentence(ask),
            "messages": [_of_channel(ask)],
            "reply": {
                "channel": {"$ref": "#/channels/chat"},
                "messages": [_of_channel(kind) for kind in (*results(action), protocol.ErrorReply)],
            },
        }
    for kind in replies.values():
        messages[kind.__name__] = _message(kind, f"ok.{kind.__name__}", "the answer to a success", correlated=True)
    messages["ErrorReply"] = _message(protocol.ErrorReply, "error", "the answer to a failure", correlated=True)
    for entry in model.ENTRY_TYPES:
        messages[entry.__name__] = _message(entry, tag(entry), "an entry of a room's log")
    for signal in protocol.SIGNALS:
        messages[signal.__name__] = _message(signal, tag(signal), "a signal: not stored, may be lost")
    for name, kinds in (("entries", model.ENTRY_TYPES), ("signals", protocol.SIGNALS)):
        operations[name] = {
            "action": "send",
            "channel": {"$ref": "#/channels/chat"},
            "summary": "The log of the rooms one listens to, live." if name == "entries" else "What is not stored.",
            "messages": [_of_channel(kind) for kind in kinds],
        }
    return {
        "asyncapi": "3.0.0",
        "id": "urn:hubbub:chat:v1",
        "info": {
            "title": "Hubbub chat protocol",
            "version": "1",
            "description": "What a client and the chat say to each other over one WebSocket: see docs/protocol.md.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "laptop": {
                "host": "127.0.0.1:8000",
                "protocol": "ws",
                "description": f"Where `hubbub serve --dev` listens; written for version {hubbub.__version__}.",
                "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _SECURITY],
            }
        },
        "channels": {
            "chat": {
                "address": "/ws",
                "title": "One client's connection",
                "description": (
                    f"The subprotocol is `{protocol.SUBPROTOCOL}`. Text frames, one JSON object each, UTF-8; from a "
                    f"client at most {protocol.MAX_MESSAGE_BYTES} bytes by default."
                ),
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET", "query": _TOKEN_QUERY, "bindingVersion": "0.1.0"}},
            }
        },
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": dict(sorted(schemas.items())),
            "correlationIds": {
                "ref": {
                    "description": "The client's own word for its question, repeated in the answer.",
                    "location": "$message.payload#/ref",
                }
            },
            "securitySchemes": _SECURITY,
        },
        "x-close-codes": [
            {"code": close.code, "meaning": close.meaning, "advice": close.advice.value}
            for close in protocol.CLOSE_CODES
        ],
        "x-error-codes": [
            {"code": error.code, "status": error.status, "retry": error.retry, "meaning": sentence(error)}
            for error in errors.ERRORS
        ],
    }


_TOKEN_QUERY: Json = {"type": "object", "properties": {"token": {"type": "string", "description": "a JWT"}}}

_SECURITY: Json = {
    "subprotocol": {
        "type": "httpApiKey",
        "name": "Sec-WebSocket-Protocol",
        "in": "header",
        "description": f"`{protocol.SUBPROTOCOL}, {protocol.TOKEN_SUBPROTOCOL_PREFIX}<token>`, which browsers can send",
    },
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "query": {"type": "httpApiKey", "name": "token", "in": "query"},
}


def _message(kind: type, name: str, title: str, *, correlated: bool = False) -> Json:
    message: Json = {"name": name, "title": title, "summary": sentence(kind)}
    if correlated:
        message["correlationId"] = {"$ref": "#/components/correlationIds/ref"}
    return message | {"payload": {"$ref": f"#/components/schemas/{kind.__name__}"}}


def _of_channel(kind: type) -> Json:
    return {"$ref": f"#/channels/chat/messages/{kind.__name__}"}


def _schemas(structs: list[type[msgspec.Struct]]) -> Json:
    """The JSON schemas of the structs and of what they are made of, by name."""
    _, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    kinds = {kind.__name__: kind for module in (model, protocol) for kind in vars(module).values() if _is_class(kind)}
    entries = {entry.__name__ for entry in model.ENTRY_TYPES}
    for name, schema in schemas.items():
        kind = kinds[name]
        schema["description"] = sentence(kind)
        told = attributes(kind)
        if name in entries:
            told = attributes(model.Entry) | told
        config = getattr(kind, "__struct_config__", None)
        for field, value in schema.get("properties", {}).items():
            if config is not None and config.omit_defaults:
                value = schema["properties"][field] = _never_null(value)
            if field in told and "$ref" not in value:
                value["description"] = told[field]
        if name in entries:
            schema["required"] = ["type", *ENTRY_ALWAYS, *[f for f in schema["required"] if f not in ENTRY_ALWAYS]]
            schema["required"] = list(dict.fromkeys(schema["required"]))
    return _plain(schemas)


def _is_class(value: object) -> bool:
    return isinstance(value, type)


def _never_null(schema: Json) -> Json:
    """The schema of a field that is absent when it has nothing to say."""
    if "anyOf" not in schema:
        return {key: value for key, value in schema.items() if key != "default"}
    others = [option for option in schema["anyOf"] if option != {"type": "null"}]
    return others[0] if len(others) == 1 else {**schema, "anyOf": others}


def _framed(schema: Json, action: str) -> Json:
    """An action's fields with the two that every frame has."""
    head = {
        "action": {"const": action},
        "ref": {"type": "string", "maxLength": model.MAX_REF_CHARS, "description": "repeated in the answer"},
    }
    return {
        **schema,
        "properties": head | schema["properties"],
        "required": ["action", *schema.get("required", [])],
    }


def _plain(value: Any) -> Any:  # Any: a piece of a JSON schema
    r"""The schema as AsyncAPI wants it: ECMAScript's patterns, which have no `\Z`, and no OpenAPI discriminators.

    The `type` of each alternative, an enumeration of one word, tells them apart already.
    """
    if isinstance(value, dict):
        return {
            key: each.replace("\\Z", "$") if key == "pattern" and isinstance(each, str) else _plain(each)
            for key, each in value.items()
            if key != "discriminator"
        }
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


# The tables


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def signature(kind: type[msgspec.Struct], *, without: tuple[str, ...] = ()) -> str:
    """A struct's fields with their types, as the tables show them."""
    info = fields_of.type_info(kind)
    assert isinstance(info, fields_of.StructType)
    shown = []
    for field in info.fields:
        if field.encode_name in without:
            continue
        mark = "" if field.required else "?"
        shown.append(f"`{field.encode_name}{mark}`: {words(field.type)}{_default(field)}")
    return ", ".join(shown)


def _default(field: fields_of.Field) -> str:
    default = field.default
    if default in (None, "", False) or not isinstance(default, str | int | bool):
        return ""
    return f" (default `{json.dumps(default)}`)"


def words(kind: fields_of.Type) -> str:
    """A type in the tables' words."""
    match kind:
        case fields_of.Metadata():
            pattern = getattr(kind.type, "pattern", None)
            return "room id" if pattern == model.ROOM_ID_PATTERN else words(kind.type)
        case fields_of.StrType():
            return "room id" if kind.pattern == model.ROOM_ID_PATTERN else "string" + _range(kind, "characters")
        case fields_of.IntType():
            least, most = kind.ge, kind.le
            if most == model.MAX_SEQ:
                return "seq"
            return "integer" if least is None else f"integer {least}-{most}"
        case fields_of.BoolType():
            return "boolean"
        case fields_of.RawType():
            return "any JSON"
        case fields_of.EnumType():
            return WORDS[kind.cls]
        case fields_of.ListType():
            item = "entry" if _is_entries(kind.item_type) else words(kind.item_type)
            return f"list of {item}" + _range(kind, "at most")
        case fields_of.DictType():
            return f"map of {words(kind.key_type)} to {words(kind.value_type)}"
        case fields_of.StructType():
            return WORDS[kind.cls]
        case fields_of.UnionType():
            kept = [each for each in kind.types if not isinstance(each, fields_of.NoneType)]
            return " or ".join(words(each) for each in kept)
    raise NotImplementedError(f"no words for {kind!r}")


def _is_entries(kind: fields_of.Type) -> bool:
    return isinstance(kind, fields_of.UnionType) and all(
        isinstance(each, fields_of.StructType) and issubclass(each.cls, model.Entry) for each in kind.types
    )


def _range(kind: Any, what: str) -> str:  # Any: strings and lists have the same two limits
    if kind.max_length is None:
        return ""
    if what == "at most":
        return f", at most {kind.max_length}"
    return f" of {kind.min_length or 0}-{kind.max_length} {what}"


def actions_table() -> str:
    """Actions, their fields and their results."""
    rows = []
    for action, ask in protocol.ACTIONS.items():
        answers = [signature(kind, without=("ref",)) for kind in results(action)]
        rows.append(
            (f"`{action}`", signature(ask), "; or ".join(answer or "nothing more" for answer in answers), sentence(ask))
        )
    return table(("action", "fields", "in the answer", "what it does"), rows)


def entries_table() -> str:
    """Entry types and what each adds to the fields that all have."""
    common = (*ENTRY_ALWAYS, "name")
    rows = [(f"`{tag(kind)}`", signature(kind, without=common), sentence(kind)) for kind in model.ENTRY_TYPES]
    return table(("type", "its own fields", "what happened"), rows)


def signals_table() -> str:
    """Signals and their fields."""
    return table(
        ("type", "fields", "what it tells"),
        [(f"`{tag(kind)}`", signature(kind), sentence(kind)) for kind in protocol.SIGNALS],
    )


def objects_table() -> str:
    """What results are made of."""
    return table(
        ("word", "fields or values", "what it is"),
        [(name, _made_of(kind), sentence(kind)) for kind, name in WORDS.items()],
    )


def _made_of(kind: Any) -> str:  # Any: a struct or an enumeration
    if issubclass(kind, msgspec.Struct):
        return signature(kind)
    return "one of " + ", ".join(f"`{each.value}`" for each in kind)


def errors_table() -> str:
    """Error codes."""
    return table(
        ("code", "HTTP status", "`retry`", "meaning"),
        [
            (f"`{error.code}`", str(error.status), "yes" if error.retry else "no", sentence(error))
            for error in errors.ERRORS
        ],
    )


def close_codes_table() -> str:
    """Close codes and what to do."""
    advice = {
        protocol.CloseAdvice.RECONNECT: "back off, reconnect, `sync`",
        protocol.CloseAdvice.NEW_TOKEN: "get a new token, then reconnect and `sync`",
        protocol.CloseAdvice.STOP: "do not reconnect by yourself",
    }
    return table(
        ("code", "meaning", "what a client does"),
        [(str(close.code), close.meaning, advice[close.advice]) for close in protocol.CLOSE_CODES],
    )


def roles_table() -> str:
    """What each role may do."""
    rows = [
        (f"`{role.value}`", *["yes" if model.may(role, permission) else "" for permission in model.Permission])
        for role in sorted(model.Role, key=lambda role: -role.rank)
    ]
    return table(("role", *[permission.value for permission in model.Permission]), rows)


def limits_table() -> str:
    """Limits of the protocol and the defaults of the chat's."""
    chat = ChatLimits()
    store = inspect.signature(SqliteStore).parameters
    rows = [
        ("a message from a client", f"{protocol.MAX_MESSAGE_BYTES:,} bytes", "close 1009"),
        ("a room id", "1-64 characters of `A-Za-z0-9._:-`", "`bad_request`"),
        ("a message's `text`", f"{chat.max_text_chars:,} characters", "`too_large`"),
        ("`client_id`", f"1-{model.MAX_CLIENT_ID_CHARS} characters", "`bad_request`"),
        ("`ref`", f"{model.MAX_REF_CHARS} characters", "`bad_request`"),
        ("a reaction", f"1-{model.MAX_REACTION_CHARS} characters", "`bad_request`"),
        ("a user id", f"1-{model.MAX_USER_ID_CHARS} characters", "`bad_request`"),
        ("a room's name", f"{model.MAX_NAME_CHARS} characters", "`bad_request`"),
        ("members of a room", f"{store['max_members'].default:,}", "`conflict`"),
        ("rooms of a user", f"{store['max_rooms'].default:,}", "`conflict`"),
        ("a page of history, members or rooms", f"{model.MAX_PAGE} items", "`bad_request`"),
        ("the entries in one answer", f"about {chat.max_reply_bytes // 1024} KiB", "the rest is a next page"),
        ("missed entries in one `sync`", f"{chat.sync_entries:,}", "the room is named in `more`"),
        ("actions of a connection", f"{chat.rate:g} a second, {chat.burst} at once", "`rate_limited`"),
        ("actions of a user", f"{chat.user_rate:g} a second, {chat.user_burst} at once", "`rate_limited`"),
        ("a `seq`", f"{model.MAX_SEQ:,} (2^53 - 1)", "`bad_request`"),
    ]
    return table(("what", "limit or default", "beyond it"), rows)


def settings_table(panel: str) -> str:
    """The settings of one panel."""
    rows = [
        (f"`{name}`", config.kind_of(name), _setting_default(name), about.help)
        for name, about in config.SETTINGS.items()
        if about.panel == panel
    ]
    return table(("setting", "value", "default", "meaning"), rows)


def _setting_default(name: str) -> str:
    default = config.default_of(name)
    return "" if default in (None, []) else f"`{json.dumps(default) if isinstance(default, bool) else default}`"


SETTINGS_TABLES = {
    f"settings-{panel.lower()}": partial(settings_table, panel)
    for panel in dict.fromkeys(about.panel for about in config.SETTINGS.values())
}

TABLES = {
    "actions": actions_table,
    "entries": entries_table,
    "signals": signals_table,
    "objects": objects_table,
    "roles": roles_table,
    "errors": errors_table,
    "close-codes": close_codes_table,
    "limits": limits_table,
}


def with_tables(text: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """`text` with what the code says between its markers, one block for each of `tables`.

    Raises:
        ValueError: a marker is missing, doubled or unknown.

    """
    for name, make in tables.items():
        block = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- /generated -->)", re.DOTALL)
        if len(block.findall(text)) != 1:
            raise ValueError(f"expected one block <!-- generated: {name} --> … <!-- /generated -->")
        text = block.sub(lambda found, make=make: f"{found[1]}{make()}\n{found[2]}", text)
    if text.count("<!-- generated: ") != len(tables):
        raise ValueError("there is a generated block that nobody generates")
    return text


def bench_table(panel: str) -> str:
    """The flags of the load test that stand in one panel."""
    rows = [
        (
            f"`--{each.name.replace('_', '-')}`" + (f" {each.metavar}" if each.metavar else ""),
            f"`{each.default}`" if each.default else "",
            each.help,
        )
        for each in bench_flags.FLAGS
        if each.panel == panel
    ]
    return table(("flag", "default", "meaning"), rows)


RESULT = {
    "the object": bench_result.Result,
    "`asked`": bench_result.Asked,
    "`counts`": bench_telling.Counts,
    "`per_s`": bench_result.PerS,
    "`ack`, `delivery`, `history`, `connect`, and wherever there are durations": bench_result.Percentiles,
    "`faults`": bench_result.Faults,
    "each of `faults.rooms`": bench_telling.RoomEnd,
    "`storm`": bench_result.Storm,
    "`server`": bench_result.Server,
    "`generator`": bench_result.Generator,
    "each of `seconds`": bench_result.Second,
}
"""The structs of a load test's result, by where they stand in it."""


def bench_fields() -> str:
    """A table of fields for each struct of a load test's result.

    Raises:
        ValueError: a field is not described.

    """
    parts = []
    for where, kind in RESULT.items():
        described = attributes(kind)
        missing = set(kind.__struct_fields__) - described.keys()
        if missing:
            raise ValueError(f"{kind.__name__} does not describe {', '.join(sorted(missing))}")
        by_words: dict[str, list[str]] = {}
        for name in kind.__struct_fields__:
            by_words.setdefault(described[name], []).append(f"`{name}`")
        rows = [(", ".join(names), words.replace("None", "null")) for words, names in by_words.items()]
        parts.append(f"{where[0].upper() + where[1:]}:\n\n" + table(("field", "meaning"), rows))
    return "\n\n".join(parts)


BENCH_TABLES = {
    "bench-load": partial(bench_table, bench_flags.LOAD),
    "bench-trouble": partial(bench_table, bench_flags.TROUBLE),
    "bench-access": partial(bench_table, bench_flags.ACCESS),
    "bench-made": partial(bench_table, bench_flags.MADE),
    "bench-told": partial(bench_table, bench_flags.SAYS),
    "bench-result": bench_fields,
}

SHOWN = re.compile(r"^```console\n\$ hubbub (cost[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block that shows what `hubbub cost` prints: its arguments, and that."""


def with_output(text: str) -> str:
    """`text` with what `hubbub cost` prints now after each `$ hubbub cost …`.

    Raises:
        ValueError: a command fails.

    """

    def renewed(found: re.Match[str]) -> str:
        ran = CliRunner().invoke(cli.app, shlex.split(found[1]))
        if ran.exit_code:
            raise ValueError(f"hubbub {found[1]}: {ran.stderr.strip()}")
        lines = [line.rstrip() for line in ran.stdout.rstrip().splitlines()]  # tables are filled with spaces
        return "\n".join([f"```console\n$ hubbub {found[1]}", *lines, "```"])

    return SHOWN.sub(renewed, text)


# The command


def documents() -> dict[Path, str]:
    """What each generated file ought to contain."""
    return {
        ASYNCAPI: json.dumps(asyncapi(), indent=2, ensure_ascii=False) + "\n",
        PROTOCOL: with_tables(PROTOCOL.read_text(encoding="utf-8")),
        CONFIGURATION: with_tables(CONFIGURATION.read_text(encoding="utf-8"), SETTINGS_TABLES),
        BENCH: with_tables(BENCH.read_text(encoding="utf-8"), BENCH_TABLES),
        COST: with_output(COST.read_text(encoding="utf-8")),
    }


def main(arguments: list[str] | None = None) -> int:
    """Write, or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a document is stale")
    check = parser.parse_args(arguments).check
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        name = path.relative_to(ROOT)
        if check:
            print(f"{name} is stale: run `python scripts/docs.py`", file=sys.stderr)
        else:
            path.write_text(documents()[path], encoding="utf-8")
            print(f"wrote {name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
