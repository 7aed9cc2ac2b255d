"""What the connections of a gateway have in common, and that gateways have nothing in common."""

from __future__ import annotations

import sys

from gatewaylab import Lab, running
from rawpeer import request

from hubbub.gateway.sockets import KNOWN_WORDS, LONGEST_WORD, Connection, Words


def connections(lab: Lab) -> list[Connection]:
    return [peer.context for peer in lab.hub.peers()]


async def test_each_gateway_reads_into_a_buffer_of_its_own() -> None:
    """Or two whose loops are in two threads would read into each other's; those of one gateway share it."""
    async with running() as lab, running() as other, await lab.open(), await lab.open(), await other.open():
        one, same = (connection.get_buffer(-1) for connection in connections(lab))
        (another,) = (connection.get_buffer(-1) for connection in connections(other))
        assert one.obj is same.obj
        assert one.obj is not another.obj


async def test_what_many_clients_say_is_kept_once(lab: Lab) -> None:
    """Host, address and user agent of equal clients are the same objects, and none that stays for ever."""
    head = request(User_Agent="an agent that nobody else has")
    async with await lab.open(head), await lab.open(head):
        one, other = connections(lab)
        assert one.host is other.host
        assert one.identity.source_ip is other.identity.source_ip
        agent = one.identity.user_agent
        assert agent is other.identity.user_agent
        assert agent == "an agent that nobody else has"
        assert sys.intern("".join(["an agent ", "that nobody ", "else has"])) is not agent


def test_what_clients_say_is_remembered_in_bounds() -> None:
    """However many different things they say, and however long: then it is kept by each for itself."""
    words = Words()
    for number in range(3 * KNOWN_WORDS):
        assert words.same(f"agent {number}") == f"agent {number}"
    assert 0 < len(words._known) <= KNOWN_WORDS
    long = "x" * (LONGEST_WORD + 1)
    assert words.same(long) is long
    assert long not in words._known
