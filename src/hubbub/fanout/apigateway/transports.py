"""How jobs come to the broadcaster: an asynchronous invocation, a queue, or a task in this process.

Sources: "Invoke" in the Lambda API reference, "SendMessageBatch" in that of SQS, and "Using the message deduplication
ID" in the SQS developer guide.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import msgspec

from hubbub.aws.service import Service
from hubbub.clock import Clock
from hubbub.errors import TooLarge, Unavailable
from hubbub.fanout.apigateway.failures import translated
from hubbub.fanout.apigateway.jobs import AnyJob, Deliver, Part, Transport, encode_job
from hubbub.parallel import each

logger = logging.getLogger(__name__)

MAX_JOB_BYTES = 256 * 1024
"""The longest event of an asynchronous invocation, and the most that one call gives to a queue."""

BATCH = 10
"""How many messages one call gives to a queue."""

HAND_WITHIN_S = 5.0
"""How long tries of handing over go on: who sends a message waits for it."""


class LambdaTransport(Transport):
    """Invokes a function for each job, asynchronously: Lambda keeps the event and tries again where the function fails.

    Args:
        service: Lambda.
        function: the function's name or ARN; with a colon and an alias, if it has some.

    """

    def __init__(self, service: Service, function: str) -> None:
        self._service = service
        self._path = f"/2015-03-31/functions/{quote(function, safe='')}/invocations"
        self._function = function

    def __repr__(self) -> str:
        return f"<LambdaTransport to {self._function}>"

    @translated
    async def hand(self, jobs: Sequence[AnyJob]) -> None:
        """Return when Lambda has taken all events; see the port."""
        await each(self._invoke, jobs)

    async def _invoke(self, job: AnyJob) -> None:
        await self._service.rest(
            "POST",
            self._path,
            headers=(("Content-Type", "application/json"), ("X-Amz-Invocation-Type", "Event")),
            body=fitting(job),
            deadline_s=HAND_WITHIN_S,
        )


class QueueTransport(Transport):
    """Puts jobs into an SQS queue, of either kind.

    In a FIFO queue the jobs of a room come one after the other and the same job once in five minutes; the parts of a
    broadcast are groups of their own, for they are to be done beside each other.

    Args:
        service: SQS.
        url: the queue's.

    """

    def __init__(self, service: Service, url: str) -> None:
        self._service = service
        self._url = url
        self._is_fifo = url.endswith(".fifo")

    def __repr__(self) -> str:
        return f"<QueueTransport to {self._url}>"

    @translated
    async def hand(self, jobs: Sequence[AnyJob]) -> None:
        """Return when the queue has all jobs; see the port."""
        await each(self._send, _batches([(job, fitting(job)) for job in jobs]))

    async def _send(self, batch: Sequence[tuple[AnyJob, bytes]]) -> None:
        entries = [
            {"Id": str(place), "MessageBody": body.decode(), **self._about(job)}
            for place, (job, body) in enumerate(batch)
        ]
        answer = await self._service.call(
            "SendMessageBatch", {"QueueUrl": self._url, "Entries": entries}, deadline_s=HAND_WITHIN_S
        )
        failed: list[dict[str, Any]] = answer.get("Failed") or []  # Any: JSON
        if failed:
            words = f"{len(failed)} of {len(entries)} jobs were not taken, the first for {failed[0].get('Code')}"
            logger.warning("%s: %s", self._url, words)
            raise Unavailable

    def _about(self, job: AnyJob) -> dict[str, str]:
        if not self._is_fifo:
            return {}
        group = f"{job.room}:{job.first_shard}" if isinstance(job, Part) else job.room
        return {"MessageGroupId": group, "MessageDeduplicationId": job.id}


Run = Callable[[AnyJob], Awaitable[None]]
"""Does a job: `Broadcaster.run`, with the time that it may take."""


class DirectTransport(Transport):
    """Does the jobs in this process, in tasks that it owns: for one process that is all there is, and for tests.

    A job that fails is tried again like one of Lambda's asynchronous invocations, sooner; then it is given up. Jobs
    that are under way when the process ends are lost, as a fan-out may lose them; `drain` waits for them.

    Args:
        run: does a job; None until it is set, for a broadcaster needs its transport first.
        clock: time.
        most: how many jobs may be under way.
        retries: how often a job is tried again.
        wait_s: the longest wait before that; it doubles.

    """

    def __init__(
        self, run: Run | None = None, *, clock: Clock, most: int = 10_000, retries: int = 2, wait_s: float = 0.5
    ) -> None:
        self.run = run
        self._clock = clock
        self._most = most
        self._retries = retries
        self._wait_s = wait_s
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<DirectTransport, {len(self._tasks)} jobs under way>"

    async def __aenter__(self) -> DirectTransport:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def hand(self, jobs: Sequence[AnyJob]) -> None:
        """Begin the jobs; see the port."""
        if self.run is None or len(self._tasks) + len(jobs) > self._most:
            raise Unavailable("Too much is to be handed out just now; try again.", retry_after_ms=1_000)
        for job in jobs:
            task = asyncio.get_running_loop().create_task(self._do(self.run, job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self, within_s: float = 10.0) -> None:
        """Return when all jobs are done, those included that they have handed over themselves; at most `within_s`."""
        deadline = asyncio.get_running_loop().time() + within_s
        while self._tasks and (left_s := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)

    async def aclose(self) -> None:
        """Stop what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _do(self, run: Run, job: AnyJob) -> None:
        for tries in range(self._retries + 1):
            try:
                await run(job)
            except Exception:  # as Lambda would: whatever it is, the job comes again, and at last it is said
                if tries == self._retries:
                    logger.exception("a job is given up, room %s: %s", job.room, job.id)
                    return
                logger.info("a job failed and comes again, room %s: %s", job.room, job.id, exc_info=True)
                await self._clock.sleep(random.random() * self._wait_s * 2**tries)  # noqa: S311  no secret
            else:
                return


def fitting(job: AnyJob) -> bytes:
    """A job's JSON, without its entries' frames where it would be too long with them: they are then read from the log.

    Raises:
        TooLarge: it is too long even so.

    """
    body = encode_job(job)
    if len(body) > MAX_JOB_BYTES and isinstance(job, Deliver):
        body = encode_job(msgspec.structs.replace(job, frame=None))
    elif len(body) > MAX_JOB_BYTES and isinstance(job, Part):
        body = encode_job(msgspec.structs.replace(job, frames=[]))
    if len(body) > MAX_JOB_BYTES:
        raise TooLarge(f"A job may have {MAX_JOB_BYTES} bytes; this one has {len(body)}.")
    return body


def _batches(jobs: Sequence[tuple[AnyJob, bytes]]) -> list[list[tuple[AnyJob, bytes]]]:
    """In batches of so many, and of so many bytes in all."""
    batches: list[list[tuple[AnyJob, bytes]]] = []
    size = MAX_JOB_BYTES
    for job, body in jobs:
        if size + len(body) > MAX_JOB_BYTES or len(batches[-1]) == BATCH:
            batches.append([])
            size = 0
        batches[-1].append((job, body))
        size += len(body)
    return batches
