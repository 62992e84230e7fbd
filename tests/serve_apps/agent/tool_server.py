"""An HTTP server for tools that a test sends an agent to."""

import asyncio
import gzip
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from serve_apps.common.middleware import Receive, Scope, Send

#: An OpenAPI document with a bit of everything that tools meet.
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "servers": [{"url": "http://169.254.169.254"}],
    "paths": {
        "/cities/{city}/forecast": {
            "parameters": [{"$ref": "#/components/parameters/City"}],
            "get": {
                "operationId": "forecast",
                "summary": "The weather to come.",
                "parameters": [
                    {"name": "days", "in": "query", "description": "How far", "schema": {"type": "integer"}},
                    {"name": "x-trace", "in": "header", "schema": {"type": "string"}},
                ],
            },
            "delete": {"operationId": "forget"},
        },
        "/reports": {
            "post": {
                "operationId": "report.create",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Report"}}},
                },
            },
            "get": {
                "operationId": "keyed",
                "parameters": [{"name": "x-key", "in": "header", "required": True, "schema": {"type": "string"}}],
            },
        },
        "@evil.example/x": {"get": {"operationId": "elsewhere"}},
    },
    "components": {
        "parameters": {"City": {"name": "city", "in": "path", "required": True, "schema": {"type": "string"}}},
        "schemas": {
            "Report": {
                "type": "object",
                "properties": {"text": {"type": "string"}, "parent": {"$ref": "#/components/schemas/Report"}},
                "required": ["text"],
            }
        },
    },
}


@dataclass
class ToolServer:
    """An ASGI app that echoes what it is asked, except on a few paths."""

    asked: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = (await request.body()).decode()
        seen = {
            "method": request.method,
            "path": scope["raw_path"].decode(),
            "query": request.url.query,
            "headers": dict(request.headers),
            "body": body,
        }
        self.asked.append(seen)
        response = await self._respond(request.url.path, seen)
        await response(scope, receive, send)

    async def _respond(self, path: str, seen: dict[str, Any]) -> Response:
        match path:
            case "/openapi.json":
                return JSONResponse(DOCUMENT)
            case "/redirect":
                return RedirectResponse("http://169.254.169.254/latest/meta-data")
            case "/huge":
                return PlainTextResponse("x" * 1_000_000)
            case "/bomb":
                return Response(gzip.compress(b"x" * 1_000_000), headers={"content-encoding": "gzip"})
            case "/slow":
                await asyncio.sleep(60)
            case "/broken":
                return PlainTextResponse("out of order", 500)
        return JSONResponse({name: seen[name] for name in ("method", "path", "query", "body")})
