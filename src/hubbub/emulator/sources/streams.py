"""DynamoDB streams: a table's changes, in order within each shard; a batch that fails holds up those behind it.

Source: docs.aws.amazon.com/lambda/latest/dg/with-ddb.html, services-dynamodb-errors.html and
docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Literal

from hubbub.emulator.clock import Clock
from hubbub.emulator.definition import EventSource
from hubbub.emulator.functions import Outcome
from hubbub.emulator.functions.destinations import Destinations, iso_timestamp, response_context
from hubbub.emulator.functions.invocations import Invocations
from hubbub.emulator.services import Document, ServiceClient, ServiceFailed
from hubbub.emulator.sources.batches import (
    Pace,
    Record,
    SourceInvalid,
    failed_items,
    invoke_patiently,
    number_of,
    region_of,
    split,
    warn_of,
)
from hubbub.emulator.sources.filters import Pattern

logger = logging.getLogger("hubbub.emulator")

_AT_ONCE = 1_000
"""How many records DynamoDB gives in one call."""

_RETENTION_S = 86_400.0
"""How long records are kept, and so tried, at most."""

_STALE = {"ExpiredIteratorException", "TrimmedDataAccessException"}
"""Why an iterator is refused that was good: both are mended by a new one."""


class StreamSource:
    """Invokes a function with a table's changes.

    Args:
        source: what the template says of it; its ARN may end in any label: the table's name is what counts.
        invocations: runs the function, and knows where records of failures go.
        services: where DynamoDB's streams are.
        clock, pace: when to do what.

    """

    def __init__(
        self, source: EventSource, invocations: Invocations, services: ServiceClient, clock: Clock, pace: Pace
    ) -> None:
        resource = source.source.split(":", 5)[-1].split("/")
        if len(resource) < 2 or resource[0] != "table":
            raise SourceInvalid(f"{source.logical_id}: expected the ARN of a table's stream, got {source.source}")
        if source.starting_position not in ("LATEST", "TRIM_HORIZON"):
            raise SourceInvalid(
                f"{source.logical_id}: expected LATEST or TRIM_HORIZON as StartingPosition, "
                f"got {source.starting_position}"
            )
        self.ready = asyncio.Event()
        self._source = source
        self._table = resource[1]
        self._services = services
        self._region = region_of(source.source)
        self._pace = pace
        self._clock = clock
        self._batches = _Batches(source, invocations, clock, pace)
        self._arn: str | None = None  # of the stream that is read; None before the first
        self._done: set[str] = set()  # shards that were read to their ends
        self._read: dict[str, str] = {}  # the last sequence number that was handled, by shard
        self._begun: dict[str, tuple[str, str]] = {}  # where shards were begun: the position, and the iterator there
        warn_of(
            source,
            {
                "ParallelizationFactor": "a shard's batches are handled one by one",
                "TumblingWindowInSeconds": "functions get no window and no state",
            },
        )

    async def run(self) -> None:
        """Read the table's stream for ever, and a new one when the table was made anew."""
        while True:
            arn = await self._find()
            if arn != self._arn:
                self._arn = arn
                for kept in (self._done, self._read, self._begun):
                    kept.clear()
            # of what appears once anything was read nothing may be missed
            await self._follow(arn, "TRIM_HORIZON" if self.ready.is_set() else self._source.starting_position)

    async def _follow(self, arn: str, position: str) -> None:
        """Read a stream, shard by shard, as long as it is the table's."""
        readers: dict[str, asyncio.Task[None]] = {}
        try:
            while await self._find() == arn:
                await self._begin(arn, readers, position)
                position = "TRIM_HORIZON"
                if readers:
                    await asyncio.wait(
                        readers.values(), timeout=self._pace.describe_s, return_when=asyncio.FIRST_COMPLETED
                    )
                else:
                    await self._clock.sleep(self._pace.describe_s)
                for shard in [shard for shard, reader in readers.items() if reader.done()]:
                    readers.pop(shard).result()
                    self._done.add(shard)
        finally:
            for reader in readers.values():
                reader.cancel()
            if readers:
                await asyncio.wait(readers.values())

    async def close(self) -> None:
        """There is nothing to take away."""

    async def _find(self) -> str:
        """The ARN of the table's stream: the one that is meant, or the newest there is."""
        listed = (await self._call("ListStreams", {"TableName": self._table})).get("Streams") or []
        arns: dict[str, str] = {each["StreamArn"]: each.get("StreamLabel", "") for each in listed}
        if self._source.source in arns:
            return self._source.source
        if not arns:
            raise ServiceFailed("ResourceNotFoundException", f"the table {self._table} has no stream")
        return max(arns, key=lambda arn: arns[arn])

    async def _begin(self, arn: str, readers: dict[str, asyncio.Task[None]], position: str) -> None:
        """Begin to read shards that are new, children after their parents."""
        shards = await self._shards(arn)
        known = {shard["ShardId"] for shard in shards}
        for shard in shards:
            name = shard["ShardId"]
            parent = shard.get("ParentShardId")
            if name in readers or name in self._done or (parent in known and parent not in self._done):
                continue
            if position == "LATEST" and "EndingSequenceNumber" in (shard.get("SequenceNumberRange") or {}):
                self._done.add(name)  # it is closed: nothing later will be in it
                continue
            reader = self._read_shard(arn, name, await self._first_iterator(arn, name, position))
            readers[name] = asyncio.get_running_loop().create_task(reader, name=f"{self._source.logical_id} {name}")
        self.ready.set()

    async def _shards(self, arn: str) -> list[Document]:
        shards: list[Document] = []
        asked: Document = {"StreamArn": arn}
        while True:
            description = (await self._call("DescribeStream", asked))["StreamDescription"]
            shards += description.get("Shards") or []
            if (last := description.get("LastEvaluatedShardId")) is None:
                return shards
            asked["ExclusiveStartShardId"] = last

    async def _first_iterator(self, arn: str, shard: str, position: str) -> str:
        """Where to begin with a shard, or to go on with it after a failure."""
        if shard not in self._begun:
            self._begun[shard] = position, await self._new_iterator(arn, shard, position)
        return await self._iterator(arn, shard) if shard in self._read else self._begun[shard][1]

    async def _iterator(self, arn: str, shard: str) -> str:
        """A new iterator: after what was handled, or where the shard was begun."""
        if (last := self._read.get(shard)) is not None:
            return await self._new_iterator(arn, shard, "AFTER_SEQUENCE_NUMBER", SequenceNumber=last)
        return await self._new_iterator(arn, shard, self._begun[shard][0])

    async def _new_iterator(self, arn: str, shard: str, kind: str, **more: str) -> str:
        asked = {"StreamArn": arn, "ShardId": shard, "ShardIteratorType": kind, **more}
        iterator: str = (await self._call("GetShardIterator", asked))["ShardIterator"]
        return iterator

    async def _read_shard(self, arn: str, shard: str, iterator: str | None) -> None:
        """Read a shard to its end, and hand its records over."""
        batch_size, window_s = self._source.batch_size, self._source.batch_window_s
        waiting: list[Record] = []
        closes_at = math.inf
        while iterator is not None:
            try:
                answer = await self._call("GetRecords", {"ShardIterator": iterator, "Limit": _AT_ONCE})
            except ServiceFailed as error:
                if error.code not in _STALE:
                    raise
                if error.code == "TrimmedDataAccessException":
                    self._read.pop(shard, None)
                    self._begun[shard] = "TRIM_HORIZON", iterator
                waiting.clear()  # they come again
                iterator = await self._iterator(arn, shard)
                continue
            records = [_record(each, arn) for each in answer.get("Records") or []]
            iterator = answer.get("NextShardIterator")
            if records and not waiting:
                closes_at = self._clock.now() + window_s
            waiting += records
            while waiting and (len(waiting) >= batch_size or self._clock.now() >= closes_at or iterator is None):
                batch = split(waiting, batch_size)[0]
                await self._batches.hand_over(arn, shard, batch)
                self._read[shard] = batch[-1]["dynamodb"]["SequenceNumber"]
                del waiting[: len(batch)]
            if not records:
                await self._clock.sleep(self._pace.short_poll_s)

    async def _call(self, operation: str, parameters: Document) -> Document:
        return await self._services.call("dynamodbstreams", operation, parameters, region=self._region)


