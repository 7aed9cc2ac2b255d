"""Lambda's API, as far as it is about invoking functions and looking at them; boto3's `lambda` client works against it.

It asks for no signature: it listens on this machine alone, and whoever reaches it may start processes there anyway.
Source: docs.aws.amazon.com/lambda/latest/api/API_Invoke.html and its neighbours, and botocore's model of 2015-03-31.
"""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubbub.emulator.definition import ACCOUNT, EventSource, Function
from hubbub.emulator.functions import Throttled, UnknownFunction
from hubbub.emulator.functions.descriptions import (
    VERSION,
    Document,
    describe_event_invoke,
    describe_function,
    describe_mappings,
)
from hubbub.emulator.functions.invocations import Invocations

SYNC_PAYLOAD_BYTES = 6 * 1024 * 1024
"""How large a payload may be that is waited for; Lambda's quota."""

EVENT_PAYLOAD_BYTES = 1024 * 1024
"""How large an event may be that is queued; Lambda's quota since 2025."""

_DISCARDED_BYTES = 64 * 1024 * 1024
"""How much of a payload that is too large is still read, so that its sender hears why."""

_CLIENT_CONTEXT_BYTES = 3_583

_REFERENCE = re.compile(
    r"(arn:aws[a-zA-Z-]*:lambda:)?([a-z]{2}(-gov)?-[a-z]+-\d:)?(\d{12}:)?(function:)?"
    r"(?P<name>[a-zA-Z0-9_.-]+)(:(?P<qualifier>\$LATEST|[a-zA-Z0-9_-]+))?"
)

_JSON_TYPES = (
    "application/json",
    "application/octet-stream",
    "binary/octet-stream",
    "application/x-www-form-urlencoded",
)
"""What a payload may be called: SDKs say that it is bytes, and curl that it is a form."""

_CAPITAL = {"ResourceNotFoundException", "ServiceException"}
"""Errors whose sentence is in `Message`; in the others it is in `message`."""

_UNSUPPORTED = "UnsupportedOperationException"


class _Refused(Exception):
    """An error of Lambda's API.

    Attributes:
        status: the HTTP status.
        type: the error's name.
        message: its sentence.
        more: further members of its body.
        headers: further headers.

    """

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002  AWS's word
        message: str,
        *,
        more: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message
        self.more = dict(more or {})
        self.headers = dict(headers or {})


def invoke_api(
    invocations: Invocations,
    *,
    sources: Sequence[EventSource] = (),
    region: str = "us-east-1",
    account: str = ACCOUNT,
    account_concurrency: int = 1_000,
) -> Starlette:
    """The API as an ASGI application.

    There are no versions and aliases here: every qualifier means the function as it is. A function is found by its
    name, whatever account and region its ARN tells, so that code with another account's ARNs in it works.

    Args:
        invocations: how functions are invoked.
        sources: what ListEventSourceMappings knows.
        region, account: of the ARN of a function that is not found.
        account_concurrency: what GetAccountSettings says.

    """
    api = _Api(invocations, sources, f"arn:aws:lambda:{region}:{account}:function:", account_concurrency)
    function = "/2015-03-31/functions/{name}"
    asked = {
        ("GET", "/2015-03-31/functions"): api.list_functions,
        ("GET", function): api.get_function,
        ("GET", f"{function}/configuration"): api.get_configuration,
        ("GET", f"{function}/versions"): api.list_versions,
        ("GET", f"{function}/aliases"): api.list_aliases,
        ("GET", f"{function}/policy"): api.get_policy,
        ("POST", f"{function}/invocations"): api.invoke,
        ("POST", "/2014-11-13/functions/{name}/invoke-async"): api.invoke_async,
        ("POST", "/2021-11-15/functions/{name}/response-streaming-invocations"): api.invoke_with_response_stream,
        ("GET", "/2019-09-30/functions/{name}/concurrency"): api.get_concurrency,
        ("GET", "/2019-09-25/functions/{name}/event-invoke-config"): api.get_event_invoke_config,
        ("GET", "/2019-09-25/functions/{name}/event-invoke-config/list"): api.list_event_invoke_configs,
        ("GET", "/2015-03-31/event-source-mappings"): api.list_mappings,
        ("GET", "/2015-03-31/event-source-mappings/{uuid}"): api.get_mapping,
        ("GET", "/2016-08-19/account-settings"): api.get_account_settings,
    }
    routes = [
        Route(f"{path}{slash}", _answering(operation), methods=[method])
        for (method, path), operation in asked.items()
        for slash in ("", "/")
    ]
    methods = ["GET", "POST", "PUT", "DELETE", "PATCH"]
    routes += [Route("/{path:path}", _answering(api.refuse), methods=methods)]
    return Starlette(routes=routes)


