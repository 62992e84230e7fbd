import asyncio
import gc
import re
import threading
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from pydantic import ValidationError

from serve_apps.common.errors import NotFound, Unavailable
from serve_apps.common.secrets import InternalCredential
from serve_apps.rag import pipelines as pipelines_module
from serve_apps.rag.config import RagPipelines, VectorStore
from serve_apps.rag.embedded import Embedded
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.pipelines import Pipelines
from tests.serve.waiting import until
from tests.serve_apps.rag.in_memory import InMemoryStore
from tests.serve_apps.rag.recorded import Recorded

TENANT = "acme"


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
        pipelines.find("docs", TENANT)
    pipelines.replace(wanted(wiki={}, docs={}))
    with pytest.raises(NotFound, match="no such pipeline 'dosc'; there are docs, wiki"):
        pipelines.find("dosc", TENANT)
    assert pipelines.find("docs", TENANT).name == "docs"


def test_a_store_is_kept_while_its_settings_stay(pipelines: Pipelines, opened: Opened) -> None:
    pipelines.replace(wanted(docs={"topK": 3}))
    before = pipelines.find("docs", TENANT)
    pipelines.replace(wanted(docs={"topK": 7}))
    after = pipelines.find("docs", TENANT)
    assert after.settings.top_k == 7
    assert after.store is before.store
    pipelines.replace(wanted(docs={"vectorStore": {"uri": "b.db"}}))
    assert pipelines.find("docs", TENANT).store is not before.store
    assert opened.opened == [("a.db", "docs"), ("b.db", "docs")]


def test_shared_stores_are_prepared_once_each_and_one_that_is_down_keeps_nobody_waiting(pipelines: Pipelines) -> None:
    same = {"vectorStore": {"uri": "b.db"}, "collection": "same"}
    pipelines.replace(wanted(docs={}, one=same, two=same, down={"collection": "down"}, theirs={"tenancy": "tenant"}))
    stores: dict[str, Any] = {name: pipelines.find(name, TENANT).store for name in ("docs", "one", "down", "theirs")}
    for failure in (Unavailable("down"), ValueError("broken")):
        stores["down"].failure = failure
        asyncio.run(pipelines.prepare())
    assert {name: store.preparations for name, store in stores.items()} == {"docs": 2, "one": 2, "down": 0, "theirs": 0}


def test_a_collection_is_named_after_its_pipeline_unless_it_has_a_name(pipelines: Pipelines, opened: Opened) -> None:
    pipelines.replace(RagPipelines.model_validate({"pipelines": {"our-docs": wanted(a={}).pipelines["a"]}}))
    pipelines.replace(wanted(docs={"collection": "Shared"}))
    assert [collection for _, collection in opened.opened] == ["our_docs", "Shared"]


def test_pipelines_on_one_collection_share_its_store(pipelines: Pipelines) -> None:
    pipelines.replace(wanted(short={"collection": "c", "topK": 1}, long={"collection": "c", "topK": 9}))
    assert pipelines.find("short", TENANT).store is pipelines.find("long", TENANT).store


def test_what_is_not_valid_changes_nothing(pipelines: Pipelines) -> None:
    pipelines.replace(wanted(docs={}))
    with pytest.raises(ValidationError):
        pipelines.replace(wanted(docs={"topK": 0}))
    assert pipelines.find("docs", TENANT).settings.top_k == 5


@pytest.fixture
def apart(pipelines: Pipelines) -> Pipelines:
    """The pipeline ``docs``, with a collection for each tenant."""
    pipelines.replace(wanted(docs={"tenancy": "tenant"}))
    return pipelines


def test_tenants_share_a_store_unless_their_documents_are_apart(pipelines: Pipelines) -> None:
    pipelines.replace(wanted(docs={}, own={"tenancy": "tenant"}))
    assert pipelines.find("docs", "acme").store is pipelines.find("docs", "umbrella").store
    assert pipelines.find("own", "acme").store is not pipelines.find("own", "umbrella").store
    assert pipelines.find("own", "acme").store is pipelines.find("own", "acme").store


def test_a_tenants_collection_is_opened_when_it_is_asked_for(apart: Pipelines, opened: Opened) -> None:
    assert opened.opened == []
    apart.find("docs", "acme")
    assert opened.opened == [("a.db", "docs_tenant_822b33ad87c148a0a20a5ba7cd5ebcaa")]


@pytest.mark.parametrize("tenant", ["", "a-b", "a_b", "A_B", "a b", "../acme", "Ünal", "x" * 500])
def test_a_collections_name_holds_nothing_of_the_tenants(apart: Pipelines, opened: Opened, tenant: str) -> None:
    apart.find("docs", tenant)
    [(_, collection)] = opened.opened
    assert re.fullmatch(r"docs_tenant_[0-9a-f]{32}", collection)


def test_tenants_of_similar_names_stay_apart(apart: Pipelines, opened: Opened) -> None:
    tenants = ["a-b", "a_b", "A_B", "a b", "ab", "ab ", ""]
    assert len({id(apart.find("docs", tenant).store) for tenant in tenants}) == len(tenants)
    assert len(set(opened.opened)) == len(tenants)


def test_what_was_not_asked_for_longest_is_closed(
    apart: Pipelines, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines_module, "MAX_OPEN_TENANTS", 2)
    stores = {tenant: ref(apart.find("docs", tenant).store) for tenant in ("a", "b")}
    apart.find("docs", "a")
    apart.find("docs", "c")
    gc.collect()
    assert stores["a"]() is not None
    assert stores["b"]() is None
    apart.find("docs", "b")
    assert len(opened.opened) == 4


def test_a_store_in_use_is_found_again_after_it_was_closed(
    apart: Pipelines, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines_module, "MAX_OPEN_TENANTS", 1)
    under_way = apart.find("docs", "a")
    apart.find("docs", "b")
    assert apart.find("docs", "a").store is under_way.store


def test_new_settings_reach_every_tenant_and_keep_its_store(apart: Pipelines, opened: Opened) -> None:
    store = apart.find("docs", "acme").store
    apart.replace(wanted(docs={"tenancy": "tenant", "topK": 7}))
    assert apart.find("docs", "acme").settings.top_k == 7
    assert apart.find("docs", "acme").store is store
    apart.replace(wanted(docs={}))
    assert apart.find("docs", "acme").store is not store
    apart.replace(wanted())
    with pytest.raises(NotFound):
        apart.find("docs", "acme")


def store_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("store-docs_tenant")]


def test_an_embedded_stores_threads_end_with_it(
    credential: InternalCredential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines_module, "MAX_OPEN_TENANTS", 1)
    embedded = Pipelines(GatewayClient("http://127.0.0.1:1", credential, 1), Recorded(), Embedded)
    store = {"uri": str(tmp_path / "a.db")}
    embedded.replace(wanted(docs={"tenancy": "tenant", "vectorStore": store}))
    for number in range(5):
        asyncio.run(embedded.find("docs", str(number)).store.documents())
    gc.collect()
    names = until(store_threads, lambda names: len({name.rpartition("_")[0] for name in names}) <= 1)
    assert names
