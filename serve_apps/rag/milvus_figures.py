"""The figures of a collection's documents on a Milvus server: a collection beside it, named ``<collection>_figures``.

A figure is a text in base64, in pieces: Milvus has no type for files, and its texts end at 65,535 bytes. The pieces of
a document are numbered, so that a new version overwrites the old one and then removes what is left of it.
"""

import base64
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from pymilvus import DataType, MilvusClient

from serve_apps.rag.figures import Figure

PIECE_CHARS = 60_000
#: Pieces per request: 4 MB, far below gRPC's limit.
WRITE_PIECES = 64

_FIELDS = ["piece", "place", "chunk_page", "page", "media_type", "content"]


def replace(
    client: MilvusClient, collection: str, document_key: str, figures: Sequence[Figure], timeout_s: float
) -> None:
    """Write a document's figures in place of those it had."""
    name = _name(collection)
    if not client.has_collection(name, timeout=timeout_s):
        if not figures:
            return
        _create(client, name, timeout_s)
    pieces = list(_pieces(document_key, figures))
    for begin in range(0, len(pieces), WRITE_PIECES):
        client.upsert(name, pieces[begin : begin + WRITE_PIECES], timeout=timeout_s)
    beyond = f'document_key == "{document_key}" and piece >= {len(pieces)}'
    client.delete(name, filter=beyond, timeout=timeout_s)


def find(
    client: MilvusClient, collection: str, document_key: str, chunk_page: int, limit: int, timeout_s: float
) -> list[Figure]:
    """The first figures of a document beside its chunks that begin on that page."""
    name = _name(collection)
    if not client.has_collection(name, timeout=timeout_s):
        return []
    rows = client.query(
        name,
        filter=f'document_key == "{document_key}" and chunk_page == {chunk_page} and place < {limit}',
        output_fields=_FIELDS,
        timeout=timeout_s,
        consistency_level="Session",
    )
    rows = sorted(rows, key=lambda row: int(row["piece"]))
    return [_whole(list(pieces)) for _, pieces in groupby(rows, key=lambda row: int(row["place"]))]


def _name(collection: str) -> str:
    return f"{collection}_figures"


def _pieces(document_key: str, figures: Sequence[Figure]) -> Iterator[dict[str, Any]]:
    number = 0
    pages = [figure.chunk_page for figure in figures]
    for index, figure in enumerate(figures):
        text = base64.b64encode(figure.content).decode()
        for begin in range(0, len(text), PIECE_CHARS):
            yield {
                "id": f"{document_key}-{number}",
                "document_key": document_key,
                "piece": number,
                "place": pages[:index].count(figure.chunk_page),
                "chunk_page": figure.chunk_page,
                "page": figure.page,
                "media_type": figure.media_type,
                "content": text[begin : begin + PIECE_CHARS],
                "unused": [0.0, 0.0],
            }
            number += 1


def _whole(pieces: list[dict[str, Any]]) -> Figure:
    first = pieces[0]
    content = base64.b64decode("".join(piece["content"] for piece in pieces))
    return Figure(first["page"], first["media_type"], content, first["chunk_page"])


def _create(client: MilvusClient, name: str, timeout_s: float) -> None:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("document_key", DataType.VARCHAR, max_length=32)
    schema.add_field("piece", DataType.INT64)
    schema.add_field("place", DataType.INT64)
    schema.add_field("chunk_page", DataType.INT64)
    schema.add_field("page", DataType.INT64)
    schema.add_field("media_type", DataType.VARCHAR, max_length=32)
    # Looked up, never searched: on the server's disk rather than in its memory.
    schema.add_field("content", DataType.VARCHAR, max_length=PIECE_CHARS, mmap_enabled=True)
    schema.add_field("unused", DataType.FLOAT_VECTOR, dim=2)  # Milvus wants a vector in every collection
    index = MilvusClient.prepare_index_params()
    index.add_index("unused", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=index, timeout=timeout_s)
