"""What parts of a service that are not run mean for who runs it here: plugins, sections, old names."""

from __future__ import annotations

from hubbub.emulator.template.serverless.building import folder_of
from hubbub.emulator.template.serverless.document import Place
from hubbub.emulator.template.serverless.draft import Draft
from hubbub.emulator.template.serverless.expect import section_at
from hubbub.emulator.template.serverless.service import Service

_BUILT = "what is built in {folder} runs from there, other JavaScript as it is in the service's folder"
_TABLES = "tables are made on the emulator's own DynamoDB; seeds under custom are not loaded, and its port is not used"
_OFFLINE = "the emulator takes its place; its settings under custom are not used"
_DEPLOYING = "it only concerns deploying"
_RIGHTS = "roles are not looked at: every function may do everything"

_PLUGINS = {
    "serverless-offline": _OFFLINE,
    "serverless-offline-sqs": _OFFLINE,
    "serverless-offline-sns": _OFFLINE,
    "serverless-offline-ssm": _OFFLINE,
    "serverless-offline-scheduler": _OFFLINE,
    "serverless-offline-dynamodb-streams": _OFFLINE,
    "serverless-offline-lambda": _OFFLINE,
    "serverless-localstack": _OFFLINE,
    "serverless-dynamodb-local": _TABLES,
    "serverless-dynamodb": _TABLES,
    "serverless-python-requirements": "nothing is packaged: functions find what requirements.txt names by themselves",
    "serverless-esbuild": _BUILT,
    "serverless-webpack": _BUILT,
    "serverless-bundle": _BUILT,
    "serverless-plugin-typescript": _BUILT,
    "serverless-dotenv-plugin": None,  # done in functions.py
    "serverless-pseudo-parameters": None,  # done in compile.py
    "serverless-iam-roles-per-function": _RIGHTS,
    "serverless-plugin-warmup": "functions are not kept warm by calls",
    "serverless-prune-plugin": _DEPLOYING,
    "serverless-deployment-bucket": _DEPLOYING,
    "serverless-plugin-common-excludes": _DEPLOYING,
    "serverless-plugin-include-dependencies": _DEPLOYING,
    "serverless-plugin-split-stacks": _DEPLOYING,
    "serverless-plugin-log-retention": _DEPLOYING,
    "serverless-finch": _DEPLOYING,
    "serverless-s3-sync": _DEPLOYING,
    "serverless-export-env": _DEPLOYING,
    "serverless-plugin-tracing": "nothing is traced",
    "serverless-plugin-canary-deployments": _DEPLOYING,
    "serverless-domain-manager": "no domain of its own is made; clients use the address that is printed",
    "serverless-step-functions": "there are no state machines here",
    "serverless-appsync-plugin": "there is no AppSync here",
    "serverless-lift": "constructs are not made here; what refers to one has no value",
}

_OTHERS = "this plugin is not run here: what it would add to the service is missing"

_SECTIONS = {
    "stepFunctions": "there are no state machines here",
    "constructs": "constructs are not made here; what refers to one has no value",
    "appSync": "there is no AppSync here",
}

_OLD_NAMES = {
    "websocketApiName": "websocketsApiName",
    "websocketApiRouteSelectionExpression": "websocketsApiRouteSelectionExpression",
    "websocketApiDescription": "websocketsDescription",
    "websocketDescription": "websocketsDescription",
}


def put_meanings(service: Service, draft: Draft) -> None:
    """Say in the draft what each plugin means here, and what else is not taken as somebody may expect."""
    for plugin in service.plugins:
        meaning = _PLUGINS.get(plugin, _OTHERS)
        if meaning:
            draft.name(plugin, "plugins", meaning.format(folder=folder_of(service)))
    for key in service.other_keys:
        draft.name(key, "serverless.yml", _SECTIONS.get(key, "it is no section of the framework's own and is ignored"))
    for old, new in _OLD_NAMES.items():
        if old in service.provider_keys:
            draft.name(old, "provider", f"the framework ignores this name; it reads provider.{new}")
    declared = section_at(service.resources, "Parameters")
    for name in service.unused:
        if name not in declared and ":" not in name:
            draft.name(name, "parameter", "nothing in the service asks for it")
    for note in service.notes:
        draft.name(_where(note.place), note.written, f"its default is taken: {note.why}")


def _where(place: Place) -> str:
    return f"{place.path.name}:{place.line}" if place.line else place.path.name
