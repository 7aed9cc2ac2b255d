"""From a chat to what is to be done for it: actions, deliveries and bytes a month, and in the busiest second.

Nothing here knows a price. What depends on the home is an argument: whether connections end after two hours, and how
often a room's head is told.
"""

from __future__ import annotations

import math

import msgspec

from hubbub.cost.catalogue import Work
from hubbub.cost.scenario import DAYS, HOURS, Scenario


class Flow(msgspec.Struct, frozen=True):
    """How often something happens: in a month, and in the busiest second."""

    month: float
    peak: float

    def times(self, factor: float) -> Flow:
        """The same, `factor` times as often."""
        return Flow(self.month * factor, self.peak * factor)

    def plus(self, *others: Flow) -> Flow:
        """Together with others."""
        return Flow(self.month + sum(other.month for other in others), self.peak + sum(other.peak for other in others))


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done.

    Attributes:
        users: people; each in several rooms, and a connection for each device while he is online.
        listeners: connections that hear a room while people write.
        connections: open at the same time while people write.
        connection_hours: a month.
        connects: new connections.
        actions: what clients ask for, by action; each has a reply.
        entries: stored in logs, each delivered to its room's listeners; `sends` of clients among them.
        backend: messages that come from the customer's backend.
        jobs: deliveries to a room handed out, by what they are, as `told`.
        told: frames to one connection each, by what they are; `entries` among them, replies not.
        room_appends_per_s: entries in one room in the busiest second.
        entry_bytes: an entry on the wire.
        stored_gb: logs and marks, once as many months are there as are kept; without the store's own overhead.
        entries_kept, marks: how many are stored.

    """

    users: float
    listeners: float
    connections: float
    connection_hours: float
    connects: Flow
    actions: dict[str, Flow]
    entries: Flow
    backend: Flow
    jobs: dict[str, Flow]
    told: dict[str, Flow]
    room_appends_per_s: float
    entry_bytes: float
    stored_gb: float
    entries_kept: float
    marks: float

    @property
    def asked(self) -> Flow:
        """All actions of clients."""
        return Flow(0, 0).plus(*self.actions.values())

    @property
    def posts(self) -> Flow:
        """All frames to one connection each."""
        return Flow(0, 0).plus(*self.told.values())


def traffic(chat: Scenario, work: Work, *, connection_s: float | None, head_every_s: float) -> Traffic:
    """What a chat makes.

    Args:
        chat: the chat.
        work: sizes of frames.
        connection_s: how long a connection lasts at most; None for as long as it is wanted.
        head_every_s: how often a room that was written to is told its head.

    """
    users = chat.rooms * chat.members / chat.rooms_per_user
    listeners = chat.members * chat.online * chat.devices
    crowded = listeners > chat.crowd
    busy_s = chat.active_hours * DAYS * 3600
    rate = chat.messages_per_s or chat.rooms * chat.messages_per_hour / 3600

    def per_message(factor: float) -> Flow:
        return Flow(rate * busy_s * factor, rate * chat.peak * factor)

    def of_users(per_day: float) -> Flow:
        month = users * per_day * DAYS
        return Flow(month, month / busy_s * chat.peak)

    messages = per_message(1)
    entries = per_message(1 + chat.reactions)
    reads = entries_read(messages, listeners, chat.reads)
    typing = per_message(chat.typing)
    per_hour = chat.reconnects_per_hour + (0.0 if connection_s is None else 3600 / connection_s)
    connects = of_users((chat.sessions + chat.connected_hours * per_hour) * chat.devices)
    comings = of_users(2 * chat.sessions * chat.rooms_per_user)
    heads = told_heads(chat.rooms, entries, busy_s, head_every_s)
    others = max(0.0, listeners - 1)
    jobs = {"entries": entries, "heads": heads}
    hearing = {"entries": listeners, "heads": listeners}
    if not crowded:
        jobs |= {"read marks": reads, "typing": typing, "comings and goings": comings}
        hearing |= {"read marks": others, "typing": others, "comings and goings": listeners}
    told = {what: flow.times(hearing[what]) for what, flow in jobs.items()}
    posts = Flow(0, 0).plus(*told.values())
    connection_hours = users * chat.devices * chat.connected_hours * DAYS
    actions = {
        "sync": connects,
        "send": messages.times(1 - chat.backend_share),
        "react": per_message(chat.reactions),
        "typing": typing,
        "read": reads,
        "history": of_users(chat.history_pages),
        "ping": pings(posts, connection_hours, users * chat.online * chat.devices, chat.heartbeat_s),
    }
    entry_bytes = chat.size_bytes + work.frames.entry_overhead_bytes
    kept = entries.month * chat.kept_months
    marks = float(chat.rooms * chat.members)
    return Traffic(
        users=users,
        listeners=listeners,
        connections=users * chat.online * chat.devices,
        connection_hours=connection_hours,
        connects=connects,
        actions=actions,
        entries=entries,
        backend=messages.times(chat.backend_share),
        jobs=jobs,
        told=told,
        room_appends_per_s=entries.peak / chat.rooms,
        entry_bytes=entry_bytes,
        stored_gb=(kept * entry_bytes + marks * work.storage.mark_bytes) / 1e9,
        entries_kept=kept,
        marks=marks,
    )


def entries_read(messages: Flow, listeners: float, share: float) -> Flow:
    """Read marks: of each who hears a message but its author, for that share of the messages."""
    return messages.times(max(0.0, listeners - 1) * share)


def told_heads(rooms: int, entries: Flow, busy_s: float, every_s: float) -> Flow:
    """How often a head is told: once in `every_s` in each room in which something was written since."""

    def rate(entries_per_s: float) -> float:
        written = 1 - math.exp(-entries_per_s / rooms * every_s)  # the chance, at random moments
        return rooms * written / every_s

    return Flow(rate(entries.month / busy_s) * busy_s, rate(entries.peak))


def pings(posts: Flow, connection_hours: float, connections: float, heartbeat_s: float) -> Flow:
    """Heartbeats: after `heartbeat_s` in which a connection heard nothing, when frames come at random moments.

    A silence as long as the heartbeat follows what was heard with a chance of e^(-rate x heartbeat), and a ping is
    answered, so that r = (rate + r) e^(-rate x heartbeat). The busiest second has as many as a silent one.
    """
    if not connection_hours:
        return Flow(0, 0)
    heard = posts.month / (connection_hours * 3600) * heartbeat_s
    per_s = (heard / math.expm1(heard) if heard > 1e-9 else 1.0) / heartbeat_s if heard < 700 else 0.0
    return Flow(per_s * connection_hours * 3600, connections * per_s)


def sent_gb(load: Traffic, work: Work) -> float:
    """Gigabytes that leave for clients in a month: entries, signals, replies and pages, and what the network adds."""
    frames, around = work.frames, work.frames.transport_bytes
    entries = load.told["entries"].month
    pages = load.actions["history"].month * frames.page_entries * load.entry_bytes
    return (
        entries * (load.entry_bytes + around)
        + (load.posts.month - entries) * (frames.signal_bytes + around)
        + load.asked.month * (frames.reply_bytes + around)
        + pages
    ) / 1e9


def hours(count: float) -> float:
    """Hours a month of so many things that always run."""
    return count * HOURS
