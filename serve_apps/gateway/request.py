"""A request's body and headers, before it goes upstream."""

import re
import uuid
from typing import NamedTuple

import orjson

from serve_apps.common.errors import InvalidRequest, TooLarge
from serve_apps.common.middleware import Receive
from serve_apps.common.protocol import (
    DISCONNECT_HEADER,
    INTERNAL_HEADER,
    REQUEST_ID_HEADER,
    TENANT_HEADER,
)

RawHeaders = list[tuple[bytes, bytes]]

#: An id that may go into log lines and headers as it is.
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

#: Hop-by-hop (RFC 9110 §7.6.1), set anew by the HTTP client, or meant for the gateway alone. Ray Serve obeys the
#: timeout, disconnect and multiplexing headers from anybody, so clients must not reach it with them.
_NOT_FORWARDED = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"host",
        b"content-length",
        b"accept-encoding",  # error bodies must be readable, so upstreams answer uncompressed
        b"expect",
        b"authorization",
        b"cookie",
        b"x-request-timeout-seconds",
        b"serve-multiplexed-model-id",
        DISCONNECT_HEADER.encode(),
        REQUEST_ID_HEADER.encode(),
    }
)
_OWN_PREFIX = b"x-llm-"


class Disconnected(Exception):
    """The client went away before its request was complete."""


class Wish(NamedTuple):
    """What the gateway reads of a body; everything else is the upstream's business."""

    model: object
    stream: bool


def parse(body: bytes) -> Wish:
    """Read ``model`` and ``stream`` of a JSON body, which itself stays as it came.

    Raises:
        InvalidRequest: the body is not a JSON object in UTF-8.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"The request body is not JSON in UTF-8: {error.msg} (line {error.lineno}, column {error.colno}).",
            code="invalid_json",
        ) from None
    if not isinstance(document, dict):
        raise InvalidRequest("The request body must be a JSON object.", code="invalid_json")
    return Wish(document.get("model"), document.get("stream") is True)


async def read_body(receive: Receive, headers: RawHeaders, limit: int) -> bytes:
    """The whole request body, never holding more than ``limit`` bytes of it.

    Raises:
        TooLarge: it is, or says it is, larger than ``limit``.
        Disconnected: the client went away meanwhile.
    """
    declared = find(headers, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def request_id_of(headers: RawHeaders) -> str:
    """The caller's own request id if it is sane, else a new one."""
    given = find(headers, REQUEST_ID_HEADER.encode())
    if given is not None and _SANE_REQUEST_ID.fullmatch(given):
        return given.decode()
    return uuid.uuid4().hex


def upstream_headers(
    headers: RawHeaders, *, credential: str, tenant: str, request_id: str, aborts_itself: bool
) -> dict[str, str]:
    """What goes upstream: the client's headers less those it has no say in, plus the gateway's own.

    ``aborts_itself``: the upstream ends its work when we close the connection, as vLLM does, if Serve lets it see that.
    """
    dropped = _NOT_FORWARDED | _named_by_connection(headers)
    forwarded = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers
        # Ray Serve reads "_" as "-" in some names; so does the comparison.
        if (plain := name.lower().replace(b"_", b"-")) not in dropped and not plain.startswith(_OWN_PREFIX)
    }
    forwarded[INTERNAL_HEADER] = credential
    forwarded[TENANT_HEADER] = tenant
    forwarded[REQUEST_ID_HEADER] = request_id
    if aborts_itself:
        forwarded[DISCONNECT_HEADER] = "?1"
    return forwarded


def find(headers: RawHeaders, name: bytes) -> bytes | None:
    """The first value of the header ``name`` (lower case)."""
    return next((value for key, value in headers if key == name), None)


def _named_by_connection(headers: RawHeaders) -> set[bytes]:
    return {name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")}


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than the {limit} bytes this path takes.", code="body_too_large")
