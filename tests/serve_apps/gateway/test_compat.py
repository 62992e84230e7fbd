"""The private names of Ray Serve and uvicorn that compat.py uses, each as it is used there."""

import asyncio
import contextlib
import inspect
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
import uvloop
from ray.serve._private import http_util
from ray.serve._private.common import RequestMetadata, RequestProtocol
from ray.serve._private.controller import ServeController
from ray.serve._private.http_util import parse_disconnect_disabled_header
from ray.serve._private.long_poll import LongPollHost, LongPollNamespace
from ray.serve._private.replica import Replica as ServeReplica
from ray.serve._private.replica import ReplicaMetricsManager
from ray.serve.schema import Target as ServeTarget
from ray.serve.schema import TargetGroup

from serve_apps.common.middleware import ASGIApp, Receive, Scope, Send
from serve_apps.gateway import compat, server
from serve_apps.gateway.replicas import Target, Targets
from tests.serve_apps.gateway.servers import PATIENCE_S, begin, client_of, empty, read_until, request

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


def chosen() -> Any:
    """The protocol of a server that is started now."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    config = uvicorn.Config(app)
    config.load()
    return config.http_protocol_class


def test_own_server_is_what_uvicorn_chooses_from_then_on() -> None:
    assert not issubclass(chosen(), server.Connection)
    compat.own_server(7)
    assert issubclass(chosen(), server.Connection)
    assert chosen().write_timeout_s == 7


def test_serve_is_told_not_to_watch() -> None:
    seen: list[dict[bytes, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["headers"]))
        await begin(send, (b"content-length", b"0"))
        await send({"type": "http.response.body"})

    with client_of(app) as client:
        client.sendall(request())
        read_until(client, b"\r\n\r\n")
    assert parse_disconnect_disabled_header(seen[0])


def test_a_connection_of_another_event_loop_is_not_shown() -> None:
    shown: list[Any] = []

    async def elsewhere(scope: Scope) -> None:
        shown.append(compat.connection(scope))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.to_thread(lambda: asyncio.run(elsewhere(scope)))
        shown.append(compat.connection(scope))
        await begin(send, (b"content-length", b"0"))
        await send({"type": "http.response.body"})

    with client_of(app) as client:
        client.sendall(request())
        read_until(client, b"\r\n\r\n")
    assert shown[0] is None
    assert shown[1] is not None


def test_a_body_is_known_to_have_come_when_all_of_it_has() -> None:
    known: list[bool] = []
    asked = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        known.append(compat.body_has_come(scope))
        asked.set()
        while (await receive())["more_body"]:
            pass
        known.append(compat.body_has_come(scope))
        await begin(send, (b"content-length", b"0"))
        await send({"type": "http.response.body"})

    with client_of(app) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n1")
        assert asked.wait(PATIENCE_S)
        client.sendall(b"2")
        read_until(client, b"\r\n\r\n")
    assert known == [False, True]


def test_of_another_servers_request_that_is_not_known() -> None:
    async def asked() -> bool:
        return compat.body_has_come({"type": "http"})

    assert not asyncio.run(asked())


def test_another_servers_request_shows_no_connection() -> None:
    assert compat.connection({"type": "http"}) is None


# Past Serve's proxy


async def nothing(*_: Any) -> Any:
    """A client that says nothing and takes everything."""


class Replica:
    """As much of Serve's replica as counting needs."""

    def __init__(self) -> None:
        self.ongoing = 0
        self.steps: list[str] = []
        self.recorded: list[dict[str, Any]] = []
        self._metrics_manager = self._semaphore = self

    async def acquire(self) -> None:
        self.steps.append("acquired")

    def release(self) -> None:
        self.steps.append("released")

    def inc_num_ongoing_requests(self, metadata: RequestMetadata) -> None:
        assert metadata.is_direct_ingress
        self.ongoing += 1
        self.steps.append("begun")

    def dec_num_ongoing_requests(self, metadata: RequestMetadata) -> None:
        assert metadata.is_direct_ingress
        self.ongoing -= 1
        self.steps.append("ended")

    def record_request_metrics(self, **recorded: Any) -> None:
        self.recorded.append(recorded)

    async def _dataplane_health_check(self) -> tuple[bool, str]:
        return False, "DRAINING"


