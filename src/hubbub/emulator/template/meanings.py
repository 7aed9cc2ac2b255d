"""What a template has that does not run here, and what that means for who runs it; and what nothing here needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hubbub.emulator.template.apis import V2, ids_of
from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.resources import NESTED, Template
from hubbub.emulator.template.stateful import CREATED

_UNDERSTOOD: Final = CREATED | {
    NESTED,
    "AWS::ApiGateway::ApiKey",
    "AWS::ApiGateway::UsagePlan",
    "AWS::ApiGateway::UsagePlanKey",
    "AWS::Events::Rule",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Function",
    "AWS::Lambda::LayerVersion",
    "AWS::Scheduler::Schedule",
}
"""What other modules read, and name themselves where they have to."""

_API_PARTS: Final = frozenset(
    f"{V2}{kind}"
    for kind in (
        *("Api", "ApiMapping", "Authorizer", "Deployment", "DomainName", "Integration", "IntegrationResponse"),
        *("Model", "Route", "RouteResponse", "Stage"),
    )
)

_NETWORK: Final = (
    *("EIP", "EgressOnlyInternetGateway", "FlowLog", "InternetGateway", "NatGateway", "NetworkAcl", "PrefixList"),
    *("Route", "SecurityGroup", "Subnet", "VPC"),
)

_NOT_NEEDED: Final = (
    "AWS::ApiGateway::Account",
    "AWS::ApplicationAutoScaling::",
    "AWS::CDK::Metadata",
    "AWS::CertificateManager::",
    "AWS::CloudFormation::WaitConditionHandle",
    "AWS::CloudTrail::",
    "AWS::CloudWatch::",
    "AWS::CodeDeploy::",
    *(f"AWS::EC2::{kind}" for kind in _NETWORK),
    "AWS::ElastiCache::SubnetGroup",
    "AWS::Events::EventBusPolicy",
    "AWS::IAM::",
    "AWS::Lambda::Alias",
    "AWS::Lambda::CodeSigningConfig",
    "AWS::Lambda::LayerVersionPermission",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Version",
    "AWS::Logs::",
    "AWS::RDS::DBSubnetGroup",
    "AWS::ResourceGroups::",
    "AWS::Route53::",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicInlinePolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueueInlinePolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::Scheduler::ScheduleGroup",
    "AWS::SecretsManager::ResourcePolicy",
    "AWS::ServiceCatalogAppRegistry::",
    "AWS::Signer::",
    "AWS::XRay::",
)
"""Permissions, logs, alarms, names, certificates, networks: nothing here checks, keeps, watches or needs them."""

_MEANINGS: Final = {
    "AWS::ApiGateway::RestApi": "REST APIs do not run here, as others do: call its functions by the Lambda API",
    "AWS::ApiGateway::": "it belongs to a REST API, which does not run here",
    f"{V2}VpcLink": "there is no VPC: what integrations call must be reachable from this machine",
    V2: "nothing here reads it",
    "AWS::AppSync::": "GraphQL APIs do not run here",
    "AWS::CloudFormation::CustomResource": "its function is not called, and its attributes are made up",
    "AWS::CloudFormation::Macro": "macros run on AWS only",
    "AWS::CloudFront::": "there is no content delivery network: what it delivers is not delivered",
    "AWS::Cognito::": "there is no Cognito here: nobody can sign in, and its ids are made up",
    "AWS::DAX::": "there is no DAX cluster: calls to it fail",
    "AWS::DocDB::": "there is no DocumentDB: give the functions the address of a database of your own",
    "AWS::EC2::Instance": "no machines are started",
    "AWS::EC2::LaunchTemplate": "no machines are started",
    "AWS::ECS::": "containers are not run",
    "AWS::EFS::": "there is no file system: it is not mounted",
    "AWS::ElastiCache::": "there is no cache: give the functions the address of one of your own",
    "AWS::Events::": "events are not routed: only schedules are kept",
    "AWS::IoT::": "there is no MQTT broker",
    "AWS::KMS::Alias": "nothing is encrypted with it: calls to KMS fail",
    "AWS::KMS::Key": "nothing is encrypted with it: calls to KMS fail",
    "AWS::Kinesis": "its records are not delivered",
    "AWS::Lambda::Url": "function URLs are not served: call the function with the Lambda API",
    "AWS::OpenSearchService::": "there is no OpenSearch domain",
    "AWS::Pipes::": "pipes do not run: what they connect is not connected",
    "AWS::RDS::": "there is no database: give the functions the address of one of your own",
    "AWS::SES::": "no mail is sent",
    "AWS::SecretsManager::RotationSchedule": "secrets are not rotated",
    "AWS::SecretsManager::SecretTargetAttachment": "the secret does not learn the address of a database",
    "AWS::WAFv2::": "requests are not filtered",
    "Custom::": "its function is not called, and its attributes are made up",
}
"""By the type, or what types begin with; the longest that fits counts."""

_OTHERWISE = "nothing here runs it: calls to it fail, and its name and ARN are made up"


def name_the_rest(templates: Sequence[Template]) -> tuple[str, ...]:
    """Note what does not run here; returns the logical ids of what nothing here needs."""
    apis = set(ids_of(templates))
    ignored: list[str] = []
    for template in templates:
        for of in template.resources.values():
            if of.type in _API_PARTS:
                _note_what_is_of_no_api(of, apis)
            elif of.type.startswith(_NOT_NEEDED) or _is_of_rest_api(of, template):
                ignored.append(of.shown_id)
            elif of.type not in _UNDERSTOOD:
                of.note(_meaning(of.type))
    return tuple(ignored)


def _is_of_rest_api(of: Declared, template: Template) -> bool:
    """Whether it is part of a REST API that is named already."""
    is_part = of.type.startswith("AWS::ApiGateway::") and of.type not in _UNDERSTOOD
    return is_part and of.type != "AWS::ApiGateway::RestApi" and bool(template.of_type("AWS::ApiGateway::RestApi"))


def _note_what_is_of_no_api(of: Declared, apis: set[str]) -> None:
    if of.type in (f"{V2}Api", f"{V2}DomainName"):
        return
    api = of.text("ApiId")
    if api not in apis:
        of.note(f"it belongs to the API {api!r}, which this template does not have, and is not served")


def _meaning(type_: str) -> str:
    fitting = [begin for begin in _MEANINGS if type_.startswith(begin)]
    return _MEANINGS[max(fitting, key=len)] if fitting else _OTHERWISE
