"""What functions load before their first event, looked at in interpreters of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "boto3",
    "botocore",
    "cryptography",
    "httpx",
    "joserfc",
    "prometheus_client",
    "rich",
    "sqlite3",
    "starlette",
    "typer",
    "uvicorn",
    "uvloop",
    "websockets",
}
"""What no function needs for every event."""

NEEDED = {
    "": set(),
    "handler": set(),
    "connect": set(),
    "disconnect": set(),
    "message": set(),
    "broadcast": set(),
    "sweep": set(),
    "authorize": set(),
    "backend": {"starlette"},
}


def loaded(code: str) -> set[str]:
    """The packages that are there after `code` has run in an interpreter of its own."""
    listing = f"import sys; {code}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    shown = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, timeout=60, env={})
    assert shown.returncode == 0, shown.stderr
    return set(shown.stdout.split())


@pytest.mark.parametrize("handler", NEEDED)
def test_a_handler_loads_what_it_runs(handler: str):
    """No server, no command line, no SDK, no cryptography; Starlette in the HTTP API's function alone."""
    code = "from hubbub.lambdas import handlers" + (f"; handlers.{handler}" if handler else "")
    assert loaded(code) & HEAVY == NEEDED[handler]


def test_what_the_chat_is_made_of_is_as_lean():
    """The store and the fan-out of AWS come without the other homes', and without an SDK."""
    assert loaded("import hubbub.lambdas.assembly, hubbub.fanout.apigateway.broadcaster") & HEAVY == set()


def test_an_authorizer_asks_nobody_as_it_starts():
    """In an environment that Lambda starts it has its keys ready, and looks neither for the table nor for anything."""
    environment = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001", "AWS_REGION": "eu-west-1", "HUBBUB_SECRET": 32 * "x"}
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "from hubbub.lambdas.handlers import authorize; import sys; assert 'joserfc' in sys.modules",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")


def test_tokens_bring_their_own():
    """Who verifies tokens loads what that needs, and no HTTP client besides."""
    code = (
        "import os; os.environ |= {'AWS_REGION': 'eu-west-1', 'HUBBUB_SECRET': 32 * 'x'};"
        " from hubbub.lambdas.home import current; home = current(); home.run(home.warm_tokens())"
    )
    assert loaded(code) & HEAVY == {"cryptography", "joserfc"}
