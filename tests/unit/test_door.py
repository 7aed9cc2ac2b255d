"""A plain request for a WebSocket is understood as uvicorn's parser does, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from bench.horde import handshake
from hypothesis import example, given
from hypothesis import strategies as st

from hubbub.gateway.door import plain_request

LONGEST = 4_096
HEAD = handshake("a.b.c")


class Heard:
    """What the other parser hears."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.fields: list[tuple[str, str]] = []
        self.size: int | None = None
        self.parser: Any = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.size = upgrade.args[0]

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode("latin-1"), value.decode("latin-1").strip()))


pieces = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b"\0",
            b"\x7f",
            b"\xff",
            b"GET",
            b"HTTP/1.1",
            b"Upgrade",
            b"websocket",
        ),
        *(
            b"Content-Length: 0\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Expect: 100-continue\r\n",
            b"X: y\r\n",
            b" folded",
        ),
        *(
            b"Connection: keep-alive, Upgrade\r\n",
            b"Upgrade: h2c\r\n",
            b"#",
            b"%",
            b"http://x",
            b"\xc3\xa4",
            b"/",
            b"?",
        ),
    ]
)


@given(st.lists(st.tuples(st.integers(0, len(HEAD)), pieces, st.integers(0, 12)), max_size=3), st.binary(max_size=20))
@example([], b"\x81\x80\0\0\0\0")
def test_what_is_taken_means_what_the_other_parser_says(changes: list[tuple[int, bytes, int]], early: bytes) -> None:
    """However a browser's head is changed: method, target, headers, and where the frames begin are the same."""
    data = HEAD
    for at, piece, cut in changes:
        data = data[:at] + piece + data[at + cut :]
    data += early
    found = plain_request(data, LONGEST)
    if found is None:
        assert changes, "the browser's own is plain"
        return
    request, size = found
    heard = Heard(data)
    assert heard.size == size
    assert heard.parser.get_method() == request.method.encode()
    assert heard.parser.get_http_version() == "1.1"
    assert heard.url.decode("latin-1") == request.target
    assert heard.fields == request.fields
    assert not request.headers.keys() & {"content-length", "transfer-encoding"}


def changed(old: bytes, new: bytes) -> bytes:
    assert HEAD.count(old) == 1
    return HEAD.replace(old, new)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD[:-1],
        b"\r\n" + HEAD,
        changed(b"GET /ws", b"POST /ws"),
        changed(b"GET /ws", b"get /ws"),
        changed(b"GET /ws", b"GET http://127.0.0.1/ws"),
        changed(b"GET /ws", b"GET /w#s"),
        changed(b"GET /ws", b"GET /w s"),
        changed(b"HTTP/1.1", b"HTTP/1.0"),
        changed(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
        changed(b"Host: 127.0.0.1\r\n", b"Host : 127.0.0.1\r\n"),
        changed(b"Host: 127.0.0.1\r\n", b"Host: 127.0.0.1\r\n folded\r\n"),
        changed(b"Host: 127.0.0.1\r\n", b"Host: \xe4\r\n"),
        changed(b"Host: 127.0.0.1\r\n", b"Content-Length: 1\r\n"),
        changed(b"Host: 127.0.0.1\r\n", b"Transfer-Encoding: chunked\r\n"),
        changed(b"Host: 127.0.0.1\r\n", b"Expect: 100-continue\r\n"),
        changed(b"Connection: Upgrade\r\n", b""),
        changed(b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n"),
        changed(b"Pragma: no-cache\r\n", b"Pragma: " + b"x" * LONGEST + b"\r\n"),
    ],
)
def test_what_is_not_plain_is_left_as_it_came(data: bytes) -> None:
    """What is incomplete, unusual, wrong, too long or no request for a WebSocket is the HTTP server's to judge."""
    assert plain_request(data, LONGEST) is None


def test_lists_and_cases_are_plain() -> None:
    """As browsers write them, and proxies."""
    for new in (
        b"Connection: keep-alive, Upgrade\r\n",
        b"connection:upgrade\r\n",
        b"Connection: a\r\nConnection: UPGRADE \r\n",
    ):
        found = plain_request(changed(b"Connection: Upgrade\r\n", new), LONGEST)
        assert found is not None
        assert found[0].asks_for("connection", "upgrade")
