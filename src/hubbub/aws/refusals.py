"""What DynamoDB refuses and callers tell apart: conditions that do not hold, transactions cancelled, no table.

Source: "Error handling with DynamoDB" and "TransactWriteItems" in its developer guide and API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from hubbub.aws.marshalling import Item, unpack_item
from hubbub.aws.service import AwsError

ErrorT = TypeVar("ErrorT", bound=AwsError)

_PASSING = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})


class ConditionFailed(AwsError):
    """A write's condition does not hold.

    Attributes:
        item: what is there instead; None if nothing is.

    """

    item: Item | None = None


class Reason(NamedTuple):
    """What became of one action of a transaction.

    Attributes:
        code: why it stood in the way, as `ConditionalCheckFailed` or `TransactionConflict`; None if it did not.
        item: what is there, if its condition did not hold; None if nothing is.

    """

    code: str | None
    item: Item | None


class Cancelled(AwsError):
    """A transaction was not done.

    Attributes:
        reasons: one for each action, in their order.

    """

    reasons: list[Reason]

    @property
    def is_conflict(self) -> bool:
        """Whether nothing stood in its way but others at work, on the same items or too many, so that it may pass."""
        codes = {reason.code for reason in self.reasons} - {None}
        return bool(codes) and codes <= _PASSING


class TableMissing(AwsError):
    """There is no such table, or not yet."""


def translated(error: AwsError) -> AwsError:
    """DynamoDB's refusals that callers tell apart."""
    match error.type:
        case "ConditionalCheckFailedException":
            failed = _as(ConditionFailed, error)
            failed.item = _item_in(error.document)
            return failed
        case "TransactionCanceledException":
            cancelled = _as(Cancelled, error)
            said = error.document.get("CancellationReasons", ())
            cancelled.reasons = [Reason(_code(reason), _item_in(reason)) for reason in said]
            return cancelled
        case "ResourceNotFoundException":
            return _as(TableMissing, error)
        case _:
            return error


def _as(kind: type[ErrorT], error: AwsError) -> ErrorT:
    return kind(error.type, error.message, status=error.status, is_in_doubt=error.is_in_doubt, document=error.document)


def _code(reason: Mapping[str, Any]) -> str | None:  # Any: JSON
    code = reason.get("Code")
    return None if code == "None" else code


def _item_in(document: Mapping[str, Any]) -> Item | None:  # Any: JSON
    packed = document.get("Item")
    return unpack_item(packed) if packed else None
