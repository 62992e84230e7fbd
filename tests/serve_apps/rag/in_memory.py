"""A vector store in a list, that can be told to fail."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from serve_apps.common.errors import ServingError
from serve_apps.rag.chunking import Chunk
from serve_apps.rag.figures import Figure
from serve_apps.rag.filters import Filter, facets
from serve_apps.rag.vector_store import Hit, StoredDocument, Vector


@dataclass
class InMemoryStore:
    """A ``VectorStore`` of unit vectors."""

    failure: Exception | None = None
    """What every call raises instead."""
    keyword_failure: ServingError | None = None
    """What only keyword searches raise."""
    figure_failure: ServingError | None = None
    """What only lookups of figures raise."""
    records: dict[str, StoredDocument] = field(default_factory=dict)
    rows: dict[str, list[tuple[Chunk, Vector]]] = field(default_factory=dict)
    pictures: dict[str, list[Figure]] = field(default_factory=dict)
    searches: list[int] = field(default_factory=list)
    """The limit of each search."""
    preparations: int = 0

    async def document(self, document: str) -> StoredDocument | None:
        self._fail()
        return self.records.get(document)

    async def documents(self) -> list[StoredDocument]:
        self._fail()
        return [self.records[name] for name in sorted(self.records)]

    async def replace(
        self,
        stored: StoredDocument,
        chunks: Sequence[Chunk],
        vectors: Sequence[Vector],
        figures: Sequence[Figure] = (),
    ) -> None:
        self._fail()
        self.pictures[stored.id] = list(figures)
        self.records[stored.id] = stored
        self.rows[stored.id] = list(zip(chunks, vectors, strict=True))

    async def delete(self, document: str) -> int:
        self._fail()
        self.records.pop(document, None)
        self.pictures.pop(document, None)
        return len(self.rows.pop(document, []))

    async def search(self, vector: Vector, limit: int, where: Filter | None = None) -> list[Hit]:
        self._fail()
        self.searches.append(limit)
        hits = [Hit(chunk, float(vector @ other)) for chunk, other in self._among(where)]
        return sorted(hits, key=lambda hit: -hit.score)[:limit]

    async def figures(self, document: str, chunk_page: int, limit: int) -> list[Figure]:
        self._fail()
        if self.figure_failure is not None:
            raise self.figure_failure
        return [each for each in self.pictures.get(document, []) if each.chunk_page == chunk_page][:limit]

    async def keyword_search(self, text: str, limit: int, where: Filter | None = None) -> list[Hit]:
        self._fail()
        if self.keyword_failure is not None:
            raise self.keyword_failure
        wanted = _words(text)
        hits = [Hit(chunk, float(len(wanted & _words(chunk.passage)))) for chunk, _ in self._among(where)]
        return sorted((hit for hit in hits if hit.score), key=lambda hit: -hit.score)[:limit]

    async def vectors(self, chunks: Sequence[Chunk]) -> list[Vector]:
        self._fail()
        return [vector for chunk, vector in self._among(None) if chunk in chunks]

    def _among(self, where: Filter | None) -> list[tuple[Chunk, Vector]]:
        passing = (name for name, record in self.records.items() if not where or where.matches(facets(record.metadata)))
        return [row for name in passing for row in self.rows.get(name, [])]

    async def prepare(self) -> None:
        self._fail()
        self.preparations += 1

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
