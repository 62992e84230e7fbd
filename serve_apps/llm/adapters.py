"""The LoRA adapters of one replica, each fetched, checked and loaded when a request first asks for it.

vLLM has resolvers for this, which we do without: they load whatever path a request names, want the switch that also
opens vLLM's routes for loading, tell a base only by the very string it was started with, and do not say what is wrong.
"""

import asyncio
import itertools
import logging
import re
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from serve_apps.common.config import ADAPTER_NAME
from serve_apps.common.errors import NotFound, ServingError, Unavailable, Unprocessable
from serve_apps.common.middleware import ASGIApp, Receive, Scope, Send, send_error
from serve_apps.common.protocol import ADAPTER_HEADER
from serve_apps.llm import peft
from serve_apps.llm.config import AdapterSources
from serve_apps.llm.fetching import fetch

logger = logging.getLogger(__name__)

#: Adapters whose files a replica keeps, for each that the engine keeps in memory.
FILES_FOR_EACH = 4
#: When to come back while an adapter's source cannot be read, in seconds.
RETRY_AFTER_S = 5

_NAME = re.compile(ADAPTER_NAME)


class Engine(Protocol):
    """What loads adapters."""

    async def load(self, name: str, version: str, folder: Path) -> None:
        """Have requests for ``name`` use the adapter in ``folder`` from now on.

        Args:
            name: what requests name.
            version: what answers and caches name: never the same for other weights.
            folder: its files, which stay for as long as it is loaded.

        Raises:
            Exception: the engine could not; what was loaded before stays.
        """

    def unload(self, name: str) -> None:
        """Have requests for ``name`` find nothing; those that run go on."""


@dataclass(frozen=True)
class _Place:
    source: str
    subfolder: str


@dataclass(eq=False)
class _Adapter:
    place: _Place
    folder: Path
    loading: asyncio.Task[None] = field(init=False)
    users: int = 0


class Adapters:
    """Loads adapters, and keeps the files of those that were asked for last."""

    def __init__(self, model: str, engine: Engine, base: peft.Base, *, in_memory: int, root: Path) -> None:
        """``in_memory``: adapters the engine keeps; ``root``: an empty folder for their files."""
        self._model = model
        self._engine = engine
        self._base = base
        self._kept = FILES_FOR_EACH * in_memory
        self._root = root
        self._sources = AdapterSources()
        self._adapters: OrderedDict[str, _Adapter] = OrderedDict()
        self._digests: dict[str, list[str]] = {}
        self._folders = itertools.count()

    def follow(self, sources: AdapterSources) -> None:
        """Find adapters there from now on. One that has moved is loaded anew when it is asked for next."""
        self._sources = sources

    @asynccontextmanager
    async def loaded(self, name: str) -> AsyncIterator[None]:
        """While a request for the adapter ``name`` is answered: it is loaded, and its files stay.

        Raises:
            NotFound: there is no such adapter.
            Unprocessable: it cannot be used; says why.
            Unavailable: its source cannot be read now.
        """
        adapter = self._asked_for(name, self._place(name))
        adapter.users += 1
        try:
            # Others wait for it too, so it goes on if this client leaves.
            await asyncio.shield(adapter.loading)
            yield
        finally:
            adapter.users -= 1
            self._tidy(name, adapter)

    def _place(self, name: str) -> _Place:
        if source := self._sources.named.get(name):
            return _Place(source, "")
        if self._sources.directory is None or not _NAME.fullmatch(name):
            raise self._unknown(name)
        return _Place(self._sources.directory, name)

    def _asked_for(self, name: str, place: _Place) -> _Adapter:
        adapter = self._adapters.get(name)
        if adapter is None or adapter.place != place:
            before, adapter = adapter, _Adapter(place, self._root / str(next(self._folders)))
            adapter.loading = asyncio.ensure_future(self._load(name, adapter, before))
            adapter.loading.add_done_callback(_nobody_waits)
            self._adapters[name] = adapter
        self._adapters.move_to_end(name)
        return adapter

    async def _load(self, name: str, adapter: _Adapter, before: _Adapter | None) -> None:
        if before is not None:
            await asyncio.wait([before.loading])
            self._tidy(name, before)
        try:
            digest = await asyncio.to_thread(self._fetched, adapter)
            loaded = self._digests.get(name, [])
            versions = loaded if digest in loaded else [*loaded, digest]
            number = versions.index(digest) + 1
            await self._engine.load(name, name if number == 1 else f"{name}@{number}", adapter.folder)
            self._digests[name] = versions
        except Exception as error:
            # The next request tries again.
            if self._adapters.get(name) is adapter:
                del self._adapters[name]
            shutil.rmtree(adapter.folder, ignore_errors=True)
            raise self._refusal(name, adapter, error) from error
        logger.info("loaded a LoRA adapter", extra={"adapter": name, "source": adapter.place.source})

    def _fetched(self, adapter: _Adapter) -> str:
        digest = fetch(adapter.place.source, adapter.place.subfolder, adapter.folder)
        peft.check(adapter.folder, self._base)
        return digest

    def _refusal(self, name: str, adapter: _Adapter, error: Exception) -> ServingError:
        lacks = error.filename if isinstance(error, FileNotFoundError) else None
        if lacks == peft.CONFIG and adapter.place.subfolder:
            return self._unknown(name)
        logger.warning("a LoRA adapter cannot be used", extra={"adapter": name, "problem": repr(error)})
        if isinstance(error, OSError) and lacks is None:
            return Unavailable(
                f'The adapter "{name}" of the model "{self._model}" cannot be fetched now.',
                code="adapter_unavailable",
                retry_after_s=RETRY_AFTER_S,
            )
        why = f"its source has no {lacks}" if lacks else _plain(error, adapter.folder)
        return Unprocessable(
            f'The adapter "{name}" of the model "{self._model}" cannot be used: {why}.',
            code="adapter_unusable",
            param="model",
        )

    def _unknown(self, name: str) -> NotFound:
        return NotFound(f'The model "{self._model}:{name}" does not exist.', param="model", code="model_not_found")

    def _tidy(self, name: str, adapter: _Adapter) -> None:
        """Remove what nobody uses: files that were replaced, and the oldest beyond the limit."""
        if self._adapters.get(name) is not adapter and not adapter.users and adapter.loading.done():
            shutil.rmtree(adapter.folder, ignore_errors=True)
        idle = [one for one, kept in self._adapters.items() if not kept.users and kept.loading.done()]
        for oldest in idle[: max(0, len(self._adapters) - self._kept)]:
            self._engine.unload(oldest)
            shutil.rmtree(self._adapters.pop(oldest).folder, ignore_errors=True)


class OnDemand:
    """ASGI middleware: a request for an adapter goes on once that is loaded."""

    def __init__(self, app: ASGIApp, *, adapters: Adapters) -> None:
        self.app = app
        self._adapters = adapters
        self._header = ADAPTER_HEADER.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["headers"] if scope["type"] == "http" else ()
        name = next((value for key, value in headers if key == self._header), None)
        if name is None:
            await self.app(scope, receive, send)
            return
        try:
            async with self._adapters.loaded(name.decode("latin-1")):
                await self.app(scope, receive, send)
        except ServingError as error:  # not from within: vLLM's app raises none of ours
            await send_error(send, error)


def _nobody_waits(loading: asyncio.Task[None]) -> None:
    """Take the failure of an adapter whose every client has left."""
    if not loading.cancelled():
        loading.exception()


def _plain(error: Exception, folder: Path) -> str:
    """What an error says, in one line and without the replica's folders."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].replace(str(folder), "its folder").rstrip(".")
