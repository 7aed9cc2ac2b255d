"""API keys: those that a usage plan gives to an API. A key outside of every plan opens nothing, as on AWS.

Source: AWS::ApiGateway::{ApiKey, UsagePlan, UsagePlanKey} in the CloudFormation template reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.resources import Template

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_LENGTH: Final = 40


def api_keys(api_id: str, templates: Sequence[Template]) -> tuple[tuple[str, str], ...]:
    """The ids and values of the keys that an API accepts, in the template's order.

    Raises:
        TemplateError: a plan names keys or stages in a way that cannot be read.

    """
    plans = {_ref(of) for of in _all(templates, "UsagePlan") if _covers(of, api_id)}
    chosen = {of.text("KeyId") for of in _all(templates, "UsagePlanKey") if of.text("UsagePlanId") in plans}
    keys = [of for of in _all(templates, "ApiKey") if _ref(of) in chosen and of.flag("Enabled", default=True)]
    return tuple((_ref(of), of.text("Value", of.generated_id(_LENGTH, _LETTERS))) for of in keys)


def _all(templates: Sequence[Template], kind: str) -> list[Declared]:
    return [of for template in templates for of in template.of_type(f"AWS::ApiGateway::{kind}")]


def _ref(of: Declared) -> str:
    return of.template.returned(of).ref


def _covers(plan: Declared, api_id: str) -> bool:
    stages = plan.listed("ApiStages")
    if not all(isinstance(stage, dict) for stage in stages):
        raise plan.error("ApiStages", f"expected mappings with ApiId and Stage as its ApiStages, got {stages!r}")
    covers = any(stage.get("ApiId") == api_id for stage in stages)
    if covers and (plan.get("Throttle") or plan.get("Quota") or any(stage.get("Throttle") for stage in stages)):
        plan.note("its throttle and quota are not applied: keys open the API without limits of their own")
    return covers
