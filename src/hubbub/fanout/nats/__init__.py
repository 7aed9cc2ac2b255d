"""The fan-out of the cluster home: every node has its own listeners, and NATS carries what others must hear of.

NATS may lose anything: entries are repaired from the store, orders by numbers, presence by snapshots and digests.
"""

from hubbub.fanout.nats.address import Address, parse_address
from hubbub.fanout.nats.fanout import NatsFanout
from hubbub.fanout.nats.stats import NatsStats

__all__ = ["Address", "NatsFanout", "NatsStats", "parse_address"]
