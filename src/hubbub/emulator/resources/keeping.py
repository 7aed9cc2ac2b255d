"""What keeps values: SSM parameters, Secrets Manager's secrets, S3 buckets.

Source: AWS::SSM::Parameter, AWS::SecretsManager::Secret and AWS::S3::Bucket in the CloudFormation reference.
"""

from __future__ import annotations

import json
from typing import Any

from hubbub.emulator.definition import Resource
from hubbub.emulator.resources.coercion import text_of
from hubbub.emulator.resources.kinds import Kind, Made, Place, Properties, Service, section, sections

_PARAMETER = ("Type", "Description", "AllowedPattern", "Tier", "DataType", "Policies")

_RANDOM = (
    "PasswordLength",
    "ExcludeCharacters",
    "ExcludeNumbers",
    "ExcludePunctuation",
    "ExcludeUppercase",
    "ExcludeLowercase",
    "IncludeSpace",
    "RequireEachIncludedType",
)


def _make_parameter(service: Service, resource: Resource) -> Made:
    properties = resource.properties
    value = properties.get("Value")
    if isinstance(value, list):
        value = ",".join(text_of(each) for each in value)
    parameters = {name: properties[name] for name in _PARAMETER if name in properties}
    parameters |= {"Name": resource.name, "Value": value}
    service.make("PutParameter", parameters, there=("ParameterAlreadyExists",))
    return Made()


def _parameter_arn(place: Place, resource: Resource) -> str:
    return place.arn("ssm", f"parameter/{resource.name.removeprefix('/')}")


def _make_secret(service: Service, resource: Resource) -> Made:
    properties = resource.properties
    parameters: dict[str, Any] = {"Name": resource.name, "Description": properties.get("Description")}
    if "GenerateSecretString" in properties:
        parameters["SecretString"] = _generated(service, section(properties, "GenerateSecretString"))
    else:
        parameters["SecretString"] = properties.get("SecretString")
    made = service.make("CreateSecret", parameters, there=("ResourceExistsException",))
    found = made or service.call("DescribeSecret", {"SecretId": resource.name})
    return Made(attributes={"Arn": found["ARN"]})


def _generated(service: Service, wanted: Properties) -> str:
    """A password, alone or under `GenerateStringKey` in the JSON object `SecretStringTemplate`."""
    asked = {name: wanted[name] for name in _RANDOM if name in wanted}
    password: str = service.call("GetRandomPassword", asked)["RandomPassword"]
    template, key = wanted.get("SecretStringTemplate"), wanted.get("GenerateStringKey")
    if template is None and key is None:
        return password
    if template is None or key is None:
        raise ValueError("GenerateSecretString: SecretStringTemplate and GenerateStringKey come together")
    try:
        document = json.loads(template) if isinstance(template, str) else template
    except ValueError as error:
        raise ValueError(f"GenerateSecretString.SecretStringTemplate: expected JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"GenerateSecretString.SecretStringTemplate: expected a JSON object, got {template!r}")
    return json.dumps({**document, text_of(key): password})


def _secret_arn(place: Place, resource: Resource) -> None:
    """A secret's ARN ends in random letters."""


def _make_bucket(service: Service, resource: Resource) -> Made:
    properties = resource.properties
    parameters: dict[str, Any] = {"Bucket": resource.name}
    if service.place.region != "us-east-1":  # which is refused as a constraint
        parameters["CreateBucketConfiguration"] = {"LocationConstraint": service.place.region}
    # A bucket of ours is made once more without complaint in us-east-1, and with one elsewhere.
    service.make("CreateBucket", parameters, there=("BucketAlreadyOwnedByYou",))
    if "VersioningConfiguration" in properties:
        wanted = {"Bucket": resource.name, "VersioningConfiguration": section(properties, "VersioningConfiguration")}
        service.call("PutBucketVersioning", wanted)
    rules = [_cors_rule(rule) for rule in sections(section(properties, "CorsConfiguration"), "CorsRules")]
    if rules:
        service.call("PutBucketCors", {"Bucket": resource.name, "CORSConfiguration": {"CORSRules": rules}})
    return Made()


def _cors_rule(rule: Properties) -> dict[str, Any]:
    """A rule in the words of S3's API, which has others than CloudFormation for two of them."""
    words = {"ExposedHeaders": "ExposeHeaders", "MaxAge": "MaxAgeSeconds"}
    return {words.get(name, name): value for name, value in rule.items()}


def _bucket_arn(place: Place, resource: Resource) -> str:
    return f"arn:aws:s3:::{resource.name}"


PARAMETER = Kind(
    service="ssm", make=_make_parameter, arn=_parameter_arn, used=frozenset({*_PARAMETER, "Name", "Value"})
)

SECRET = Kind(
    service="secretsmanager",
    make=_make_secret,
    arn=_secret_arn,
    used=frozenset({"Name", "Description", "SecretString", "GenerateSecretString"}),
)

BUCKET = Kind(
    service="s3",
    make=_make_bucket,
    arn=_bucket_arn,
    used=frozenset({"BucketName", "VersioningConfiguration", "CorsConfiguration"}),
)
