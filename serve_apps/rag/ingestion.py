"""From documents to their chunks in the vector store; what has not changed is left as it is."""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal

import orjson

from serve_apps.common.errors import InvalidRequest, ServingError
from serve_apps.common.gateway_client import Caller
from serve_apps.rag import chunking, documents, figures, reading
from serve_apps.rag.chunking import Chunk, Outline
from serve_apps.rag.concurrency import gathered
from serve_apps.rag.config import Pipeline
from serve_apps.rag.figures import Figure
from serve_apps.rag.gateway_client import EMBEDDING_BATCH, GatewayClient
from serve_apps.rag.observation import Observer
from serve_apps.rag.reading import Read
from serve_apps.rag.sections import Unreadable
from serve_apps.rag.tokens import TokenCounter
from serve_apps.rag.vector_store import StoredDocument, Vector, VectorStore

#: Documents of one upload that are read, and embedding requests, at the same time: some are worked on while others
#: travel.
CONCURRENCY = 4
#: Documents are cut, embedded and written in groups of about so much text, in characters: some 500 chunks of the usual
#: size, which keep the embedder busy, while a large upload is never in memory with all its vectors.
GROUP_CHARS = 500_000


@dataclass(frozen=True, slots=True)
class Document:
    """A document as a client sent it."""

    id: str
    content: bytes
    content_type: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a document."""

    id: str
    chunks: int
    status: Literal["indexed", "unchanged", "failed"]
    error: ServingError | None = None
    """Why it failed; what was stored under its id before is still there."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A document to be brought in."""

    document: Document
    content_hash: str
    outline: list[Outline]
    figures: list[Figure]

    @property
    def chars(self) -> int:
        return sum(len(each.section.text) for each in self.outline)


