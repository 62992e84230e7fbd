"""Pure ASGI middleware that guards an internal app: only known paths, only with the internal credential."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from serve_apps.common.errors import NotFound, ServingError, Unauthenticated
from serve_apps.common.protocol import INTERNAL_HEADER
from serve_apps.common.secrets import InternalCredential

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Scope types a guarded app may see; anything else (a websocket) is closed unseen.
_HTTP = "http"


class Guard:
    """Answers 401 without the internal credential and 404 for a path outside the allow-list."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        credential: InternalCredential,
        allows: Callable[[str, str], bool],
    ) -> None:
        """``allows(method, path)`` decides on the path below the app's route prefix."""
        self.app = app
        self._credential = credential
        self._allows = allows
        self._header = INTERNAL_HEADER.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != _HTTP:
            await send({"type": "websocket.close", "code": 1008})
            return
        shown = next((value for name, value in scope["headers"] if name == self._header), b"")
        if not self._credential.matches(shown.decode("latin-1")):
            await send_error(send, Unauthenticated("This path is internal: call the gateway.", code="internal_only"))
            return
        path = path_below_prefix(scope)
        if not self._allows(scope["method"], path):
            await send_error(send, NotFound(f"No such path: {scope['method']} {path}", code="unknown_path"))
            return
        await self.app(scope, receive, send)


def path_below_prefix(scope: Scope) -> str:
    """The request's path without the route prefix of its Serve application."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


async def send_error(send: Send, error: ServingError, more_headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send ``error`` as a whole HTTP response."""
    body = error.encoded()
    headers = [(name.encode(), value.encode()) for name, value in error.headers().items()]
    headers += [(b"content-length", str(len(body)).encode()), *more_headers]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
