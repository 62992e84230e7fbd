import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from serve_apps.common.errors import InvalidRequest, Unavailable
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag.config import Pipeline
from serve_apps.rag.gateway_client import Caller, GatewayClient
from serve_apps.rag.ingestion import Document, Ingested, Ingester
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.rag.fake_gateway import FakeGateway, refusal
from tests.serve_apps.rag.in_memory import InMemoryStore
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
    text = "# Tea\n" + " ".join(f"w{number}" for number in range(25))
    done = ingest(document(text, metadata={"by": "me"}), chunking={"maxWords": 10, "overlapWords": 0})
    assert done == [Ingested("a.md", 3, "indexed")]
    assert store.records["a.md"].metadata == {"by": "me"}
    assert [chunk.index for chunk, _ in store.rows["a.md"]] == [0, 1, 2]
    assert [passage.split("\n")[0] for passage in gateway.bodies("/v1/embeddings")[0]["input"]] == ["Tea"] * 3
    assert observed.chunks == [("docs", 3)]
    assert store.flushes == 1


def test_an_unchanged_document_is_not_embedded_again(
    ingest: Ingest, store: InMemoryStore, gateway: FakeGateway
) -> None:
    ingest(document("one"))
    assert ingest(document("one"), document("two", "b.md")) == [
        Ingested("a.md", 1, "unchanged"),
        Ingested("b.md", 1, "indexed"),
    ]
    assert [body["input"] for body in gateway.bodies("/v1/embeddings")] == [["one"], ["two"]]


def test_nothing_is_flushed_where_nothing_changed(ingest: Ingest, store: InMemoryStore) -> None:
    ingest(document("one"))
    ingest(document("one"))
    assert store.flushes == 1


@pytest.mark.parametrize(
    ("changed", "settings"),
    [
        (document("two"), {}),
        (document("one", metadata={"a": 1}), {}),
        (document("one", content_type="text/plain"), {}),
        (document("one"), {"embedder": "e5"}),
        (document("one"), {"chunking": {"maxWords": 50}}),
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


def test_a_failing_embedder_leaves_the_old_version(ingest: Ingest, store: InMemoryStore, gateway: FakeGateway) -> None:
    ingest(document("one"))
    before = store.records["a.md"]
    gateway.down["/v1/embeddings"] = refusal(503, "starting")
    with pytest.raises(Unavailable, match="starting"):
        ingest(document("two"))
    assert store.records["a.md"] == before


def test_a_failing_store_is_the_clients_to_know(ingest: Ingest, store: InMemoryStore) -> None:
    store.failure = Unavailable("down")
    with pytest.raises(Unavailable, match="down"):
        ingest(document("one"))
