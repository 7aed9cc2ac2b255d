"""Where credentials come from."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from endpoint import Endpoint, response
from hubbub.aws.credentials import FRESH_S, RENEWED_S, Botocore, Container, Fixed, NoCredentials, find
from hubbub.sigv4 import Credentials


async def test_the_environment_goes_first() -> None:
    """Keys in the environment are taken, with the token if there is one."""
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert await find(keys).get() == Credentials("AKID", "secret")
    assert await find({**keys, "AWS_SESSION_TOKEN": ""}).get() == Credentials("AKID", "secret")
    assert await find({**keys, "AWS_SESSION_TOKEN": "t"}).get() == Credentials("AKID", "secret", "t")
    assert "secret" not in repr(find(keys))


# Containers

NOW_S = 1_700_000_000.0


def given_out(key: str, *, for_s: float) -> bytes:
    """An answer with credentials that hold that long from `NOW_S` on."""
    ends = datetime.fromtimestamp(NOW_S + for_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {"AccessKeyId": key, "SecretAccessKey": "secret", "Token": "t", "Expiration": ends, "RoleArn": "arn:x"}
    return response(200, json.dumps(document))


async def test_a_container_gives_out_credentials(endpoint: Endpoint, tmp_path: Path) -> None:
    """They are asked for at the address in the environment, with the token that is there or in a file."""
    endpoint.answer = lambda call: given_out("AKID", for_s=1e9)
    secret = tmp_path / "token"
    secret.write_text("from a file\n")
    url = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint.url}
    for variables, sent in (
        ({}, None),
        ({"AWS_CONTAINER_AUTHORIZATION_TOKEN": "token"}, "token"),
        ({"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(secret)}, "from a file"),
    ):
        assert await find({**url, **variables}).get() == Credentials("AKID", "secret", "t")
        assert endpoint.calls[-1].headers.get("authorization") == sent
    missing = {**url, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "missing")}
    with pytest.raises(NoCredentials, match=r"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: .*missing"):
        await find(missing).get()


async def test_a_containers_credentials_are_asked_for_once_and_renewed_in_time(endpoint: Endpoint) -> None:
    """However many ask, the address is asked once, and again minutes before the credentials end."""
    endpoint.answer = lambda call: given_out(f"AKID{len(endpoint.calls)}", for_s=3_600 * len(endpoint.calls))
    now_s = NOW_S
    container = Container(endpoint.url, now_s=lambda: now_s)
    assert {found.access_key for found in await asyncio.gather(*[container.get() for _ in range(9)])} == {"AKID1"}
    now_s = NOW_S + 3_600 - RENEWED_S - 1
    first = await container.get()
    assert first.access_key == "AKID1"
    assert await container.get() is first
    now_s += 1
    assert {found.access_key for found in await asyncio.gather(*[container.get() for _ in range(9)])} == {"AKID2"}
    assert len(endpoint.calls) == 2
    assert "secret" not in repr(container)


async def test_a_container_that_fails_is_no_matter_while_what_is_known_holds(endpoint: Endpoint) -> None:
    """Credentials are used to their end if no others can be had; then the error says why."""
    answers = [given_out("AKID", for_s=3_600)]
    endpoint.answer = lambda call: answers.pop() if answers else response(500)
    now_s = NOW_S
    container = Container(endpoint.url, now_s=lambda: now_s)
    await container.get()
    now_s = NOW_S + 3_599
    assert (await container.get()).access_key == "AKID"
    now_s = NOW_S + 3_600
    with pytest.raises(NoCredentials, match=f"no AWS credentials at {endpoint.url}: HTTP status 500"):
        await container.get()


@pytest.mark.parametrize("answer", [b"", response(404), response(200, "{}"), response(200, "no JSON")])
async def test_an_address_without_credentials_is_told(answer: bytes, endpoint: Endpoint) -> None:
    """Where the answer has none, the error names the address."""
    endpoint.answer = lambda call: answer
    with pytest.raises(NoCredentials, match=endpoint.url):
        await Container(endpoint.url).get()


def test_not_everybody_may_give_out_credentials() -> None:
    """Without TLS only addresses that cannot leave the machine are asked; ECS's has its own variable."""
    with pytest.raises(ValueError, match="expected https, or an address of this machine"):
        find({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example/"})
    assert "https://fine.example/" in repr(find({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "https://fine.example/"}))
    assert "http://169.254.170.2/v2/x" in repr(find({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}))


# botocore


def profile(folder: Path, key: str) -> Path:
    path = folder / "credentials"
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")
    return path


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that has no keys and names files for them; their folder."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


async def test_botocore_is_asked_where_the_environment_has_none(files: Path) -> None:
    """Without keys in the environment, botocore finds them where the AWS tools do, and is asked again in a while."""
    profile(files, "AKIDONE")
    now = 0.0
    found = find({})
    assert isinstance(found, Botocore)
    assert await found.get() == Credentials("AKIDONE", "secret")
    made = Botocore(monotonic=lambda: now)
    first = await made.get()
    assert first == Credentials("AKIDONE", "secret")
    now = FRESH_S - 1
    assert await made.get() is first
    now = FRESH_S
    assert await made.get() == first
    assert "secret" not in repr(made)


async def test_what_botocore_cannot_do_is_told(files: Path) -> None:
    """A profile that cannot be used is an error with botocore's words."""
    (files / "config").write_text("[profile other]\nregion = x\n")
    (files / "credentials").write_text("[default]\naws_access_key_id = half\n")
    with pytest.raises(NoCredentials, match=r"no AWS credentials: Partial credentials"):
        await find({}).get()


async def test_no_credentials_say_where_they_were_looked_for(files: Path) -> None:
    """Where there are none, the error names the variables and botocore."""
    with pytest.raises(NoCredentials, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"):
        await find({"AWS_ACCESS_KEY_ID": "half"}).get()


def test_without_botocore_the_environment_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where botocore is not installed, its absence is part of the error, and keys in the environment do."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NoCredentials, match="or botocore installed"):
        find({})
    assert isinstance(find({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}), Fixed)


@pytest.mark.slow
def test_nothing_heavy_is_imported() -> None:
    """All of the layer loads without botocore, boto3, httpx and the chat: functions start the sooner for it."""
    code = (
        "import sys; from hubbub.aws import credentials, http, service, table; "
        "credentials.find({'AWS_ACCESS_KEY_ID': 'a', 'AWS_SECRET_ACCESS_KEY': 'b'}); "
        "print(*sorted({name for name in sys.modules if name.split('.')[0] in sys.argv[1:]}))"
    )
    heavy = ["boto3", "botocore", "httpx", "aiohttp", "starlette", "requests", "urllib3"]
    shown = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.split() == []