class _Batches:
    """Gives batches to a function until they are handled or given up.

    Args:
        source: what the template says: retries, ages, whether a batch that fails is split, where failures go.
        invocations, clock, pace: as `StreamSource` has them.

    """

    def __init__(self, source: EventSource, invocations: Invocations, clock: Clock, pace: Pace) -> None:
        properties = source.properties
        attempts = number_of(source, "MaximumRetryAttempts", -1)
        age_s = number_of(source, "MaximumRecordAgeInSeconds", -1)
        self._source = source
        self._functions = invocations.functions
        self._destinations: Destinations = invocations.destinations
        self._clock = clock
        self._pace = pace
        self._retries = math.inf if attempts < 0 else attempts
        self._age_s = _RETENTION_S if age_s < 0 else min(age_s, _RETENTION_S)
        self._splits = str(properties.get("BisectBatchOnFunctionError", False)).lower() == "true"
        destination = (properties.get("DestinationConfig") or {}).get("OnFailure") or {}
        self._on_failure: str | None = destination.get("Destination")
        self._patterns = [Pattern(text) for text in source.filters]

    async def hand_over(self, arn: str, shard: str, records: list[Record]) -> None:
        """Invoke the function with records, again and again, until none is left.

        Args:
            arn, shard: where they come from.
            records: in order; those that the filters do not let through are left out.

        """
        if self._patterns:
            records = [each for each in records if any(pattern.takes(each) for pattern in self._patterns)]
        pending = [records] if records else []
        failures = 0  # in a row, of the batch that is next
        last: Outcome | None = None  # of the last of them
        while pending:
            batch = pending.pop(0)
            expires_at = _created_at(batch[-1]) + self._age_s
            outcome = await self._invoke(batch, expires_at)
            left = batch if outcome is None else self._left(batch, outcome)
            if len(left) < len(batch):
                failures, last = 0, None  # there was progress
            if not left:
                continue
            if outcome is not None:
                failures, last = failures + 1, outcome
            delay_s = min(self._pace.backoff_s[0] * 2 ** min(max(0, failures - 1), 16), self._pace.backoff_s[1])
            if outcome is None or self._clock.now() + delay_s > expires_at:
                await self._give_up(arn, shard, left, last, failures, "RecordAgeExceeded")
            elif self._splits and len(left) > 1:
                half = len(left) // 2
                pending[:0] = [left[:half], left[half:]]
                failures -= 1  # splitting does not count
                continue
            elif failures > self._retries:
                await self._give_up(arn, shard, left, last, failures, "RetryAttemptsExhausted")
            else:
                pending.insert(0, left)
                await self._clock.sleep(delay_s)
                continue
            failures, last = 0, None

    async def _invoke(self, batch: list[Record], expires_at: float) -> Outcome | None:
        """The outcome of a try; None where the records are too old for one, or the function is throttled until then."""
        if self._clock.now() > expires_at:
            return None
        return await invoke_patiently(
            self._functions, self._clock, self._pace, self._source.function, batch, expires_at
        )

    def _left(self, batch: list[Record], outcome: Outcome) -> list[Record]:
        """What is to be tried again: all from the first record on that was not handled."""
        ids = [each["dynamodb"]["SequenceNumber"] for each in batch]
        failed = failed_items(outcome, ids, self._source.report_batch_item_failures)
        first = next((at for at, each in enumerate(ids) if each in failed), len(ids))
        return batch[first:]

    async def _give_up(
        self,
        arn: str,
        shard: str,
        batch: list[Record],
        outcome: Outcome | None,
        tries: int,
        condition: Literal["RetryAttemptsExhausted", "RecordAgeExceeded"],
    ) -> None:
        """Say that records were not handled, and where they are in the stream."""
        logger.error("%s: %d records are given up: %s", self._source.logical_id, len(batch), condition)
        if self._on_failure is None:
            return
        record: Document = {
            "requestContext": {
                "requestId": outcome.request_id if outcome else None,
                "functionArn": self._functions.arn(self._source.function),
                "condition": condition,
                "approximateInvokeCount": tries,
            },
            "version": "1.0",
            "timestamp": iso_timestamp(self._clock.now()),
            "DDBStreamBatchInfo": {
                "shardId": shard,
                "startSequenceNumber": batch[0]["dynamodb"]["SequenceNumber"],
                "endSequenceNumber": batch[-1]["dynamodb"]["SequenceNumber"],
                "approximateArrivalOfFirstRecord": _whole_seconds(_created_at(batch[0])),
                "approximateArrivalOfLastRecord": _whole_seconds(_created_at(batch[-1])),
                "batchSize": len(batch),
                "streamArn": arn,
            },
        }
        if outcome is not None:
            record["responseContext"] = response_context(outcome.error)
        await self._destinations.send_record(self._on_failure, record)


def _record(record: Document, arn: str) -> Record:
    """A change as functions see it."""
    seen: Record = {
        **record,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": region_of(arn),
        "eventSourceARN": arn,
    }
    if identity := seen.pop("userIdentity", None):
        seen["userIdentity"] = {name[:1].lower() + name[1:]: value for name, value in identity.items()}
    return seen


def _created_at(record: Record) -> float:
    return float(record["dynamodb"].get("ApproximateCreationDateTime") or 0.0)


def _whole_seconds(epoch_s: float) -> str:
    return iso_timestamp(int(epoch_s)).replace(".000Z", "Z")
