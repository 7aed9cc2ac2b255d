"""What is handed to the broadcaster, as JSON, and how: the only words that functions exchange.

Every job may come twice (Lambda's asynchronous invocations and SQS deliver at least once) and late; it means the same
then. A frame travels in its job as text, for the broadcaster would otherwise read it from the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from hubbub.model import ConnectionId, RoomId

MAX_FRAMES_BYTES = 200_000
"""How many bytes of frames travel in a job: an asynchronous invocation and a message of SQS have at most 256 KB."""


class Job(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="job"):
    """Base of all jobs.

    Attributes:
        id: the same whenever the same job comes again; at most 128 characters.
        room: the room whose listeners it concerns.

    """

    id: str
    room: RoomId


class Deliver(Job, kw_only=True, tag="deliver"):
    """The entry `seq` was written.

    Attributes:
        seq: its place in the log.
        frame: what listeners get; None when it was too long to travel, and is read from the log.

    """

    seq: int
    frame: str | None = None


class Announce(Job, kw_only=True, tag="announce"):
    """The log ends at `head`: deliver what was lost of it; where nothing was, listeners are told `frame` once."""

    head: int
    frame: str


class Signal(Job, kw_only=True, tag="signal"):
    """Hand `frame` to the room's listeners but `exclude`; it may be lost, and is not tried again for long."""

    frame: str
    exclude: ConnectionId | None = None


class Part(Job, kw_only=True, tag="part"):
    """One share of a broadcast that was split.

    Attributes:
        first_shard, last_shard: whose listeners it serves, both included.
        each: how many of these shards one broadcaster serves himself; he hands on the rest.
        upto: deliver what its listeners lack up to this entry; 0 for a signal.
        frames: the last of those entries as (seq, frame), as far as they are not too long to travel.
        announce: the head's frame, which listeners who lack nothing up to `upto` are told once.
        signal: the signal's frame, in place of entries.
        exclude: who does not get that.

    """

    first_shard: int
    last_shard: int
    each: int = 1
    upto: int = 0
    frames: list[tuple[int, str]] = []
    announce: str | None = None
    signal: str | None = None
    exclude: ConnectionId | None = None


AnyJob = Deliver | Announce | Signal | Part

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyJob] = msgspec.json.Decoder(AnyJob)


def encode_job(job: AnyJob) -> bytes:
    """The JSON object of a job, in UTF-8."""
    return _encoder.encode(job)


def decode_job(data: bytes | str) -> AnyJob:
    """The job of which `encode_job` made this.

    Raises:
        ValueError: it is none; the message says what is wrong with it.

    """
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"job: expected one of a broadcast's jobs, got something else: {error}") from error


class Transport(Protocol):
    """Hands jobs to the broadcaster, which runs on its own."""

    async def hand(self, jobs: Sequence[AnyJob]) -> None:
        """Return when all `jobs` are durably handed over, at least once each.

        Raises:
            hubbub.errors.Unavailable: some were not, or it is not known; hand them over again.

        """
        ...
