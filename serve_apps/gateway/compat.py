"""Everything we use of Ray Serve and uvicorn that is not their public API, in one place.

``tests/serve_apps/gateway/test_compat.py`` and ``tests/serve/test_direct.py`` fail when an upgrade changes any of it.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import ray
import uvicorn
from ray._private.worker import global_worker
from ray.serve._private.common import RequestMetadata, RequestProtocol
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace
from ray.serve.schema import TargetGroup
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serve_apps.common.errors import HeadersTooLarge, InvalidRequest, RequestTimeout, ServingError, Unavailable
from serve_apps.common.middleware import ASGIApp, Receive, Scope, Send
from serve_apps.common.protocol import DISCONNECT_HEADER
from serve_apps.gateway.replicas import Target, Targets

_EXTENSION = "llm.connection"
_LOOPBACK = "127.0.0.1"
#: How often it is looked whether the connection to Serve's controller still lives, in seconds.
_LOOK_EVERY_S = 5
_UNWATCHED = (DISCONNECT_HEADER.encode(), b"?1")
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 (what Serve's proxy listens on, not we)
_HEALTH_PATH = "/-/healthz"
#: What a connection may bring that is no piece of a body, before the next piece: headers, trailers, the frames of
#: chunks. uvicorn keeps any amount. The gateway's own limit for headers lies below, and says more.
MAX_OVERHEAD_BYTES = 128 * 1024
#: How often it is looked whether this replica has started, or has begun to end, in seconds.
_REPLICA_LOOK_S = 0.1
#: How Serve tells requests apart; all of ours look alike to it.
_STRAIGHT = RequestMetadata(
    request_id="", internal_request_id="", _request_protocol=RequestProtocol.HTTP, is_direct_ingress=True
)

logger = logging.getLogger(__name__)


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


# Ray Serve: the way into this replica past its proxy


async def listen_beside_proxy(app: ASGIApp) -> None:
    """Take connections to this node's address ourselves, until Serve ends this replica.

    Serve's HAProxy listens at its port on every address of the node, and the kernel gives a connection to whoever
    listens at the very address it is made to. So clients of the node's (in Kubernetes: the pod's) own address come
    straight here while a replica of the gateway stands on the node, and to HAProxy while none does; who asks at the
    loopback interface, as pipelines do, always gets HAProxy. Replicas on one node share its connections.

    Where Serve's proxy listens at one address only, as on a laptop, there is no such way, and nothing happens.

    Args:
        app: answers; unlike Serve we add no header to its responses.
    """
    try:
        await _listen_beside_proxy(app)
    except Exception:
        logger.exception("requests come through Serve's proxy only")


async def _listen_beside_proxy(app: ASGIApp) -> None:
    replica = global_worker.actors[global_worker.actor_id]._replica_impl
    await _until(lambda: replica._healthy)  # as it is from the first check on, when it has its routing table
    options = replica._http_options
    if options.host not in _EVERY_ADDRESS:
        return
    with _listener(ray.util.get_node_ip_address(), options.port) as listener:
        taking = await _serve(Counted(app, replica), replica._direct_ingress_http_server, listener)
        logger.info("requests come past Serve's proxy, too", extra={"address": str(listener.getsockname())})
        await _until(lambda: replica._shutting_down)
        # From now on the proxy has this address, too, and sends to other replicas. What is connected is answered.
        taking.close()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # Serve tells nobody
        await asyncio.sleep(_REPLICA_LOOK_S)


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


async def _serve(app: ASGIApp, beside: uvicorn.Server, listener: socket.socket) -> asyncio.Server:
    """Serve ``app`` at ``listener``; connections count as those of the server ``beside``, which waits for them."""
    config = uvicorn.Config(
        app,
        timeout_keep_alive=beside.config.timeout_keep_alive,
        backlog=beside.config.backlog,
        lifespan="off",
        proxy_headers=False,
        access_log=False,
        log_config=None,
    )
    config.load()
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        lambda: config.http_protocol_class(config=config, server_state=beside.server_state, app_state={}),  # type: ignore[call-arg]
        sock=listener,
        backlog=config.backlog,
    )


class Counted:
    """An ASGI app whose requests Serve counts like those that it hands over itself.

    They take a place of ``max_ongoing_requests``, they scale the deployment, they are waited for when the replica
    ends, and they are in Serve's metrics.
    """

    def __init__(self, app: ASGIApp, replica: Any) -> None:
        """``replica``: Serve's own object for this replica."""
        self._app = app
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == _HEALTH_PATH:
            await self._tell_health(send)
            return
        began_s = time.perf_counter()
        failure: str | None = None
        try:
            async with self._replica._start_request(_STRAIGHT):
                await self._app(scope, receive, send)
        except BaseException as error:  # also who leaves, as in Serve's own count
            failure = type(error).__name__
            raise
        finally:
            self._replica._metrics_manager.record_request_metrics(
                route="/",
                latency_ms=(time.perf_counter() - began_s) * 1000,
                is_error=failure is not None,
                exception_type=failure,
            )

    async def _tell_health(self, send: Send) -> None:
        """What Serve's proxy tells load balancers at this path."""
        healthy, message = await self._replica._dataplane_health_check()
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(message))]
        await send({"type": "http.response.start", "status": 200 if healthy else 503, "headers": headers})
        await send({"type": "http.response.body", "body": message.encode()})


