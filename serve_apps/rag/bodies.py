"""The bodies of requests, checked: documents as JSON, documents as files, a query."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from serve_apps.common.config import Config
from serve_apps.common.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from serve_apps.common.middleware import Message
from serve_apps.rag.documents import type_of_name
from serve_apps.rag.ingestion import Document
from serve_apps.rag.vector_store import MAX_DOCUMENT_ID_CHARS

#: How many of the largest documents one request may hold together.
DOCUMENTS_PER_REQUEST = 4

#: A request that is not an upload, in bytes.
MAX_BODY_BYTES = 4 * 1024 * 1024

#: A document's metadata as JSON, in bytes: it is stored with every chunk.
MAX_METADATA_BYTES = 8 * 1024

#: Said once, since three checks end with it.
_METADATA_RULE = f"a JSON object of at most {MAX_METADATA_BYTES} bytes"

M = TypeVar("M", bound=BaseModel)


class JsonDocument(Config):
    """A document in a JSON body."""

    id: Annotated[str, Field(min_length=1, max_length=MAX_DOCUMENT_ID_CHARS, pattern=r"^[^\x00-\x1f\x7f]+$")]
    """Its name, unique in the pipeline; slashes are fine."""
    text: Annotated[str, Field(min_length=1)]
    """Its content."""
    content_type: str = ""
    """``text/plain``, ``text/markdown`` or ``text/html``; empty: by the extension of ``id``, else plain text."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Kept with it and listed with it."""


class JsonDocuments(Config):
    """The JSON body of an upload."""

    documents: Annotated[list[JsonDocument], Field(min_length=1, max_length=1000)]


class Query(BaseModel):
    """The body of a query."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: Annotated[str, Field(min_length=1, pattern=r"\S")]
    """What is asked."""
    top_k: Annotated[int, Field(ge=1, le=100)] | None = None
    """Chunks put before the model; the pipeline's own number unless given."""
    stream: bool = False
    """Answer as server-sent events: ``citations``, ``token`` …, ``done`` or ``error``."""


async def read_json(request: Request, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """The request's body as JSON.

    Raises:
        InvalidRequest: it is not JSON.
        TooLarge: it is longer than ``max_bytes``.
    """
    try:
        return orjson.loads(await _bounded(request, max_bytes).body())
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}", code="invalid_json") from error


def parse(kind: type[M], value: Any) -> M:
    """``value`` as a ``kind``.

    Raises:
        InvalidRequest: it is none; says where and why.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{path or 'body'}: {first['msg']}", param=path or None) from error


async def read_documents(request: Request, max_document_bytes: int) -> list[Document]:
    """The documents of an upload: files (``multipart/form-data``) or texts (``application/json``).

    Raises:
        InvalidRequest: malformed, no document, or two with one id.
        TooLarge: a document over ``max_document_bytes``, or a request over a few times that.
        UnsupportedMediaType: another type of request.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    max_bytes = max_document_bytes * DOCUMENTS_PER_REQUEST
    if media_type == "multipart/form-data":
        documents = await _files(_bounded(request, max_bytes), max_document_bytes)
    elif media_type == "application/json":
        documents = _texts(parse(JsonDocuments, await read_json(request, max_bytes)))
    else:
        raise UnsupportedMediaType(
            "documents are sent as multipart/form-data (files) or application/json, "
            f"not as {media_type or 'an unnamed type'}",
        )
    seen: set[str] = set()
    for document in documents:
        if document.id in seen:
            raise InvalidRequest(f"document {document.id!r}: sent twice in one request", param="documents")
        seen.add(document.id)
        if len(document.content) > max_document_bytes:
            raise _too_large(document.id, max_document_bytes)
        if len(orjson.dumps(document.metadata)) > MAX_METADATA_BYTES:
            raise InvalidRequest(f"document {document.id!r}: metadata must be {_METADATA_RULE}", param="metadata")
    return documents


def _texts(body: JsonDocuments) -> list[Document]:
    return [
        Document(each.id, each.text.encode(), each.content_type or type_of_name(each.id) or "text/plain", each.metadata)
        for each in body.documents
    ]


async def _files(request: Request, max_document_bytes: int) -> list[Document]:
    async with request.form(max_fields=1) as form:
        unknown = sorted({name for name, _ in form.multi_items()} - {"files", "metadata"})
        if unknown:
            raise InvalidRequest(f"form field {unknown[0]!r}: unknown; there are files and metadata", param=unknown[0])
        metadata = _metadata(form.get("metadata"))
        documents = []
        for upload in form.getlist("files"):
            if not isinstance(upload, UploadFile):
                raise InvalidRequest("form field 'files': must be files, with a file name", param="files")
            if (upload.size or 0) > max_document_bytes:
                raise _too_large(upload.filename or "", max_document_bytes)
            # A file answers to the same rules for its name as a text does.
            name = parse(JsonDocument, {"id": upload.filename or "", "text": "-"}).id
            documents.append(Document(name, await upload.read(), upload.content_type or "", metadata))
    if not documents:
        raise InvalidRequest("form field 'files': required, one or more files", param="files")
    return documents


def _metadata(field: UploadFile | str | None) -> Mapping[str, Any]:
    if field is None:
        return {}
    try:
        metadata = orjson.loads(field) if isinstance(field, str) else None
    except orjson.JSONDecodeError:
        metadata = None
    if not isinstance(metadata, dict):
        raise InvalidRequest(f"form field 'metadata': must be {_METADATA_RULE}", param="metadata")
    return metadata


def _too_large(document: str, max_document_bytes: int) -> TooLarge:
    return TooLarge(
        f"document {document!r}: larger than the pipeline's limit of {max_document_bytes} bytes (maxDocumentBytes)",
        code="document_too_large",
    )


def _bounded(request: Request, max_bytes: int) -> Request:
    """The request, refused as soon as more than ``max_bytes`` of its body came."""
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise TooLarge(
                f"request: larger than {max_bytes} bytes; send fewer or smaller documents at a time",
                code="request_too_large",
            )
        return message

    return Request(request.scope, receive)
