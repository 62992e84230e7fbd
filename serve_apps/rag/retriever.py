"""From a question to the sources of its answer: embed, search, fuse, rerank, pack; without what is down."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from serve_apps.common.errors import ServingError, Unavailable, UpstreamFailed, UpstreamTimeout
from serve_apps.common.gateway_client import Caller
from serve_apps.rag import rewriting
from serve_apps.rag.chunking import Chunk, count_words, first_words
from serve_apps.rag.config import Pipeline
from serve_apps.rag.conversation import Message
from serve_apps.rag.figures import Figure
from serve_apps.rag.filters import Filter
from serve_apps.rag.fusion import fused
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.observation import Observer
from serve_apps.rag.stages import Stages
from serve_apps.rag.vector_store import Hit, Vector, VectorStore

#: Chunks that each search contributes, however few are wanted: fusion needs those that stand lower in both.
SEARCH_DEPTH = 100

#: The best chunks of the first search that the second one is moved towards (relevance feedback, Rocchio). It finds what
#: is about the same in other words, for one more search and no call of a model.
FEEDBACK_CHUNKS = 3

#: The store's seconds are divided by this for what follows the first search: a slow store must not cost an answer its
#: deadline twice.
FOLLOW_UP_SHARE = 3

#: With a reranker, how many times the chunks that are wanted it chooses from, and how many at most.
RERANK_POOL = 4
MAX_RERANKED = 100

#: Figures of one answer, in bytes of their files together: the gateway takes some megabytes a request.
MAX_FIGURES_BYTES = 2 * 1024 * 1024

#: The beginning of a chunk that a citation quotes, in characters.
QUOTE_CHARS = 200

RETRY_AFTER_S = 5

#: Failures that cost an answer a stage but not its life. What the client must change or wait for is not one.
SURVIVABLE = (UpstreamFailed, Unavailable, UpstreamTimeout)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """A chunk put before the model under a number."""

    index: int
    """Its number, from 1: what the model writes as [1]."""
    chunk: Chunk
    score: float | None
    """Cosine similarity to the question; None for a chunk that was found by its words alone."""
    figures: tuple[Figure, ...] = ()
    """Those beside it that are put before the model, too."""

    def citation(self) -> dict[str, Any]:
        """The source as clients see it."""
        citation: dict[str, Any] = {
            "index": self.index,
            "document": self.chunk.document,
            "chunk": self.chunk.index,
            "score": None if self.score is None else round(self.score, 4),
            "quote": self.chunk.text[:QUOTE_CHARS],
        }
        if self.chunk.page is not None:
            citation["page"] = self.chunk.page
        if self.chunk.heading:
            citation["heading"] = self.chunk.heading
        if self.figures:
            citation["figures"] = [{"page": figure.page} for figure in self.figures]
        return citation


class Match(NamedTuple):
    """A chunk that was found, in the order of all searches together."""

    chunk: Chunk
    similarity: float | None
    """Cosine similarity to the question, where it is known."""


@dataclass(frozen=True, slots=True)
class Found:
    """All that was found for a question."""

    matches: tuple[Match, ...] = ()
    degraded: tuple[str, ...] = ()
    """The stages that did not take part: rewrite, embed, search, keywords, rerank; or ``retrieval`` (no search at all,
    or nothing there to search)."""
    searched: bool = True
    """Whether there was a search at all."""

    def results(self) -> list[dict[str, Any]]:
        """The matches as clients see them: a citation's fields, and the whole text."""
        sources = (Source(index, *match) for index, match in enumerate(self.matches, 1))
        return [source.citation() | {"text": source.chunk.text} for source in sources]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What is put before the model for a question."""

    sources: tuple[Source, ...] = ()
    degraded: tuple[str, ...] = ()
    """As of what was found; and ``figures``, ``vision``."""
    searched: bool = True

    @property
    def in_part(self) -> bool:
        """Whether one of the searches is missing: it might have found more."""
        return not {"embed", "search", "keywords"}.isdisjoint(self.degraded)

    @property
    def has_figures(self) -> bool:
        """Whether there is something to see."""
        return any(source.figures for source in self.sources)

    def ever_fewer(self) -> Iterator["Retrieval"]:
        """The same with all sources, the better half of them, and so on, for a model with a small window."""
        sources = self.sources
        yield self
        while len(sources) > 1:
            sources = sources[: len(sources) // 2]
            yield replace(self, sources=sources)

    def without_figures(self) -> "Retrieval":
        """The same for a model that does not see, since the one that does is down."""
        sources = tuple(replace(source, figures=()) for source in self.sources)
        return replace(self, sources=sources, degraded=(*self.degraded, "vision"))


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
        self._stages = Stages(name, pipeline.max_concurrent, observer)
        self._follow_up_s = pipeline.vector_store.timeout_s / FOLLOW_UP_SHARE

    async def retrieve(
        self,
        question: str,
        caller: Caller,
        top_k: int | None = None,
        where: Filter | None = None,
        history: Sequence[Message] = (),
    ) -> Retrieval:
        """The sources for ``question``, at most ``top_k`` (the pipeline's own unless given).

        Args:
            question: as it was asked.
            caller: whom it is asked for.
            top_k: chunks at most.
            where: which documents may answer.
            history: what was said before; the question is rewritten by it, if the pipeline does that.

        Raises:
            ServingError: the embedder refused the question or this tenant, or nothing can be searched and the pipeline
                is strict. Otherwise a stage that is down degrades the answer.
        """
        degraded: tuple[str, ...] = ()
        searched_for = question
        if history and self._pipeline.rewrite:
            try:
                searched_for = await self._rewritten(question, history, caller)
            except (ServingError, ValueError) as error:
                degraded = self._degraded("rewrite", str(error))
        found = await self.find(searched_for, caller, top_k or self._pipeline.top_k, where)
        sources = pack(found.matches, self._pipeline.max_context_words)
        self._observer.found(self._name, len(sources))
        return Retrieval(sources, degraded + found.degraded, found.searched)

    async def illustrated(self, retrieval: Retrieval) -> Retrieval:
        """The sources with the figures that stand beside them, the best source's first."""
        sources = retrieval.sources
        if not self._pipeline.keeps_figures:
            return retrieval
        try:
            sources = await self._stages.run("figures", self._follow_up_s, lambda: self._illustrated(sources))
        except SURVIVABLE as error:
            return replace(retrieval, degraded=retrieval.degraded + self._degraded("figures", error.message))
        return replace(retrieval, sources=sources)

    async def find(self, question: str, caller: Caller, limit: int, where: Filter | None = None) -> Found:
        """The ``limit`` best chunks for ``question``, best first; raises as ``retrieve`` does."""
        depth = max(SEARCH_DEPTH, limit)
        by_words = asyncio.ensure_future(self._by_words(question, depth, where))
        try:
            by_vector = await self._by_vector(question, caller, depth, where)
            words = await by_words
        finally:
            by_words.cancel()
        if by_vector.hits is None and words.hits is None:
            if self._pipeline.strict:
                raise Unavailable(
                    f"Pipeline {self._name!r} cannot search its documents; try again later.",
                    code="retrieval_unavailable",
                    retry_after_s=RETRY_AFTER_S,
                )
            return Found(degraded=self._degraded("retrieval", by_vector.problem or words.problem), searched=False)
        degraded: tuple[str, ...] = ()
        if by_vector.problem:
            degraded += self._degraded(by_vector.stage, by_vector.problem)
        if words.problem:
            degraded += self._degraded(words.stage, words.problem)
        if not by_vector.hits and not words.hits and not degraded and where is None:
            return Found(degraded=self._degraded("retrieval", "the collection is empty"))
        matches = await self._fused(by_vector, words.hits or [], depth, where)
        try:
            matches = await self._reranked(question, matches, limit, caller)
        except ServingError as error:
            degraded += self._degraded("rerank", error.message)
        return Found(tuple(matches[:limit]), degraded)

    async def _rewritten(self, question: str, history: Sequence[Message], caller: Caller) -> str:
        request = rewriting.request(self._pipeline.llm, history, question)
        answer = await self._stages.run(
            "rewrite", self._pipeline.rewrite_timeout_s, lambda: self._gateway.chat(request, caller)
        )
        return rewriting.read(answer, question)

    async def _by_vector(self, question: str, caller: Caller, depth: int, where: Filter | None) -> "_Searched":
        stage = "embed"
        try:
            [vector] = await self._stages.run(
                stage,
                self._pipeline.embed_timeout_s,
                lambda: self._gateway.embed(self._pipeline.embedder, [question], caller),
            )
            stage = "search"
            hits = await self._stages.run(
                stage, self._pipeline.vector_store.timeout_s, lambda: self._store.search(vector, depth, where)
            )
        except SURVIVABLE as error:
            return _Searched(stage, None, error.message)
        return _Searched(stage, hits, vector=vector)

    async def _by_words(self, question: str, depth: int, where: Filter | None) -> "_Searched":
        if not self._pipeline.keywords:
            return _Searched("keywords", None)
        try:
            hits = await self._stages.run(
                "keywords",
                self._pipeline.vector_store.timeout_s,
                lambda: self._store.keyword_search(question, depth, where),
            )
        except SURVIVABLE as error:
            return _Searched("keywords", None, error.message)
        return _Searched("keywords", hits)

    async def _fused(
        self, by_vector: "_Searched", by_words: list[Hit], depth: int, where: Filter | None
    ) -> list[Match]:
        """One order of what both searches found; nothing if the vectors say that nothing is relevant."""
        if by_vector.hits is None:
            return [Match(hit.chunk, None) for hit in by_words]
        similarity = {hit.key: hit.score for hit in by_vector.hits}
        similar = [hit for hit in by_vector.hits if hit.score >= self._pipeline.min_score]
        if not similar:
            return []
        chunks = {hit.key: hit.chunk for hit in (*similar, *by_words)}
        words = [hit.key for hit in by_words]
        order = fused([[hit.key for hit in similar], words])
        best = [chunks[key] for key in order[:FEEDBACK_CHUNKS]]
        nearby = await self._nearby(by_vector.vector, best, depth, where)
        if nearby:
            chunks |= {hit.key: hit.chunk for hit in nearby}
            # What the question itself is unlike does not come in by a detour; nor does what is no more like it than
            # the last that was found, where that is unlike it already.
            last = by_vector.hits[-1].score
            again = [hit.key for hit in nearby if similarity.get(hit.key, last) >= self._pipeline.min_score]
            order = fused([again, words])
        return [Match(chunks[key], similarity.get(key)) for key in order]

    async def _nearby(self, question: Vector, best: list[Chunk], depth: int, where: Filter | None) -> list[Hit]:
        """What is similar to the question and the best chunks together; nothing if the store does not say in time."""

        async def search() -> list[Hit]:
            vectors = await self._store.vectors(best)
            moved = _unit(question) + np.mean([_unit(vector) for vector in vectors], axis=0) if vectors else question
            return await self._store.search(moved, depth, where)

        try:
            return await self._stages.run("feedback", self._follow_up_s, search)
        except SURVIVABLE as error:
            logger.warning("no feedback", extra={"pipeline": self._name, "reason": error.message})
            return []

    async def _illustrated(self, sources: Sequence[Source]) -> tuple[Source, ...]:
        illustrated: list[Source] = []
        seen: set[tuple[str, int]] = set()  # chunks that begin on one page have the same figures
        left, room = self._pipeline.max_figures, MAX_FIGURES_BYTES
        for source in sources:
            shown: list[Figure] = []
            page = source.chunk.page
            if left and page is not None and (source.chunk.document, page) not in seen:
                seen.add((source.chunk.document, page))
                for figure in await self._store.figures(source.chunk.document, page, left):
                    if len(figure.content) <= room:
                        shown.append(figure)
                        room -= len(figure.content)
            left -= len(shown)
            illustrated.append(replace(source, figures=tuple(shown)))
        return tuple(illustrated)

    async def _reranked(self, question: str, matches: list[Match], limit: int, caller: Caller) -> list[Match]:
        reranker = self._pipeline.reranker
        size = min(limit * RERANK_POOL, MAX_RERANKED)
        pool, rest = matches[:size], matches[size:]
        if reranker is None or len(pool) < 2:
            return matches
        passages = [match.chunk.passage for match in pool]
        relevance = await self._stages.run(
            "rerank",
            self._pipeline.rerank_timeout_s,
            lambda: self._gateway.rerank(reranker, question, passages, caller),
        )
        order = sorted(range(len(pool)), key=lambda index: relevance[index], reverse=True)
        return [pool[index] for index in order] + rest

    def _degraded(self, stage: str, reason: str) -> tuple[str]:
        logger.warning("degraded answer", extra={"pipeline": self._name, "stage": stage, "reason": reason})
        self._observer.degraded(self._name, stage)
        return (stage,)


@dataclass(frozen=True, slots=True)
class _Searched:
    """What became of one of the searches."""

    stage: str
    """The last stage it came to."""
    hits: list[Hit] | None
    """None: there was no search."""
    problem: str = ""
    """Why not, if there should have been one."""
    vector: Vector = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    """The question's."""


def _unit(vector: Vector) -> Vector:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def pack(matches: Sequence[Match], max_words: int) -> tuple[Source, ...]:
    """The best matches that fit into ``max_words``, numbered from 1; the very best is cut rather than left out."""
    packed: list[Source] = []
    room = max_words
    for match in matches:
        words = count_words(match.chunk.passage)
        if words > room and packed:
            continue
        chunk = match.chunk if words <= room else replace(match.chunk, text=first_words(match.chunk.text, room))
        packed.append(Source(len(packed) + 1, chunk, match.similarity))
        room -= words
    return tuple(packed)
