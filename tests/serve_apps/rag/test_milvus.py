import asyncio
import socket
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from milvus_lite.server_manager import server_manager_instance as embedded_stores
from pymilvus import MilvusClient

from serve_apps.common.errors import Unavailable, UpstreamFailed
from serve_apps.rag.chunking import MAX_CHUNK_BYTES, MAX_HEADING_CHARS, Chunk
from serve_apps.rag.config import VectorStore
from serve_apps.rag.milvus import Milvus
from serve_apps.rag.vector_store import MAX_DOCUMENT_ID_CHARS, StoredDocument, Vector

QUOTED = """docs/"a" or chunk >= 0 \\ 'b'.md"""


def open_store(uri: str) -> Milvus:
    return Milvus(VectorStore(uri=uri), "docs")


@pytest.fixture
def store(store_uri: str) -> Milvus:
    return open_store(store_uri)


def unit(angle: int) -> Vector:
    """A direction in the plane, in degrees."""
    return np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], dtype=np.float32)


async def write(store: Milvus, document: str, *angles: int, content_hash: str = "h") -> None:
    """A document with a chunk per angle."""
    chunks = [Chunk(document, index, f"{document} at {angle}") for index, angle in enumerate(angles)]
    await store.replace(StoredDocument(document, len(chunks), content_hash), chunks, [unit(angle) for angle in angles])


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_a_store_never_written_to_is_empty(store: Milvus) -> None:
    async def check() -> None:
        assert await store.documents() == []
        assert await store.document("a") is None
        assert await store.search(unit(0), 5) == []
        assert await store.delete("a") == 0
        await store.flush()

    run(check())


def test_search_gives_the_most_similar_chunks_first(store: Milvus) -> None:
    async def check() -> None:
        await write(store, "a", 0, 90)
        await write(store, "b", 60, 180)
        found = await store.search(unit(0), 3)
        assert [(hit.chunk.document, hit.chunk.index) for hit in found] == [("a", 0), ("b", 0), ("a", 1)]
        assert [hit.score for hit in found] == pytest.approx([1, 0.5, 0], abs=1e-6)

    run(check())


def test_a_file_opened_by_many_at_once_is_open_for_all(store_uri: str) -> None:
    async def check() -> None:
        stores = [Milvus(VectorStore(uri=store_uri), name) for name in ("a", "b", "a", "b")]
        assert await asyncio.gather(*(store.documents() for store in stores)) == [[]] * 4

    run(check())


def test_a_chunk_and_its_record_come_back_as_they_were_written(store: Milvus) -> None:
    chunk = Chunk(QUOTED, 0, "text\nwith “quotes”", "A > B", 7)
    stored = StoredDocument(QUOTED, 1, "h", {"tags": ["x", 1], "nested": {"a": None}})

    async def check() -> None:
        await store.replace(stored, [chunk], [unit(0)])
        [hit] = await store.search(unit(0), 1)
        assert hit.chunk == chunk
        assert await store.document(QUOTED) == stored
        assert await store.documents() == [stored]

    run(check())


def test_the_longest_values_fit(store: Milvus) -> None:
    longest = Chunk("𝄞" * MAX_DOCUMENT_ID_CHARS, 0, "x" * MAX_CHUNK_BYTES, "𝄞" * MAX_HEADING_CHARS)

    async def check() -> None:
        await store.replace(StoredDocument(longest.document, 1, "h" * 64), [longest], [unit(0)])
        assert (await store.search(unit(0), 1))[0].chunk == longest

    run(check())


def test_a_document_that_shrinks_leaves_no_old_chunk(store: Milvus) -> None:
    async def check() -> None:
        await write(store, "a", *range(300), content_hash="old")
        await write(store, "b", 45)
        await write(store, "a", 10, 20, content_hash="new")
        assert {hit.chunk.text for hit in await store.search(unit(0), 100)} == {"a at 10", "a at 20", "b at 45"}
        assert await store.document("a") == StoredDocument("a", 2, "new")

    run(check())


def test_writing_a_document_again_changes_nothing(store: Milvus) -> None:
    async def check() -> None:
        await write(store, "a", 0, 10)
        await write(store, "a", 0, 10)
        assert len(await store.search(unit(0), 100)) == 2
        assert await store.documents() == [StoredDocument("a", 2, "h")]

    run(check())


