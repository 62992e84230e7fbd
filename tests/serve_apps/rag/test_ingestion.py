import asyncio
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import Response

from serve_apps.common.errors import InvalidRequest, Unavailable
from serve_apps.common.gateway_client import Caller
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag import ingestion, passages
from serve_apps.rag.config import Pipeline
from serve_apps.rag.figures import Figure
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.ingestion import Document, Ingested, Ingester
from serve_apps.rag.vector_store import StoredDocument
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.rag.fake_gateway import TOKEN_TEXT, FakeGateway, refusal
from tests.serve_apps.rag.in_memory import InMemoryStore
from tests.serve_apps.rag.pdf import Page, pdf, picture
from tests.serve_apps.rag.recorded import Recorded

Ingest = Callable[..., list[Ingested]]


@pytest.fixture
def store() -> InMemoryStore:
    """Where documents go."""
    return InMemoryStore()


@pytest.fixture
def observed() -> Recorded:
    """What the ingester reported."""
    return Recorded()


@pytest.fixture
def ingest(gateway_url: str, credential: InternalCredential, store: InMemoryStore, observed: Recorded) -> Ingest:
    """Brings documents into a pipeline with the given settings: ``ingest(a, b, embedder="e5")``."""

    def run(*documents: Document, **settings: Any) -> list[Ingested]:
        least = {"llm": "chat", "embedder": "minilm", "vectorStore": {"uri": "a.db"}}
        return asyncio.run(bring_in(Pipeline.model_validate(least | settings), documents))

    async def bring_in(pipeline: Pipeline, documents: tuple[Document, ...]) -> list[Ingested]:
        client = GatewayClient(gateway_url, credential, PATIENCE_S)
        try:
            return await Ingester("docs", pipeline, store, client, observed).ingest(
                documents, Caller("acme", "request-1")
            )
        finally:
            await client.close()

    return run


def document(text: str, name: str = "a.md", **extra: Any) -> Document:
    return Document(name, text.encode(), **extra)


def test_a_document_is_cut_embedded_and_stored(
    ingest: Ingest, store: InMemoryStore, gateway: FakeGateway, observed: Recorded
) -> None:
    text = "# Tea\n" + " ".join(f"It is w{number:03}." for number in range(9))
    done = ingest(document(text, metadata={"by": "me"}), chunking={"maxTokens": 20, "overlapTokens": 0})
    assert done == [Ingested("a.md", 3, "indexed")]
    assert store.records["a.md"].metadata == {"by": "me"}
    assert [chunk.index for chunk, _ in store.rows["a.md"]] == [0, 1, 2]
    assert [passage.split("\n")[0] for passage in gateway.bodies("/v1/embeddings")[0]["input"]] == ["Tea"] * 3
    assert observed.chunks == [("docs", 3)]
    assert store.preparations == 1


def test_an_unchanged_document_is_not_embedded_again(
    ingest: Ingest, store: InMemoryStore, gateway: FakeGateway
) -> None:
    ingest(document("one"))
    assert ingest(document("one"), document("two", "b.md")) == [
        Ingested("a.md", 1, "unchanged"),
        Ingested("b.md", 1, "indexed"),
    ]
    assert [body["input"] for body in gateway.bodies("/v1/embeddings")] == [["one"], ["two"]]


