"""The pipelines that run now; a new configuration replaces them whole."""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from serve_apps.common.errors import NotFound, ServingError
from serve_apps.rag import reading
from serve_apps.rag.config import Pipeline, RagPipelines
from serve_apps.rag.config import VectorStore as StoreSettings
from serve_apps.rag.gateway_client import GatewayClient
from serve_apps.rag.ingestion import Ingester
from serve_apps.rag.observation import Observer
from serve_apps.rag.reading import Read
from serve_apps.rag.retriever import Retriever
from serve_apps.rag.vector_store import VectorStore

#: Tenants' collections that a replica has open at a time. Those that were not asked for longest are closed.
MAX_OPEN_TENANTS = 64

#: Hexadecimal characters of a tenant's hash: 128 bits, so that no two tenants ever share a collection.
_HASH_CHARS = 32

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningPipeline:
    """A pipeline and its parts, for all tenants or for one."""

    name: str
    settings: Pipeline
    store: VectorStore
    ingester: Ingester
    retriever: Retriever


class Pipelines:
    """The running pipelines, by name."""

    def __init__(
        self,
        gateway: GatewayClient,
        observer: Observer,
        open_store: Callable[[StoreSettings, str], VectorStore],
        read: Read = reading.read,
    ) -> None:
        """``open_store`` opens a collection, named by its second argument; it must not connect yet.

        A store is closed by letting go of it, so a request under way keeps its own. ``read`` reads what comes in.
        """
        self._gateway = gateway
        self._observer = observer
        self._open_store = open_store
        self._read = read
        self._wanted: dict[str, Pipeline] = {}
        self._stores: WeakValueDictionary[tuple[StoreSettings, str], VectorStore] = WeakValueDictionary()
        self._shared: dict[str, RunningPipeline] = {}
        self._tenants: OrderedDict[tuple[str, str], RunningPipeline] = OrderedDict()
        """By pipeline and tenant, the one asked for last at the end."""

    def replace(self, wanted: RagPipelines) -> None:
        """Run ``wanted`` instead. A store whose settings stay is kept; requests under way finish with the old parts."""
        self._wanted = wanted.pipelines
        self._shared = {
            name: self._start(name, "") for name, settings in self._wanted.items() if settings.tenancy == "shared"
        }
        still_apart = [key for key in self._tenants if key[0] in self._wanted and key[0] not in self._shared]
        self._tenants = OrderedDict((key, self._start(*key)) for key in still_apart)

    async def prepare(self) -> None:
        """Make the documents that all tenants share quick to search. A store that is down costs answers, not us."""
        stores = {id(each.store): each for each in self._shared.values()}.values()
        await asyncio.gather(*(self._prepared(each) for each in stores))

    async def _prepared(self, pipeline: RunningPipeline) -> None:
        try:
            await pipeline.store.prepare()
        except ServingError as error:
            logger.warning("a store is not ready", extra={"pipeline": pipeline.name, "problem": error.message})
        except Exception:  # whatever it is, it is one pipeline's, and its questions will show it
            logger.exception("a store is not ready", extra={"pipeline": pipeline.name})

    def find(self, name: str, tenant: str) -> RunningPipeline:
        """The pipeline called ``name``, as it runs for a tenant.

        Raises:
            NotFound: there is none; names those there are.
        """
        if name not in self._wanted:
            there = ", ".join(sorted(self._wanted)) or "none"
            raise NotFound(f"no such pipeline {name!r}; there are {there}", code="pipeline_not_found", param="pipeline")
        return self._shared.get(name) or self._of_tenant(name, tenant)

    def _of_tenant(self, name: str, tenant: str) -> RunningPipeline:
        key = (name, tenant)
        running = self._tenants.pop(key, None) or self._start(name, tenant)
        self._tenants[key] = running
        if len(self._tenants) > MAX_OPEN_TENANTS:
            self._tenants.popitem(last=False)
        return running

    def _start(self, name: str, tenant: str) -> RunningPipeline:
        settings = self._wanted[name]
        key = (settings.vector_store, _collection(name, settings, tenant))
        store = self._stores.get(key) or self._open_store(*key)
        self._stores[key] = store
        parts = (name, settings, store, self._gateway, self._observer)
        return RunningPipeline(name, settings, store, Ingester(*parts, self._read), Retriever(*parts))


def _collection(name: str, settings: Pipeline, tenant: str) -> str:
    """The collection's name. A tenant's own text has no place in it: it might be another's, or no name at all."""
    shared = settings.collection or name.replace("-", "_")
    if settings.tenancy == "shared":
        return shared
    return f"{shared}_tenant_{hashlib.sha256(tenant.encode()).hexdigest()[:_HASH_CHARS]}"
