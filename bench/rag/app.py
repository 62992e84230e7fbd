"""The RAG app over HTTP, with MiniLM on vLLM as the demo has it."""

import asyncio
import socket
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvicorn

from bench.gateway.systems import CannotStart, listens, program
from serve_apps.common.protocol import INTERNAL_HEADER
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag.config import RagPipelines
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.ingress import build_asgi
from serve_apps.rag.pipelines import Pipelines
from serve_apps.rag.stores import open_store
from tools.demo.models import CLAIM, models_root
from tools.ports import free_port

TOKEN = "bench"  # noqa: S105 (nobody else can reach the port)
PIPELINE = "docs"
#: A document's chunks are embedded on a CPU, 50 documents a request.
TIMEOUT_S = 900
#: vLLM alone imports for a minute on a busy machine.
START_TIMEOUT_S = 600


class StageTimes:
    """An ``Observer`` that keeps how long each stage took, in seconds."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.missing: list[str] = []
        """The stages that answers were given without."""

    @contextmanager
    def stage(self, _pipeline: str, stage: str) -> Iterator[None]:
        """Time one stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage].append(time.perf_counter() - began)

    def degraded(self, _pipeline: str, stage: str) -> None:
        """Remember a stage that did not take part."""
        self.missing.append(stage)

    def found(self, _pipeline: str, _sources: int) -> None:
        """Nothing: searches alone are measured."""

    def store_called(self, _answered: bool) -> None:
        """Nothing: the store here is embedded."""

    def ingested(self, _pipeline: str, _chunks: int) -> None:
        """Nothing: the app's answer says it."""


@contextmanager
def embedder() -> Iterator[str]:
    """The URL of vLLM's server with all-MiniLM-L6-v2, as values/environments/local.yaml has it."""
    port = free_port()
    model = str(models_root() / CLAIM / "all-minilm-l6-v2")
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += [
        "--served-model-name",
        "embedder",
        "--runner",
        "pooling",
        "--convert",
        "embed",
        "--max-model-len",
        "256",
    ]
    command += ["--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1", "--port", str(port)]
    with program("vllm", command, lambda: True, {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}) as pid:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not listens(port):
            if not psutil.pid_exists(pid) or time.monotonic() > deadline:
                raise CannotStart("vllm does not start with all-MiniLM-L6-v2; try what bench/rag/app.py starts by hand")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def rag_app(gateway_url: str, times: StageTimes, **settings: Any) -> Iterator[httpx.Client]:
    """A client of the app, whose one pipeline keeps its documents in an embedded store, anew each time."""
    with tempfile.TemporaryDirectory(prefix="bench-rag-") as scratch:
        (Path(scratch) / "token").write_text(TOKEN)
        credential = InternalCredential(Path(scratch) / "token")
        gateway = GatewayClient(gateway_url, credential, TIMEOUT_S)
        pipelines = Pipelines(gateway, times, open_store)
        store = {"uri": f"{scratch}/documents.db", "timeoutS": 60}
        # Patient: a figure of a degraded search would be another's.
        pipeline = {"llm": "none", "embedder": "embedder", "vectorStore": store, "embedTimeoutS": 60, **settings}
        pipelines.replace(RagPipelines.model_validate({"pipelines": {PIPELINE: pipeline}}))
        with (
            _serving(build_asgi(pipelines, gateway, times, credential)) as url,
            httpx.Client(base_url=url, headers={INTERNAL_HEADER: TOKEN}, timeout=TIMEOUT_S) as client,
        ):
            yield client


@contextmanager
def _serving(app: Any) -> Iterator[str]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
