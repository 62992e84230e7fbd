"""Documents in a vector store, their vectors directions in a plane."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np

from serve_apps.rag.chunking import Chunk
from serve_apps.rag.vector_store import StoredDocument, Vector, VectorStore


def unit(angle: int) -> Vector:
    """A direction in the plane, in degrees."""
    return np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], dtype=np.float32)


async def write(store: VectorStore, document: str, *angles: int, content_hash: str = "h") -> None:
    """A document with a chunk per angle."""
    chunks = [Chunk(document, index, f"{document} at {angle}") for index, angle in enumerate(angles)]
    await store.replace(StoredDocument(document, len(chunks), content_hash), chunks, [unit(angle) for angle in angles])


def run(work: Coroutine[Any, Any, None]) -> None:
    """What a test does, in an event loop of its own."""
    asyncio.run(work)