# uvicorn: the connection to the client


def own_server(write_timeout_s: float, header_timeout_s: float = 30, max_connections: int = 4096) -> None:
    """Have every server that is started in this process from now on show its connections to the application.

    Serve starts its own after the deployment's constructor has run, and leaves uvicorn to choose the protocol class.

    Args:
        write_timeout_s: a client that reads nothing for so many seconds is cut.
        header_timeout_s: how long a request's headers may take to come, in seconds.
        max_connections: how many clients may be connected at a time.
    """
    bounds = {
        "write_timeout_s": write_timeout_s,
        "header_timeout_s": header_timeout_s,
        "max_connections": max_connections,
    }
    auto.AutoHTTPProtocol = type("Connection", (Connection,), bounds)


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
    """uvicorn's connection within bounds, which the application may write to."""

    write_timeout_s: float
    header_timeout_s: float
    max_connections: int
    _trailing = False
    _unread_bytes = 0
    _overhead_bytes = 0
    """What has come since the last piece of a body, or since the request began."""
    _cut: asyncio.TimerHandle | None = None
    _headers_due: asyncio.TimerHandle | None = None
    _client: "Client | None" = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(Unavailable("Too many connections; try again.", code="too_many_connections", retry_after_s=1))
        else:
            self._await_headers()

    def data_received(self, data: bytes) -> None:
        self._overhead_bytes += len(data)
        if self._headers_due is None and (self.cycle is None or self.cycle.response_complete):
            self._await_headers()
        super().data_received(data)
        if self._overhead_bytes > MAX_OVERHEAD_BYTES and not self.transport.is_closing():
            self._refuse(HeadersTooLarge("The headers are larger than we take.", code="headers_too_large"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._client = client = Client(self, cycle)
        scope: Any = cycle.scope
        scope["extensions"] = {_EXTENSION: client}
        # Serve need not watch for the client's leaving: that takes it two tasks and a queue for each request.
        scope["headers"].append(_UNWATCHED)
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        self._trailing = False
        if self._headers_due is None:  # pipelined
            self._await_headers()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._unset_headers_due()
        self._overhead_bytes = 0
        super().on_headers_complete()
        self._trailing = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._trailing:  # uvicorn takes the trailers of a chunked body for headers
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._overhead_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP in OpenAI's shape."""
        self._refuse(InvalidRequest(msg, code="invalid_http"))

    def _await_headers(self) -> None:
        self._headers_due = self.loop.call_later(self.header_timeout_s, self._miss_headers)

    def _miss_headers(self) -> None:
        text = f"The request's headers were not here after {self.header_timeout_s:g} s; send them faster."
        self._refuse(RequestTimeout(text, code="request_timeout"))

    def _unset_headers_due(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _refuse(self, error: ServingError) -> None:
        """Answer and close; a response that has begun is only cut."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = error.encoded()
            headers = {**error.headers(), "content-length": str(len(body)), "connection": "close"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            status = f"{error.status} {HTTPStatus(error.status).phrase}"
            self.transport.write(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_headers_due()
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
