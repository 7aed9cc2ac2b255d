"""What a kind of resource is made of: the service that makes it, its ARN, what must be there before, and how.

Makers call AWS's APIs through botocore and know nothing of where these are: an emulator, or what the user has named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from botocore import xform_name  # type: ignore[import-untyped]  # botocore has no types
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # likewise

from hubbub.emulator.definition import ACCOUNT, Arn, Resource
from hubbub.emulator.resources.coercion import coerced

Properties = Mapping[str, Any]
"""CloudFormation's properties: JSON."""


class Place(msgspec.Struct, frozen=True):
    """Where resources are."""

    region: str = "us-east-1"
    account: str = ACCOUNT

    def arn(self, service: str, rest: str) -> Arn:
        """The ARN of something here."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{rest}"


class Service:
    """An AWS service's API, called with CloudFormation's values.

    Args:
        client: botocore's client of it.
        place: where it is.

    """

    def __init__(self, client: Any, place: Place) -> None:  # Any: botocore makes its clients' classes as it runs
        self.client = client
        self.place = place

    def call(self, operation: str, parameters: Properties) -> dict[str, Any]:
        """Call `operation`, such as `CreateTable`; parameters that it does not know are left out.

        Raises:
            ValueError: a parameter cannot be what the operation takes.
            botocore.exceptions.ClientError: the service refuses.

        """
        shape = self.client.meta.service_model.operation_model(operation).input_shape
        arguments = coerced(shape, parameters, "")
        answer: dict[str, Any] = getattr(self.client, xform_name(operation))(**arguments)
        return answer

    def make(self, operation: str, parameters: Properties, *, there: Iterable[str] = ()) -> dict[str, Any] | None:
        """`call`, for what makes something; None where it is there already.

        Args:
            operation, parameters: as for `call`.
            there: the error codes that say so.

        """
        try:
            return self.call(operation, parameters)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in there:
                return None
            raise

    def wait(self, waiter: str, within_s: int = 30, **parameters: Any) -> None:
        """Wait until something is ready, with one of botocore's waiters.

        Raises:
            botocore.exceptions.WaiterError: it is not within `within_s`.

        """
        self.client.get_waiter(waiter).wait(WaiterConfig={"Delay": 1, "MaxAttempts": within_s}, **parameters)


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a maker's work.

    Attributes:
        attributes: what the service says of it, such as `QueueUrl` and `StreamArn`.
        remarks: what of it does not do here what it does on AWS.

    """

    attributes: dict[str, str] = {}
    remarks: tuple[str, ...] = ()


def _nothing(resource: Resource) -> Iterable[Arn]:
    return ()


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A type of resource.

    Attributes:
        service: botocore's name of the service that makes it.
        make: makes one, or finds it there.
        arn: its ARN; None where the service gives it one by chance.
        needs: the ARNs of what must be there before.
        used: the properties that `make` uses.

    """

    service: str
    make: Callable[[Service, Resource], Made]
    arn: Callable[[Place, Resource], Arn | None]
    needs: Callable[[Resource], Iterable[Arn]] = _nothing
    used: frozenset[str]


def section(properties: Properties, name: str) -> Properties:
    """The object that a property is; an empty one where it is absent.

    Raises:
        ValueError: it is something else.

    """
    return _object(properties.get(name) or {}, name)


def sections(properties: Properties, name: str) -> list[Properties]:
    """The objects in the list that a property is; likewise."""
    found = properties.get(name) or []
    if not isinstance(found, list):
        raise ValueError(f"{name}: expected a list, got {found!r}")
    return [_object(each, f"{name}[{index}]") for index, each in enumerate(found)]


def _object(value: Any, where: str) -> Properties:  # Any: JSON
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected an object, got {value!r}")
    return value


def named(service: str, before: str = "") -> Callable[[Place, Resource], Arn]:
    """ARNs that end in the resource's name, with `before` in front of it, such as `table/`."""

    def arn(place: Place, resource: Resource) -> Arn:
        return place.arn(service, f"{before}{resource.name}")

    return arn
