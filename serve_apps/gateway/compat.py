"""Everything we use of Ray Serve and uvicorn that is not their public API, in one place.

``tests/serve_apps/gateway/test_compat.py`` and ``tests/serve/test_direct.py`` fail when an upgrade changes any of it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import ray
from ray.serve._private.common import RequestProtocol
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace
from ray.serve.schema import TargetGroup
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serve_apps.common.errors import InvalidRequest
from serve_apps.common.middleware import Scope
from serve_apps.common.protocol import DISCONNECT_HEADER
from serve_apps.gateway.replicas import Target, Targets

_EXTENSION = "llm.connection"
_LOOPBACK = "127.0.0.1"
#: How often it is looked whether the connection to Serve's controller still lives, in seconds.
_LOOK_EVERY_S = 5
_UNWATCHED = (DISCONNECT_HEADER.encode(), b"?1")


# Ray Serve: where replicas answer


def follow(changed: Callable[[Targets], None]) -> Callable[[], None]:
    """Call ``changed`` with the running replicas of every application, now and after each change; returns the end.

    It is told of what Serve's own HAProxy is told of, by the same long poll: one call for all applications, and a
    replica that drains is gone from it before it refuses anything.
    """
    return follow_controller(
        lambda: ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE),
        node_ip=ray.util.get_node_ip_address(),
        changed=changed,
    )


def follow_controller(
    controller: Callable[[], Any], *, node_ip: str, changed: Callable[[Targets], None]
) -> Callable[[], None]:
    """As ``follow``, with a controller; ``node_ip`` is the address of this node."""
    loop = asyncio.get_running_loop()
    client: LongPollClient | None = None
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal client, timer
        if client is None or not client.is_running:  # a client gives up when the controller dies
            with contextlib.suppress(ValueError):  # there is no controller: a later look may find one
                client = LongPollClient(
                    controller(),
                    {LongPollNamespace.TARGET_GROUPS: lambda groups: changed(_targets(groups, node_ip))},
                    call_in_event_loop=loop,
                    client_id="llm-serving gateway",
                )
        timer = loop.call_later(_LOOK_EVERY_S, look)

    def stop() -> None:
        timer.cancel()
        if client is not None:
            client.stop()

    look()
    return stop


def _targets(groups: Iterable[TargetGroup], node_ip: str) -> Targets:
    return {
        group.app_name: tuple(
            # A replica here listens on the loopback interface, whether it listens on the others or not.
            Target(target.name, _LOOPBACK if target.ip == node_ip else target.ip, target.port)
            for target in group.targets
        )
        for group in groups
        if group.protocol == RequestProtocol.HTTP
    }


# uvicorn: the connection to the client


def own_server(write_timeout_s: float) -> None:
    """Have every server that is started in this process from now on show its connections to the application.

    Serve starts its own after the deployment's constructor has run, and leaves uvicorn to choose the protocol class.
    A client that reads nothing for ``write_timeout_s`` seconds is cut.
    """
    auto.AutoHTTPProtocol = type("Connection", (Connection,), {"write_timeout_s": write_timeout_s})


def connection(scope: Scope) -> "Client | None":
    """The connection to the client of a request, if the server shows it; call it from the request's own task.

    From now on that task is cancelled when the client leaves before the response is complete.
    """
    client: Client | None = scope.get("extensions", {}).get(_EXTENSION)
    if client is None or client.loop is not asyncio.get_running_loop():
        return None
    client.task = asyncio.current_task()
    return client


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which the application may write to, and which cuts clients that do not read."""

    write_timeout_s: float = 60
    _trailing = False
    _unread_bytes = 0
    _cut: asyncio.TimerHandle | None = None
    _client: "Client | None" = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._client = client = Client(self, cycle)
        scope: Any = cycle.scope
        scope["extensions"] = {_EXTENSION: client}
        # Serve need not watch for the client's leaving: that takes it two tasks and a queue for each request.
        scope["headers"].append(_UNWATCHED)
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        self._trailing = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._trailing = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._trailing:  # uvicorn takes the trailers of a chunked body for headers
            super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP in OpenAI's shape; a response that has begun is only cut."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = InvalidRequest(msg, code="invalid_http").encoded()
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head.encode() + body)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._cut is not None:
            self._cut.cancel()
        if self._client is not None:
            self._client.left()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
        if self._client is not None and self._client.drained is not None:
            self._client.drained()

    def _watch_reading(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._cut = self.loop.call_later(self.write_timeout_s, self._cut_if_unread)

    def _cut_if_unread(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread_bytes:
            self._watch_reading()
        else:
            self.transport.abort()


class Client:
    """A request's part of a connection; see ``passage.Client``."""

    __slots__ = ("_cycle", "_flow", "_write", "drained", "loop", "task")

    def __init__(self, server: Connection, cycle: RequestResponseCycle) -> None:
        self.loop = server.loop
        self.task: asyncio.Task[Any] | None = None
        self.drained: Callable[[], None] | None = None
        self._cycle = cycle
        self._flow = server.flow
        self._write = server.transport.write

    @property
    def chunked(self) -> bool:
        cycle = self._cycle
        return bool(cycle.chunked_encoding) and not (cycle.response_complete or cycle.scope["method"] == "HEAD")

    @property
    def full(self) -> bool:
        return self._flow.write_paused

    def write(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def left(self) -> None:
        """The client has gone: nobody waits for the response, unless it is complete."""
        if self.task is not None and not self._cycle.response_complete:
            self.task.cancel()