def test_an_interrupted_write_does_not_look_complete(store: Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        await write(store, "a", 0, content_hash="old")
        with monkeypatch.context() as patched:
            patched.setattr(store._collection, "delete", _broken)
            with pytest.raises(ConnectionError):
                await write(store, "a", 10, 20, content_hash="new")
        assert await store.document("a") == StoredDocument("a", 1, "old")

    run(check())


def _broken(*_: Any) -> None:
    raise ConnectionError("in the middle")


def test_delete_removes_one_document_whole(store: Milvus) -> None:
    async def check() -> None:
        await write(store, QUOTED, 0, 10, 20)
        await write(store, "b", 30)
        assert await store.delete(QUOTED) == 3
        assert await store.delete(QUOTED) == 0
        assert [hit.chunk.document for hit in await store.search(unit(0), 100)] == ["b"]

    run(check())


def test_documents_are_listed_beyond_one_page(store: Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_apps.rag.milvus.LIST_ROWS", 3)

    async def check() -> None:
        for name in "gfedcba":
            await write(store, name, 0, 10)
        assert [stored.id for stored in await store.documents()] == list("abcdefg")

    run(check())


def test_a_vector_of_another_dimension_is_refused_by_name(store: Milvus) -> None:
    async def check() -> None:
        await write(store, "a", 0)
        for attempt in (store.search(np.ones(3, np.float32), 1), _write_three_dimensions(store)):
            with pytest.raises(UpstreamFailed, match="'docs' holds vectors of 2 dimensions, but the embedder gives 3"):
                await attempt
        assert len(await store.search(unit(0), 1)) == 1

    run(check())


async def _write_three_dimensions(store: Milvus) -> None:
    await store.replace(StoredDocument("b", 1, "h"), [Chunk("b", 0, "b")], [np.ones(3, np.float32)])


def test_what_was_written_is_there_after_a_restart(store_uri: str) -> None:
    run(write(open_store(store_uri), "a", 0))
    embedded_stores.release_server(store_uri)

    async def check() -> None:
        store = open_store(store_uri)
        assert [hit.chunk.document for hit in await store.search(unit(0), 5)] == ["a"]
        await store.flush()
        assert [hit.chunk.document for hit in await store.search(unit(0), 5)] == ["a"]

    run(check())


def test_a_collection_dropped_behind_our_back_is_made_again(store: Milvus, store_uri: str) -> None:
    async def check() -> None:
        await write(store, "a", 0)
        MilvusClient(store_uri).drop_collection("docs")
        with pytest.raises(Unavailable):
            await store.search(unit(0), 5)
        assert await store.search(unit(0), 5) == []
        await write(store, "a", 0)
        assert len(await store.search(unit(0), 5)) == 1

    run(check())


def test_a_relative_file_is_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_SERVING_DATA", str(tmp_path / "data"))
    run(write(open_store("below/docs.db"), "a", 0))
    embedded_stores.release_server(str(tmp_path / "data" / "below" / "docs.db"))
    assert (tmp_path / "data" / "below" / "docs.db").exists()


def test_a_store_that_is_not_there_is_unavailable_and_says_when_to_try_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed_port = taken.getsockname()[1]
    store = open_store(f"http://127.0.0.1:{closed_port}")

    async def check() -> None:
        for attempt in (store.search(unit(0), 1), store.documents(), store.delete("a"), write(store, "a", 0)):
            with pytest.raises(Unavailable) as raised:
                await attempt
            assert raised.value.message == "The vector store of collection 'docs' does not answer; try again later."
            assert raised.value.retry_after_s == 5

    run(check())


def test_a_store_that_hangs_is_given_up_while_the_event_loop_goes_on() -> None:
    async def check(store: Milvus) -> None:
        ticked = asyncio.ensure_future(asyncio.sleep(0, "meanwhile"))
        with pytest.raises(Unavailable):
            await store.search(unit(0), 1)
        assert ticked.done()

    # It accepts connections, and that is all it ever does.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run(check(Milvus(VectorStore(uri=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3), "docs")))


def test_calls_run_outside_the_event_loops_thread(store: Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    monkeypatch.setattr(store._collection, "flush", lambda _: threads.append(threading.current_thread()))
    run(store.flush())
    assert threads[0] is not threading.current_thread()
