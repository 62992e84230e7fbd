from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from serve_apps.common.api import MAX_DOCUMENT_ID_CHARS
from serve_apps.common.errors import UpstreamFailed
from serve_apps.rag import filters
from serve_apps.rag.chunking import MAX_CHUNK_BYTES, MAX_HEADING_CHARS, Chunk
from serve_apps.rag.config import VectorStore as Settings
from serve_apps.rag.figures import MAX_FIGURE_BYTES, Figure
from serve_apps.rag.stores import open_store
from serve_apps.rag.vector_store import StoredDocument, VectorStore
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.rag.milvus_process import MilvusProcess
from tests.serve_apps.rag.written import run, unit, write

QUOTED = """docs/"a" or chunk >= 0 \\ 'b'.md"""


@pytest.fixture(params=["embedded", "milvus"])
def store(request: pytest.FixtureRequest, tmp_path: Path, milvus_secret: Path) -> VectorStore:
    """Each of the stores; milvus-lite, which speaks Milvus' protocol, stands for the server, as a process."""
    if request.param == "embedded":
        return open_store(Settings(uri=str(tmp_path / "documents.db"), timeout_s=PATIENCE_S), "docs")
    milvus: MilvusProcess = request.getfixturevalue("milvus")
    settings = Settings(uri=milvus.uri, credential="token", timeout_s=PATIENCE_S)
    return open_store(settings, f"docs_{uuid4().hex}")


def test_a_store_never_written_to_is_empty(store: VectorStore) -> None:
    async def check() -> None:
        assert await store.documents() == []
        assert await store.document("a") is None
        assert await store.search(unit(0), 5) == []
        assert await store.keyword_search("a", 5) == []
        assert await store.vectors([Chunk("a", 0, "a")]) == []
        assert await store.delete("a") == 0
        await store.prepare()

    run(check())


def test_search_gives_the_most_similar_chunks_first(store: VectorStore) -> None:
    async def check() -> None:
        await write(store, "a", 0, 90)
        await write(store, "b", 60, 180)
        found = await store.search(unit(0), 3)
        assert [(hit.chunk.document, hit.chunk.index) for hit in found] == [("a", 0), ("b", 0), ("a", 1)]
        assert [hit.score for hit in found] == pytest.approx([1, 0.5, 0], abs=1e-6)

    run(check())


def test_a_chunk_and_its_record_come_back_as_they_were_written(store: VectorStore) -> None:
    chunk = Chunk(QUOTED, 0, "text\nwith “quotes”", "A > B", 7)
    stored = StoredDocument(QUOTED, 1, "h", {"tags": ["x", 1], "nested": {"a": None}})

    async def check() -> None:
        await store.replace(stored, [chunk], [unit(0)])
        [hit] = await store.search(unit(0), 1)
        assert hit.chunk == chunk
        assert await store.document(QUOTED) == stored
        assert await store.documents() == [stored]

    run(check())


def test_the_longest_values_fit(store: VectorStore) -> None:
    longest = Chunk("𝄞" * MAX_DOCUMENT_ID_CHARS, 0, "x" * MAX_CHUNK_BYTES, "𝄞" * MAX_HEADING_CHARS)

    async def check() -> None:
        await store.replace(StoredDocument(longest.document, 1, "h" * 64), [longest], [unit(0)])
        assert (await store.search(unit(0), 1))[0].chunk == longest

    run(check())


def test_a_document_that_shrinks_leaves_no_old_chunk(store: VectorStore) -> None:
    async def check() -> None:
        await write(store, "a", *range(300), content_hash="old")
        await write(store, "b", 45)
        await write(store, "a", 10, 20, content_hash="new")
        assert {hit.chunk.text for hit in await store.search(unit(0), 100)} == {"a at 10", "a at 20", "b at 45"}
        assert await store.document("a") == StoredDocument("a", 2, "new")

    run(check())


def test_writing_a_document_again_changes_nothing(store: VectorStore) -> None:
    async def check() -> None:
        await write(store, "a", 0, 10)
        await write(store, "a", 0, 10)
        assert len(await store.search(unit(0), 100)) == 2
        assert await store.documents() == [StoredDocument("a", 2, "h")]

    run(check())


def test_delete_removes_one_document_whole(store: VectorStore) -> None:
    async def check() -> None:
        await write(store, QUOTED, 0, 10, 20)
        await write(store, "b", 30)
        assert await store.delete(QUOTED) == 3
        assert await store.delete(QUOTED) == 0
        assert [hit.chunk.document for hit in await store.search(unit(0), 100)] == ["b"]

    run(check())


def test_a_vector_of_another_dimension_is_refused_by_name(store: VectorStore) -> None:
    async def check() -> None:
        await write(store, "a", 0)
        for attempt in (store.search(np.ones(3, np.float32), 1), _write_three_dimensions(store)):
            with pytest.raises(
                UpstreamFailed, match=r"'docs\w*' holds vectors of 2 dimensions, but the embedder gives"
            ):
                await attempt
        assert len(await store.search(unit(0), 1)) == 1

    run(check())


