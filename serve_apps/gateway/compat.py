"""Everything we use of Ray Serve and uvicorn that is not their public API, in one place.

``tests/serve_apps/gateway/test_compat.py`` and ``tests/serve/test_direct.py`` fail when an upgrade changes any of it.
"""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import ray
import uvicorn
from ray._private.worker import global_worker
from ray.serve._private.common import RequestMetadata, RequestProtocol
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace
from ray.serve.schema import TargetGroup
from uvicorn.protocols.http import auto

from serve_apps.common.middleware import ASGIApp, Receive, Scope, Send
from serve_apps.common.protocol import DISCONNECT_HEADER
from serve_apps.gateway.replicas import Target, Targets
from serve_apps.gateway.server import EXTENSION, Client, Connection

_LOOPBACK = "127.0.0.1"
#: How often it is looked whether the connection to Serve's controller still lives, in seconds.
_LOOK_EVERY_S = 5
_UNWATCHED = (DISCONNECT_HEADER.encode(), b"?1")
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 (what Serve's proxy listens on, not we)
_HEALTH_PATH = "/-/healthz"
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
        end = await _serve(Counted(app, replica), replica._direct_ingress_http_server, listener)
        logger.info("requests come past Serve's proxy, too", extra={"address": str(listener.getsockname())})
        await _until(lambda: replica._shutting_down)
        # From now on the proxy has this address, too, and sends to other replicas. What is connected is answered.
        await end()


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


async def _serve(app: ASGIApp, beside: uvicorn.Server, listener: socket.socket) -> Callable[[], Awaitable[None]]:
    """Serve ``app`` at ``listener``; connections count as those of the server ``beside``, which waits for them.

    Returns:
        What closes the listener. All who have connected by then are answered.
    """
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

    def connected() -> asyncio.Protocol:
        return config.http_protocol_class(config=config, server_state=beside.server_state, app_state={})  # type: ignore[call-arg]

    taking = await loop.create_server(connected, sock=listener, backlog=config.backlog)

    async def end() -> None:
        # Whom the kernel has connected and the loop not yet seen would be cut.
        unseen = []
        with contextlib.suppress(OSError):  # there is none any more
            while True:
                unseen.append(listener.accept()[0])
        taking.close()
        for one in unseen:
            await loop.connect_accepted_socket(connected, one)

    return end


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
        replica = self._replica
        metrics = replica._metrics_manager
        try:
            # The steps of Serve's own ``_start_request``, whose context manager takes as long as parsing the request.
            await replica._semaphore.acquire()
            metrics.inc_num_ongoing_requests(_STRAIGHT)
            try:
                await self._app(scope, receive, send)
            finally:
                metrics.dec_num_ongoing_requests(_STRAIGHT)
                replica._semaphore.release()
        except BaseException as error:  # also who leaves, as in Serve's own count
            failure = type(error).__name__
            raise
        finally:
            metrics.record_request_metrics(
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


# uvicorn: the connections of its servers, and of those that Serve starts


def own_server(write_timeout_s: float, header_timeout_s: float = 30, max_connections: int = 4096) -> None:
    """Have every server that is started in this process from now on use our connections.

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
        # Serve need not watch for the client's leaving: that takes it two tasks and a queue for each request.
        "added_headers": (_UNWATCHED,),
    }
    auto.AutoHTTPProtocol = type("Connection", (Connection,), bounds)


def connection(scope: Scope) -> Client | None:
    """The connection to the client of a request, if the server shows it; call it from the request's own task.

    From now on that task is cancelled when the client leaves before the response is complete.
    """
    client = _shown(scope)
    if client is not None:
        client.task = asyncio.current_task(client.loop)
    return client


def body_has_come(scope: Scope) -> bool:
    """Whether all of a request's body is known to have come: then ``receive`` need not be waited for."""
    client = _shown(scope)
    return client is not None and client.whole


def _shown(scope: Scope) -> Client | None:
    client: Client | None = scope.get("extensions", {}).get(EXTENSION)
    # Its loop is the one that runs here. To ask asyncio for that is a system call.
    return client if client is not None and client.thread == threading.get_ident() else None
