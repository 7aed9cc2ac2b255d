"""The one table by which failures of PostgreSQL become the chat's: what is tried again, waited out, or a defect."""

from __future__ import annotations

import enum
import logging
import random
import ssl
import traceback

import asyncpg

from hubbub.errors import Internal, Unavailable

logger = logging.getLogger("hubbub.store")


class Verdict(enum.Enum):
    """What a failure means for what was being done."""

    AGAIN = "somebody else was there first: done anew, it sees what he did"
    BUSY = "the server has not come to it: later, on the same connection"
    LOST = "the connection is of no use any more: later, on another one"
    DENIED = "the server is there and does not let us: later, once somebody has seen to it"
    DEFECT = "it will never do what it was asked"


_BY_STATE = {
    "0A000": Verdict.LOST,  # only for a plan that does not fit changed tables; see `verdict`
    "23505": Verdict.AGAIN,  # unique_violation: sent twice at once
    "25006": Verdict.LOST,  # read_only_sql_transaction: it is a standby now
    "25P02": Verdict.LOST,  # in_failed_sql_transaction
    "25P03": Verdict.LOST,  # idle_in_transaction_session_timeout
    "26000": Verdict.LOST,  # invalid_sql_statement_name: a pooler has changed what is behind the connection
    "42P05": Verdict.LOST,  # duplicate_prepared_statement: the same
    "3D000": Verdict.DENIED,  # the database is gone
    "3F000": Verdict.DENIED,  # the schema is gone
    "40001": Verdict.AGAIN,  # serialization_failure
    "40P01": Verdict.AGAIN,  # deadlock_detected
    "42501": Verdict.DENIED,  # insufficient_privilege
    "42P01": Verdict.DENIED,  # the tables are gone
    "55P03": Verdict.BUSY,  # lock_not_available: lock_timeout
    "57014": Verdict.BUSY,  # query_canceled: statement_timeout
}

_BY_CLASS = {
    "08": Verdict.LOST,  # the connection
    "28": Verdict.DENIED,  # who we are
    "53": Verdict.BUSY,  # disk full, out of memory, too many connections
    "57": Verdict.LOST,  # it shuts down, crashed, or starts
    "58": Verdict.LOST,  # its disk fails
}


_SETTING = "22023"
"""The state of an error that names a value of a setting; those of its class otherwise name values of people's."""


def verdict(error: BaseException) -> Verdict:
    """What `error`, raised by the driver, means."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state == "0A000" and not isinstance(error, asyncpg.exceptions.InvalidCachedStatementError):
            return Verdict.DEFECT
        return _BY_STATE.get(state) or _BY_CLASS.get(state[:2]) or Verdict.DEFECT
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError | ssl.SSLCertVerificationError):
        return Verdict.DENIED
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | TimeoutError | EOFError):
        return Verdict.LOST  # with what asyncpg says of a connection that is closed or in an unknown state
    return Verdict.DEFECT


def described(error: BaseException) -> str:
    """What a log says of it: without the statement's values, which are what people wrote."""
    if isinstance(error, asyncpg.exceptions.DataError) and error.sqlstate != _SETTING:
        return f"{error.sqlstate} a value that PostgreSQL does not take"
    if isinstance(error, asyncpg.PostgresError):
        return f"{error.sqlstate} {error.args[0] if error.args else ''}".strip()
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""What the driver raises."""


def unavailable() -> Unavailable:
    """What callers are told when their patience has ended."""
    return Unavailable(retry_after_ms=1_000)


def defect(what: str, error: BaseException) -> Internal:
    """What its caller is told of a failure that is our fault; the log has the rest, as far as it holds no values."""
    trace = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed: %s\n%s", what, described(error), trace)
    return Internal()


FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 2.0


def wait_s(tries: int) -> float:
    """How long to wait after so many tries: twice as long each time, a random part of it, so that nodes spread out.

    After the first there is no wait: a connection that broke says little of the next one.
    """
    if tries <= 1:
        return 0.0
    most_s: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(tries - 2, 10))
    return most_s * (0.5 + random.random() / 2)  # noqa: S311  no secret: spreads out those who wait