def test_serve_counts_a_request_while_it_runs() -> None:
    replica, seen = Replica(), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(replica.ongoing)
        await empty(scope, receive, send)

    with client_of(compat.Counted(app, replica)) as client:
        client.sendall(request())
        read_until(client, b"\r\n\r\n")
    assert (seen, replica.ongoing) == ([1], 0)
    (recorded,) = replica.recorded
    assert (recorded["is_error"], recorded["exception_type"]) == (False, None)


@pytest.mark.parametrize("failure", [None, ValueError(), asyncio.CancelledError()])
def test_a_request_takes_the_steps_that_serve_takes(failure: BaseException | None) -> None:
    ours, serves = Replica(), Replica()

    def app_of(replica: Replica) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            replica.steps.append("answered")
            if failure is not None:
                raise failure

        return app

    async def play() -> None:
        with contextlib.suppress(ValueError, asyncio.CancelledError):
            await compat.Counted(app_of(ours), ours)({"type": "http", "path": "/"}, nothing, nothing)
        with contextlib.suppress(ValueError, asyncio.CancelledError):
            async with ServeReplica._start_request(serves, compat._STRAIGHT):
                await app_of(serves)({}, nothing, nothing)

    asyncio.run(play())
    assert ours.steps == serves.steps == ["acquired", "begun", "answered", "ended", "released"]


def test_a_request_whose_client_left_is_counted_as_serve_counts_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    replica = Replica()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(compat.Counted(app, replica)({"type": "http", "path": "/"}, nothing, nothing))
    (recorded,) = replica.recorded
    assert (recorded["is_error"], recorded["exception_type"]) == (True, "CancelledError")


def test_health_is_what_serve_says() -> None:
    with client_of(compat.Counted(empty, Replica())) as client:
        client.sendall(request("/-/healthz"))
        assert read_until(client, b"DRAINING").startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_who_has_connected_when_a_replica_ends_is_answered(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The kernel connects clients before a busy loop sees them."""

    async def play() -> list[bytes]:
        with compat._listener("127.0.0.1", 0) as listener:
            end = await compat._serve(empty, uvicorn.Server(uvicorn.Config(empty)), listener)
            address = listener.getsockname()
            clients = [socket.create_connection(address, PATIENCE_S) for _ in range(3)]
            for client in clients:
                client.sendall(request())
            # Nothing has been awaited: the loop has seen none of them.
            await end()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, PATIENCE_S)
        answers = await asyncio.gather(*(asyncio.to_thread(read_until, one, b"\r\n\r\n") for one in clients))
        for client in clients:
            client.close()
        return answers

    with asyncio.Runner(loop_factory=new_loop) as runner:
        answers = runner.run(play())
    assert [answer.partition(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 3


def test_serves_replica_has_what_counting_needs() -> None:
    for changes in (ReplicaMetricsManager.inc_num_ongoing_requests, ReplicaMetricsManager.dec_num_ongoing_requests):
        assert list(inspect.signature(changes).parameters) == ["self", "request_metadata"]
    recorded = inspect.signature(ReplicaMetricsManager.record_request_metrics).parameters
    assert set(recorded) == {"self", "route", "latency_ms", "is_error", "exception_type"}
    assert inspect.iscoroutinefunction(ServeReplica._dataplane_health_check)
    source = inspect.getsource(sys.modules[ServeReplica.__module__])
    for name in ("_healthy", "_shutting_down", "_http_options", "_direct_ingress_http_server", "_semaphore"):
        assert f"self.{name}" in source
