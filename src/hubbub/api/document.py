"""The OpenAPI 3.1 document of the HTTP API, made from its table, and a page that shows it to people."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import msgspec

from hubbub.api.endpoint import Endpoint, ErrorDocument
from hubbub.errors import BadRequest, Forbidden, HubbubError, Internal, TooLarge, Unauthorized, Unavailable

EVERYWHERE: tuple[type[HubbubError], ...] = (BadRequest, Unauthorized, Forbidden, Internal, Unavailable)
"""What can go wrong at every row."""

Json = dict[str, Any]
"""A JSON object of a document that others define: OpenAPI, JSON Schema."""

_TAGS = (
    ("rooms", "Rooms and who is in them."),
    ("messages", "What is said in them."),
    ("users", "What users have not read, their connections, and whether they may come in."),
)

_INTRODUCTION = """\
For your API backend. Every request needs a token with the scope `server` in `Authorization: Bearer <token>`; \
`hubbub token --user backend --scope server` issues one. Times called `at`, `created_at` and `joined_at` are epoch \
milliseconds; `until`, `banned_until` and `revoked_before` are epoch seconds. Errors say in `code` what happened and \
in `retry` whether the same request can succeed later."""


def openapi(endpoints: Sequence[Endpoint], version: str) -> Json:
    """The document, OpenAPI 3.1.0 (spec.openapis.org/oas/v3.1.0), as a JSON object."""
    bodies = [endpoint.body_part for endpoint in endpoints if endpoint.in_body]
    results = list(dict.fromkeys(endpoint.result for endpoint in endpoints if endpoint.result is not None))
    schemas, components = msgspec.json.schema_components(
        [*bodies, *results, ErrorDocument], ref_template="#/components/schemas/{name}"
    )
    body_schemas = dict(zip(bodies, schemas, strict=False))
    result_schemas: dict[type[Any] | None, Json | None] = {None: None}
    result_schemas.update(zip(results, schemas[len(bodies) :], strict=False))
    paths: Json = {}
    for endpoint in endpoints:
        operation: Json = {
            "operationId": endpoint.handle.__name__,
            "tags": [_tag(endpoint)],
            "summary": endpoint.summary,
            "parameters": [*_parameters(endpoint.path_part, "path"), *_parameters(endpoint.query_part, "query")],
            "responses": _responses(endpoint, result_schemas[endpoint.result], schemas[-1]),
        }
        if endpoint.description:
            operation["description"] = endpoint.description
        if endpoint.in_body:
            needed = any(field.required for field in msgspec.structs.fields(endpoint.body_part))
            content = {"application/json": {"schema": body_schemas[endpoint.body_part]}}
            operation["requestBody"] = {"required": needed, "content": content}
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hubbub HTTP API", "version": version, "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "security": [{"server": []}],
        "tags": [{"name": name, "description": words} for name, words in _TAGS],
        "paths": _ecma(paths),
        "components": {
            "securitySchemes": {
                "server": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A token with the scope `server`.",
                }
            },
            "schemas": _ecma(dict(sorted(components.items()))),
        },
    }


def _ecma(value: Any) -> Any:  # Any: any JSON
    r"""`value` with patterns as JSON Schema wants them, ECMA-262's: `$` is the very end, and there is no `\Z`."""
    if isinstance(value, dict):
        return {key: each.replace(r"\Z", "$") if key == "pattern" else _ecma(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_ecma(each) for each in value]
    return value


def _tag(endpoint: Endpoint) -> str:
    return endpoint.handle.__module__.rpartition(".")[2]


def _parameters(part: type[msgspec.Struct], where: str) -> list[Json]:
    """The fields of a struct as OpenAPI parameters; no one of them has a component of its own worth a name."""
    (reference,), components = msgspec.json.schema_components([part], ref_template="{name}")
    schema = components[reference["$ref"]]
    parameters = []
    for name, field in schema.get("properties", {}).items():
        field_schema = _inlined(field, components)
        parameter: Json = {"name": name, "in": where, "required": where == "path", "schema": field_schema}
        if description := field_schema.pop("description", None):
            parameter["description"] = description
        parameters.append(parameter)
    return parameters


def _inlined(schema: Json, components: Json) -> Json:
    """`schema` with its references replaced; an optional parameter is left out rather than null."""
    if "$ref" in schema:
        return _inlined(components[schema["$ref"]], components)
    if "anyOf" in schema:
        kinds = [_inlined(kind, components) for kind in schema["anyOf"] if kind != {"type": "null"}]
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        return {**kinds[0], **rest} if len(kinds) == 1 else {**rest, "anyOf": kinds}
    return {key: value for key, value in schema.items() if key != "title"}


def _responses(endpoint: Endpoint, result: Json | None, error: Json) -> Json:
    success: Json = {"description": "Done." if result is None else "The result."}
    if result is not None:
        success["content"] = {"application/json": {"schema": result}}
    possible = {*EVERYWHERE, *endpoint.errors} | ({TooLarge} if endpoint.in_body else set())
    responses: Json = {str(endpoint.status): success}
    for status in sorted({kind.status for kind in possible}):
        words = " ".join(f"`{kind.code}`: {kind.sentence}" for kind in possible if kind.status == status)
        responses[str(status)] = {"description": words, "content": {"application/json": {"schema": error}}}
    return responses


# The page


def page(document: Json) -> str:
    """The document as HTML: one file, no script, its style at `/v1/docs.css`."""
    schemas: Json = document["components"]["schemas"]
    info = document["info"]
    sections = []
    for tag in document["tags"]:
        rows = [
            _operation(method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation["tags"]
        ]
        sections.append(
            f'<section><h2 id="{tag["name"]}">{tag["name"].capitalize()}</h2>'
            f"<p>{_prose(tag['description'])}</p>{''.join(rows)}</section>"
        )
    shapes = "".join(_schema(name, schema) for name, schema in schemas.items())
    links = "".join(f'<a href="#{tag["name"]}">{tag["name"].capitalize()}</a>' for tag in document["tags"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}</title>"
        '<link rel="stylesheet" href="/v1/docs.css"></head><body><main>'
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f"<p>{_prose(info['description'])}</p>"
        f'<nav>{links}<a href="#shapes">Shapes</a><a href="/v1/openapi.json">openapi.json</a></nav>'
        f'{"".join(sections)}<section><h2 id="shapes">Shapes</h2>{shapes}</section></main></body></html>'
    )


def _operation(method: str, path: str, operation: Json) -> str:
    parts = [
        f'<article id="{escape(operation["operationId"])}">',
        f'<h3><b class="{method}">{method.upper()}</b> <code>{escape(path)}</code></h3>',
        f"<p>{_prose(operation['summary'])} {_prose(operation.get('description', ''))}</p>",
    ]
    if operation["parameters"]:
        rows = "".join(
            f"<tr><td><code>{escape(each['name'])}</code></td><td>{each['in']}</td><td>{_type(each['schema'])}</td>"
            f"<td>{_prose(each.get('description', ''))}</td></tr>"
            for each in operation["parameters"]
        )
        parts.append(f"<table><tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr>{rows}</table>")
    if "requestBody" in operation:
        parts.append(f"<p>Body: {_type(operation['requestBody']['content']['application/json']['schema'])}</p>")
    rows = "".join(
        f"<tr><td>{status}</td><td>{_answer(answer)}</td></tr>" for status, answer in operation["responses"].items()
    )
    parts.append(f"<details><summary>Answers</summary><table>{rows}</table></details></article>")
    return "".join(parts)


def _answer(answer: Json) -> str:
    words = _prose(answer["description"])
    schema = answer.get("content", {}).get("application/json", {}).get("schema")
    return f"{words} {_type(schema)}" if schema else words


def _schema(name: str, schema: Json) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{' *' if field in schema.get('required', ()) else ''}</td>"
        f"<td>{_type(detail)}</td><td>{_prose(detail.get('description', ''))}</td></tr>"
        for field, detail in schema.get("properties", {}).items()
    )
    table = f"<table><tr><th>Field</th><th>Type</th><th></th></tr>{rows}</table>" if rows else f"<p>{_type(schema)}</p>"
    words = _prose((schema.get("description") or "").split("\n\n", 1)[0])
    return f'<article id="shape-{escape(name)}"><h3><code>{escape(name)}</code></h3><p>{words}</p>{table}</article>'


def _type(schema: Json) -> str:
    """A schema in a few words of HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#shape-{name}">{name}</a>'
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(kind) for kind in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    limits = {
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minimum": "from {}",
        "maximum": "to {}",
    }
    words = [escape(str(schema.get("type", "any JSON")))]
    words += [text.format(schema[key]) for key, text in limits.items() if key in schema]
    return ", ".join(words)


def _prose(words: str) -> str:
    """Escaped text in which what stood between backticks is code."""
    parts = escape(" ".join(words.split())).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


STYLE = """\
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --accent: #7aa2ff; } }
body { margin: 0; font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 2rem 1rem 6rem; }
h1 small { font-weight: 400; font-size: 1rem; opacity: .6; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
h3 { margin: 0 0 .5rem; font-size: 1rem; overflow-wrap: anywhere; }
h3 b { display: inline-block; min-width: 4.2rem; font: 700 .8rem ui-monospace, monospace; color: var(--accent); }
article { margin: 1rem 0; padding: 1rem; border: 1px solid var(--line); border-radius: .6rem; }
article:target { border-color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: 1rem; }
a { color: var(--accent); }
code { padding: .1em .3em; border-radius: .3em; background: var(--soft); font: .9em ui-monospace, monospace; }
table { width: 100%; margin-bottom: .8rem; border-collapse: collapse; font-size: .92rem; }
th, td { padding: .3rem .6rem .3rem 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top; }
th { border: 0; font-weight: 500; opacity: .6; }
summary { cursor: pointer; }
"""
