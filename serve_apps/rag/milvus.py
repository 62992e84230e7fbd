"""A Milvus server as the vector store: vectors and full text (BM25), both its own.

One row per chunk. A document's first chunk is written last and carries the number of its chunks: it is the document's
record, so listing needs no second collection and an interrupted write never looks complete. Rows are addressed by a
hash of the document's id and filtered by hashes of its metadata, so no client's text is ever part of an expression.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import grpc
import numpy as np
from pymilvus import DataType, Function, FunctionType, MilvusClient, MilvusException
from pymilvus.client.types import Status

from serve_apps.common import secrets
from serve_apps.common.api import MAX_DOCUMENT_ID_CHARS
from serve_apps.common.errors import Unavailable, UpstreamFailed
from serve_apps.rag import config, milvus_figures
from serve_apps.rag.chunking import MAX_CHUNK_BYTES, MAX_HEADING_CHARS, Chunk
from serve_apps.rag.figures import Figure
from serve_apps.rag.filters import FACET_CHARS, Filter, facets
from serve_apps.rag.vector_store import Hit, StoredDocument, Vector, other_dimension

WRITE_TIMEOUT_S = 60  # for one batch of rows or a listing; far above what a healthy store takes
RECORD_TIMEOUT_S = 10  # for one record: patient, since it is asked for by who writes
WRITE_ROWS = 256  # rows per request: 2 MB with 1,024 dimensions and long chunks, far below gRPC's limit
LIST_ROWS = 1000  # rows per page of a listing
THREADS = 8  # calls to one store at a time; a hanging store must not use up the event loop's own threads
RETRY_AFTER_S = 5

#: How a call ends whose connection broke: what gRPC says of it, and pymilvus of the next one.
_BROKEN = (grpc.StatusCode.UNAVAILABLE, Status.CONNECT_FAILED)

#: Rows a replica wrote itself are found by its next search, without the wait that "Strong" costs each search.
SEARCH_CONSISTENCY = "Session"

#: Of one document; more than 8 KiB of metadata can have.
MAX_FACETS = 4096

_UTF8_BYTES = 4  # of a character at most; Milvus counts a VARCHAR's length in bytes
_RECORD_FIELDS = ["document", "chunks", "content_hash", "metadata"]
_CHUNK_FIELDS = ["document", "chunk", "passage", "heading", "page"]

T = TypeVar("T")
logger = logging.getLogger(__name__)
# pymilvus logs every failed call with a traceback; this module says in one line what failed.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


class Milvus:
    """A ``VectorStore`` in one Milvus collection.

    Connects at the first call, so the app starts without its store, and again after every failure.
    """

    def __init__(
        self,
        settings: config.VectorStore,
        collection: str,
        on_call: Callable[[bool], None] = lambda _: None,
        keys: secrets.UpstreamKeys | None = None,
    ) -> None:
        """See ``open_store``.

        Args:
            settings: where it is.
            collection: its name.
            on_call: told of each call whether the server answered.
            keys: what servers are shown; the folder ``milvus`` below the root of the secrets unless given.
        """
        keys = keys or secrets.UpstreamKeys(secrets.root() / "milvus")
        self._collection = _Collection(settings, collection, keys)
        self._on_call = on_call
        self._name = collection
        self._timeout_s = settings.timeout_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"milvus-{collection}")
        self._writing = asyncio.Lock()  # two versions of one document must not be written in turns

    async def document(self, document: str) -> StoredDocument | None:
        rows = await self._read(RECORD_TIMEOUT_S, self._collection.records, f'id == "{_row_id(document, 0)}"')
        return _stored(rows[0]) if rows else None

    async def documents(self) -> list[StoredDocument]:
        rows = await self._read(WRITE_TIMEOUT_S, self._collection.records, "chunk == 0")
        return sorted((_stored(row) for row in rows), key=lambda stored: stored.id)

    async def replace(
        self,
        stored: StoredDocument,
        chunks: Sequence[Chunk],
        vectors: Sequence[Vector],
        figures: Sequence[Figure] = (),
    ) -> None:
        record, *rest = (_row(stored, chunk, vector) for chunk, vector in zip(chunks, vectors, strict=True))
        beyond = f'document_key == "{_key(stored.id)}" and chunk >= {len(chunks)}'
        async with self._writing:
            for begin in range(0, len(rest), WRITE_ROWS):
                await self._run(WRITE_TIMEOUT_S, self._collection.upsert, rest[begin : begin + WRITE_ROWS])
            await self._run(WRITE_TIMEOUT_S, self._collection.delete, beyond)
            await self._run(WRITE_TIMEOUT_S, self._collection.replace_figures, _key(stored.id), figures)
            await self._run(WRITE_TIMEOUT_S, self._collection.upsert, [record])

    async def delete(self, document: str) -> int:
        async with self._writing:
            stored = await self.document(document)
            # An interrupted write has left rows without a record: they go too.
            await self._run(WRITE_TIMEOUT_S, self._collection.delete, f'document_key == "{_key(document)}"')
            await self._run(WRITE_TIMEOUT_S, self._collection.replace_figures, _key(document), ())
        return stored.chunks if stored else 0

    async def search(self, vector: Vector, limit: int, where: Filter | None = None) -> list[Hit]:
        return _hits(await self._read(self._timeout_s, self._collection.search, vector, limit, where))

    async def keyword_search(self, text: str, limit: int, where: Filter | None = None) -> list[Hit]:
        found = await self._read(self._timeout_s, self._collection.keyword_search, text, limit, where)
        # milvus-lite, which the tests take for a server, has the sign turned.
        return [replace(hit, score=abs(hit.score)) for hit in _hits(found)]

    async def vectors(self, chunks: Sequence[Chunk]) -> list[Vector]:
        ids = [_row_id(chunk.document, chunk.index) for chunk in chunks]
        rows = await self._read(self._timeout_s, self._collection.vectors, ids)
        return [np.asarray(row["vector"], dtype=np.float32) for row in rows]

    async def figures(self, document: str, chunk_page: int, limit: int) -> list[Figure]:
        return await self._read(self._timeout_s, self._collection.figures, _key(document), chunk_page, limit)

    async def prepare(self) -> None:
        # Connected, and loaded by the server. It seals its segments itself, and limits how often it may be told to.
        await self._read(RECORD_TIMEOUT_S, self._collection.prepare)

    async def _read(self, timeout_s: float, work: Callable[..., T], *args: Any) -> T:
        """As ``_run``, for work that changes nothing: if its connection breaks, it is done once more in the time left.

        A server that restarts or is scaled says GOAWAY and then closes; pymilvus repeats what met that, but not its own
        opening of a connection.
        """

        def done(timeout_s: float, *args: Any) -> T:
            ends = time.monotonic() + timeout_s
            try:
                return work(timeout_s, *args)
            except (MilvusException, grpc.RpcError) as error:
                left_s = ends - time.monotonic()
                if left_s <= 0 or not _is_broken(error):
                    raise
            self._collection.forget()
            return work(left_s, *args)

        return await self._run(timeout_s, done, *args)

    async def _run(self, timeout_s: float, work: Callable[..., T], *args: Any) -> T:
        """Blocking ``work(timeout_s, *args)`` in a thread; a thread that is given up ends by that same timeout."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                result = await loop.run_in_executor(self._threads, work, timeout_s, *args)
        except (MilvusException, grpc.RpcError, TimeoutError) as error:
            self._collection.forget()
            self._on_call(False)
            logger.error("vector store failed", extra={"collection": self._name, "error": str(error)})
            raise Unavailable(
                f"The vector store of collection {self._name!r} does not answer; try again later.",
                code="vector_store_unavailable",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        self._on_call(True)
        return result


class _Collection:
    """The blocking half: pymilvus' calls on one collection, which is created when the first row comes.

    pymilvus keeps one connection per uri and token in a process, so many collections share it and none closes it.
    """

    def __init__(self, settings: config.VectorStore, name: str, keys: secrets.UpstreamKeys) -> None:
        self._uri = settings.uri
        self._credential = settings.credential
        self._keys = keys
        self._language = settings.language
        self._name = name
        self.forget()

    def forget(self) -> None:
        """Connect anew at the next call; the collection may have changed meanwhile."""
        self._client: MilvusClient | None = None
        self._dimension: int | None = None

    def prepare(self, timeout_s: float) -> None:
        self._opened(timeout_s)

    def records(self, timeout_s: float, condition: str) -> list[dict[str, Any]]:
        client, dimension = self._opened(timeout_s)
        if dimension is None:
            return []
        pages = client.query_iterator(
            self._name,
            filter=condition,
            output_fields=_RECORD_FIELDS,
            batch_size=LIST_ROWS,
            timeout=timeout_s,
            consistency_level="Strong",
        )
        rows: list[dict[str, Any]] = []
        while page := pages.next():
            rows.extend(page)
        pages.close()
        return rows

    def search(self, timeout_s: float, vector: Vector, limit: int, where: Filter | None) -> list[dict[str, Any]]:
        client, dimension = self._opened(timeout_s)
        if dimension is None:
            return []
        self._check(dimension, vector)
        return self._found(client, timeout_s, "vector", vector, limit, where)

    def keyword_search(self, timeout_s: float, text: str, limit: int, where: Filter | None) -> list[dict[str, Any]]:
        client, dimension = self._opened(timeout_s)
        return [] if dimension is None else self._found(client, timeout_s, "words", text, limit, where)

    def vectors(self, timeout_s: float, ids: list[str]) -> list[dict[str, Any]]:
        client, dimension = self._opened(timeout_s)
        if dimension is None:
            return []
        rows: list[dict[str, Any]] = client.get(self._name, ids, output_fields=["vector"], timeout=timeout_s)
        return rows

    def _found(
        self, client: MilvusClient, timeout_s: float, field: str, wanted: Any, limit: int, where: Filter | None
    ) -> list[dict[str, Any]]:
        found = client.search(
            self._name,
            data=[wanted],
            anns_field=field,
            filter=_expression(where),
            limit=limit,
            output_fields=_CHUNK_FIELDS,
            timeout=timeout_s,
            consistency_level=SEARCH_CONSISTENCY,
        )
        return list(found[0])

    def upsert(self, timeout_s: float, rows: list[dict[str, Any]]) -> None:
        client, dimension = self._opened(timeout_s)
        vector = rows[0]["vector"]
        if dimension is None:
            self._create(client, timeout_s, len(vector))
        else:
            self._check(dimension, vector)
        client.upsert(self._name, rows, timeout=timeout_s)

    def delete(self, timeout_s: float, condition: str) -> None:
        client, dimension = self._opened(timeout_s)
        if dimension is not None:
            client.delete(self._name, filter=condition, timeout=timeout_s)

    def replace_figures(self, timeout_s: float, document_key: str, figures: Sequence[Figure]) -> None:
        client, _ = self._opened(timeout_s)
        milvus_figures.replace(client, self._name, document_key, figures, timeout_s)

    def figures(self, timeout_s: float, document_key: str, chunk_page: int, limit: int) -> list[Figure]:
        client, _ = self._opened(timeout_s)
        return milvus_figures.find(client, self._name, document_key, chunk_page, limit, timeout_s)

    def _opened(self, timeout_s: float) -> tuple[MilvusClient, int | None]:
        """The client, and the collection's dimension or None if there is no collection yet."""
        client = self._client = self._client or self._connected(timeout_s)
        dimension = self._dimension
        if dimension is None and client.has_collection(self._name, timeout=timeout_s):
            client.load_collection(self._name, timeout=timeout_s)  # a no-op unless somebody released it
            fields = {
                each["name"]: each for each in client.describe_collection(self._name, timeout=timeout_s)["fields"]
            }
            if not fields.keys() >= {"vector", "words", "facets"}:
                raise UpstreamFailed(
                    f"Collection {self._name!r} was not made by this release: name another, then send the documents "
                    "again.",
                    code="foreign_collection",
                )
            dimension = self._dimension = int(fields["vector"]["params"]["dim"])
        return client, dimension

    def _connected(self, timeout_s: float) -> MilvusClient:
        token = self._keys.value(self._credential) if self._credential else ""
        return MilvusClient(self._uri, token=token, timeout=timeout_s)

    def _create(self, client: MilvusClient, timeout_s: float, dimension: int) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("document_key", DataType.VARCHAR, max_length=32)
        schema.add_field("document", DataType.VARCHAR, max_length=MAX_DOCUMENT_ID_CHARS * _UTF8_BYTES)
        schema.add_field("chunk", DataType.INT64)
        schema.add_field(
            "passage",
            DataType.VARCHAR,
            max_length=MAX_CHUNK_BYTES + len("\n") + MAX_HEADING_CHARS * _UTF8_BYTES,
            enable_analyzer=True,
            analyzer_params=_analyzer(self._language),
        )
        schema.add_field("heading", DataType.VARCHAR, max_length=MAX_HEADING_CHARS * _UTF8_BYTES)
        schema.add_field("page", DataType.INT64)
        schema.add_field("chunks", DataType.INT64)
        schema.add_field("content_hash", DataType.VARCHAR, max_length=64)
        schema.add_field("metadata", DataType.JSON)
        schema.add_field(
            "facets",
            DataType.ARRAY,
            element_type=DataType.VARCHAR,
            max_capacity=MAX_FACETS,
            max_length=FACET_CHARS,
        )
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
        bm25 = Function("bm25", FunctionType.BM25, input_field_names=["passage"], output_field_names=["words"])
        schema.add_function(bm25)
        index = MilvusClient.prepare_index_params()
        index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
        index.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        client.create_collection(self._name, schema=schema, index_params=index, timeout=timeout_s)
        self._dimension = dimension

    def _check(self, dimension: int, vector: Vector) -> None:
        if len(vector) != dimension:
            raise other_dimension(self._name, dimension, len(vector))


def _is_broken(error: MilvusException | grpc.RpcError) -> bool:
    code = error.code
    return (code() if callable(code) else code) in _BROKEN


def _expression(where: Filter | None) -> str:
    """A filter in Milvus' language; facets are hexadecimal, so nothing needs quoting."""
    if where is None:
        return ""
    alternatives = (sorted(accepted) for accepted in where.required)
    return " and ".join(
        f"ARRAY_CONTAINS_ANY(facets, [{', '.join(repr(facet) for facet in each)}])" for each in alternatives
    )


def _analyzer(language: config.Language) -> dict[str, Any]:
    """Words as ``keywords`` makes them; the tokenizer separates scripts without spaces, too."""
    stemmer = [] if language == "none" else [{"type": "stemmer", "language": language}]
    return {"tokenizer": "standard", "filter": ["lowercase", "asciifolding", *stemmer]}


def _key(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()[:32]


def _row_id(document: str, index: int) -> str:
    return f"{_key(document)}-{index}"


def _row(stored: StoredDocument, chunk: Chunk, vector: Vector) -> dict[str, Any]:
    return {
        "id": _row_id(stored.id, chunk.index),
        "document_key": _key(stored.id),
        "document": stored.id,
        "chunk": chunk.index,
        "passage": chunk.passage,
        "heading": chunk.heading,
        "page": chunk.page or 0,
        "chunks": stored.chunks,
        "content_hash": stored.content_hash,
        "metadata": dict(stored.metadata),
        "facets": sorted(facets(stored.metadata)),
        "vector": vector,
    }


def _stored(row: dict[str, Any]) -> StoredDocument:
    return StoredDocument(row["document"], row["chunks"], row["content_hash"], row["metadata"])


def _hits(found: list[dict[str, Any]]) -> list[Hit]:
    return [Hit(_chunk(each["entity"]), float(each["distance"])) for each in found]


def _chunk(row: dict[str, Any]) -> Chunk:
    heading = row["heading"]
    text = row["passage"].removeprefix(f"{heading}\n") if heading else row["passage"]
    return Chunk(row["document"], row["chunk"], text, heading, row["page"] or None)
