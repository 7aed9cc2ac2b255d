"""The documents say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft7Validator

from documents import PAGES, ROOT, Block, anchors, blocks, generator, prose
from hubbub.chat.registry import BUILT_IN
from hubbub.model import ENTRY_TYPES
from hubbub.protocol import ACTIONS, SIGNALS, ErrorReply, decode_envelope, encode

Json = dict[str, Any]
docs = generator()
PROTOCOL_FRAMES = blocks(ROOT / "docs" / "protocol.md", "json")


@pytest.fixture(scope="module")
def document() -> Json:
    """The AsyncAPI document as it lies in the repository."""
    loaded: Json = json.loads((ROOT / "docs" / "asyncapi.json").read_text(encoding="utf-8"))
    return loaded


def references(value: Any) -> list[str]:
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for each in value.values() for found in references(each)]
    if isinstance(value, list):
        return [found for each in value for found in references(each)]
    return []


def resolve(document: Json, reference: str) -> Any:
    """What a local `$ref` names."""
    assert reference.startswith("#/"), f"{reference} leads out of the document"
    found: Any = document
    for part in reference[2:].split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def test_generated_documents_are_what_the_code_says() -> None:
    """The AsyncAPI document and the tables of the protocol are exactly what the generator makes of the code."""
    for path, text in docs.documents().items():
        assert path.read_text(encoding="utf-8") == text, f"run `python scripts/docs.py`: {path.name} is stale"


def test_a_stale_document_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The generator's check names a document that is not what the code says, and fails."""
    assert docs.main(["--check"]) == 0
    monkeypatch.setattr(docs, "documents", lambda: {docs.ASYNCAPI: "{}\n"})
    assert docs.main(["--check"]) == 1
    assert "docs/asyncapi.json is stale" in capsys.readouterr().err


def test_a_lost_marker_is_noticed() -> None:
    """The generator refuses a page without the place for one of its tables, or with a place that it does not know."""
    page = docs.PROTOCOL.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="generated: errors"):
        docs.with_tables(page.replace("<!-- generated: errors -->", ""))
    with pytest.raises(ValueError, match="nobody generates"):
        docs.with_tables(page + "\n<!-- generated: weather -->\n<!-- /generated -->\n")


def test_asyncapi_has_the_required_parts(document: Json) -> None:
    """The document has what AsyncAPI 3.0 requires of a document, its servers, channels and messages."""
    assert re.fullmatch(r"3\.0\.\d+", document["asyncapi"])
    assert document["info"]["title"]
    assert document["info"]["version"]
    for server in document["servers"].values():
        assert {"host", "protocol"} <= server.keys()
        assert "/" not in server["host"]
    for channel in document["channels"].values():
        assert channel["messages"]
    for message in document["components"]["messages"].values():
        assert message["payload"].keys() == {"$ref"}
    for section in document["components"].values():
        assert all(re.fullmatch(r"[\w.\-]+", name) for name in section)
    allowed = {"asyncapi", "id", "info", "defaultContentType", "servers", "channels", "operations", "components"}
    assert {key for key in document if not key.startswith("x-")} <= allowed


def test_asyncapi_references_resolve(document: Json) -> None:
    """Every reference in the document names something in it."""
    found = references(document)
    assert len(found) > 100
    for reference in found:
        resolve(document, reference)


def test_asyncapi_operations_speak_of_their_channel(document: Json) -> None:
    """Every operation is sent or received on a channel, and it and its reply name messages of that very channel."""
    for name, operation in document["operations"].items():
        assert operation["action"] in ("send", "receive"), name
        for side in (operation, operation.get("reply", operation)):
            prefix = side["channel"]["$ref"] + "/messages/"
            assert side["messages"], name
            assert all(message["$ref"].startswith(prefix) for message in side["messages"]), name


def test_asyncapi_schemas_are_json_schemas(document: Json) -> None:
    """Every schema in the document is a valid JSON Schema of draft 7, which AsyncAPI 3.0 speaks."""
    for schema in document["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)
        assert "\\Z" not in json.dumps(schema), "ECMAScript's patterns have no such end"
        assert "discriminator" not in json.dumps(schema), "OpenAPI's form of it is no AsyncAPI"


def test_asyncapi_names_every_action_and_no_other(document: Json) -> None:
    """The document's received operations are the chat's built-in actions."""
    received = {name for name, operation in document["operations"].items() if operation["action"] == "receive"}
    assert received == set(ACTIONS) == set(BUILT_IN.actions)


def test_actions_take_what_the_protocol_lists() -> None:
    """The function registered for an action takes the struct that the protocol lists for it."""
    assert {name: action.ask for name, action in BUILT_IN.actions.items()} == ACTIONS


def answered(frame: Json) -> type[msgspec.Struct]:
    """The result struct that this success is, to the last field."""
    kinds = dict.fromkeys(kind for action in ACTIONS for kind in docs.results(action))
    fitting = []
    for kind in kinds:
        try:
            decoded = msgspec.convert(frame, kind)
        except msgspec.ValidationError:
            continue
        if json.loads(encode(decoded)) == frame:
            fitting.append(kind)
    assert fitting, f"no result looks like {frame}"
    return fitting[0]


def meaning(block: Block) -> type[msgspec.Struct]:
    """The struct of the code that an example frame is, to the last field."""
    frame = json.loads(block.text)
    if "action" in frame:
        ask = BUILT_IN.actions[decode_envelope(block.text).action]
        ask.decoder.decode(block.text)
        assert frame.keys() <= {"action", "ref", *ask.ask.__struct_fields__}, f"unknown fields in {block.where}"
        return ask.ask
    if frame["type"] == "ok":
        return answered(frame)
    by_type = {docs.tag(kind): kind for kind in (*SIGNALS, *ENTRY_TYPES, ErrorReply)}
    decoded = msgspec.json.decode(block.text, type=by_type[frame["type"]])
    assert json.loads(encode(decoded)) == frame, f"{block.where} has what the code does not know"
    return type(decoded)


@pytest.mark.parametrize("block", PROTOCOL_FRAMES, ids=lambda block: block.where)
def test_example_frames_are_frames_of_the_code(block: Block, document: Json) -> None:
    """Every example frame decodes with the code's structs without remainder, and fits its AsyncAPI schema."""
    kind = meaning(block)
    schema = {"$ref": f"#/components/schemas/{kind.__name__}", "components": document["components"]}
    Draft7Validator(schema).validate(json.loads(block.text))


def test_there_are_examples_of_every_kind_of_frame() -> None:
    """The protocol shows actions, successes, failures, entries and signals."""
    types = {json.loads(block.text).get("type", "action") for block in PROTOCOL_FRAMES}
    assert {"action", "ok", "error", "message.created", "typing"} <= types


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link between the documents leads to a file and a heading that are there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert linked.is_relative_to(ROOT), f"{page.name} links out of the repository: {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{page.name} links to {target}, which has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_that_is_named_exists(page: Path) -> None:
    """Every path into the repository that a document names is there."""
    named = re.findall(r"`((?:src/hubbub|tests|docs|examples|scripts|clients)/[\w./\-]+)(?:::\w+)?`", prose(page))
    for path in named:
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_named_tests_exist() -> None:
    """Every test that a document names is there."""
    for page in PAGES:
        for path, name in re.findall(r"`(tests/[\w./]+\.py)::(\w+)`", prose(page)):
            assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE), (
                f"{page.name} names {path}::{name}"
            )