def _answering(operation: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """An operation whose errors are answers."""

    async def endpoint(request: Request) -> Response:
        try:
            response = await operation(request)
        except _Refused as refused:
            response = _error(refused)
        except UnknownFunction as unknown:  # it went while the request was read
            response = _error(_Refused(404, "ResourceNotFoundException", f"Function not found: {unknown}"))
        except Throttled as throttled:
            more = {"Reason": throttled.reason}
            headers = {"Retry-After": "1"}
            response = _error(_Refused(429, "TooManyRequestsException", str(throttled), more=more, headers=headers))
        response.headers.setdefault("x-amzn-RequestId", str(uuid.uuid4()))
        return response

    return endpoint


def _error(refused: _Refused) -> Response:
    body = {
        "Type": "User" if refused.status < 500 else "Service",
        "Message" if refused.type in _CAPITAL else "message": refused.message,
        **refused.more,
    }
    return JSONResponse(body, refused.status, {"x-amzn-ErrorType": refused.type, **refused.headers})


class _Api:
    """The operations."""

    def __init__(
        self, invocations: Invocations, sources: Sequence[EventSource], arns: str, account_concurrency: int
    ) -> None:
        self._invocations = invocations
        self._functions = invocations.functions
        self._sources = tuple(sources)
        self._arns = arns  # what the ARNs of functions begin with
        self._account_concurrency = account_concurrency
        self._since_s = time.time()

    async def invoke(self, request: Request) -> Response:
        """Invoke: wait for the answer, queue an event, or only look whether one could."""
        kind = request.headers.get("x-amz-invocation-type", "RequestResponse")
        log_type = request.headers.get("x-amz-log-type", "None")
        _one_of("invocationType", kind, ("RequestResponse", "Event", "DryRun"))
        _one_of("logType", log_type, ("None", "Tail"))
        function = self._function(request)
        client_context = _client_context(request.headers.get("x-amz-client-context"))
        trace_id = request.headers.get("x-amzn-trace-id")
        payload = await _payload(request, kind, EVENT_PAYLOAD_BYTES if kind == "Event" else SYNC_PAYLOAD_BYTES)
        if kind == "DryRun":
            return Response(status_code=204)
        if kind == "Event":
            request_id = self._invocations.enqueue(function.name, payload, trace_id=trace_id)
            return Response(status_code=202, headers={"x-amzn-RequestId": request_id})
        qualifier = _qualifier(request)
        name = f"{function.name}:{qualifier}" if qualifier else function.name
        outcome = await self._functions.invoke(name, payload, client_context=client_context, trace_id=trace_id)
        headers = {"x-amzn-RequestId": outcome.request_id, "X-Amz-Executed-Version": VERSION}
        if outcome.error is not None:
            headers["X-Amz-Function-Error"] = outcome.error
        if log_type == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(outcome.log).decode()
        return Response(outcome.payload, 200, headers, media_type="application/json")

    async def invoke_async(self, request: Request) -> Response:
        """InvokeAsync, which Invoke has replaced."""
        function = self._function(request)
        payload = await _payload(request, "Event", EVENT_PAYLOAD_BYTES)
        request_id = self._invocations.enqueue(function.name, payload)
        return JSONResponse({"Status": 202}, 202, {"x-amzn-RequestId": request_id})

    async def invoke_with_response_stream(self, request: Request) -> Response:
        """InvokeWithResponseStream: not here."""
        self._function(request)
        raise _Refused(501, _UNSUPPORTED, "Functions do not stream their answers here: use Invoke.")

    async def get_function(self, request: Request) -> Response:
        """GetFunction."""
        function = self._function(request)
        document: Document = {
            "Configuration": self._described(function),
            "Code": {"RepositoryType": "Local", "Location": function.code.absolute().as_uri()},
        }
        if function.reserved_concurrency is not None:
            document["Concurrency"] = {"ReservedConcurrentExecutions": function.reserved_concurrency}
        return JSONResponse(document)

    async def get_configuration(self, request: Request) -> Response:
        """GetFunctionConfiguration."""
        return JSONResponse(self._described(self._function(request)))

    async def list_functions(self, request: Request) -> Response:
        """ListFunctions."""
        return _page(request, "Functions", [self._described(self._functions.get(name)) for name in self._names()])

    async def list_versions(self, request: Request) -> Response:
        """ListVersionsByFunction: there is the latest."""
        function = self._function(request)
        arn = f"{self._functions.arn(function.name)}:{VERSION}"
        return _page(request, "Versions", [{**self._described(function), "FunctionArn": arn}])

    async def list_aliases(self, request: Request) -> Response:
        """ListAliases: there are none."""
        self._function(request)
        return _page(request, "Aliases", [])

    async def get_policy(self, request: Request) -> Response:
        """GetPolicy: nobody needs permission here, so no function has a policy."""
        self._function(request)
        raise _Refused(404, "ResourceNotFoundException", "No policy is associated with the given resource.")

    async def get_concurrency(self, request: Request) -> Response:
        """GetFunctionConcurrency."""
        reserved = self._function(request).reserved_concurrency
        return JSONResponse({} if reserved is None else {"ReservedConcurrentExecutions": reserved})

    async def get_event_invoke_config(self, request: Request) -> Response:
        """GetFunctionEventInvokeConfig."""
        function = self._function(request)
        arn = self._functions.arn(function.name)
        if (document := describe_event_invoke(function, arn)) is None:
            raise _Refused(404, "ResourceNotFoundException", f"The function {arn} doesn't have an EventInvokeConfig")
        return JSONResponse(document)

    async def list_event_invoke_configs(self, request: Request) -> Response:
        """ListFunctionEventInvokeConfigs."""
        function = self._function(request)
        document = describe_event_invoke(function, self._functions.arn(function.name))
        return _page(request, "FunctionEventInvokeConfigs", [] if document is None else [document])

    async def list_mappings(self, request: Request) -> Response:
        """ListEventSourceMappings."""
        source, name = (request.query_params.get(key) for key in ("EventSourceArn", "FunctionName"))
        arn = self._functions.arn(self._known(_reference(name)["name"]).name) if name else None
        found = [
            mapping
            for mapping in self._mappings()
            if source in (None, mapping["EventSourceArn"]) and arn in (None, mapping["FunctionArn"])
        ]
        return _page(request, "EventSourceMappings", found)

    async def get_mapping(self, request: Request) -> Response:
        """GetEventSourceMapping."""
        wanted = request.path_params["uuid"]
        for mapping in self._mappings():
            if mapping["UUID"] == wanted:
                return JSONResponse(mapping)
        raise _Refused(404, "ResourceNotFoundException", "The resource you requested does not exist.")

    async def get_account_settings(self, request: Request) -> Response:
        """GetAccountSettings: Lambda's quotas, and what functions have reserved of them."""
        reserved = sum(self._functions.get(name).reserved_concurrency or 0 for name in self._names())
        limit = {
            "TotalCodeSize": 80_530_636_800,
            "CodeSizeUnzipped": 262_144_000,
            "CodeSizeZipped": 52_428_800,
            "ConcurrentExecutions": self._account_concurrency,
            "UnreservedConcurrentExecutions": max(0, self._account_concurrency - reserved),
        }
        return JSONResponse({"AccountLimit": limit, "AccountUsage": {"FunctionCount": len(self._names())}})

    async def refuse(self, request: Request) -> Response:
        """Whatever else Lambda has."""
        said = f"{request.method} {request.url.path}"
        raise _Refused(
            501,
            _UNSUPPORTED,
            f"{said} is not supported here: functions and what invokes them come from the template and stay so.",
        )

    def _names(self) -> list[str]:
        return sorted(self._functions.names())

    def _mappings(self) -> list[Document]:
        arns = {name: self._functions.arn(name) for name in self._names()}
        return describe_mappings(self._sources, arns, self._since_s)

    def _described(self, function: Function) -> Document:
        return describe_function(function, self._functions.arn(function.name))

    def _function(self, request: Request) -> Function:
        """The function that a request names, once the name and its qualifier are looked at."""
        _qualifier(request)
        return self._known(_reference(request.path_params["name"])["name"])

    def _known(self, name: str) -> Function:
        try:
            return self._functions.get(name)
        except UnknownFunction as unknown:
            message = f"Function not found: {self._arns}{name}"
            raise _Refused(404, "ResourceNotFoundException", message) from unknown


def _reference(text: str) -> re.Match[str]:
    """What a function is called by, taken apart."""
    if (found := _REFERENCE.fullmatch(text)) is None or len(text) > 170:
        message = (
            f"1 validation error detected: Value '{text[:200]}' at 'functionName' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {_REFERENCE.pattern}"
        )
        raise _Refused(400, "ValidationException", message)
    return found


def _qualifier(request: Request) -> str | None:
    """The qualifier that a request has in its function's name, or beside it."""
    told = request.query_params.get("Qualifier")
    derived: str | None = _reference(request.path_params["name"])["qualifier"]
    if told and not re.fullmatch(r"\$LATEST|[a-zA-Z0-9_-]{1,128}", told):
        raise _Refused(400, "ValidationException", f"expected a version or an alias as Qualifier, got {told[:200]}")
    if told and derived and told != derived:
        message = "The derived qualifier from the function name does not match the specified qualifier."
        raise _Refused(400, "InvalidParameterValueException", message)
    return told or derived


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        message = (
            f"1 validation error detected: Value '{value[:100]}' at '{what}' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(known)}]"
        )
        raise _Refused(400, "ValidationException", message)


def _client_context(encoded: str | None) -> str | None:
    """The client context as JSON; it comes in base64."""
    if encoded is None:
        return None
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
        json.loads(decoded)
    except ValueError:
        message = "Client context must be a valid Base64-encoded JSON object."
        raise _Refused(400, "InvalidRequestContentException", message) from None
    if len(encoded) > _CLIENT_CONTEXT_BYTES:
        message = f"Client context must be no more than {_CLIENT_CONTEXT_BYTES} bytes when base64-encoded."
        raise _Refused(400, "InvalidRequestContentException", message)
    return decoded


async def _payload(request: Request, kind: str, limit: int) -> bytes:
    """The payload, if it is JSON within the limit; an empty one is an empty object, as it is on AWS."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in ("", *_JSON_TYPES) and not re.fullmatch(r"application/(x-amz-json-.*|.*\+json)", media_type):
        raise _Refused(415, "UnsupportedMediaTypeException", f"Unsupported content type: {media_type[:100]}")
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        elif size > _DISCARDED_BYTES:
            break
    if size > limit:
        if kind == "Event":
            message = f"{size} byte payload is too large for the Event invocation type (limit {limit} bytes)"
        else:
            message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
        raise _Refused(413, "RequestTooLargeException", message)
    payload = b"".join(chunks)
    return _checked_json(payload) if payload else b"{}"


def _checked_json(payload: bytes) -> bytes:
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
        payload.decode()
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        message = f"Could not parse request body into json: {error}"
        raise _Refused(400, "InvalidRequestContentException", message) from None
    return payload


def _page(request: Request, member: str, documents: list[dict[str, Any]]) -> Response:  # Any: documents
    """A page of a list: MaxItems from Marker on, which is the position that the page before named."""
    marker, most = (request.query_params.get(name) for name in ("Marker", "MaxItems"))
    if not re.fullmatch(r"[0-9]{1,9}", marker or "0"):
        raise _Refused(400, "InvalidParameterValueException", f"The Marker is none of this list's: {marker}")
    if not re.fullmatch(r"[0-9]{1,5}", most or "50") or not 1 <= int(most or 50) <= 10_000:
        raise _Refused(400, "InvalidParameterValueException", f"MaxItems must be 1 to 10000, got {most}")
    start, count = int(marker or 0), int(most or 50)
    page: Document = {member: documents[start : start + count]}
    if start + count < len(documents):
        page["NextMarker"] = str(start + count)
    return JSONResponse(page)
