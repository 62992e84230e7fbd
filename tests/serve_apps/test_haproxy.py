"""HAProxy as Ray's config sets it up, and what our program for it changes."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import serve_apps
from tests.serve_apps.gateway.servers import PATIENCE_S
from tools.ports import free_port

HAPROXY = Path(serve_apps.__file__).parent / "haproxy"
CONFIG = """
defaults
  mode http
  timeout connect 5s
  timeout client 3600s
  option abortonclose
  option splice-request
  option splice-response
  option idle-close-on-response
frontend http_frontend
  bind 127.0.0.1:{port}
  default_backend all
backend all
  server upstream {upstream}
"""


@pytest.fixture
def headers_timeout_s() -> int:
    """How long HAProxy waits for a request's headers: longer than a busy machine keeps a test from sending them."""
    return PATIENCE_S


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        yield listener


@pytest.fixture
def haproxy(upstream: socket.socket, headers_timeout_s: int, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """HAProxy's address, once it listens."""
    address = ("127.0.0.1", free_port())
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(port=address[1], upstream="{}:{}".format(*upstream.getsockname())))
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(HAPROXY),
        "LLM_HEADERS_TIMEOUT_S": str(headers_timeout_s),
    }
    process = subprocess.Popen([HAPROXY, "-db", "-f", config], env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(address).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, "HAProxy ended"
                assert time.monotonic() < deadline, "HAProxy does not listen"
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize("attempt", range(5))
def test_a_client_that_leaves_is_noticed_though_its_body_came_by_itself(
    upstream: socket.socket, haproxy: tuple[str, int], attempt: int
) -> None:
    asked, left = threading.Event(), threading.Event()

    def serve() -> None:
        connection, _ = upstream.accept()
        with connection:
            connection.settimeout(PATIENCE_S)
            seen = b""
            while not seen.endswith(b"{}"):
                seen += connection.recv(4096)
            asked.set()
            with contextlib.suppress(ConnectionResetError):
                connection.recv(1)
            left.set()

    server = threading.Thread(target=serve)
    server.start()
    with socket.create_connection(haproxy) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n")
        time.sleep(0.02)
        client.sendall(b"{}")
        assert asked.wait(PATIENCE_S)
        assert not left.is_set()
    server.join(PATIENCE_S)
    assert left.is_set()


def passed_on(upstream: socket.socket, haproxy: tuple[str, int], headers: bytes) -> bytes:
    """A request's head as the server sees it."""
    with socket.create_connection(haproxy, timeout=PATIENCE_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n")
        connection, _ = upstream.accept()
        with connection:
            connection.settimeout(PATIENCE_S)
            seen = b""
            while not seen.endswith(b"\r\n\r\n"):
                seen += connection.recv(4096)
            return seen


@pytest.mark.parametrize("headers_timeout_s", [2])
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_headers_that_do_not_come_are_given_up(haproxy: tuple[str, int], sent: bytes) -> None:
    with socket.create_connection(haproxy, timeout=PATIENCE_S) as client:
        client.sendall(sent)
        client.settimeout(0.5)
        answer = b""
        for _ in range(PATIENCE_S * 2):
            with contextlib.suppress(TimeoutError):
                answer = client.recv(4096)
                break
            if sent:
                client.sendall(b"a")  # never silent for long
    assert answer.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "header",
    [
        b"x-request-id: \xff",
        b"x-request-id: a b",
        b"x-session-id: \xff",
        b"x-request-disconnect-disabled: \xff",
        b"x-request-timeout-seconds: 1",
        b"serve_multiplexed_model_id: a",
        b"serve-multiplexed-model-id: a",
    ],
)
def test_a_header_that_serve_fails_over_or_that_is_not_a_clients_is_dropped(
    upstream: socket.socket, haproxy: tuple[str, int], header: bytes
) -> None:
    assert header.partition(b":")[0] not in passed_on(upstream, haproxy, header + b"\r\n")


@pytest.mark.parametrize(
    "header", [b"x-request-id: job-7", b"x-session-id: a/b=", b"x-request-disconnect-disabled: ?1", b"x-title: \xff"]
)
def test_any_other_header_is_passed_on(upstream: socket.socket, haproxy: tuple[str, int], header: bytes) -> None:
    assert header in passed_on(upstream, haproxy, header + b"\r\n")
