import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from serve_apps.common.errors import RateLimited, Unavailable, UpstreamFailed
from serve_apps.common.gateway_client import Caller
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag import retriever
from serve_apps.rag.chunking import Chunk
from serve_apps.rag.config import Pipeline
from serve_apps.rag.conversation import Message
from serve_apps.rag.filters import parse
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.retriever import QUOTE_CHARS, RERANK_POOL, SEARCH_DEPTH, Match, Retrieval, Retriever, Source, pack
from serve_apps.rag.vector_store import StoredDocument
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
        record = StoredDocument(name, 1, "h", {"name": name})
        asyncio.run(filled.replace(record, [Chunk(name, 0, text)], [embedding(text)]))
    return filled


@pytest.fixture
def observed() -> Recorded:
    """What the retriever reported."""
    return Recorded()


@pytest.fixture
def retrieve(gateway_url: str, credential: InternalCredential, store: InMemoryStore, observed: Recorded) -> Retrieve:
    """Asks a pipeline with the given settings: ``retrieve("question", topK=2)``."""

    def run(
        question: str,
        asked_top_k: int | None = None,
        where: Any = None,
        history: Sequence[Message] = (),
        **settings: Any,
    ) -> Retrieval:
        store_settings = {"uri": "a.db", "timeoutS": PATIENCE_S}
        least = {"llm": "chat", "embedder": "minilm", "vectorStore": store_settings, "embedTimeoutS": PATIENCE_S}
        pipeline = Pipeline.model_validate(least | {"rerankTimeoutS": PATIENCE_S} | settings)
        return asyncio.run(ask(pipeline, question, asked_top_k, where, history))

    async def ask(
        pipeline: Pipeline, question: str, top_k: int | None, where: Any, history: Sequence[Message]
    ) -> Retrieval:
        client = GatewayClient(gateway_url, credential, PATIENCE_S)
        try:
            return await Retriever("docs", pipeline, store, client, observed).retrieve(
                question, Caller("acme", "request-1"), top_k, parse(where), history
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
    assert observed.stages == [("docs", stage) for stage in ("keywords", "embed", "search", "feedback")]
    assert observed.sources == [("docs", 2)]


def test_a_request_may_ask_for_another_number_of_chunks(retrieve: Retrieve) -> None:
    assert len(retrieve("is tea a hot drink", 1).sources) == 1


def test_what_is_unlike_the_question_is_left_out(retrieve: Retrieve) -> None:
    assert names(retrieve("is tea a hot drink", minScore=0.5, keywords=False)) == ["tea"]
    assert len(names(retrieve("is tea a hot drink", minScore=-1))) == len(TEXTS)


def test_what_only_its_words_find_has_no_similarity(retrieve: Retrieve, store: InMemoryStore) -> None:
    found = retrieve("is tea a hot drink", minScore=0.8)
    assert names(found)[0] == "tea"
    assert "hot" in names(found)
    assert found.sources[0].citation()["score"] == 1


def test_words_alone_make_nothing_relevant(retrieve: Retrieve, observed: Recorded) -> None:
    assert retrieve("wheels", minScore=0.9) == Retrieval()
    assert observed.sources == [("docs", 0)]


def test_a_filter_holds_for_all_searches(retrieve: Retrieve) -> None:
    assert names(retrieve("is tea a hot drink", where={"name": {"$in": ["hot", "ice"]}}, minScore=-1)) == ["hot", "ice"]
    assert retrieve("is tea a hot drink", where={"name": "nothing"}) == Retrieval()


def test_what_is_like_the_best_chunk_comes_up(
    retrieve: Retrieve, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"best": "volcano lava", "other": "volcano cars wheels road", "like it": "volcano lava magma ash"}
    for name, text in texts.items():
        asyncio.run(store.replace(StoredDocument(name, 1, "h"), [Chunk(name, 0, text)], [embedding(text)]))
    monkeypatch.setattr("serve_apps.rag.retriever.FEEDBACK_CHUNKS", 1)
    assert names(retrieve("volcano", keywords=False)) == ["best", "like it", "other"]
    monkeypatch.setattr(store, "vectors", _none)
    assert names(retrieve("volcano", keywords=False)) == ["best", "other", "like it"]


async def _none(*_: Any) -> list[Any]:
    return []


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
    found = retrieve("is tea a hot drink", topK=1, reranker="reranker", minScore=-1)
    assert names(found) == ["hot"]
    assert set(store.searches) == {SEARCH_DEPTH}
    assert 1 < len(gateway.bodies("/v1/rerank")[0]["documents"]) <= RERANK_POOL
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
def test_an_embedder_that_is_down_leaves_the_words(
    retrieve: Retrieve, gateway: FakeGateway, observed: Recorded, status: int
) -> None:
    gateway.down["/v1/embeddings"] = refusal(status, "down")
    found = retrieve("is tea a hot drink", topK=1)
    assert names(found) == ["tea"]
    assert found.sources[0].citation()["score"] is None
    assert found.degraded == ("embed",)
    assert observed.degradations == [("docs", "embed")]
    unheard = retrieve("is tea a hot drink", keywords=False)
    assert unheard == Retrieval(degraded=("retrieval",), searched=False)


def test_a_slow_embedder_is_given_up(retrieve: Retrieve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any) -> list[Any]:
        await asyncio.sleep(PATIENCE_S)
        return []

    monkeypatch.setattr(GatewayClient, "embed", never)
    found = retrieve("is tea a hot drink", topK=1, embedTimeoutS=0.05)
    assert (names(found), found.degraded) == (["tea"], ("embed",))


def test_without_keyword_search_the_vectors_are_left(retrieve: Retrieve, store: InMemoryStore) -> None:
    store.keyword_failure = Unavailable("down")
    found = retrieve("is tea a hot drink", topK=1)
    assert (names(found), found.degraded) == (["tea"], ("keywords",))


def test_feedback_brings_in_nothing_that_the_question_is_unlike(
    retrieve: Retrieve, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the first search has found it, or it lies beyond what that looked for."""
    for name, text in {"like": "ship sail", "beyond": "sail sail", "less": "ship coal smoke iron rust rivet"}.items():
        record = StoredDocument(name, 1, "h")
        asyncio.run(store.replace(record, [Chunk(name, 0, text)], [embedding(text)]))
    for depth in (2, SEARCH_DEPTH):
        monkeypatch.setattr(retriever, "SEARCH_DEPTH", depth)
        assert names(retrieve("ship", topK=2, minScore=0.5, keywords=False)) == ["like"]


def test_without_feedback_the_first_search_stands(
    retrieve: Retrieve, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> list[Any]:
        raise UpstreamFailed("down")

    monkeypatch.setattr(store, "vectors", broken)
    found = retrieve("is tea a hot drink", topK=2)
    assert (names(found), found.degraded) == (["tea", "hot"], ())


def test_a_store_that_is_down_costs_the_sources_not_the_answer(retrieve: Retrieve, store: InMemoryStore) -> None:
    store.failure = Unavailable("down")
    assert retrieve("is tea a hot drink") == Retrieval(degraded=("retrieval",), searched=False)


def test_a_strict_pipeline_refuses_what_it_cannot_search(retrieve: Retrieve, store: InMemoryStore) -> None:
    assert names(retrieve("is tea a hot drink", topK=1, strict=True)) == ["tea"]
    store.failure = Unavailable("down")
    with pytest.raises(Unavailable, match="'docs' cannot search its documents; try again later") as raised:
        retrieve("is tea a hot drink", strict=True)
    assert raised.value.retry_after_s == 5


HISTORY: list[Message] = [{"role": "user", "content": "Tell me of tea"}, {"role": "assistant", "content": "Gladly."}]


def test_a_follow_up_question_is_rewritten_before_it_is_searched_for(retrieve: Retrieve, gateway: FakeGateway) -> None:
    gateway.answer = "is tea a hot drink"
    assert names(retrieve("is it?", topK=1, history=HISTORY, rewrite=True, rewriteTimeoutS=PATIENCE_S)) == ["tea"]
    assert gateway.bodies("/v1/embeddings")[0]["input"] == ["is tea a hot drink is it?"]
    gateway.asked.clear()
    retrieve("is it?", history=HISTORY)
    retrieve("is it?", rewrite=True)
    assert gateway.bodies("/v1/chat/completions") == []


def test_a_question_that_is_not_rewritten_is_searched_for_as_it_is(retrieve: Retrieve, gateway: FakeGateway) -> None:
    gateway.down["/v1/chat/completions"] = refusal(503, "starting")
    found = retrieve("tea a hot drink?", topK=1, history=HISTORY, rewrite=True)
    assert (names(found), found.degraded) == (["tea"], ("rewrite",))


def test_a_tenant_over_its_limit_is_told_so(retrieve: Retrieve, gateway: FakeGateway) -> None:
    gateway.down["/v1/embeddings"] = refusal(429, "slow down", {"retry-after": "3"})
    with pytest.raises(RateLimited) as raised:
        retrieve("is tea a hot drink")
    assert raised.value.retry_after_s == 3


def match(words: int, document: str = "a") -> Match:
    return Match(Chunk(document, 0, " ".join(["word"] * words)), 0.5)


def test_sources_are_packed_into_the_words_there_are() -> None:
    packed = pack([match(30, "a"), match(30, "b"), match(10, "c")], 50)
    assert [(source.index, source.chunk.document) for source in packed] == [(1, "a"), (2, "c")]
    assert len(pack([match(30), match(20)], 50)) == 2


def test_the_best_source_is_cut_rather_than_left_out() -> None:
    [source] = pack([match(80)], 50)
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
