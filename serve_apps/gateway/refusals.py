"""What an upstream's refusal or failure becomes for the client. Nothing of its internals gets through."""

import re
from typing import Any

import orjson

from serve_apps.common import overflow
from serve_apps.common.errors import (
    InvalidRequest,
    RateLimited,
    ServingError,
    TooLarge,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from serve_apps.common.protocol import ANTHROPIC_PATHS

#: When to come back, in seconds, if the upstream does not say.
RETRY_AFTER_S = 1

#: Statuses below 500 that are no fault of a request that a route has sent on: the gateway is locked out, the model is
#: not known there, or it gave up waiting.
NOT_THE_CLIENTS = frozenset({402, 403, 404, 408})

#: What a Python process says about its own inside: a traceback, a source line, an exception carried by Ray.
_INTERNALS = re.compile(
    r"Traceback \(most recent|File \"[^\"]+\", line \d|\.py:\d|\bray::|\bRay\w*Error\b| at 0x[0-9a-f]"
)

#: The first event of a stream, where it is an error: OpenAI's shape.
_ERROR_EVENT = re.compile(rb'data: ?(\{"error".*)')

#: Anthropic's types of errors; other statuses are ``invalid_request_error`` below 500 and ``api_error`` from there on.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def translated(model: str, status: int, retry_after: str | None, body: bytes) -> ServingError | None:
    """The error to send in place of an upstream's answer with ``status`` ≥ 300; None to send that as it is.

    An answer in OpenAI's shape that gives nothing away passes: it is the upstream's own word on the request (a
    wrong parameter, too long a prompt). Everything else is replaced, since plain text comes from proxies and crashes.
    """
    if status == 401:
        return UpstreamFailed(f'The model "{model}" refused the gateway\'s own credential.', code="upstream_refused")
    document = _document(body)
    message = _openai_message(document)
    if message is not None and status >= 400:
        return _generic(model, status) if _INTERNALS.search(message) else None
    after_s = int(retry_after) if retry_after and retry_after.isdigit() else RETRY_AFTER_S
    if status == 429 or (status == 503 and b"backpressure" in body):
        return RateLimited(
            f'The model "{model}" is busy; try again later.', code="model_overloaded", retry_after_s=after_s
        )
    if status in (404, 503):  # a 404 that is not the model's own means that its application is not there
        return absent(model, after_s)
    detail = document.get("detail")
    if status in (400, 422) and isinstance(detail, str) and not _INTERNALS.search(detail):
        return InvalidRequest(detail)
    return _generic(model, status)


def begun_with(model: str, piece: bytes) -> ServingError | None:
    """The error to send in place of a stream that begins with vLLM's word that it failed, under the status 200."""
    event = _ERROR_EVENT.match(piece)
    error = _document(event[1]).get("error") if event else None
    status = error.get("code") if isinstance(error, dict) else None
    if not isinstance(status, int) or not (status == 429 or 500 <= status < 600):
        return None
    return translated(model, status, None, b"")


def is_context_overflow(status: int, body: bytes) -> bool:
    """Whether an upstream's refusal says that the prompt, with the tokens asked for, is longer than its context."""
    if status not in (400, 413, 422):
        return False
    error = _document(body).get("error")
    if not isinstance(error, dict):
        return False
    message = error.get("message")
    return error.get("code") == "context_length_exceeded" or (isinstance(message, str) and overflow.is_said(message))


def for_another(model: str, status: int, retry_after: str | None) -> ServingError | None:
    """The error to raise where another model would be asked; None if that would say the same of the request."""
    if status in (402, 403):
        return UpstreamFailed(f'The model "{model}" refused the gateway (status {status}).', code="upstream_refused")
    if status in NOT_THE_CLIENTS or status == 429 or status >= 500:
        return translated(model, status, retry_after, b"")
    return None


def passed(body: bytes, status: int, path: str) -> bytes:
    """An upstream's error that may pass (``translated`` had none instead), in the dialect of ``path``.

    Some of vLLM's errors are in OpenAI's shape on Anthropic's paths, and all have types of its own there.
    """
    if path not in ANTHROPIC_PATHS:
        return body
    message = _openai_message(_document(body))
    return body if message is None else _anthropic(message, status)


def encoded(error: ServingError, path: str) -> bytes:
    """The body of an error of ours, in the dialect of ``path``: OpenAI's or Anthropic's.

    Shapes: https://platform.openai.com/docs/api-reference/errors and https://docs.anthropic.com/en/api/errors
    """
    return _anthropic(error.message, error.status) if path in ANTHROPIC_PATHS else error.encoded()


def event(error: ServingError, path: str) -> bytes:
    """The same as an event of a stream; the blank line before it ends an event that may have been cut in two."""
    name = b"event: error\n" if path in ANTHROPIC_PATHS else b""
    return b"\n\n%bdata: %b\n\n" % (name, encoded(error, path))


def _anthropic(message: str, status: int) -> bytes:
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})


def absent(model: str, retry_after_s: int = RETRY_AFTER_S) -> Unavailable:
    """The error for a model that nobody serves now."""
    return Unavailable(
        f'The model "{model}" is not available: it is starting, or it could not start. The status of the RayService, '
        "which whoever runs this service can read, says which, and why.",
        code="model_unavailable",
        retry_after_s=retry_after_s,
    )


def _generic(model: str, status: int) -> ServingError:
    if status in (408, 504):
        return UpstreamTimeout(f'The model "{model}" did not answer in time.', code="upstream_timeout")
    if status == 413:
        return TooLarge(f'The request is larger than the model "{model}" takes.', code="body_too_large")
    if 400 <= status < 500:
        return InvalidRequest(f'The model "{model}" refused the request (status {status}).')
    return UpstreamFailed(f'The model "{model}" failed (status {status}).', code="upstream_failed")


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _openai_message(document: dict[str, Any]) -> str | None:
    error = document.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else None
