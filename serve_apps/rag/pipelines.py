"""The pipelines that run now; a new configuration replaces them whole."""

from collections.abc import Callable
from dataclasses import dataclass

from serve_apps.common.errors import NotFound
from serve_apps.rag.config import Pipeline, RagPipelines
from serve_apps.rag.config import VectorStore as StoreSettings
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.ingestion import Ingester
from serve_apps.rag.observation import Observer
from serve_apps.rag.retriever import Retriever
from serve_apps.rag.vector_store import VectorStore


@dataclass(frozen=True, slots=True)
class RunningPipeline:
    """A pipeline and its parts."""

    name: str
    settings: Pipeline
    store: VectorStore
    ingester: Ingester
    retriever: Retriever


class Pipelines:
    """The running pipelines, by name."""

    def __init__(
        self, gateway: GatewayClient, observer: Observer, open_store: Callable[[StoreSettings, str], VectorStore]
    ) -> None:
        """``open_store`` opens a collection, named by its second argument; it must not connect yet."""
        self._gateway = gateway
        self._observer = observer
        self._open_store = open_store
        self._stores: dict[tuple[StoreSettings, str], VectorStore] = {}
        self._running: dict[str, RunningPipeline] = {}

    def replace(self, wanted: RagPipelines) -> None:
        """Run ``wanted`` instead. A store whose settings stay is kept; requests under way finish with the old parts."""
        collections = {
            name: (settings.vector_store, settings.collection or name.replace("-", "_"))
            for name, settings in wanted.pipelines.items()
        }
        stores = {key: self._stores.get(key) or self._open_store(*key) for key in set(collections.values())}
        self._running = {
            name: self._start(name, settings, stores[collections[name]]) for name, settings in wanted.pipelines.items()
        }
        self._stores = stores

    def find(self, name: str) -> RunningPipeline:
        """The pipeline called ``name``.

        Raises:
            NotFound: there is none; names those there are.
        """
        running = self._running
        if name not in running:
            there = ", ".join(sorted(running)) or "none"
            raise NotFound(f"no such pipeline {name!r}; there are {there}", code="pipeline_not_found", param="pipeline")
        return running[name]

    def _start(self, name: str, settings: Pipeline, store: VectorStore) -> RunningPipeline:
        parts = (name, settings, store, self._gateway, self._observer)
        return RunningPipeline(name, settings, store, Ingester(*parts), Retriever(*parts))
