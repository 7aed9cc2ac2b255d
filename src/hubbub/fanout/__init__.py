"""Fan-outs, opened by URL; one module and one foreign library each, loaded when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hubbub.clock import Clock
from hubbub.ports import ReadAfter, ReadHeads, Sink

if TYPE_CHECKING:
    from hubbub.fanout.apigateway.directory import ApiGatewayDirectory
    from hubbub.fanout.apigateway.fanout import ApiGatewayFanout
    from hubbub.fanout.local import LocalFanout
    from hubbub.fanout.nats import NatsFanout

_HOMES = {
    "ApiGatewayDirectory": "hubbub.fanout.apigateway.directory",
    "ApiGatewayFanout": "hubbub.fanout.apigateway.fanout",
    "LocalFanout": "hubbub.fanout.local",
    "NatsFanout": "hubbub.fanout.nats",
}

__all__ = ["ApiGatewayDirectory", "ApiGatewayFanout", "LocalFanout", "NatsFanout", "open_fanout"]


def open_fanout(
    url: str, *, sink: Sink, read: ReadAfter, clock: Clock, heads: ReadHeads | None = None
) -> LocalFanout | NatsFanout:
    """The fan-out and directory of a node for `url`: `local`, or `nats://…` or `tls://…` for one node of several.

    That over API Gateway (`ApiGatewayFanout`) has no node, but functions; `hubbub.lambdas` composes it.

    Args:
        url: which fan-out; docs/reference/nats.md has what may be in that of NATS.
        sink: the node's live connections.
        read: reads a room's entries after a seq from the store, to fill holes.
        clock: time.
        heads: reads where logs end; NATS needs it, `local` does not.

    Raises:
        ValueError: no such fan-out, something in the URL is wrong, or the extra that it needs is not installed.

    """
    if url == "local":
        from hubbub.fanout.local import LocalFanout

        return LocalFanout(sink=sink, read=read, clock=clock)
    if url.startswith(("nats://", "tls://")):
        try:
            from hubbub.fanout.nats import NatsFanout, parse_address
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] != "nats":
                raise
            raise ValueError("fanout: NATS needs the extra `nats`: pip install 'hubbub[nats]'") from missing
        if heads is None:
            raise ValueError("fanout: NATS needs `heads`, which reads where logs end")
        return NatsFanout(parse_address(url), sink=sink, read=read, heads=heads, clock=clock)
    scheme = url.partition("://")[0] if "://" in url else url
    raise ValueError(f"fanout: expected `local`, nats://… or tls://…, got {scheme!r}")


def __getattr__(name: str) -> Any:  # Any: every fan-out is of its own type
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hubbub.fanout' has no attribute {name!r}")
