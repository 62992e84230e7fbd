"""The embedded vector store: a SQLite file, searched in memory.

SQLite keeps what must not be lost, a document in one transaction. Vectors and words are searched in indexes in memory
(``exact``, ``keywords``), which follow every write and are made from the file at the first search. A number in the
file, raised by every write, tells whether they still show what it holds: another process may have written.
"""

import asyncio
import logging
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson

from serve_apps.common.errors import Unavailable
from serve_apps.rag import config
from serve_apps.rag.chunking import Chunk
from serve_apps.rag.exact import ExactIndex
from serve_apps.rag.figures import Figure
from serve_apps.rag.filters import Filter, facets
from serve_apps.rag.keywords import KeywordIndex
from serve_apps.rag.vector_store import Hit, StoredDocument, Vector, other_dimension

#: The folder of files that are named without one; ``LLM_SERVING_DATA`` names another.
DEFAULT_DATA = "/var/lib/llm-serving"

WRITE_TIMEOUT_S = 60  # for one document or a listing; far above what a healthy disk takes
RECORD_TIMEOUT_S = 10  # for one record: patient, since it is asked for by who writes
PREPARE_TIMEOUT_S = 120  # for the indexes to be made; 100,000 chunks take some 7 s
LOCK_TIMEOUT_S = 5  # for another process to finish its write
LOAD_ROWS = 1000  # chunks read at a time when the indexes are made
RETRY_AFTER_S = 5

# The rollback journal and not the write-ahead log: the file may lie on a network volume. AUTOINCREMENT, so that a
# number in an index never comes to mean another chunk.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    dimension INTEGER NOT NULL,
    generation INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS documents (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL REFERENCES collections,
    id TEXT NOT NULL,
    chunks INTEGER NOT NULL,
    content_hash TEXT NOT NULL,
    metadata BLOB NOT NULL,
    UNIQUE (collection, id)
);
CREATE TABLE IF NOT EXISTS chunks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    place INTEGER NOT NULL,
    text TEXT NOT NULL,
    heading TEXT NOT NULL,
    page INTEGER,
    vector BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS chunks_of_document ON chunks (document);
