"""What the model is fed with: AWS's prices and quotas (`prices.toml`) and Hubbub's own work (`work.toml`).

Every number is an input with its origin. A file of somebody's own, for another region or after a change of price, is
read and checked in the same way.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import TypeVar

import msgspec

from hubbub.cost.scenario import CostError

HERE = Path(__file__).parent


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price for the units up to `up_to` a month; None is for all the rest."""

    usd: float
    up_to: float | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a unit costs.

    Attributes:
        unit: what is counted.
        per: `usd` and the tiers' are for so many units.
        usd: the price, if it is one.
        tiers: the prices, if they fall with the amount.
        meter_bytes: into pieces of how many bytes a unit is counted; None if its size does not matter.
        date, source, how: of which day this is, AWS's page for it, and what was read.
        verified: whether anything was read that says so; else `reason` says why it is believed.

    """

    unit: str
    per: float
    usd: float | None = None
    tiers: tuple[Tier, ...] = ()
    meter_bytes: int | None = None
    date: datetime.date
    source: str
    how: str
    verified: bool = True
    reason: str | None = None

    def cost(self, quantity: float) -> float:
        """Dollars for so many units in a month."""
        if self.usd is not None:
            return quantity * self.usd / self.per
        total, below = 0.0, 0.0
        for tier in self.tiers:
            end = math.inf if tier.up_to is None else tier.up_to
            total += max(0.0, min(quantity, end) - below) * tier.usd / self.per
            below = end
        return total

    def pieces(self, size: float) -> int:
        """As how many units something of `size` bytes is counted."""
        return 1 if self.meter_bytes is None else max(1, math.ceil(size / self.meter_bytes))


class Quota(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much AWS allows by default; `raisable` if it gives more when asked. The rest is as for a price."""

    unit: str
    value: float
    raisable: bool
    date: datetime.date
    source: str
    how: str
    verified: bool = True
    reason: str | None = None


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every price that the model uses, by name."""

    apigateway_message: Price
    apigateway_minute: Price
    http_api_request: Price
    lambda_request: Price
    lambda_gb_second_arm64: Price
    lambda_gb_second_x86: Price
    dynamodb_write_unit: Price
    dynamodb_read_unit: Price
    dynamodb_gb_month: Price
    dynamodb_pitr_gb_month: Price
    sqs_request: Price
    sqs_fifo_request: Price
    schedule_invocation: Price
    logs_gb: Price
    logs_gb_month: Price
    metric_month: Price
    alarm_month: Price
    dashboard_month: Price
    parameter_month: Price
    transfer_out_gb: Price
    transfer_zone_gb: Price
    gateway_instance_hour: Price
    nats_instance_hour: Price
    volume_gb_month: Price
    public_ipv4_hour: Price
    nlb_hour: Price
    nlb_unit_hour: Price
    alb_hour: Price
    alb_unit_hour: Price
    postgres_small_hour: Price
    postgres_large_hour: Price
    postgres_gb_month: Price


class Quotas(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every quota that the model looks at, by name."""

    requests_per_s: Quota
    requests_burst: Quota
    new_connections_per_s: Quota
    connection_s: Quota
    idle_s: Quota
    message_bytes: Quota
    lambda_concurrency: Quota
    lambda_requests_per_s: Quota
    dynamodb_table_write_units: Quota
    dynamodb_table_read_units: Quota
    dynamodb_partition_write_units: Quota
    dynamodb_partition_read_units: Quota
    instance_vcpus: Quota


