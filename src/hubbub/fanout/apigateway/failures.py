"""What AWS refuses or does not answer, said in the chat's own errors: the one place where the two meet."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from hubbub.aws.credentials import NoCredentials
from hubbub.aws.service import AwsError, Unanswered
from hubbub.aws.table import Cancelled, TableMissing
from hubbub.errors import Unavailable

logger = logging.getLogger(__name__)

ArgumentsT = ParamSpec("ArgumentsT")
ResultT = TypeVar("ResultT")

_Asked = Callable[ArgumentsT, Coroutine[Any, Any, ResultT]]  # Any: what coroutines are sent and yield, which is nothing


def translated(asked: _Asked[ArgumentsT, ResultT]) -> _Asked[ArgumentsT, ResultT]:
    """Let a coroutine function raise `Unavailable` where AWS cannot do just now what it asks.

    What AWS refuses for good, such as a permission that is lacking, is a defect of the deployment and passes as it is.
    """

    @functools.wraps(asked)
    async def asks(*args: ArgumentsT.args, **kwargs: ArgumentsT.kwargs) -> ResultT:
        try:
            return await asked(*args, **kwargs)
        except AwsError as error:
            if not passes(error):
                raise
            if isinstance(error, TableMissing):
                logger.error("the table is missing: %s", error)
            raise Unavailable from error
        except NoCredentials as error:
            logger.error("calls to AWS cannot be signed: %s", error)
            raise Unavailable from error

    return asks


def passes(error: AwsError) -> bool:
    """Whether the same call can succeed later: too much at a time, no answer, AWS's own failure, others at work."""
    if isinstance(error, Cancelled):
        return {reason.code for reason in error.reasons} <= _PASSING
    return (
        error.is_throttle
        or isinstance(error, Unanswered | TableMissing)
        or (error.status is not None and error.status >= 500)
    )


_PASSING = {None, "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
"""Why a transaction may be cancelled though nothing is wrong with it."""
