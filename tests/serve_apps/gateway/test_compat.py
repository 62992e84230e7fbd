"""The private names of Ray Serve and uvicorn that compat.py uses, each as it is used there."""

import asyncio
import inspect
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
import uvicorn
from ray.serve._private import http_util
from ray.serve._private.common import RequestMetadata, RequestProtocol
from ray.serve._private.controller import ServeController
from ray.serve._private.http_util import parse_disconnect_disabled_header
from ray.serve._private.long_poll import LongPollHost, LongPollNamespace
from ray.serve._private.replica import Replica as ServeReplica
from ray.serve._private.replica import ReplicaMetricsManager
from ray.serve.schema import Target as ServeTarget
from ray.serve.schema import TargetGroup
from uvicorn.protocols.http import auto

from serve_apps.common.middleware import Receive, Scope, Send
from serve_apps.gateway import compat
from serve_apps.gateway.replicas import Target, Targets
from tests.serve_apps.gateway.servers import PATIENCE_S, serving

HERE = "10.0.0.1"

# Ray Serve: where replicas answer


class Reference:
    """As much of a Ray object reference as a long poll needs."""

    def __init__(self, answer: Awaitable[Any]) -> None:
        self._task = asyncio.ensure_future(answer)

    def _on_completed(self, callback: Callable[[Any], None]) -> None:
        def completed(task: asyncio.Future[Any]) -> None:
            if not task.cancelled():
                callback(task.result())

        self._task.add_done_callback(completed)


class Controller:
    """As much of Serve's controller as a long poll needs, around Serve's own host of long polls."""

    def __init__(self, host: LongPollHost) -> None:
        class ListenForChange:
            @staticmethod
            def remote(known: dict[Any, int]) -> Reference:
                return Reference(host.listen_for_change(known))

        self.listen_for_change = ListenForChange


def group(app: str, *targets: tuple[str, int], protocol: RequestProtocol = RequestProtocol.HTTP) -> TargetGroup:
    """What the controller says of an application."""
    return TargetGroup(
        targets=[ServeTarget(ip=ip, port=port, instance_id="", name=f"{app}-{port}") for ip, port in targets],
        route_prefix=f"/internal/{app}",
        protocol=protocol,
        app_name=app,
    )


def test_targets_are_those_of_serves_long_poll() -> None:
    async def follow() -> None:
        host, told = LongPollHost(), asyncio.Queue[Targets]()

        def notify(*groups: TargetGroup) -> None:
            host.notify_changed({LongPollNamespace.TARGET_GROUPS: list(groups)})

        notify(
            group("chat", ("10.0.0.2", 30000), ("10.0.0.1", 30001)),
            group("sleeper"),
            group("chat", ("10.0.0.2", 40000), protocol=RequestProtocol.GRPC),
        )
        stop = compat.follow_controller(lambda: Controller(host), node_ip=HERE, changed=told.put_nowait)
        assert await asyncio.wait_for(told.get(), PATIENCE_S) == {
            # The one on this node may listen on the loopback interface only, where all that listen here do.
            "chat": (Target("chat-30000", "10.0.0.2", 30000), Target("chat-30001", "127.0.0.1", 30001)),
            "sleeper": (),
        }
        notify(group("chat", ("10.0.0.2", 30000)))
        assert await asyncio.wait_for(told.get(), PATIENCE_S) == {"chat": (Target("chat-30000", "10.0.0.2", 30000),)}
        stop()

    asyncio.run(follow())


def test_a_controller_that_is_not_there_yet_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_LOOK_EVERY_S", 0.01)

    async def follow() -> None:
        host, told, looks = LongPollHost(), asyncio.Queue[Targets](), iter([False, False, True])
        host.notify_changed({LongPollNamespace.TARGET_GROUPS: [group("chat")]})

        def controller() -> Controller:
            if not next(looks):
                raise ValueError("Failed to look up actor")
            return Controller(host)

        stop = compat.follow_controller(controller, node_ip=HERE, changed=told.put_nowait)
        assert await asyncio.wait_for(told.get(), PATIENCE_S) == {"chat": ()}
        stop()

    asyncio.run(follow())


def test_the_controller_tells_haproxy_of_targets_by_that_long_poll() -> None:
    source = inspect.getsource(ServeController.broadcast_target_groups_if_changed)
    assert "LongPollNamespace.TARGET_GROUPS: target_groups" in source
    assert list(inspect.signature(ServeController.listen_for_change).parameters)[1:] == ["keys_to_snapshot_ids"]


# uvicorn and how Serve starts it


def test_serve_leaves_it_to_uvicorn_to_choose_the_protocol() -> None:
    source = inspect.getsource(http_util.start_asgi_http_server)
    assert "uvicorn.Config(" in source
    assert "http=" not in source


def test_serve_obeys_the_header_that_switches_its_watching_off() -> None:
    assert parse_disconnect_disabled_header(dict([compat._UNWATCHED]))
    assert not parse_disconnect_disabled_header({})


