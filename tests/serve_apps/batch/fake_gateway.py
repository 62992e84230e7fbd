"""A gateway of tests: it answers the lines of batches as it is told, and remembers them."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from serve_apps.common.middleware import Receive, Scope, Send
from serve_apps.common.protocol import BACKGROUND_HEADER, INTERNAL_HEADER, REQUEST_ID_HEADER, TENANT_HEADER

TOKEN = "internal-token"


@dataclass(frozen=True)
class Says:
    """An answer."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A line, as it came."""

    path: str
    body: dict[str, Any]
    tenant: str
    request_id: str
    background: bool
    authorization: str

    @property
    def said(self) -> str:
        """What a chat's last message says."""
        return str(self.body["messages"][-1]["content"])


def refuses(status: int, code: str, **headers: str) -> Says:
    """A refusal in OpenAI's shape."""
    error = {"message": "No.", "type": "server_error", "param": None, "code": code}
    return Says(status, {"error": error}, {name.replace("_", "-"): value for name, value in headers.items()})


def echo(asked: Asked) -> Says:
    """The answer of a model that repeats what it is asked."""
    if asked.path == "/v1/chat/completions":
        message = {"role": "assistant", "content": asked.said}
        return Says(body={"object": "chat.completion", "choices": [{"index": 0, "message": message}]})
    return Says(body={"object": "list", "data": [], "echo": asked.body})


@dataclass
class FakeGateway:
    """An ASGI app."""

    answer: Callable[[Asked], Says] = echo
    asked: list[Asked] = field(default_factory=list)
    free: int = sys.maxsize
    """So many requests are answered at once, the others when ``release`` is set."""
    release: threading.Event = field(default_factory=threading.Event)
    models_status: int = 200
    """Of GET /v1/models."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            message: Any = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        says = Says(self.models_status) if scope["method"] == "GET" else await self._line(scope["path"], headers, body)
        content = json.dumps(says.body).encode()
        fields = {"content-type": "application/json", "content-length": str(len(content)), **says.headers}
        pairs = [(name.encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": says.status, "headers": pairs})
        await send({"type": "http.response.body", "body": content})

    async def _line(self, path: str, headers: dict[str, str], body: bytes) -> Says:
        if "authorization" not in headers:
            assert headers[INTERNAL_HEADER] == TOKEN
        asked = Asked(
            path,
            json.loads(body),
            headers.get(TENANT_HEADER, ""),
            headers[REQUEST_ID_HEADER],
            BACKGROUND_HEADER in headers,
            headers.get("authorization", ""),
        )
        self.asked.append(asked)
        while len(self.asked) > self.free and not self.release.is_set():
            await asyncio.sleep(0.01)
        return self.answer(asked)
