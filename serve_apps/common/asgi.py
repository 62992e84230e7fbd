"""An ASGI app of this process, asked without a socket."""

import asyncio
from collections.abc import Mapping

from serve_apps.common.middleware import ASGIApp, Message


async def post(app: ASGIApp, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """The status and the whole body that ``app`` answers to a POST."""
    status, content = 500, bytearray()
    unread = [body]

    async def receive() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        await asyncio.Event().wait()  # who asks stays until it has the answer
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            content.extend(message.get("body", b""))

    fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
        "client": None,
        "server": None,
        "state": {},
    }
    await app(scope, receive, send)
    return status, bytes(content)
