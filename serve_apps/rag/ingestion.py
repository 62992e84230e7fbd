"""From a document to its chunks in the vector store; what has not changed is left as it is."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from serve_apps.rag import chunking, documents
from serve_apps.rag.config import Pipeline
from serve_apps.rag.gateway_client import Caller, GatewayClient
from serve_apps.rag.observation import Observer
from serve_apps.rag.vector_store import StoredDocument, VectorStore


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
    status: Literal["indexed", "unchanged"]


class Ingester:
    """Brings documents into one pipeline's store."""

    def __init__(
        self, name: str, pipeline: Pipeline, store: VectorStore, gateway: GatewayClient, observer: Observer
    ) -> None:
        self._name = name
        self._pipeline = pipeline
        self._store = store
        self._gateway = gateway
        self._observer = observer

    async def ingest(self, given: Sequence[Document], caller: Caller) -> list[Ingested]:
        """Bring in documents one after the other, each replacing what was stored under its id.

        Every document is read before the first is stored, so a request with an unreadable one changes nothing. When
        the embedder or the store fails half-way, sending the same request again goes on where this one ended.

        Raises:
            ServingError: an unreadable document, or a failing embedder or store.
        """
        read = [await asyncio.to_thread(self._chunks, document) for document in given]
        done = [await self._bring_in(document, chunks, caller) for document, chunks in zip(given, read, strict=True)]
        if any(each.status == "indexed" for each in done):
            await self._store.flush()
        return done

    def _chunks(self, document: Document) -> list[chunking.Chunk]:
        sections = documents.read(document.content, document.content_type, document.id)
        return chunking.chunks(document.id, sections, self._pipeline.chunking)

    async def _bring_in(self, document: Document, chunks: list[chunking.Chunk], caller: Caller) -> Ingested:
        record = StoredDocument(document.id, len(chunks), self._hash(document), document.metadata)
        known = await self._store.document(document.id)
        if known is not None and known.content_hash == record.content_hash:
            return Ingested(document.id, known.chunks, "unchanged")
        vectors = await self._gateway.embed(self._pipeline.embedder, [chunk.passage for chunk in chunks], caller)
        await self._store.replace(record, chunks, vectors)
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
        made_from = orjson.dumps(made_with, option=orjson.OPT_SORT_KEYS) + document.content
        return hashlib.sha256(made_from).hexdigest()
