"""A service as its file describes it: every part that means something here, read, with its variables replaced.

What has no meaning without AWS (roles, networks, tags, buckets for deploying) is not looked at, so that variables in it
need no value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless.document import Listing, Place, Section, Text, name_of, read_document
from hubbub.emulator.template.serverless.dotenv import read_dotenv
from hubbub.emulator.template.serverless.expect import as_section, text_at
from hubbub.emulator.template.serverless.merging import merged_list
from hubbub.emulator.template.serverless.sources import Outside
from hubbub.emulator.template.serverless.variables import Note, Resolver, put_together

_PROVIDER = re.findall(
    r"\w+",
    "name runtime region stage stackName memorySize timeout environment layers architecture"
    " websocketsApiName websocketsApiRouteSelectionExpression websocketsDescription httpApi",
)

_FUNCTION = re.findall(
    r"\w+",
    "handler image runtime name description environment timeout memorySize reservedConcurrency layers package module"
    " destinations maximumRetryAttempts maximumEventAge onError architecture condition dependsOn disableLogs url"
    " httpApi",
)

_EVENTS = ("websocket", "httpApi", "sqs", "stream", "sns", "schedule", "eventBridge")  # whose details matter here

_KNOWN = re.findall(
    r"\w+",
    "service provider functions layers resources plugins custom package params stages useDotenv frameworkVersion"
    " configValidationMode disabledDeprecations deprecationNotificationMode variablesResolutionMode app org tenant"
    " console projectDir build licenseKey enableLegacyDeploymentBucket outputs dashboard projectId",
)

_CUSTOM = ("dotenv", "pythonRequirements")  # what is custom's own business, but for these plugins

_STAGE = re.compile(r"[A-Za-z0-9-]+")


class Event(NamedTuple):
    """What calls a function: the kind, how it is described and where."""

    kind: str
    value: Any  # Any: whatever a file holds
    place: Place


class FunctionEntry(NamedTuple):
    """A function: its name in the file, its properties, its events and where it is."""

    key: str
    section: Section
    events: tuple[Event, ...]
    place: Place


class Service(msgspec.Struct, kw_only=True):
    """A service.

    Attributes:
        path: its file.
        name, stage, region, stack_name: what it is called and where it is.
        provider, custom: those of their parts that matter here.
        provider_keys: the names of all of the provider's parts.
        functions: by name, in the file's order.
        layers: by name.
        package: where what was packaged by other means is.
        resources: the file's own CloudFormation, put together.
        plugins: the framework's, by package.
        other_keys: top-level sections that this does not know.
        files: the others that it is made of.
        unused: names of the user's parameters that nothing in the file asked for.
        notes: defaults that were taken for what cannot be had here.

    """

    path: Path
    name: str
    stage: str
    region: str
    stack_name: str
    provider: Section
    provider_keys: Section
    custom: Section
    functions: dict[str, FunctionEntry]
    layers: Section
    package: Section
    resources: Section
    plugins: tuple[str, ...]
    other_keys: dict[str, Place]
    files: tuple[Path, ...]
    unused: tuple[str, ...]
    notes: tuple[Note, ...]

    @property
    def folder(self) -> Path:
        """The service's folder."""
        return self.path.parent


def read_service(
    path: Path,
    *,
    options: Mapping[str, str],
    parameters: Mapping[str, str],
    environment: Mapping[str, str],
    account: str,
    region: str,
) -> Service:
    """What a serverless.yml, .yaml or .json describes.

    Args:
        path: the file.
        options: what the framework's command line would be given, such as `stage`.
        parameters: for `${param:…}`; by a variable's own name (`ssm:/path`) for what cannot be had here.
        environment: for `${env:…}`; `.env` files are added.
        account: for `${aws:accountId}`.
        region: where it is if neither the file nor the options say.

    Raises:
        TemplateError: it cannot be understood.

    """
    path = path.resolve()
    root = read_document(path)
    if not isinstance(root, Section):
        raise TemplateError(path, 1, f"expected a service with its provider and functions, got {name_of(root)}")
    outside = Outside(
        path.parent, options=options, parameters=parameters, environment=environment, account=account, region=region
    )
    return _Reading(path, Resolver(root, outside)).service()


