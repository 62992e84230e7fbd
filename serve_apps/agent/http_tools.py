"""HTTP endpoints as functions: operations from the values or from an OpenAPI document."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode

import httpx2
import orjson

from serve_apps.agent import egress
from serve_apps.agent.config import Http, Operation, Remote
from serve_apps.agent.schemas import inlined
from serve_apps.agent.tools import Arguments, Function, Result, ToolFailed
from serve_apps.common.gateway_client import Caller
from serve_apps.common.secrets import UpstreamKeys

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
#: The parameter that holds the body of an OpenAPI operation.
BODY = "body"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation, ready to be called."""

    method: str
    path: str
    description: str
    parameters: dict[str, Any]
    body: str | None = None
    """The parameter that is the whole body; None: all that is left, with a method that has a body."""


def credential_headers(remote: Remote, keys: UpstreamKeys) -> dict[str, str]:
    """The headers of every call, the credential included.

    Raises:
        ToolFailed: the credential cannot be read.
    """
    if remote.credential is None:
        return dict(remote.headers)
    value = keys.value(remote.credential)
    if not value:
        raise ToolFailed("the server's credential is missing")
    return {**remote.headers, remote.credential_header: f"{remote.credential_scheme} {value}".strip()}


async def http_functions(tool: str, http: Http, keys: UpstreamKeys) -> list[Function]:
    """The functions of an HTTP server.

    Raises:
        ToolFailed: its OpenAPI document cannot be had, or does not have the operations.
    """
    endpoints = {name: _inline(operation) for name, operation in http.operations.items()}
    if http.openapi is not None:
        document = await _document(http, http.openapi.path, keys)
        endpoints |= from_openapi(document, http.openapi.operations, http.methods)
    return [_function(f"{tool}_{name}", tool, endpoint, http, keys) for name, endpoint in endpoints.items()]


def request_of(base_url: str, endpoint: Endpoint, arguments: Arguments) -> tuple[str, bytes | None]:
    """The URL and the JSON body of a call. Arguments in the path are encoded: they cannot lead to another path.

    Raises:
        ToolFailed: one of them would be a step up, or nothing, in the path.
    """
    left = dict(arguments)

    def fill(match: re.Match[str]) -> str:
        text = _plain(left.pop(match[1], ""))
        # Some servers decode a path before they walk it.
        if not text or not {".", ".."}.isdisjoint(re.split(r"[/\\]", unquote(text))):
            raise ToolFailed(f"arguments.{match[1]}: {text!r} cannot stand in a path")
        return quote(text, safe="")

    url = base_url.rstrip("/") + _PLACEHOLDER.sub(fill, endpoint.path)
    body: bytes | None = None
    if endpoint.body is not None:
        if endpoint.body in left:
            body = orjson.dumps(left.pop(endpoint.body))
    elif endpoint.method in _WITH_BODY:
        return url, orjson.dumps(left)
    if left:
        listed = (
            (name, each) for name, value in left.items() for each in (value if isinstance(value, list) else [value])
        )
        url += f"?{urlencode([(name, _plain(value)) for name, value in listed])}"
    return url, body


def from_openapi(document: Mapping[str, Any], wanted: tuple[str, ...], methods: tuple[str, ...]) -> dict[str, Endpoint]:
    """The wanted operations of an OpenAPI 3 document, by operationId.

    Raises:
        ToolFailed: one is missing, has a method that is not allowed, or needs what a tool cannot give.
    """
    found: dict[str, Endpoint] = {}
    for path, item in _mapping(document.get("paths")).items():
        for method, operation in _mapping(item).items():
            name = operation.get("operationId") if isinstance(operation, dict) else None
            if name in wanted:
                if not path.startswith("/"):  # behind the base URL it could name another host
                    raise ToolFailed(f"{name} has the path {path!r}, which does not begin with /")
                if method.upper() not in methods:
                    raise ToolFailed(f"{name} is {method.upper()}, and only {', '.join(methods)} are allowed")
                found[re.sub(r"[^A-Za-z0-9_-]", "_", name)[:30]] = _endpoint(
                    document, path, method.upper(), operation, _mapping(item).get("parameters") or []
                )
    if len(found) < len(wanted):
        raise ToolFailed(f"the OpenAPI document has {len(found)} of the {len(wanted)} operations {', '.join(wanted)}")
    return found


def _endpoint(
    document: Mapping[str, Any], path: str, method: str, operation: dict[str, Any], shared: list[Any]
) -> Endpoint:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for reference in [*shared, *(operation.get("parameters") or [])]:
        parameter = inlined(document, reference)
        name, place = parameter.get("name"), parameter.get("in")
        if place not in ("path", "query"):
            if parameter.get("required"):
                raise ToolFailed(f"{operation['operationId']} needs {name!r} in its {place}")
            continue
        schema = inlined(document, parameter.get("schema") or {"type": "string"})
        properties[name] = {**schema, **({"description": d} if (d := parameter.get("description")) else {})}
        if place == "path" or parameter.get("required"):
            required.append(name)
    body = inlined(document, operation.get("requestBody") or {})
    if content := body.get("content"):
        if "application/json" not in content:
            raise ToolFailed(f"{operation['operationId']} takes no JSON")
        properties[BODY] = content["application/json"].get("schema") or {"type": "object"}
        required += [BODY] if body.get("required") else []
    description = operation.get("summary") or operation.get("description") or f"{method} {path}"
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return Endpoint(method, path, description, schema, BODY)


def _inline(operation: Operation) -> Endpoint:
    return Endpoint(operation.method, operation.path, operation.description, operation.parameters)


def _function(name: str, tool: str, endpoint: Endpoint, http: Http, keys: UpstreamKeys) -> Function:
    async def call(arguments: Arguments, _: Caller) -> Result:
        url, body = request_of(http.url, endpoint, arguments)
        return Result(await _asked(http, endpoint.method, url, body, keys))

    return Function(name, tool, endpoint.description, endpoint.parameters, call, http.timeout_s)


async def _document(http: Http, path: str, keys: UpstreamKeys) -> Mapping[str, Any]:
    try:
        return _mapping(orjson.loads(await _asked(http, "GET", http.url.rstrip("/") + path, None, keys)))
    except orjson.JSONDecodeError as error:
        raise ToolFailed("the OpenAPI document is not JSON") from error


async def _asked(http: Http, method: str, url: str, body: bytes | None, keys: UpstreamKeys) -> str:
    """The text of an answer with status 2xx."""
    headers = credential_headers(http, keys)
    if body is not None:
        headers["content-type"] = "application/json"
    try:
        async with egress.client(http.allowed_networks, http.max_response_bytes, http.timeout_s, headers) as client:
            response = await client.request(method, url, content=body)
    except httpx2.TimeoutException as error:
        raise ToolFailed(f"no answer within {http.timeout_s:g} s") from error
    except httpx2.HTTPError as error:
        raise ToolFailed(str(error) or "the server cannot be reached") from error
    if response.is_redirect:
        raise ToolFailed(f"status {response.status_code}: the server redirects, and redirects are not followed")
    if not response.is_success:
        raise ToolFailed(f"status {response.status_code}: {response.text[:500]}")
    return response.text


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