CREATE TABLE IF NOT EXISTS figures (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    chunk_page INTEGER NOT NULL,
    page INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    content BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS figures_of_document ON figures (document, chunk_page);
"""

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Embedded:
    """A ``VectorStore`` in one collection of a file. Connects at the first call, and again after every failure."""

    def __init__(self, settings: config.VectorStore, collection: str) -> None:
        self._collection = _Collection(_path(settings.uri), collection, settings.language)
        self._name = collection
        self._timeout_s = settings.timeout_s
        # One thread for the file and the vectors, one for the words: neither needs a lock, and a question that is
        # being embedded is meanwhile looked up by its words.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"store-{collection}")

    async def document(self, document: str) -> StoredDocument | None:
        return await self._run(RECORD_TIMEOUT_S, self._collection.document, document)

    async def documents(self) -> list[StoredDocument]:
        return await self._run(WRITE_TIMEOUT_S, self._collection.documents)

    async def replace(
        self,
        stored: StoredDocument,
        chunks: Sequence[Chunk],
        vectors: Sequence[Vector],
        figures: Sequence[Figure] = (),
    ) -> None:
        indexed = await self._run(WRITE_TIMEOUT_S, self._collection.replace, stored, chunks, np.stack(vectors), figures)
        await _finished(indexed)

    async def delete(self, document: str) -> int:
        chunks, indexed = await self._run(WRITE_TIMEOUT_S, self._collection.delete, document)
        await _finished(indexed)
        return chunks

    async def search(self, vector: Vector, limit: int, where: Filter | None = None) -> list[Hit]:
        return await self._run(self._timeout_s, self._collection.search, vector, limit, where)

    async def keyword_search(self, text: str, limit: int, where: Filter | None = None) -> list[Hit]:
        found = await self._run(self._timeout_s, self._collection.keyword_search, text, limit, where)
        rows = await asyncio.wrap_future(found)
        return await self._run(self._timeout_s, self._collection.hits, rows)

    async def vectors(self, chunks: Sequence[Chunk]) -> list[Vector]:
        return await self._run(self._timeout_s, self._collection.vectors, chunks)

    async def figures(self, document: str, chunk_page: int, limit: int) -> list[Figure]:
        return await self._run(self._timeout_s, self._collection.figures, document, chunk_page, limit)

    async def prepare(self) -> None:
        # Every write is on the disk already. Make the indexes now rather than at the next question.
        words = await self._run(PREPARE_TIMEOUT_S, self._collection.prepare)
        await asyncio.wait([asyncio.wrap_future(words)], timeout=PREPARE_TIMEOUT_S)

    async def _run(self, timeout_s: float, work: Callable[..., T], *args: Any) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                return await loop.run_in_executor(self._thread, work, *args)
        except (sqlite3.Error, OSError) as error:
            if not isinstance(error, TimeoutError):  # what takes too long is still at it
                self._thread.submit(self._collection.forget)
            logger.error("vector store failed", extra={"collection": self._name, "error": str(error)})
            raise Unavailable(
                f"The vector store of collection {self._name!r} does not answer; try again later.",
                code="vector_store_unavailable",
                retry_after_s=RETRY_AFTER_S,
            ) from error


@dataclass
class _Indexes:
    """What is in memory of a collection."""

    exact: ExactIndex
    keywords: KeywordIndex
    generation: int
    rows: dict[int, list[int]] = field(default_factory=dict)
    """The chunks of each document, by number."""
    facets: dict[int, frozenset[str]] = field(default_factory=dict)
    """The facets of each document."""
    having: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """The documents that have a facet."""

    def add(self, document: int, facets: frozenset[str], rows: list[int]) -> None:
        self.rows[document], self.facets[document] = rows, facets
        for facet in facets:
            self.having[facet].add(document)

    def remove(self, document: int) -> None:
        self.exact.remove(self.rows.pop(document))
        for facet in self.facets.pop(document):
            self.having[facet].discard(document)

    def among(self, where: Filter | None) -> Iterator[int] | None:
        """The chunks of the documents that a filter lets through; None: all."""
        if where is None:
            return None
        passing = (set().union(*(self.having.get(facet, ()) for facet in facets)) for facets in where.required)
        return (row for document in set.intersection(*passing) for row in self.rows[document])


class _Collection:
    """The blocking half: called from one thread, but for the index of words, which has a thread of its own."""

    def __init__(self, path: Path, name: str, language: config.Language) -> None:
        self._path = path
        self._name = name
        self._language = language
        self._database: sqlite3.Connection | None = None
        self._indexes: _Indexes | None = None
        self._word_thread = ThreadPoolExecutor(1, thread_name_prefix=f"keywords-{name}")

    def forget(self) -> None:
        """Open the file anew at the next call."""
        if self._database is not None:
            self._database.close()
        self._database = self._indexes = None

    def document(self, document: str) -> StoredDocument | None:
        known = self._query(
            "SELECT id, chunks, content_hash, metadata FROM documents WHERE collection = ? AND id = ?",
            self._state().number,
            document,
        )
        return _stored(*known[0]) if known else None

    def documents(self) -> list[StoredDocument]:
        rows = self._query(
            "SELECT id, chunks, content_hash, metadata FROM documents WHERE collection = ? ORDER BY id",
            self._state().number,
        )
        return [_stored(*row) for row in rows]

    def replace(
        self, stored: StoredDocument, chunks: Sequence[Chunk], vectors: Vector, figures: Sequence[Figure]
    ) -> "Future[None]":
        facets_of_it = facets(stored.metadata)
        with self._writing(vectors.shape[1]) as collection:
            old = self._remove(collection, stored.id)
            insert = self._connected().execute(
                "INSERT INTO documents (collection, id, chunks, content_hash, metadata) VALUES (?, ?, ?, ?, ?)",
                (collection, stored.id, stored.chunks, stored.content_hash, orjson.dumps(dict(stored.metadata))),
            )
            document = int(insert.lastrowid or 0)
            rows = [self._insert(document, chunk, vector) for chunk, vector in zip(chunks, vectors, strict=True)]
            self._connected().executemany(
                "INSERT INTO figures (document, chunk_page, page, media_type, content) VALUES (?, ?, ?, ?, ?)",
                [(document, each.chunk_page, each.page, each.media_type, each.content) for each in figures],
            )
        indexes = self._indexes
        if indexes is None:
            return _done()
        for number in old:
            indexes.remove(number)
        indexes.add(document, facets_of_it, rows)
        indexes.exact.add(rows, vectors)
        words = [(row, document, chunk.passage) for row, chunk in zip(rows, chunks, strict=True)]
        return self._word_thread.submit(_change_words, indexes.keywords, old, words, facets_of_it)

    def delete(self, document: str) -> "tuple[int, Future[None]]":
        with self._writing() as collection:
            old = self._remove(collection, document)
        indexes = self._indexes
        if indexes is not None:
            for number in old:
                indexes.remove(number)
            return sum(old.values()), self._word_thread.submit(_change_words, indexes.keywords, old, [], frozenset())
        return sum(old.values()), _done()

    def search(self, vector: Vector, limit: int, where: Filter | None) -> list[Hit]:
        indexes = self.index()
        if indexes is None:
            return []
        if len(vector) != indexes.exact.dimension:
            raise other_dimension(self._name, indexes.exact.dimension, len(vector))
        return self.hits(indexes.exact.search(vector, limit, indexes.among(where)))

    def keyword_search(self, text: str, limit: int, where: Filter | None) -> "Future[list[tuple[int, float]]]":
        indexes = self.index()
        if indexes is None:
            return _done([])
        return self._word_thread.submit(indexes.keywords.search, text, limit, where)

    def hits(self, rows: list[tuple[int, float]]) -> list[Hit]:
        """The chunks of rows; one that was deleted meanwhile is left out."""
        marks = ",".join("?" * len(rows))
        found = self._query(
            "SELECT chunks.number, documents.id, place, text, heading, page FROM chunks "  # noqa: S608 (marks only)
            f"JOIN documents ON documents.number = chunks.document WHERE chunks.number IN ({marks})",
            *(row for row, _ in rows),
        )
        chunks = {row: Chunk(*rest) for row, *rest in found}
        return [Hit(chunks[row], score) for row, score in rows if row in chunks]

    def vectors(self, chunks: Sequence[Chunk]) -> list[Vector]:
        statement = (
            "SELECT vector FROM chunks JOIN documents ON documents.number = chunks.document "
            "WHERE collection = ? AND id = ? AND place = ?"
        )
        collection = self._state().number
        found = [row for each in chunks for row in self._query(statement, collection, each.document, each.index)]
        return [np.frombuffer(vector, dtype="<f4") for (vector,) in found]

    def figures(self, document: str, chunk_page: int, limit: int) -> list[Figure]:
        rows = self._query(
            "SELECT page, media_type, content, chunk_page FROM figures "
            "JOIN documents ON documents.number = figures.document "
            "WHERE collection = ? AND id = ? AND chunk_page = ? ORDER BY figures.number LIMIT ?",
            self._state().number,
            document,
            chunk_page,
            limit,
        )
        return [Figure(*row) for row in rows]

    def prepare(self) -> "Future[None]":
        indexes = self.index()
        return _done() if indexes is None else self._word_thread.submit(indexes.keywords.commit)

    def index(self) -> _Indexes | None:
        """The indexes, in step with the file; None if there is nothing to index."""
        state = self._state()
        if not state.dimension:
            return None
        if self._indexes is None or self._indexes.generation != state.generation:
            self._indexes = self._load(state)
        return self._indexes

    def _load(self, state: "_State") -> _Indexes:
        indexes = _Indexes(ExactIndex(state.dimension), KeywordIndex(self._language), state.generation)
        documents = self._query("SELECT number, metadata FROM documents WHERE collection = ?", state.number)
        for document, metadata in documents:
            indexes.add(document, facets(orjson.loads(metadata)), [])
        chunks = self._connected().execute(
            "SELECT chunks.number, document, text, heading, vector FROM chunks "
            "JOIN documents ON documents.number = chunks.document WHERE collection = ? ORDER BY chunks.number",
            (state.number,),
        )
        while batch := chunks.fetchmany(LOAD_ROWS):
            rows = [row for row, *_ in batch]
            vectors = np.frombuffer(b"".join(vector for *_, vector in batch), dtype="<f4")
            indexes.exact.add(rows, vectors.reshape(len(rows), state.dimension))
            words: defaultdict[int, list[tuple[int, int, str]]] = defaultdict(list)
            for row, document, text, heading, _ in batch:
                indexes.rows[document].append(row)
                words[document].append((row, document, Chunk("", 0, text, heading).passage))
            for document, pieces in words.items():
                self._word_thread.submit(_change_words, indexes.keywords, {}, pieces, indexes.facets[document])
        return indexes

    def _insert(self, document: int, chunk: Chunk, vector: Vector) -> int:
        insert = self._connected().execute(
            "INSERT INTO chunks (document, place, text, heading, page, vector) VALUES (?, ?, ?, ?, ?, ?)",
            (document, chunk.index, chunk.text, chunk.heading, chunk.page, vector.astype("<f4").tobytes()),
        )
        return int(insert.lastrowid or 0)

    def _remove(self, collection: int, document: str) -> dict[int, int]:
        """Remove a document with its chunks; its number and how many chunks it had, or nothing."""
        old = dict(
            self._query("SELECT number, chunks FROM documents WHERE collection = ? AND id = ?", collection, document)
        )
        for number in old:
            self._connected().execute("DELETE FROM documents WHERE number = ?", (number,))
        return old

    @contextmanager
    def _writing(self, dimension: int = 0) -> Iterator[int]:
        """A transaction that ends in a new generation; gives the collection's number."""
        database = self._connected()
        database.execute("BEGIN IMMEDIATE")
        try:
            state = self._state()
            if dimension and dimension != state.dimension:
                if self._query("SELECT 1 FROM documents WHERE collection = ? LIMIT 1", state.number):
                    raise other_dimension(self._name, state.dimension, dimension)
                self._indexes = None
                database.execute("UPDATE collections SET dimension = ? WHERE number = ?", (dimension, state.number))
            yield state.number
            database.execute("UPDATE collections SET generation = generation + 1 WHERE number = ?", (state.number,))
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise
        if self._indexes is not None and self._indexes.generation == state.generation:
            self._indexes.generation += 1
        else:
            self._indexes = None

    def _state(self) -> "_State":
        [state] = self._query("SELECT number, dimension, generation FROM collections WHERE name = ?", self._name) or [
            (0, 0, 0)
        ]
        return _State(*state)

    def _query(self, statement: str, *values: Any) -> list[Any]:
        return self._connected().execute(statement, values).fetchall()

    def _connected(self) -> sqlite3.Connection:
        if self._database is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
            database.execute("PRAGMA foreign_keys = ON")
            database.executescript(_SCHEMA)
            database.execute("INSERT OR IGNORE INTO collections VALUES (NULL, ?, 0, 0)", (self._name,))
            self._database = database
        return self._database


@dataclass(frozen=True, slots=True)
class _State:
    """The row of a collection."""

    number: int
    dimension: int
    generation: int


def _change_words(
    keywords: KeywordIndex, old: dict[int, int], words: list[tuple[int, int, str]], facets: frozenset[str]
) -> None:
    for document in old:
        keywords.remove(document)
    for row, document, passage in words:
        keywords.add(row, document, passage, facets)


async def _finished(indexed: "Future[None]") -> None:
    """Wait for the words. A caller that goes away must not leave the index behind what was written."""
    await asyncio.shield(asyncio.wrap_future(indexed))


def _done(result: Any = None) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_result(result)
    return future


def _stored(document: str, chunks: int, content_hash: str, metadata: bytes) -> StoredDocument:
    return StoredDocument(document, chunks, content_hash, orjson.loads(metadata))


def _path(uri: str) -> Path:
    """An absolute path as it is; a relative one below the data folder."""
    return Path(os.environ.get("LLM_SERVING_DATA", DEFAULT_DATA)) / uri
