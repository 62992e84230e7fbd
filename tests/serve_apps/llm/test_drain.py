"""The wait of a vLLM server's preStop hook, on metrics as vLLM 0.29 prints them."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serve_apps.common import drain as common
from serve_apps.llm import drain as module
from serve_apps.llm.drain import drain, main, under_way

METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="chat"}} {running}
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="chat"}} {waiting}
vllm:num_requests_waiting_by_reason{{engine="0",model_name="chat",reason="capacity"}} 9.0
vllm:kv_cache_usage_perc{{engine="0",model_name="chat"}} 0.5
"""


def metrics(running: float, waiting: float = 0.0) -> str:
    return METRICS.format(running=running, waiting=waiting)


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_runs_and_what_waits_is_under_way() -> None:
    assert under_way(metrics(2.0, 3.0)) == 5
    assert under_way(metrics(0.0)) == 0
    assert under_way("") == 0


def test_every_engine_of_the_server_counts() -> None:
    assert under_way(metrics(2.0) + metrics(1.0).replace('engine="0"', 'engine="1"')) == 3


def test_it_waits_for_the_last_request(clock: Clock) -> None:
    answers = iter([metrics(2.0), metrics(1.0, 1.0), metrics(0.0)])
    assert drain(60, lambda: next(answers), clock, clock.sleep) == "drained"
    assert next(answers, None) is None


def test_nothing_to_wait_for_still_leaves_time_to_be_unlisted(clock: Clock) -> None:
    assert drain(60, lambda: metrics(0.0), clock, clock.sleep) == "drained"
    assert clock.now_s == module.UNLISTED_S


def test_a_stream_that_does_not_end_is_left_when_the_time_is_over(clock: Clock) -> None:
    assert drain(60, lambda: metrics(1.0), clock, clock.sleep) == "1 requests left after 60 s"
    assert clock.now_s == 60


def test_a_server_that_is_gone_is_not_waited_for(clock: Clock) -> None:
    assert drain(60, lambda: None, clock, clock.sleep) == "the server is gone"


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a server that is idle."""

    class Idle(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(metrics(0.0).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Idle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()


def test_the_hook_marks_the_pod_and_asks_the_server(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(common, "LOG", log)
    monkeypatch.setattr(module, "DRAINING", tmp_path / "draining")
    monkeypatch.setattr(module, "METRICS_URL", server)
    monkeypatch.setattr(module, "UNLISTED_S", 0.0)
    assert main(["--seconds=60"]) == 0
    assert (tmp_path / "draining").exists()
    assert log.read_text() == "preStop: drained\n"