@pytest.fixture
def stock() -> Iterator[None]:
    """Puts back the protocol that uvicorn chooses by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)
        yield


def chosen() -> Any:
    """The protocol of a server that is started now."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    config = uvicorn.Config(app)
    config.load()
    return config.http_protocol_class


def test_own_server_is_what_uvicorn_chooses_from_then_on(stock: None) -> None:
    assert not issubclass(chosen(), compat.Connection)
    compat.own_server(7)
    assert issubclass(chosen(), compat.Connection)
    assert chosen().write_timeout_s == 7


@contextmanager
def connected(
    app: Callable[[Scope, Receive, Send], Awaitable[None]], clients: int = 1, **bounds: float
) -> Iterator[socket.socket]:
    """A client of ``app`` in a server of our own; of several, the last."""
    compat.own_server(PATIENCE_S, **bounds)  # type: ignore[arg-type]
    with serving(app) as url, ExitStack() as connections:
        for _ in range(clients):
            client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), PATIENCE_S)
            connections.enter_context(client)
        yield client


def request(path: str = "/") -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode()


def read_until(client: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        piece = client.recv(65536)
        assert piece, f"closed after {received!r}"
        received += piece
    return received


async def begin(send: Send, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


def test_what_is_written_to_the_connection_is_a_chunk_of_the_response(stock: None) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = compat.connection(scope)
        assert connection is not None
        chunked.append(connection.chunked)
        await begin(send)
        chunked.append(connection.chunked)
        connection.write(b"a" * 17)
        await send({"type": "http.response.body", "body": b"end"})
        chunked.append(connection.chunked)

    chunked: list[bool] = []
    with connected(app) as client:
        client.sendall(request())
        assert read_until(client, b"0\r\n\r\n").endswith(b"\r\n\r\n11\r\n" + b"a" * 17 + b"\r\n3\r\nend\r\n0\r\n\r\n")
    assert chunked == [False, True, False]


def test_a_response_with_a_length_is_not_chunked(stock: None) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = compat.connection(scope)
        assert connection is not None
        await begin(send, (b"content-length", b"2"))
        await send({"type": "http.response.body", "body": b"no" if not connection.chunked else b""})

    with connected(app) as client:
        client.sendall(request())
        assert read_until(client, b"no")


def test_each_of_two_pipelined_requests_has_its_own_connection(stock: None) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = compat.connection(scope)
        assert connection is not None
        await begin(send)
        await asyncio.sleep(0.01)
        assert connection.chunked
        connection.write(scope["path"].encode())
        await send({"type": "http.response.body", "body": b"."})

    with connected(app) as client:
        client.sendall(request("/one") + request("/two"))
        received = read_until(client, b"4\r\n/two\r\n1\r\n.\r\n0\r\n\r\n")
        assert b"4\r\n/one\r\n1\r\n.\r\n0\r\n\r\n" in received


def test_serve_is_told_not_to_watch(stock: None) -> None:
    seen: list[dict[bytes, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["headers"]))
        await begin(send, (b"content-length", b"0"))
        await send({"type": "http.response.body"})

    with connected(app) as client:
        client.sendall(request())
        read_until(client, b"\r\n\r\n")
    assert parse_disconnect_disabled_header(seen[0])


def test_a_client_that_leaves_cancels_its_request(stock: None) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        compat.connection(scope)
        begun.set()
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            cancelled.set()

    with connected(app) as client:
        client.sendall(request())
        assert begun.wait(PATIENCE_S)
        assert not cancelled.is_set()
        client.close()
        assert cancelled.wait(PATIENCE_S)


def test_a_client_that_leaves_after_its_response_cancels_nothing(stock: None) -> None:
    left, finished = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        compat.connection(scope)
        await begin(send, (b"content-length", b"0"))
        await send({"type": "http.response.body"})
        await asyncio.to_thread(left.wait, PATIENCE_S)
        await asyncio.sleep(0.05)
        finished.set()

    with connected(app) as client:
        client.sendall(request())
        read_until(client, b"\r\n\r\n")
        client.close()
        left.set()
        assert finished.wait(PATIENCE_S)


def test_a_connection_of_another_event_loop_is_not_shown(stock: None) -> None:
    shown: list[Any] = []

    async def elsewhere(scope: Scope) -> None:
        shown.append(compat.connection(scope))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.to_thread(lambda: asyncio.run(elsewhere(scope)))
        shown.append(compat.connection(scope))
        await begin(send, (b"content-length", b"0"))
        await send({"type": "http.response.body"})

    with connected(app) as client:
        client.sendall(request())
        read_until(client, b"\r\n\r\n")
    assert shown[0] is None
    assert shown[1] is not None


def test_another_servers_request_shows_no_connection() -> None:
    assert compat.connection({"type": "http"}) is None


# The bounds of a connection


async def empty(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and answers with nothing."""
    while (await receive()).get("more_body"):
        pass
    await begin(send, (b"content-length", b"0"))
    await send({"type": "http.response.body"})


def read_all(client: socket.socket) -> bytes:
    received = b""
    while piece := client.recv(65536):
        received += piece
    return received


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost:"])
def test_headers_that_do_not_come_are_not_waited_for(stock: None, sent: bytes) -> None:
    with connected(empty, header_timeout_s=0.2) as client:
        client.sendall(sent)
        received = read_all(client)
    assert received.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert received.endswith(b"}")


def test_empty_lines_keep_no_idle_connection(stock: None) -> None:
    with connected(empty, header_timeout_s=0.2) as client:
        client.sendall(request())
        read_until(client, b"\r\n\r\n")
        client.sendall(b"\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 408 ")


def test_a_request_may_take_longer_than_its_headers(stock: None) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.4)
        await empty(scope, receive, send)

    with connected(app, header_timeout_s=0.2) as client:
        client.sendall(request())
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("before", [b"GET / HTTP/1.1\r\na: ", b"GET /", CHUNKED + b"1;a=", CHUNKED + b"0\r\na: "])
def test_what_is_no_body_and_does_not_end_is_refused(stock: None, before: bytes) -> None:
    with connected(empty) as client:
        client.sendall(before)
        with pytest.raises(OSError):  # noqa: PT011
            for _ in range(100):
                client.sendall(b"a" * compat.MAX_OVERHEAD_BYTES)


def test_large_headers_are_refused_with_their_status(stock: None) -> None:
    with connected(empty) as client:
        client.sendall(b"GET / HTTP/1.1\r\na: " + b"a" * compat.MAX_OVERHEAD_BYTES)
        assert read_all(client).startswith(b"HTTP/1.1 431 ")


def test_a_body_may_be_larger_than_headers(stock: None) -> None:
    chunk = b"%x\r\n%b\r\n" % (65536, b"a" * 65536)
    with connected(empty) as client:
        client.sendall(CHUNKED + 8 * chunk + b"0\r\n\r\n" + request())
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("clients", "status"), [(2, b"200"), (3, b"503")])
def test_only_so_many_clients_are_connected(stock: None, clients: int, status: bytes) -> None:
    with connected(empty, clients, max_connections=2) as client:
        client.sendall(request())
        assert client.recv(65536).startswith(b"HTTP/1.1 " + status)


# Past Serve's proxy


class Replica:
    """As much of Serve's replica as counting needs."""

    def __init__(self) -> None:
        self.ongoing = 0
        self.recorded: list[dict[str, Any]] = []
        self._metrics_manager = self

    @asynccontextmanager
    async def _start_request(self, metadata: RequestMetadata) -> AsyncIterator[None]:
        assert metadata.is_direct_ingress
        assert not metadata._reserved_slot_token
        self.ongoing += 1
        try:
            yield
        finally:
            self.ongoing -= 1

    def record_request_metrics(self, **recorded: Any) -> None:
        self.recorded.append(recorded)

    async def _dataplane_health_check(self) -> tuple[bool, str]:
        return False, "DRAINING"


def test_serve_counts_a_request_while_it_runs(stock: None) -> None:
    replica, seen = Replica(), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(replica.ongoing)
        await empty(scope, receive, send)

    with connected(compat.Counted(app, replica)) as client:
        client.sendall(request())
        read_until(client, b"\r\n\r\n")
    assert (seen, replica.ongoing) == ([1], 0)
    (recorded,) = replica.recorded
    assert (recorded["is_error"], recorded["exception_type"]) == (False, None)


def test_a_request_whose_client_left_is_counted_as_serve_counts_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    async def receive() -> dict[str, Any]:
        return {}

    async def send(_: Any) -> None: ...

    replica = Replica()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(compat.Counted(app, replica)({"type": "http", "path": "/"}, receive, send))
    (recorded,) = replica.recorded
    assert (recorded["is_error"], recorded["exception_type"]) == (True, "CancelledError")


def test_health_is_what_serve_says(stock: None) -> None:
    with connected(compat.Counted(empty, Replica())) as client:
        client.sendall(request("/-/healthz"))
        assert read_until(client, b"DRAINING").startswith(b"HTTP/1.1 503 ")


def test_serves_replica_has_what_counting_needs() -> None:
    assert list(inspect.signature(ServeReplica._start_request).parameters) == ["self", "request_metadata"]
    recorded = inspect.signature(ReplicaMetricsManager.record_request_metrics).parameters
    assert set(recorded) == {"self", "route", "latency_ms", "is_error", "exception_type"}
    assert inspect.iscoroutinefunction(ServeReplica._dataplane_health_check)
    source = inspect.getsource(ServeReplica)
    for name in ("_healthy", "_shutting_down", "_http_options", "_direct_ingress_http_server"):
        assert f"self.{name}" in source
