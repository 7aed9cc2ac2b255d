"""DynamoDB tables, with their indexes, streams and times to live.

Source: AWS::DynamoDB::Table and AWS::DynamoDB::GlobalTable in the CloudFormation reference.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # botocore has no types

from hubbub.emulator.definition import Resource
from hubbub.emulator.resources.coercion import text_of
from hubbub.emulator.resources.kinds import Kind, Made, Properties, Service, named, section, sections

_CREATED_WITH = (
    "AttributeDefinitions",
    "KeySchema",
    "BillingMode",
    "GlobalSecondaryIndexes",
    "LocalSecondaryIndexes",
    "ProvisionedThroughput",
    "OnDemandThroughput",
    "TableClass",
    "DeletionProtectionEnabled",
)


def _make_table(service: Service, resource: Resource) -> Made:
    properties = resource.properties
    parameters = {name: properties[name] for name in _CREATED_WITH if name in properties}
    return _make(service, resource, parameters, "StreamSpecification" in properties)


def _make_global_table(service: Service, resource: Resource) -> Made:
    """A global table has one replica here, and no capacity: scaling sets that on AWS."""
    properties = resource.properties
    parameters: dict[str, Any] = {name: properties[name] for name in _CREATED_WITH if name in properties}
    parameters["BillingMode"] = "PAY_PER_REQUEST"
    several = len(sections(properties, "Replicas")) > 1
    made = _make(service, resource, parameters, several or "StreamSpecification" in properties)
    remark = "one replica is made, in this region"
    return Made(attributes=made.attributes, remarks=(remark,) if several else ())


def _make(service: Service, resource: Resource, parameters: dict[str, Any], streams: bool) -> Made:
    parameters["TableName"] = resource.name
    if streams:
        view = section(resource.properties, "StreamSpecification").get("StreamViewType", "NEW_AND_OLD_IMAGES")
        parameters["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": view}
    service.make("CreateTable", parameters, there=("ResourceInUseException",))
    service.wait("table_exists", TableName=resource.name)
    _set_time_to_live(service, resource.name, section(resource.properties, "TimeToLiveSpecification"))
    table = service.call("DescribeTable", {"TableName": resource.name})["Table"]
    attributes = {"Arn": table["TableArn"]}
    if "LatestStreamArn" in table:
        attributes["StreamArn"] = table["LatestStreamArn"]
    return Made(attributes=attributes)


def _set_time_to_live(service: Service, table: str, specification: Properties) -> None:
    """Set the attribute that says when an item ends; a table that has it already refuses it."""
    if text_of(specification.get("Enabled", False)).lower() != "true":
        return  # it is off, and turning off what is off is refused
    wanted = {"AttributeName": specification.get("AttributeName"), "Enabled": True}
    try:
        service.call("UpdateTimeToLive", {"TableName": table, "TimeToLiveSpecification": wanted})
    except ClientError as error:
        if "already enabled" not in error.response.get("Error", {}).get("Message", ""):
            raise


_USED = frozenset({*_CREATED_WITH, "TableName", "StreamSpecification", "TimeToLiveSpecification"})

TABLE = Kind(service="dynamodb", make=_make_table, arn=named("dynamodb", "table/"), used=_USED)

GLOBAL_TABLE = Kind(
    service="dynamodb",
    make=_make_global_table,
    arn=named("dynamodb", "table/"),
    used=_USED | {"Replicas", "WriteProvisionedThroughputSettings", "WriteOnDemandThroughputSettings"},
)