async def _write_three_dimensions(store: VectorStore) -> None:
    await store.replace(StoredDocument("b", 1, "h"), [Chunk("b", 0, "b")], [np.ones(3, np.float32)])


TEXTS = {
    "wings": ("the wing of an aircraft carries it", {"lang": "en", "year": 2024, "tags": ["air", "wing"]}),
    "boats": ("a boat is carried by the water, as a wing by the air", {"lang": "en", "year": 2025}),
    "tragen": ("Der Flügel trägt das Flugzeug; wing", {"lang": "de", "year": 2025}),
}


async def write_texts(store: VectorStore) -> None:
    for angle, (name, (text, metadata)) in enumerate(TEXTS.items()):
        await store.replace(StoredDocument(name, 1, "h", metadata), [Chunk(name, 0, text)], [unit(30 * angle)])


async def found(store: VectorStore, text: str, where: Any = None) -> list[str]:
    return [hit.chunk.document for hit in await store.keyword_search(text, 10, filters.parse(where))]


def test_words_find_chunks_the_rarest_first(store: VectorStore) -> None:
    async def check() -> None:
        await write_texts(store)
        hits = await store.keyword_search("aircraft wing", 10)
        assert hits[0].chunk == Chunk("wings", 0, TEXTS["wings"][0])
        assert {hit.chunk.document for hit in hits} == set(TEXTS)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert hits[-1].score > 0
        assert await found(store, "submarine") == []
        assert await found(store, " ?!") == []
        assert len(await store.keyword_search("wing", 1)) == 1

    run(check())


def test_words_follow_what_is_written_and_removed(store: VectorStore) -> None:
    async def check() -> None:
        await write_texts(store)
        changed = StoredDocument("boats", 1, "h2", TEXTS["boats"][1])
        await store.replace(changed, [Chunk("boats", 0, "now about trains", "Trains")], [unit(30)])
        assert await found(store, "water") == []
        assert await found(store, "trains") == ["boats"]
        await store.delete("boats")
        assert await found(store, "trains") == []

    run(check())


@pytest.mark.parametrize(
    ("where", "documents"),
    [
        (None, {"wings", "boats", "tragen"}),
        ({"lang": "en"}, {"wings", "boats"}),
        ({"lang": "en", "year": {"$in": [2025, 2026]}}, {"boats"}),
        ({"year": 2024.0}, {"wings"}),
        ({"tags": "air"}, {"wings"}),
        ({"year": "2024"}, set()),
        ({"lang": "' or 1 == 1 or '"}, set()),
    ],
)
def test_a_filter_lets_through_what_matches_by_vector_and_by_words(
    store: VectorStore, where: Any, documents: set[str]
) -> None:
    async def check() -> None:
        await write_texts(store)
        by_vector = await store.search(unit(0), 10, filters.parse(where))
        assert {hit.chunk.document for hit in by_vector} == documents
        assert set(await found(store, "wing", where)) == documents

    run(check())


def test_the_vectors_of_chunks_are_those_that_were_written(store: VectorStore) -> None:
    async def check() -> None:
        await write(store, "a", 0, 90)
        [vector] = await store.vectors([Chunk("a", 1, ""), Chunk("gone", 0, "")])
        assert vector == pytest.approx(unit(90))

    run(check())


FIGURES = [
    Figure(1, "image/png", bytes(range(256)) * 400, 1),
    Figure(2, "image/jpeg", b"two", 1),
    Figure(4, "image/png", b"four", 4),
]


async def write_figures(store: VectorStore, document: str, figures: list[Figure]) -> None:
    await store.replace(StoredDocument(document, 1, "h"), [Chunk(document, 0, "text")], [unit(0)], figures)


def test_figures_are_found_by_the_page_of_the_chunks_beside_them(store: VectorStore) -> None:
    async def check() -> None:
        assert await store.figures("a", 1, 9) == []
        await write_figures(store, QUOTED, FIGURES)
        await write_figures(store, "b", FIGURES[2:])
        assert await store.figures(QUOTED, 1, 9) == FIGURES[:2]
        assert await store.figures(QUOTED, 1, 1) == FIGURES[:1]
        assert await store.figures(QUOTED, 2, 9) == []
        assert await store.figures("b", 4, 9) == FIGURES[2:]

    run(check())


def test_figures_go_with_their_version_of_the_document(store: VectorStore) -> None:
    async def check() -> None:
        await write_figures(store, "a", FIGURES)
        await write_figures(store, "b", FIGURES)
        await write_figures(store, "a", FIGURES[1:2])
        assert (await store.figures("a", 1, 9), await store.figures("a", 4, 9)) == (FIGURES[1:2], [])
        await write(store, "a", 0)
        assert await store.figures("a", 1, 9) == []
        await store.delete("b")
        await write(store, "b", 0)
        assert await store.figures("b", 1, 9) == []

    run(check())


def test_the_largest_figure_fits(store: VectorStore) -> None:
    async def check() -> None:
        largest = Figure(7, "image/jpeg", b"\xff" * MAX_FIGURE_BYTES, 7)
        await write_figures(store, "a", [largest])
        assert await store.figures("a", 7, 1) == [largest]

    run(check())
