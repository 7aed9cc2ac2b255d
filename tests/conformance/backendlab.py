"""A backend of a running gateway: boto3 as its users call it, and calls signed by hand that boto3 would not make."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from botocore.config import Config
from gatewaylab import Functions, Lab, running
from rawpeer import Peer

from botolab import session
from hubbub.gateway import Account, GatewayLimits
from hubbub.sigv4 import Credentials, Keys, sign
from live import BOUND_S

BACKEND = Credentials("AKIDBACKEND", "a-secret-of-the-backend")
STRANGER = Credentials("AKIDSTRANGER", "whatever")
REGION = "us-east-1"


class Backend:
    """What calls the management API of a lab.

    Attributes:
        lab: the gateway.
        url: the endpoint.

    """

    def __init__(self, lab: Lab, prefix: str = "/ws") -> None:
        self.lab = lab
        self.url = f"http://127.0.0.1:{lab.port}{prefix}"
        self._http = httpx.AsyncClient(timeout=BOUND_S, trust_env=False)
        self._botos: list[Any] = []

    async def close(self) -> None:
        """Close all connections to the gateway."""
        await self._http.aclose()
        for boto in self._botos:
            await asyncio.to_thread(boto.close)

    async def boto(self, credentials: Credentials = BACKEND, url: str | None = None, **config: Any) -> Any:
        """A client of boto3's; it works in threads, as `call` lets it."""
        boto = await asyncio.to_thread(
            session(
                credentials.access_key, credentials.secret_key, region=REGION, token=credentials.session_token
            ).client,
            "apigatewaymanagementapi",
            endpoint_url=url or self.url,
            config=Config(proxies={}, **config),
        )
        self._botos.append(boto)
        return boto

    async def call(self, operation: Callable[..., Any], **parameters: Any) -> Any:
        """Call one of boto3's methods in a thread."""
        async with asyncio.timeout(BOUND_S):
            return await asyncio.to_thread(operation, **parameters)

    async def raw(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        credentials: Credentials | None = BACKEND,
        now_s: float | None = None,
        service: str = "execute-api",
        headers: dict[str, str] | None = None,
        host: str | None = None,
    ) -> httpx.Response:
        """Call with a signature of our own, at the host's root; None for `credentials` leaves it out."""
        url = f"http://127.0.0.1:{self.lab.port}{path}"
        given = {"host": host or f"127.0.0.1:{self.lab.port}", **(headers or {})}
        if credentials is not None:
            given |= sign(
                credentials,
                method=method,
                url=url,
                headers=given,
                body=body,
                service=service,
                region=REGION,
                now_s=time.time() if now_s is None else now_s,
            )
        response = await self._http.request(method, httpx.URL(url), content=body, headers=given)
        assert response.headers["x-amzn-requestid"], response
        return response


class Stingy(Account):
    """An account whose next requests are refused, as often as a test says."""

    def __init__(self) -> None:
        super().__init__(GatewayLimits())
        self.refusals = 0

    def may_ask(self, now: float) -> bool:
        self.refusals -= 1
        return self.refusals < 0


@asynccontextmanager
async def serving(functions: Functions | None = None, **options: Any) -> AsyncIterator[Backend]:
    """A gateway with a backend that it knows, for the length of a block; options as `running`'s."""
    keys = options.pop("keys", Keys({BACKEND.access_key: BACKEND.secret_key}))
    # boto3 leaves a socket open as long as an exception is kept that came over it, as tests do.
    async with running(functions, keys=keys, server_options={"timeout_keep_alive": 1}, **options) as lab:
        backend = Backend(lab)
        try:
            yield backend
        finally:
            await backend.close()
            for connection in list(lab.server.server_state.connections):
                connection.shutdown()  # what is left of boto3's; or it would be waited for


async def unread(lab: Lab) -> Peer:
    """A peer that reads nothing, and in whose direction nothing more fits into the socket."""
    peer = await lab.open()
    peer.stop_reading()
    known = lab.hub.get(peer.id)
    assert known is not None
    async with asyncio.timeout(BOUND_S):
        while not known.congested:
            lab.hub.send_to(known, b"x" * 64 * 1024)
            await asyncio.sleep(0)
    return peer
