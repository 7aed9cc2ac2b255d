"""What a cluster fan-out counts, for whoever shows metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class NatsStats:
    """Plain numbers; those that only grow are counters, the others say how it is now.

    Attributes:
        connected: whether there is a connection to a NATS server; 1 or 0.
        reconnects: connections made after the first.
        subscriptions: subjects that are subscribed to.
        nodes: other nodes that are alive.
        rooms: rooms whose subjects are subscribed to, or that are heard in a group.
        published, published_bytes: packets handed to NATS.
        received, received_bytes: packets that came, those for rooms that nobody listens to here included.
        ignored: packets for rooms and users that nobody here cares for.
        dropped: things not handed to NATS, because it was away, too slow, or they were too large; entries among them
            are repaired by the receivers.
        duplicates: packets that came twice, while subscriptions changed.
        malformed: packets that could not be read.
        heads_read: rooms whose heads were read from the store.
        repairs: rooms in which such a look found something missing.
        orders_missed: orders of other nodes that were missed and could not be had again.

    """

    connected: int = 0
    reconnects: int = 0
    subscriptions: int = 0
    nodes: int = 0
    rooms: int = 0
    published: int = 0
    published_bytes: int = 0
    received: int = 0
    received_bytes: int = 0
    ignored: int = 0
    dropped: int = 0
    duplicates: int = 0
    malformed: int = 0
    heads_read: int = 0
    repairs: int = 0
    orders_missed: int = 0
