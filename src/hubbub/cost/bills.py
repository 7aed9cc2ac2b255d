"""What a chat costs in three homes, item by item: on API Gateway, on instances with our gateway, and mixed."""

from __future__ import annotations

import math

import msgspec

from hubbub.cost.catalogue import Price, Prices, Region, Work
from hubbub.cost.lambdas import SWEEPS_PER_HOUR, Functions, asked, functions, units
from hubbub.cost.scenario import HOURS, Scenario
from hubbub.cost.traffic import Flow, Traffic, hours, sent_gb, traffic


class Item(msgspec.Struct, frozen=True):
    """A line of the bill: what it is for, how much of what unit, and dollars a month."""

    what: str
    quantity: float
    unit: str
    usd: float


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What one home costs a month.

    Attributes:
        shape: which home, a key of `scenario.SHAPES`.
        items: line by line.
        load: what is to be done there.
        functions: what the Lambda functions take; None where there are none.
        reads, writes: DynamoDB's units.
        instances: how many run our gateway.
        vcpus: of all instances.

    """

    shape: str
    items: tuple[Item, ...]
    load: Traffic
    functions: Functions | None = None
    reads: Flow = Flow(0, 0)
    writes: Flow = Flow(0, 0)
    instances: int = 0
    vcpus: int = 0

    @property
    def usd(self) -> float:
        """The sum."""
        return sum(item.usd for item in self.items)


def bill(shape: str, chat: Scenario, region: Region, work: Work) -> Bill:
    """What the chat costs a month in that home, a key of `scenario.SHAPES`."""
    make = {"serverless": _serverless, "instances": _instances, "mix": _mix}[shape]
    return make(chat, region, work)


def _item(what: str, price: Price, quantity: float) -> Item:
    return Item(what, quantity, price.unit, price.cost(quantity))


def _serverless(chat: Scenario, region: Region, work: Work) -> Bill:
    prices = region.price
    load = traffic(chat, work, connection_s=region.quota.connection_s.value, head_every_s=work.broadcaster.head_every_s)
    took = functions(chat, load, work, burst=region.quota.requests_burst.value)
    message, pieces = prices.apigateway_message, prices.apigateway_message.pieces(load.entry_bytes)
    sends = load.actions["send"].month
    counted = {
        "messages of clients": sends * pieces + load.asked.month - sends,
        "replies": load.asked.month,
        **{f"posts of {what}": flow.month * (pieces if what == "entries" else 1) for what, flow in load.told.items()},
    }
    metered, total = message.cost(sum(counted.values())), sum(counted.values())
    items = [  # tiers are the account's, so each has its share of the whole
        Item(f"API Gateway: {what}", count, message.unit, metered * count / total if total else 0.0)
        for what, count in counted.items()
    ]
    return Bill(
        shape="serverless",
        items=(
            *items,
            _item("API Gateway: connection minutes", prices.apigateway_minute, load.connection_hours * 60),
            *_functions_items(chat, load, took, prices, work),
            *_table_items(load, took.read_units, took.write_units, prices, work),
            *_watching_items(load, took, prices, work, events=load.asked.month + 2 * load.connects.month),
            _item("Data to clients", prices.transfer_out_gb, sent_gb(load, work)),
        ),
        load=load,
        functions=took,
        reads=took.read_units,
        writes=took.write_units,
    )


def _functions_items(chat: Scenario, load: Traffic, took: Functions, prices: Prices, work: Work) -> tuple[Item, ...]:
    gb_second: Price = getattr(prices, f"lambda_gb_second_{chat.architecture}")
    api, queue = prices.http_api_request, prices.sqs_request if chat.transport == "sqs" else prices.sqs_fifo_request
    queued = 0.0 if chat.transport == "lambda" else 3 * took.jobs.month * queue.pieces(load.entry_bytes)
    return (
        _item("Lambda: invocations", prices.lambda_request, took.invocations.month),
        _item("Lambda: time", gb_second, took.gb_seconds),
        _item("HTTP API: your backend's calls", api, load.backend.month * api.pieces(load.entry_bytes)),
        _item("SQS: broadcasts", queue, queued),  # sent, received, deleted
        _item("Schedule of the sweeper", prices.schedule_invocation, SWEEPS_PER_HOUR * HOURS),
        _item("Key in Parameter Store", prices.parameter_month, 1),
    )


def _table_items(load: Traffic, reads: Flow, writes: Flow, prices: Prices, work: Work) -> tuple[Item, ...]:
    stored = load.stored_gb + (load.entries_kept + load.marks) * work.storage.item_overhead_bytes / 1e9
    return (
        _item("DynamoDB: writes", prices.dynamodb_write_unit, writes.month),
        _item("DynamoDB: reads", prices.dynamodb_read_unit, reads.month),
        _item("DynamoDB: storage", prices.dynamodb_gb_month, stored),
        _item("DynamoDB: point-in-time recovery", prices.dynamodb_pitr_gb_month, stored),
    )


def _watching_items(
    load: Traffic, took: Functions | None, prices: Prices, work: Work, *, events: float, log_bytes: float = 0.0
) -> tuple[Item, ...]:
    logs = work.logs
    invoked = took.invocations.month * logs.invocation_bytes if took else 0.0
    logged = (events * logs.event_bytes + invoked + log_bytes) / 1e9
    return (
        _item("CloudWatch: logs", prices.logs_gb, logged),
        _item("CloudWatch: logs kept", prices.logs_gb_month, logged * logs.kept_months),
        _item("CloudWatch: metrics", prices.metric_month, logs.metrics),
        _item("CloudWatch: alarms", prices.alarm_month, logs.alarms),
        _item("CloudWatch: dashboard", prices.dashboard_month, logs.dashboards),
    )


def _instances(chat: Scenario, region: Region, work: Work) -> Bill:
    prices, per = region.price, work.instances
    load = traffic(chat, work, connection_s=None, head_every_s=per.head_every_s)
    busy_us = (load.asked.peak + load.backend.peak) * per.action_us + load.posts.peak * per.delivery_us
    count = needed(load, busy_us + load.connects.peak * per.connect_us, work)
    nats = per.nats_nodes if count > 1 else 0
    reads = writes = Flow(0, 0)
    if chat.database == "postgres":
        store = _postgres_items(load, prices, work)
    else:
        reads, writes = units(asked(load, work), chat, load, work)
        store = _table_items(load, reads, writes, prices, work)
    return Bill(
        shape="instances",
        items=(
            *_gateway_items(chat, load, prices, work, count),
            _item("NATS: instances", prices.nats_instance_hour, hours(nats)),
            _item("NATS: volumes", prices.volume_gb_month, nats * per.volume_gb),
            *store,
            _item("Data between zones", prices.transfer_zone_gb, crossing_gb(load, count, work)),
            *_watching_items(
                load, None, prices, work, events=0, log_bytes=load.connects.month * per.log_bytes_per_connection
            ),
            _item("Data to clients", prices.transfer_out_gb, sent_gb(load, work)),
        ),
        load=load,
        reads=reads,
        writes=writes,
        instances=count,
        vcpus=count * per.vcpus + nats * per.nats_vcpus,
    )


def needed(load: Traffic, busy_us: float, work: Work) -> int:
    """Instances for so many connections and so many µs of processor time in the busiest second."""
    per = work.instances
    for_work = math.ceil(busy_us / 1e6 / (per.cores * per.target))
    return max(per.at_least, math.ceil(load.connections / per.connections), for_work)


def crossing_gb(load: Traffic, count: int, work: Work) -> float:
    """Gigabytes that are paid for on their way between zones, on both sides.

    Each entry goes to every instance, and from the gateway to the database; what the load balancer hands to an instance
    of another zone is free, since it does so only when that is switched on.
    """
    per = work.instances
    elsewhere = (per.zones - 1) / per.zones
    return 2 * load.entries.month * load.entry_bytes * (count + 1) * elsewhere / 1e9


def _gateway_items(chat: Scenario, load: Traffic, prices: Prices, work: Work, count: int) -> tuple[Item, ...]:
    per = work.instances
    nlb = chat.balancer == "nlb"
    hour, unit = (prices.nlb_hour, prices.nlb_unit_hour) if nlb else (prices.alb_hour, prices.alb_unit_hour)
    many, new = (100_000.0, 800.0) if nlb else (3_000.0, 25.0)  # connections and new ones a second of one unit
    units = hours(
        max(
            load.connection_hours / HOURS / many,
            load.connects.month / (HOURS * 3600) / new,
            sent_gb(load, work) / HOURS,
        )
    )
    return (
        _item("Gateway: instances", prices.gateway_instance_hour, hours(count)),
        _item("Gateway: volumes", prices.volume_gb_month, count * per.volume_gb),
        _item("Load balancer", hour, hours(1)),
        _item("Load balancer: units", unit, units),
        _item("Public addresses", prices.public_ipv4_hour, hours(per.zones)),
    )


def _postgres_items(load: Traffic, prices: Prices, work: Work) -> tuple[Item, ...]:
    per = work.instances
    large = load.entries.peak + load.actions["read"].peak > per.postgres_small_appends_per_s
    instance = prices.postgres_large_hour if large else prices.postgres_small_hour
    stored = max(20.0, load.stored_gb * per.postgres_storage_factor)  # RDS has no less
    return (
        _item("PostgreSQL: instances", instance, hours(per.postgres_zones)),
        _item("PostgreSQL: storage", prices.postgres_gb_month, stored * per.postgres_zones),
    )


def _mix(chat: Scenario, region: Region, work: Work) -> Bill:
    prices, per = region.price, work.instances
    load = traffic(chat, work, connection_s=None, head_every_s=work.broadcaster.head_every_s)
    took = functions(chat, load, work, burst=None)
    busy_us = took.events.peak * per.invoke_us + load.posts.peak * per.post_us + load.connects.peak * per.connect_us
    count = needed(load, busy_us, work)
    return Bill(
        shape="mix",
        items=(
            *_gateway_items(chat, load, prices, work, count),
            *_functions_items(chat, load, took, prices, work),
            *_table_items(load, took.read_units, took.write_units, prices, work),
            *_watching_items(
                load, took, prices, work, events=0, log_bytes=load.connects.month * per.log_bytes_per_connection
            ),
            _item("Data to clients", prices.transfer_out_gb, sent_gb(load, work)),
        ),
        load=load,
        functions=took,
        reads=took.read_units,
        writes=took.write_units,
        instances=count,
        vcpus=count * per.vcpus,
    )
