"""The command line as a newcomer meets it: what is shown, what is refused and how, and how it ends."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest

import hubbub as package
from hubbub.config import SETTINGS
from live import SECRET, ServerProcess, Wire, backend, token
from terminal import CTRL_C, Terminal, hubbub
from tokens import private_key, public_pem

NO_RIGHTS = ("setpriv", "--bounding-set=-net_bind_service,-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
"""What takes from root the rights that other users do not have."""


def complaint(run: object, status: int) -> str:
    """What a refused command said: one message on standard error and nothing else, with that exit status."""
    assert run.returncode == status, run  # type: ignore[attr-defined]
    assert run.stdout == ""  # type: ignore[attr-defined]
    said: str = run.stderr  # type: ignore[attr-defined]
    assert said.startswith("hubbub: ")
    assert said.count("hubbub: ") == 1
    assert "Traceback" not in said
    return said.removeprefix("hubbub: ")


# Help


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_command_alone_shows_what_there_is(tmp_path: Path, arguments: tuple[str, ...]):
    """Every command with a sentence, and the one to begin with."""
    shown = hubbub(tmp_path, *arguments)
    assert shown.stderr == ""
    assert "Try it: hubbub serve --dev" in shown.stdout
    for command in ("serve", "token", "doctor", "version"):
        assert re.search(rf"│ {command} +[A-Z]", shown.stdout), command
    assert shown.returncode == (0 if arguments else 2)


@pytest.mark.parametrize("command", ["serve", "doctor"])
@pytest.mark.parametrize("columns", [80, 200])
def test_the_help_has_every_setting(tmp_path: Path, command: str, columns: int):
    """Each flag, grouped, with its value, its sentence and its default; no line is too long, nothing is coloured."""
    shown = hubbub(tmp_path, command, "--help", COLUMNS=str(columns))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert max(map(len, shown.stdout.splitlines())) <= columns
    assert "\x1b" not in shown.stdout
    words = re.sub(r"[│\s]+", " ", shown.stdout)
    for name, about in SETTINGS.items():
        assert about.panel in words
        if name != "app":
            assert f"--{name.replace('_', '-')} " in words, name
        if columns == 200:
            assert about.help in words, name
    assert "[default: 8000]" in words
    assert "MODULE:CHAT" in words
    assert "hubbub.toml" in words


@pytest.mark.parametrize("columns", ["1", "20"])
def test_odd_terminal_widths_break_nothing(tmp_path: Path, columns: str):
    """The help is shown somehow."""
    shown = hubbub(tmp_path, "serve", "--help", COLUMNS=columns)
    assert (shown.returncode, shown.stderr) == (0, "")


def test_help_of_token_shows_how(tmp_path: Path):
    """With examples that can be copied."""
    shown = hubbub(tmp_path, "token", "--help")
    assert "hubbub token --user alice --room general=owner" in shown.stdout
    assert "hubbub token --user backend --scope server --ttl 30d" in shown.stdout


def test_the_version_is_told(tmp_path: Path):
    """As a command and as a flag."""
    for arguments in (["version"], ["--version"]):
        shown = hubbub(tmp_path, *arguments)
        assert (shown.returncode, shown.stdout) == (0, f"hubbub {package.__version__}\n")


def test_the_module_is_the_command(tmp_path: Path):
    """`python -m hubbub` works where the command is not on the path."""
    shown = subprocess.run([sys.executable, "-m", "hubbub", "version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"hubbub {package.__version__}\n"


# Asked for wrongly: status 2


def test_without_a_key_it_refuses_to_start(tmp_path: Path):
    """And says what to set; nothing is made on the way."""
    said = complaint(hubbub(tmp_path, "serve"), 2)
    for word in ("HUBBUB_SECRET", "HUBBUB_PUBLIC_KEYS", "HUBBUB_JWKS_URL", "hubbub serve --dev"):
        assert word in said
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_setting_names_itself(tmp_path: Path):
    """As a flag, a variable and a key of the file."""
    shown = hubbub(tmp_path, "serve", "--prot", "1")
    assert shown.returncode == 2
    assert "No such option: --prot" in shown.stderr
    assert "HUBBUB_PROT; did you mean HUBBUB_PORT?" in complaint(hubbub(tmp_path, "serve", HUBBUB_PROT="1"), 2)
    (tmp_path / "hubbub.toml").write_text("prot = 1")
    for command in (["serve"], ["doctor"], ["token", "--user", "alice"]):
        assert "the file hubbub.toml; did you mean port?" in complaint(hubbub(tmp_path, *command), 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "http"], "port: expected a whole number from 0 to 65535, got 'http', in the flag --port"),
        (["--secret", "short"], "secret: expected at least 32 bytes, got 5; `openssl rand -hex 32` makes a good one"),
        (["--dev", "--data", "file"], "data: cannot keep a development secret in file: "),
    ],
)
def test_an_impossible_setting_names_itself(tmp_path: Path, arguments: list[str], words: str):
    """With what was expected and what came."""
    (tmp_path / "file").write_text("")
    assert words in complaint(hubbub(tmp_path, "serve", *arguments), 2)


# Cannot be done: status 1


def test_a_port_in_use_is_said(tmp_path: Path):
    """With the flag that chooses another; what was there is not disturbed."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = complaint(hubbub(tmp_path, "serve", "--dev", "--port", str(port)), 1)
        assert said == f"The port {port} on 127.0.0.1 is in use; choose another with --port, or stop what uses it.\n"
        admin = ["--port", "0", "--admin-port", str(port)]
        assert f"The port {port} on 127.0.0.1 is in use" in complaint(hubbub(tmp_path, "serve", "--dev", *admin), 1)


