"""The OpenAPI document and its page, held against the table they are made from."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import httpx
import jsonschema
import pytest

from chatlab import FakeTokens, lab
from hubbub.api import ENDPOINTS, Doorkeeper, backend_routes, create_app
from hubbub.api.document import openapi, page
from hubbub.errors import BY_CODE


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document as clients get it."""
    text = json.dumps(openapi(ENDPOINTS, "1.2.3"))
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_every_row_is_in_the_document(document: dict[str, Any]) -> None:
    """Each row of the table is one operation, described, with its parameters and its errors."""
    operations = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert operations.keys() == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    assert len({operation["operationId"] for operation in operations.values()}) == len(ENDPOINTS)
    for endpoint in ENDPOINTS:
        operation = operations[endpoint.method, endpoint.path]
        assert operation["summary"].endswith(".")
        in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", endpoint.path))
        assert {"200", "201", "204"} & operation["responses"].keys() == {str(endpoint.status)}
        assert {"400", "401", "403", "500", "503"} <= operation["responses"].keys()
        for error in endpoint.errors:
            assert error.code in operation["responses"][str(error.status)]["description"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No `$ref` of the document points to a schema that is not there."""
    references = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= document["components"]["schemas"].keys()
    assert {"Room", "Member", "Posted", "Unread", "ErrorDocument"} <= references


def test_every_schema_is_a_schema(document: dict[str, Any]) -> None:
    """All schemas are valid JSON Schema 2020-12, which OpenAPI 3.1 speaks; their patterns are ECMA's."""
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert "\\Z" not in json.dumps(document)


async def test_answers_are_what_the_document_says(document: dict[str, Any]) -> None:
    """Real answers, good and bad, validate against the document's schemas."""
    components = {"components": document["components"]}

    def validate(response: httpx.Response, method: str, path: str) -> None:
        answers = document["paths"][path][method]["responses"]
        schema = answers[str(response.status_code)]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**schema, **components}).validate(response.json())

    async with lab() as running:
        doorkeeper = Doorkeeper(running.chat, FakeTokens(running.clock))
        transport = httpx.ASGITransport(create_app(backend_routes(doorkeeper, version="1")))
        headers = {"Authorization": f"Bearer {running.token('backend', scopes=['server'])}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://chat", headers=headers) as http:
            room = {"room": "tea", "kind": "public", "members": [{"user": "ann", "role": "owner"}]}
            validate(await http.post("/v1/rooms", json=room), "post", "/v1/rooms")
            validate(await http.post("/v1/rooms", json=room), "post", "/v1/rooms")
            validate(await http.post("/v1/rooms", json={}), "post", "/v1/rooms")
            messages = "/v1/rooms/{room}/messages"
            validate(await http.post("/v1/rooms/tea/messages", json={"text": "hi", "data": [1]}), "post", messages)
            validate(await http.get("/v1/rooms/tea/messages"), "get", messages)
            validate(await http.get("/v1/rooms/none/messages"), "get", messages)
            validate(await http.get("/v1/rooms/tea/members"), "get", "/v1/rooms/{room}/members")
            validate(await http.get("/v1/users/ann/unread"), "get", "/v1/users/{user}/unread")
            validate(await http.put("/v1/users/ann/ban", json={}), "put", "/v1/users/{user}/ban")
            validate(await http.get("/v1/rooms", headers={"Authorization": ""}), "get", "/v1/rooms")


class Links(HTMLParser):
    """The links, ids and loaded things of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.add(tag)
        if href := known.get("href"):
            self.hrefs.append(href)
        if found := known.get("id"):
            self.ids.append(found)


def test_the_page_shows_all_and_loads_nothing_from_outside(document: dict[str, Any]) -> None:
    """The page names every operation and shape; its links lead somewhere; it has no script and no outside asset."""
    html = page(document)
    links = Links()
    links.feed(html)
    for endpoint in ENDPOINTS:
        assert endpoint.handle.__name__ in links.ids
        assert endpoint.path in html
    assert len(set(links.ids)) == len(links.ids)
    for href in links.hrefs:
        assert href.removeprefix("#") in links.ids if href.startswith("#") else href.startswith("/v1/")
    assert not links.tags & {"script", "img", "iframe", "style"}
    assert " style=" not in html


def test_what_the_document_says_cannot_become_markup(document: dict[str, Any]) -> None:
    """Text in the document is shown as text."""
    marked = json.loads(json.dumps(document).replace("Remove a room", "<img src=x>Remove a room"))
    assert "<img" not in page(marked)
    assert "&lt;img src=x&gt;Remove a room" in page(marked)


async def test_document_and_page_need_no_token() -> None:
    """Whoever writes a backend can read them without one; the page's policy allows its own style alone."""
    async with lab() as running:
        doorkeeper = Doorkeeper(running.chat, FakeTokens(running.clock))
        transport = httpx.ASGITransport(create_app(backend_routes(doorkeeper, version="1.2.3")))
        async with httpx.AsyncClient(transport=transport, base_url="http://chat") as http:
            served = (await http.get("/v1/openapi.json")).json()
            assert (served["openapi"], served["info"]["version"]) == ("3.1.0", "1.2.3")
            shown = await http.get("/v1/docs")
            assert shown.headers["content-type"].startswith("text/html")
            assert "default-src 'none'; style-src 'self'" in shown.headers["content-security-policy"]
            assert (await http.get("/v1/docs.css")).headers["content-type"].startswith("text/css")


def test_only_errors_of_the_table_are_documented(document: dict[str, Any]) -> None:
    """Every error code that an operation names is one of the error table, under its status."""
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if status.startswith("2"):
                    continue
                codes = re.findall(r"`(\w+)`: ", answer["description"])
                assert codes
                assert {str(BY_CODE[code].status) for code in codes} == {status}
