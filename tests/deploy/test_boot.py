"""The built archive under `hubbub local --quotas aws`: whatever is chosen, two clients talk.

The templates as they are by default run through everything in tests/homes; here are their other choices.
"""

from __future__ import annotations

import sys
from pathlib import Path

import boto3
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from dynamolab import KEYS, REGION, running
from homelab import Stack, entry, fresh, stack, staged
from live import BOUND_S, SECRET


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of deploy/ with an archive for this machine."""
    return staged(tmp_path_factory.mktemp("staged"))


@pytest.mark.parametrize(
    ("file", "parameters"),
    [
        ("sam/template.yaml", {}),
        ("sam/template.yaml", {"Transport": "queue"}),
        ("sam/template.yaml", {"Transport": "fifo"}),
        ("sam/function-per-route.yaml", {}),
        ("serverless/serverless.yml", {}),
        ("serverless/serverless.yml", {"Functions": "each", "Transport": "queue"}),
    ],
    ids=["sam", "sam-queue", "sam-fifo", "sam-each", "serverless", "serverless-each-queue"],
)
async def test_two_clients_talk(deploy: Path, file: str, parameters: dict[str, str], tmp_path: Path) -> None:
    """What one says in a room that the backend has made, the other hears, by way of the broadcaster."""
    with stack(fresh("boot"), deploy / file, tmp_path, tables="moto", **parameters) as home:
        room = fresh("room")
        async with home.backend() as backend, await home.connect("ann") as ann, await home.connect("bob") as bob:
            members = [{"user": "ann"}, {"user": "bob"}]
            made = await backend.post("/v1/rooms", json={"kind": "private", "room": room, "members": members})
            assert made.is_success, made.text
            await ann.ok("sync")
            await bob.ok("sync")
            sent = await ann.ok("send", room=room, text="hello")
            heard = await entry(bob, room, sent["seq"])
            assert heard["text"] == "hello"


class WithOwnSecret(Stack):
    """A stack whose secret is not its own, but the tests'."""

    def _secret(self) -> str:
        return SECRET


async def test_a_secret_in_the_parameter_store_signs_tokens(deploy: Path, tmp_path: Path) -> None:
    """With SecretParameter no secret is made, and tokens of the parameter's secret come in, wherever they are."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    given = {"PythonVersion": version, "Architecture": "x86_64", "SecretParameter": "/chat/secret"}
    with running("moto") as moto:
        session = boto3.session.Session(KEYS.access_key, KEYS.secret_key, region_name=REGION)
        ssm = session.client("ssm", endpoint_url=moto.url)
        ssm.put_parameter(Name="/chat/secret", Value=SECRET, Type="SecureString")
        home = WithOwnSecret(
            fresh("boot"), deploy / "sam/template.yaml", tmp_path, endpoints={"*": moto.url}, parameters=given
        )
        home.start()
        try:
            assert session.client("secretsmanager", endpoint_url=moto.url).list_secrets()["SecretList"] == []
            token = home.token("ann")
            async with await home.connect("ann") as wire:  # in the subprotocol
                await wire.ok("ping")
            for url, headers in (
                (f"{home.ws_url}?token={token}", {}),
                (home.ws_url, {"Authorization": f"Bearer {token}"}),
            ):
                async with connect(url, additional_headers=headers, proxy=None, open_timeout=BOUND_S):
                    pass
            with pytest.raises(InvalidStatus) as refused:
                async with connect(home.ws_url, proxy=None, open_timeout=BOUND_S):
                    pass
            assert refused.value.response.status_code == 401
        finally:
            home.stop()