def test_documents_are_in_even_if_the_store_cannot_be_prepared_for_questions(
    ingest: Ingest, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def prepare() -> None:
        raise Unavailable("busy")

    monkeypatch.setattr(store, "prepare", prepare)
    assert ingest(document("one")) == [Ingested("a.md", 1, "indexed")]


def test_nothing_is_prepared_where_nothing_changed(ingest: Ingest, store: InMemoryStore) -> None:
    ingest(document("one"))
    ingest(document("one"))
    assert store.preparations == 1


@pytest.mark.parametrize(
    ("changed", "settings"),
    [
        (document("two"), {}),
        (document("one", metadata={"a": 1}), {}),
        (document("one", content_type="text/plain"), {}),
        (document("one"), {"embedder": "e5"}),
        (document("one"), {"chunking": {"maxTokens": 50}}),
    ],
)
def test_whatever_a_chunk_is_made_from_may_change_it(
    ingest: Ingest, changed: Document, settings: dict[str, Any]
) -> None:
    ingest(document("one"))
    assert ingest(changed, **settings)[0].status == "indexed"


def test_one_unreadable_document_keeps_all_of_the_request_out(
    ingest: Ingest, store: InMemoryStore, gateway: FakeGateway
) -> None:
    with pytest.raises(InvalidRequest, match=r"document 'b.md': holds no text"):
        ingest(document("one"), document(" ", "b.md"))
    assert store.records == {}
    assert gateway.asked == []


def test_a_document_of_too_many_pieces_is_refused(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "MAX_UNITS", 2)
    assert ingest(document("One two. Three four."))[0].chunks == 1
    with pytest.raises(InvalidRequest, match=r"document 'b.md': has more than 2 sentences, items or rows under one"):
        ingest(document("One two. Three four. Five six.", "b.md"))


def test_a_failing_embedder_leaves_the_old_version(ingest: Ingest, store: InMemoryStore, gateway: FakeGateway) -> None:
    ingest(document("one"))
    before = store.records["a.md"]
    gateway.down["/v1/embeddings"] = refusal(503, "starting")
    with pytest.raises(Unavailable, match="starting"):
        ingest(document("two"))
    assert store.records["a.md"] == before


def test_no_passage_is_longer_than_the_embedder_reads(ingest: Ingest, gateway: FakeGateway) -> None:
    gateway.window = 30
    ingest(document("# Tea\n" + " ".join(f"word{number}" for number in range(200))))
    passages = [text for body in gateway.bodies("/v1/embeddings") for text in body["input"]]
    assert len(passages) > 5
    assert max(len(TOKEN_TEXT.findall(passage)) + 2 for passage in passages) <= 30


def test_documents_are_embedded_together_in_full_batches(ingest: Ingest, gateway: FakeGateway) -> None:
    ingest(*(document(f"text {number}", f"{number}.md") for number in range(150)))
    assert sorted(len(body["input"]) for body in gateway.bodies("/v1/embeddings")) == [22, 64, 64]
    assert len(gateway.bodies("/tokenize")) == 3


def test_an_outage_half_way_is_told_for_each_document_and_the_next_try_goes_on(
    ingest: Ingest, store: InMemoryStore, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestion, "GROUP_CHARS", 10)
    documents = [document(f"text {name}", name) for name in ("a.md", "b.md", "c.md")]
    answer = gateway._embeddings

    def fail_later(body: dict[str, Any]) -> list[dict[str, Any]]:
        gateway.down["/v1/embeddings"] = refusal(503, "starting")
        return answer(body)

    monkeypatch.setattr(gateway, "_embeddings", fail_later)
    done = ingest(*documents)
    assert [(each.status, each.error and each.error.message) for each in done] == [
        ("indexed", None),
        ("failed", "starting"),
        ("failed", "starting"),
    ]
    assert len(gateway.bodies("/v1/embeddings")) == 2  # the third was not tried
    assert store.preparations == 1
    gateway.down.clear()
    monkeypatch.setattr(gateway, "_embeddings", answer)
    assert [each.status for each in ingest(*documents)] == ["unchanged", "indexed", "indexed"]


def test_a_document_the_embedder_refuses_does_not_keep_the_others_out(
    ingest: Ingest, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    respond = gateway._respond

    async def picky(request: Request) -> Response:
        if b"poison" in await request.body() and request.url.path == "/v1/embeddings":
            return refusal(400, "cannot read this")
        return await respond(request)

    monkeypatch.setattr(gateway, "_respond", picky)
    done = ingest(document("one"), document("poison", "b.md"), document("two", "c.md"))
    assert [each.status for each in done] == ["indexed", "failed", "indexed"]


def test_of_ten_thousand_small_documents_one_groups_vectors_are_in_memory(
    ingest: Ingest, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    async def embed(_: GatewayClient, __: str, texts: Sequence[str], ___: Caller) -> list[Any]:
        nonlocal alive, most
        vectors = [np.zeros(8, dtype=np.float32) for _ in texts]
        for vector in vectors:
            weakref.finalize(vector, gone)
        alive += len(vectors)
        most = max(most, alive)
        return vectors

    async def forget(stored: StoredDocument, *_: Any) -> None:
        store.records[stored.id] = stored

    monkeypatch.setattr(GatewayClient, "embed", embed)
    monkeypatch.setattr(store, "replace", forget)
    monkeypatch.setattr(ingestion, "GROUP_CHARS", 20_000)
    documents = [document(f"document {number}", f"{number}.txt") for number in range(10_000)]
    assert {each.status for each in ingest(*documents)} == {"indexed"}
    assert len(store.records) == 10_000
    assert most < 2000


def test_a_failing_store_is_the_clients_to_know(ingest: Ingest, store: InMemoryStore) -> None:
    store.failure = Unavailable("down")
    with pytest.raises(Unavailable, match="down"):
        ingest(document("one"))


def test_figures_are_kept_where_a_model_sees_and_make_it_another_document(ingest: Ingest, store: InMemoryStore) -> None:
    photo = picture(100, 100, b"\xff\xd8 a file", more="/Filter /DCTDecode")
    paper = Document("a.pdf", pdf(Page("Wings are long.", (photo,))))
    text = document("text", "b.md")
    ingest(paper, text)
    assert store.pictures["a.pdf"] == []
    assert [each.status for each in ingest(paper, text, vision="eyes")] == ["indexed", "unchanged"]
    assert store.pictures["a.pdf"] == [Figure(1, "image/jpeg", b"\xff\xd8 a file", 1)]
    ingest(paper, vision="eyes", maxFigures=0)
    assert store.pictures["a.pdf"] == []