def test_a_port_that_needs_more_rights_is_said(tmp_path: Path):
    """With the ports that need none."""
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first == 0:
        pytest.skip("this machine gives every port to everybody")
    said = complaint(hubbub(tmp_path, "serve", "--dev", "--port", str(first - 1), before=NO_RIGHTS), 1)
    assert said == f"The port {first - 1} needs more rights than this process has; choose one above 1023 with --port.\n"


@pytest.mark.parametrize("host", ["a..b", "192.0.2.1"])
def test_a_host_that_is_not_here_is_said(tmp_path: Path, host: str):
    """Neither a name without an address nor somebody else's address is listened on."""
    assert host in complaint(hubbub(tmp_path, "serve", "--dev", "--port", "0", "--host", host), 1)


@pytest.mark.parametrize("kind", ["folder", "rubbish", "unreadable"])
def test_a_store_that_cannot_be_opened_is_said(tmp_path: Path, kind: str):
    """With its path."""
    store = tmp_path / "log.db"
    if kind == "folder":
        store.mkdir()
    else:
        store.write_bytes(b"rubbish" * 1_000)
        store.chmod(0o000 if kind == "unreadable" else 0o644)
    serve = ["serve", "--dev", "--port", "0", "--store", f"sqlite:///{store}"]
    assert "log.db" in complaint(hubbub(tmp_path, *serve, before=NO_RIGHTS), 1)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path):
    """For the secret of `--dev` and for the log, each with the folder's name."""
    tmp_path.chmod(0o555)
    try:
        serve = ["serve", "--port", "0"]
        said = complaint(hubbub(tmp_path, *serve, "--dev", before=NO_RIGHTS), 2)
        assert said == "data: cannot keep a development secret in hubbub-data: Permission denied\n"
        said = complaint(hubbub(tmp_path, *serve, before=NO_RIGHTS, HUBBUB_SECRET=SECRET), 1)
        assert said == "store: cannot make the folder hubbub-data: Permission denied\n"
        found = hubbub(tmp_path, "doctor", before=NO_RIGHTS, HUBBUB_SECRET=SECRET)
        assert re.search(r"fail  data folder  .* cannot be written: change its owner", found.stdout), found
        assert found.returncode == 1
    finally:
        tmp_path.chmod(0o755)