class Ingester:
    """Brings documents into one pipeline's store."""

    def __init__(
        self,
        name: str,
        pipeline: Pipeline,
        store: VectorStore,
        gateway: GatewayClient,
        observer: Observer,
        read: Read = reading.read,
    ) -> None:
        """``read``: where documents are read; in processes of this replica's unless given."""
        self._name = name
        self._pipeline = pipeline
        self._store = store
        self._gateway = gateway
        self._observer = observer
        self._read = read
        self._counter = TokenCounter(pipeline.embedder, gateway)

    async def ingest(self, given: Sequence[Document], caller: Caller) -> list[Ingested]:
        """Bring in documents, each replacing what was stored under its id; what became of each, in their order.

        Every document is read before the first is stored, so a request with an unreadable one changes nothing. When
        the embedder or the store fails half-way, sending the same request again goes on where this one ended.

        Raises:
            ServingError: an unreadable document, or a failing embedder or store that let no document through.
        """
        done: dict[str, Ingested] = {}
        changed: list[tuple[Document, str]] = []
        for document in given:
            content_hash = self._hash(document)
            known = await self._store.document(document.id)
            if known is not None and known.content_hash == content_hash:
                done[document.id] = Ingested(document.id, known.chunks, "unchanged")
            else:
                changed.append((document, content_hash))
        outlined = await gathered((partial(self._outlined, *each) for each in changed), CONCURRENCY)
        broken: ServingError | None = None
        for group in _groups(outlined):
            brought = _failed(group, broken) if broken else await self._bring_in(group, caller)
            done |= {each.id: each for each in brought}
            broken = broken or _outage(brought)
        if any(each.status == "indexed" for each in done.values()):
            with contextlib.suppress(ServingError):  # the documents are in; the next question does it
                await self._store.prepare()
        failures = [each.error for each in done.values() if each.error is not None]
        if failures and len(failures) == len(done):
            raise failures[0]
        return [done[document.id] for document in given]

    async def _outlined(self, document: Document, content_hash: str) -> _Read:
        looks = self._pipeline.keeps_figures
        found = await self._read(document.content, document.content_type, document.id, looks)
        try:
            outline = await asyncio.to_thread(chunking.outline, found.sections)
        except Unreadable as error:
            raise InvalidRequest(f"document {document.id!r}: {error}", code="invalid_document") from error
        return _Read(document, content_hash, outline, found.figures)

    async def _bring_in(self, group: Sequence[_Read], caller: Caller) -> list[Ingested]:
        """Cut, embed and write some documents together."""
        try:
            cut = await self._cut(group, caller)
            passages = [chunk.passage for chunks in cut for chunk in chunks]
            vectors = iter(await self._embed(passages, caller))
        except ServingError as error:
            if isinstance(error, InvalidRequest) and len(group) > 1:
                # The embedder refuses a text, and does not say which.
                return [await self._alone(each, caller) for each in group]
            return _failed(group, error)
        return [
            await self._write(each, chunks, islice(vectors, len(chunks)))
            for each, chunks in zip(group, cut, strict=True)
        ]

    async def _alone(self, read: _Read, caller: Caller) -> Ingested:
        [ingested] = await self._bring_in([read], caller)
        return ingested

    async def _cut(self, group: Sequence[_Read], caller: Caller) -> list[list[Chunk]]:
        settings = self._pipeline.chunking
        room = await self._counter.room(settings.max_tokens, caller)
        sizes: dict[str, int] = {}
        texts = [text for each in group for outline in each.outline for text in outline.texts()]
        while texts:
            sizes |= await self._counter.count(texts, caller)
            texts = chunking.too_long(texts, sizes, room)

        def cut() -> list[list[Chunk]]:
            overlap = settings.overlap_tokens
            return [chunking.chunks(each.document.id, each.outline, sizes, room, overlap) for each in group]

        return await asyncio.to_thread(cut)

    async def _embed(self, passages: Sequence[str], caller: Caller) -> list[Vector]:
        batches = (passages[at : at + EMBEDDING_BATCH] for at in range(0, len(passages), EMBEDDING_BATCH))
        calls = (partial(self._gateway.embed, self._pipeline.embedder, batch, caller) for batch in batches)
        return [vector for batch in await gathered(calls, CONCURRENCY) for vector in batch]

    async def _write(self, read: _Read, chunks: Sequence[Chunk], vectors: Iterable[Vector]) -> Ingested:
        document = read.document
        record = StoredDocument(document.id, len(chunks), read.content_hash, document.metadata)
        try:
            await self._store.replace(record, chunks, list(vectors), figures.placed(read.figures, chunks))
        except ServingError as error:
            return Ingested(document.id, 0, "failed", error)
        self._observer.ingested(self._name, len(chunks))
        return Ingested(document.id, len(chunks), "indexed")

    def _hash(self, document: Document) -> str:
        """A hash of everything the chunks and their vectors are made from."""
        made_with = [
            document.content_type,
            document.metadata,
            self._pipeline.embedder,
            self._pipeline.chunking.model_dump(),
        ]
        if self._pipeline.keeps_figures and documents.is_pdf(document.content_type, document.id):
            made_with.append("figures and pages")
        made_from = orjson.dumps(made_with, option=orjson.OPT_SORT_KEYS) + document.content
        return hashlib.sha256(made_from).hexdigest()


def _failed(group: Iterable[_Read], error: ServingError) -> list[Ingested]:
    return [Ingested(each.document.id, 0, "failed", error) for each in group]


def _outage(brought: Iterable[Ingested]) -> ServingError | None:
    """What will let no other document through either."""
    errors = (each.error for each in brought if each.error is not None)
    return next((error for error in errors if not isinstance(error, InvalidRequest)), None)


def _groups(read: Iterable[_Read]) -> Iterator[list[_Read]]:
    group: list[_Read] = []
    chars = 0
    for each in read:
        if group and chars + each.chars > GROUP_CHARS:
            yield group
            group, chars = [], 0
        group.append(each)
        chars += each.chars
    if group:
        yield group
