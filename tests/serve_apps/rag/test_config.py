from typing import Any

import pytest
from pydantic import ValidationError

from serve_apps.rag.config import Chunking, RagArgs, RagPipelines, VectorStore


def test_overlap_must_be_smaller_than_a_chunk() -> None:
    with pytest.raises(ValidationError, match="overlapTokens: must be below maxTokens, got 50 and 50"):
        Chunking.model_validate({"maxTokens": 50, "overlapTokens": 50})
    assert Chunking.model_validate({"maxTokens": 50, "overlapTokens": 49}).overlap_tokens == 49


@pytest.mark.parametrize(("uri", "embedded"), [("http://milvus:19530", False), ("docs.db", True), ("/data/a.db", True)])
def test_a_uri_is_a_server_or_a_file(uri: str, embedded: bool) -> None:
    assert VectorStore(uri=uri).embedded is embedded


def test_another_uri_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"'milvus:19530' is neither http\(s\)://host:port nor a file name"):
        VectorStore(uri="milvus:19530")


@pytest.mark.parametrize("name", ["../internal/token", "a/b", ".", "-a"])
def test_a_credential_is_a_file_of_its_folder(name: str) -> None:
    assert VectorStore(uri="http://milvus:19530", credential="team-a.token").credential == "team-a.token"
    with pytest.raises(ValidationError, match="credential"):
        VectorStore(uri="http://milvus:19530", credential=name)


def test_a_pipelines_minimum_is_model_embedder_and_store() -> None:
    pipeline = {"llm": "chat", "embedder": "minilm", "vectorStore": {"uri": "a.db"}}
    docs = RagPipelines.model_validate({"pipelines": {"docs": pipeline}}).pipelines["docs"]
    assert (docs.top_k, docs.reranker, docs.collection) == (5, None, "")


@pytest.mark.parametrize(
    "wrong", [{"topk": 3}, {"topK": 0}, {"minScore": 2}, {"collection": "a-b"}, {"llm": "Chat"}, {"rerankTimeoutS": 0}]
)
def test_a_misspelt_key_or_an_impossible_value_is_refused(wrong: dict[str, Any]) -> None:
    pipeline = {"llm": "chat", "embedder": "minilm", "vectorStore": {"uri": "a.db"}, **wrong}
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        RagPipelines.model_validate({"pipelines": {"docs": pipeline}})


def test_the_gateways_url_has_no_slash_at_its_end() -> None:
    with pytest.raises(ValidationError, match="gatewayUrl"):
        RagArgs.model_validate({"gatewayUrl": "http://127.0.0.1:8000/"})
    assert RagArgs.model_validate({"gatewayUrl": "http://127.0.0.1:8000"}).model_timeout_s == 900