class Region(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A region's prices and quotas."""

    price: Prices
    quota: Quotas

    def inputs(self) -> dict[str, Price | Quota]:
        """All of them by name, prices first."""
        return {name: getattr(part, name) for part in (self.price, self.quota) for name in part.__struct_fields__}


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one invocation does.

    Attributes:
        source: where the figures come from.
        cpu_ms: processor time of the function.
        round_trips: requests to DynamoDB of which one waits for the other.
        read_units, write_units: of DynamoDB.
        cpu_ms_per_room, round_trips_per_room, read_units_per_room, write_units_per_room: what comes to it for each room
            of the user.

    """

    source: str
    cpu_ms: float
    round_trips: float = 0.0
    read_units: float = 0.0
    write_units: float = 0.0
    cpu_ms_per_room: float = 0.0
    round_trips_per_room: float = 0.0
    read_units_per_room: float = 0.0
    write_units_per_room: float = 0.0


class Actions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a function is invoked for, apart from broadcasts."""

    authorize: Action
    connect: Action
    disconnect: Action
    sync: Action
    send: Action
    react: Action
    typing: Action
    read: Action
    history: Action
    ping: Action
    sweep: Action


class Functions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Lambda functions.

    Attributes:
        source: where the figures come from.
        message_memory_mb, broadcaster_memory_mb: memory, as the templates give it.
        round_trip_ms: the time of one request to DynamoDB.
        room_appends_per_s: entries that one room's log takes.
        stage_requests_per_s: messages and connections that the templates' API takes from clients.

    """

    source: str
    message_memory_mb: float
    broadcaster_memory_mb: float
    round_trip_ms: float
    room_appends_per_s: float
    stage_requests_per_s: float


class Broadcaster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one delivery to a room's listeners does.

    Attributes:
        source: where the figures come from.
        cpu_ms, round_trips, read_units: of one job, however many listen.
        write_units: of a job that delivers entries or tells a head; signals need no lease.
        read_units_per_listener, write_units_per_post: what comes to it for each.
        ms_per_post: a function's time for each post, while the quota allows all at once.
        paced_ms_per_post: the same beyond that.
        free_posts: up to how many a job takes no permits, and so has no `write_units_per_post`.
        split: how many listeners are one invocation's share.
        share: of the account's requests that broadcasts may use.
        head_every_s: how often a room that was written to is told where its log ends.

    """

    source: str
    cpu_ms: float
    round_trips: float
    read_units: float
    write_units: float
    read_units_per_listener: float
    write_units_per_post: float
    ms_per_post: float
    paced_ms_per_post: float
    free_posts: int
    split: int
    share: float
    head_every_s: float


class Frames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes on the wire: an entry beside its text, a signal, a reply; entries on a page; what the network adds."""

    source: str
    entry_overhead_bytes: float
    signal_bytes: float
    reply_bytes: float
    page_entries: float
    transport_bytes: float


class Storage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes kept: what comes to each entry, and a membership with its read mark."""

    source: str
    item_overhead_bytes: float
    mark_bytes: float


class Logs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged of an event of the gateway and of an invocation, and what else CloudWatch keeps."""

    source: str
    event_bytes: float
    invocation_bytes: float
    kept_months: float
    metrics: float
    alarms: float
    dashboards: float


class Instances(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an instance with our gateway bears, and what stands beside it.

    Attributes:
        source: where the figures come from.
        vcpus: of an instance, as AWS counts them.
        connections: at most so many on one.
        cores, target: how many cores the node can use, and which part of them in the busiest second.
        action_us, delivery_us, connect_us: processor time of an action, a frame to one listener, a new connection.
        invoke_us, post_us: of a call of a Lambda function, and of a post to `@connections` that is answered.
        at_least: instances, so that one may be lost.
        head_every_s: how often a room that was written to is told where its log ends.
        volume_gb, log_bytes_per_connection: disk of an instance; what is logged of a connection.
        zones: over which instances and load balancer are spread.
        nats_nodes, nats_vcpus: instances with NATS as soon as there are several gateways.
        postgres_zones: in how many zones the database stands.
        postgres_small_appends_per_s, postgres_large_appends_per_s: what the two sizes of it bear.
        postgres_storage_factor: disk for each byte of an entry, with indices and dead rows.

    """

    source: str
    vcpus: int
    connections: int
    cores: float
    target: float
    action_us: float
    delivery_us: float
    connect_us: float
    invoke_us: float
    post_us: float
    at_least: int
    head_every_s: float
    volume_gb: float
    log_bytes_per_connection: float
    zones: int
    nats_nodes: int
    nats_vcpus: int
    postgres_zones: int
    postgres_small_appends_per_s: float
    postgres_large_appends_per_s: float
    postgres_storage_factor: float


class Work(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that Hubbub does, as the model counts it."""

    functions: Functions
    broadcaster: Broadcaster
    actions: Actions
    frames: Frames
    storage: Storage
    logs: Logs
    instances: Instances


_T = TypeVar("_T")


def _read(path: Path) -> object:
    try:
        return msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise CostError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CostError(f"{path.name}: {error}") from error


def _converted(found: object, kind: type[_T], where: str) -> _T:
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise CostError(f"{where}: {error}") from error


def read_prices(path: Path = HERE / "prices.toml") -> dict[str, Region]:
    """Regions by name.

    Raises:
        CostError: the file is not there, is no TOML, lacks a price or quota, or has what nobody knows.

    """
    tables = _converted(_read(path), dict[str, dict[str, object]], path.name)
    regions = {name: _converted(table, Region, f"{path.name}: {name}") for name, table in tables.items()}
    for region, inputs in regions.items():
        for name, each in inputs.inputs().items():
            where = f"{path.name}: {region}.{name}"
            if isinstance(each, Price) and (each.usd is None) == (not each.tiers):
                raise CostError(f"{where}: expected either usd or tiers")
            if isinstance(each, Price) and each.per <= 0:
                raise CostError(f"{where}: expected per above 0, got {each.per:g}")
            if not each.verified and not each.reason:
                raise CostError(f"{where}: expected a reason, since it is not verified")
    return regions


def read_work(path: Path = HERE / "work.toml") -> Work:
    """What Hubbub does for each thing that a client does.

    Raises:
        CostError: the file is not there, is no TOML, lacks a figure, or has what nobody knows.

    """
    return _converted(_read(path), Work, path.name)
