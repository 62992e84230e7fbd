"""Pure ASGI middleware that ends a request's work when its client goes away."""

import asyncio

from serve_apps.common.middleware import ASGIApp, Message, Receive, Scope, Send


class CancelOnDisconnect:
    """Cancels the app once the client has gone, so that no model writes an answer nobody reads.

    The server says so through ``receive``. Serve would cancel the request itself, but not for requests that the
    gateway marks with ``x-request-disconnect-disabled``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body_read = asyncio.Event()
        gone = asyncio.Event()

        async def receive_body() -> Message:
            if body_read.is_set():  # the watcher receives now
                await gone.wait()
                return {"type": "http.disconnect"}
            message = await receive()
            if not message.get("more_body", False):
                body_read.set()
            return message

        async def watch() -> None:
            await body_read.wait()
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()
            work.cancel()

        work = asyncio.ensure_future(self.app(scope, receive_body, send))
        watcher = asyncio.ensure_future(watch())
        try:
            await work
        except asyncio.CancelledError:
            # Our own cancellation ends here: there is no one left to tell. Anyone else's goes on.
            if not gone.is_set():
                raise
        finally:
            watcher.cancel()
