from typing import Any

import pytest
from pydantic import ValidationError

from serve_apps.common.errors import NotFound
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag.config import RagPipelines, VectorStore
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.pipelines import Pipelines
from tests.serve_apps.rag.in_memory import InMemoryStore
from tests.serve_apps.rag.recorded import Recorded


class Opened:
    """Opens stores in memory and remembers which."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, str]] = []

    def __call__(self, settings: VectorStore, collection: str) -> InMemoryStore:
        self.opened.append((settings.uri, collection))
        return InMemoryStore()


@pytest.fixture
def opened() -> Opened:
    """Which stores were opened."""
    return Opened()


@pytest.fixture
def pipelines(credential: InternalCredential, opened: Opened) -> Pipelines:
    """None yet."""
    return Pipelines(GatewayClient("http://127.0.0.1:1", credential, 1), Recorded(), opened)


def wanted(**pipelines: dict[str, Any]) -> RagPipelines:
    least = {"llm": "chat", "embedder": "minilm", "vectorStore": {"uri": "a.db"}}
    return RagPipelines.model_validate({"pipelines": {name: least | more for name, more in pipelines.items()}})


def test_an_unknown_pipeline_names_those_there_are(pipelines: Pipelines) -> None:
    with pytest.raises(NotFound, match="no such pipeline 'docs'; there are none"):
        pipelines.find("docs")
    pipelines.replace(wanted(wiki={}, docs={}))
    with pytest.raises(NotFound, match="no such pipeline 'dosc'; there are docs, wiki"):
        pipelines.find("dosc")
    assert pipelines.find("docs").name == "docs"


def test_a_store_is_kept_while_its_settings_stay(pipelines: Pipelines, opened: Opened) -> None:
    pipelines.replace(wanted(docs={"topK": 3}))
    before = pipelines.find("docs")
    pipelines.replace(wanted(docs={"topK": 7}))
    after = pipelines.find("docs")
    assert after.settings.top_k == 7
    assert after.store is before.store
    pipelines.replace(wanted(docs={"vectorStore": {"uri": "b.db"}}))
    assert pipelines.find("docs").store is not before.store
    assert opened.opened == [("a.db", "docs"), ("b.db", "docs")]


def test_a_collection_is_named_after_its_pipeline_unless_it_has_a_name(pipelines: Pipelines, opened: Opened) -> None:
    pipelines.replace(RagPipelines.model_validate({"pipelines": {"our-docs": wanted(a={}).pipelines["a"]}}))
    pipelines.replace(wanted(docs={"collection": "Shared"}))
    assert [collection for _, collection in opened.opened] == ["our_docs", "Shared"]


def test_pipelines_on_one_collection_share_its_store(pipelines: Pipelines) -> None:
    pipelines.replace(wanted(short={"collection": "c", "topK": 1}, long={"collection": "c", "topK": 9}))
    assert pipelines.find("short").store is pipelines.find("long").store


def test_what_is_not_valid_changes_nothing(pipelines: Pipelines) -> None:
    pipelines.replace(wanted(docs={}))
    with pytest.raises(ValidationError):
        pipelines.replace(wanted(docs={"topK": 0}))
    assert pipelines.find("docs").settings.top_k == 5
