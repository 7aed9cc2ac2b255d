"""What `Ref` and `Fn::GetAtt` return for a resource, computed without creating it.

Source: the "Return values" of each resource in the CloudFormation template reference.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.intrinsics import MadeUp

_COMPLETE: Final = (
    *("AWS::ApiGatewayV2::", "AWS::DynamoDB::", "AWS::Lambda::", "AWS::S3::Bucket", "AWS::SNS::", "AWS::SQS::"),
    *("AWS::SSM::Parameter", "AWS::SecretsManager::Secret"),
)

STREAM_LABEL: Final = "2024-01-01T00:00:00.000"
"""When every table's stream is said to have been made; on AWS that is part of its ARN."""


class Returned(NamedTuple):
    """What a resource is called and what is known of it.

    Attributes:
        name: at its service.
        ref: what `Ref` is.
        attributes: what `Fn::GetAtt` is, by name.

    """

    name: str
    ref: str
    attributes: Mapping[str, str]


def returned(of: Declared) -> Returned:
    """What a resource returns; for one of a type that is not known here a plausible name and ARN.

    Raises:
        TemplateError: the properties that its name is made of cannot be resolved.

    """
    known = _KNOWN.get(of.type)
    return known(of) if known else _unknown(of)


def is_known(type_: str) -> bool:
    """Whether the attributes of this type are all known, so that another one is a mistake."""
    return type_ in _KNOWN and type_.startswith(_COMPLETE)


def _unknown(of: Declared) -> Returned:
    _, service, kind = (*of.type.split("::"), "", "")[:3]
    name = of.generated_name(128)
    arn = of.arn(service.lower() or "custom", f"{kind.lower()}/{name}")
    return Returned(name, MadeUp(name), {"Arn": MadeUp(arn)})


def _named(key: str, arn: str, *, limit: int = 64, ref: str = "name", **more: str) -> Callable[[Declared], Returned]:
    """A resource with a name and an ARN: `arn` is `service:before the name`; `ref` says which of both Ref is."""
    service, before = arn.split(":", 1)

    def made(of: Declared) -> Returned:
        name = of.text(key, of.generated_name(limit))
        full = of.arn(service, f"{before}{name}")
        values = {"name": name, "arn": full}
        attributes = {"Arn": full} | {attribute: values[value] for attribute, value in more.items()}
        return Returned(name, values[ref], attributes)

    return made


def _identified(length: int, attribute: str = "") -> Callable[[Declared], Returned]:
    """A resource with nothing but an id."""

    def made(of: Declared) -> Returned:
        id_ = of.generated_id(length)
        return Returned(id_, id_, {attribute: id_} if attribute else {})

    return made


def _iam(key: str, kind: str, *, ref: str = "name", **more: str) -> Callable[[Declared], Returned]:
    """What IAM has is of no region."""

    def made(of: Declared) -> Returned:
        name = of.text(key, of.generated_name())
        path = of.text("Path", "/")
        full = f"arn:aws:iam::{of.template.surroundings.account}:{kind}{path}{name}"
        values = {"name": name, "arn": full, "id": of.generated_id(21).upper()}
        attributes = {attribute: values[value] for attribute, value in more.items()}
        return Returned(name, values[ref], attributes)

    return made


def _api(of: Declared) -> Returned:
    id_ = of.generated_id(10)
    scheme = "wss" if of.text("ProtocolType", "HTTP") == "WEBSOCKET" else "https"
    host = of.template.api_host(of) or f"{id_}.execute-api.{of.template.surroundings.region}.amazonaws.com"
    return Returned(
        id_, id_, {"ApiId": id_, "ApiEndpoint": f"{scheme}://{host}", "ExecuteApiArn": of.arn("execute-api", id_)}
    )


def _stage(of: Declared) -> Returned:
    name = of.text("StageName")
    return Returned(name, name, {})


def _domain(of: Declared) -> Returned:
    name = of.text("DomainName")
    region = of.template.surroundings.region
    attributes = {
        "RegionalDomainName": f"d-{of.generated_id(10)}.execute-api.{region}.amazonaws.com",
        "RegionalHostedZoneId": "Z1UJRXOUMOOFQ8",
        "DomainNameArn": f"arn:aws:apigateway:{region}::/domainnames/{name}",
    }
    return Returned(name, name, attributes)


