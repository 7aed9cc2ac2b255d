"""The command line's decisions: tokens that are asked for wrongly, chats that are not there, where to listen."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from typer.testing import CliRunner

from hubbub.app import load_chat
from hubbub.chat import Chat
from hubbub.cli import app
from hubbub.config import SettingsError
from hubbub.listening import CannotStart, bind

SECRET = "a-secret-for-tests-only-0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder from which modules are imported, and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ttl", "1"], "ttl: expected a number with s, m, h or d such as 90s, 15m, 1h or 7d, got '1'"),
        (["--ttl", "0s"], "ttl: expected"),
        (["--ttl", "-1h"], "ttl: expected"),
        (["--ttl", "1h "], "ttl: expected"),
        (["--ttl", "99999999999999h"], "ttl: expected"),
        (["--ttl", "9999999999d"], "this token would be refused: Expected `int` <= 253402300799 - at `$.exp`"),
        (["--room", "general=king"], "ROOM=ROLE with a role of owner, moderator, member, reader, got 'general=king'"),
        (["--room", "general="], "ROOM=ROLE with a role of"),
        (["--room", "general=owner=x"], "ROOM=ROLE with a role of"),
        (["--room", "a b"], "room: expected 1 to 64 characters of A-Z a-z 0-9 . _ : -, got 'a b'"),
        (["--room", "=owner"], "room: expected 1 to 64 characters"),
        (["--avatar", "javascript:x"], "this token would be refused: "),
        (["--user", ""], "this token would be refused: "),
        (["--config", "none.toml"], "config: there is no file none.toml"),
    ],
)
def test_a_token_that_is_asked_for_wrongly_is_not_issued(arguments: list[str], words: str):
    """It is said what was expected; nothing is on standard output."""
    user = [] if "--user" in arguments else ["--user", "alice"]
    run = CliRunner().invoke(app, ["token", *user, *arguments], env={"HUBBUB_SECRET": SECRET})
    assert (run.exit_code, run.stdout) == (2, "")
    assert run.stderr.startswith("hubbub: ")
    assert words in run.stderr


def test_a_token_is_signed_with_the_first_of_several_secrets(folder: Path):
    """The newest, which every server that has the file believes."""
    (folder / "secrets").write_text(f"{SECRET}\nan-older-secret-that-still-counts-for-a-while\n")
    run = CliRunner().invoke(app, ["token", "--user", "alice"], env={"HUBBUB_SECRET_FILE": "secrets"})
    assert jwt.decode(run.stdout.strip(), SECRET, algorithms=["HS256"])["sub"] == "alice"


CHAT = """
from hubbub import Chat
chat = Chat()
class Parts:
    inner = chat
def function():
    return chat
"""


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("myapp", "app: expected module:attribute such as myapp:chat, got 'myapp'"),
        ("myapp:", "app: expected module:attribute"),
        (":chat", "app: expected module:attribute"),
        ("./myapp.py:chat", "app: expected module:attribute"),
        (".myapp:chat", "app: expected module:attribute"),
        ("myapp:chat()", "app: expected module:attribute"),
        ("noapp:chat", "app: there is no module 'noapp' in "),
        ("myapp.inner:chat", "app: there is no module 'myapp.inner' in "),
        ("myapp.py:chat", "write it without .py, as myapp:chat"),
        ("myapp:caht", "app: the module 'myapp' has no 'caht'; there is myapp:chat"),
        ("myapp:Parts.outer", "app: the module 'myapp' has no 'Parts.outer'"),
        ("myapp:function", "app: expected a hubbub.Chat at myapp:function, got a function"),
        ("myapp:Parts", "app: expected a hubbub.Chat at myapp:Parts, got a type"),
    ],
)
def test_a_chat_that_is_not_there_is_named(folder: Path, path: str, words: str):
    """With what was looked for, and where."""
    (folder / "myapp.py").write_text(CHAT)
    with pytest.raises(SettingsError, match=re.escape(words)):
        load_chat(path)


def test_a_chat_is_found_in_the_current_folder(folder: Path):
    """In a module or a package, as a name of it or a part of one."""
    (folder / "myapp.py").write_text(CHAT)
    (folder / "pack").mkdir()
    (folder / "pack/my-chat.py").write_text(CHAT)
    for path in ("myapp:chat", "myapp:Parts.inner", "pack.my-chat:chat"):
        assert isinstance(load_chat(path), Chat)


@pytest.mark.parametrize(
    ("source", "last"),
    [
        ("def f():\n    raise ZeroDivisionError('mine')\nf()\n", "ZeroDivisionError: mine"),
        ("import myapp_that_is_not_there\n", "ModuleNotFoundError: No module named 'myapp_that_is_not_there'"),
        ("def f(:\n", "SyntaxError: invalid syntax"),
        ("raise ImportError('mine')\n", "ImportError: mine"),
    ],
)
def test_a_module_that_raises_is_shown_with_its_own_traceback(folder: Path, source: str, last: str):
    """From the module on, and nothing of Hubbub's insides above it."""
    (folder / "myapp.py").write_text(source)
    with pytest.raises(CannotStart) as refused:
        load_chat("myapp:chat")
    first, *trace = str(refused.value).splitlines()
    assert first == "app: the module 'myapp' cannot be imported"
    assert trace[-1] == last
    assert set(re.findall(r'File "(.+?)"', str(refused.value))) == {str(folder / "myapp.py")}


def test_every_address_of_a_host_is_bound_to_the_same_port():
    """A free one, if none is asked for; `::` leaves IPv4's addresses alone."""
    sockets = bind("localhost", 0)
    assert len({each.getsockname()[1] for each in sockets}) == 1
    for each in sockets:
        each.close()


def test_an_address_that_this_machine_does_not_have_is_left_out(monkeypatch: pytest.MonkeyPatch):
    """Where there is no IPv6, localhost is 127.0.0.1 alone, whichever comes first, and the port is kept."""
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    (bound,) = bind("localhost", 0)
    assert bound.getsockname()[0] == "127.0.0.1"
    bound.close()
    found.pop(1)
    with pytest.raises(CannotStart, match="Cannot listen on"):
        bind("localhost", 0)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRINUSE, "The port 80 on 127.0.0.1 is in use; choose another with --port"),
        (errno.EACCES, "The port 80 needs more rights than this process has; choose one above 1023"),
        (errno.EMFILE, "Cannot listen on 127.0.0.1, port 80: Too many open files."),
    ],
)
def test_why_an_address_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch, number: int, words: str):
    """And nothing stays bound."""
    made: list[socket.socket] = []

    class Unwilling(socket.socket):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

        def bind(self, address: Any) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", Unwilling)
    with pytest.raises(CannotStart, match=re.escape(words)):
        bind("127.0.0.1", 80)
    assert [each.fileno() for each in made] == [-1]


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "no host", ""])
def test_a_host_without_an_address_is_named(host: str):
    """Also if it cannot be a host's name at all; nothing at all is not everything."""
    with pytest.raises(CannotStart, match=f"There is no address for the host {host!r}"):
        bind(host, 0)


def test_workers_without_what_they_share_are_refused_with_what_to_set():
    """Status 2, before anything is opened or bound."""
    run = CliRunner().invoke(app, ["serve", "--dev", "--workers", "4"])
    assert run.exit_code == 2
    for word in ("hubbub: workers: expected 1", "HUBBUB_STORE", "HUBBUB_FANOUT", "docs/how-to/workers.md"):
        assert word in run.stderr
