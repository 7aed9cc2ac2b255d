"""Which store a URL opens, and what that imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hubbub.store import open_store


def test_a_dynamodb_url_names_the_table():
    """With or without where it is."""
    for url in ("dynamodb://chat", "dynamodb://chat?region=eu-west-1&endpoint=http://localhost:8000"):
        assert repr(open_store(url)) == "<DynamoStore not open>"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("dynamodb://", "expected dynamodb://TABLE"),
        ("dynamodb://?region=x", "expected dynamodb://TABLE"),
        ("dynamodb://chat?regoin=x", "expected dynamodb://TABLE?region=REGION&endpoint=URL"),
        ("redis://here", "or dynamodb://TABLE, got 'redis://here'"),
        ("dynamodb", "or dynamodb://TABLE, got 'dynamodb'"),
    ],
)
def test_another_url_is_refused_with_what_was_expected(url, expected):
    """By name, with what came."""
    with pytest.raises(ValueError) as refused:
        open_store(url)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://me:hunter2@db/chat",
        "redis://me:hunter2@db",
        "postgresql://me:hun/ter2@db/chat",
        "postgresql://me:hun?ter2@db/chat",
        "postgresql://me:hun#ter2@db/chat",
        "postgresql://me:hun[ter2]@db/chat",
        "postgresql://me:hun[ter2@db/chat",
    ],
)
def test_what_is_said_of_a_url_has_nothing_of_its_password(url):
    """Also where a character in it makes an end of what it is in."""
    with pytest.raises(ValueError, match="store: expected") as refused:
        open_store(url)
    assert "hun" not in str(refused.value) and "ter2" not in str(refused.value)


async def test_a_region_that_is_nowhere_is_asked_for(monkeypatch):
    """In the URL or in the environment."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="expected a region"):
        await open_store("dynamodb://chat").__aenter__()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "foreign"),
    [("dynamodb://chat", ("sqlite3", "hubbub.store.sqlite")), ("sqlite://:memory:", ("hubbub.aws",))],
)
def test_a_store_imports_nothing_of_the_others(url, foreign):
    """A function does not pay for SQLite, a laptop not for AWS."""
    opened = f"import sys, hubbub.store; hubbub.store.open_store({url!r})"
    script = f"{opened}; print([name for name in {foreign!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_postgresql_url_names_the_server_and_database():
    """By either name; the password is not in what is shown of the store."""
    for scheme in ("postgresql", "postgres"):
        opened = open_store(f"{scheme}://me:secret@db1:6432,db2/chat?patience=30&sslmode=require")
        assert repr(opened) == f"<PostgresStore {scheme}://me@db1:6432,db2/chat>"


def test_a_postgresql_url_without_the_driver_says_what_to_install(monkeypatch):
    """By the name of the extra."""
    for name in [name for name in sys.modules if name.startswith("hubbub.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ValueError, match=r"store: postgresql:// needs asyncpg: pip install 'hubbub\[postgres\]'"):
        open_store("postgresql://localhost/chat")
