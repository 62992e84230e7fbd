import asyncio
from collections.abc import Iterable

import pytest

from serve_apps.common.disconnect import CancelOnDisconnect
from serve_apps.common.middleware import ASGIApp, Message, Receive, Scope, Send

BODY: list[Message] = [
    {"type": "http.request", "body": b"a", "more_body": True},
    {"type": "http.request", "body": b"b", "more_body": False},
]
GONE: Message = {"type": "http.disconnect"}


async def call(app: ASGIApp, messages: Iterable[Message], kind: str = "http") -> list[Message]:
    """Call the wrapped app with what the server receives; afterwards the client just waits."""
    received = iter(messages)
    sent: list[Message] = []

    async def receive() -> Message:
        for message in received:
            return message
        await asyncio.Event().wait()
        raise AssertionError("never set")

    async def send(message: Message) -> None:
        sent.append(message)

    await CancelOnDisconnect(app)({"type": kind}, receive, send)
    return sent


class Recording:
    """An app that reads its request, then works until it is cancelled or, with ``ends``, answers."""

    def __init__(self, ends: bool = False) -> None:
        self.ends = ends
        self.body = b""
        self.cancelled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            self.body += message["body"]
            more = message["more_body"]
        if self.ends:
            await send({"type": "http.response.start", "status": 200})
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def test_the_work_ends_when_the_client_goes_away() -> None:
    app = Recording()
    assert asyncio.run(call(app, [*BODY, GONE])) == []
    assert app.body == b"ab"
    assert app.cancelled


def test_a_client_that_stays_gets_its_answer() -> None:
    app = Recording(ends=True)
    assert asyncio.run(call(app, BODY)) == [{"type": "http.response.start", "status": 200}]
    assert app.body == b"ab"


def test_an_app_that_watches_itself_is_told_too() -> None:
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        try:
            told.append(await receive())
        except asyncio.CancelledError:
            told.append(await receive())

    asyncio.run(call(app, [*BODY, GONE]))
    assert told == [GONE]


def test_an_app_that_fails_fails() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        asyncio.run(call(app, BODY))


def test_a_cancellation_from_outside_reaches_the_work_and_goes_on() -> None:
    app = Recording()

    async def cancelled_from_outside() -> None:
        task = asyncio.ensure_future(call(app, BODY))
        while not app.body.endswith(b"b"):
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled_from_outside())
    assert app.cancelled


def test_what_is_not_http_passes_through() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})

    assert asyncio.run(call(app, [], kind="lifespan")) == [{"type": "lifespan.startup.complete"}]