def _function(of: Declared) -> Returned:
    name = of.text("FunctionName", of.generated_name())
    name = name.rpartition(":function:")[2]  # the property may be an ARN
    arn = of.arn("lambda", f"function:{name}")
    states = {"SnapStartResponse.ApplyOn": "None", "SnapStartResponse.OptimizationStatus": "Off"}
    return Returned(name, name, {"Arn": arn, **states})


def function_arn(of: Declared, key: str = "FunctionName") -> str:
    """The ARN that a property means that may be a function's name, ARN or part of an ARN; no version, no alias."""
    parts = of.text(key).split(":")
    if "function" in parts:
        parts = parts[parts.index("function") + 1 :]
    return of.arn("lambda", f"function:{parts[0]}")


def _version(of: Declared) -> Returned:
    number = str(of.template.position(of, "FunctionName"))
    arn = f"{function_arn(of)}:{number}"
    return Returned(number, arn, {"Version": number, "FunctionArn": arn})


def _alias(of: Declared) -> Returned:
    arn = f"{function_arn(of)}:{of.text('Name')}"
    return Returned(of.text("Name"), arn, {"AliasArn": arn})


def _layer(of: Declared) -> Returned:
    name = of.text("LayerName", of.logical_id)
    arn = of.arn("lambda", f"layer:{name}:{of.template.position(of, 'LayerName')}")
    return Returned(name, arn, {"LayerVersionArn": arn})


def _mapping(of: Declared) -> Returned:
    id_ = _uuid(of)
    return Returned(id_, id_, {"Id": id_, "EventSourceMappingArn": of.arn("lambda", f"event-source-mapping:{id_}")})


def _url(of: Declared) -> Returned:
    arn = function_arn(of, "TargetFunctionArn")
    host = f"{of.generated_id(32)}.lambda-url.{of.template.surroundings.region}.on.aws"
    return Returned(arn, arn, {"FunctionArn": arn, "FunctionUrl": f"https://{host}/"})


def _table(of: Declared) -> Returned:
    name = of.text("TableName", of.generated_name(255))
    arn = of.arn("dynamodb", f"table/{name}")
    is_global = of.type == "AWS::DynamoDB::GlobalTable"
    attributes = {"Arn": arn, "TableId": _uuid(of)} if is_global else {"Arn": arn}
    if is_global or of.get("StreamSpecification"):
        attributes["StreamArn"] = f"{arn}/stream/{STREAM_LABEL}"
    return Returned(name, name, attributes)


def _queue(of: Declared) -> Returned:
    name = of.text("QueueName", of.generated_name(80, ".fifo" if of.flag("FifoQueue") else ""))
    around = of.template.surroundings
    url = f"{around.sqs_url.rstrip('/')}/{around.account}/{name}"
    return Returned(name, url, {"Arn": of.arn("sqs", name), "QueueName": name, "QueueUrl": url})


def _topic(of: Declared) -> Returned:
    name = of.text("TopicName", of.generated_name(256, ".fifo" if of.flag("FifoTopic") else ""))
    arn = of.arn("sns", name)
    return Returned(name, arn, {"TopicArn": arn, "TopicName": name})


def _subscription(of: Declared) -> Returned:
    arn = f"{of.text('TopicArn')}:{_uuid(of)}"
    return Returned(arn, arn, {"Arn": arn})


def _parameter(of: Declared) -> Returned:
    name = of.text("Name", f"CFN-{of.logical_id}-{of.generated_id(12)}")
    arn = of.arn("ssm", f"parameter/{name.lstrip('/')}")
    return Returned(name, name, {"Arn": arn, "Type": of.text("Type", "String"), "Value": of.text("Value", "")})


def _secret(of: Declared) -> Returned:
    name = of.text("Name", f"{of.logical_id}-{of.generated_id(12)}")
    arn = of.arn("secretsmanager", f"secret:{name}")  # without the random letters, which the service chooses, and takes
    return Returned(name, arn, {"Id": arn})


def _bucket(of: Declared) -> Returned:
    name = of.text("BucketName", of.generated_name(63).lower())
    region = of.template.surroundings.region
    attributes = {
        "Arn": f"arn:aws:s3:::{name}",
        "DomainName": f"{name}.s3.amazonaws.com",
        "DualStackDomainName": f"{name}.s3.dualstack.{region}.amazonaws.com",
        "RegionalDomainName": f"{name}.s3.{region}.amazonaws.com",
        "WebsiteURL": f"http://{name}.s3-website-{region}.amazonaws.com",
    }
    return Returned(name, name, attributes)


