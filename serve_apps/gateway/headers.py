"""A request's headers: what they say, and which of them go upstream."""

import os
import re
from functools import lru_cache

from serve_apps.common import tracing
from serve_apps.common.protocol import (
    ANTHROPIC_PATHS,
    DISCONNECT_HEADER,
    INTERNAL_HEADER,
    REQUEST_ID_HEADER,
    SESSION_HEADER,
    TENANT_HEADER,
)

RawHeaders = list[tuple[bytes, bytes]]

#: An id that may go into log lines and headers as it is.
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
#: A session that Ray Serve can read: it fails over any other.
_SANE_SESSION = re.compile(rb"[!-~]{1,256}")

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
        b"x-api-key",
        b"cookie",
        b"x-request-timeout-seconds",
        b"serve-multiplexed-model-id",
        DISCONNECT_HEADER.encode(),
        REQUEST_ID_HEADER.encode(),
        SESSION_HEADER.encode(),
    }
)
_OWN_PREFIX = b"x-llm-"
_TRACE_HEADERS = frozenset(name.encode() for name in tracing.HEADERS)
_PROVIDER_HEADERS = frozenset(
    {b"accept", b"content-type", b"user-agent", b"anthropic-version", b"anthropic-beta", b"openai-beta"}
)


def find(headers: RawHeaders, name: bytes) -> bytes | None:
    """The first value of the header ``name`` (lower case)."""
    for key, value in headers:  # a generator takes thrice the time
        if key == name:
            return value
    return None


def session_of(headers: RawHeaders) -> str | None:
    """The conversation a request belongs to, if the client names one that may go on."""
    given = find(headers, SESSION_HEADER.encode())
    return given.decode() if given is not None and _SANE_SESSION.fullmatch(given) else None


def request_id_of(headers: RawHeaders) -> str:
    """The caller's own request id if it is sane, else a new one."""
    given = find(headers, REQUEST_ID_HEADER.encode())
    if given is not None and _SANE_REQUEST_ID.fullmatch(given):
        return given.decode()
    return os.urandom(16).hex()


def trace_of(headers: RawHeaders) -> dict[str, str]:
    """The headers that say which trace a request belongs to, and no others."""
    return {name.decode(): value.decode("latin-1") for name, value in headers if name in _TRACE_HEADERS}


def upstream_headers(
    headers: RawHeaders,
    *,
    credential: str,
    tenant: str,
    request_id: str,
    aborts_itself: bool,
    trace: dict[str, str] | None = None,
) -> dict[str, str]:
    """What goes upstream: the client's headers less those it has no say in, plus the gateway's own.

    ``aborts_itself``: the upstream ends its work when we close the connection, as vLLM does, if Serve lets it see that.
    ``trace``: our span, where there is one; else the client's goes on as it came.
    """
    forwarded = {
        forwarded_name: value.decode("latin-1") for name, value in headers if (forwarded_name := _forwarded_name(name))
    }
    for name in _named_by_connection(headers):
        forwarded.pop(name.decode("latin-1"), None)
    if trace:
        for traced in tracing.HEADERS:
            forwarded.pop(traced, None)
    forwarded[INTERNAL_HEADER] = credential
    forwarded[TENANT_HEADER] = tenant
    forwarded[REQUEST_ID_HEADER] = request_id
    if trace:
        forwarded |= trace
    if session := session_of(headers):
        forwarded[SESSION_HEADER] = session
    if aborts_itself:
        forwarded[DISCONNECT_HEADER] = "?1"
    return forwarded


@lru_cache(1024)  # clients send the same few
def _forwarded_name(name: bytes) -> str:
    """A header's name as it goes upstream; empty if it does not."""
    # Ray Serve reads "_" as "-" in some names; so does the comparison.
    plain = name.lower().replace(b"_", b"-")
    return "" if plain in _NOT_FORWARDED or plain.startswith(_OWN_PREFIX) else name.decode("latin-1")


def provider_headers(headers: RawHeaders, *, key: str, path: str) -> dict[str, str]:
    """What an external provider gets: what describes the body and the answer, and our key there."""
    forwarded = {name.decode(): value.decode("latin-1") for name, value in headers if name in _PROVIDER_HEADERS}
    if key:
        forwarded["authorization"] = f"Bearer {key}"
        if path in ANTHROPIC_PATHS:
            forwarded["x-api-key"] = key
    return forwarded


def _named_by_connection(headers: RawHeaders) -> set[bytes]:
    return {name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")}
