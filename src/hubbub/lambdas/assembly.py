"""The chat's parts on AWS, put together: a table, what is built on it, and how deliveries are handed over."""

from __future__ import annotations

from contextlib import AsyncExitStack, nullcontext
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from hubbub.aws.table import Table
from hubbub.clock import Clock
from hubbub.config import SettingsError
from hubbub.fanout.apigateway.directory import ApiGatewayDirectory
from hubbub.fanout.apigateway.fanout import ApiGatewayFanout
from hubbub.fanout.apigateway.jobs import Transport
from hubbub.fanout.apigateway.pace import Pace
from hubbub.fanout.apigateway.posts import Posts
from hubbub.fanout.apigateway.transports import LambdaTransport, QueueTransport
from hubbub.lambdas.home import Home, credentials
from hubbub.lambdas.place import Place
from hubbub.store.dynamodb import DynamoStore
from hubbub.stream import read_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubbub.fanout.apigateway.broadcaster import Broadcaster
    from hubbub.fanout.apigateway.tally import Tally


class Parts(NamedTuple):
    """What the functions are made of.

    Attributes:
        table: where everything is.
        store, directory, fanout: the ports.
        posts, pace, transport: what deliveries are made with.

    """

    table: Table
    store: DynamoStore
    directory: ApiGatewayDirectory
    fanout: ApiGatewayFanout
    posts: Posts
    pace: Pace
    transport: Transport


async def open_parts(home: Home, stack: AsyncExitStack) -> Parts:
    """Open everything for a home; `stack` closes it.

    Raises:
        Unavailable: the table does not answer.
        SettingsError: something is not set, or is impossible.

    """
    place, clock, settings = home.place, home.clock, home.place.settings
    table = Table(await home.service("dynamodb"), place.need("table"))
    try:
        store = await stack.enter_async_context(
            DynamoStore(
                nullcontext(table),
                retain_entries=settings.retain_entries,
                retain_days=settings.retain_days,
                clock=clock,
            )
        )
    except ValueError as error:
        raise SettingsError(f"table: {error}") from error

    pace = Pace(table, clock=clock, per_s=place.requests_per_s, burst=_burst(place), share=place.share)
    try:
        posts = Posts(
            await home.http(),
            place.need("endpoint"),
            region=place.region,
            credentials=credentials(),
            clock=clock,
            watch=pace,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error
    transport = await _transport(home)
    directory = ApiGatewayDirectory(
        table, clock=clock, read=partial(read_after, store), grown=store.grown, linger_s=settings.presence_grace_s
    )
    fanout = ApiGatewayFanout(directory=directory, transport=transport, posts=posts, clock=clock)
    return Parts(table, store, directory, fanout, posts, pace, transport)


def _burst(place: Place) -> int:
    """How many requests at once: half of those a second, in AWS's own quotas (10,000 and 5,000; 2,500 and 1,250)."""
    return max(1, int(place.requests_per_s / 2))


async def _transport(home: Home) -> Transport:
    if home.place.queue_url is not None:
        return QueueTransport(await home.service("sqs"), home.place.queue_url)
    return LambdaTransport(await home.service("lambda"), home.place.need("broadcaster"))


def broadcaster_of(parts: Parts, clock: Clock, report: Callable[[Tally], None]) -> Broadcaster:
    """What does the jobs that the transport hands over."""
    from hubbub.fanout.apigateway.broadcaster import Broadcaster

    return Broadcaster(
        parts.table,
        parts.posts,
        parts.pace,
        parts.transport,
        read=partial(read_after, parts.store),
        forget=parts.directory.forget,
        clock=clock,
        report=report,
    )