def _log_group(of: Declared) -> Returned:
    name = of.text("LogGroupName", of.generated_name(512))
    return Returned(name, name, {"Arn": of.arn("logs", f"log-group:{name}:*")})


def _key(of: Declared) -> Returned:
    id_ = _uuid(of)
    return Returned(id_, id_, {"Arn": of.arn("kms", f"key/{id_}"), "KeyId": id_})


def _user_pool(of: Declared) -> Returned:
    region = of.template.surroundings.region
    id_ = f"{region}_{of.generated_id(9)}"
    provider = f"cognito-idp.{region}.amazonaws.com/{id_}"
    attributes = {"Arn": of.arn("cognito-idp", f"userpool/{id_}"), "ProviderName": provider, "UserPoolId": id_}
    return Returned(id_, id_, attributes | {"ProviderURL": f"https://{provider}"})


def _user_pool_client(of: Declared) -> Returned:
    id_ = of.generated_id(26)
    return Returned(
        id_, id_, {"ClientId": id_, "ClientSecret": of.generated_id(51), "Name": of.text("ClientName", id_)}
    )


def _uuid(of: Declared) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{of.template.surroundings.stack_name}/{of.type}/{of.logical_id}"))


_KNOWN: Final[Mapping[str, Callable[[Declared], Returned]]] = {
    "AWS::ApiGateway::ApiKey": _identified(10, "APIKeyId"),
    "AWS::ApiGateway::UsagePlan": _identified(6, "Id"),
    "AWS::ApiGateway::UsagePlanKey": _identified(10, "Id"),
    "AWS::ApiGatewayV2::Api": _api,
    "AWS::ApiGatewayV2::ApiMapping": _identified(6, "ApiMappingId"),
    "AWS::ApiGatewayV2::Authorizer": _identified(6, "AuthorizerId"),
    "AWS::ApiGatewayV2::Deployment": _identified(6, "DeploymentId"),
    "AWS::ApiGatewayV2::DomainName": _domain,
    "AWS::ApiGatewayV2::Integration": _identified(7, "IntegrationId"),
    "AWS::ApiGatewayV2::IntegrationResponse": _identified(6, "IntegrationResponseId"),
    "AWS::ApiGatewayV2::Model": _identified(6, "ModelId"),
    "AWS::ApiGatewayV2::Route": _identified(7, "RouteId"),
    "AWS::ApiGatewayV2::RouteResponse": _identified(6, "RouteResponseId"),
    "AWS::ApiGatewayV2::Stage": _stage,
    "AWS::Cognito::UserPool": _user_pool,
    "AWS::Cognito::UserPoolClient": _user_pool_client,
    "AWS::DynamoDB::GlobalTable": _table,
    "AWS::DynamoDB::Table": _table,
    "AWS::Events::EventBus": _named("Name", "events:event-bus/", Name="name"),
    "AWS::Events::Rule": _named("Name", "events:rule/", RuleName="name"),
    "AWS::IAM::Group": _iam("GroupName", "group", Arn="arn"),
    "AWS::IAM::InstanceProfile": _iam("InstanceProfileName", "instance-profile", Arn="arn"),
    "AWS::IAM::ManagedPolicy": _iam("ManagedPolicyName", "policy", ref="arn", PolicyArn="arn", PolicyId="id"),
    "AWS::IAM::Role": _iam("RoleName", "role", Arn="arn", RoleId="id"),
    "AWS::IAM::User": _iam("UserName", "user", Arn="arn"),
    "AWS::KMS::Key": _key,
    "AWS::Lambda::Alias": _alias,
    "AWS::Lambda::EventSourceMapping": _mapping,
    "AWS::Lambda::Function": _function,
    "AWS::Lambda::LayerVersion": _layer,
    "AWS::Lambda::Url": _url,
    "AWS::Lambda::Version": _version,
    "AWS::Logs::LogGroup": _log_group,
    "AWS::S3::Bucket": _bucket,
    "AWS::SNS::Subscription": _subscription,
    "AWS::SNS::Topic": _topic,
    "AWS::SQS::Queue": _queue,
    "AWS::SSM::Parameter": _parameter,
    "AWS::Scheduler::Schedule": _named("Name", "scheduler:schedule/default/"),
    "AWS::SecretsManager::Secret": _secret,
    "AWS::StepFunctions::StateMachine": _named("StateMachineName", "states:stateMachine:", ref="arn", Name="name"),
}
