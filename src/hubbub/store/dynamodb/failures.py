"""The one table by which failures of DynamoDB become the chat's, and the patience with which writes are tried again."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

from hubbub.aws.credentials import NoCredentials
from hubbub.aws.service import AwsError, Unanswered
from hubbub.aws.table import Cancelled, ConditionFailed, TableMissing
from hubbub.clock import Clock
from hubbub.errors import HubbubError, TooLarge, Unavailable

logger = logging.getLogger("hubbub.store")

_REFUSED = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
"""What AWS says of credentials that are wrong, have run out or may not do this; others may be there in a moment."""


def translated(error: AwsError | NoCredentials) -> Exception:
    """What a caller of the store is told; a defect of ours stays what it is."""
    match error:
        case NoCredentials():
            logger.error("DynamoDB cannot be called: %s", error)
            return Unavailable()
        case TableMissing():
            logger.error("the table is gone: %s", error.message)
            return Unavailable(retry_after_ms=5_000)
        case Unanswered():
            logger.warning("DynamoDB does not answer: %s", error.message)
            return Unavailable(retry_after_ms=1_000)
        case Cancelled() | ConditionFailed():
            return Unavailable(retry_after_ms=200)
    if error.is_throttle or error.type.startswith("Transaction"):
        return Unavailable(retry_after_ms=1_000)
    if error.type in _REFUSED:
        logger.error("DynamoDB refuses: %s", error)
        return Unavailable(retry_after_ms=5_000)
    if error.status is not None and error.status >= 500:
        logger.warning("DynamoDB fails: %s", error)
        return Unavailable(retry_after_ms=1_000)
    if error.type == "ValidationException" and "size" in error.message:
        return TooLarge("This is too large for one item of the table.")
    logger.error("DynamoDB does not take what it was asked: %s", error)
    return error


@contextmanager
def translating() -> Iterator[None]:
    """Translate what the calls in the block raise."""
    try:
        yield
    except (AwsError, NoCredentials) as error:
        raise translated(error) from error


BASE_S = 0.01
"""The least that a try is taken to last."""

SPREAD = (4, 8, 12, 16, 14, 12, 10, 8)
"""How many tries' time the longest wait is after each try, the last number after all further ones. It grows, so that a
crowd spreads out, and then falls again: who has lost often comes before those who have just begun."""

MOST_S = 5.0
"""The longest wait there is."""


class Patience:
    """How long a write is tried again when others are at the same place.

    Args:
        clock: time.
        within_s: until when tries are begun.

    Attributes:
        tries: how many waits there have been.

    """

    def __init__(self, clock: Clock, within_s: float) -> None:
        self.tries = 0
        self._clock = clock
        self._ends_at = clock.monotonic() + within_s
        self._since = clock.monotonic()  # since when the present try is under way

    async def wait(self) -> None:
        """Wait a random while, as `SPREAD` says, and on average the longer the longer tries take.

        Where a table is slow, or many wait for it, tries take long; then fewer at a time get more done.

        Raises:
            Unavailable: it has been tried for long enough; nothing was written.

        """
        if self._clock.monotonic() >= self._ends_at:
            raise self.ended()
        took_s = max(BASE_S, self._clock.monotonic() - self._since)
        most_s = min(MOST_S, took_s * SPREAD[min(self.tries, len(SPREAD) - 1)])
        self.tries += 1
        await self._clock.sleep(random.random() * most_s)  # noqa: S311  no secret: spreads out those who wait
        self._since = self._clock.monotonic()

    def ended(self) -> HubbubError:
        """What is said when it has."""
        return Unavailable("Too many write here at once; try again.", retry_after_ms=1_000)
