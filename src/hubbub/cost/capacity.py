"""Which quota breaks first: how far each is from the busiest second; and how long a broadcast takes at best."""

from __future__ import annotations

import math

import msgspec

from hubbub.cost.bills import Bill
from hubbub.cost.catalogue import Quota, Region, Work
from hubbub.cost.lambdas import duration_s, units
from hubbub.cost.scenario import Scenario
from hubbub.cost.traffic import Flow


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a quota the busiest second takes.

    Attributes:
        what: the quota's name in `prices.toml`, or of a figure in `work.toml` that is a limit of Hubbub's own.
        unit: of both numbers.
        used, limit: how much, of how much.
        raisable: whether AWS gives more when asked.
        grows: whether more users take more of it; else it is a matter of settings.
        verified: whether the limit was read anywhere.

    """

    what: str
    unit: str
    used: float
    limit: float
    raisable: bool
    grows: bool = True
    verified: bool = True

    @property
    def headroom(self) -> float:
        """How many times as much would still fit; below 1 it is broken."""
        return self.limit / self.used if self.used else math.inf


def uses(bill: Bill, chat: Scenario, region: Region, work: Work) -> list[Use]:
    """The quotas that count in this home, the first to break first, and those that do not grow with use last."""
    quota, load, took = region.quota, bill.load, bill.functions
    found: list[Use] = []

    def add(name: str, used: float, *, grows: bool = True) -> None:
        each: Quota = getattr(quota, name)
        found.append(
            Use(
                what=name,
                unit=each.unit,
                used=used,
                limit=each.value,
                raisable=each.raisable,
                grows=grows,
                verified=each.verified,
            )
        )

    if bill.shape == "serverless":
        add("requests_per_s", load.asked.peak + load.connects.peak + load.backend.peak + load.posts.peak)
        add("new_connections_per_s", load.connects.peak)
        found.append(
            Use(
                what="stage_requests_per_s",
                unit="messages and connections a second of clients, the templates' ThrottleRate",
                used=load.asked.peak + load.connects.peak,
                limit=work.functions.stage_requests_per_s,
                raisable=True,
            )
        )
        add("idle_s", chat.heartbeat_s, grows=False)
        add("message_bytes", load.entry_bytes, grows=False)
    if took is not None:
        add("lambda_concurrency", took.concurrency)
        add("lambda_requests_per_s", took.invocations.peak)
        add("dynamodb_partition_read_units", _shard_reads(bill, chat, work))
    if bill.writes.peak:
        add("dynamodb_table_write_units", bill.writes.peak)
        add("dynamodb_table_read_units", bill.reads.peak)
        per_entry = work.actions.send.write_units * max(1, math.ceil(load.entry_bytes / 1024))
        add("dynamodb_partition_write_units", load.room_appends_per_s * per_entry)
        found.append(
            Use(
                what="room_appends_per_s",
                unit="entries a second in one room, Hubbub's own limit",
                used=load.room_appends_per_s,
                limit=work.functions.room_appends_per_s,
                raisable=False,
            )
        )
    else:
        per = work.instances
        found.append(
            Use(
                what="postgres_appends_per_s",
                unit="entries and read marks a second in one database, assumed",
                used=load.entries.peak + load.actions["read"].peak,
                limit=per.postgres_large_appends_per_s,
                raisable=False,
                verified=False,
            )
        )
    if bill.vcpus:
        add("instance_vcpus", bill.vcpus)
    return sorted(found, key=lambda use: (use.headroom >= 1 and not use.grows, use.headroom))


def _shard_reads(bill: Bill, chat: Scenario, work: Work) -> float:
    """Read units a second of one shard of a room's listeners: each job reads all of its shards."""
    each = work.broadcaster
    listeners = min(bill.load.listeners, 1_000.0)  # a shard has no more
    jobs = sum(flow.peak for flow in bill.load.jobs.values())
    return jobs / chat.rooms * (each.read_units + each.read_units_per_listener * listeners)


class Broadcast(msgspec.Struct, frozen=True, kw_only=True):
    """How long one entry takes to so many listeners at best, and how often that is possible.

    Attributes:
        listeners: how many.
        floor_s: with the whole account's requests and a full bucket.
        paced_s: with the broadcaster's share of both.
        per_s: entries a second that the share can bear in all rooms of this size together.
        usd: what the posts cost.

    """

    listeners: int
    floor_s: float
    paced_s: float
    per_s: float
    usd: float


def broadcast(listeners: int, region: Region, work: Work, *, size: float) -> Broadcast:
    """What the quota of requests makes of a broadcast; `size` is the entry's, in bytes."""
    rate, burst = region.quota.requests_per_s.value, region.quota.requests_burst.value
    share = rate * work.broadcaster.share
    message = region.price.apigateway_message
    return Broadcast(
        listeners=listeners,
        floor_s=max(0.0, listeners - burst) / rate,
        paced_s=max(0.0, listeners - burst * work.broadcaster.share) / share,
        per_s=share / listeners,
        usd=message.cost(listeners * message.pieces(size)),
    )


class Storm(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to take everybody in again who was cut off at once.

    Attributes:
        seconds: until all are back, at the quota of new connections.
        concurrency: of functions meanwhile.
        read_units, write_units: of DynamoDB, a second, meanwhile.

    """

    seconds: float
    concurrency: float
    read_units: float
    write_units: float


def storm(bill: Bill, chat: Scenario, region: Region, work: Work) -> Storm:
    """What follows when all connections on API Gateway end at the same time, and all clients come back."""
    quota = region.quota.new_connections_per_s.value
    rate = min(quota, bill.load.connections)  # fewer than a second's are back within one
    actions = (work.actions.authorize, work.actions.connect, work.actions.sync)
    coming = [(action, Flow(0, rate)) for action in actions]
    reads, writes = units(coming, chat, bill.load, work)
    return Storm(
        seconds=bill.load.connections / quota,
        concurrency=sum(rate * duration_s(action, chat, work) for action in actions),
        read_units=reads.peak,
        write_units=writes.peak,
    )
