"""What the app needs of the place where chunks and their vectors live."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serve_apps.common.errors import UpstreamFailed
from serve_apps.rag.chunking import Chunk
from serve_apps.rag.figures import Figure
from serve_apps.rag.filters import Filter

#: A chunk's or a question's embedding, float32.
Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """The record of a document the store holds."""

    id: str
    chunks: int
    """How many chunks it has."""
    content_hash: str
    """Of everything its chunks were made from; the same hash means there is nothing to do."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the client said about it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found."""

    chunk: Chunk
    score: float
    """By vector: cosine similarity to the question, -1 to 1. By keywords: BM25, from 0, higher is better."""

    @property
    def key(self) -> tuple[str, int]:
        """What tells the chunk from all others of its store."""
        return self.chunk.document, self.chunk.index


class VectorStore(Protocol):
    """A set of documents, each a row of chunks, searchable by vector and by words.

    A store that was never written to is empty, not an error. Every method raises ``Unavailable`` when the store does
    not answer in time.
    """

    async def document(self, document: str) -> StoredDocument | None:
        """The record of the document with this id, if the store holds it whole."""

    async def documents(self) -> list[StoredDocument]:
        """The records of all documents, by id."""

    async def replace(
        self,
        stored: StoredDocument,
        chunks: Sequence[Chunk],
        vectors: Sequence[Vector],
        figures: Sequence[Figure] = (),
    ) -> None:
        """Write a document's chunks (at least one) and figures, and remove what is left of an earlier version.

        Raises:
            UpstreamFailed: the store holds vectors of another dimension.
        """

    async def delete(self, document: str) -> int:
        """Remove a document; returns the number of its chunks, 0 if it was not there."""

    async def search(self, vector: Vector, limit: int, where: Filter | None = None) -> list[Hit]:
        """The chunks most similar to ``vector``, best first; only of documents that ``where`` lets through.

        Raises:
            UpstreamFailed: the store holds vectors of another dimension.
        """

    async def keyword_search(self, text: str, limit: int, where: Filter | None = None) -> list[Hit]:
        """The chunks that share words with ``text``, best first."""

    async def vectors(self, chunks: Sequence[Chunk]) -> list[Vector]:
        """The vectors of chunks that were found, in any order, without those deleted since."""

    async def figures(self, document: str, chunk_page: int, limit: int) -> list[Figure]:
        """The first figures of a document beside its chunks that begin on that page."""

    async def prepare(self) -> None:
        """Make what it holds quick to search: before the first question, and once after a batch of writes."""


def other_dimension(collection: str, held: int, given: int) -> UpstreamFailed:
    """The error for a vector that does not fit to those a collection holds."""
    return UpstreamFailed(
        f"Collection {collection!r} holds vectors of {held} dimensions, but the embedder gives {given}: name another "
        "collection for another embedder, then send the documents again.",
        code="embedder_mismatch",
    )
