"""The embedded store by itself, with made chunks: how quickly it takes them in and finds them, what it holds in memory.

Vectors are drawn from a normal distribution in as many dimensions as MiniLM has, so that no index can profit from how
they lie; a question is one of them with as much noise as signal. Words are as frequent as in texts. The seed is fixed.
"""

import asyncio
import multiprocessing
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import accumulate
from typing import Any

import numpy as np
import psutil

from serve_apps.rag.chunking import Chunk
from serve_apps.rag.config import VectorStore as Settings
from serve_apps.rag.stores import open_store
from serve_apps.rag.vector_store import StoredDocument, VectorStore

DIMENSION = 384
CHUNKS_PER_DOCUMENT = 20
SEARCHES = 300
CHUNK_WORDS = 120
QUESTION_WORDS = 12
BEST = 10
#: For a store on a machine that does other things, too, in seconds.
PATIENCE_S = 600
SEED = 7


class Words:
    """Made texts: the n-th word comes up 1/n as often as the first."""

    def __init__(self) -> None:
        self._words = [f"word{number}" for number in range(20_000)]
        self._weights = list(accumulate(1 / (rank + 1) for rank in range(len(self._words))))
        self._random = random.Random(SEED)

    def __call__(self, length: int) -> str:
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=length))


def measured(chunks: int) -> dict[str, Any]:
    """The figures of a store of so many chunks."""
    with tempfile.TemporaryDirectory(prefix="bench-rag-") as scratch:
        uri = f"{scratch}/made.db"
        figures = asyncio.run(_measured(_opened(uri), chunks))
        # A process of its own: what this one holds, and has given back, would count.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            return figures | fresh.submit(reopened, uri).result()


def reopened(uri: str) -> dict[str, Any]:
    """What a store costs after a restart: the seconds to its first answers, and its memory."""
    return asyncio.run(_reopened(uri))


def _opened(uri: str) -> VectorStore:
    return open_store(Settings(uri=uri, timeout_s=PATIENCE_S), "made")


async def _measured(store: VectorStore, chunks: int) -> dict[str, Any]:
    made, words = np.random.default_rng(SEED), Words()
    vectors = made.standard_normal((chunks, DIMENSION), dtype=np.float32)
    texts = [words(CHUNK_WORDS) for _ in range(chunks)]
    began = time.perf_counter()
    for first in range(0, chunks, CHUNKS_PER_DOCUMENT):
        name = str(first)
        of_it = texts[first : first + CHUNKS_PER_DOCUMENT]
        pieces = [Chunk(name, place, each) for place, each in enumerate(of_it)]
        vectors_of_it = list(vectors[first : first + CHUNKS_PER_DOCUMENT])
        await store.replace(StoredDocument(name, len(pieces), "hash"), pieces, vectors_of_it)
    await store.prepare()
    await store.keyword_search("word1", 1)
    written_s = time.perf_counter() - began
    units = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    found, by_vector, by_words = [], [], []
    for _ in range(SEARCHES):
        question = vectors[made.integers(chunks)] + made.standard_normal(DIMENSION, dtype=np.float32)
        began = time.perf_counter()
        hits = await store.search(question, BEST)
        by_vector.append(time.perf_counter() - began)
        exact = np.argsort(-(units @ question))[:BEST].tolist()
        found.append(len({int(hit.chunk.document) + hit.chunk.index for hit in hits} & {*exact}) / BEST)
        text = words(QUESTION_WORDS)
        began = time.perf_counter()
        await store.keyword_search(text, BEST)
        by_words.append(time.perf_counter() - began)
    return {
        "chunks": chunks,
        "written_s": round(written_s, 1),
        "written_per_s": round(chunks / written_s),
        "recall10": round(float(np.mean(found)), 4),
        "search_p50_ms": _ms(by_vector, 50),
        "search_p99_ms": _ms(by_vector, 99),
        "keywords_p50_ms": _ms(by_words, 50),
        "keywords_p99_ms": _ms(by_words, 99),
    }


async def _reopened(uri: str) -> dict[str, Any]:
    process = psutil.Process()
    before = process.memory_info().rss
    store = _opened(uri)
    began = time.perf_counter()
    await store.prepare()
    await store.search(np.ones(DIMENSION, dtype=np.float32), BEST)
    await store.keyword_search("word1", BEST)
    return {
        "reopened_s": round(time.perf_counter() - began, 1),
        "memory_mb": round((process.memory_info().rss - before) / 1e6),
    }


def _ms(seconds: Sequence[float], percentile: int) -> float:
    return round(float(np.percentile(seconds, percentile)) * 1000, 2)
