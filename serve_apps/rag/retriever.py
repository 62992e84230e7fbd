"""From a question to the sources of its answer: embed, search, drop what is unlike, rerank, pack."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from serve_apps.common.errors import ServingError, Unavailable, UpstreamFailed, UpstreamTimeout
from serve_apps.rag.chunking import Chunk, count_words, first_words
from serve_apps.rag.config import Pipeline
from serve_apps.rag.gateway_client import Caller, GatewayClient
from serve_apps.rag.observation import Observer
from serve_apps.rag.vector_store import Hit, VectorStore

#: With a reranker, how many times ``top_k`` chunks are fetched for it to choose from.
RERANK_POOL = 4

#: The beginning of a chunk that a citation quotes, in characters.
QUOTE_CHARS = 200

#: Failures that cost an answer its sources but not its life. What the client must change or wait for is not one.
_SURVIVABLE = (UpstreamFailed, Unavailable, UpstreamTimeout)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """A chunk put before the model under a number."""

    index: int
    """Its number, from 1: what the model writes as [1]."""
    chunk: Chunk
    score: float
    """Cosine similarity to the question."""

    def citation(self) -> dict[str, Any]:
        """The source as clients see it."""
        citation: dict[str, Any] = {
            "index": self.index,
            "document": self.chunk.document,
            "chunk": self.chunk.index,
            "score": round(self.score, 4),
            "quote": self.chunk.text[:QUOTE_CHARS],
        }
        if self.chunk.page is not None:
            citation["page"] = self.chunk.page
        if self.chunk.heading:
            citation["heading"] = self.chunk.heading
        return citation


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found for a question."""

    sources: tuple[Source, ...] = ()
    degraded: tuple[str, ...] = ()
    """The stages that did not take part: ``retrieval`` (no search, or nothing there to search), ``rerank``."""
    searched: bool = True
    """Whether there was a search at all."""


class Retriever:
    """Finds the sources for one pipeline's questions."""

    def __init__(
        self, name: str, pipeline: Pipeline, store: VectorStore, gateway: GatewayClient, observer: Observer
    ) -> None:
        self._name = name
        self._pipeline = pipeline
        self._store = store
        self._gateway = gateway
        self._observer = observer

    async def retrieve(self, question: str, caller: Caller, top_k: int | None = None) -> Retrieval:
        """The sources for ``question``, at most ``top_k`` (the pipeline's own unless given).

        Raises:
            ServingError: the embedder refused the question or this tenant. A stage that is down degrades the answer.
        """
        limit = top_k or self._pipeline.top_k
        try:
            hits = await self._search(question, limit * RERANK_POOL if self._pipeline.reranker else limit, caller)
        except _SURVIVABLE as error:
            return self._degraded("retrieval", error.message, Retrieval(searched=False))
        if not hits:
            return self._degraded("retrieval", "the collection is empty", Retrieval())
        hits = [hit for hit in hits if hit.score >= self._pipeline.min_score]
        try:
            hits = await self._reranked(question, hits, caller)
        except (ServingError, TimeoutError) as error:
            found = Retrieval(pack(hits[:limit], self._pipeline.max_context_words))
            return self._degraded("rerank", str(error) or "too slow", found)
        return Retrieval(pack(hits[:limit], self._pipeline.max_context_words))

    async def _search(self, question: str, limit: int, caller: Caller) -> list[Hit]:
        with self._observer.stage(self._name, "embed"):
            [vector] = await self._gateway.embed(self._pipeline.embedder, [question], caller)
        with self._observer.stage(self._name, "search"):
            return await self._store.search(vector, limit)

    async def _reranked(self, question: str, hits: list[Hit], caller: Caller) -> list[Hit]:
        reranker = self._pipeline.reranker
        if reranker is None or len(hits) < 2:
            return hits
        passages = [hit.chunk.passage for hit in hits]
        with self._observer.stage(self._name, "rerank"):
            async with asyncio.timeout(self._pipeline.rerank_timeout_s):
                relevance = await self._gateway.rerank(reranker, question, passages, caller)
        order = sorted(range(len(hits)), key=lambda index: relevance[index], reverse=True)
        return [hits[index] for index in order]

    def _degraded(self, stage: str, reason: str, found: Retrieval) -> Retrieval:
        logger.warning("degraded answer", extra={"pipeline": self._name, "stage": stage, "reason": reason})
        self._observer.degraded(self._name, stage)
        return replace(found, degraded=(*found.degraded, stage))


def pack(hits: Sequence[Hit], max_words: int) -> tuple[Source, ...]:
    """The best hits that fit into ``max_words``, numbered from 1; the very best is cut rather than left out."""
    packed: list[Source] = []
    room = max_words
    for hit in hits:
        words = count_words(hit.chunk.passage)
        if words > room and packed:
            continue
        chunk = hit.chunk if words <= room else replace(hit.chunk, text=first_words(hit.chunk.text, room))
        packed.append(Source(len(packed) + 1, chunk, hit.score))
        room -= words
    return tuple(packed)