# Tokens


@pytest.fixture
async def dev(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """`hubbub serve --dev` in a folder of its own."""
    process = ServerProcess(tmp_path, "--dev", HUBBUB_SECRET="", HUBBUB_DATA="hubbub-data")
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


async def test_a_token_for_a_development_server(dev: ServerProcess):
    """In the server's folder the command finds its secret; the last line is a token that the server believes."""
    shown = hubbub(
        dev.folder, "token", "--user", "alice", "--name", "Alice", "--room", "tea=owner", "--room", "general"
    )
    assert shown.returncode == 0
    *_, token = shown.stdout.splitlines()
    assert shown.stdout == f"{token}\n"
    assert shown.stderr == "A token for alice, good for 1h:\n"
    async with await Wire.open(dev.ws_url, token) as wire:
        synced = await wire.ok("sync")
        assert synced["user"] == "alice"
        assert {room["room"]: room["role"] for room in synced["rooms"]} == {
            "general": "member",
            "tea": "owner",
        }
    async with backend(dev.url) as http:
        http.headers["Authorization"] = f"Bearer {token}"
        assert (await http.get("/v1/rooms")).status_code == 403
        token = hubbub(dev.folder, "token", "--user", "b", "--scope", "server", "--ttl", "30d").stdout.splitlines()[-1]
        http.headers["Authorization"] = f"Bearer {token}"
        assert (await http.get("/v1/rooms")).status_code == 200


async def test_a_second_server_in_the_same_folder_is_refused(dev: ServerProcess):
    """One Hubbub at a time has the log; it is said which process does, and the doctor says the same."""
    said = complaint(hubbub(dev.folder, "serve", "--dev", "--port", "0"), 1)
    assert f"hubbub.db is in use by process {dev.process.pid}" in said
    port = dev.url.rpartition(":")[2]
    found = hubbub(dev.folder, "doctor", "--dev", "--port", port)
    assert found.returncode == 0, found
    assert f"warn  port         a Hubbub runs on 127.0.0.1:{port} already" in found.stdout
    assert f"in use by process {dev.process.pid}" in found.stdout


def test_without_a_secret_there_is_no_token(tmp_path: Path):
    """It is said where one could come from."""
    said = complaint(hubbub(tmp_path, "token", "--user", "alice"), 2)
    assert "no development secret in hubbub-data" in said
    assert "hubbub serve --dev" in said
    assert "HUBBUB_SECRET" in said
    (tmp_path / "key.pem").write_text(public_pem(private_key("ES256")))
    said = complaint(hubbub(tmp_path, "token", "--user", "alice", HUBBUB_PUBLIC_KEYS="key.pem"), 2)
    assert "whoever has the private key issues the tokens" in said
    assert list(tmp_path.iterdir()) == [tmp_path / "key.pem"]


# A chat of one's own


CHAT = """
import asyncio
import logging

from hubbub import Ask, Chat, Done, errors

chat = Chat()
asyncio.run(asyncio.sleep(0))  # what somebody does when his module is imported is his


class Break(Ask):
    room: str


@chat.action("break")
async def break_it(chat, by, ask: Break) -> Done:
    raise ZeroDivisionError("on purpose")


@chat.action("stay")
async def stay(chat, by, ask: Break) -> Done:
    await asyncio.sleep(600)
    return Done()


@chat.before("typing")
async def no_typing(chat, by, ask):
    raise errors.Forbidden("Not today.")


class Parts:
    inner = chat


def function():
    return chat
"""


def test_a_chat_that_is_not_there_is_named(tmp_path: Path):
    """The installed command looks in the current folder."""
    (tmp_path / "myapp.py").write_text(CHAT)
    serve = ["serve", "--dev", "--port", "0"]
    assert "app: there is no module 'noapp' in " in complaint(hubbub(tmp_path, *serve, "noapp:chat"), 2)
    assert "has no 'caht'; there is myapp:chat" in complaint(hubbub(tmp_path, *serve, "myapp:caht"), 2)


def test_a_module_that_raises_shows_its_own_traceback(tmp_path: Path):
    """From the module on, and nothing of Hubbub's insides above it; the doctor shows the same."""
    (tmp_path / "myapp.py").write_text("from inner import x\n")
    (tmp_path / "inner.py").write_text("1 / 0\n")
    shown = hubbub(tmp_path, "serve", "--dev", "--port", "0", "myapp:chat")
    assert shown.returncode == 1
    first, *trace = shown.stderr.splitlines()
    assert first == "hubbub: app: the module 'myapp' cannot be imported"
    files = re.findall(r'File "(.+?)"', shown.stderr)
    assert files == [str(tmp_path / "myapp.py"), str(tmp_path / "inner.py")]
    assert trace[-1] == "ZeroDivisionError: division by zero"
    found = hubbub(tmp_path, "doctor", "--dev", "--port", "0", "myapp:chat")
    assert found.returncode == 1
    assert "fail  app          the module 'myapp' cannot be imported" in found.stdout


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server with the chat above, at debug level."""
    (tmp_path / "myapp.py").write_text(CHAT)
    process = ServerProcess(tmp_path, "myapp:Parts.inner", "--log-level", "debug")
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


def lines(process: ServerProcess) -> list[dict[str, object]]:
    """The log, each line parsed; the announcement is no part of it."""
    said = process.output.read_text("utf-8").splitlines()
    return [json.loads(line) for line in said if not line.startswith("Hubbub ")]


async def test_a_line_about_a_message_says_whose_and_which(own: ServerProcess):
    """Refused and failed actions are logged with the ids of the connection and the request, as JSON lines."""
    async with await Wire.open(own.ws_url, token("alice")) as wire:
        connection = (await wire.ok("sync"))["connection_id"]
        assert (await wire.ask("break", room="tea"))["code"] == "internal"
        assert (await wire.ask("send", room="nowhere", text="hello"))["code"] == "not_found"
        assert (await wire.ask("no such action\n{}"))["code"] == "unknown_action"
        await wire.ok("create", kind="public", room="tea")
        assert (await wire.ask("typing", room="tea", on=True))["code"] == "forbidden"
        await wire.socket.send("no JSON")
        assert (await wire.receive())["code"] == "bad_request"
    log = lines(own)
    about = [line for line in log if line["logger"] == "hubbub.chat"]
    assert [line["level"] for line in about] == ["error", "info", "info", "info", "info", "info"]
    assert {line["connection_id"] for line in about} == {connection}
    assert len({line["request_id"] for line in about}) == 5
    failed = about[0]
    assert failed["message"] == "action break failed"
    assert str(failed["exception"]).endswith("ZeroDivisionError: on purpose")
    assert (about[1]["request_id"], about[1]["message"]) == (failed["request_id"], "break refused: internal")


async def test_the_log_has_no_tokens_and_no_texts(own: ServerProcess):
    """At debug level, whatever is done with them: good and bad tokens in all three places, texts sent and refused."""
    secret_text = "the words that nobody else may read"
    good, bad = token("alice"), token("mallory", audience="x")[:-6] + "AAAAAA"
    async with await Wire.open(own.ws_url, good) as wire:
        await wire.ok("create", kind="public", room="tea")
        sent = await wire.ok("send", room="tea", text=secret_text, data={"note": secret_text})
        await wire.ok("edit", room="tea", target=sent["seq"], text=secret_text + "!")
        await wire.ok("auth", token=token("alice", name="A"))
        await wire.ask("send", room="nowhere", text=secret_text)
        await wire.ask("send", room="tea", text=secret_text * 400)
        await wire.ask("auth", token=bad)
        await wire.ask("break", room="tea", text=secret_text)
        await wire.socket.send(f'{{"action": "send", "text": "{secret_text}')
    async with backend(own.url) as http:
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        for each in (good, bad):
            http.headers["Authorization"] = f"Bearer {each}"
            assert (await http.get("/v1/rooms")).status_code in (401, 403)
        assert (await http.get("/ws", headers=upgrade)).status_code == 401
        del http.headers["Authorization"]
        assert (await http.get(f"/ws?token={bad}", headers=upgrade)).status_code == 401
        upgrade["Sec-WebSocket-Protocol"] = f"hubbub.v1, jwt.{bad}"
        assert (await http.get("/ws", headers=upgrade)).status_code == 401
        http.headers["Authorization"] = f"Bearer {token('backend', scopes=('server',))}"
        posted = await http.post("/v1/rooms/tea/messages", json={"text": secret_text})
        assert posted.status_code < 300
        assert (await http.post("/v1/rooms/none/messages", json={"text": secret_text})).status_code == 404
    own.signal(15)
    assert await own.ended() == 0
    said = own.output.read_text("utf-8")
    assert len(lines(own)) > 5
    assert "eyJ" not in said
    assert bad.rpartition(".")[2] not in said
    assert "nobody else may read" not in said
    assert SECRET not in said


async def test_development_beyond_this_machine_is_warned_of(tmp_path: Path):
    """`--dev` on all addresses starts, says in the log what that means, and gives no tokens to other machines."""
    for host, warned in (("0.0.0.0", True), ("127.0.0.1", False)):
        process = ServerProcess(tmp_path, "--dev", "--host", host)
        try:
            await process.start()
            warnings = [line["message"] for line in lines_of_dev(process) if line["level"] == "warning"]
            assert [message.startswith("--dev on 0.0.0.0: other machines can connect") for message in warnings] == (
                [True] if warned else []
            )
        finally:
            await process.stop()


def lines_of_dev(process: ServerProcess) -> list[dict[str, str]]:
    said = process.output.read_text("utf-8").splitlines()
    return [json.loads(line) for line in said if line.startswith("{")]


# On a terminal


def served(terminal: Terminal) -> int:
    """Wait for the announcement; returns the port."""
    return int(terminal.until(r"is running: http://127\.0\.0\.1:(\d+)\n"))


def test_ctrl_c_ends_it_cleanly(tmp_path: Path):
    """On a terminal, with a readable line and status 0; started again, it ends as cleanly again."""
    for _ in range(2):
        with Terminal(tmp_path, "serve", "--dev", "--port", "0") as terminal:
            served(terminal)
            terminal.until("hubbub token --user alice\n")
            terminal.type(CTRL_C)
            assert terminal.ends() == 0
            assert re.search(r"\d\d:\d\d:\d\d info    SIGINT: draining", terminal.text)
            assert "Traceback" not in terminal.text
            assert "{" not in terminal.text


def test_the_announcement_says_where_the_token_is_when_that_is_elsewhere(tmp_path: Path):
    """The command that it shows works as it stands."""
    with Terminal(tmp_path, "serve", "--dev", "--port", "0", "--data", "my data") as terminal:
        served(terminal)
        command = terminal.until(r"A token for your own client: (.* token --user alice --data 'my data')\n")
        assert subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True).stdout
        terminal.type(CTRL_C)
        assert terminal.ends() == 0


HANDSHAKE = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


def test_ctrl_c_ends_it_cleanly_while_half_a_handshake_is_there(tmp_path: Path):
    """A client whose request has not arrived holds nothing up."""
    with Terminal(tmp_path, "serve", "--dev", "--port", "0") as terminal:
        with socket.create_connection(("127.0.0.1", served(terminal))) as client:
            client.sendall(HANDSHAKE)
            terminal.type(CTRL_C)
            assert terminal.ends() == 0
        assert "Traceback" not in terminal.text


def test_ctrl_c_ends_it_cleanly_while_a_token_is_looked_at(tmp_path: Path):
    """The handshake gets its answer, and then it ends."""
    made = jwt.encode({"sub": "a", "exp": 2**33}, private_key("ES256"), "ES256").encode()
    rest = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer " + made + b"\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as keys:
        address = f"http://127.0.0.1:{keys.getsockname()[1]}/jwks.json"
        environ = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        with Terminal(tmp_path, "serve", "--port", "0", "--jwks-url", address, **environ) as terminal:
            with socket.create_connection(("127.0.0.1", served(terminal)), timeout=30) as client:
                client.sendall(HANDSHAKE + rest)
                keys.settimeout(30)
                asked, _ = keys.accept()
                with asked:
                    terminal.type(CTRL_C)
                    terminal.until("SIGINT: draining")
                    asked.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"keys": []}')
                assert client.recv(12) == b"HTTP/1.1 401"
            assert terminal.ends() == 0
            assert "Traceback" not in terminal.text


async def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path):
    """Whatever is still under way; the status says by which signal."""
    (tmp_path / "myapp.py").write_text(CHAT)
    with Terminal(tmp_path, "serve", "--port", "0", "myapp:chat", HUBBUB_SECRET=SECRET) as terminal:
        port = served(terminal)
        async with await Wire.open(f"ws://127.0.0.1:{port}/ws", token("alice")) as wire:
            await wire.ok("sync")
            await wire.socket.send('{"action": "stay", "room": "tea"}')
            await wire.ok("ping")
            terminal.type(CTRL_C)
            terminal.until("SIGINT: draining")
            terminal.type(CTRL_C)
            assert terminal.ends() == 130
            assert "SIGINT again: ending at once" in terminal.text
            assert "Traceback" not in terminal.text


def test_ctrl_c_interrupts_a_module_that_does_not_end(tmp_path: Path):
    """Before the server runs, Ctrl-C is what it always is."""
    (tmp_path / "myapp.py").write_text("import time\nprint('importing')\ntime.sleep(600)\n")
    with Terminal(tmp_path, "serve", "--dev", "--port", "0", "myapp:chat") as terminal:
        terminal.until("importing")
        terminal.type(CTRL_C)
        assert terminal.ends() == 130


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_complaints_are_coloured_on_a_terminal_only_where_colours_are_welcome(
    tmp_path: Path, variables: dict[str, str], coloured: bool
):
    """NO_COLOR is respected."""
    with Terminal(tmp_path, "serve", **variables) as terminal:
        assert terminal.ends() == 2
        assert ("\x1b[31m" in terminal.shown) is coloured
        assert "HUBBUB_SECRET" in terminal.text


@pytest.mark.parametrize("columns", [20, 80])
def test_the_doctor_is_readable_on_a_terminal(tmp_path: Path, columns: int):
    """One finding a line, each with its state, whatever the width; without colours where none are wanted."""
    with Terminal(tmp_path, "doctor", "--dev", "--port", "0", columns=columns) as terminal:
        assert terminal.ends() == 0
        assert "\x1b[32m" in terminal.shown
        found = [line.split()[0] for line in terminal.text.splitlines()]
        assert set(found) <= {"ok", "warn"}
        assert len(found) == 8
    with Terminal(tmp_path, "doctor", "--dev", "--port", "0", NO_COLOR="1") as terminal:
        assert terminal.ends() == 0
        assert "\x1b[" not in terminal.shown


def test_a_token_can_be_taken_from_a_terminals_last_line(tmp_path: Path):
    """There the words before it are seen, and it is a line of its own."""
    with Terminal(tmp_path, "token", "--user", "alice", HUBBUB_SECRET=SECRET) as terminal:
        assert terminal.ends() == 0
        words, token = terminal.text.splitlines()
        assert words == "A token for alice, good for 1h:"
        assert token.count(".") == 2


async def test_a_server_takes_as_many_open_files_as_it_may_have(tmp_path: Path):
    """The soft limit that a shell sets does not bound the connections; the hard one does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    server = ServerProcess(tmp_path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        await server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        await server.stop()
