"""What a secret of the template holds: its text, or one made as `GenerateSecretString` asks, the same at each start.

Source: AWS::SecretsManager::Secret GenerateSecretString in the CloudFormation template reference.
"""

from __future__ import annotations

import json
import random
import string

from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.intrinsics import as_text
from hubbub.emulator.template.source import Value

_LENGTH = 32
_LONGEST = 4096


def secret_text(secret: Declared) -> str | None:
    """The text of an AWS::SecretsManager::Secret; None for one that is left empty.

    Raises:
        TemplateError: what it is to be made of makes no sense.

    """
    if "GenerateSecretString" not in secret.raw:
        return secret.text("SecretString") if "SecretString" in secret.raw else None
    asked = secret.mapping("GenerateSecretString")
    password = _password(secret, asked)
    key = as_text(asked.get("GenerateStringKey"))
    if key is None:
        return password
    try:
        document = json.loads(str(asked.get("SecretStringTemplate", "{}")))
    except json.JSONDecodeError as failure:
        raise secret.error("GenerateSecretString", f"expected JSON as SecretStringTemplate: {failure}") from failure
    if not isinstance(document, dict):
        raise secret.error("GenerateSecretString", f"expected a JSON object as SecretStringTemplate, got {document!r}")
    return json.dumps({**document, key: password})


def _password(secret: Declared, asked: dict[str, Value]) -> str:
    excluded = as_text(asked.get("ExcludeCharacters")) or ""
    kinds = {
        "ExcludeLowercase": string.ascii_lowercase,
        "ExcludeUppercase": string.ascii_uppercase,
        "ExcludeNumbers": string.digits,
        "ExcludePunctuation": string.punctuation,
    }
    pools = ["".join(c for c in kind if c not in excluded) for key, kind in kinds.items() if not _true(asked.get(key))]
    pools = [*(pool for pool in pools if pool), *([" "] if _true(asked.get("IncludeSpace")) else [])]
    length = as_text(asked.get("PasswordLength", _LENGTH)) or ""
    if not length.isdecimal() or not 1 <= int(length) <= _LONGEST or not pools:
        raise secret.error("GenerateSecretString", f"expected 1 to {_LONGEST} characters of some kind, got {asked!r}")
    chance = random.Random(secret.generated_id(32))  # noqa: S311  an emulator's secret, the same at each start
    made = [chance.choice(pool) for pool in pools] if _true(asked.get("RequireEachIncludedType", True)) else []
    made += [chance.choice("".join(pools)) for _ in range(int(length) - len(made))]
    chance.shuffle(made)
    return "".join(made[: int(length)])


def _true(value: Value) -> bool:
    return as_text(value) in ("true", "True")
