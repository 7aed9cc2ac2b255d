"""Subjects: where in NATS what is published.

`<prefix>.room.<group>.<room>`, `<prefix>.user.<group>.<user>`, `<prefix>.nodes` (all nodes), `<prefix>.node.<id>`. A
dot separates tokens, so a room's dots become slashes; a user's id may be anything, so its hash stands for it.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from base64 import urlsafe_b64encode

from hubbub.model import RoomId, UserId

GROUPS = 256
"""How many groups there are of rooms, and of users; the same on every node, for publishers name the group."""

PREFIX_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,32}(\.[A-Za-z0-9_-]{1,32}){0,7}")
"""What may stand before all subjects."""


def group_of(token: str) -> int:
    """The group of a room's or user's token."""
    return zlib.crc32(token.encode()) % GROUPS


class Subjects:
    """The subjects under one prefix.

    Args:
        prefix: what they begin with; clusters that share a NATS account have different ones.

    """

    def __init__(self, prefix: str) -> None:
        self._rooms = f"{prefix}.room."
        self._users = f"{prefix}.user."
        self._node = f"{prefix}.node."
        self.nodes = f"{prefix}.nodes"

    def room(self, room: RoomId) -> str:
        """Of what concerns a room's listeners."""
        token = room.replace(".", "/")
        return f"{self._rooms}{group_of(token)}.{token}"

    def user(self, user: UserId) -> str:
        """Of what concerns a user's connections; as long for every id."""
        digest = hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=18).digest()
        token = urlsafe_b64encode(digest).decode()
        return f"{self._users}{group_of(token)}.{token}"

    def node(self, node: str) -> str:
        """Of what concerns one node."""
        return f"{self._node}{node}"

    @staticmethod
    def whole_group(subject: str) -> str:
        """The wildcard that covers a room's or user's subject and all others of its group."""
        return f"{subject[: subject.rindex('.')]}.*"
