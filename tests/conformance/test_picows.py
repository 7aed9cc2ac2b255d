"""The private class of picows that the gateway frames with: a release that changes it is noticed here, and loudly."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

import picows
from gatewaylab import running, still_works
from picows import picows as private
from rawpeer import PING, PONG, Frame, frame

from documents import ROOT
from hubbub.gateway import sockets

TRIED = "2.3.1"
HOW = (
    "picows is not the release that `hubbub.gateway.sockets` was tried with. Read what has changed in `WSProtocol` "
    "(constructor, get_buffer, buffer_updated, how it fails, what it logs), run tests/conformance, measure with "
    "`make bench`, and only then move the pin in pyproject.toml and TRIED in this test."
)


def test_picows_is_the_release_that_was_tried() -> None:
    """The pin is exact, and what is installed, what is pinned and what was tried are one release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pin,) = [each for each in project["dependencies"] if each.startswith("picows")]
    assert pin == f"picows=={TRIED}", HOW
    assert importlib.metadata.version("picows") == TRIED, HOW


def test_picows_takes_what_the_gateway_gives() -> None:
    """The private class has the constructor, the methods and the attributes that the gateway uses."""
    text = (ROOT / "src" / "hubbub" / "gateway" / "sockets.py").read_text(encoding="utf-8")
    call = re.search(r"protocol = _Framing\((.*?)\n        \)", text, re.DOTALL)
    assert call is not None, "where is it made?"
    given = [line for line in call[1].splitlines() if line.split("#")[0].strip()]
    signature = re.search(r"def __init__\(self,(.*?)\):", _source(), re.DOTALL)
    assert signature is not None, HOW
    assert [name.split()[-1] for name in signature[1].replace("\n", " ").split(",")] == [
        *("host_port", "ws_path", "is_client_side", "ws_listener_factory", "logger", "disconnect_on_exception"),
        *("websocket_handshake_timeout", "enable_auto_ping", "auto_ping_idle_timeout", "auto_ping_reply_timeout"),
        *("auto_ping_strategy", "enable_auto_pong", "max_frame_size", "extra_headers", "read_buffer_init_size"),
    ], HOW
    assert len(given) == 15, "the gateway gives another number of arguments than the constructor takes"
    for name in ("connection_made", "connection_lost", "get_buffer", "buffer_updated", "transport", "listener"):
        assert hasattr(private.WSProtocol, name), f"WSProtocol.{name} is gone. {HOW}"
    for name in ("request", "response", "close_handshake"):
        assert hasattr(picows.WSTransport, name), f"WSTransport.{name} is gone. {HOW}"


def _source() -> str:
    """The text of the private class, which is delivered beside the compiled one."""
    files = importlib.metadata.files("picows") or []
    (source,) = [file for file in files if file.name == "picows.pyx"]
    text = source.read_text()
    return text[text.index("cdef class WSProtocol(") :]


def test_picows_says_what_is_wrong_with_a_frame_before_it_acts() -> None:
    """What the gateway turns into its own closing is picows' one `error` on its logger, with code and reason."""
    assert re.search(
        r"except WSProtocolError as ex:\s+self\._logger\.error\([^\n]*ex\.args\)\s",
        _source()[_source().index("_get_next_frame(") :],
    ), HOW


async def test_the_gateway_frames_with_the_private_class() -> None:
    """A connection's protocol is picows', it holds no logger, and a frame goes through it and back."""
    assert issubclass(sockets._Framing, private.WSProtocol)
    async with running() as lab, await lab.open() as peer:
        (live,) = lab.hub.peers()
        protocol = live.wire._transport.get_protocol()
        assert type(protocol) is sockets._Framing, HOW
        assert protocol.listener is live.wire
        assert not hasattr(protocol, "__dict__"), "a connection grew"
        await still_works(peer)
        await peer.send(frame(PING, b"x"))
        assert await peer.receive() == Frame(PONG, b"x")
