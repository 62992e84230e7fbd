"""What only the embedded store does; test_vector_store.py has what all stores do."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from serve_apps.common.errors import Unavailable
from serve_apps.rag.chunking import Chunk
from serve_apps.rag.config import VectorStore
from serve_apps.rag.embedded import Embedded, _Collection
from serve_apps.rag.filters import parse
from serve_apps.rag.keywords import KeywordIndex
from serve_apps.rag.vector_store import StoredDocument
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.rag.written import run, unit, write


def open_store(uri: str, collection: str = "docs") -> Embedded:
    return Embedded(VectorStore(uri=uri, timeout_s=PATIENCE_S), collection)


async def found(store: Embedded) -> tuple[list[str], list[str]]:
    """The documents there are, by vector and by words."""
    by_vector, by_words = await store.search(unit(0), 100), await store.keyword_search("at", 100)
    return [hit.chunk.text for hit in by_vector], sorted(hit.chunk.text for hit in by_words)


def test_what_was_written_is_there_after_a_restart(store_uri: str) -> None:
    run(write(open_store(store_uri), "a", 0, 90))

    async def check() -> None:
        assert await found(open_store(store_uri)) == (["a at 0", "a at 90"], ["a at 0", "a at 90"])

    run(check())


def test_a_prepared_store_has_nothing_left_to_do_for_its_first_question(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left_to_do(*_: object) -> None:
        raise AssertionError

    def committed(index: KeywordIndex) -> None:
        assert index._writer is None

    async def check() -> None:
        await write(open_store(store_uri), "a", 0, 90)
        store = open_store(store_uri)
        await store.prepare()
        monkeypatch.setattr(_Collection, "_load", left_to_do)
        monkeypatch.setattr(KeywordIndex, "_writing", left_to_do)
        monkeypatch.setattr(KeywordIndex, "commit", committed)
        assert await found(store) == (["a at 0", "a at 90"], ["a at 0", "a at 90"])

    run(check())


def test_filters_hold_after_a_restart(store_uri: str) -> None:
    async def check() -> None:
        for lang in ("en", "de"):
            document = StoredDocument(lang, 1, "h", {"lang": lang})
            await open_store(store_uri).replace(document, [Chunk(lang, 0, "word")], [unit(0)])
        store = open_store(store_uri)
        assert [hit.chunk.document for hit in await store.search(unit(0), 5, parse({"lang": "de"}))] == ["de"]
        assert [hit.chunk.document for hit in await store.keyword_search("word", 5, parse({"lang": "en"}))] == ["en"]

    run(check())


def test_what_another_process_wrote_is_found(store_uri: str) -> None:
    async def check() -> None:
        ours, theirs = open_store(store_uri), open_store(store_uri)
        await write(ours, "a", 0)
        await found(ours)
        await write(theirs, "b", 10)
        assert (await found(ours))[1] == ["a at 0", "b at 10"]
        await write(ours, "a", 20)
        await theirs.delete("b")
        assert await found(ours) == await found(theirs) == (["a at 20"], ["a at 20"])

    run(check())


def test_collections_of_one_file_know_nothing_of_each_other(store_uri: str) -> None:
    async def check() -> None:
        one, other = open_store(store_uri, "one"), open_store(store_uri, "other")
        await write(one, "a", 0)
        await other.replace(StoredDocument("a", 1, "h"), [Chunk("a", 0, "at three")], [np.ones(3, np.float32)])
        assert (await found(one))[1] == ["a at 0"]
        assert await other.delete("a") == 1
        assert (await found(one))[1] == ["a at 0"]

    run(check())


def test_an_interrupted_write_leaves_what_was_there(store_uri: str) -> None:
    async def check() -> None:
        store = open_store(store_uri)
        await write(store, "a", 0)
        with pytest.raises(ValueError, match="longer"):
            await store.replace(StoredDocument("a", 1, "new"), [Chunk("a", 0, "new")], [unit(0), unit(1)])
        assert await store.document("a") == StoredDocument("a", 1, "h")
        assert await found(store) == (["a at 0"], ["a at 0"])

    run(check())


def test_a_caller_that_goes_away_leaves_all_indexes_in_step(store_uri: str) -> None:
    async def check() -> None:
        store = open_store(store_uri)
        await write(store, "a", 0)
        await found(store)
        release = threading.Event()
        store._collection._word_thread.submit(release.wait)
        writing = asyncio.ensure_future(write(store, "b", 10))
        while len(await store.documents()) < 2:
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        release.set()
        assert (await found(store))[1] == ["a at 0", "b at 10"]

    run(check())


def test_an_empty_collection_takes_another_embedder(store_uri: str) -> None:
    async def check() -> None:
        store = open_store(store_uri)
        await write(store, "a", 0)
        await store.search(unit(0), 1)
        await store.delete("a")
        await store.replace(StoredDocument("b", 1, "h"), [Chunk("b", 0, "b")], [np.ones(3, np.float32)])
        assert len(await store.search(np.ones(3, np.float32), 5)) == 1

    run(check())


def test_a_file_that_cannot_be_read_is_unavailable_until_it_can(store_uri: str) -> None:
    file = Path(store_uri)
    file.write_bytes(b"no database" * 1000)
    store = open_store(store_uri)

    async def fail() -> None:
        for attempt in (store.search(unit(0), 1), store.keyword_search("a", 1), store.documents(), store.delete("a")):
            with pytest.raises(Unavailable, match="The vector store of collection 'docs' does not answer"):
                await attempt

    async def succeed() -> None:
        await write(store, "a", 0)
        assert (await found(store))[1] == ["a at 0"]

    run(fail())
    file.unlink()
    run(succeed())


def test_a_relative_file_is_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_SERVING_DATA", str(tmp_path / "data"))
    run(write(open_store("below/docs.db"), "a", 0))
    assert (tmp_path / "data" / "below" / "docs.db").exists()


def test_chunks_of_a_replaced_document_leave_the_file(store_uri: str) -> None:
    async def check() -> None:
        store = open_store(store_uri)
        await write(store, "a", *range(50))
        await write(store, "a", 1)

    run(check())
    with sqlite3.connect(store_uri) as database:
        assert database.execute("SELECT count(*) FROM chunks").fetchone() == (1,)
    database.close()
