"""A listener that does not read, among others at two nodes: they notice nothing, and it loses nothing in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.cluster import rss, running_cluster
from bench.slow_consumer import FILLED_AT_ONCE, ROOM, TEXT_BYTES, closed_as_slow, fill, gathered
from scripts.cluster import Cluster

from live import BOUND_S, until

LISTENERS = 12
OUTBOX_BYTES = 128 * 1024
GROWN_BYTES = 48 * 1024 * 1024
"""How much a node may grow while it passes on tens of megabytes: far less than them."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes that keep little for a connection."""
    with running_cluster(nodes=2, safe=False, settings={"outbox_bytes": str(OUTBOX_BYTES)}) as running:
        yield running


def kept_by_kernels() -> int:
    """How many bytes may wait in the kernel's buffers of a connection, at both of its ends."""
    return sum(int(Path(f"/proc/sys/net/ipv4/{name}").read_text().split()[2]) for name in ("tcp_wmem", "tcp_rmem"))


async def test_one_that_does_not_read_is_closed_with_4408_and_resumes_while_the_others_notice_nothing(
    cluster: Cluster,
):
    """Little is kept for it, the others get everything on the connections that they have, and so does it afterwards."""
    crowd, talker = await gathered(cluster, LISTENERS, 0)
    slow, *others = crowd.visitors
    try:
        memory = [rss(node) for node in cluster.nodes]
        slow.stop_reading()
        most = (kept_by_kernels() + OUTBOX_BYTES) // TEXT_BYTES + 2 * FILLED_AT_ONCE
        messages = 0
        while not await closed_as_slow(cluster.nodes):
            assert messages < most, f"{messages} messages of {TEXT_BYTES} bytes wait for it"
            await fill(talker, ROOM, FILLED_AT_ONCE)
            messages += FILLED_AT_ONCE
        slow.read_on()
        await until(lambda: crowd.closed.total() > 0, "its end", bound_s=BOUND_S)
        assert dict(crowd.closed) == {4408: 1}
        await until(lambda: not crowd.behind(talker.heads), "everybody has everything", bound_s=2 * BOUND_S)
        assert {each.last[ROOM] for each in [slow, *others]} == {talker.heads[ROOM]}
        assert (crowd.repeated, crowd.torn, crowd.resets) == (0, 0, 0)
        assert dict(crowd.closed) == {4408: 1}, "others lost their connections"
        assert await closed_as_slow(cluster.nodes) == 1
        for node, before in zip(cluster.nodes, memory, strict=True):
            assert rss(node) - before < GROWN_BYTES
    finally:
        talker.leave()
        await crowd.leave()
