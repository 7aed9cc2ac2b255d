"""The Runtime API's client under its AWS name, for interpreters that the compiled one was not made for.

awslambdaric imports a C++ extension `runtime_client`; this has the same four functions and needs Python 3.8 alone.
"""

from __future__ import annotations

import http.client
import os

_PREFIX = "/2018-06-01/runtime/invocation/"
_HEADERS = (
    "Lambda-Runtime-Aws-Request-Id",
    "Lambda-Runtime-Deadline-Ms",
    "Lambda-Runtime-Invoked-Function-Arn",
    "Lambda-Runtime-Trace-Id",
    "Lambda-Runtime-Client-Context",
    "Lambda-Runtime-Cognito-Identity",
    "Content-Type",
)

_connection = http.client.HTTPConnection(os.environ.get("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"))
_agent: dict[str, str] = {}


def initialize_client(user_agent: str) -> None:
    """Say who asks."""
    _agent["User-Agent"] = user_agent


def next() -> tuple[bytes, dict[str, str | None]]:  # noqa: A001  AWS's name
    """Wait for an invocation: its payload and what the headers say of it."""
    _connection.request("GET", _PREFIX + "next", headers=_agent)
    response = _connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"Failed to get next invocation, status {response.status}: {body!r}")
    # http.client reads headers as Latin-1; what is in them is UTF-8.
    said = {name: response.headers.get(name) for name in _HEADERS}
    return body, {name: value and value.encode("latin-1").decode() for name, value in said.items()}


def post_invocation_result(
    invoke_id: str, data: bytes, content_type: str = "application/json", invocation_id: str | None = None
) -> None:
    """Answer an invocation."""
    _post(f"{_PREFIX}{invoke_id}/response", data, {"Content-Type": content_type})


def post_error(invoke_id: str, document: str, fault: str, invocation_id: str | None = None) -> None:
    """Answer an invocation with an error; `fault` is for X-Ray."""
    headers = {"Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": "Unhandled"}
    _post(f"{_PREFIX}{invoke_id}/error", document.encode(), headers)


def _post(path: str, data: bytes, headers: dict[str, str]) -> None:
    _connection.request("POST", path, data, {**_agent, **headers})
    response = _connection.getresponse()
    body = response.read()
    if response.status not in (200, 202):
        raise RuntimeError(f"Failed to post an answer, status {response.status}: {body!r}")
