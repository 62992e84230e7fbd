"""A vector store in a list, that can be told to fail."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from serve_apps.common.errors import ServingError
from serve_apps.rag.chunking import Chunk
from serve_apps.rag.vector_store import Hit, StoredDocument, Vector


@dataclass
class InMemoryStore:
    """A ``VectorStore`` of unit vectors."""

    failure: ServingError | None = None
    """What every call raises instead."""
    records: dict[str, StoredDocument] = field(default_factory=dict)
    rows: dict[str, list[tuple[Chunk, Vector]]] = field(default_factory=dict)
    searches: list[int] = field(default_factory=list)
    """The limit of each search."""
    flushes: int = 0

    async def document(self, document: str) -> StoredDocument | None:
        self._fail()
        return self.records.get(document)

    async def documents(self) -> list[StoredDocument]:
        self._fail()
        return [self.records[name] for name in sorted(self.records)]

    async def replace(self, stored: StoredDocument, chunks: Sequence[Chunk], vectors: Sequence[Vector]) -> None:
        self._fail()
        self.records[stored.id] = stored
        self.rows[stored.id] = list(zip(chunks, vectors, strict=True))

    async def delete(self, document: str) -> int:
        self._fail()
        self.records.pop(document, None)
        return len(self.rows.pop(document, []))

    async def search(self, vector: Vector, limit: int) -> list[Hit]:
        self._fail()
        self.searches.append(limit)
        hits = [Hit(chunk, float(vector @ other)) for rows in self.rows.values() for chunk, other in rows]
        return sorted(hits, key=lambda hit: -hit.score)[:limit]

    async def flush(self) -> None:
        self._fail()
        self.flushes += 1

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
