import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from serve_apps.common.errors import RateLimited, Unavailable
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag.chunking import Chunk
from serve_apps.rag.config import Pipeline
from serve_apps.rag.gateway_client import Caller, GatewayClient
from serve_apps.rag.retriever import QUOTE_CHARS, RERANK_POOL, Retrieval, Retriever, Source, pack
from serve_apps.rag.vector_store import Hit, StoredDocument
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.rag.fake_gateway import FakeGateway, embedding, refusal
from tests.serve_apps.rag.in_memory import InMemoryStore
from tests.serve_apps.rag.recorded import Recorded

Retrieve = Callable[..., Retrieval]

TEXTS = {
    "tea": "tea is a hot drink",
    "ice": "ice is cold",
    "cars": "cars have wheels",
    "hot": "hot hot hot hot hot hot hot hot drink",
}


@pytest.fixture
def store() -> InMemoryStore:
    """A store with a document of one chunk per text."""
    filled = InMemoryStore()
    for name, text in TEXTS.items():
        record = StoredDocument(name, 1, "h")
        asyncio.run(filled.replace(record, [Chunk(name, 0, text)], [embedding(text)]))
    return filled


@pytest.fixture
def observed() -> Recorded:
    """What the retriever reported."""
    return Recorded()


@pytest.fixture
def retrieve(gateway_url: str, credential: InternalCredential, store: InMemoryStore, observed: Recorded) -> Retrieve:
    """Asks a pipeline with the given settings: ``retrieve("question", topK=2)``."""

    def run(question: str, asked_top_k: int | None = None, **settings: Any) -> Retrieval:
        least = {"llm": "chat", "embedder": "minilm", "vectorStore": {"uri": "a.db"}}
        return asyncio.run(ask(Pipeline.model_validate(least | settings), question, asked_top_k))

    async def ask(pipeline: Pipeline, question: str, top_k: int | None) -> Retrieval:
        client = GatewayClient(gateway_url, credential, PATIENCE_S)
        try:
            return await Retriever("docs", pipeline, store, client, observed).retrieve(
                question, Caller("acme", "request-1"), top_k
            )
        finally:
            await client.close()

    return run


def names(retrieval: Retrieval) -> list[str]:
    return [source.chunk.document for source in retrieval.sources]


def test_the_most_similar_chunks_become_numbered_sources(retrieve: Retrieve, observed: Recorded) -> None:
    found = retrieve("is tea a hot drink", topK=2)
    assert names(found) == ["tea", "hot"]
    assert [source.index for source in found.sources] == [1, 2]
    assert found.sources[0].score == pytest.approx(1)
    assert found.degraded == ()
    assert observed.stages == [("docs", "embed"), ("docs", "search")]


def test_a_request_may_ask_for_another_number_of_chunks(retrieve: Retrieve) -> None:
    assert len(retrieve("is tea a hot drink", 1).sources) == 1


def test_what_is_unlike_the_question_is_left_out(retrieve: Retrieve) -> None:
    assert names(retrieve("is tea a hot drink", minScore=0.5)) == ["tea"]
    assert len(names(retrieve("is tea a hot drink", minScore=-1))) == len(TEXTS)


def test_nothing_similar_is_no_failure(retrieve: Retrieve, observed: Recorded) -> None:
    assert retrieve("quantum chromodynamics") == Retrieval()
    assert observed.degradations == []


def test_an_empty_store_degrades_the_answer(retrieve: Retrieve, store: InMemoryStore, observed: Recorded) -> None:
    store.rows.clear()
    assert retrieve("is tea a hot drink") == Retrieval(degraded=("retrieval",))
    assert observed.degradations == [("docs", "retrieval")]


def test_the_reranker_chooses_from_a_larger_pool(
    retrieve: Retrieve, store: InMemoryStore, gateway: FakeGateway, observed: Recorded
) -> None:
    found = retrieve("is tea a hot drink", topK=1, reranker="reranker")
    assert names(found) == ["hot"]
    assert store.searches == [RERANK_POOL]
    assert len(gateway.bodies("/v1/rerank")[0]["documents"]) > 1
    assert ("docs", "rerank") in observed.stages


def test_a_reranker_that_is_down_leaves_the_stores_order(
    retrieve: Retrieve, gateway: FakeGateway, observed: Recorded
) -> None:
    gateway.down["/v1/rerank"] = refusal(429, "slow down")
    found = retrieve("is tea a hot drink", topK=1, reranker="reranker")
    assert names(found) == ["tea"]
    assert found.degraded == ("rerank",)
    assert observed.degradations == [("docs", "rerank")]


def test_a_reranker_that_is_slow_leaves_the_stores_order(retrieve: Retrieve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any) -> list[float]:
        await asyncio.sleep(PATIENCE_S)
        return []

    monkeypatch.setattr(GatewayClient, "rerank", never)
    found = retrieve("is tea a hot drink", topK=1, reranker="reranker", rerankTimeoutS=0.05)
    assert names(found) == ["tea"]
    assert found.degraded == ("rerank",)


@pytest.mark.parametrize("status", [404, 500, 503, 504])
def test_an_embedder_that_is_down_costs_the_sources_not_the_answer(
    retrieve: Retrieve, gateway: FakeGateway, status: int
) -> None:
    gateway.down["/v1/embeddings"] = refusal(status, "down")
    assert retrieve("is tea a hot drink") == Retrieval(degraded=("retrieval",), searched=False)


def test_a_store_that_is_down_costs_the_sources_not_the_answer(retrieve: Retrieve, store: InMemoryStore) -> None:
    store.failure = Unavailable("down")
    assert retrieve("is tea a hot drink") == Retrieval(degraded=("retrieval",), searched=False)


def test_a_tenant_over_its_limit_is_told_so(retrieve: Retrieve, gateway: FakeGateway) -> None:
    gateway.down["/v1/embeddings"] = refusal(429, "slow down", {"retry-after": "3"})
    with pytest.raises(RateLimited) as raised:
        retrieve("is tea a hot drink")
    assert raised.value.retry_after_s == 3


def hit(words: int, document: str = "a") -> Hit:
    return Hit(Chunk(document, 0, " ".join(["word"] * words)), 0.5)


def test_sources_are_packed_into_the_words_there_are() -> None:
    packed = pack([hit(30, "a"), hit(30, "b"), hit(10, "c")], 50)
    assert [(source.index, source.chunk.document) for source in packed] == [(1, "a"), (2, "c")]
    assert len(pack([hit(30), hit(20)], 50)) == 2


def test_the_best_source_is_cut_rather_than_left_out() -> None:
    [source] = pack([hit(80)], 50)
    assert source.chunk.text == " ".join(["word"] * 50)


def test_a_citation_names_what_was_found() -> None:
    source = Source(2, Chunk("a.pdf", 3, "x" * 500, "A > B", 7), 0.123456)
    assert source.citation() == {
        "index": 2,
        "document": "a.pdf",
        "chunk": 3,
        "score": 0.1235,
        "quote": "x" * QUOTE_CHARS,
        "page": 7,
        "heading": "A > B",
    }
    assert Source(1, Chunk("a.txt", 0, "x"), 1).citation().keys() == {"index", "document", "chunk", "score", "quote"}
