"""What the functions take: invocations, gigabyte-seconds, places of the account's concurrency, and DynamoDB's units.

The same for functions behind API Gateway and behind our gateway: what differs is only which events there are.
"""

from __future__ import annotations

import math

import msgspec

from hubbub.cost.catalogue import Action, Work
from hubbub.cost.scenario import HOURS, Scenario
from hubbub.cost.traffic import Flow, Traffic

SWEEPS_PER_HOUR = 60


class Functions(msgspec.Struct, frozen=True, kw_only=True):
    """What all functions together take.

    Attributes:
        invocations: of all.
        events: invocations that the gateway makes; the rest are broadcasts, the authorizer and sweeps.
        gb_seconds: in a month.
        concurrency: invocations at the same time in the busiest second.
        read_units, write_units: DynamoDB's.
        jobs: broadcasts handed over, each part of a large one for itself.

    """

    invocations: Flow
    events: Flow
    gb_seconds: float
    concurrency: float
    read_units: Flow
    write_units: Flow
    jobs: Flow


def functions(chat: Scenario, load: Traffic, work: Work, *, burst: float | None) -> Functions:
    """What the functions take for this traffic.

    Args:
        chat, load, work: the chat, what it makes, and what is done for it.
        burst: how many requests the quota allows at once; None where posts have no quota.

    """
    actions = work.actions
    flows: list[tuple[Action, Flow]] = [
        (actions.authorize, load.connects),
        (actions.connect, load.connects),
        (actions.disconnect, load.connects),
        (actions.sweep, Flow(SWEEPS_PER_HOUR * HOURS, 1 / 60)),
        *asked(load, work),
    ]
    memory_gb = work.functions.message_memory_mb / 1024
    gb_seconds = concurrency = 0.0
    for action, flow in flows:
        seconds = duration_s(action, chat, work)
        gb_seconds += flow.month * seconds * memory_gb
        concurrency += flow.peak * seconds
    read, write = units(flows, chat, load, work)
    told = broadcasts(load, work, burst)
    return Functions(
        invocations=told.invocations.plus(*(flow for _, flow in flows)),
        events=load.asked.plus(load.connects, load.connects, load.backend),
        gb_seconds=gb_seconds + told.gb_seconds,
        concurrency=concurrency + told.concurrency,
        read_units=read.plus(told.read_units),
        write_units=write.plus(told.write_units),
        jobs=told.invocations,
    )


def duration_s(action: Action, chat: Scenario, work: Work) -> float:
    """How long an invocation runs: its own work, and what it waits for."""
    cpu_ms = action.cpu_ms + action.cpu_ms_per_room * chat.rooms_per_user
    round_trips = action.round_trips + action.round_trips_per_room * chat.rooms_per_user
    return (cpu_ms + round_trips * work.functions.round_trip_ms) / 1000


def asked(load: Traffic, work: Work) -> list[tuple[Action, Flow]]:
    """What clients and the customer's backend ask for."""
    return [(work.actions.send, load.backend)] + [
        (getattr(work.actions, name), flow) for name, flow in load.actions.items()
    ]


def units(flows: list[tuple[Action, Flow]], chat: Scenario, load: Traffic, work: Work) -> tuple[Flow, Flow]:
    """DynamoDB's units that these take: read and written. An entry above 1 KB takes more."""
    per_kb = max(1, math.ceil((load.entry_bytes + work.storage.item_overhead_bytes) / 1024))
    read, write = Flow(0, 0), Flow(0, 0)
    for action, flow in flows:
        large = per_kb if action is work.actions.send else 1
        read = read.plus(flow.times(action.read_units + action.read_units_per_room * chat.rooms_per_user))
        write = write.plus(flow.times(action.write_units * large + action.write_units_per_room * chat.rooms_per_user))
    return read, write


def broadcasts(load: Traffic, work: Work, burst: float | None) -> Functions:
    """What the broadcaster takes: for each job, and for each post. Arguments are those of `functions`."""
    each = work.broadcaster
    parts = max(1, math.ceil(load.listeners / each.split))
    whole = Flow(0, 0).plus(*load.jobs.values())
    jobs, leased = whole.times(parts), load.jobs["entries"].plus(load.jobs["heads"]).times(parts)
    needs_permits = load.listeners > each.free_posts
    at_once = load.listeners if burst is None else min(load.listeners, burst * each.share)
    post_ms = each.ms_per_post
    if load.listeners:
        paced = (load.listeners - at_once) / load.listeners
        post_ms += paced * (each.paced_ms_per_post - each.ms_per_post)
    job_s = (each.cpu_ms + each.round_trips * work.functions.round_trip_ms) / 1000
    busy_month, busy_peak = (
        getattr(jobs, when) * job_s + getattr(load.posts, when) * post_ms / 1000 for when in ("month", "peak")
    )
    return Functions(
        invocations=jobs,
        events=Flow(0, 0),
        gb_seconds=busy_month * work.functions.broadcaster_memory_mb / 1024,
        concurrency=busy_peak,
        read_units=whole.times(each.read_units * parts + each.read_units_per_listener * load.listeners),
        write_units=leased.times(each.write_units).plus(
            load.posts.times(each.write_units_per_post if needs_permits else 0.0)
        ),
        jobs=jobs,
    )
