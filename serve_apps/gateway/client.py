"""What a client sends, taken in within bounds of size and time."""

import asyncio

from serve_apps.common.errors import (
    HeadersTooLarge,
    InvalidRequest,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
)
from serve_apps.common.middleware import Message, Receive
from serve_apps.common.protocol import INTERNAL_HEADER, REQUEST_ID_HEADER, SESSION_HEADER, TENANT_HEADER, VERSION_HEADER
from serve_apps.gateway.admission import Held
from serve_apps.gateway.headers import RawHeaders, find
from serve_apps.gateway.request import Disconnected

#: How slowly a body may come in, in bytes a second, and for how long it may be slower still, in seconds. Who sends a
#: byte now and then is cut after the grace, long before the time that any body has.
MIN_BYTES_PER_S = 1024
GRACE_S = 10
#: As many pieces of a body are thrown away for a refusal, if they are there already.
_THROWN_AWAY = 16

#: Headers that decide something here. Two of one name would mean one thing to us and another to a proxy before us.
_SINGLE = frozenset(
    {b"authorization", b"content-encoding", b"content-length", b"content-type", b"host"}
    | {name.encode() for name in (INTERNAL_HEADER, REQUEST_ID_HEADER, SESSION_HEADER, TENANT_HEADER, VERSION_HEADER)}
)


def check(headers: RawHeaders, max_bytes: int) -> None:
    """Refuse headers that are too many, or that could mean two things.

    Raises:
        HeadersTooLarge: they are larger than ``max_bytes``.
        InvalidRequest: one that must be single is not.
    """
    size = 0
    seen = set()
    for name, value in headers:
        size += len(name) + len(value)
        if name in _SINGLE:
            if name in seen:
                raise InvalidRequest(f'The header "{name.decode()}" was sent twice.', code="duplicate_header")
            seen.add(name)
    if size > max_bytes:
        raise HeadersTooLarge(f"The headers are larger than the {max_bytes} bytes we take.", code="headers_too_large")


class Intake:
    """An ASGI ``receive`` that remembers whether the request has come to its end."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.complete = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.complete = self.complete or _is_last(message)
        return message


async def read_body(
    receive: Receive, headers: RawHeaders, *, max_bytes: int, timeout_s: float, held: Held, here: bool = False
) -> bytes:
    """The whole request body, of which never more than ``max_bytes`` is in memory.

    Args:
        receive: gives the body.
        headers: the request's.
        max_bytes: the most that is taken in.
        timeout_s: how long it may take to come, in seconds.
        held: holds what has come.
        here: whether all of it is known to have come. Then nothing is waited for, and no timer set.

    Raises:
        TooLarge: it is, or says it is, larger than ``max_bytes``.
        RequestTimeout: it was not here within ``timeout_s`` seconds, or came too slowly.
        RateLimited: the replica holds as many bodies as it may.
        UnsupportedMediaType: it is compressed.
        Disconnected: the client went away meanwhile.
    """
    declared = find(headers, b"content-length")
    if declared is not None and declared.isdigit() and (len(declared) > 18 or int(declared) > max_bytes):
        raise _too_large(max_bytes)
    if (find(headers, b"content-encoding") or b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Send the body uncompressed.", code="unsupported_content_encoding")
    body = _Body(max_bytes, held)
    if here:
        while body.take(await receive()):
            pass
    else:
        await _read_in_time(receive, body, timeout_s)
    return body.whole()


class _Body:
    """What has come of a body, within its bounds."""

    def __init__(self, max_bytes: int, held: Held) -> None:
        self.size = 0
        self._parts: list[bytes] = []
        self._max_bytes = max_bytes
        self._held = held

    def take(self, message: Message) -> bool:
        """Take in one more part; whether others follow."""
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        self.size += len(part)
        if self.size > self._max_bytes:
            raise _too_large(self._max_bytes)
        self._held.grow(len(part))
        self._parts.append(part)
        return bool(message.get("more_body", False))

    def whole(self) -> bytes:
        parts = self._parts
        return parts[0] if len(parts) == 1 else b"".join(parts)


async def _read_in_time(receive: Receive, body: _Body, timeout_s: float) -> None:
    now = asyncio.get_running_loop().time
    began_s = now()
    try:
        async with asyncio.timeout_at(began_s + min(timeout_s, GRACE_S)) as deadline:
            while body.take(await receive()):
                deadline.reschedule(began_s + min(timeout_s, GRACE_S + body.size / MIN_BYTES_PER_S))
    except TimeoutError:
        raise RequestTimeout(
            f"{body.size} bytes of the request body were here after {now() - began_s:.3g} s; send it faster.",
            code="request_timeout",
        ) from None


async def has_come(receive: Receive) -> bool:
    """Whether a refused request is here to its end; never waits.

    If it is not, the refusal must close the connection (``connection: close``): else the server would go on to take in
    a body that nobody reads, for as long as the client cares to send.
    """
    if isinstance(receive, Intake) and receive.complete:
        return True
    try:
        async with asyncio.timeout(0):
            for _ in range(_THROWN_AWAY):
                if _is_last(await receive()):
                    return True
    except TimeoutError:
        pass
    return False


def _is_last(message: Message) -> bool:
    return message["type"] == "http.disconnect" or not message.get("more_body", False)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than the {limit} bytes this path takes.", code="body_too_large")
