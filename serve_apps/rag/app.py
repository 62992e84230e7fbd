"""The front door of the RAG app."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve import metrics as serve_metrics
from ray.serve.handle import DeploymentHandle

from serve_apps.common import logging, metrics, tracing
from serve_apps.common.config import accepted
from serve_apps.common.errors import Unavailable
from serve_apps.common.middleware import ASGIApp
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag import reading
from serve_apps.rag.config import RagArgs, RagPipelines
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.ingress import build_asgi
from serve_apps.rag.pipelines import Pipelines
from serve_apps.rag.reading import Content
from serve_apps.rag.stores import open_store

RETRY_AFTER_S = 5


class RayMetrics:
    """An ``Observer`` that exports what it is told as Ray metrics."""

    def __init__(self) -> None:
        self._stage = metrics.create(metrics.RAG_STAGE, serve_metrics)
        self._degraded = metrics.create(metrics.RAG_DEGRADED, serve_metrics)
        self._chunks = metrics.create(metrics.RAG_CHUNKS, serve_metrics)
        self._sources = metrics.create(metrics.RAG_SOURCES, serve_metrics)
        self._unfound = metrics.create(metrics.RAG_UNFOUND, serve_metrics)
        self._store_calls = metrics.create(metrics.RAG_STORE_CALLS, serve_metrics)

    @contextmanager
    def stage(self, pipeline: str, stage: str) -> Iterator[None]:
        """Time one stage of an answer, failed ones too."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._stage.observe(time.monotonic() - began, {"pipeline": pipeline, "stage": stage})

    def degraded(self, pipeline: str, stage: str) -> None:
        """Count an answer given without ``stage``."""
        self._degraded.inc(1, {"pipeline": pipeline, "stage": stage})

    def found(self, pipeline: str, sources: int) -> None:
        """Count the chunks an answer is made from, and the questions that found none."""
        self._sources.observe(sources, {"pipeline": pipeline})
        if not sources:
            self._unfound.inc(1, {"pipeline": pipeline})

    def store_called(self, answered: bool) -> None:
        """Count a call of a Milvus server by how it ended."""
        self._store_calls.inc(1, {"outcome": "answered" if answered else "failed"})

    def ingested(self, pipeline: str, chunks: int) -> None:
        """Count chunks written to the vector store."""
        self._chunks.inc(chunks, {"pipeline": pipeline})


class Reading:
    """A replica that reads documents: work for a processor, which would slow the answers beside it down."""

    def __init__(self) -> None:
        logging.configure()

    async def read(self, content: bytes, content_type: str, name: str, with_figures: bool) -> reading.Answer:
        """See ``reading.answered``."""
        return await reading.answered(content, content_type, name, with_figures)


class Rag:
    """A replica: all pipelines, behind one guarded ASGI app."""

    def __init__(self, args: RagArgs, readers: DeploymentHandle) -> None:
        """``readers``: the replicas of ``Reading``."""
        logging.configure()
        tracing.configure()
        self._credential = InternalCredential()
        self._credential.value()  # fail now, not at the first request
        self._observer = RayMetrics()
        self._gateway = GatewayClient(args.gateway_url, self._credential, args.model_timeout_s)
        opened = partial(open_store, on_call=self._observer.store_called)
        self._pipelines = Pipelines(self._gateway, self._observer, opened, self._read)
        self._settings: RagPipelines | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._readers = readers

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Run the pipelines of ``user_config`` instead; one that is not valid changes nothing.

        Serve sends a replica no questions before this returns. So a new one has its documents at hand by then, while
        one that runs prepares new ones beside its answers.
        """
        is_new = self._settings is None
        self._settings = accepted(RagPipelines, user_config, self._settings)
        self._pipelines.replace(self._settings)
        self._preparing = asyncio.create_task(self._pipelines.prepare())
        if is_new:
            await self._preparing

    async def _read(self, content: bytes, content_type: str, name: str, with_figures: bool) -> Content:
        try:
            answer = await self._readers.read.remote(content, content_type, name, with_figures)
        except RayError as error:  # the replica is gone, and the document with it
            raise Unavailable(
                f"document {name!r}: what read it has ended; send it again.",
                code="reading_unavailable",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        return reading.content_of(answer)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return build_asgi(self._pipelines, self._gateway, self._observer, self._credential)


def build_app(args: RagArgs) -> Application:
    """The pipelines of ``user_config`` as one deployment, a client of the gateway, and what reads their documents."""
    readers = serve.deployment(name="Reading")(Reading).bind()
    return serve.deployment(name="Rag")(serve.ingress()(Rag)).bind(args, readers)
