"""The bodies of requests, checked: documents as files, as JSON or as lines of JSON, and a query."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from serve_apps.common.api import MAX_DOCUMENTS, JsonDocument, JsonDocuments
from serve_apps.common.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from serve_apps.common.middleware import Message
from serve_apps.rag.documents import type_of_name
from serve_apps.rag.ingestion import Document

#: How many of the largest documents one request may hold together.
DOCUMENTS_PER_REQUEST = 4

#: A request that is not an upload, in bytes.
MAX_BODY_BYTES = 4 * 1024 * 1024

#: A document's metadata as JSON, in bytes: it is stored with every chunk.
MAX_METADATA_BYTES = 8 * 1024

#: A document a line.
_JSON_LINES = frozenset({"application/jsonl", "application/x-ndjson", "application/x-jsonlines"})
_JSON_LINES_EXTENSIONS = (".jsonl", ".ndjson")

#: Said once, since all checks of metadata end with it.
_METADATA_RULE = (
    f"a JSON object of at most {MAX_METADATA_BYTES} bytes, of texts, numbers, true and false, and lists of these"
)

_Scalar = str | bool | int | float

M = TypeVar("M", bound=BaseModel)


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
    """The documents of an upload: files (``multipart/form-data``), or texts as JSON or as lines of JSON.

    Raises:
        InvalidRequest: malformed, no document, too many, or two with one id.
        TooLarge: a document over ``max_document_bytes``, or a request over a few times that.
        UnsupportedMediaType: another type of request.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    max_bytes = max_document_bytes * DOCUMENTS_PER_REQUEST
    if media_type == "multipart/form-data":
        documents = await _files(_bounded(request, max_bytes), max_document_bytes)
    elif media_type == "application/json":
        documents = _texts(parse(JsonDocuments, await read_json(request, max_bytes)).documents)
    elif media_type in _JSON_LINES:
        documents = _lines(await _bounded(request, max_bytes).body(), {})
    else:
        raise UnsupportedMediaType(
            "documents are sent as multipart/form-data (files), application/json or application/jsonl, "
            f"not as {media_type or 'an unnamed type'}",
        )
    if not documents:
        raise InvalidRequest("the request holds no document", param="documents")
    if len(documents) > MAX_DOCUMENTS:
        raise InvalidRequest(f"{len(documents)} documents; send {MAX_DOCUMENTS} or fewer at a time", param="documents")
    seen: set[str] = set()
    for document in documents:
        if document.id in seen:
            raise InvalidRequest(f"document {document.id!r}: sent twice in one request", param="documents")
        seen.add(document.id)
        if len(document.content) > max_document_bytes:
            raise _too_large(document.id, max_document_bytes)
        if not _is_metadata(document.metadata):
            raise InvalidRequest(f"document {document.id!r}: metadata must be {_METADATA_RULE}", param="metadata")
    return documents


def _is_metadata(metadata: Mapping[str, Any]) -> bool:
    values = (value for each in metadata.values() for value in (each if isinstance(each, list) else [each]))
    return all(isinstance(value, _Scalar) for value in values) and len(orjson.dumps(metadata)) <= MAX_METADATA_BYTES


def _lines(content: bytes, metadata: Mapping[str, Any], file: str = "") -> list[Document]:
    """The documents of a file with one a line; ``metadata`` is of all of them, what a line says of itself comes first.

    Raises:
        InvalidRequest: a line is not a document; says which.
    """
    texts = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}" if file else f"line {number}"
        try:
            text = parse(JsonDocument, orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"{where}: not JSON: {error.msg}", code="invalid_json") from error
        except InvalidRequest as error:
            raise InvalidRequest(f"{where}: {error.message}", param=error.param) from error
        texts.append(text.model_copy(update={"metadata": {**metadata, **text.metadata}}))
    return _texts(texts)


def _texts(given: Iterable[JsonDocument]) -> list[Document]:
    return [
        Document(each.id, each.text.encode(), each.content_type or type_of_name(each.id) or "text/plain", each.metadata)
        for each in given
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
            # A file answers to the same rules for its name as a text does.
            name = parse(JsonDocument, {"id": upload.filename or "", "text": "-"}).id
            media_type = upload.content_type or ""
            if media_type in _JSON_LINES or name.lower().endswith(_JSON_LINES_EXTENSIONS):
                documents += _lines(await upload.read(), metadata, name)
            elif (upload.size or 0) > max_document_bytes:
                raise _too_large(name, max_document_bytes)
            else:
                documents.append(Document(name, await upload.read(), media_type, metadata))
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
