"""TLS and credentials, on real servers: who has none is not let in, and tells his password to nobody."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from contextlib import AsyncExitStack
from pathlib import Path

import nkeys
import pytest
import trustme
from scripts.servers import Nats, free_port

from hubbub.errors import Unavailable
from hubbub.model import RoomId
from live import until
from natslab import Nodes, frame

ROOM = RoomId("room")


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> dict[str, Path]:
    """Files: the authority, the server's certificate and key, the client's."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    server, client = ca.issue_cert("127.0.0.1", "nats.test"), ca.issue_cert("node@hubbub.test")
    files = {name: folder / name for name in ("ca", "server_cert", "server_key", "cert", "key")}
    ca.cert_pem.write_to_path(files["ca"])
    server.cert_chain_pems[0].write_to_path(files["server_cert"])
    server.private_key_pem.write_to_path(files["server_key"])
    client.cert_chain_pems[0].write_to_path(files["cert"])
    client.private_key_pem.write_to_path(files["key"])
    return files


async def test_nodes_meet_over_tls_with_a_password(authority, stack):
    """The server asks for a certificate too."""
    arguments = ["--tls", "--tlscert", str(authority["server_cert"]), "--tlskey", str(authority["server_key"])]
    arguments += ["--tlsverify", "--tlscacert", str(authority["ca"]), "--user", "chat", "--pass", "p@ss/word"]
    with Nats(arguments=arguments) as server:
        url = f"tls://chat:p%40ss%2Fword@127.0.0.1:{server.port}"
        files = {"tls_ca": authority["ca"], "tls_cert": authority["cert"], "tls_key": authority["key"]}
        nodes = Nodes(url, stack, **files)
        one, two = await nodes.several(2)
        heard = await two.connect("bob", "b", ROOM)
        await one.write(ROOM)
        await until(lambda: heard == [frame(ROOM, 1)], "the entry")
        server.restart()
        await until(lambda: bool(one.fanout.stats.reconnects and two.fanout.stats.reconnects), "the connections")
        await one.write(ROOM)
        await until(lambda: heard == [frame(ROOM, 1), frame(ROOM, 2)], "the next entry")
        for wrong in (
            f"tls://chat:wrong@127.0.0.1:{server.port}",  # no password
            f"tls://127.0.0.1:{server.port}",  # none at all
        ):
            said: list[str] = []
            while len(said) < 5 and not any("authorization" in each.lower() for each in said):
                with pytest.raises(Unavailable) as refused:  # a server may hang up before its reason is read
                    await _refused(wrong, connect_s=2, **files)
                said.append(str(refused.value))
            assert "authorization" in said[-1].lower(), said
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            await _refused(url, connect_s=2)  # who does not know the authority


async def _refused(url: str, **parameters: object) -> None:
    async with AsyncExitStack() as stack:
        await Nodes(url, stack, **parameters).add()


async def test_a_password_is_told_to_no_server_without_tls_where_tls_was_asked_for():
    """One that says it has none hears nothing from us but our leaving."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b'INFO {"server_id":"X","version":"2.15.0","auth_required":true,"max_payload":1048576}\r\n')
            heard.append(await reader.read(10_000))
        finally:
            writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        with pytest.raises(Unavailable, match="does not speak TLS"):
            await _refused(f"tls://chat:hunter2@127.0.0.1:{port}", connect_s=1)
    assert heard and not any(heard)


async def test_a_token_lets_in(stack):
    """Instead of user and password."""
    with Nats(arguments=["--auth", "s3cret"]) as server:
        one, _ = await Nodes(f"nats://s3cret@127.0.0.1:{server.port}", stack).several(2)
        assert one.fanout.stats.connected
        assert "s3cret" not in repr(one.fanout)


# Keys, as `nk` and `nsc` make them


def _key(kind: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(secrets.token_bytes(32), kind))


def _public(key: nkeys.KeyPair) -> str:
    return bytes(key.public_key).decode()


def _signed(by: nkeys.KeyPair, of: nkeys.KeyPair, **claims: object) -> str:
    """A JWT of NATS's: what an operator says of an account, or an account of a user."""
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    body = {"jti": secrets.token_hex(8), "iat": 1, "iss": _public(by), "sub": _public(of), "name": "chat"}
    parts = [header, {**body, "nats": {"version": 2, **claims}}]
    text = ".".join(_base64(json.dumps(part).encode()) for part in parts)
    return f"{text}.{_base64(by.sign(text.encode()))}"


def _base64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


async def _meet(server: Nats, stack: AsyncExitStack, **parameters: object) -> None:
    """Two nodes that are let in by these parameters tell each other what is said, also after a new connection."""
    one, two = await Nodes(server.url, stack, **parameters).several(2)
    heard = await two.connect("bob", "b", ROOM)
    await one.write(ROOM)
    await until(lambda: heard == [frame(ROOM, 1)], "the entry")
    server.restart()
    await until(lambda: bool(one.fanout.stats.reconnects and two.fanout.stats.reconnects), "the connections")
    await one.write(ROOM)
    await until(lambda: heard == [frame(ROOM, 1), frame(ROOM, 2)], "the next entry")


async def test_a_seed_lets_in(stack, tmp_path):
    """A file with it, whose public half the server knows; another seed does not."""
    known, stranger = _key(nkeys.PREFIX_BYTE_USER), _key(nkeys.PREFIX_BYTE_USER)
    files = {name: tmp_path / f"{name}.nk" for name in ("known", "stranger", "rubbish")}
    files["known"].write_bytes(bytes(known.seed))
    files["stranger"].write_bytes(bytes(stranger.seed))
    files["rubbish"].write_text("no seed at all")
    settings = tmp_path / "server.conf"
    settings.write_text(f"authorization {{ users = [ {{ nkey: {_public(known)} }} ] }}")
    with Nats(arguments=["-c", str(settings)]) as server:
        await _meet(server, stack, nkey=files["known"])
        for wrong in ({"nkey": files["stranger"]}, {"nkey": files["rubbish"]}, {}):
            with pytest.raises(Unavailable) as refused:
                await _refused(server.url, connect_s=1, **wrong)
            assert bytes(stranger.seed).decode() not in str(refused.value)
            assert "no seed at all" not in str(refused.value)


async def test_credentials_let_in(stack, tmp_path):
    """A file as `nsc` makes it, for a user who may use the chat's subjects and no others."""
    operator, account = _key(nkeys.PREFIX_BYTE_OPERATOR), _key(nkeys.PREFIX_BYTE_ACCOUNT)
    user = _key(nkeys.PREFIX_BYTE_USER)
    free = {"subs": -1, "data": -1, "payload": -1}
    limits = {**free, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    ours = {"allow": ["hubbub.>"]}
    settings, creds = tmp_path / "server.conf", tmp_path / "chat.creds"
    settings.write_text(
        f"operator: {_signed(operator, operator, type='operator')}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {_public(account)}: {_signed(operator, account, type='account', limits=limits)} }}\n"
    )
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{_signed(account, user, type='user', pub=ours, sub=ours, **free)}\n"
        "------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{bytes(user.seed).decode()}\n------END USER NKEY SEED------\n"
    )
    with Nats(arguments=["-c", str(settings)]) as server:
        await _meet(server, stack, creds=creds, prefix="hubbub")
        with pytest.raises(Unavailable, match=r"(?i)authorization"):
            await _refused(server.url, connect_s=1)
