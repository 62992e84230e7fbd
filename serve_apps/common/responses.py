"""Responses of our Starlette applications: JSON, streams of events, and every refusal in OpenAI's shape."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from serve_apps.common.errors import InvalidRequest, MethodNotAllowed, NotFound, ServingError
from serve_apps.common.middleware import Receive, Scope, Send, path_below_prefix

logger = logging.getLogger(__name__)


def json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """``value`` as JSON."""
    return Response(orjson.dumps(value), status, headers, "application/json")


class EventStream(StreamingResponse):
    """Closes what makes its events together with itself, so the model stops when the client has gone."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], headers: dict[str, str] | None = None) -> None:
        super().__init__(events, headers={"cache-control": "no-cache", **(headers or {})})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


async def streamed(
    events: AsyncGenerator[bytes, None], source: AsyncGenerator[Any, None], headers: dict[str, str]
) -> Response:
    """Server-sent ``events``, made from ``source``; a failure before the first of them keeps its own status."""
    try:
        first = await anext(events)
    except BaseException:
        await source.aclose()
        raise

    async def body() -> AsyncGenerator[bytes, None]:
        async with aclosing(source), aclosing(events):
            yield first
            async for event in events:
                yield event

    return EventStream(body(), headers)


async def refused(_: Request, error: ServingError) -> Response:
    """The response for an error of ours."""
    return Response(error.encoded(), error.status, error.headers())


async def _http_refused(request: Request, error: HTTPException) -> Response:
    """Starlette's own refusals (no such route, a malformed form)."""
    path = path_below_prefix(request.scope)
    if error.status_code == 404:
        refusal: ServingError = NotFound(f"No such path: {request.method} {path}", code="unknown_path")
    elif error.status_code == 405:
        allow = sorted((error.headers or {})["Allow"].split(", "))
        refusal = MethodNotAllowed(f"{path} does not answer {request.method}", allow=allow)
    else:
        refusal = InvalidRequest(error.detail)
    return await refused(request, refusal)


async def _broke(request: Request, error: Exception) -> Response:
    logger.error("request failed", exc_info=error, extra={"path": request.url.path})
    return await refused(request, ServingError("Internal error; the server's log has it under this request's id."))


#: For Starlette, which types a handler as one that takes any Exception.
HANDLERS: dict[Any, Any] = {ServingError: refused, HTTPException: _http_refused, Exception: _broke}
