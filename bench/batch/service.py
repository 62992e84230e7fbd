"""The gateway and the batches as the chart deploys them, before the model of `engine`."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from bench.batch.engine import SEQUENCES
from bench.gateway.ray_systems import secrets_of
from tools.demo.cluster import serving
from tools.demo.rendered import REPOSITORY, helm_template, ray_service
from tools.gotools import helm
from tools.ports import free_port

START_TIMEOUT_S = 60
#: The model's name: one of which the environment changes nothing.
MODEL = "fake"
#: From so many lines on Ray Data sends a batch: more than the others of the benchmark have.
RAY_DATA_LINES = 20_000


@dataclass(frozen=True)
class Service:
    """A running service."""

    port: int
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a client."""
        return {"authorization": f"Bearer {self.key}"}


@contextmanager
def running() -> Iterator[Service]:
    """The service, until the end of the block."""
    with _engine() as url, secrets_of("bench") as (secrets, key), tempfile.TemporaryDirectory() as folder:
        port = free_port()
        settings = [
            *(f"models.{MODEL}.runtime=standalone", f"models.{MODEL}.url={url}", f"models.{MODEL}.takesPriority=true"),
            f"models.{MODEL}.queue.maxConcurrent={SEQUENCES}",
            *("batch.enabled=true", f"batch.storage=file://{folder}", f"batch.concurrency={2 * SEQUENCES}"),
            f"batch.rayData.fromLines={RAY_DATA_LINES}",
            f"gateway.port={port}",
        ]
        rendered = ray_service(helm_template(helm(), [REPOSITORY / "values" / "environments" / "local.yaml"], settings))
        environment = {**rendered.environment, "LLM_SERVING_SECRETS": str(secrets)}
        with serving(rendered.serve_config, environment, rendered.labels):
            yield Service(port, key)


@contextmanager
def _engine() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "bench.batch.engine", str(port)]
    with subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}) as process:
        try:
            _wait(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            httpx.get(url, timeout=5)
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
