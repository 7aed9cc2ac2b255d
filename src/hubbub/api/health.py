"""What machines ask a node: does it live, can it work, what does it count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hubbub.errors import HubbubError, Unavailable

READY_TIMEOUT_S = 3.0
"""How long what the node needs may take to answer before it is not ready."""


class Health(msgspec.Struct, omit_defaults=True):
    """`status` is `ok`, `degraded` or `unavailable`; `reason` says why it is not `ok`."""

    status: str
    reason: str | None = None


def health_routes(
    *,
    needs: Callable[[], Awaitable[None]],
    draining: Callable[[], bool],
    lacks: Callable[[], str | None] = lambda: None,
    timeout_s: float = READY_TIMEOUT_S,
) -> list[BaseRoute]:
    """`/healthz` and `/readyz`.

    Args:
        needs: returns if all that the node needs can work; raises a HubbubError that says what cannot.
        draining: whether the node is on its way out.
        lacks: what is away that the node can do without for a while, in words; it is ready all the same, and says so.
        timeout_s: how long `needs` may take.

    """

    async def healthz(request: Request) -> Response:
        return _answer(None)

    async def readyz(request: Request) -> Response:
        return _answer("draining" if draining() else await _missing(needs, timeout_s), lacks())

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


async def _missing(needs: Callable[[], Awaitable[None]], timeout_s: float) -> str | None:
    try:
        async with asyncio.timeout(timeout_s):
            await needs()
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except HubbubError as error:
        return error.message
    return None


def _answer(reason: str | None, lacks: str | None = None) -> Response:
    if reason is not None:
        health = Health("unavailable", reason)
    else:
        health = Health("ok" if lacks is None else "degraded", lacks)
    return Response(
        msgspec.json.encode(health),
        status_code=200 if reason is None else Unavailable.status,
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )


def metrics_routes(metrics: Callable[[], tuple[bytes, str]]) -> list[BaseRoute]:
    """`/metrics`; `metrics` returns the text and its content type."""

    async def answer(request: Request) -> Response:
        text, content_type = metrics()
        return Response(text, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    return [Route("/metrics", answer)]