class _Reading:
    """The parts of one file, and what is wrong with them."""

    def __init__(self, path: Path, resolver: Resolver) -> None:
        self._path = path
        self._resolver = resolver
        self._faults: list[TemplateError] = []

    def service(self) -> Service:
        resolver = self._resolver
        self._check_provider()
        stage = resolver.stage()
        if not _STAGE.fullmatch(stage):
            place = resolver.place_of("provider", "stage")
            raise TemplateError(*place, f"expected letters, digits and hyphens as the stage, got {stage!r}")
        self._load_environment(stage)
        name = self._name()
        for key in ("functions", "resources"):
            place = resolver.place_of(key)
            resolver.root.put(key, merged_list(self._items(key), place, key), place)
        provider = self._parts(("provider",), _PROVIDER)
        self._put_inner(provider, "websocketLogs", "logs", "websocket")
        self._put_inner(provider, "websocketApiId", "apiGateway", "websocketApiId")
        service = Service(
            path=self._path,
            name=name,
            stage=stage,
            region=resolver.region(),
            stack_name=text_at(provider, "stackName") or f"{name}-{stage}",
            provider=provider,
            provider_keys=self._provider_keys(),
            custom=self._parts(("custom",), _CUSTOM),
            functions=self._functions(),
            layers=self._section("layers"),
            package=self._parts(("package",), ("artifact", "individually")),
            resources=self._section("resources"),
            plugins=self._plugins(),
            other_keys={key: resolver.root.place_of(key) for key in resolver.root if key not in _KNOWN},
            files=tuple(resolver.outside.files),
            unused=tuple(name for name in resolver.outside.parameters if name not in resolver.outside.used),
            notes=tuple(resolver.notes),
        )
        if self._faults:
            raise put_together(self._faults)
        return service

    def _check_provider(self) -> None:
        provider, place = self._resolver.found("provider"), self._resolver.place_of("provider")
        if provider is None:
            raise TemplateError(*place, "expected a provider, got none")
        if isinstance(provider, Text):
            short = Section(place)
            short.put("name", provider, place)
            provider = self._resolver.root["provider"] = short
        name = self._resolver.at("provider", "name") if isinstance(provider, Section) else provider
        if name != "aws":
            raise TemplateError(
                *self._resolver.place_of("provider", "name"),
                f"expected aws as the provider's name, got {name_of(name)}",
            )

    def _name(self) -> str:
        value = self._resolver.at("service")
        if isinstance(value, Section):  # how version 1 wrote it
            value = value.get("name")
        if not isinstance(value, Text) or not value:
            place = self._resolver.place_of("service")
            raise TemplateError(*place, f"expected the service's name as service, got {name_of(value)}")
        return value

    def _load_environment(self, stage: str) -> None:
        """Add what is in `.env` files, unless the file says that it is for a version which reads none by itself."""
        resolver, outside = self._resolver, self._resolver.outside
        version = resolver.at("frameworkVersion")
        wanted = resolver.at("useDotenv")
        is_old = bool(re.match(r"[\^~=v ]*[123](?![0-9])", str(version or "")))
        if wanted is False or (is_old and not wanted):
            return
        files = [outside.folder / f".env.{stage}", outside.folder / ".env"]
        if is_old:  # up to version 3 one file alone is read
            files = [file for file in files if file.is_file()][:1]
        for entry in [wanted] if isinstance(wanted, Text) else wanted if isinstance(wanted, Listing) else []:
            other = outside.folder / str(entry)
            files += [other / f".env.{stage}", other / ".env"] if other.is_dir() else [other]
        for file in files:
            if file.is_file():
                values = read_dotenv(file, outside.environment)
                outside.environment = {**values, **outside.environment}
                outside.files.append(file)

    def _items(self, key: str) -> Any:  # Any: whatever a file holds
        """What is at a key of the file; of a list, each item for itself, so that they can be put together."""
        value = self._found(key)
        if isinstance(value, Listing):
            for index in range(len(value)):
                self._found(key, str(index))
        return value

    def _found(self, *keys: str) -> Any:  # Any: whatever a file holds
        """What is at `keys`, variables below it left; None, and a fault, where a variable has no value."""
        try:
            return self._resolver.found(*keys)
        except TemplateError as fault:
            self._faults.append(fault)
            return None

    def _get(self, *keys: str) -> Any:  # Any: whatever a file holds
        """What is at `keys`; None, and a fault, where a variable in it has no value."""
        try:
            return self._resolver.at(*keys)
        except TemplateError as fault:
            self._faults.append(fault)
            return None

    def _section(self, *keys: str) -> Section:
        value, place = self._get(*keys), self._resolver.place_of(*keys)
        return Section(place) if value is None else as_section(value, place, ".".join(keys))

    def _parts(self, keys: tuple[str, ...], wanted: tuple[str, ...] | list[str]) -> Section:
        """A mapping, with these of its keys and no others."""
        place = self._resolver.place_of(*keys)
        value = self._found(*keys)
        whole = Section(place) if value is None else as_section(value, place, ".".join(keys))
        section = Section(place)
        for key in wanted:
            if key in whole and (found := self._get(*keys, key)) is not None:
                section.put(key, found, whole.place_of(key))
        return section

    def _put_inner(self, provider: Section, name: str, *keys: str) -> None:
        """Give one of the things that are further inside the provider a name of its own; the rest stays unread."""
        if (value := self._get("provider", *keys)) is not None:
            provider.put(name, value, self._resolver.place_of("provider", *keys))

    def _provider_keys(self) -> Section:
        provider = self._found("provider")
        return provider if isinstance(provider, Section) else Section(self._resolver.place_of("provider"))

    def _functions(self) -> dict[str, FunctionEntry]:
        functions: dict[str, FunctionEntry] = {}
        for key in self._resolver.root["functions"]:
            if self._found("functions", key) is not None:
                section = self._parts(("functions", key), _FUNCTION)
                place = self._resolver.root["functions"].place_of(key)
                functions[key] = FunctionEntry(key, section, tuple(self._events(key)), place)
        return functions

    def _events(self, function: str) -> list[Event]:
        keys = ("functions", function, "events")
        events, place = self._found(*keys), self._resolver.place_of(*keys)
        if events is None:
            return []
        if not isinstance(events, Listing):
            raise TemplateError(*place, f"expected a list as events, got {name_of(events)}")
        found: list[Event] = []
        for index in range(len(events)):
            event, where = self._found(*keys, str(index)), events.places[index]
            if isinstance(event, Text):  # such as `- alexaSkill`
                found.append(Event(str(event), None, where))
            elif event is not None:
                kinds = as_section(event, where, "an event")
                found += [Event(k, self._event(k, *keys, str(index), k), kinds.place_of(k)) for k in kinds]
        return found

    def _event(self, kind: str, *keys: str) -> Any:  # Any: whatever a file holds
        """How an event is described; None where that does not matter, or does not matter enough to be a fault."""
        if kind in _EVENTS:
            return self._get(*keys)
        try:
            return self._resolver.at(*keys) if kind == "s3" else None
        except TemplateError:
            return None

    def _plugins(self) -> tuple[str, ...]:
        value = self._get("plugins")
        modules = value.get("modules") if isinstance(value, Section) else value
        return tuple(str(name) for name in modules or ()) if isinstance(modules, list) else ()
